"""Short constructors of records and a bare guard on a clock of its own, for the tests of single invariants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
from holdover.model import (
    OPEN,
    ExecType,
    Execution,
    Exposure,
    MsgType,
    Order,
    OrdStatus,
    Position,
    Record,
    Request,
    Side,
)
from holdover.runtime import Guard, GuardSettings

DAY = "2026-03-03"
START_NS = 1_772_546_400_000_000_000
SECOND_NS = 1_000_000_000
CATALOGUE = Catalogue.load()


class GuardBench:
    """A guard in a directory and its clock."""

    def __init__(self, directory: Path) -> None:
        self.now_ns = START_NS
        self.directory = directory
        self.guard = self.open_guard()

    def open_guard(self) -> Guard:
        """Return another guard over the same directory."""
        return Guard(self.directory, GuardSettings(), catalogue=CATALOGUE, clock=lambda: self.now_ns, channels=[])

    def record(self, *records: tuple[str, Record]) -> None:
        """Record what one cause changes, each with its subsystem."""
        with self.guard.step("step"):
            for subsystem, record in records:
                self.guard.record(subsystem, record)

    def orders(self, *records: Record) -> None:
        """Record what one cause changes in the order manager; requests belong to the gateway."""
        self.record(*(("gateway" if isinstance(record, Request) else "orders", record) for record in records))

    def restart(self, **restored: list[Record]) -> None:
        """Restore the records of each subsystem in one step."""
        with self.guard.step("restart"):
            for subsystem, records in restored.items():
                self.guard.restore(subsystem, records)

    def pass_time(self, seconds: float = 1.0) -> None:
        """Advance the clock and let time-outs run."""
        self.now_ns += int(seconds * SECOND_NS)
        self.guard.tick()

    @property
    def breached(self) -> set[str]:
        """The names of the breached invariants."""
        return {breach.invariant for breach in self.guard.breaches}

    @property
    def explanations(self) -> list[str]:
        """The explanations of the breaches."""
        return [breach.explanation for breach in self.guard.breaches]


def order(key: str = "o1", qty: int = 10, cum: int = 0, **fields: Any) -> Order:
    """Return an order of account A1 in BTC; its quantities imply its status unless that is given."""
    implied = OrdStatus.NEW if cum == 0 else OrdStatus.FILLED if cum == qty else OrdStatus.PARTIALLY_FILLED
    status = fields.pop("ord_status", implied)
    price = fields.pop("price", 100)
    terms: dict[str, Any] = {
        "cl_ord_id": key,
        "symbol": "BTC",
        "side": Side.BUY,
        "account": "A1",
        "strategy": "s1",
        "leaves_qty": qty - cum if status in OPEN else 0,
        "notional": cum * (price or 100),
        **fields,
    }
    return Order(root_cl_ord_id=key, order_qty=qty, cum_qty=cum, ord_status=status, price=price, **terms)


def fill(exec_id: str = "e1", key: str = "o1", qty: int = 10, px: int = 100, **fields: Any) -> Execution:
    """Return a trade of account A1 in BTC."""
    terms: dict[str, Any] = {"symbol": "BTC", "side": Side.BUY, "trade_date": DAY, "account": "A1", **fields}
    return Execution(
        exec_id=exec_id,
        exec_type=ExecType.TRADE,
        root_cl_ord_id=key,
        venue="V",
        last_qty=qty,
        last_px=px,
        qty_delta=qty,
        notional_delta=qty * px,
        **terms,
    )


def request(cl_ord_id: str = "o1", qty: int = 10, **fields: Any) -> Request:
    """Return a request of account A1 in BTC for a new order."""
    terms: dict[str, Any] = {
        "msg_type": MsgType.NEW_ORDER_SINGLE,
        "root_cl_ord_id": cl_ord_id,
        "symbol": "BTC",
        "side": Side.BUY,
        "account": "A1",
        "strategy": "s1",
        "price": 100,
        "trade_date": DAY,
        **fields,
    }
    return Request(cl_ord_id=cl_ord_id, order_qty=qty, **terms)


def replace_request(cl_ord_id: str, orig: str, qty: int = 10, root: str = "o1", **fields: Any) -> Request:
    """Return a request to replace a version of an order."""
    return request(
        cl_ord_id,
        qty,
        msg_type=MsgType.ORDER_CANCEL_REPLACE_REQUEST,
        orig_cl_ord_id=orig,
        root_cl_ord_id=root,
        **fields,
    )


def position(qty: int, carried: int = 0, **fields: Any) -> Position:
    """Return a position of account A1 in BTC."""
    terms: dict[str, Any] = {"account": "A1", "symbol": "BTC", "trade_date": DAY, **fields}
    return Position(net_qty=qty, carried_qty=carried, **terms)


def exposure(qty: int, buying: int = 0, selling: int = 0, **fields: Any) -> Exposure:
    """Return an exposure of account A1 in BTC."""
    terms: dict[str, Any] = {"account": "A1", "symbol": "BTC", **fields}
    return Exposure(net_qty=qty, open_buy_qty=buying, open_sell_qty=selling, **terms)
