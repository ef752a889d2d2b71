"""Positions, cash ledger and risk: the sums of the executions, the open orders and the movements without a trade."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from holdover.desk.config import DeskConfig
from holdover.desk.store import Store
from holdover.model import (
    AccountReport,
    Balance,
    CashMovement,
    Execution,
    Exposure,
    ImpossibleStateError,
    Limit,
    Margin,
    Order,
    Position,
    PositionAdjustment,
    Record,
    position_key,
)
from holdover.runtime import Guard


def _check_trade_date(subject: str, trade_date: str) -> None:
    """Raise `ImpossibleStateError` for a session without a trade date."""
    if not trade_date:
        raise ImpossibleStateError(f"a session of the {subject} begins without a trade date")


class Positions:
    """Net positions by account and instrument, and their adjustments.

    `carried_qty` is the position at the start of the session.
    """

    subsystem = "positions"

    def __init__(self, store: Store, guard: Guard) -> None:
        self._store, self._guard = store, guard
        self._positions: dict[str, Position] = {}
        self._adjustments: dict[str, PositionAdjustment] = {}

    def load(self, executions: Iterable[Execution]) -> list[Record]:
        """Read the positions and adjustments from the store; return them.

        `executions` are those of the session, for reference.
        """
        self._positions = {position.key: position for position in self._store.load_all(Position)}
        self._adjustments = {adjustment.key: adjustment for adjustment in self._store.load_all(PositionAdjustment)}
        return [*self._positions.values(), *self._adjustments.values()]

    def get(self, key: str) -> Position | None:
        """Return the position with that key, or None."""
        return self._positions.get(key)

    def all_positions(self) -> list[Position]:
        """Return every position, in the order in which they were opened."""
        return list(self._positions.values())

    def begin(self, trade_date: str) -> None:
        """Begin a session: the present quantity becomes the carried quantity."""
        _check_trade_date("positions", trade_date)
        for position in list(self._positions.values()):
            if position.trade_date != trade_date:
                self._save(replace(position, carried_qty=position.net_qty, trade_date=trade_date))

    def book(self, execution: Execution, trade_date: str) -> None:
        """Add one execution."""
        delta = execution.signed_qty
        if delta:
            position = self._position_or_flat(execution, trade_date)
            self._save(replace(position, net_qty=position.net_qty + delta))

    def reserve(self, order: Order, quantity: int, trade_date: str) -> None:
        """Change what closing orders reserve of the position of an order, in lots; see `Orders.reserved_change`."""
        if quantity:
            position = self._position_or_flat(order, trade_date)
            self._save(replace(position, reserved_qty=position.reserved_qty + quantity))

    def adjust(self, adjustment: PositionAdjustment, trade_date: str) -> Position | None:
        """Apply an adjustment of the venue in this session; return the position, or None when it was applied before."""
        if not adjustment.adjustment_id or not adjustment.qty_delta:
            raise ImpossibleStateError(f"an adjustment needs an id and a quantity: {adjustment!r}")
        if self.is_adjusted(adjustment):
            return None
        adjustment = replace(adjustment, trade_date=trade_date)
        self._adjustments[adjustment.key] = adjustment
        self._store.save(adjustment)
        self._guard.record(self.subsystem, adjustment)
        position = self._positions.get(adjustment.book_key) or Position(
            account=adjustment.account,
            symbol=adjustment.symbol,
            net_qty=0,
            trade_date=trade_date,
            position_side=adjustment.position_side,
            position_id=adjustment.position_id,
        )
        position = replace(position, net_qty=position.net_qty + adjustment.qty_delta)
        self._save(position)
        return position

    def is_adjusted(self, adjustment: PositionAdjustment) -> bool:
        """Return whether this adjustment has been applied, today or on an earlier day."""
        return adjustment.key in self._adjustments

    def restate(self, key: str, net_qty: int, reference_version: str) -> None:
        """Take over the venue's quantity in new lots after a corporate action. `key` is that of the position."""
        position = self._positions.get(key)
        if position is not None and position.reference_version != reference_version:
            shift = net_qty - position.net_qty
            self._save(
                replace(
                    position,
                    net_qty=net_qty,
                    carried_qty=position.carried_qty + shift,
                    reference_version=reference_version,
                )
            )

    def _position_or_flat(self, moved_by: Execution | Order, trade_date: str) -> Position:
        return self._positions.get(moved_by.book_key) or Position(
            account=moved_by.account,
            symbol=moved_by.symbol,
            net_qty=0,
            trade_date=trade_date,
            position_side=moved_by.position_side,
            position_id=moved_by.position_id,
        )

    def _save(self, position: Position) -> None:
        self._positions[position.key] = position
        self._store.save(position)
        self._guard.record(self.subsystem, position)


class Ledger:
    """Cash by account and currency, in whole cash units, and its movements without a trade."""

    subsystem = "ledger"

    def __init__(self, config: DeskConfig, store: Store, guard: Guard) -> None:
        self._config, self._store, self._guard = config, store, guard
        self._balances: dict[str, Balance] = {}
        self._movements: dict[str, CashMovement] = {}

    def load(self) -> list[Record]:
        """Read the balances and movements from the store; return them."""
        self._balances = {balance.key: balance for balance in self._store.load_all(Balance)}
        self._movements = {movement.key: movement for movement in self._store.load_all(CashMovement)}
        return [*self._balances.values(), *self._movements.values()]

    def begin(self, trade_date: str) -> None:
        """Begin a session: the present cash becomes the carried cash; fees and transfers restart at 0."""
        _check_trade_date("balances", trade_date)
        for balance in list(self._balances.values()):
            if balance.trade_date != trade_date:
                self._save(replace(balance, carried_cash=balance.cash, fees=0, transfers=0, trade_date=trade_date))

    def book(self, execution: Execution, trade_date: str) -> None:
        """Add the cash and fee of one execution."""
        if not execution.cash_delta and not execution.fee:
            return
        balance = self._balance_or_empty(execution.account, execution.currency, trade_date)
        cash = balance.cash + execution.cash_delta - execution.fee
        self._save(replace(balance, cash=cash, fees=balance.fees + execution.fee))

    def move(self, movement: CashMovement, trade_date: str) -> bool:
        """Book a movement of the venue in this session; return False when it was booked before."""
        if not movement.movement_id or not movement.amount:
            raise ImpossibleStateError(f"a cash movement needs an id and an amount: {movement!r}")
        if self.is_moved(movement):
            return False
        movement = replace(movement, trade_date=trade_date)
        self._movements[movement.key] = movement
        self._store.save(movement)
        self._guard.record(self.subsystem, movement)
        balance = self._balance_or_empty(movement.account, movement.currency, trade_date)
        self._save(replace(balance, cash=balance.cash + movement.amount, transfers=balance.transfers + movement.amount))
        return True

    def is_moved(self, movement: CashMovement) -> bool:
        """Return whether this movement has been booked, today or on an earlier day."""
        return movement.key in self._movements

    def _balance_or_empty(self, account: str, currency: str, trade_date: str) -> Balance:
        return self._balances.get(f"{account}/{currency}") or Balance(
            account=account, currency=currency, cash=0, trade_date=trade_date, link=self._config.link
        )

    def balances(self) -> list[Balance]:
        """Return every balance, in the order in which they were opened."""
        return list(self._balances.values())

    def _save(self, balance: Balance) -> None:
        self._balances[balance.key] = balance
        self._store.save(balance)
        self._guard.record(self.subsystem, balance)


class Risk:
    """Exposure by account and instrument, and the limits. It stays in memory and is derived at every start."""

    subsystem = "risk"

    def __init__(self, config: DeskConfig, guard: Guard) -> None:
        self._config, self._guard = config, guard
        self._exposures: dict[str, Exposure] = {}
        self._margins: dict[str, Margin] = {}

    def load(self, positions: Iterable[Position], orders: Iterable[Order]) -> None:
        """Derive the exposure from the restored positions and orders."""
        self._exposures = {}
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
            self._exposures[position.key] = Exposure(
                account=position.account,
                symbol=position.symbol,
                net_qty=position.net_qty,
                position_side=position.position_side,
                position_id=position.position_id,
            )
        for order in orders:
            exposure = self._exposure_or_flat(order)
            self._exposures[exposure.key] = replace(
                exposure,
                open_buy_qty=exposure.open_buy_qty + order.open_buy_qty,
                open_sell_qty=exposure.open_sell_qty + order.open_sell_qty,
            )
        self._guard.restore(self.subsystem, list(self._exposures.values()))

    def allows(self, account: str, symbol: str, buy: bool, quantity: int, leg: str = "") -> bool:
        """Return whether an order of this size stays within the limits even if every open order fills."""
        if quantity <= 0:
            raise ImpossibleStateError(f"an order of {quantity} {symbol} for {account}, should be above 0")
        exposure = self._exposures.get(position_key(account, symbol, leg)) or Exposure(
            account=account, symbol=symbol, net_qty=0
        )
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
            exposure = self._exposure_or_flat(execution)
            self._save(replace(exposure, net_qty=exposure.net_qty + delta))

    def apply_order_change(self, before: Order | None, after: Order) -> None:
        """Adjust the open quantity for a change of one order."""
        buy = after.open_buy_qty - (before.open_buy_qty if before else 0)
        sell = after.open_sell_qty - (before.open_sell_qty if before else 0)
        if buy or sell:
            exposure = self._exposure_or_flat(after)
            self._save(
                replace(
                    exposure,
                    open_buy_qty=exposure.open_buy_qty + buy,
                    open_sell_qty=exposure.open_sell_qty + sell,
                )
            )

    def adjust(self, adjustment: PositionAdjustment) -> None:
        """Add an adjustment of a position."""
        if not adjustment.symbol:
            raise ImpossibleStateError(f"an adjustment without an instrument has no exposure: {adjustment!r}")
        exposure = self._exposures.get(adjustment.book_key) or Exposure(
            account=adjustment.account,
            symbol=adjustment.symbol,
            net_qty=0,
            position_side=adjustment.position_side,
            position_id=adjustment.position_id,
        )
        self._save(replace(exposure, net_qty=exposure.net_qty + adjustment.qty_delta))

    def take_margin(self, report: AccountReport) -> None:
        """Take over the margin that the venue has computed; it stays in memory, and every answer states it again."""
        margin = report.margin
        if margin is not None and self._margins.get(margin.key) != margin:
            self._margins[margin.key] = margin
            self._guard.record(self.subsystem, margin)

    def restate(self, position: Position) -> None:
        """Take over the position after a corporate action."""
        exposure = self._exposures.get(position.key)
        if exposure is not None and exposure.net_qty != position.net_qty:
            self._save(replace(exposure, net_qty=position.net_qty))

    def _exposure_or_flat(self, moved_by: Execution | Order) -> Exposure:
        return self._exposures.get(moved_by.book_key) or Exposure(
            account=moved_by.account,
            symbol=moved_by.symbol,
            net_qty=0,
            position_side=moved_by.position_side,
            position_id=moved_by.position_id,
        )

    def _save(self, exposure: Exposure) -> None:
        self._exposures[exposure.key] = exposure
        self._guard.record(self.subsystem, exposure)
