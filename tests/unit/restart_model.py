"""A small correct trading system over several days, as the records that it would tell a guard.

`TradingModel` turns drawn operations into events: steps, nights and restarts. `HistoryPlayer` tells the events to a
guard as a system would that records only some of them and reads back only some of them at a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.model import (
    Balance,
    ExecType,
    Execution,
    Exposure,
    MsgType,
    Order,
    OrdStatus,
    ParentOrder,
    Position,
    PositionEffect,
    Record,
    Request,
    Side,
    TimeInForce,
)
from holdover.runtime import Guard, GuardSettings

DAYS = ("2026-03-02", "2026-03-03", "2026-03-04", "2026-03-05", "2026-03-06")
SYMBOLS = ("BTC", "ETH")
SECOND_NS = 1_000_000_000
START_NS = 1_772_546_400_000_000_000
Entries = list[tuple[str, Record]]


@dataclass
class Event:
    """One event: a step with its records, a night, a restart with what the system had, or the end of a recovery."""

    kind: str
    entries: Entries = field(default_factory=list)
    trade_date: str = ""


class TradingModel:
    """A system of one account that trades a few instruments; every event that it makes is correct."""

    def __init__(self) -> None:
        self.day = 0
        self.orders: dict[str, Order] = {}
        self.executions: list[Execution] = []
        self.net: dict[str, int] = {}
        self.carried: dict[str, int] = {}
        self.cash = self.carried_cash = 0
        self.parents: dict[str, ParentOrder] = {}
        self.events: list[Event] = []
        self.number = 0

    @property
    def trade_date(self) -> str:
        """The present trade date."""
        return DAYS[self.day]

    # -- operations ---------------------------------------------------------------------------------------------

    def perform(self, operation: str, index: int, amount: int) -> None:
        """Perform an operation, if it is possible now. `index` chooses an order or instrument, `amount` lots."""
        if operation == "new":
            self.enter(SYMBOLS[index % len(SYMBOLS)], amount, index)
            return
        if operation == "night":
            self.pass_night()
            return
        if operation in ("restart", "reconciled"):
            self.events.append(Event(operation, self.state() if operation == "restart" else [], self.trade_date))
            return
        open_orders = [order for order in self.orders.values() if order.is_open]
        if operation == "bust":
            self.bust(index)
        elif open_orders:
            order = open_orders[index % len(open_orders)]
            actions = {"fill": self.fill, "fill-all": self.fill_all, "cancel": self.cancel, "replace": self.replace}
            actions[operation](order, amount)

    def enter(self, symbol: str, qty: int, index: int) -> None:
        """Send a new order; the venue acknowledges it."""
        self.number += 1
        key = f"o{self.number}"
        net, reserved = self.net.get(symbol, 0), self.reserved_qty(symbol)
        is_sale = index % 3 == 0
        parent_id = f"P-{symbol}" if not is_sale and index % 2 else ""
        order = Order(
            root_cl_ord_id=key,
            cl_ord_id=key,
            symbol=symbol,
            side=Side.SELL if is_sale else Side.BUY,
            order_qty=qty,
            leaves_qty=qty,
            account="A1",
            strategy="s1",
            price=100 + index,
            time_in_force=TimeInForce.GTC if index % 4 else TimeInForce.DAY,
            trade_date=self.trade_date,
            position_effect=PositionEffect.CLOSE if is_sale and net - reserved >= qty else PositionEffect.OPEN,
            cl_ord_link_id=parent_id,
        )
        if parent_id and parent_id not in self.parents:
            self.parents[parent_id] = ParentOrder(
                parent_id=parent_id, symbol=symbol, side=Side.BUY, order_qty=1_000_000, account="A1", strategy="s1"
            )
        self.step([order], [self.request(order, MsgType.NEW_ORDER_SINGLE, key)])
        self.step([replace(order, ord_status=OrdStatus.NEW, order_id=f"V-{key}", exec_type=ExecType.NEW)])

    def fill(self, order: Order, amount: int) -> None:
        """Fill a part of an order."""
        qty = min(amount, order.leaves_qty)
        price = order.price or 100
        self.number += 1
        sign = 1 if order.side == Side.BUY else -1
        execution = Execution(
            exec_id=f"e{self.number}",
            exec_type=ExecType.TRADE,
            root_cl_ord_id=order.key,
            cl_ord_id=order.cl_ord_id,
            symbol=order.symbol,
            side=order.side,
            trade_date=self.trade_date,
            account="A1",
            strategy=order.strategy,
            venue="V",
            currency="USD",
            last_qty=qty,
            last_px=price,
            qty_delta=qty,
            notional_delta=qty * price,
            cash_delta=-sign * qty * price,
        )
        self.book(order, execution)

    def fill_all(self, order: Order, amount: int) -> None:
        """Fill what is left of an order."""
        self.fill(order, order.leaves_qty)

    def book(self, order: Order, execution: Execution) -> None:
        """Book an execution in every subsystem, in one step."""
        self.executions.append(execution)
        self.net[order.symbol] = self.net.get(order.symbol, 0) + execution.signed_qty
        self.cash += execution.cash_delta
        cum_qty = order.cum_qty + execution.qty_delta
        after = replace(
            order,
            cum_qty=cum_qty,
            notional=order.notional + execution.notional_delta,
            exec_type=execution.exec_type,
            exec_id=execution.exec_id,
            exec_ref_id=execution.exec_ref_id,
        )
        if order.is_open or order.ord_status == OrdStatus.FILLED:
            after = replace(after, leaves_qty=order.order_qty - cum_qty, ord_status=after.status_by_quantities)
        self.step([after], [execution])

    def bust(self, index: int) -> None:
        """The venue takes back a fill of the day."""
        busted = {execution.exec_ref_id for execution in self.executions}
        fills = [
            execution
            for execution in self.executions
            if execution.trade_date == self.trade_date
            and execution.exec_type == ExecType.TRADE
            and execution.exec_id not in busted
        ]
        if not fills:
            return
        original = fills[index % len(fills)]
        order = self.orders[original.root_cl_ord_id]
        is_covered = order.side != Side.BUY or self.net[order.symbol] - original.qty_delta >= self.reserved_qty(
            order.symbol
        )
        if not is_covered:
            return
        self.number += 1
        self.book(
            order,
            replace(
                original,
                exec_id=f"b{self.number}",
                exec_type=ExecType.TRADE_CANCEL,
                exec_ref_id=original.exec_id,
                last_qty=0,
                qty_delta=-original.qty_delta,
                notional_delta=-original.notional_delta,
                cash_delta=-original.cash_delta,
            ),
        )

    def cancel(self, order: Order, amount: int) -> None:
        """Ask for a cancel; the venue cancels."""
        request_id = f"{order.key}~c{amount}.{self.next_number()}"
        pending = replace(order, ord_status=OrdStatus.PENDING_CANCEL, exec_type=None)
        self.step([pending], [self.request(order, MsgType.ORDER_CANCEL_REQUEST, request_id)])
        self.step([replace(pending, ord_status=OrdStatus.CANCELED, leaves_qty=0, exec_type=ExecType.CANCELED)])

    def replace(self, order: Order, amount: int) -> None:
        """Ask for another price and a larger quantity; the venue replaces."""
        request_id = f"{order.key}~r{self.next_number()}"
        is_closing = order.position_effect == PositionEffect.CLOSE
        qty = order.order_qty + (0 if is_closing else amount)
        price = (order.price or 100) + 1
        replaced = replace(order, order_qty=qty, price=price)
        pending = replace(order, ord_status=OrdStatus.PENDING_REPLACE, exec_type=None)
        self.step([pending], [self.request(replaced, MsgType.ORDER_CANCEL_REPLACE_REQUEST, request_id)])
        after = replace(
            replaced,
            cl_ord_id=request_id,
            orig_cl_ord_id=order.cl_ord_id,
            leaves_qty=qty - order.cum_qty,
            exec_type=ExecType.REPLACED,
        )
        self.step([replace(after, ord_status=after.status_by_quantities)])

    def pass_night(self) -> None:
        """End the day: DAY orders expire; the next day begins with what is carried."""
        if self.day + 1 >= len(DAYS):
            return
        expired = [
            replace(order, ord_status=OrdStatus.EXPIRED, leaves_qty=0, exec_type=ExecType.EXPIRED)
            for order in self.orders.values()
            if order.is_open and not order.is_carried
        ]
        self.step(expired)
        self.events.append(Event("night", [], self.trade_date))
        self.day += 1
        self.carried, self.carried_cash = dict(self.net), self.cash
        self.events.append(Event("begin", self.books(), self.trade_date))

    # -- records ------------------------------------------------------------------------------------------------

    def next_number(self) -> int:
        """Return a number that was not used before."""
        self.number += 1
        return self.number

    def request(self, order: Order, msg_type: MsgType, cl_ord_id: str) -> Request:
        """Return a request about an order."""
        return Request(
            msg_type=msg_type,
            cl_ord_id=cl_ord_id,
            orig_cl_ord_id="" if msg_type == MsgType.NEW_ORDER_SINGLE else order.cl_ord_id,
            root_cl_ord_id=order.key,
            symbol=order.symbol,
            side=order.side,
            order_qty=order.order_qty,
            account="A1",
            strategy=order.strategy,
            price=order.price,
            time_in_force=order.time_in_force,
            position_effect=order.position_effect,
            cl_ord_link_id=order.cl_ord_link_id,
            trade_date=self.trade_date,
        )

    def step(self, orders: Iterable[Order], further_records: Iterable[Record] = ()) -> None:
        """Append a step in which orders change, with all that follows from it."""
        changed = list(orders)
        for order in changed:
            self.orders[order.key] = order
        entries: Entries = [
            ("gateway" if isinstance(record, Request) else "orders", record) for record in further_records
        ]
        entries += [("orders", order) for order in changed]
        for parent_id in {order.cl_ord_link_id for order in changed if order.cl_ord_link_id}:
            children = [order for order in self.orders.values() if order.cl_ord_link_id == parent_id]
            self.parents[parent_id] = replace(
                self.parents[parent_id],
                filled_qty=sum(child.cum_qty for child in children),
                working_qty=sum(child.working_qty for child in children),
            )
            entries.append(("orders", self.parents[parent_id]))
        symbols = {order.symbol for order in changed}
        entries += [entry for entry in self.books() if getattr(entry[1], "symbol", next(iter(symbols), "")) in symbols]
        self.events.append(Event("step", entries, self.trade_date))

    def reserved_qty(self, symbol: str) -> int:
        """Return what the closing orders of an instrument reserve."""
        return sum(order.closing_qty for order in self.orders.values() if order.symbol == symbol)

    def books(self) -> Entries:
        """Return position, exposure and balance as they are now."""
        entries: Entries = []
        for symbol in dict.fromkeys([*self.net, *(order.symbol for order in self.orders.values())]):
            orders = [order for order in self.orders.values() if order.symbol == symbol]
            net = self.net.get(symbol, 0)
            entries.append(
                (
                    "positions",
                    Position(
                        account="A1",
                        symbol=symbol,
                        net_qty=net,
                        carried_qty=self.carried.get(symbol, 0),
                        reserved_qty=self.reserved_qty(symbol),
                        trade_date=self.trade_date,
                    ),
                )
            )
            entries.append(
                (
                    "risk",
                    Exposure(
                        account="A1",
                        symbol=symbol,
                        net_qty=net,
                        open_buy_qty=sum(order.open_buy_qty for order in orders),
                        open_sell_qty=sum(order.open_sell_qty for order in orders),
                    ),
                )
            )
        balance = Balance(
            account="A1",
            currency="USD",
            cash=self.cash,
            carried_cash=self.carried_cash,
            trade_date=self.trade_date,
        )
        return [*entries, ("ledger", balance)]

    def state(self) -> Entries:
        """Return everything that the system holds now."""
        records: list[Record] = [*self.orders.values(), *self.executions, *self.parents.values()]
        return [("orders", record) for record in records] + self.books()


@dataclass(frozen=True)
class Habits:
    """What a system records and what it reads back.

    `kinds` are the recorded tables, `empty` the fields that it never sets. It reads back its `working` orders, also
    those of `today`, or `all`, with or without their `executions`. `books` says whether it reads back its positions
    and balances, `guard` which guard meets it then: the `same`, another with its `memory`, or a `new` one.
    """

    kinds: frozenset[str]
    empty: frozenset[str] = frozenset()
    orders: str = "all"
    executions: bool = True
    books: bool = True
    guard: str = "same"


TABLES = (
    "orders.Order",
    "orders.Execution",
    "orders.ParentOrder",
    "positions.Position",
    "risk.Exposure",
    "gateway.Request",
    "ledger.Balance",
)
OPTIONAL_FIELDS = ("strategy", "reserved_qty", "trade_date", "notional", "order_id", "cl_ord_link_id")


class HistoryPlayer:
    """Tells a history to a guard as a system with given habits does.

    `corrupt` changes what a restart reads back; `silent` are tables that the system has stopped to record.
    """

    def __init__(self, directory: Path, catalogue: Catalogue, habits: Habits) -> None:
        self.directory, self.catalogue, self.habits = directory, catalogue, habits
        self.now_ns = START_NS
        self.incarnation = 0
        self.guard = self.open_guard()
        self.corrupt: Callable[[dict[str, list[Record]]], None] = lambda restored: None
        self.silent: frozenset[str] = frozenset()
        self.explanations: list[str] = []
        self.breached: set[str] = set()

    def open_guard(self) -> Guard:
        """Return another guard; after the first one, in a directory of its own unless it keeps the memory."""
        directory = self.directory / (f"guard{self.incarnation}" if self.habits.guard == "new" else "guard")
        return Guard(directory, GuardSettings(), catalogue=self.catalogue, clock=lambda: self.now_ns, channels=[])

    def play(self, events: Iterable[Event]) -> None:
        """Tell every event and note what the guard finds."""
        for event in events:
            self.now_ns += SECOND_NS
            if event.kind == "step":
                with self.guard.step("step"):
                    for subsystem, record in self.select(event.entries):
                        self.guard.record(subsystem, record)
            elif event.kind == "restart":
                self.restart(event)
            elif event.kind == "reconciled":
                self.guard.reconciled(event.trade_date)
            elif event.kind == "night":
                self.guard.boundary("end", event.trade_date)
                self.guard.boundary("overnight", event.trade_date)
            else:
                self.begin(event)
            self.guard.tick()
            self.collect()

    def begin(self, event: Event) -> None:
        """Begin a day: the books are rolled."""
        with self.guard.step("begin"):
            for subsystem, record in self.select(event.entries):
                self.guard.record(subsystem, record)
        self.guard.boundary("begin", event.trade_date)

    def collect(self) -> None:
        """Note the breaches of the present guard."""
        for breach in self.guard.breaches:
            if breach.explanation not in self.explanations:
                self.explanations.append(breach.explanation)
            self.breached.add(breach.invariant)

    def restart(self, event: Event) -> None:
        """Kill the system and let it read back what it stores."""
        if self.habits.guard != "same":
            if self.habits.guard == "memory":
                self.guard.save_memory()
            self.guard.close()
            self.incarnation += 1
            self.guard = self.open_guard()
            if self.habits.guard == "memory":
                assert self.guard.load_memory()
        self.guard.boundary("restart", event.trade_date)
        restored = self.list_restored(event)
        self.corrupt(restored)
        with self.guard.step("restart"):
            for subsystem, records in restored.items():
                self.guard.restore(subsystem, records)

    def list_restored(self, event: Event) -> dict[str, list[Record]]:
        """Return what each subsystem reads back."""
        habits = self.habits
        tables = {name.partition(".")[0] for name in habits.kinds} & {"orders", "positions", "risk", "ledger"}
        if not habits.books:
            tables -= {"positions", "ledger"}
        restored: dict[str, list[Record]] = {
            name: [] for name in ("orders", "positions", "ledger", "risk") if name in tables
        }
        stored = {
            record.key for _, record in event.entries if isinstance(record, Order) and self.is_stored(record, event)
        }
        for subsystem, record in self.select(event.entries):
            if subsystem not in restored:
                continue
            if isinstance(record, Order) and record.key not in stored:
                continue
            if isinstance(record, Execution) and (not habits.executions or record.root_cl_ord_id not in stored):
                continue
            restored[subsystem].append(record)
        return restored

    def is_stored(self, order: Order, event: Event) -> bool:
        """Whether the system reads an order back."""
        if order.is_open or self.habits.orders == "all":
            return True
        booked = {
            record.root_cl_ord_id
            for _, record in event.entries
            if isinstance(record, Execution) and record.trade_date == event.trade_date
        }
        return self.habits.orders == "today" and (order.trade_date == event.trade_date or order.key in booked)

    def select(self, entries: Entries) -> Entries:
        """Return what the system records of these records."""
        return [
            (subsystem, self.strip(record))
            for subsystem, record in entries
            if f"{subsystem}.{type(record).__name__}" in self.habits.kinds - self.silent
        ]

    def strip(self, record: Record) -> Record:
        """Return a record without the fields that the system never sets."""
        cleared: dict[str, Any] = {}
        for name in self.habits.empty:
            if name == "trade_date" and isinstance(record, Execution):
                continue  # the day is a part of the ExecID
            if name in record.__struct_fields__:
                cleared[name] = 0 if isinstance(getattr(record, name), int) else ""
        return replace(record, **cleared) if cleared else record
