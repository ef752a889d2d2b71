"""Realized profit and loss of each position, by the average cost of the session.

The method is exact and does not depend on the order of the executions: what is open costs its share of everything that
was bought (or sold, for a short position) in the session or carried into it, rounded toward zero, and the rest is
realized. So a restart, a late report or a resend cannot change the result, and no lots have to be stored: the numbers
follow from the carried cost and the executions of the session.

Rejected: FIFO lots (the result depends on the order in which late fills, busts and corrections arrive, and each lot is
state to carry) and a moving average (the same dependence, and a remainder to carry for each fill).

An adjustment of a position moves lots at no cost: a fee in kind leaves the cost with the lots that remain.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from holdover.desk.config import DeskConfig
from holdover.desk.store import Store
from holdover.model import TRADES, Execution, ImpossibleStateError, Position, RealizedPnl, Record, Side
from holdover.runtime import Guard


class SessionFlow(msgspec.Struct):
    """What was traded in one position in the session: lots, and notional in lots x ticks, by side."""

    bought_qty: int = 0
    bought_notional: int = 0
    sold_qty: int = 0
    sold_notional: int = 0

    def add(self, execution: Execution) -> None:
        """Add one execution; a bust or a correction counts with its sign."""
        if execution.exec_type not in TRADES:
            raise ImpossibleStateError(
                f"execution {execution.exec_id} is a {execution.exec_type.name}, which is no trade"
            )
        if execution.side == Side.BUY:
            self.bought_qty += execution.qty_delta
            self.bought_notional += execution.notional_delta
        else:
            self.sold_qty += execution.qty_delta
            self.sold_notional += execution.notional_delta

    @property
    def signed_notional(self) -> int:
        """What was bought minus what was sold, in lots x ticks."""
        return self.bought_notional - self.sold_notional


def compute_open_cost(position: Position, carried_cost: int, flow: SessionFlow, *, is_signed: bool = False) -> int:
    """Return what the open quantity of a position cost, in lots x ticks, with the sign of the position.

    Args:
        position: the position; its carried quantity is in the lots of today.
        carried_cost: the open cost at the start of the session.
        flow: the executions of the session.
        is_signed: whether prices, and therefore costs, may be negative.
    """
    sign = 1 if position.net_qty > 0 else -1
    opened_qty, opened_cost = flow.bought_qty, flow.bought_notional
    closed_qty, closed_cost = flow.sold_qty, flow.sold_notional
    if position.net_qty < 0:
        opened_qty, opened_cost, closed_qty, closed_cost = closed_qty, closed_cost, opened_qty, opened_cost
    if closed_qty < 0:  # a bust of an earlier session's close opens the position again
        opened_qty, opened_cost = opened_qty - closed_qty, opened_cost - closed_cost
    if position.carried_qty * sign > 0:
        opened_qty += position.carried_qty * sign
        opened_cost += carried_cost * sign
    adjusted_qty = position.net_qty - position.carried_qty - flow.bought_qty + flow.sold_qty
    opened_qty += max(adjusted_qty * sign, 0)
    if not position.net_qty or opened_qty <= 0:
        return 0
    if not is_signed:
        opened_cost = max(opened_cost, 0)
    open_qty = min(abs(position.net_qty), opened_qty)
    cost = abs(opened_cost) * open_qty // opened_qty
    return sign * (cost if opened_cost >= 0 else -cost)


class ProfitAndLoss:
    """The realized profit and loss by position, and what the open quantity cost."""

    subsystem = "ledger"

    def __init__(self, config: DeskConfig, store: Store, guard: Guard) -> None:
        self._config, self._store, self._guard = config, store, guard
        self._records: dict[str, RealizedPnl] = {}
        self._flows: dict[str, SessionFlow] = {}
        self.trade_date = ""

    def load(self, executions: Iterable[Execution], trade_date: str) -> list[Record]:
        """Read the records from the store and add up the session's executions; return the records."""
        if not trade_date:
            raise ImpossibleStateError("profit and loss is read back without a trade date")
        self._records = {record.key: record for record in self._store.load_all(RealizedPnl)}
        self._flows, self.trade_date = {}, trade_date
        for execution in executions:
            if execution.booked_on == trade_date and execution.exec_type in TRADES:
                self._flow_of(execution.book_key).add(execution)
        return list(self._records.values())

    def begin(self, trade_date: str) -> None:
        """Begin a session: the realized amount and the open cost become the carried ones."""
        if not trade_date:
            raise ImpossibleStateError("a session of profit and loss begins without a trade date")
        for record in list(self._records.values()):
            if record.trade_date != trade_date:
                self._save(
                    replace(
                        record,
                        carried_realized=record.realized,
                        carried_cost=record.open_cost,
                        trade_date=trade_date,
                    )
                )

    def book(self, execution: Execution, position: Position | None) -> None:
        """Add one execution that has been booked in a position."""
        if execution.exec_type in TRADES:
            self._flow_of(execution.book_key).add(execution)
            if position is not None:
                self.update(position)

    def update(self, position: Position) -> None:
        """Compute cost and profit of a position after its quantity has changed."""
        if not position.key:
            raise ImpossibleStateError("a position without a key has no profit")
        before = self._records.get(position.key)
        record = before or RealizedPnl(
            account=position.account,
            symbol=position.symbol,
            realized=0,
            open_cost=0,
            trade_date=self.trade_date,
            position_side=position.position_side,
            position_id=position.position_id,
        )
        flow = self._flow_of(position.key)
        instrument = self._config.instrument(position.symbol)
        is_signed = instrument is not None and instrument.negative_prices
        open_cost = compute_open_cost(position, record.carried_cost, flow, is_signed=is_signed)
        realized = record.carried_realized + open_cost - record.carried_cost - flow.signed_notional
        after = replace(record, realized=realized, open_cost=open_cost)
        if after != before:
            self._save(after)

    def _flow_of(self, key: str) -> SessionFlow:
        return self._flows.setdefault(key, SessionFlow())

    def _save(self, record: RealizedPnl) -> None:
        self._records[record.key] = record
        self._store.save(record)
        self._guard.record(self.subsystem, record)
