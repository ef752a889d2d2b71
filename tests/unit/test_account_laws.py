"""Laws of accounts: profit is conserved and does not depend on order or restarts; a venue's accounts are a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdover.desk import DeskConfig
from holdover.desk.profit import ProfitAndLoss, SessionFlow, compute_open_cost
from holdover.model import (
    AccountReport,
    AdjustmentReason,
    CashReason,
    ExecType,
    Execution,
    ImpossibleStateError,
    Instrument,
    MsgType,
    OrderOrigin,
    Position,
    PositionSide,
    Query,
    RealizedPnl,
    Record,
    Side,
)
from holdover.state import StateError
from holdover.world import Venue, VenuePolicy, VirtualClock

KEY = "A/X"
DAYS = ("2024-01-02", "2024-01-03", "2024-01-04")


@dataclass
class MemoryStore:
    """A store and a guard of which the profit keeper needs three methods."""

    records: dict[str, RealizedPnl] = field(default_factory=dict)

    def load_all(self, kind: type[Record]) -> list[RealizedPnl]:
        """Return the stored records."""
        return list(self.records.values())

    def save(self, record: RealizedPnl) -> None:
        """Store a record."""
        self.records[record.key] = record

    def record(self, subsystem: str, record: Record) -> None:
        """Ignore what a guard would receive."""


def execution(number: int, lots: int, price: int, day: str, *, exec_type: ExecType = ExecType.TRADE) -> Execution:
    """Return an execution; negative lots sell. A bust states what it takes back."""
    size = abs(lots)
    sign = -1 if exec_type == ExecType.TRADE_CANCEL else 1
    return Execution(
        exec_id=f"E{number}",
        exec_type=exec_type,
        root_cl_ord_id="o",
        symbol="X",
        account="A",
        side=Side.BUY if lots > 0 else Side.SELL,
        trade_date=day,
        last_qty=size,
        last_px=price,
        qty_delta=sign * size,
        notional_delta=sign * size * price,
    )


class ProfitBench:
    """A position and its profit over days, with restarts at any point."""

    def __init__(self, *, negative_prices: bool = False) -> None:
        instrument = Instrument(symbol="X", negative_prices=negative_prices)
        self.config = DeskConfig(instruments=[instrument], strategies=[])
        self.store: Any = MemoryStore()
        self.executions: list[Execution] = []
        self.position = Position(account="A", symbol="X", net_qty=0)
        self.day = DAYS[0]
        self.restart()

    def restart(self) -> None:
        """Replace the keeper by a new one that reads the store and the executions."""
        self.keeper = ProfitAndLoss(self.config, self.store, self.store)
        self.keeper.load(self.executions, self.day)

    def begin(self, day: str) -> None:
        """Begin a session."""
        self.day = day
        self.position = replace(self.position, carried_qty=self.position.net_qty, trade_date=day)
        self.restart()
        self.keeper.begin(day)

    def book(self, booked: Execution) -> None:
        """Book one execution."""
        self.executions.append(booked)
        self.position = replace(self.position, net_qty=self.position.net_qty + booked.signed_qty)
        self.keeper.book(booked, self.position)

    def adjust(self, lots: int) -> None:
        """Change the position without a trade."""
        self.position = replace(self.position, net_qty=self.position.net_qty + lots)
        self.keeper.update(self.position)

    @property
    def profit(self) -> RealizedPnl:
        """The present record."""
        return self.store.records.get(KEY) or RealizedPnl(account="A", symbol="X", realized=0, open_cost=0)


ACTIONS = st.one_of(
    st.tuples(st.just("trade"), st.integers(-20, 20).filter(bool), st.integers(1, 200)),
    st.tuples(st.just("bust"), st.integers(0, 5), st.just(0)),
    st.tuples(st.just("adjust"), st.integers(-5, 5).filter(bool), st.just(0)),
    st.tuples(st.just("night"), st.just(0), st.just(0)),
)


def play(bench: ProfitBench, actions: list[tuple[str, int, int]], restarts: set[int]) -> list[RealizedPnl]:
    """Play actions, with a restart before those whose number is in `restarts`; return the record after each."""
    bench.begin(DAYS[0])
    records, nights, busted = [], 0, set()
    for number, (kind, amount, price) in enumerate(actions):
        if number in restarts:
            bench.restart()
        if kind == "trade":
            bench.book(execution(number, amount, price, bench.day))
        elif kind == "bust":
            trades = [e for e in bench.executions if e.exec_type == ExecType.TRADE and e.exec_id not in busted]
            if trades:
                trade = trades[-1 - amount % len(trades)]
                busted.add(trade.exec_id)
                lots = trade.last_qty if trade.side == Side.BUY else -trade.last_qty
                bench.book(execution(number, lots, trade.last_px, bench.day, exec_type=ExecType.TRADE_CANCEL))
        elif kind == "adjust":
            bench.adjust(amount)
        elif nights + 1 < len(DAYS):
            nights += 1
            bench.begin(DAYS[nights])
        records.append(bench.profit)
    return records


@settings(max_examples=300, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=25))
def test_profit_is_conserved(actions: list[tuple[str, int, int]]) -> None:
    """Realized = open cost - what was bought + what was sold, over all days; a flat position costs nothing."""
    bench = ProfitBench()
    play(bench, actions, set())
    record = bench.profit
    traded = sum(booked.signed_notional for booked in bench.executions)
    assert record.realized == record.open_cost - traded
    session = sum(booked.signed_notional for booked in bench.executions if booked.booked_on == record.trade_date)
    assert record.realized - record.carried_realized == record.open_cost - record.carried_cost - session
    net_qty = bench.position.net_qty
    if net_qty == 0:
        assert record.open_cost == 0
    else:
        assert record.open_cost * net_qty >= 0


@settings(max_examples=200, deadline=None)
@given(actions=st.lists(ACTIONS, min_size=1, max_size=20), data=st.data())
def test_a_restart_changes_no_profit(actions: list[tuple[str, int, int]], data: st.DataObject) -> None:
    """Wherever the process ends and starts again, each record is what it would have been."""
    restarts = data.draw(st.sets(st.integers(0, len(actions) - 1)))
    assert play(ProfitBench(), actions, restarts) == play(ProfitBench(), actions, set())


@settings(max_examples=200, deadline=None)
@given(
    trades=st.lists(st.tuples(st.integers(-20, 20).filter(bool), st.integers(1, 200)), min_size=1, max_size=12),
    data=st.data(),
)
def test_the_order_of_the_executions_does_not_matter(trades: list[tuple[int, int]], data: st.DataObject) -> None:
    """A late report gives the same profit of the session as one that came in time."""
    other_order = data.draw(st.permutations(trades))
    profits = []
    for sequence in (trades, other_order):
        bench = ProfitBench()
        play(bench, [("trade", lots, price) for lots, price in sequence], set())
        profits.append(bench.profit)
    assert profits[0] == profits[1]


@settings(max_examples=100, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=15))
def test_profit_is_conserved_at_negative_prices(actions: list[tuple[str, int, int]]) -> None:
    """The same sum where a price may be below zero; the cost may then have the other sign."""
    bench = ProfitBench(negative_prices=True)
    play(
        bench, [(kind, amount, 100 - 2 * price if kind == "trade" else price) for kind, amount, price in actions], set()
    )
    assert bench.profit.realized == bench.profit.open_cost - sum(e.signed_notional for e in bench.executions)


@pytest.mark.parametrize(
    ("net_qty", "carried_qty", "carried_cost", "flow", "open_cost"),
    [
        (10, 0, 0, SessionFlow(bought_qty=10, bought_notional=1_000), 1_000),
        (5, 10, 1_000, SessionFlow(sold_qty=5, sold_notional=600), 500),
        (-5, 10, 1_000, SessionFlow(sold_qty=15, sold_notional=1_650), -550),
        (0, 10, 1_000, SessionFlow(sold_qty=10, sold_notional=1_200), 0),
        (9, 0, 0, SessionFlow(bought_qty=10, bought_notional=1_000), 900),
        (12, 10, 1_000, SessionFlow(), 1_000),
        (-3, -3, -301, SessionFlow(), -301),
        (2, 0, 0, SessionFlow(bought_qty=3, bought_notional=100), 66),
    ],
)
def test_what_is_open_costs_its_share(
    net_qty: int, carried_qty: int, carried_cost: int, flow: SessionFlow, open_cost: int
) -> None:
    """A buy, half a close, a flip, a close, a fee in kind, a deposit in kind, a short, and a rounding."""
    position = Position(account="A", symbol="X", net_qty=net_qty, carried_qty=carried_qty)
    assert compute_open_cost(position, carried_cost, flow) == open_cost


# -- the venue's accounts -------------------------------------------------------------------------------------------


class VenueBench:
    """A venue with one instrument and one open account, whose messages and records are kept."""

    def __init__(self, **policy: Any) -> None:
        self.clock = VirtualClock(1_000)
        self.venue = Venue(self.clock, [Instrument(symbol="X")], VenuePolicy(**policy))
        self.messages: list[Any] = []
        self.observed: dict[tuple[str, str], Record] = {}
        self.venue.attach(["A"], self.messages.append)
        self.venue.reports.observe = self._observe
        self.venue.accounts.open(["A"])

    def _observe(self, record: Record) -> None:
        self.observed[type(record).__name__, record.key] = record

    def act(self, kind: str, amount: int) -> None:
        """Let the venue do one thing."""
        venue = self.venue
        if kind == "cash":
            venue.accounts.move_cash("A", "USD", amount, CashReason.FUNDING)
        elif kind == "adjust":
            venue.accounts.adjust_position("A", "X", amount, AdjustmentReason.TRANSFER)
        elif kind == "trade" and amount:
            side = Side.BUY if amount > 0 else Side.SELL
            venue.manual_trade("A", "X", side, abs(amount), 100 + amount % 7)
        elif kind == "liquidate":
            venue.books["X"].last_px = 99
            venue.liquidate("A", "X", OrderOrigin.AUTO_DELEVERAGING)
        elif kind == "bust" and venue.trades:
            trade = venue.trades[amount % len(venue.trades)]
            venue.bust_trade(trade.exec_id, trade.trade_date)
        elif kind == "night":
            day = f"2024-01-{int(venue.trade_date[-2:]) + 1:02}"
            venue.end()
            venue.overnight()
            venue.begin(day, 10, 20)

    def query(self, since_date: str = "") -> list[AccountReport]:
        """Return the answer to an account query."""
        query = Query(msg_type=MsgType.COLLATERAL_INQUIRY, req_id="Q1", account="A", since_date=since_date)
        return self.venue.accounts.answer(query)


VENUE_ACTS = st.lists(
    st.tuples(st.sampled_from(["cash", "adjust", "trade", "liquidate", "bust", "night"]), st.integers(-9, 9)),
    max_size=20,
)


@settings(max_examples=100, deadline=None)
@given(acts=VENUE_ACTS)
def test_cash_and_positions_are_the_sum_of_their_facts(acts: list[tuple[str, int]]) -> None:
    """What trades and movements explain is the cash, what trades and adjustments explain is the position."""
    bench = VenueBench(commission_bp=25, commission_in_kind=True, interest_bp=3)
    bench.venue.begin("2024-01-02", 10, 20)
    for kind, amount in acts:
        bench.act(kind, amount)
    venue = bench.venue
    orders = venue.orders.values()
    bought = sum(order.notional if order.side == Side.BUY else -order.notional for order in orders)
    lots = sum(order.cum_qty if order.side == Side.BUY else -order.cum_qty for order in orders)
    moved = sum(movement.amount for movement in venue.accounts.movements)
    adjusted = sum(adjustment.qty_delta for adjustment in venue.accounts.adjustments)
    assert venue.accounts.balances["A/USD"].cash == moved - venue.books["X"].instrument.cash(bought)
    position = venue.positions.get(KEY)
    assert (position.net_qty if position else 0) == lots + adjusted
    facts = [*venue.accounts.movements, *venue.accounts.adjustments]
    stated = [report.movement or report.adjustment for report in bench.query()[:-1]]
    assert sorted(map(repr, stated)) == sorted(map(repr, facts))
    reported = [m.movement or m.adjustment for m in bench.messages if isinstance(m, AccountReport)]
    assert sorted(repr(fact) for fact in reported if fact is not None) == sorted(map(repr, facts))


@settings(max_examples=60, deadline=None)
@given(before=VENUE_ACTS, after=VENUE_ACTS)
def test_the_accounts_are_a_value(before: list[tuple[str, int]], after: list[tuple[str, int]]) -> None:
    """A rollback brings back a checkpoint, and another venue takes over the bytes and goes on alike."""
    bench, other = VenueBench(interest_bp=3), VenueBench(interest_bp=3)
    bench.venue.begin("2024-01-02", 10, 20)
    for kind, amount in before:
        bench.act(kind, amount)
    content, checkpoint = bench.venue.to_bytes(), bench.venue.checkpoint()
    other.venue.restore_bytes(content)
    for kind, amount in after:
        bench.act(kind, amount)
        other.act(kind, amount)
    assert other.venue.to_bytes() == bench.venue.to_bytes()
    bench.venue.rollback(checkpoint)
    assert bench.venue.to_bytes() == content


def test_an_account_that_is_not_open_does_not_exist() -> None:
    """No message, no record and no cash of it; a query gets one empty report."""
    bench = VenueBench()
    bench.venue.accounts.open_accounts.clear()
    bench.venue.begin("2024-01-02", 10, 20)
    for kind in ("cash", "adjust", "trade"):
        bench.act(kind, 5)
    assert not any(isinstance(message, AccountReport) for message in bench.messages)
    assert {kind for kind, _ in bench.observed} == {"Book", "Order", "Position"}
    assert bench.query() == [AccountReport(report_id="Q1", account="A", req_id="Q1", last_rpt_requested=True)]


def test_a_liquidation_is_an_order_of_the_venue() -> None:
    """It closes the position at the last price, says who made it, and no client has assigned its id."""
    bench = VenueBench(maintenance_margin_bp=5_000)
    bench.venue.begin("2024-01-02", 10, 20)
    assert bench.venue.liquidate("A", "X") == ""
    bench.act("trade", 7)
    bench.venue.books["X"].last_px = 90
    cl_ord_id = bench.venue.liquidate("A", "X", lots=3)
    order = bench.venue.order_record(cl_ord_id)
    assert order is not None
    assert (order.origin, order.foreign, order.cum_qty, order.side) == (OrderOrigin.LIQUIDATION, True, 3, Side.SELL)
    report = next(message for message in bench.messages if getattr(message, "cl_ord_id", "") == cl_ord_id)
    assert report.origin == OrderOrigin.LIQUIDATION
    assert report.to_order(cl_ord_id).origin == OrderOrigin.LIQUIDATION
    margin = bench.venue.accounts.margins["A/USD"]
    assert margin.maintenance == bench.venue.books["X"].instrument.cash(4 * 90) // 2


def test_a_ticker_change_is_two_adjustments() -> None:
    """They cancel each other, and the new position is the old one."""
    bench = VenueBench()
    bench.venue.begin("2024-01-02", 10, 20)
    bench.act("adjust", 8)
    bench.venue.accounts.rename_position("A", "X", "Y")
    assert [fact.qty_delta for fact in bench.venue.accounts.adjustments] == [8, -8, 8]
    assert (bench.venue.positions[KEY].net_qty, bench.venue.positions["A/Y"].net_qty) == (0, 8)


def test_damaged_accounts_are_refused() -> None:
    """An id that was never given, two facts with one id, and a balance under another key."""
    bench = VenueBench()
    bench.venue.begin("2024-01-02", 10, 20)
    bench.act("cash", 5)
    accounts = bench.venue.accounts
    accounts.movements.append(accounts.movements[-1])
    with pytest.raises(StateError, match="two facts have one id"):
        VenueBench().venue.accounts.restore_bytes(accounts.to_bytes())
    accounts.movements[-1] = replace(accounts.movements[0], movement_id="M99")
    with pytest.raises(StateError, match="an id above number"):
        VenueBench().venue.accounts.restore_bytes(accounts.to_bytes())
    del accounts.movements[-1]
    accounts.balances["A/EUR"] = accounts.balances["A/USD"]
    with pytest.raises(StateError, match="stored as A/EUR"):
        VenueBench().venue.accounts.restore_bytes(accounts.to_bytes())


@pytest.mark.parametrize("name", ["opening_cash", "commission_bp", "maintenance_margin_bp", "leverage_max"])
def test_a_policy_has_no_negative_rates(name: str) -> None:
    """The message names the field."""
    with pytest.raises(ValueError, match=name):
        VenuePolicy(**{name: -1})


def test_impossible_acts_are_refused() -> None:
    """Each with a sentence that names what is missing."""
    bench = VenueBench()
    bench.venue.begin("2024-01-02", 10, 20)
    venue, accounts = bench.venue, bench.venue.accounts
    with pytest.raises(ImpossibleStateError, match="of no currency"):
        accounts.move_cash("A", "", 5, CashReason.FEE)
    with pytest.raises(ImpossibleStateError, match="of no instrument"):
        accounts.adjust_position("A", "", 5, AdjustmentReason.FEE)
    with pytest.raises(ImpossibleStateError, match="names the legs"):
        accounts.adjust_position("A", "X", 5, AdjustmentReason.FEE, position_side=PositionSide.LONG, position_id="7")
    with pytest.raises(ValueError, match="the new ticker is empty"):
        accounts.rename_position("A", "X", "")
    with pytest.raises(ValueError, match="without a name"):
        accounts.open([""])
    with pytest.raises(ValueError, match="a liquidation of Z"):
        venue.liquidate("A", "Z")
    with pytest.raises(ValueError, match="should be from 1 on"):
        venue.liquidate("A", "X", lots=0)
    with pytest.raises(ImpossibleStateError, match="no account query"):
        accounts.answer(Query(msg_type=MsgType.REQUEST_FOR_POSITIONS, req_id="Q", account="A"))
    with pytest.raises(ImpossibleStateError, match="which is no trade"):
        SessionFlow().add(execution(1, 5, 100, DAYS[0], exec_type=ExecType.NEW))
