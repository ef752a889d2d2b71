"""Positions, ledger and risk: what the executions and the open orders add up to, each in its own books."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from holdover.desk.config import DeskConfig
from holdover.desk.store import Store
from holdover.model import Balance, Execution, Exposure, Limit, Order, Position, Record
from holdover.runtime import Guard


class Positions:
    """Net positions by account and instrument. `carried_qty` is what came into the session."""

    subsystem = "positions"

    def __init__(self, store: Store, guard: Guard) -> None:
        self._store, self._guard = store, guard
        self._held: dict[str, Position] = {}

    def load(self, executions: Iterable[Execution]) -> list[Record]:
        """Read back from the store; returns what was read. `executions` are those of the session, for reference."""
        self._held = {position.key: position for position in self._store.all(Position)}
        return list(self._held.values())

    def get(self, key: str) -> Position | None:
        """The position of an account in an instrument."""
        return self._held.get(key)

    def held(self) -> list[Position]:
        """Every position, in the order of first holding."""
        return list(self._held.values())

    def begin(self, trade_date: str) -> None:
        """A new session: what is held becomes what was carried in."""
        for position in list(self._held.values()):
            if position.trade_date != trade_date:
                self._keep(replace(position, carried_qty=position.net_qty, trade_date=trade_date))

    def book(self, execution: Execution, trade_date: str) -> None:
        """Add one execution."""
        delta = execution.signed_qty
        if delta:
            position = self._or_flat(execution.account, execution.symbol, trade_date)
            self._keep(replace(position, net_qty=position.net_qty + delta))

    def follow(self, before: Order | None, after: Order, trade_date: str) -> None:
        """Reserve what a closing order has claimed, and release what it no longer does."""
        delta = after.closing_qty - (before.closing_qty if before else 0)
        if delta:
            position = self._or_flat(after.account, after.symbol, trade_date)
            self._keep(replace(position, reserved_qty=position.reserved_qty + delta))

    def restate(self, account: str, symbol: str, net_qty: int, reference_version: str) -> None:
        """A corporate action has changed what one lot is: the position is the venue's in new lots."""
        position = self._held.get(f"{account}/{symbol}")
        if position is not None and position.reference_version != reference_version:
            shift = net_qty - position.net_qty
            self._keep(
                replace(
                    position,
                    net_qty=net_qty,
                    carried_qty=position.carried_qty + shift,
                    reference_version=reference_version,
                )
            )

    def _or_flat(self, account: str, symbol: str, trade_date: str) -> Position:
        found = self._held.get(f"{account}/{symbol}")
        return found or Position(account=account, symbol=symbol, net_qty=0, trade_date=trade_date)

    def _keep(self, position: Position) -> None:
        self._held[position.key] = position
        self._store.put(position)
        self._guard.record(self.subsystem, position)


class Ledger:
    """Cash by account and currency, in whole cash units."""

    subsystem = "ledger"

    def __init__(self, store: Store, guard: Guard) -> None:
        self._store, self._guard = store, guard
        self._held: dict[str, Balance] = {}

    def load(self) -> list[Record]:
        """Read back from the store; returns what was read."""
        self._held = {balance.key: balance for balance in self._store.all(Balance)}
        return list(self._held.values())

    def begin(self, trade_date: str) -> None:
        """A new session: the cash held is what was carried in; fees and transfers start again."""
        for balance in list(self._held.values()):
            if balance.trade_date != trade_date:
                self._keep(replace(balance, carried_cash=balance.cash, fees=0, transfers=0, trade_date=trade_date))

    def book(self, execution: Execution, trade_date: str) -> None:
        """Add one execution's cash and fee."""
        if not execution.cash_delta and not execution.fee:
            return
        balance = self._held.get(execution.balance_key) or Balance(
            account=execution.account, currency=execution.currency, cash=0, trade_date=trade_date
        )
        cash = balance.cash + execution.cash_delta - execution.fee
        self._keep(replace(balance, cash=cash, fees=balance.fees + execution.fee))

    def balances(self) -> list[Balance]:
        """Every balance, in the order of first holding."""
        return list(self._held.values())

    def _keep(self, balance: Balance) -> None:
        self._held[balance.key] = balance
        self._store.put(balance)
        self._guard.record(self.subsystem, balance)


class Risk:
    """Exposure by account and instrument, and the limits: kept in memory, derived at every start."""

    subsystem = "risk"

    def __init__(self, config: DeskConfig, guard: Guard) -> None:
        self._config, self._guard = config, guard
        self._held: dict[str, Exposure] = {}

    def load(self, positions: Iterable[Position], orders: Iterable[Order]) -> None:
        """Derive the exposure from what was read back."""
        self._held = {}
        for strategy in self._config.strategies:
            self._guard.record(
                self.subsystem,
                Limit(
                    account=strategy.account,
                    symbol=strategy.symbol,
                    position_max=self._config.position_max,
                    order_qty_max=self._config.order_qty_max,
                    open_qty_max=self._config.open_qty_max,
                ),
            )
        for position in positions:
            self._held[position.key] = Exposure(
                account=position.account, symbol=position.symbol, net_qty=position.net_qty
            )
        for order in orders:
            exposure = self._or_flat(order.account, order.symbol)
            self._held[exposure.key] = replace(
                exposure,
                open_buy_qty=exposure.open_buy_qty + order.open_buy_qty,
                open_sell_qty=exposure.open_sell_qty + order.open_sell_qty,
            )
        self._guard.restore(self.subsystem, list(self._held.values()))

    def allows(self, account: str, symbol: str, buy: bool, quantity: int) -> bool:
        """Whether an order of this size would stay inside the limits, were every open order to fill."""
        exposure = self._or_flat(account, symbol)
        opened = exposure.open_buy_qty + exposure.open_sell_qty + quantity
        long = exposure.net_qty + exposure.open_buy_qty + (quantity if buy else 0)
        short = exposure.open_sell_qty - exposure.net_qty + (0 if buy else quantity)
        config = self._config
        return (
            quantity <= config.order_qty_max
            and opened <= config.open_qty_max
            and long <= config.position_max
            and short <= config.position_max
        )

    def book(self, execution: Execution) -> None:
        """Add one execution."""
        delta = execution.signed_qty
        if delta:
            exposure = self._or_flat(execution.account, execution.symbol)
            self._keep(replace(exposure, net_qty=exposure.net_qty + delta))

    def follow(self, before: Order | None, after: Order) -> None:
        """Move the open quantity by what one order's change means."""
        buy = after.open_buy_qty - (before.open_buy_qty if before else 0)
        sell = after.open_sell_qty - (before.open_sell_qty if before else 0)
        if buy or sell:
            exposure = self._or_flat(after.account, after.symbol)
            self._keep(
                replace(
                    exposure,
                    open_buy_qty=exposure.open_buy_qty + buy,
                    open_sell_qty=exposure.open_sell_qty + sell,
                )
            )

    def restate(self, account: str, symbol: str, net_qty: int) -> None:
        """A corporate action has restated the position."""
        exposure = self._or_flat(account, symbol)
        if exposure.net_qty != net_qty:
            self._keep(replace(exposure, net_qty=net_qty))

    def _or_flat(self, account: str, symbol: str) -> Exposure:
        return self._held.get(f"{account}/{symbol}") or Exposure(account=account, symbol=symbol, net_qty=0)

    def _keep(self, exposure: Exposure) -> None:
        self._held[exposure.key] = exposure
        self._guard.record(self.subsystem, exposure)
