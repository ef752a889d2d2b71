"""Records, fields and values in words, for breaches, alerts and screens.

People read decimals, sides and statuses in words, and times with their zone; the raw record stands elsewhere.
A record kind or field that this module does not know is described by its own name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from holdover.model import (
    CASH_UNIT,
    Balance,
    Book,
    CashMovement,
    ClockReading,
    Execution,
    Exposure,
    FreezeSet,
    Instrument,
    Intent,
    Limit,
    Link,
    Margin,
    Order,
    ParentOrder,
    Position,
    PositionAdjustment,
    Protection,
    RealizedPnl,
    Recompute,
    Reconciliation,
    ReconciliationEffort,
    Record,
    Recovery,
    Repetition,
    Request,
    Restored,
    RestoredOrders,
    Side,
)

FIELD_WORDS: Final[dict[str, str]] = {
    "order_qty": "order quantity",
    "cum_qty": "filled quantity",
    "leaves_qty": "open quantity",
    "filled_qty": "filled quantity",
    "working_qty": "working quantity",
    "net_qty": "net position",
    "carried_qty": "carried position",
    "reserved_qty": "reserved quantity",
    "notional": "traded notional",
    "ord_status": "status",
    "ord_type": "order type",
    "price": "limit price",
    "stop_px": "stop price",
    "last_qty": "execution quantity",
    "last_px": "execution price",
    "qty_delta": "booked quantity",
    "notional_delta": "booked notional",
    "signed_qty": "signed quantity",
    "cash_delta": "cash flow",
    "cl_ord_id": "ClOrdID",
    "root_cl_ord_id": "first ClOrdID",
    "orig_cl_ord_id": "OrigClOrdID",
    "cl_ord_link_id": "ClOrdLinkID",
    "order_id": "OrderID",
    "exec_id": "ExecID",
    "exec_ref_id": "ExecRefID",
    "exec_type": "execution type",
    "time_in_force": "time in force",
    "position_effect": "position effect",
    "reference_version": "reference data version",
    "in_seq": "inbound sequence number",
    "out_seq": "outbound sequence number",
    "msg_type": "message type",
    "expire_date": "expiry date",
    "exec_restatement_reason": "reason of the restatement",
    "exec_ref_date": "date of the ExecRefID",
    "ord_rej_reason": "reason of the rejection",
    "cxl_rej_reason": "reason of the cancel rejection",
    "cxl_rej_response_to": "rejected request",
    "last_rpt_requested": "last report requested",
    "tot_num_reports": "number of reports",
    "avg_px": "average price",
    "transact_time_ns": "transaction time",
    "status_by_quantities": "status that the quantities imply",
    "stored": "number of stored records",
    "restored": "number of restored records",
    "compared": "number of compared records",
    "totals": "number of totals",
    "in_force": "number of freezes in force",
    "adopted": "number of adopted records",
    "missing": "number of missing records",
    "regressed": "number of records that came back older",
    "differences": "number of differing totals",
    "lost_count": "number of lost freezes",
    "differing": "number of differing records",
    "changed": "number of changed records",
    "poss_resend": "a possible resend",
    "declared": "announced",
    "foreign": "foreign",
    "position_max": "position limit",
    "order_qty_max": "order quantity limit",
    "open_qty_max": "open quantity limit",
    "unacknowledged": "unacknowledged count",
    "closing_uncancelled_qty": "closing quantity",
    "closing_alone_qty": "closing quantity",
    "closing_claimed_qty": "claimed closing quantity",
    "closing_filled_qty": "filled closing quantity",
    "triggering_qty": "unfilled entry quantity",
    "alternatives_filled_qty": "filled quantity",
    "alternatives_working_qty": "working quantity",
    "filled_alternative_count": "number of filled alternatives",
    "stop_buy_qty": "stop quantity to buy",
    "stop_sell_qty": "stop quantity to sell",
    "claimed_qty": "claimed quantity",
    "target_qty": "target quantity",
    "maintenance": "maintenance margin",
    "leverage_max": "maximum leverage",
    "realized": "realized profit",
    "carried_realized": "carried realized profit",
    "open_cost": "cost of the open quantity",
    "signed_notional": "signed notional",
    "book_key": "position",
    "attempts": "number of attempts to reconcile",
    "unreconciled_ns": "time without a complete reconciliation",
    "epoch": "connection number",
    "link_epoch": "connection number",
    "is_pending": "waiting for the venue's answer",
    "time_ns": "time",
    "previous_ns": "time read before",
}
"""The words for the fields of the built-in records. Other fields are described by their names."""

_ABBREVIATIONS: Final = {"qty": "quantity", "px": "price", "id": "ID", "ord": "order", "seq": "sequence number"}
PLURALS: Final = frozenset({"fees", "transfers"})
"""The fields whose words are plural."""

_RAW_RECORD: Final = re.compile(r"<([A-Z]\w*) ?([^<>]*)>")
_ENUM_WORDS: Final = {
    "GTC": "GTC",
    "GTD": "GTD",
    "IOC": "IOC",
    "FOK": "FOK",
    "GT_CORPORATE_ACTION": "corporate action",
    "GT_RENEWAL": "renewal",
}
"""Values of FIX enumerations whose names in lower case are no words."""

_STATUS_NAME: Final = re.compile(r"(?<![\w.-])[A-Z]+(?:_[A-Z]+)+(?![\w.-])")
_CASH_FIELDS: Final = ("cash", "fee", "transfers", "amount", "equity", "maintenance")
"""Fields in the cash unit, whatever the instrument."""
_NOTIONAL_FIELDS: Final = ("notional", "realized", "_cost")
"""Fields in lots times ticks."""

_DAYTIME_NS: Final = 10**17
"""A value of a `_ns` field above this is a time since the epoch, below it a duration."""


def field_words(name: str) -> str:
    """Return a field's name in words, without an article."""
    if name in FIELD_WORDS:
        return FIELD_WORDS[name]
    words = [_ABBREVIATIONS.get(word, word) for word in name.strip("_").split("_")]
    return " ".join(word for word in words if word not in ("ns", "is", "has")) or name


def kind_words(kind: type[Record]) -> str:
    """Return a record kind's name in lower-case words: `parent order` for `ParentOrder`."""
    return _spaced(kind.__name__)


def describe_record(record: Record, instrument: Instrument | None = None) -> str:
    """Return what identifies a record, in words: `Order A1 (BUY 100 IBM)`.

    Quantities are in the instrument's decimals when it is known, in lots otherwise.
    """
    match record:
        case Order():
            return f"Order {record.root_cl_ord_id} ({_side_and_quantity(record, instrument)}){_account(record.account)}"
        case Request():
            verb = record.msg_type.name.replace("_", " ").lower()
            return f"Request {record.cl_ord_id} ({verb}: {_side_and_quantity(record, instrument)})"
        case ParentOrder():
            return f"Parent order {record.parent_id} ({_side_and_quantity(record, instrument)})"
        case Execution():
            quantity = format_quantity(record.last_qty, instrument)
            price = format_price(record.last_px, instrument)
            return (
                f"Execution {record.exec_id} of order {record.root_cl_ord_id} "
                f"({_side(record.side)} {quantity} {record.symbol} at {price})"
            )
        case Intent():
            return f"Intent {record.intent_id} ({_side_and_quantity(record, instrument)}){_account(record.account)}"
        case Limit():
            return f"Limit{_account(record.account)} in {record.symbol}"
        case Position() | Exposure():
            return f"{type(record).__name__}{_account(record.account)} in {record.symbol}{_leg(record)}"
        case Balance() | Margin():
            return f"{type(record).__name__} of account {record.account} in {record.currency}"
    return _describe_account_record(record, instrument)


def _describe_account_record(record: Record, instrument: Instrument | None) -> str:
    """Return what identifies a record about an account's movements and results."""
    match record:
        case PositionAdjustment():
            quantity = format_quantity(record.qty_delta, instrument)
            change = f"{record.reason.value} {quantity} {record.symbol}{_leg(record)}"
            return f"Adjustment {record.adjustment_id} ({change}){_account(record.account)}"
        case CashMovement():
            amount = _with_separators(f"{(record.amount * CASH_UNIT).normalize():f}")
            change = f"{record.reason.value} {amount} {record.currency}"
            return f"Cash movement {record.movement_id} ({change}){_account(record.account)}"
        case RealizedPnl():
            return f"Realized profit{_account(record.account)} in {record.symbol}{_leg(record)}"
        case Protection():
            return f"Stop protection{_account(record.account)} in {record.symbol}{_leg(record)}"
    return _describe_system_record(record)


def _describe_system_record(record: Record) -> str:
    """Return what identifies a record about the system itself, or one of a kind that this module does not know."""
    match record:
        case Link():
            return f"Link {record.name}"
        case Reconciliation() | ReconciliationEffort():
            return f"Reconciliation of link {record.link}"
        case Book():
            return f"Book of {record.symbol}"
        case Recompute():
            return f"Recomputation of the totals at the boundary {record.boundary}"
        case FreezeSet():
            return f"Freezes in force at the boundary {record.boundary}"
        case Recovery():
            return f"Recovery of the {record.subsystem} subsystem"
        case RestoredOrders():
            return "Working orders after the restart"
        case Restored():
            return f"Records restored from {record.store}"
        case Repetition():
            return f"Repeated reconciliation of {record.trade_date}"
        case ClockReading():
            return "Clock reading"
    text = f"{kind_words(type(record))} {record.key}".strip()
    return text[:1].upper() + text[1:]


def describe_example(example: str) -> str:
    """Return the example of a self-check without the brackets of the records in it, and without `None`."""
    for pattern, describe in _RAW_EXAMPLES:
        example = pattern.sub(describe, example)
    count = 1
    while count:  # a record may contain another
        example, count = _RAW_RECORD.subn(lambda match: f"{_spaced(match[1])} {match[2]}".rstrip(), example)
    example = _STATUS_NAME.sub(lambda match: match[0].replace("_", " "), example)
    return re.sub(r"\bNone\b", "nothing", example).replace("<", "").replace(">", "")


def _raw_order(match: re.Match[str]) -> str:
    state = match[2].replace("_", " ").lower()
    return f"order {match[1]} ({state}, {int(match[3]):,} of {int(match[4]):,} filled, {int(match[5]):,} open)"


def _raw_parent(match: re.Match[str]) -> str:
    return f"parent order {match[1]} ({int(match[2]):,} of {int(match[3]):,} filled, {int(match[4]):,} working)"


def _raw_balance(match: re.Match[str]) -> str:
    cash, carried = (format_value(int(amount), "cash", None) for amount in (match[3], match[4]))
    return f"balance of account {match[1]} in {match[2]} ({cash}, carried {carried})"


def _raw_total(match: re.Match[str]) -> str:
    kind, of = _spaced(match[1]), field_words(match[2])
    return f"the total {of} of the {kind}s of {match[3]} is {int(match[4]):,}, computed again {int(match[5]):,}"


def _raw_freeze(match: re.Match[str]) -> str:
    return f"freeze {match[1]} of {match[2]}, {match[3].replace('by by', 'by')}"


_RAW_EXAMPLES: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]] = (
    (re.compile(r"<Order (\S+) ([A-Z_]+) (-?\d+)/(-?\d+) leaves (-?\d+)>"), _raw_order),
    (re.compile(r"<ParentOrder (\S+) (-?\d+)/(-?\d+) working (-?\d+)>"), _raw_parent),
    (re.compile(r"<Balance (\S+) (\S+) (-?\d+) carried (-?\d+) *([\d-]*)>"), _raw_balance),
    (re.compile(r"\w+\.(\w+)\.(\w+)\[([^\]]*)\] kept (-?\d+) recomputed (-?\d+)"), _raw_total),
    (re.compile(r"<Freeze (\d+) (\S+) (by .+)>"), _raw_freeze),
)
"""The raw texts of self-checks that have words of their own; the incident ledger reads the raw ones."""


def _spaced(class_name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", class_name).lower()


def _account(account: str) -> str:
    return f" of account {account}" if account else ""


def _leg(record: Position | Exposure | Protection | RealizedPnl | PositionAdjustment) -> str:
    """Return the leg of hedge mode, in words; empty for a net position."""
    if record.position_id:
        return f", leg {record.position_id}"
    return f", {record.position_side.value.lower()} leg" if record.position_side is not None else ""


def _side_and_quantity(record: Order | Request | ParentOrder | Intent, instrument: Instrument | None) -> str:
    lots = record.target_qty if isinstance(record, Intent) else record.order_qty
    return f"{_side(record.side)} {format_quantity(lots, instrument)} {record.symbol}"


def _side(side: Side) -> str:
    return side.name.replace("_", " ")


def format_quantity(lots: int, instrument: Instrument | None) -> str:
    """Return a quantity with separators: in the instrument's decimals, in lots without an instrument."""
    return _with_separators(instrument.quantity_text(lots)) if instrument is not None else f"{lots:,}"


def format_price(ticks: int, instrument: Instrument | None) -> str:
    """Return a price in the instrument's decimals, in ticks without an instrument."""
    if instrument is not None:
        return _with_separators(instrument.price_text(ticks))
    return f"{ticks:,} tick" + ("" if abs(ticks) == 1 else "s")


def format_value(value: Any, name: str, instrument: Instrument | None) -> str:
    """Return the value of a field, or of an expression over fields, as people read it.

    Args:
        value: an integer in the model's units, an enum, a text, a record, or a collection of these.
        name: the field's name, or the names in the expression; it decides the unit (`_qty`, `price`, `_px`, `_ns` ...).
        instrument: gives the decimals; without it integers are printed as they are.
    """
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return _ENUM_WORDS.get(value.name) or value.name.replace("_", " ").lower()
    if isinstance(value, frozenset | set | tuple | list):
        return ", ".join(sorted({format_value(item, name, instrument) for item in value})) or "nothing"
    if isinstance(value, Record):
        return describe_record(value, instrument)
    if isinstance(value, int):
        return _format_integer(value, name, instrument)
    return str(value) or "empty"


def _format_integer(value: int, name: str, instrument: Instrument | None) -> str:
    if name.endswith("_ns"):
        return format_time(value) if is_daytime(value) else format_duration(value)
    if any(word in name for word in _CASH_FIELDS):
        return _with_separators(f"{(value * CASH_UNIT).normalize():f}")
    if instrument is not None and any(word in name for word in _NOTIONAL_FIELDS):
        return _with_separators(instrument.notional_text(value))
    if instrument is not None and ("price" in name or "_px" in name):
        return _with_separators(instrument.price_text(value))
    if instrument is not None and "qty" in name:
        return _with_separators(instrument.quantity_text(value))
    return f"{value:,}"


def is_daytime(value_ns: int) -> bool:
    """Whether a value in ns is a time since the epoch; a smaller one is a duration."""
    return abs(value_ns) >= _DAYTIME_NS


def format_time(time_ns: int, *, exact: bool = False) -> str:
    """Return a time in UTC to the millisecond, or exactly to the nanosecond: `2024-11-27 14:31:05.250 UTC`."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, tz=UTC)
    fraction = f"{time_ns % 1_000_000_000:09d}" if exact else f"{time_ns // 1_000_000 % 1000:03d}"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{fraction} UTC"


def format_duration(duration_ns: int) -> str:
    """Return a duration as people say it: `250 ms`, `1.5 s`, `2 min 5 s`, `3 h 20 min`."""
    sign, size = ("-", -duration_ns) if duration_ns < 0 else ("", duration_ns)
    if size < 1_000_000_000:
        return f"{sign}{size / 1_000_000:g} ms"
    seconds = size / 1_000_000_000
    if seconds < 60:
        return f"{sign}{seconds:g} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_min = divmod(minutes, 60)
    if hours:
        return f"{sign}{hours:,} h" + (f" {rest_min} min" if rest_min else "")
    return f"{sign}{minutes} min" + (f" {rest_s} s" if rest_s else "")


def format_window(duration_ns: int) -> str:
    """Return a duration after `the last`: `second` for one second, `10 s` for ten. Raises `ValueError` for none."""
    if duration_ns <= 0:
        raise ValueError(f"nothing can be counted within {duration_ns} ns; the time is above 0")
    return "second" if duration_ns == 1_000_000_000 else format_duration(duration_ns)


def _with_separators(decimal_text: str) -> str:
    whole, point, fraction = decimal_text.partition(".")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    grouped = f"{int(digits):,}" if digits.isdigit() else digits
    return f"{sign}{grouped}{point}{fraction}"
