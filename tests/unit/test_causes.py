"""Causes: what one fault breaches is one incident, cause first; two faults remain two."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.incidents import IncidentLedger
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
    Request,
    Side,
)
from holdover.runtime import FreezeStore, Guard, StoreError, ThawRefusedError
from holdover.runtime.breach import CONSEQUENCES_MAX, UPDATE, Page, make_page
from holdover.runtime.causes import BreachTrace, find_example, find_subjects, group_settle
from holdover.runtime.channels import FileChannel, PagerDutyChannel
from holdover.runtime.pasted_commands import fill_commands, guard_command, thaw_command

MakeGuard = Callable[..., Guard]
THAW = {"operator": "op", "reason": "repaired", "evidence": "ticket 7"}


def order(root: str, account: str = "A1", symbol: str = "IBM", **fields: Any) -> Order:
    """A partly filled order."""
    defaults: dict[str, Any] = {
        "side": Side.BUY, "order_qty": 100, "cum_qty": 40, "leaves_qty": 60, "notional": 400, "price": 10,
        "ord_status": OrdStatus.PARTIALLY_FILLED, "strategy": "S", "order_id": f"V{root}", "trade_date": "2024-01-02",
    }  # fmt: skip
    return Order(root_cl_ord_id=root, cl_ord_id=root, account=account, symbol=symbol, **{**defaults, **fields})


def execution(root: str, account: str = "A1", symbol: str = "IBM", exec_id: str = "") -> Execution:
    """The execution of 40 at 10 that such an order has."""
    return Execution(
        exec_id=exec_id or f"E{root}", exec_type=ExecType.TRADE, root_cl_ord_id=root, account=account, symbol=symbol,
        side=Side.BUY, trade_date="2024-01-02", last_qty=40, last_px=10, qty_delta=40, notional_delta=400,
        venue="X", strategy="S",
    )  # fmt: skip


def position(account: str = "A1", symbol: str = "IBM", net_qty: int = 40) -> Position:
    """The position after that execution."""
    return Position(account=account, symbol=symbol, net_qty=net_qty, trade_date="2024-01-02")


def record_fill(guard: Guard, root: str, account: str = "A1", symbol: str = "IBM", **lost_fields: Any) -> None:
    """Record a fill of a child order of P; `lost_fields` are fields of the order that come out otherwise."""
    link = f"P-{account}-{symbol}"
    with guard.step("execution-report"):
        guard.record("positions", position(account, symbol))
        guard.record("risk", Exposure(account=account, symbol=symbol, net_qty=40, open_buy_qty=60))
        guard.record(
            "orders",
            ParentOrder(
                parent_id=link, symbol=symbol, account=account, side=Side.BUY, order_qty=100, filled_qty=40,
                working_qty=60, strategy="S",
            ),
        )  # fmt: skip
        guard.record("orders", execution(root, account, symbol))
        guard.record("orders", order(root, account, symbol, cl_ord_link_id=link, **lost_fields))


LOST_FIELDS = {"cum_qty": 10, "leaves_qty": 90}
"""A fill of 40 of which the order has 10."""


def pages_of(guard: Guard) -> list[Page]:
    """The pages of the open alerts."""
    return [alert.page for alert in guard.store.alerts()]


def causes_of(guard: Guard) -> dict[str, int]:
    """The cause's number of each breach, by invariant."""
    return {breach.invariant: breach.cause_number for breach in guard.breaches}


# -- one cause ----------------------------------------------------------------------------------------------------


def test_a_lost_quantity_is_one_incident(make_guard: MakeGuard) -> None:
    """Order, notional, parent: one alert, one incident, the order first; every scope is frozen."""
    guard = make_guard()
    record_fill(guard, "O1", **LOST_FIELDS)
    causes = causes_of(guard)
    assert {"cumulative-equals-executions", "children-sum-to-parent"} <= set(causes)
    assert len(set(causes.values())) == 1
    cause = next(breach for breach in guard.breaches if not breach.consequence_of)
    assert cause.invariant == "cumulative-equals-executions"
    assert guard.store.breaches() == guard.breaches
    assert {breach.scope for breach in guard.breaches} <= set(guard.frozen_scopes())
    (page,) = pages_of(guard)
    assert page.number == cause.number
    assert page.consequence_count == len(guard.breaches) - 1
    for breach in guard.breaches:
        assert (breach.consequence_line in page.text()) is bool(breach.consequence_of)
    ledger = IncidentLedger(guard.store)
    ledger.import_breaches()
    (incident,) = ledger.list_incidents()
    assert incident.invariant == cause.invariant
    assert incident.breaches == [breach.number for breach in guard.breaches]
    assert incident.consequences == [breach.number for breach in guard.breaches if breach.consequence_of]


def test_a_venue_comparison_later_follows_from_it(make_guard: MakeGuard) -> None:
    """While the cause is frozen, what the venue says of the order and its position joins the incident."""
    guard = make_guard()
    record_fill(guard, "O1", **LOST_FIELDS)
    before = len(guard.breaches)
    guard.record("venue", order("O1"))
    guard.record("venue", position(net_qty=10))
    guard.quiescent()
    assert len(guard.breaches) > before
    assert len(set(causes_of(guard).values())) == 1
    assert len(pages_of(guard)) == 1


def test_the_cause_is_the_order_whatever_was_found_first(make_guard: MakeGuard) -> None:
    """A position is compared with the venue before the order that moved it."""
    guard = make_guard()
    record_fill(guard, "O1")
    guard.record("venue", position(net_qty=30))
    guard.record("venue", order("O1", cum_qty=30, leaves_qty=70, notional=300))
    guard.quiescent()
    assert guard.breaches[0].kind == "Position"
    cause = next(breach for breach in guard.breaches if breach.kind == "Order")
    assert {breach.cause_number for breach in guard.breaches} == {cause.number}
    assert cause.number > guard.breaches[0].number
    (page,) = pages_of(guard)
    assert page.number == cause.number
    assert guard.store.verify_audit() == ""


# -- two causes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_step", [True, False])
def test_two_faults_are_two_incidents(make_guard: MakeGuard, one_step: bool) -> None:
    """The legal twin of merging: other accounts and instruments, in one step or in two."""
    guard = make_guard()
    if one_step:
        with guard.step("batch"):
            record_fill(guard, "O1", "A1", "IBM", **LOST_FIELDS)
            record_fill(guard, "O2", "A2", "MSFT", **LOST_FIELDS)
    else:
        record_fill(guard, "O1", "A1", "IBM", **LOST_FIELDS)
        record_fill(guard, "O2", "A2", "MSFT", **LOST_FIELDS)
    causes = [breach for breach in guard.breaches if not breach.consequence_of]
    assert [breach.key for breach in causes] == ["O1", "O2"]
    for breach in guard.breaches:
        cause = next(candidate for candidate in causes if candidate.number == breach.cause_number)
        assert ("MSFT" in repr(breach.records)) == (cause.key == "O2")
    assert len(pages_of(guard)) == 2


def test_another_order_of_the_position_later_is_another_cause(make_guard: MakeGuard) -> None:
    """Two orders share a position; a wrong status of the second does not follow from a quantity of the first."""
    guard = make_guard()
    record_fill(guard, "O1", **LOST_FIELDS)
    cause_count = len({breach.cause_number for breach in guard.breaches})
    guard.record("orders", order("O2", cum_qty=0, leaves_qty=100, notional=0, ord_status=OrdStatus.NEW))
    guard.record("orders", order("O2", cum_qty=0, leaves_qty=0, notional=0, ord_status=OrdStatus.REJECTED))
    guard.record("orders", order("O2", cum_qty=0, leaves_qty=100, notional=0, ord_status=OrdStatus.NEW))
    later = [breach for breach in guard.breaches if breach.key == "O2"]
    assert later
    assert {breach.cause_number for breach in later} == {later[0].number}
    assert len(pages_of(guard)) == cause_count + 1


def test_the_same_invariant_in_one_scope_and_two_accounts(make_guard: MakeGuard) -> None:
    """Both freeze the instrument; each has its own alert under its own key."""
    guard = make_guard()
    record_fill(guard, "O1", "A1", "IBM", **LOST_FIELDS)
    record_fill(guard, "O2", "A2", "IBM", **LOST_FIELDS)
    alerts = guard.store.alerts()
    assert len(alerts) == 2
    assert len({alert.page.dedup_key for alert in alerts}) == 2
    assert {alert.page.scope for alert in alerts} == {"instrument:IBM"}


def test_a_message_that_leaves_a_frozen_scope_is_never_a_consequence(make_guard: MakeGuard) -> None:
    """It says that the freeze did not work: on-call gets a page of its own."""
    guard = make_guard()
    record_fill(guard, "O1", **LOST_FIELDS)
    message = Request(
        cl_ord_id="O3", msg_type=MsgType.NEW_ORDER_SINGLE, root_cl_ord_id="O1", symbol="IBM", side=Side.BUY,
        order_qty=1, account="A1", strategy="S", trade_date="2024-01-02",
    )  # fmt: skip
    guard.record("gateway", message)
    leaked = next(breach for breach in guard.breaches if breach.invariant == "nothing-leaves-a-frozen-scope")
    assert leaked.consequence_of == 0
    assert len(pages_of(guard)) == 2


def test_after_the_thaw_it_is_another_incident(make_guard: MakeGuard) -> None:
    """What fails when the cause is thawed has another cause."""
    guard = make_guard()
    record_fill(guard, "O1", **LOST_FIELDS)
    with guard.step("corrected"):
        guard.record("orders", order("O1", cl_ord_link_id="P-A1-IBM"))
    for scope in list(guard.frozen_scopes()):
        guard.thaw(scope, **THAW)
    assert guard.store.alerts() == []
    before = len(guard.breaches)
    with guard.step("lost again"):
        guard.record("orders", order("O1", cl_ord_link_id="P-A1-IBM", leaves_qty=0))
    assert guard.breaches[before].consequence_of == 0


# -- freezes, thaws, alerts ---------------------------------------------------------------------------------------


def test_a_covered_scope_gets_no_second_freeze_and_no_weaker_thaw(make_guard: MakeGuard) -> None:
    """The thaw of the one freeze is refused while any breach of the scope fails."""
    guard = make_guard()
    with guard.step("two wrongs"):
        guard.record("orders", execution("O1"))
        guard.record("orders", order("O1", leaves_qty=50, notional=300))
    scope = "instrument:IBM"
    breaches = [breach.invariant for breach in guard.breaches if breach.scope == scope]
    assert len(breaches) == 2
    assert [freeze.scope for freeze in guard.active_freezes] == [scope]
    with pytest.raises(ThawRefusedError, match=f"{breaches[0]} still does not hold"):
        guard.thaw(scope, **THAW)
    with guard.step("half repaired"):
        guard.record("orders", order("O1", notional=300))
    with pytest.raises(ThawRefusedError, match=f"{breaches[1]} still does not hold"):
        guard.thaw(scope, **THAW)
    with guard.step("repaired"):
        guard.record("orders", order("O1"))
    assert guard.thaw(scope, **THAW) == 1


def test_the_alert_is_over_with_the_last_scope(make_guard: MakeGuard) -> None:
    """Thawing the cause leaves the consequences frozen, and the alert open."""
    guard = make_guard()
    record_fill(guard, "O1", **LOST_FIELDS)
    scopes = list(guard.frozen_scopes())
    assert len(scopes) > 1
    with guard.step("corrected"):
        guard.record("orders", order("O1", cl_ord_link_id="P-A1-IBM"))
    for scope in scopes:
        assert len(guard.store.alerts()) == 1
        guard.thaw(scope, **THAW)
    assert guard.store.alerts() == []


def test_consequences_after_the_page_are_one_update(make_guard: MakeGuard, tmp_path: Path) -> None:
    """A page that was delivered is followed by one update of low urgency, whatever else follows."""
    path = tmp_path / "pages.jsonl"
    guard = make_guard(channels=[FileChannel(path)])
    record_fill(guard, "O1", **LOST_FIELDS)
    guard.pager.deliver_due()
    for number in range(3):
        guard.record("venue", order("O1", cum_qty=40 + number, leaves_qty=60 - number))
        guard.record("venue", position(net_qty=10 + number))
        guard.quiescent()
        guard.pager.deliver_due()
    pages = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    assert [page["event"] for page in pages] == ["trigger", UPDATE]
    page = guard.store.alerts()[0].page
    channel = PagerDutyChannel("key", url="http://localhost")
    event = channel.to_event(replace(page, event=UPDATE))
    assert event["event_action"] == "trigger"
    assert event["payload"]["severity"] == "info"
    assert event["dedup_key"] == page.dedup_key


def test_a_page_lists_so_many_consequences_and_counts_the_rest(catalogue: Catalogue, make_guard: MakeGuard) -> None:
    """A flood does not make an endless page."""
    guard = make_guard()
    record_fill(guard, "O1", **LOST_FIELDS)
    breach = guard.breaches[0]
    page = make_page(breach, catalogue[breach.invariant].entry, 1)
    page = page.with_consequences(f"line {number}" for number in range(CONSEQUENCES_MAX + 5))
    assert page.consequence_lines()[-1] == "and 5 more"
    assert len(page.consequence_lines()) == CONSEQUENCES_MAX + 1


def test_a_restarted_guard_goes_on_with_the_incident(make_guard: MakeGuard) -> None:
    """What follows after a restart of the guard's process joins the cause from before it."""
    guard = make_guard()
    record_fill(guard, "O1", **LOST_FIELDS)
    guard.save_memory()
    cause = next(breach for breach in guard.breaches if not breach.consequence_of)
    restarted = Guard(guard.directory, clock=guard.clock, channels=[])
    restarted.load_memory()
    restarted.record("venue", order("O1"))
    restarted.quiescent()
    assert restarted.breaches
    assert {breach.cause_number for breach in restarted.breaches} == {cause.number}
    restarted.close()


def test_a_consequence_without_its_cause_is_a_cause(make_guard: MakeGuard) -> None:
    """A store that lost the cause, or never got it, pages the consequence."""
    guard = make_guard()
    record_fill(guard, "O1", **LOST_FIELDS)
    orphan = replace(guard.breaches[0], number=0, consequence_of=99)
    assert guard.store.record_consequence(orphan, []) == (0, None)
    assert len(guard.store.breaches()) == len(guard.breaches)


def test_a_store_that_fails_freezes_everything_and_pages_causes(make_guard: MakeGuard) -> None:
    """Each breach freezes the system in memory; what follows from another breach is not paged directly."""
    guard = make_guard()

    def fail(*arguments: Any) -> Any:
        raise StoreError("no disk")

    guard.store.record_breach = guard.store.record_consequence = fail  # type: ignore[method-assign, assignment]
    record_fill(guard, "O1", **LOST_FIELDS)
    assert guard.frozen_scopes() == ["system"]
    assert len(guard.pager._direct_pages) == len([breach for breach in guard.breaches if not breach.consequence_of])
    assert len(guard.pager._direct_pages) < len(guard.breaches)
    assert pages_of(guard) == []


# -- the rule -----------------------------------------------------------------------------------------------------

KEYS = st.tuples(st.sampled_from("12"), st.sampled_from("12"))


@st.composite
def settles(draw: st.DrawFn, account: str) -> list[BreachTrace]:
    """Breaches of one settle in an account of its own."""
    traces = []
    for number in range(draw(st.integers(1, 6))):
        order_name, symbol = draw(KEYS)
        kind = draw(st.sampled_from(["order", "position", "parent", "cash", "execution"]))
        place = f"{account}/{account}{symbol}"
        feeds = {
            "order": [f"position:{place}", f"cash:{account}/USD", f"parent:P{account}{symbol}"],
            "execution": [f"position:{place}", f"cash:{account}/USD"],
            "position": [f"cash:{account}/USD"],
        }
        own = {
            "order": [f"order:{account}{symbol}{order_name}"],
            "execution": [f"execution:{account}{symbol}{order_name}", f"order:{account}{symbol}{order_name}"],
            "position": [f"position:{place}"],
            "parent": [f"parent:P{account}{symbol}"],
            "cash": [f"cash:{account}/USD"],
        }
        traces.append(
            BreachTrace(
                number=number + (1 if account == "A" else 100), invariant="i", scope="s",
                mutation=draw(st.integers(1, 3)), family=draw(st.sampled_from(["quantity", "reconciliation"])),
                stage=draw(st.integers(0, 3)), subjects=frozenset(own[kind]), feeds=frozenset(feeds.get(kind, [])),
            )
        )  # fmt: skip
    return traces


@given(settles("A"), settles("B"), st.randoms(use_true_random=False))
def test_disjoint_faults_never_merge_and_order_does_not_matter(
    first: list[BreachTrace], second: list[BreachTrace], shuffle: Any
) -> None:
    """The groups of two disjoint settles are those of each, in whatever order the breaches were found."""
    together = [*first, *second]
    shuffle.shuffle(together)
    causes = group_settle(together)
    assert causes == {**group_settle(first), **group_settle(second)}
    ranks = {trace.number: trace.rank for trace in together}
    for number, cause in causes.items():
        assert causes[cause] == cause
        assert ranks[cause] <= ranks[number]


def test_cash_belongs_to_one_of_two_positions() -> None:
    """Two wrong positions of one account stay two incidents, though both move its cash."""
    common: dict[str, Any] = {"invariant": "i", "scope": "s", "mutation": 1, "family": "quantity", "stage": 1}
    cash = BreachTrace(number=1, subjects=frozenset({"cash:A/USD"}), feeds=frozenset(), **common)
    positions = [
        BreachTrace(number=number, subjects=frozenset({key}), feeds=frozenset({"cash:A/USD"}), **common)
        for number, key in ((2, "position:A/IBM"), (3, "position:A/MSFT"))
    ]
    assert group_settle([cash, *positions]) == {1: 2, 2: 2, 3: 3}


def test_subjects_and_feeds_are_those_of_the_model() -> None:
    """An order feeds position, cash and parent; a balance nothing; a session invariant is about the link."""

    def currency_of(account: str, symbol: str) -> str:
        return "USD"

    child = order("O1", cl_ord_link_id="P1", link="L1")
    assert find_subjects(child, "quantity", currency_of) == (
        ["order:O1"],
        ["position:A1/IBM", "cash:A1/USD", "parent:P1"],
    )
    assert find_subjects(child, "session", currency_of) == (["link:L1"], [])
    balance = Balance(account="A1", currency="EUR", cash=1)
    assert find_subjects(balance, "quantity", currency_of) == (["cash:A1/EUR"], [])
    assert find_subjects(None, "quantity", currency_of) == ([], [])


def test_the_example_of_a_self_check_names_its_record() -> None:
    """A `repr`, a total's key or account and symbol."""
    records = {"O1": order("O1"), "A1/IBM": position()}
    assert find_example("<Order O1 NEW 0/100 leaves 100>", records.get) is records["O1"]
    assert find_example("orders.Execution.qty_delta[O1] kept 1 recomputed 2", records.get) is records["O1"]
    assert find_example("<Position A1 IBM +40 carried +0 2024-01-02>", records.get) is records["A1/IBM"]
    assert find_example("<Order O2 NEW 0/100 leaves 100>", records.get) is None


# -- commands that can be pasted ----------------------------------------------------------------------------------

NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1).filter(lambda text: "`" not in text)


@given(NAMES, NAMES, NAMES)
def test_a_printed_command_gives_scope_and_directory_back(account: str, symbol: str, directory: str) -> None:
    """A shell reads exactly the scope and the directory from the command, whatever their characters."""
    scope, guard = f"account:{account}/instrument:{symbol}", Path("/srv") / directory
    printed = thaw_command(scope, guard)
    words = shlex.split(printed)
    assert words[:5] == ["holdover", "thaw", scope, "--guard", str(guard)]
    step = "Thaw with `holdover thaw account:ACCOUNT/instrument:SYMBOL --guard DIR --operator NAME --reason ...`."
    filled = fill_commands(step, scope, guard)
    assert shlex.split(filled.split("`")[1])[:5] == words[:5]
    assert shlex.split(guard_command("status", guard)) == ["holdover", "status", "--guard", str(guard)]


def test_no_placeholder_of_scope_or_directory_is_left_in_any_step(catalogue: Catalogue) -> None:
    """Every command of every entry is filled in."""
    for invariant in catalogue:
        for step in invariant.entry.response:
            text = fill_commands(f"{step.step} {step.done_when}", "link:L 1", Path("/srv/the desk"))
            assert "--guard DIR" not in text
            if "holdover thaw " in step.step:
                words = shlex.split(text[text.index("holdover thaw") :].split("`")[0])
                assert words[2:5] == ["link:L 1", "--guard", "/srv/the desk"]


def test_status_prints_the_incident_and_a_command(make_guard: MakeGuard, capsys: pytest.CaptureFixture[str]) -> None:
    """The cause first, what followed indented, and a thaw that can be pasted for each scope."""
    guard = make_guard()
    record_fill(guard, "O1", **LOST_FIELDS)
    FreezeStore(guard.directory / "guard.db").close()
    assert main(["status", "--guard", str(guard.directory)]) == 1
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert lines[0].startswith("FROZEN instrument:IBM by cumulative-equals-executions;")
    assert any(line.startswith("  FROZEN ") and "follows from breach" in line for line in lines)
    for scope in guard.frozen_scopes():
        assert thaw_command(scope, guard.directory) in output
    page = pages_of(guard)[0]
    assert page.next_command == guard_command("status", guard.directory)
    assert thaw_command(page.scope, guard.directory) in page.text()
