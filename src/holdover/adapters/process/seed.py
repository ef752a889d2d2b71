"""What a venue of somebody else's has open over a night, as the owner of the state exports it: a JSON or CSV file.

    {"orders": [{"client": "DESK", "account": "A1", "cl_ord_id": "GTC-1", "symbol": "ACME", "side": "buy",
                 "order_qty": "100", "cum_qty": "40", "price": "98.05", "time_in_force": "GTC", "avg_px": "98.01"}],
     "positions": [{"client": "DESK", "account": "A1", "symbol": "ACME", "net_qty": "40"}],
     "numbers": {"DESK": {"out": 57, "in": 43}}}

A CSV has the same fields as columns and a row for each order and each position; a row without `cl_ord_id` is a
position. `numbers` are the sessions' next ones, what the venue sends and what it expects; without them the sessions
begin anew. Quantities and prices are decimals in the instrument's units.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from holdover.adapters.fix.core import BadState
from holdover.adapters.fix.night import Night, numbers
from holdover.adapters.process.config import ProcessConfig
from holdover.model import Instrument, OrdStatus, OrdType, Position, Side, TimeInForce
from holdover.world import Clock, Venue
from holdover.world.book import Working

_ORDER: Final = ("client", "account", "cl_ord_id", "symbol", "side", "order_qty")
_ORDER_MORE: Final = (
    "cum_qty", "price", "time_in_force", "avg_px", "order_id", "expire_date", "trade_date", "orig_cl_ord_id"
)  # fmt: skip
_POSITION: Final = ("client", "account", "symbol", "net_qty")
_SIDES: Final = {"buy": Side.BUY, "1": Side.BUY, "sell": Side.SELL, "2": Side.SELL, "sell short": Side.SELL_SHORT}
_SIDES_SAID: Final = "buy, sell, sell short"
_TIFS: Final = {"GTC": TimeInForce.GTC, "1": TimeInForce.GTC, "GTD": TimeInForce.GTD, "6": TimeInForce.GTD}


def night_from(path: Path, config: ProcessConfig, instruments: Iterable[Instrument], trade_date: str) -> Night:
    """The night after `trade_date` that the file tells of. Raises `BadState` with everything that is wrong with it."""
    orders, positions, sessions = _read(path)
    problems: list[str] = []
    seeder = _Seeder(config, list(instruments), trade_date, problems)
    for number, row in enumerate(orders, 1):
        seeder.order(f"order {number}", row)
    for number, row in enumerate(positions, 1):
        seeder.position(f"position {number}", row)
    engine = seeder.engine(sessions)
    if problems:
        raise BadState("\n".join(f"{path.name}: {problem}" for problem in problems))
    return Night(trade_date=trade_date, venue=seeder.venue.dump(), owners=seeder.owners, engine=engine)


def _read(path: Path) -> tuple[list[Any], list[Any], dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise BadState(f"{path}: cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise BadState(f"{path.name}: is no text in UTF-8") from problem
    if path.suffix == ".csv":
        rows = [
            {key: value for key, value in row.items() if key and value} for row in csv.DictReader(io.StringIO(text))
        ]
        return [row for row in rows if "cl_ord_id" in row], [row for row in rows if "cl_ord_id" not in row], {}
    try:
        told = json.loads(text)
    except ValueError as problem:
        raise BadState(f"{path.name}: is no JSON: {problem}") from problem
    strange = sorted(set(told) - {"orders", "positions", "numbers"}) if isinstance(told, dict) else ["no object"]
    if strange:
        raise BadState(f"{path.name}: {', '.join(strange)}: it should be an object with orders, positions, numbers")
    return told.get("orders", []), told.get("positions", []), told.get("numbers", {})


class _Seeder:
    """Puts orders and positions into a venue; what is wrong is collected."""

    def __init__(
        self, config: ProcessConfig, instruments: list[Instrument], trade_date: str, problems: list[str]
    ) -> None:
        self.config, self.trade_date, self.problems = config, trade_date, problems
        self.instruments = {one.symbol: one for one in instruments}
        self.venue = Venue(Clock(0), instruments)
        self.venue.trade_date = trade_date
        self.owners: dict[str, str] = {}

    def order(self, where: str, row: Any) -> None:
        """One order."""
        if not self._fields(where, row, _ORDER, _ORDER_MORE):
            return
        one = self.instruments[row["symbol"]]
        found: dict[str, Any] = {}
        order_qty, cum_qty = self._lots(where, row, "order_qty", one), self._lots(where, row, "cum_qty", one)
        try:
            found["price"] = one.ticks(str(row["price"])) if row.get("price") else None
        except ValueError as problem:
            self.problems.append(f"{where}: price: {problem}")
        side, tif = _SIDES.get(str(row["side"]).lower()), _TIFS.get(str(row.get("time_in_force", "GTC")).upper())
        if side is None:
            self.problems.append(f"{where}: side is {row['side']!r}, it should be one of {_SIDES_SAID}")
        if tif is None:
            self.problems.append(f"{where}: time_in_force is {row['time_in_force']!r}: only GTC and GTD are carried")
        if not 0 <= cum_qty < order_qty:
            self.problems.append(f"{where}: cum_qty should be from 0 to below order_qty: it is open")
        if row["cl_ord_id"] in self.venue.roots:
            self.problems.append(f"{where}: cl_ord_id {row['cl_ord_id']} is another order's already")
        if side is None or tif is None:
            return
        number = len(self.venue.orders) + 1
        order = Working(
            root_cl_ord_id=str(row["cl_ord_id"]),
            cl_ord_id=str(row["cl_ord_id"]),
            orig_cl_ord_id=str(row.get("orig_cl_ord_id", "")),
            order_id=str(row.get("order_id", f"O{number}")),
            account=str(row["account"]),
            symbol=str(row["symbol"]),
            side=side,
            order_qty=order_qty,
            cum_qty=cum_qty,
            notional=self._notional(where, row, one, cum_qty),
            ord_type=OrdType.LIMIT if found.get("price") is not None else OrdType.MARKET,
            time_in_force=tif,
            entered=number,
            price=found.get("price"),
            expire_date=str(row.get("expire_date", "")),
            trade_date=str(row.get("trade_date", self.trade_date)),
            ord_status=OrdStatus.DONE_FOR_DAY,
            reference_version=self.venue.books[row["symbol"]].reference_version,
        )
        self.venue.orders[order.root_cl_ord_id] = order
        self.venue.roots[order.cl_ord_id] = order.root_cl_ord_id
        self.venue._order_number = number
        self.venue.books[order.symbol].rest(order)

    def position(self, where: str, row: Any) -> None:
        """One position."""
        if not self._fields(where, row, _POSITION, ()):
            return
        one = self.instruments[row["symbol"]]
        try:
            net_qty = one.lots(str(row["net_qty"]).removeprefix("-"))
        except ValueError as problem:
            self.problems.append(f"{where}: net_qty: {problem}")
            return
        held = Position(
            account=str(row["account"]),
            symbol=str(row["symbol"]),
            net_qty=-net_qty if str(row["net_qty"]).startswith("-") else net_qty,
            trade_date=self.trade_date,
            reference_version=self.venue.books[row["symbol"]].reference_version,
        )
        self.venue.positions[held.key] = held

    def engine(self, told: Any) -> dict[str, bytes]:
        """The sessions' numbers."""
        found: dict[str, bytes] = {}
        for client, one in told.items() if isinstance(told, dict) else []:
            good = isinstance(one, dict) and all(
                isinstance(one.get(way), int) and one[way] > 0 for way in ("out", "in")
            )
            if client not in self.config.clients or not good:
                self.problems.append(f'numbers of {client}: should be {{"out": N, "in": N}} of one of the clients')
                continue
            found |= numbers(self.config.venue, client, out=one["out"], heard=one["in"])
        return found

    def _fields(self, where: str, row: Any, needed: tuple[str, ...], more: tuple[str, ...]) -> bool:
        """Whether a row has what it needs and can be gone on with."""
        if not isinstance(row, dict):
            self.problems.append(f"{where}: should be an object")
            return False
        missing = [name for name in needed if row.get(name) in (None, "")]
        strange = sorted(set(row) - {*needed, *more})
        if missing:
            self.problems.append(f"{where}: there is no {', '.join(missing)}")
        if strange:
            self.problems.append(f"{where}: {', '.join(strange)} is nothing that is known of it")
        if missing or strange:
            return False
        if row["symbol"] not in self.instruments:
            self.problems.append(f"{where}: symbol {row['symbol']} is none of {', '.join(self.instruments)}")
            return False
        if row["client"] not in self.config.clients:
            self.problems.append(f"{where}: client {row['client']} is none of {', '.join(self.config.clients)}")
            return False
        owner = self.owners.setdefault(str(row["account"]), str(row["client"]))
        if owner != row["client"]:
            self.problems.append(f"{where}: account {row['account']} is {owner}'s already")
            return False
        return True

    def _lots(self, where: str, row: dict[str, Any], name: str, one: Instrument) -> int:
        try:
            return one.lots(str(row.get(name, "0")))
        except ValueError as problem:
            self.problems.append(f"{where}: {name}: {problem}")
            return 0

    def _notional(self, where: str, row: dict[str, Any], one: Instrument, cum_qty: int) -> int:
        """Lots times ticks of what has filled, by the average price that is told; by the limit where none is."""
        told = row.get("avg_px") or row.get("price") or "0"
        try:
            return int((Decimal(str(told)) / Decimal(one.tick_size) * cum_qty).to_integral_value())
        except InvalidOperation:
            self.problems.append(f"{where}: avg_px is {told!r}, it should be a decimal number")
            return 0
