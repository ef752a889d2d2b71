"""The accounts of a venue: cash, movements that are no trade, and margin.

A venue keeps an account only when it is open: a client that takes `AccountReport`s opens its accounts, and the venue of
any other client behaves as if there were none. Each act that changes an account without a trade is one fact with an id:
a `CashMovement` or a `PositionAdjustment`. It is reported when it happens, and again in the answer to an account query.

Cash counts in whole `CASH_UNIT`s. Margin is computed when an account is reported, at the last traded prices, and not at
each event of the market: an answer to a query must not change the venue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Final

import msgspec
from msgspec.structs import replace

from holdover.model import (
    AccountReport,
    AdjustmentReason,
    Balance,
    CashMovement,
    CashReason,
    ExecType,
    ExecutionReport,
    ImpossibleStateError,
    Margin,
    MsgType,
    Position,
    PositionAdjustment,
    PositionSide,
    Query,
    Record,
    Side,
)
from holdover.state import StateError, Stateful
from holdover.world.book import TopOfBook
from holdover.world.order_lifecycle import OrderLifecycle
from holdover.world.policy import VenuePolicy
from holdover.world.venue_reports import VenueReports

_BASIS_POINTS: Final = 10_000


class VenueAccountsState(msgspec.Struct):
    """The state of `VenueAccounts`."""

    open_accounts: list[str]
    balances: dict[str, Balance]
    margins: dict[str, Margin]
    movements: list[CashMovement]
    adjustments: list[PositionAdjustment]
    number: int


class VenueAccounts(Stateful[VenueAccountsState]):
    """The open accounts of a venue. Positions are those of the order lifecycle; this part adjusts them."""

    State = VenueAccountsState
    DERIVED: ClassVar = {
        "books": "the venue's books, which save themselves",
        "reports": "a part of the venue that saves itself",
        "lifecycle": "a part of the venue that saves itself",
        "policy": "configuration, set once",
    }

    def __init__(
        self, books: Mapping[str, TopOfBook], reports: VenueReports, lifecycle: OrderLifecycle, policy: VenuePolicy
    ) -> None:
        self.books, self.reports, self.lifecycle, self.policy = books, reports, lifecycle, policy
        self.open_accounts: list[str] = []
        self.balances: dict[str, Balance] = {}
        self.margins: dict[str, Margin] = {}
        self.movements: list[CashMovement] = []
        self.adjustments: list[PositionAdjustment] = []
        self._number = 0
        reports.on_trade = self.apply_trade

    def open(self, accounts: Iterable[str]) -> None:
        """Open accounts: from the next day on the venue keeps and reports their cash."""
        new_accounts = [account for account in dict.fromkeys(accounts) if account not in self.open_accounts]
        if not all(new_accounts):
            raise ValueError("an account without a name cannot be opened")
        self.open_accounts += new_accounts

    def is_open(self, account: str) -> bool:
        """Return whether the venue keeps this account."""
        return account in self.open_accounts

    def currencies(self) -> list[str]:
        """Return the currencies of the venue's instruments."""
        return list(dict.fromkeys(book.instrument.currency for book in self.books.values()))

    # -- the day ------------------------------------------------------------------------------------------------

    def begin(self, trade_date: str) -> None:
        """Begin a day: the cash becomes the carried cash; the first day brings the deposit, a later one interest."""
        if not trade_date:
            raise ValueError("balances cannot be carried into a day without a trade date")
        for balance in list(self.balances.values()):
            self._set_balance(replace(balance, carried_cash=balance.cash, fees=0, transfers=0, trade_date=trade_date))
        for account in self.open_accounts:
            for currency in self.currencies():
                self._begin_account(account, currency)

    def _begin_account(self, account: str, currency: str) -> None:
        balance = self.balances.get(f"{account}/{currency}")
        if balance is None:
            self.move_cash(account, currency, self.policy.opening_cash, CashReason.DEPOSIT)
        else:
            interest = balance.cash * self.policy.interest_bp // _BASIS_POINTS
            self.move_cash(account, currency, interest, CashReason.INTEREST)

    # -- trades -------------------------------------------------------------------------------------------------

    def apply_trade(self, report: ExecutionReport) -> None:
        """Book the cash of a trade, bust or correction, and charge the commission of a trade."""
        if report.account not in self.open_accounts:
            return
        instrument = self.books[report.symbol].instrument
        notional = 0 if report.exec_type == ExecType.TRADE_CANCEL else report.last_qty * report.last_px
        if report.exec_type != ExecType.TRADE:
            original = self.lifecycle.find_trade(report.exec_ref_id, report.exec_ref_date)
            if original is None:
                raise ImpossibleStateError(f"execution {report.exec_id} amends {report.exec_ref_id}, which is no trade")
            notional -= original.last_qty * original.last_px
        cash = instrument.cash(notional)
        balance = self._balance_or_empty(report.account, instrument.currency)
        self._set_balance(replace(balance, cash=balance.cash + (-cash if report.side == Side.BUY else cash)))
        if self.policy.commission_bp and report.exec_type == ExecType.TRADE:
            self._charge_commission(report)

    def _charge_commission(self, report: ExecutionReport) -> None:
        instrument = self.books[report.symbol].instrument
        rate = self.policy.commission_bp
        if self.policy.commission_in_kind and report.side == Side.BUY:
            self.adjust_position(
                report.account,
                report.symbol,
                -(report.last_qty * rate // _BASIS_POINTS),
                AdjustmentReason.FEE,
                position_side=report.position_side,
                position_id=report.position_id,
                exec_id=report.exec_id,
            )
            return
        fee = abs(instrument.cash(report.last_qty * report.last_px)) * rate // _BASIS_POINTS
        self.move_cash(report.account, instrument.currency, -fee, CashReason.FEE, report.symbol)

    # -- acts of the venue --------------------------------------------------------------------------------------

    def move_cash(
        self, account: str, currency: str, amount: int, reason: CashReason, symbol: str = ""
    ) -> CashMovement | None:
        """Move cash without a trade, and report it.

        Args:
            account: an account; nothing happens when it is not open.
            currency: the currency.
            amount: in `CASH_UNIT`s, positive when cash comes in; nothing happens for 0.
            reason: why.
            symbol: the instrument that the movement is about, if there is one.
        """
        if not currency:
            raise ImpossibleStateError(f"{amount} of no currency move in account {account}: {reason.value}")
        if account not in self.open_accounts or not amount:
            return None
        movement = CashMovement(
            movement_id=f"M{self._next_number()}",
            reason=reason,
            account=account,
            currency=currency,
            amount=amount,
            trade_date=self.reports.trade_date,
            symbol=symbol,
            transact_time_ns=self.reports.clock.now_ns,
        )
        self.movements.append(movement)
        self.reports.observe(movement)
        balance = self._balance_or_empty(account, currency)
        self._set_balance(replace(balance, cash=balance.cash + amount, transfers=balance.transfers + amount))
        self._report(movement.movement_id, account, currency, movement=movement)
        return movement

    def adjust_position(
        self,
        account: str,
        symbol: str,
        quantity: int,
        reason: AdjustmentReason,
        *,
        position_side: PositionSide | None = None,
        position_id: str = "",
        exec_id: str = "",
    ) -> PositionAdjustment | None:
        """Change a position without a trade, by a signed quantity in lots, and report it.

        Nothing happens for 0 lots, or when the account is not open.
        """
        if not symbol:
            raise ImpossibleStateError(f"{quantity} lots of no instrument change in account {account}: {reason.value}")
        if position_side is not None and position_id:
            raise ImpossibleStateError(f"an adjustment of {symbol} names the legs {position_side} and {position_id}")
        if account not in self.open_accounts or not quantity:
            return None
        adjustment = PositionAdjustment(
            adjustment_id=f"J{self._next_number()}",
            reason=reason,
            account=account,
            symbol=symbol,
            qty_delta=quantity,
            trade_date=self.reports.trade_date,
            position_side=position_side,
            position_id=position_id,
            exec_id=exec_id,
            transact_time_ns=self.reports.clock.now_ns,
        )
        self.adjustments.append(adjustment)
        self.reports.observe(adjustment)
        book = self.books.get(symbol)
        position = self.lifecycle.positions.get(adjustment.book_key) or Position(
            account=account,
            symbol=symbol,
            net_qty=0,
            trade_date=self.reports.trade_date,
            reference_version=book.reference_version if book is not None else "",
            position_side=position_side,
            position_id=position_id,
        )
        position = replace(position, net_qty=position.net_qty + quantity)
        self.lifecycle.positions[position.key] = position
        self.reports.observe(position)
        currency = book.instrument.currency if book is not None else self.currencies()[0]
        self._report(adjustment.adjustment_id, account, currency, adjustment=adjustment)
        return adjustment

    def rename_position(self, account: str, old_symbol: str, new_symbol: str) -> None:
        """Move the whole position of an instrument to its new ticker: two adjustments that cancel each other."""
        if not new_symbol:
            raise ValueError(f"{old_symbol} is renamed, and the new ticker is empty")
        position = self.lifecycle.positions.get(f"{account}/{old_symbol}")
        if position is not None and position.net_qty and old_symbol != new_symbol:
            self.adjust_position(account, old_symbol, -position.net_qty, AdjustmentReason.SYMBOL_CHANGE)
            self.adjust_position(account, new_symbol, position.net_qty, AdjustmentReason.SYMBOL_CHANGE)

    # -- answers ------------------------------------------------------------------------------------------------

    def answer(self, query: Query) -> list[AccountReport]:
        """Return every movement and adjustment since a date, then the state in each currency; at least one report."""
        if query.msg_type != MsgType.COLLATERAL_INQUIRY:
            raise ImpossibleStateError(f"query {query.req_id} is a {query.msg_type.name}, which is no account query")
        facts = [
            AccountReport(report_id=movement.movement_id, account=query.account, movement=movement)
            for movement in self.movements
            if movement.account == query.account and movement.trade_date >= query.since_date
        ]
        facts += [
            AccountReport(report_id=adjustment.adjustment_id, account=query.account, adjustment=adjustment)
            for adjustment in self.adjustments
            if adjustment.account == query.account and adjustment.trade_date >= query.since_date
        ]
        states = [
            AccountReport(
                report_id=f"{query.req_id}/{balance.currency}",
                account=query.account,
                balance=balance,
                margin=self.margins.get(balance.key),
            )
            for balance in self.balances.values()
            if balance.account == query.account
        ]
        reports = [*facts, *states] or [AccountReport(report_id=query.req_id, account=query.account)]
        last = len(reports) - 1
        return [
            replace(report, req_id=query.req_id, last_rpt_requested=number == last)
            for number, report in enumerate(reports)
        ]

    # -- inside -------------------------------------------------------------------------------------------------

    def report_state(self, account: str, currency: str, report_id: str) -> None:
        """Report the cash and the margin of an account as they are now, without any movement."""
        if account in self.open_accounts:
            self._report(report_id, account, currency)

    def _update_margin(self, account: str, currency: str) -> Margin:
        """Compute an account's margin at the last traded prices, and pass it to the observer."""
        value = gross = 0
        for position in self.lifecycle.positions.values():
            book = self.books.get(position.symbol)
            if position.account == account and book is not None and book.instrument.currency == currency:
                amount = book.instrument.cash(position.net_qty * book.last_px)
                value, gross = value + amount, gross + abs(amount)
        balance = self.balances.get(f"{account}/{currency}")
        equity = value + (balance.cash if balance is not None else 0)
        margin = Margin(
            account=account,
            currency=currency,
            equity=equity,
            used=gross * self.policy.initial_margin_bp // _BASIS_POINTS,
            maintenance=gross * self.policy.maintenance_margin_bp // _BASIS_POINTS,
            leverage=-(-gross // equity) if equity > 0 else 0,
            leverage_max=self.policy.leverage_max,
        )
        self.margins[margin.key] = margin
        self.reports.observe(margin)
        return margin

    def _report(
        self,
        report_id: str,
        account: str,
        currency: str,
        *,
        movement: CashMovement | None = None,
        adjustment: PositionAdjustment | None = None,
    ) -> None:
        report = AccountReport(
            report_id=report_id,
            account=account,
            movement=movement,
            adjustment=adjustment,
            balance=self.balances.get(f"{account}/{currency}"),
            margin=self._update_margin(account, currency),
        )
        self.reports.send(account, report)

    def _balance_or_empty(self, account: str, currency: str) -> Balance:
        balance = self.balances.get(f"{account}/{currency}")
        return balance or Balance(account=account, currency=currency, cash=0, trade_date=self.reports.trade_date)

    def _set_balance(self, balance: Balance) -> None:
        if not balance.trade_date:
            raise ImpossibleStateError(f"the balance {balance.key} belongs to no trading day")
        self.balances[balance.key] = balance
        self.reports.observe(balance)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    # -- state --------------------------------------------------------------------------------------------------

    def take_state(self, state: VenueAccountsState) -> None:
        """Take over a decoded state. Raises `StateError` when a fact has an id that was never given."""
        facts: list[Record] = [*state.movements, *state.adjustments]
        numbers = [
            (fact.movement_id if isinstance(fact, CashMovement) else fact.adjustment_id)[1:]
            for fact in facts
            if isinstance(fact, CashMovement | PositionAdjustment)
        ]
        if any(not number.isdecimal() or not 0 < int(number) <= state.number for number in numbers):
            raise StateError(f"the stored state of VenueAccounts is damaged: an id above number {state.number}")
        if len(set(numbers)) < len(numbers):
            raise StateError("the stored state of VenueAccounts is damaged: two facts have one id")
        for key, record in [*state.balances.items(), *state.margins.items()]:
            if record.key != key:
                raise StateError(f"the stored state of VenueAccounts is damaged: {record.key} is stored as {key}")
        super().take_state(state)
