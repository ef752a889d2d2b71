"""What accounts do without a trade, as users of trading systems have reported it: each story wrong and right.

The wrong one is found by the invariant that is about it; the right one, which differs in that point only, is silent.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.model import (
    AdjustmentReason,
    Balance,
    CashMovement,
    CashReason,
    ExecType,
    Execution,
    Exposure,
    Instrument,
    Link,
    Margin,
    Order,
    OrderOrigin,
    OrdStatus,
    OrdType,
    Position,
    PositionAdjustment,
    PositionSide,
    RealizedPnl,
    Reconciliation,
    Record,
    Side,
)
from holdover.runtime import Guard, GuardSettings

DAY, NEXT_DAY = "2026-03-03", "2026-03-04"
SECOND_NS = 1_000_000_000
ACCOUNT = "A1"


class AccountBench:
    """A guard that is told of one account, with a clock of its own."""

    def __init__(self, directory: Path, catalogue: Catalogue, *instruments: Instrument) -> None:
        self.now_ns = 1_772_546_400 * SECOND_NS
        self.guard = Guard(
            directory,
            GuardSettings(instruments=instruments),
            catalogue=catalogue,
            clock=lambda: self.now_ns,
            channels=[],
        )
        self.guard.evidence.is_quiet = True
        self._exec_number = 0

    def record(self, subsystem: str, *records: Record) -> None:
        """Record in one step."""
        with self.guard.step("story"):
            for record in records:
                self.guard.record(subsystem, record)

    def restore(self, **tables: list[Record]) -> None:
        """Start: restore the records of each subsystem in one step."""
        with self.guard.step("start"):
            for subsystem, records in tables.items():
                self.guard.restore(subsystem, records)

    def trade(
        self, symbol: str, quantity: int, price: int, net_qty: int, *others: Record, date: str = DAY, **leg: Any
    ) -> None:
        """Record a whole order that fills at once, the position after it, and other records of the ledger."""
        self._exec_number += 1
        root = f"o{self._exec_number}"
        side, size = (Side.BUY, quantity) if quantity > 0 else (Side.SELL, -quantity)
        order = Order(
            root_cl_ord_id=root,
            cl_ord_id=root,
            symbol=symbol,
            account=ACCOUNT,
            side=side,
            order_qty=size,
            leaves_qty=size,
            price=price,
            trade_date=date,
            ord_status=OrdStatus.NEW,
            **leg,
        )
        filled = replace(order, cum_qty=size, leaves_qty=0, notional=size * price, ord_status=OrdStatus.FILLED)
        execution = Execution(
            exec_id=f"e{self._exec_number}",
            exec_type=ExecType.TRADE,
            root_cl_ord_id=root,
            symbol=symbol,
            account=ACCOUNT,
            side=side,
            trade_date=date,
            last_qty=size,
            last_px=price,
            qty_delta=size,
            notional_delta=size * price,
            **leg,
        )
        self.record("orders", order)
        with self.guard.step("fill"):
            self.guard.record("orders", execution)
            self.guard.record("orders", filled)
            self.guard.record("positions", position(symbol, net_qty, date=date, **leg))
            for other in others:
                self.guard.record("positions" if isinstance(other, PositionAdjustment) else "ledger", other)
        self.record("venue", filled)

    def reconcile(self, date: str = DAY) -> None:
        """Complete a reconciliation, and wait a minute."""
        self.guard.reconciled(date)
        self.wait(60)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ns += int(seconds * SECOND_NS)
        self.guard.tick()

    def breached(self) -> set[str]:
        """Return the names of the breached invariants."""
        return {breach.invariant for breach in self.guard.breaches}


def position(symbol: str, net_qty: int, *, carried: int = 0, date: str = DAY, **leg: Any) -> Position:
    """Return a position of the account."""
    return Position(account=ACCOUNT, symbol=symbol, net_qty=net_qty, carried_qty=carried, trade_date=date, **leg)


def adjustment(
    number: int, reason: AdjustmentReason, symbol: str, quantity: int, *, account: str = ACCOUNT, **leg: Any
) -> PositionAdjustment:
    """Return an adjustment under the venue's id."""
    return PositionAdjustment(
        adjustment_id=f"J{number}",
        reason=reason,
        account=account,
        symbol=symbol,
        qty_delta=quantity,
        trade_date=DAY,
        **leg,
    )


def movement(number: int, reason: CashReason, amount: int, *, currency: str = "USDT") -> CashMovement:
    """Return a cash movement under the venue's id."""
    return CashMovement(
        movement_id=f"M{number}", reason=reason, account=ACCOUNT, currency=currency, amount=amount, trade_date=DAY
    )


def balance(cash: int, *, carried: int | None = None, transfers: int = 0, link: str = "") -> Balance:
    """Return a balance of the account; what is not transferred was carried."""
    carried = cash - transfers if carried is None else carried
    return Balance(
        account=ACCOUNT,
        currency="USDT",
        cash=cash,
        carried_cash=carried,
        transfers=transfers,
        trade_date=DAY,
        link=link,
    )


def margin(equity: int, maintenance: int, **fields: Any) -> Margin:
    """Return a margin record of the account."""
    return Margin(account=ACCOUNT, currency="USDT", equity=equity, maintenance=maintenance, **fields)


def profit(
    realized: int, open_cost: int, *, symbol: str = "BTC", carried: tuple[int, int] = (0, 0), date: str = DAY
) -> RealizedPnl:
    """Return realized profit and open cost; `carried` are both at the start of the session."""
    return RealizedPnl(
        account=ACCOUNT,
        symbol=symbol,
        realized=realized,
        open_cost=open_cost,
        carried_realized=carried[0],
        carried_cost=carried[1],
        trade_date=date,
    )


Story = Callable[[AccountBench, bool], None]
STORIES: list[tuple[str, Story]] = []


def story(invariant: str) -> Callable[[Story], Story]:
    """Register a story with the invariant that finds the wrong telling."""

    def register(tell: Story) -> Story:
        STORIES.append((invariant, tell))
        return tell

    return register


# -- positions ----------------------------------------------------------------------------------------------------


@story("books-agree-with-venue")
def fee_in_the_coin_bought(bench: AccountBench, is_wrong: bool) -> None:
    """1,000 bought, 999 arrive; the system believes in 1,000."""
    fee = adjustment(1, AdjustmentReason.FEE, "BTC", -1, exec_id="e1")
    if is_wrong:
        bench.trade("BTC", 1_000, 100, 1_000)
    else:
        bench.trade("BTC", 1_000, 100, 999, fee)
    bench.record("venue", fee, position("BTC", 999))
    bench.reconcile()


@story("position-equals-carried-plus-fills")
def fee_in_kind_taken_twice(bench: AccountBench, is_wrong: bool) -> None:
    """The fee is booked when it is reported, and again when a reconciliation states it."""
    fee = adjustment(1, AdjustmentReason.FEE, "BTC", -1)
    bench.trade("BTC", 1_000, 100, 999, fee)
    with bench.guard.step("stated again"):
        bench.guard.record("positions", fee)
        bench.guard.record("positions", position("BTC", 998 if is_wrong else 999))


@story("adjustments-agree-with-venue")
def transfer_booked_with_the_wrong_size(bench: AccountBench, is_wrong: bool) -> None:
    """40 coins leave for another wallet; 4 are booked, and a later trade hides it."""
    bench.restore(orders=[], positions=[position("BTC", 100, carried=100)])
    sent = adjustment(1, AdjustmentReason.TRANSFER, "BTC", -40)
    booked = replace(sent, qty_delta=-4) if is_wrong else sent
    bench.record("positions", booked, position("BTC", 100 + booked.qty_delta, carried=100))
    bench.record("venue", sent)
    bench.reconcile()


@story("adjustments-agree-with-venue")
def deposit_into_a_pool_never_booked(bench: AccountBench, is_wrong: bool) -> None:
    """Coins are locked in a staking pool; the system knows an earlier deposit and misses this one."""
    earlier, later = (adjustment(number, AdjustmentReason.DEPOSIT, "ETH", -5) for number in (1, 2))
    bench.restore(orders=[], positions=[position("ETH", 50, carried=50)])
    bench.record("positions", earlier, position("ETH", 45, carried=50))
    bench.record("venue", earlier, later)
    if not is_wrong:
        bench.record("positions", later, position("ETH", 40, carried=50))
    bench.reconcile()


@story("books-agree-with-venue")
def option_expires_worthless(bench: AccountBench, is_wrong: bool) -> None:
    """The venue removes ten calls at expiry; the system keeps them on its books."""
    bench.restore(orders=[], positions=[position("XYZ 240119C100", 10, carried=10)])
    expiry = adjustment(1, AdjustmentReason.EXPIRY, "XYZ 240119C100", -10)
    bench.record("venue", expiry, position("XYZ 240119C100", 0, carried=10))
    if not is_wrong:
        bench.record("positions", expiry, position("XYZ 240119C100", 0, carried=10))
    bench.reconcile()


@story("books-agree-with-venue")
def short_call_is_assigned(bench: AccountBench, is_wrong: bool) -> None:
    """One short call becomes 100 shares short; the wrong system books the call and not the shares."""
    bench.restore(orders=[], positions=[position("XYZ C100", -1, carried=-1)])
    call = adjustment(1, AdjustmentReason.ASSIGNMENT, "XYZ C100", 1)
    shares = adjustment(2, AdjustmentReason.ASSIGNMENT, "XYZ", -100)
    bench.record("venue", call, position("XYZ C100", 0, carried=-1), shares, position("XYZ", -100))
    bench.record("positions", call, position("XYZ C100", 0, carried=-1))
    if not is_wrong:
        bench.record("positions", shares, position("XYZ", -100))
    bench.reconcile()


@story("books-agree-with-venue")
def ticker_changes_overnight(bench: AccountBench, is_wrong: bool) -> None:
    """FB becomes META; the wrong system has 30 of each."""
    bench.restore(orders=[], positions=[position("FB", 30, carried=30)])
    old = adjustment(1, AdjustmentReason.SYMBOL_CHANGE, "FB", -30)
    new = adjustment(2, AdjustmentReason.SYMBOL_CHANGE, "META", 30)
    bench.record("venue", old, position("FB", 0, carried=30), new, position("META", 30))
    bench.record("positions", new, position("META", 30))
    if not is_wrong:
        bench.record("positions", old, position("FB", 0, carried=30))
    bench.reconcile()


@story("adjustments-agree-with-venue")
def fee_booked_on_the_other_leg(bench: AccountBench, is_wrong: bool) -> None:
    """Hedge mode: the venue adjusts the short leg, the system the long one, and both legs are then adapted."""
    long, short = ({"position_side": side} for side in (PositionSide.LONG, PositionSide.SHORT))
    bench.restore(
        orders=[], positions=[position("BTC", 10, carried=10, **long), position("BTC", -4, carried=-4, **short)]
    )
    fee = adjustment(1, AdjustmentReason.FEE, "BTC", 1, **short)
    bench.record("venue", fee)
    if is_wrong:
        bench.record(
            "positions", adjustment(1, AdjustmentReason.FEE, "BTC", 1, **long), position("BTC", 11, carried=10, **long)
        )
    else:
        bench.record("positions", fee, position("BTC", -3, carried=-4, **short))
    bench.reconcile()


@story("position-equals-carried-plus-fills")
def airdrop_without_a_record(bench: AccountBench, is_wrong: bool) -> None:
    """Coins appear; the position is raised to the venue's number and no adjustment says why."""
    bench.trade("BTC", 10, 100, 10)
    gift = adjustment(1, AdjustmentReason.OTHER, "BTC", 3)
    bench.record("positions", *([] if is_wrong else [gift]), position("BTC", 13))


@story("books-agree-with-venue")
def liquidation_is_not_taken_over(bench: AccountBench, is_wrong: bool) -> None:
    """The venue closes half of the position by an order of its own; a correct system adopts it as foreign."""
    bench.trade("BTC", 10, 100, 10)
    forced = Order(
        root_cl_ord_id="LIQ-1",
        cl_ord_id="LIQ-1",
        symbol="BTC",
        account=ACCOUNT,
        side=Side.SELL,
        order_qty=5,
        leaves_qty=0,
        cum_qty=5,
        notional=450,
        price=90,
        trade_date=DAY,
        ord_status=OrdStatus.FILLED,
        foreign=True,
        origin=OrderOrigin.LIQUIDATION,
    )
    bench.record("venue", forced, position("BTC", 5))
    if not is_wrong:
        execution = Execution(
            exec_id="L1",
            exec_type=ExecType.TRADE,
            root_cl_ord_id="LIQ-1",
            symbol="BTC",
            account=ACCOUNT,
            side=Side.SELL,
            trade_date=DAY,
            last_qty=5,
            last_px=90,
            qty_delta=5,
            notional_delta=450,
            foreign=True,
        )
        with bench.guard.step("adopted"):
            for record in (
                replace(forced, cum_qty=0, leaves_qty=5, notional=0, ord_status=OrdStatus.NEW),
                execution,
                forced,
            ):
                bench.guard.record("orders", record)
            bench.guard.record("positions", position("BTC", 5))
    bench.reconcile()


# -- cash ---------------------------------------------------------------------------------------------------------


@story("balances-agree-with-venue")
def funding_not_in_the_ledger(bench: AccountBench, is_wrong: bool) -> None:
    """Every eight hours a perpetual pays funding; the ledger only knows trades."""
    bench.restore(ledger=[balance(1_000)])
    funding = movement(1, CashReason.FUNDING, -10)
    if not is_wrong:
        bench.record("ledger", funding, balance(990, transfers=-10))
    bench.record("venue", funding, balance(990, transfers=-10))
    bench.reconcile()


@story("balances-agree-with-venue")
def cash_differs_from_the_start(bench: AccountBench, is_wrong: bool) -> None:
    """The balance that was configured is not the one that the venue has."""
    bench.restore(ledger=[balance(1_000 if is_wrong else 990)])
    bench.record("venue", balance(990))
    bench.reconcile()


@story("movements-agree-with-venue")
def dividend_of_one_of_two_positions(bench: AccountBench, is_wrong: bool) -> None:
    """Two dividends on one day; the second one has the same amount and is taken for a repetition."""
    first, second = (movement(number, CashReason.DIVIDEND, 25) for number in (1, 2))
    bench.restore(ledger=[balance(500)])
    bench.record("ledger", first, balance(525, transfers=25))
    bench.record("venue", first, second)
    if not is_wrong:
        bench.record("ledger", second, balance(550, transfers=50))
    bench.reconcile()


@story("transfers-equal-movements")
def interest_added_twice(bench: AccountBench, is_wrong: bool) -> None:
    """The same interest is added at its report and at the reconciliation."""
    interest = movement(1, CashReason.INTEREST, 3)
    bench.restore(ledger=[balance(100)])
    bench.record("ledger", interest, balance(103, transfers=3))
    bench.record("ledger", interest, balance(106, transfers=6) if is_wrong else balance(103, transfers=3))


@story("balances-agree-with-venue")
def difference_outlives_the_reconnect(bench: AccountBench, is_wrong: bool) -> None:
    """While the link is down the venue may know more; 45 s after the reconciliation it may not."""
    link = Link(name="V", is_up=True, epoch=1)
    bench.restore(ledger=[balance(1_000, link="V")])
    bench.record("gateway", link)
    bench.record("reconciler", Reconciliation(link="V", epoch=1, is_complete=True))
    bench.record("venue", balance(1_000))
    bench.record("gateway", replace(link, is_up=False))
    bench.record("venue", balance(960, transfers=-40))
    bench.wait(600)
    assert not bench.breached()
    bench.record("gateway", replace(link, epoch=2))
    bench.record("reconciler", Reconciliation(link="V", epoch=2, is_complete=True))
    if not is_wrong:
        bench.record("ledger", movement(1, CashReason.FEE, -40), balance(960, transfers=-40, link="V"))
    bench.reconcile()
    bench.wait(60)


# -- margin -------------------------------------------------------------------------------------------------------


@story("margin-sufficient")
def equity_falls_below_maintenance(bench: AccountBench, is_wrong: bool) -> None:
    """At exactly the maintenance margin nothing is liquidated yet."""
    bench.record("risk", margin(500, 400, used=800))
    bench.record("risk", margin(399 if is_wrong else 400, 400, used=800))


@story("margin-sufficient")
def leverage_above_its_maximum(bench: AccountBench, is_wrong: bool) -> None:
    """The account may use ten times its equity."""
    bench.record("risk", margin(500, 100, leverage=11 if is_wrong else 10, leverage_max=10))


@story("margin-agrees-with-venue")
def unrealized_loss_not_counted(bench: AccountBench, is_wrong: bool) -> None:
    """The venue marks the position down by a tenth of the equity; prices that differ by a little are no breach."""
    bench.record("risk", margin(10_000 if is_wrong else 9_100, 100))
    bench.record("venue", margin(9_000, 100))
    bench.reconcile()


# -- realized profit ------------------------------------------------------------------------------------------------


@story("realized-pnl-conserved")
def profit_of_a_flip(bench: AccountBench, is_wrong: bool) -> None:
    """10 bought at 100, 15 sold at 110: 100 realized, and 5 short have cost 550."""
    bench.trade("BTC", 10, 100, 10, profit(0, 1_000))
    bench.trade("BTC", -15, 110, -5, profit(150 if is_wrong else 100, -550))


@story("realized-pnl-conserved")
def cost_left_on_a_closed_position(bench: AccountBench, is_wrong: bool) -> None:
    """Sold out at a profit; a remainder of cost stays and the profit is larger by it."""
    bench.trade("BTC", 3, 100, 3, profit(0, 300))
    bench.trade("BTC", -3, 101, 0, profit(4, 1) if is_wrong else profit(3, 0))


@story("realized-pnl-conserved")
def profit_starts_anew_each_day(bench: AccountBench, is_wrong: bool) -> None:
    """The next session carries the realized profit in."""
    bench.trade("BTC", 3, 100, 3, profit(0, 300))
    bench.trade("BTC", -2, 105, 1, profit(10, 100))
    carried = (0, 100) if is_wrong else (10, 100)
    bench.record("ledger", profit(carried[0], 100, carried=carried, date=NEXT_DAY))


# -- prices -------------------------------------------------------------------------------------------------------


@story("prices-positive")
def trade_at_a_price_of_zero(bench: AccountBench, is_wrong: bool) -> None:
    """The answer to a query has no price."""
    bench.trade("BTC", 1, 100, 1)
    bench.trade("BTC", 1, 0 if is_wrong else 100, 2)


@story("prices-positive")
def stop_loses_its_trigger(bench: AccountBench, is_wrong: bool) -> None:
    """A stop order comes back from a restart with a stop price of 0; as a market order it has no price."""
    stop = Order(
        root_cl_ord_id="s1",
        cl_ord_id="s1",
        symbol="BTC",
        account=ACCOUNT,
        side=Side.SELL,
        order_qty=1,
        leaves_qty=1,
        ord_type=OrdType.STOP,
        stop_px=90,
        ord_status=OrdStatus.NEW,
        trade_date=DAY,
    )
    bench.record("orders", stop)
    bench.record("orders", replace(stop, stop_px=0 if is_wrong else 91))


@story("prices-positive")
def cost_of_a_long_position_is_negative(bench: AccountBench, is_wrong: bool) -> None:
    """A rebate larger than the price would be needed for that."""
    bench.trade("BTC", 2, 100, 2, profit(-210, -10) if is_wrong else profit(0, 200))


# -- the tellings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("invariant", "tell"), STORIES, ids=[tell.__name__ for _, tell in STORIES])
def test_the_wrong_telling_is_breached(tmp_path: Path, catalogue: Catalogue, invariant: str, tell: Story) -> None:
    """By the invariant that is about it, with a sentence and no field of a record in it."""
    bench = AccountBench(tmp_path, catalogue)
    tell(bench, True)
    assert invariant in bench.breached()


@pytest.mark.parametrize("tell", [tell for _, tell in STORIES], ids=[tell.__name__ for _, tell in STORIES])
def test_the_right_telling_is_silent(tmp_path: Path, catalogue: Catalogue, tell: Story) -> None:
    """Nothing at all is breached, also when the account is reconciled once again."""
    bench = AccountBench(tmp_path, catalogue)
    tell(bench, False)
    bench.reconcile()
    assert [breach.explanation for breach in bench.guard.breaches] == []


def test_a_negative_price_is_legal_where_it_is_declared(tmp_path: Path, catalogue: Catalogue) -> None:
    """Power is sold at -5 and bought at -7; the same trades in a share are a breach."""
    power = Instrument(symbol="PWR", negative_prices=True)
    for instruments, is_breached in (((power,), False), ((Instrument(symbol="PWR"),), True), ((), True)):
        bench = AccountBench(tmp_path / f"{len(instruments)}{is_breached}", catalogue, *instruments)
        bench.trade("PWR", 1, -7, 1, profit(0, -7, symbol="PWR"))
        assert ("prices-positive" in bench.breached()) == is_breached


def test_a_system_without_accounts_is_left_alone(tmp_path: Path, catalogue: Catalogue) -> None:
    """Positions, orders and cash without a movement, a margin or a venue's balance: none of the new ones applies."""
    bench = AccountBench(tmp_path, catalogue)
    bench.trade("BTC", 5, 100, 5)
    bench.record("ledger", Balance(account=ACCOUNT, currency="USDT", cash=10, carried_cash=3, transfers=7))
    bench.record("venue", position("BTC", 5))
    bench.reconcile()
    assert bench.breached() == set()


def test_a_history_that_is_older_than_the_guard_is_no_breach(tmp_path: Path, catalogue: Catalogue) -> None:
    """At the guard's first start the system restores years of facts, of which the venue has stated none here."""
    bench = AccountBench(tmp_path, catalogue)
    old = adjustment(1, AdjustmentReason.DEPOSIT, "BTC", 7)
    old_movement = movement(1, CashReason.DEPOSIT, 100)
    bench.restore(
        orders=[],
        positions=[position("BTC", 7, carried=7, date=NEXT_DAY), old],
        ledger=[replace(balance(100), trade_date=NEXT_DAY), old_movement],
    )
    bench.record("venue", adjustment(2, AdjustmentReason.FEE, "BTC", -1), movement(2, CashReason.FEE, -1))
    bench.record(
        "positions",
        replace(adjustment(2, AdjustmentReason.FEE, "BTC", -1), trade_date=NEXT_DAY),
        position("BTC", 6, carried=7, date=NEXT_DAY),
    )
    bench.record(
        "ledger",
        replace(movement(2, CashReason.FEE, -1), trade_date=NEXT_DAY),
        replace(balance(99, transfers=-1), trade_date=NEXT_DAY),
    )
    bench.reconcile(NEXT_DAY)
    assert [breach.explanation for breach in bench.guard.breaches] == []


def test_an_exposure_follows_an_adjustment(tmp_path: Path, catalogue: Catalogue) -> None:
    """Risk that ignores the fee in kind has another position than the position keeper."""
    bench = AccountBench(tmp_path, catalogue)
    bench.restore(orders=[], positions=[position("BTC", 9, carried=9)])
    bench.record("risk", Exposure(account=ACCOUNT, symbol="BTC", net_qty=9))
    bench.record("positions", adjustment(1, AdjustmentReason.FEE, "BTC", -1), position("BTC", 8, carried=9))
    assert "positions-agree" in bench.breached()


@pytest.mark.parametrize("stores_facts", [True, False])
@pytest.mark.parametrize("day", [DAY, NEXT_DAY])
def test_a_system_may_store_its_totals_only(tmp_path: Path, catalogue: Catalogue, stores_facts: bool, day: str) -> None:
    """After a restart, that day or the next, position and cash come back; the facts in them need not."""
    bench = AccountBench(tmp_path, catalogue)
    fee, funding = adjustment(1, AdjustmentReason.FEE, "BTC", -1), movement(1, CashReason.FUNDING, -10)
    bench.restore(orders=[], positions=[position("BTC", 9, carried=9)], ledger=[balance(1_000)])
    bench.record("venue", fee, funding, position("BTC", 8), balance(990, transfers=-10))
    bench.record("positions", fee, position("BTC", 8, carried=9))
    bench.record("ledger", funding, balance(990, transfers=-10))
    bench.reconcile()
    if day == DAY:
        restored_position, cash = position("BTC", 8, carried=9), balance(990, transfers=-10)
    else:
        restored_position, cash = position("BTC", 8, carried=8, date=day), replace(balance(990), trade_date=day)
    bench.restore(
        orders=[],
        positions=[restored_position, *([fee] if stores_facts else [])],
        ledger=[cash, *([funding] if stores_facts else [])],
    )
    bench.reconcile(day)
    assert [breach.explanation for breach in bench.guard.breaches] == []


@pytest.mark.parametrize("is_learnt_again", [True, False])
def test_an_older_store_learns_its_facts_again(tmp_path: Path, catalogue: Catalogue, is_learnt_again: bool) -> None:
    """A backup from before the fee: the position comes back as it was then, and the fee is booked again or lost."""
    bench = AccountBench(tmp_path, catalogue)
    fee = adjustment(1, AdjustmentReason.FEE, "BTC", -1)
    bench.restore(orders=[], positions=[position("BTC", 9, carried=9)])
    bench.record("venue", fee, position("BTC", 8))
    bench.record("positions", fee, position("BTC", 8, carried=9))
    bench.reconcile()
    bench.restore(orders=[], positions=[position("BTC", 9, carried=9)])
    assert bench.breached() == set()
    if is_learnt_again:
        bench.record("positions", fee, position("BTC", 8, carried=9))
    bench.reconcile()
    expected = set() if is_learnt_again else {"store-agrees-with-memory", "adjustments-agree-with-venue"}
    assert bench.breached() & {"store-agrees-with-memory", "adjustments-agree-with-venue"} == expected
    assert bool(bench.breached()) != is_learnt_again
