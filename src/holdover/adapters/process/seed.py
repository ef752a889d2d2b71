"""The state of a foreign venue overnight, as the owner of the state exports it: a JSON or CSV file.

    {"orders": [{"client": "DESK", "account": "A1", "cl_ord_id": "GTC-1", "symbol": "ACME", "side": "buy",
                 "order_qty": "100", "cum_qty": "40", "price": "98.05", "time_in_force": "GTC", "avg_px": "98.01"}],
     "positions": [{"client": "DESK", "account": "A1", "symbol": "ACME", "net_qty": "40"}],
     "numbers": {"DESK": {"out": 57, "in": 43}}}

A CSV file has the same fields as columns, and a row for each order and position; a row without `cl_ord_id` is
a position. `numbers` are the next sequence numbers of each session, in the directions of the venue; without
them the sessions restart. Quantities and prices are decimals in the instrument's units.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from holdover.adapters.fix.end_of_day import EndOfDayState, make_sequence_files
from holdover.adapters.fix.venue_engine import VenueStateError
from holdover.adapters.process.config import ProcessConfig
from holdover.model import Instrument, OrdStatus, OrdType, Position, Side, TimeInForce
from holdover.world import Venue, VirtualClock
from holdover.world.book import WorkingOrder

_ORDER_FIELDS: Final = ("client", "account", "cl_ord_id", "symbol", "side", "order_qty")
_OPTIONAL_ORDER_FIELDS: Final = (
    "cum_qty", "price", "time_in_force", "avg_px", "order_id", "expire_date", "trade_date", "orig_cl_ord_id"
)  # fmt: skip
_POSITION_FIELDS: Final = ("client", "account", "symbol", "net_qty")
_SIDES: Final = {"buy": Side.BUY, "1": Side.BUY, "sell": Side.SELL, "2": Side.SELL, "sell short": Side.SELL_SHORT}
_SIDE_NAMES: Final = "buy, sell, sell short"
_TIFS: Final = {"GTC": TimeInForce.GTC, "1": TimeInForce.GTC, "GTD": TimeInForce.GTD, "6": TimeInForce.GTD}


def read_night_export(
    path: Path, config: ProcessConfig, instruments: Iterable[Instrument], trade_date: str
) -> EndOfDayState:
    """Read the night after `trade_date` from a file. Raises `VenueStateError` that lists everything wrong with it."""
    orders, positions, sessions = _read_export(path)
    problems: list[str] = []
    seeder = _NightSeeder(config, list(instruments), trade_date, problems)
    for number, row in enumerate(orders, 1):
        seeder.add_order(f"order {number}", row)
    for number, row in enumerate(positions, 1):
        seeder.add_position(f"position {number}", row)
    engine = seeder.session_numbers(sessions)
    if problems:
        raise VenueStateError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return EndOfDayState(trade_date=trade_date, venue=seeder.venue.to_bytes(), owners=seeder.owners, engine=engine)


def _read_export(path: Path) -> tuple[list[Any], list[Any], dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise VenueStateError(f"{path}: cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise VenueStateError(f"{path.name}: is no text in UTF-8") from problem
    if path.suffix == ".csv":
        rows = [
            {key: value for key, value in row.items() if key and value} for row in csv.DictReader(io.StringIO(text))
        ]
        return [row for row in rows if "cl_ord_id" in row], [row for row in rows if "cl_ord_id" not in row], {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise VenueStateError(f"{path.name}: is no JSON: {problem}") from problem
    unknown = sorted(set(content) - {"orders", "positions", "numbers"}) if isinstance(content, dict) else ["no object"]
    if unknown:
        raise VenueStateError(
            f"{path.name}: {', '.join(unknown)}: it should be an object with orders, positions, numbers"
        )
    return content.get("orders", []), content.get("positions", []), content.get("numbers", {})


class _NightSeeder:
    """Puts orders and positions into a venue and collects the problems."""

    def __init__(
        self, config: ProcessConfig, instruments: list[Instrument], trade_date: str, problems: list[str]
    ) -> None:
        self.config, self.trade_date, self.problems = config, trade_date, problems
        self.instruments = {instrument.symbol: instrument for instrument in instruments}
        self.venue = Venue(VirtualClock(0), instruments)
        self.venue.reports.trade_date = trade_date
        self.owners: dict[str, str] = {}

    def add_order(self, label: str, row: Any) -> None:
        """Add one order."""
        if not self._check_fields(label, row, _ORDER_FIELDS, _OPTIONAL_ORDER_FIELDS):
            return
        instrument = self.instruments[row["symbol"]]
        terms: dict[str, Any] = {}
        order_qty, cum_qty = (
            self._parse_lots(label, row, "order_qty", instrument),
            self._parse_lots(label, row, "cum_qty", instrument),
        )
        try:
            terms["price"] = instrument.ticks(str(row["price"])) if row.get("price") else None
        except ValueError as problem:
            self.problems.append(f"{label}: price: {problem}")
        side, tif = _SIDES.get(str(row["side"]).lower()), _TIFS.get(str(row.get("time_in_force", "GTC")).upper())
        if side is None:
            self.problems.append(f"{label}: side is {row['side']!r}, it should be one of {_SIDE_NAMES}")
        if tif is None:
            self.problems.append(f"{label}: time_in_force is {row['time_in_force']!r}: only GTC and GTD are carried")
        if not 0 <= cum_qty < order_qty:
            self.problems.append(f"{label}: cum_qty should be from 0 to below order_qty: it is open")
        if row["cl_ord_id"] in self.venue.roots:
            self.problems.append(f"{label}: cl_ord_id {row['cl_ord_id']} is another order's already")
        if side is None or tif is None:
            return
        number = len(self.venue.orders) + 1
        order = WorkingOrder(
            root_cl_ord_id=str(row["cl_ord_id"]),
            cl_ord_id=str(row["cl_ord_id"]),
            orig_cl_ord_id=str(row.get("orig_cl_ord_id", "")),
            order_id=str(row.get("order_id", f"O{number}")),
            account=str(row["account"]),
            symbol=str(row["symbol"]),
            side=side,
            order_qty=order_qty,
            requested_qty=order_qty,
            cum_qty=cum_qty,
            notional=self._parse_notional(label, row, instrument, cum_qty),
            ord_type=OrdType.LIMIT if terms.get("price") is not None else OrdType.MARKET,
            time_in_force=tif,
            entered=number,
            price=terms.get("price"),
            expire_date=str(row.get("expire_date", "")),
            trade_date=str(row.get("trade_date", self.trade_date)),
            ord_status=OrdStatus.DONE_FOR_DAY,
            reference_version=self.venue.books[row["symbol"]].reference_version,
        )
        self.venue.orders[order.root_cl_ord_id] = order
        self.venue.roots[order.cl_ord_id] = order.root_cl_ord_id
        self.venue.lifecycle.order_number = number
        self.venue.books[order.symbol].add_order(order)

    def add_position(self, label: str, row: Any) -> None:
        """Add one position."""
        if not self._check_fields(label, row, _POSITION_FIELDS, ()):
            return
        instrument = self.instruments[row["symbol"]]
        try:
            net_qty = instrument.lots(str(row["net_qty"]).removeprefix("-"))
        except ValueError as problem:
            self.problems.append(f"{label}: net_qty: {problem}")
            return
        position = Position(
            account=str(row["account"]),
            symbol=str(row["symbol"]),
            net_qty=-net_qty if str(row["net_qty"]).startswith("-") else net_qty,
            trade_date=self.trade_date,
            reference_version=self.venue.books[row["symbol"]].reference_version,
        )
        self.venue.positions[position.key] = position

    def session_numbers(self, sessions: Any) -> dict[str, bytes]:
        """Return the session files with the sequence numbers."""
        parts: dict[str, bytes] = {}
        for client, session_numbers in sessions.items() if isinstance(sessions, dict) else []:
            is_valid = isinstance(session_numbers, dict) and all(
                isinstance(session_numbers.get(direction), int) and session_numbers[direction] > 0
                for direction in ("out", "in")
            )
            if client not in self.config.venue.clients or not is_valid:
                self.problems.append(f'numbers of {client}: should be {{"out": N, "in": N}} of one of the clients')
                continue
            parts |= make_sequence_files(
                self.config.venue.name, client, out_seq=session_numbers["out"], in_seq=session_numbers["in"]
            )
        return parts

    def _check_fields(self, label: str, row: Any, required: tuple[str, ...], optional: tuple[str, ...]) -> bool:
        """Return whether a row is valid; add its problems to the list."""
        if not isinstance(row, dict):
            self.problems.append(f"{label}: should be an object")
            return False
        missing = [name for name in required if row.get(name) in (None, "")]
        unknown = sorted(set(row) - {*required, *optional})
        if missing:
            self.problems.append(f"{label}: there is no {', '.join(missing)}")
        if unknown:
            self.problems.append(f"{label}: {', '.join(unknown)} is nothing that is known of it")
        if missing or unknown:
            return False
        if row["symbol"] not in self.instruments:
            self.problems.append(f"{label}: symbol {row['symbol']} is none of {', '.join(self.instruments)}")
            return False
        if row["client"] not in self.config.venue.clients:
            self.problems.append(f"{label}: client {row['client']} is none of {', '.join(self.config.venue.clients)}")
            return False
        owner = self.owners.setdefault(str(row["account"]), str(row["client"]))
        if owner != row["client"]:
            self.problems.append(f"{label}: account {row['account']} is {owner}'s already")
            return False
        return True

    def _parse_lots(self, label: str, row: dict[str, Any], name: str, instrument: Instrument) -> int:
        try:
            return instrument.lots(str(row.get(name, "0")))
        except ValueError as problem:
            self.problems.append(f"{label}: {name}: {problem}")
            return 0

    def _parse_notional(self, label: str, row: dict[str, Any], instrument: Instrument, cum_qty: int) -> int:
        """Return lots times ticks of the filled quantity, from the average price or else from the limit price."""
        average_px = row.get("avg_px") or row.get("price") or "0"
        try:
            return int((Decimal(str(average_px)) / Decimal(instrument.tick_size) * cum_qty).to_integral_value())
        except InvalidOperation:
            self.problems.append(f"{label}: avg_px is {average_px!r}, it should be a decimal number")
            return 0
