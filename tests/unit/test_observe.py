"""Observe mode: nothing is frozen, everything that would have been is remembered."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace

from holdover.catalogue import Catalogue, Policy
from holdover.catalogue.policy import Mode
from holdover.cli import main
from holdover.explore.reproduction import reproduce
from holdover.incidents import IncidentLedger
from holdover.model import Exposure, MsgType, OrdStatus, Position, Record
from holdover.runtime import (
    EscalationLevel,
    Guard,
    GuardSettings,
    Journal,
    Page,
    StoreError,
    read_config,
    read_journal,
)
from holdover.runtime.bundle import Bundle, BundleError
from holdover.runtime.freeze_store import FreezeStore
from holdover.runtime.heartbeat import Heartbeat, HeartbeatLimits, judge_health
from holdover.runtime.observation import BUNDLES_MAX, REPETITIONS_MAX, describe_policy, make_observed_page
from holdover.runtime.observed_freezes import ObservedFreeze, make_observed_freeze

from .console_bench import ConsoleBench
from .orders import BAD, GOOD, order, request

MakeGuard = Callable[..., Guard]

CATALOGUE = Catalogue.load()
UNFROZEN = CATALOGUE.without(*(invariant.name for invariant in CATALOGUE if invariant.entry.family == "freeze"))
"""Without the entries that read the freezes: their verdict follows from what is frozen."""
INVARIANT = "order-quantity-conserved"
FAR = "2999-12-31"
SMALL = CATALOGUE.without(*(name for name in CATALOGUE.invariants if name not in (INVARIANT, "books-agree-with-venue")))
"""A catalogue in which one record breaches one invariant."""


def observing(catalogue: Catalogue = SMALL) -> Catalogue:
    """The catalogue of a guard that observes as a whole."""
    return catalogue.with_policy([], "observe")


def policy_of(name: str = INVARIANT, mode: Mode = "observe", expires: str = FAR, **fields: Any) -> Policy:
    """A policy of one entry with a reason."""
    return Policy(invariant=name, mode=mode, reason="measured first", expires=expires, **fields)  # type: ignore[arg-type]


# -- the law --------------------------------------------------------------------------------------------------------

ACCOUNTS, SYMBOLS = ("A", "B"), ("IBM", "BAC")
QUANTITIES = st.integers(-2, 3).map(lambda number: number * 20)
ORDERS = st.builds(
    order,
    root_cl_ord_id=st.sampled_from(("A1", "B1", "C1")),
    symbol=st.sampled_from(SYMBOLS),
    account=st.sampled_from(ACCOUNTS),
    leaves_qty=QUANTITIES,
    cum_qty=QUANTITIES,
    ord_status=st.sampled_from(OrdStatus),
)
PLACES = {"account": st.sampled_from(ACCOUNTS), "symbol": st.sampled_from(SYMBOLS), "net_qty": QUANTITIES}
RECORDS = st.one_of(
    st.tuples(st.sampled_from(("orders", "venue")), ORDERS),
    st.tuples(st.sampled_from(("positions", "venue")), st.builds(Position, carried_qty=QUANTITIES, **PLACES)),
    st.tuples(st.just("risk"), st.builds(Exposure, **PLACES)),
)
STREAMS = st.lists(
    st.one_of(st.lists(RECORDS, min_size=1, max_size=3), st.sampled_from(("tick", "reconciled", "overnight"))),
    max_size=12,
)
Stream = Sequence[list[tuple[str, Record]] | str]


class SteppingClock:
    """A clock that a stream advances by a minute for each of its steps."""

    now_ns = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns


def play(catalogue: Catalogue, stream: Stream, after_step: Callable[[Guard], None] = lambda guard: None) -> Guard:
    """A guard in memory to which a stream of records was reported."""
    return play_into(catalogue, stream, None, after_step)


def play_into(
    catalogue: Catalogue,
    stream: Stream,
    journal: Journal | None,
    after_step: Callable[[Guard], None] = lambda guard: None,
) -> Guard:
    """A guard in memory to which a stream of records was reported, with a journal."""
    clock = SteppingClock()
    guard = Guard(
        Path("unused"),
        GuardSettings(),
        catalogue=catalogue,
        clock=clock,
        channels=[],
        journal=journal,
        store=FreezeStore.in_memory(),
    )
    for entry in stream:
        clock.now_ns += 60_000_000_000
        if isinstance(entry, list):
            with guard.step("test"):
                for subsystem, record in entry:
                    guard.record(subsystem, record)
        elif entry == "tick":
            guard.tick()
        else:
            guard.boundary(entry, "2024-01-02")
        after_step(guard)
    return guard


def first_times(freezes: Sequence[Any]) -> dict[tuple[str, str], int]:
    """When each pair of scope and invariant was frozen first."""
    times: dict[tuple[str, str], int] = {}
    for freeze in sorted(freezes, key=lambda freeze: freeze.time_ns):
        times.setdefault((freeze.scope, freeze.invariant), freeze.time_ns)
    return times


@settings(deadline=None, max_examples=150)
@given(STREAMS)
def test_what_is_observed_is_what_would_be_frozen(stream: Stream) -> None:
    """For the same mutations, observe mode remembers every scope that enforce mode froze, from the same time.

    A breach whose scope is frozen already needs no second freeze; observe mode remembers it all the same.
    """
    enforcing, observer = play(UNFROZEN, stream), play(observing(UNFROZEN), stream)
    observed = first_times(observer.store.observed_freezes())
    assert observed == first_times(enforcing.breaches)
    assert first_times(enforcing.active_freezes).items() <= observed.items()
    assert {scope for scope, _ in observed} == set(enforcing.frozen_scopes())
    assert enforcing.store.observed_freezes() == []


@settings(deadline=None, max_examples=100)
@given(STREAMS)
def test_observe_mode_never_freezes(stream: Stream) -> None:
    """After every step, nothing is frozen and every message may leave, whatever would have been refused."""

    def check(guard: Guard) -> None:
        assert guard.active_freezes == []
        assert guard.store.active_freezes() == []
        for account in ACCOUNTS:
            for symbol in SYMBOLS:
                assert guard.permits(request(account=account, symbol=symbol))
        assert all(breach.mode == "observe" for breach in guard.breaches)

    play(observing(CATALOGUE), stream, check)


@settings(deadline=None, max_examples=100)
@given(STREAMS, st.sets(st.sampled_from(sorted(UNFROZEN.invariants))))
def test_each_entry_follows_its_own_policy(stream: Stream, observed: set[str]) -> None:
    """The entries under observation freeze nothing, and the others freeze what they always did."""
    enforcing = play(UNFROZEN, stream)
    mixed = play(UNFROZEN.with_policy([policy_of(name) for name in observed]), stream)
    expected = first_times(enforcing.breaches)
    assert first_times([breach for breach in mixed.breaches if breach.mode == "enforce"]) == {
        mark: time_ns for mark, time_ns in expected.items() if mark[1] not in observed
    }
    assert first_times(mixed.store.observed_freezes()) == {
        mark: time_ns for mark, time_ns in expected.items() if mark[1] in observed
    }


@settings(deadline=None, max_examples=50)
@given(STREAMS, STREAMS)
def test_a_rollback_restores_what_was_observed(before: Stream, after: Stream) -> None:
    """The observation is part of a checkpoint."""
    guard = play(observing(CATALOGUE), before)
    checkpoint, open_freezes, stored = guard.checkpoint(), guard.observed_freezes(), guard.store.observed_freezes()
    for entry in after:
        if isinstance(entry, list):
            for subsystem, record in entry:
                guard.record(subsystem, record)
    guard.rollback(checkpoint)
    assert guard.observed_freezes() == open_freezes
    assert guard.store.observed_freezes() == stored


# -- one breach -----------------------------------------------------------------------------------------------------


def test_an_observed_breach_is_recorded_everywhere(make_guard: MakeGuard, tmp_path: Path) -> None:
    """In the list, the store, the journal and a bundle, and with an alert of low urgency that says so."""
    journal = tmp_path / "journal.jsonl"
    guard = make_guard(catalogue=observing(), journal=Journal(journal), bundles=tmp_path / "bundles")
    guard.record("orders", BAD)
    (breach,) = guard.breaches
    assert (breach.mode, breach.invariant, breach.scope) == ("observe", INVARIANT, "instrument:IBM")
    assert guard.store.breaches() == [breach]
    (freeze,) = guard.store.observed_freezes()
    assert (freeze.scope, freeze.breach, freeze.key, freeze.ended_ns) == ("instrument:IBM", breach.number, "A1", None)
    assert (tmp_path / "bundles" / f"breach-{breach.number}.hbundle").exists()
    (alert,) = guard.store.alerts()
    assert alert.page.title == f"OBSERVED, nothing frozen: {INVARIANT} in instrument:IBM"
    assert (alert.page.urgency, alert.page.severity) == ("low", "warning")
    assert "Nothing is frozen. If the entry were enforced" in alert.page.text()
    assert "Frozen:" not in alert.page.text()
    guard.close()
    assert [line["detail"] for line in read_journal(journal) if line.get("what") == "observed"] == [breach.explanation]


def test_the_freeze_of_an_enforced_entry_is_a_real_one(make_guard: MakeGuard) -> None:
    """The legal twin: under a policy of another entry, the same breach freezes and alerts as ever."""
    guard = make_guard(catalogue=SMALL.with_policy([policy_of("books-agree-with-venue")]))
    guard.record("orders", BAD)
    assert not guard.permits(request())
    assert guard.observed_freezes() == []
    assert [alert.page.urgency for alert in guard.store.alerts()] == ["high"]


def test_refused_requests_are_counted(make_guard: MakeGuard, tmp_path: Path, time_ns: Any) -> None:
    """Each request once, though the system tries it again; what the freeze would allow is not counted."""
    journal = tmp_path / "journal.jsonl"
    guard = make_guard(catalogue=observing(), journal=Journal(journal))
    guard.record("orders", BAD)
    assert guard.would_refuse(request()) == "instrument:IBM"
    assert guard.forbids(request()) == ""
    for message in [request(cl_ord_id=name) for name in ("C1", "C1", "C2", "C3")]:
        assert guard.permits(message)
    assert guard.would_refuse(request(MsgType.ORDER_CANCEL_REQUEST)) == ""
    guard.permits(request(MsgType.ORDER_CANCEL_REQUEST))
    guard.permits(request(symbol="BAC"))
    assert [freeze.refused for freeze in guard.observed_freezes()] == [3]
    time_ns.now_ns += 61_000_000_000
    guard.permits(request(cl_ord_id="C4"))
    guard.close()
    details = [line["detail"] for line in read_journal(journal) if line.get("what") == "would-refuse"]
    assert details == ["instrument:IBM NEW_ORDER_SINGLE C1", "instrument:IBM NEW_ORDER_SINGLE C4"]
    assert [freeze.refused for freeze in FreezeStore(guard.directory / "guard.db").observed_freezes()] == [4]


def test_each_freeze_counts_what_it_forbids(make_guard: MakeGuard) -> None:
    """A request that two freezes forbid counts for both, whichever scope is wider."""
    guard = make_guard(catalogue=observing(CATALOGUE))
    guard.record("orders", BAD)
    freezes = guard.freezes.observation.freezes
    breach = guard.breaches[0]
    freezes.set_freeze(make_observed_freeze(replace(breach, scope="account:A", invariant="wide"), ["cancel"], 8, "g"))
    freezes.set_freeze(make_observed_freeze(replace(breach, scope="subsystem:risk", invariant="own"), [], 9, "g"))
    guard.permits(request())
    guard.permits(request(MsgType.ORDER_CANCEL_REQUEST, cl_ord_id="C2"))
    counts = {freeze.invariant: freeze.refused for freeze in guard.observed_freezes()}
    assert counts.pop("own") == 2
    assert set(counts.values()) == {1}
    assert {"wide", INVARIANT} <= set(counts)


def test_it_ends_when_a_thaw_would_be_accepted(make_guard: MakeGuard, time_ns: Any) -> None:
    """The guard looks once a minute; the alert is resolved; the next failure is a new breach."""
    guard = make_guard(catalogue=observing(), channels=[ListChannel("desk")])
    guard.record("orders", BAD)
    guard.permits(request())
    guard.tick()
    time_ns.now_ns += 61_000_000_000
    guard.tick()
    assert len(guard.observed_freezes()) == 1  # it still does not hold
    guard.record("orders", replace(GOOD, root_cl_ord_id=BAD.root_cl_ord_id))
    time_ns.now_ns += 61_000_000_000
    guard.tick()
    assert guard.observed_freezes() == []
    (freeze,) = guard.store.observed_freezes()
    assert (freeze.ended_ns, freeze.ended_by) == (time_ns.now_ns, "a thaw would have been accepted")
    assert guard.store.alerts() == []
    assert [d.page.headline()[:18] for d in guard.store.deliveries_before(0, 9) if d.page.event == "resolve"] == [
        "RESOLVED by itself"
    ] * len(guard.pager.channel_names())
    assert guard.freezes.observation.freezes.last_requests == {}
    assert guard.would_refuse(request()) == ""
    guard.record("orders", BAD)
    assert len(guard.store.observed_freezes()) == 2
    assert len(guard.breaches) == 2


def test_a_storm_is_bounded(make_guard: MakeGuard, tmp_path: Path) -> None:
    """A defect that breaches at every order writes a bounded number of breaches and bundles, and counts all."""
    guard = make_guard(catalogue=observing(), bundles=tmp_path / "bundles")
    count = 2 * REPETITIONS_MAX
    for number in range(count):
        guard.record("orders", replace(BAD, root_cl_ord_id=f"S{number}", cl_ord_id=f"S{number}"))
    assert [freeze.breaches for freeze in guard.observed_freezes()] == [count]
    assert len(guard.store.breaches()) == len(guard.breaches) == REPETITIONS_MAX
    assert len(list((tmp_path / "bundles").iterdir())) == 1
    for number in range(2 * BUNDLES_MAX):
        guard.record("orders", replace(BAD, root_cl_ord_id=f"T{number}", symbol=f"Y{number}"))
    assert len(guard.observed_freezes()) == 2 * BUNDLES_MAX + 1
    assert len(list((tmp_path / "bundles").iterdir())) == BUNDLES_MAX


# -- restarts, stores, operators ------------------------------------------------------------------------------------


def test_it_is_remembered_over_a_restart(make_guard: MakeGuard) -> None:
    """The next process knows what would be frozen, counts on, and does not open it a second time."""
    first = make_guard(catalogue=observing())
    first.record("orders", BAD)
    first.permits(request())
    first.close()
    second = make_guard(catalogue=observing())
    assert second.would_refuse(request()) == "instrument:IBM"
    second.record("orders", BAD)
    second.permits(request(cl_ord_id="C9"))
    (freeze,) = second.observed_freezes()
    assert (freeze.refused, freeze.breaches) == (2, 2)
    assert len(second.store.observed_freezes()) == 1


def test_an_armed_entry_ends_what_was_observed(make_guard: MakeGuard) -> None:
    """After a restart under another policy, what was observed before is over, and the same breach freezes."""
    first = make_guard(catalogue=observing())
    first.record("orders", BAD)
    first.close()
    second = make_guard(catalogue=SMALL)
    second.freezes.observation.begin()
    assert [freeze.ended_by for freeze in second.store.observed_freezes()] == ["the policy has changed"]
    second.record("orders", BAD)
    assert not second.permits(request())


def test_the_audit_log_says_when_the_policy_changed(make_guard: MakeGuard) -> None:
    """Each start under a policy, and the first one after it that enforces everything; other starts leave no row."""
    guards = [make_guard(catalogue=catalogue) for catalogue in (SMALL, observing(), SMALL, SMALL)]
    for guard in guards:
        guard.freezes.observation.begin()
    details = [detail for _, _, action, detail in guards[0].store.audit_rows() if action == "observe"]
    assert details == [
        "guard begins; the whole guard observes: a breach freezes nothing",
        "guard begins; every entry is enforced",
    ]


def test_an_operators_freeze_is_obeyed_in_observe_mode(make_guard: MakeGuard) -> None:
    """Only breaches freeze nothing: what a person freezes is frozen."""
    guard = make_guard(catalogue=observing())
    guard.freeze("instrument:IBM", operator="ann", reason="drill")
    assert not guard.permits(request())
    assert guard.permits(request(symbol="BAC"))


def test_a_store_that_cannot_be_written_freezes_nothing(make_guard: MakeGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    """In observe mode the breach is remembered in memory and the alert goes out directly; in enforce mode all stops."""

    def refuse(*arguments: object, **options: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(FreezeStore, "record_observed_breach", refuse)
    monkeypatch.setattr(FreezeStore, "record_breach", refuse)
    guard = make_guard(catalogue=observing())
    guard.record("orders", BAD)
    assert guard.permits(request())
    assert guard.would_refuse(request()) == "instrument:IBM"
    assert guard.active_freezes == []
    enforcing = make_guard(name="enforcing", catalogue=SMALL)
    enforcing.record("orders", BAD)
    assert not enforcing.permits(request(symbol="BAC"))


class ListChannel:
    """A channel that keeps its pages in a list."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pages: list[Page] = []

    def deliver(self, page: Page) -> None:
        """Keep a page."""
        self.pages.append(page)


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_an_observed_breach_is_never_escalated(make_guard: MakeGuard, time_ns: Any, mode: str) -> None:
    """It reaches the first level only, and is not repeated; that of an enforced entry is both."""
    first, second = ListChannel("first"), ListChannel("second")
    levels = [EscalationLevel(channels=["first"]), EscalationLevel(after_s=60, channels=["second"])]
    catalogue = observing() if mode == "observe" else SMALL
    guard = make_guard(catalogue=catalogue, channels=[first, second], levels=levels, repeat_s=60)
    guard.record("orders", BAD)
    for _ in range(5):
        guard.pager.deliver_due()
        time_ns.now_ns += 61_000_000_000
    assert len(first.pages) == 1
    assert bool(second.pages) == (mode == "enforce")


def test_health_says_that_a_guard_observes(make_guard: MakeGuard) -> None:
    """Nothing is frozen, and the reason names what would be."""
    guard = make_guard(catalogue=observing())
    guard.record("orders", BAD)
    beat = Heartbeat(guard, HeartbeatLimits()).current_beat()
    health, reason = judge_health(beat, beat.time_ns)
    assert health == "HEALTHY"
    assert "the whole guard observes" in reason
    assert "instrument:IBM" in reason
    assert (
        "enforced"
        not in judge_health(Heartbeat(make_guard(name="b", catalogue=SMALL), HeartbeatLimits()).current_beat(), 1)[1]
    )


# -- expiry ---------------------------------------------------------------------------------------------------------


def at(day: str, hour: int = 12) -> int:
    """A time of a day in ns."""
    return int(datetime.fromisoformat(f"{day}T{hour:02d}:00:00").replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def test_an_expired_policy_is_enforced_from_the_next_day(make_guard: MakeGuard, time_ns: Any) -> None:
    """On its last day it is valid; the first boundary that begins a day afterwards enforces the entry."""
    guard = make_guard(catalogue=SMALL.with_policy([policy_of(expires="2026-01-31")]))
    time_ns.now_ns = at("2026-01-31", 23)
    guard.boundary("begin", "2026-01-31")
    guard.record("orders", BAD)
    assert guard.permits(request())
    time_ns.now_ns = at("2026-02-01", 3)
    guard.tick()
    guard.boundary("disconnect", "2026-01-31")
    assert guard.would_refuse(request()) == "instrument:IBM"
    guard.boundary("begin", "2026-02-01")
    assert guard.observed_freezes() == []
    assert guard.store.observed_freezes()[-1].ended_by == "the policy has expired"
    guard.record("orders", BAD)
    assert not guard.permits(request())


def test_the_boundary_that_ends_a_policy_is_judged_without_it(make_guard: MakeGuard, time_ns: Any) -> None:
    """What breaches at the first boundary of the day after is enforced at that boundary already."""
    guard = make_guard(catalogue=CATALOGUE.with_policy([policy_of("freeze-survives", expires="2026-01-31")]))
    time_ns.now_ns = at("2026-02-01")
    guard.boundary("disconnect", "2026-01-31")
    assert guard.freezes.observation.is_observed("freeze-survives")
    modes: list[bool] = []
    guard.evidence.on_breach = lambda breach: modes.append(guard.freezes.observation.is_observed("freeze-survives"))
    guard.freeze("instrument:IBM", operator="ann", reason="drill")
    guard.store.database.write(lambda run: run('DELETE FROM "freeze"'))
    guard.boundary("begin", "2026-02-01")
    assert modes == [False]
    assert "freeze-survives" in {freeze.invariant for freeze in guard.active_freezes}


def test_an_expiry_is_announced_a_week_before(make_guard: MakeGuard, time_ns: Any) -> None:
    """One alert of low urgency before the last day, and one after it; none a month before."""
    policies = [policy_of(expires="2026-01-31"), policy_of("books-agree-with-venue", "off", "2026-01-31")]
    guard = make_guard(catalogue=SMALL.with_policy(policies))

    def titles(day: str) -> list[str]:
        time_ns.now_ns = at(day)
        guard.boundary("begin", day)
        return sorted(alert.page.title for alert in guard.store.alerts())

    assert titles("2026-01-02") == []
    soon = [f"Policy of {name} expires after 2026-01-31" for name in ("books-agree-with-venue", INVARIANT)]
    assert titles("2026-01-24") == soon == titles("2026-01-31")
    assert len(titles("2026-02-01")) == 4
    pages = {alert.page.title: alert.page for alert in guard.store.alerts()}
    assert {page.urgency for page in pages.values()} == {"low"}
    assert "enforces it from now on" in pages[f"Policy of {INVARIANT} has expired"].explanation
    assert "a restart of the guard refuses" in pages["Policy of books-agree-with-venue has expired"].explanation


def test_an_observed_freeze_needs_a_scope(make_guard: MakeGuard) -> None:
    """What froze nothing cannot be observed, and what has ended is not open."""
    guard = make_guard(catalogue=observing())
    guard.record("orders", BAD)
    breach, (freeze,) = guard.breaches[0], guard.observed_freezes()
    with pytest.raises(ValueError, match="has no scope"):
        make_observed_freeze(replace(breach, scope=""), [], 1, "guard")
    with pytest.raises(ValueError, match="its entry is enforced"):
        make_observed_freeze(replace(breach, mode="enforce"), [], 1, "guard")
    with pytest.raises(ValueError, match="cannot allow everything"):
        make_observed_freeze(breach, ["everything"], 1, "guard")
    for fields in ({"time_ns": -1}, {"ended_ns": -1}, {"breaches": 0}, {"refused": -1}):
        with pytest.raises(ValueError, match=r"ns since the epoch|has -?[01] breaches|-1 refusals"):
            ObservedFreeze(**{**structs.asdict(freeze), **fields})
    with pytest.raises(ValueError, match="an enforced entry"):
        make_observed_page(replace(breach, mode="enforce"), SMALL[INVARIANT].entry)
    page = replace(make_observed_page(breach, SMALL[INVARIANT].entry), urgency="high")
    with pytest.raises(ValueError, match="its urgency should be low"):
        guard.store.record_observed_breach(breach, [], page, [])
    with pytest.raises(ValueError, match="no observed freeze of system"):
        guard.freezes.observation.freezes.remove("system", INVARIANT)
    ended = replace(guard.observed_freezes()[0], ended_ns=5)
    with pytest.raises(ValueError, match="has ended and cannot be open"):
        guard.freezes.observation.freezes.set_freeze(ended)
    with pytest.raises(ValueError, match="name who or what ends it"):
        guard.store.end_observed_freezes([1], " ", 5)


# -- beside the guard -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "frozen", "observed"), [("enforce", 1, 0), ("observe", 0, 1), ("off", 0, 0)])
def test_the_sidecar_obeys_the_policy(
    make_guard: MakeGuard, tmp_path: Path, mode: str, frozen: int, observed: int
) -> None:
    """What `holdover watch --guard` does to a guard's store follows from the guard's configuration."""
    writer = make_guard(name="writer", catalogue=SMALL, journal=Journal(tmp_path / "journal.jsonl"))
    writer.record("orders", BAD)
    writer.close()
    path = tmp_path / "guard.toml"
    lines = ["[guard]", 'directory = "guard"']
    for name in CATALOGUE.invariants:
        entry_mode = mode if name == INVARIANT else "off"
        lines += ["[[policy]]", f'invariant = "{name}"', f'mode = "{entry_mode}"', 'reason = "test"']
        lines += [f'expires = "{FAR}"'] * (entry_mode != "enforce")
    path.write_text("\n".join(lines))
    for _ in range(2):
        assert main(["watch", str(tmp_path / "journal.jsonl"), "--once", "--guard", str(path)]) == int(mode != "off")
    store = read_config(path).open_store()
    assert len(store.active_freezes()) == frozen
    assert len(store.observed_freezes()) == observed


def test_a_bundle_brings_its_policy(make_guard: MakeGuard, tmp_path: Path) -> None:
    """An observed breach reproduces under the policy of its guard, and one that does not fit is explained."""
    policies = [policy_of(), policy_of("books-agree-with-venue", "off")]
    guard = make_guard(catalogue=SMALL.with_policy(policies), bundles=tmp_path / "bundles")
    guard.record("orders", BAD)
    bundle = Bundle.open(tmp_path / "bundles" / "breach-1.hbundle")
    result = reproduce(bundle, tmp_path / "out", catalogue=SMALL)
    assert (result.verdict, result.same_catalogue) == ("breach", True)
    with pytest.raises(BundleError, match=r"the policy of the guard .* does not fit: .*books-agree-with-venue"):
        reproduce(bundle, tmp_path / "out", catalogue=SMALL.without("books-agree-with-venue"))


def test_the_console_shows_the_policy(make_guard: MakeGuard, time_ns: Any) -> None:
    """A line for what is not enforced on the page of the catalogue and on that of the health."""
    policies = [policy_of(mode="off"), policy_of("acknowledged-within", within="90s")]
    guard = make_guard(catalogue=CATALOGUE.with_policy(policies))
    lines = describe_policy(guard.catalogue)
    assert lines == [
        f"acknowledged-within: observe until {FAR} with within 90s: measured first",
        f"{INVARIANT}: off until {FAR}: measured first",
    ]
    bench = ConsoleBench(guard.directory, time_ns, config={"policy": policies})
    Heartbeat(guard, HeartbeatLimits()).write_beat()
    for page in ("/catalogue", "/health"):
        text = html.unescape(bench.browser("vera").get(page).text)
        assert [line for line in lines if line not in text] == [], page


def test_observed_breaches_are_no_incidents(make_guard: MakeGuard, capsys: pytest.CaptureFixture[str]) -> None:
    """The ledger takes what froze only; `holdover status` shows both."""
    guard = make_guard(catalogue=SMALL.with_policy([policy_of()]))
    guard.record("orders", BAD)
    assert IncidentLedger(guard.store).import_breaches() == 0
    guard.close()
    assert main(["status", "--guard", str(guard.directory)]) == 0
    assert f"OBSERVED instrument:IBM by {INVARIANT}; nothing is frozen for it" in capsys.readouterr().out
    enforcing = make_guard(name="enforcing", catalogue=SMALL)
    enforcing.record("orders", BAD)
    assert IncidentLedger(enforcing.store).import_breaches() == 1
