"""Shadow and cutover: the healthy clock, faults, contradictions and divergence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdover.cli import main
from holdover.recording.calendar import hours
from holdover.runtime import FreezeStore
from holdover.runtime.heartbeat import Beat, HeartbeatLimits
from holdover.shadow import (
    ClockTotals,
    ComparisonError,
    FollowedShadow,
    HealthyClock,
    OrderComparison,
    ShadowConfigError,
    ShadowRun,
    ShadowStateError,
    Workstream,
    check_cutover,
    compare_orders,
    find_contradictions,
    healthy_time_text,
    open_boundaries_text,
    read_shadow_config,
    read_state,
    shadow_markdown,
    shadow_page,
    workstreams_text,
)
from holdover.shadow.clock import HOUR_NS
from holdover.shadow.components import ComponentTable, classify_fault
from holdover.shadow.divergence import OrderUpdate, read_orders
from holdover.shadow.state import OrderDifference

from .console_bench import ConsoleBench

S = 1_000_000_000
DEADLINE = 30

# -- the clock ----------------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.integers(0, 2 * DEADLINE), st.booleans()),
        st.tuples(st.just("kill"), st.integers(0, 5 * DEADLINE), st.booleans()),
        st.tuples(st.just("jump"), st.integers(-100_000, 100_000), st.booleans()),
        st.tuples(st.just("reset"), st.just(0), st.booleans()),
    ),
    max_size=60,
)


@given(EVENTS)
def test_the_clock_counts_exactly_what_it_should(events: list[tuple[str, int, bool]]) -> None:
    """Any ticks, kills, jumps of the host's clock and resets: the seconds between two healthy looks, and no other."""
    saved = msgspec.json.encode(ClockTotals())
    clock = HealthyClock(msgspec.json.decode(saved, type=ClockTotals), DEADLINE * S)
    now_s = wall = 0
    looks: list[tuple[int, int, bool]] = []  # (life, time, healthy); a reset in between is a life of its own here
    first_look, incarnation = 0, 0
    for kind, seconds, healthy in events:
        if kind == "jump":
            wall += seconds  # nothing that the clock looks at
            continue
        now_s += seconds
        if kind == "tick":
            clock.tick(now_s * S, healthy=healthy)
            looks.append((incarnation, now_s, healthy))
            saved = msgspec.json.encode(clock.totals)
        elif kind == "kill":
            incarnation += 1
            now_s = 0 if healthy else now_s  # another boot begins its monotonic clock anew
            clock = HealthyClock(msgspec.json.decode(saved, type=ClockTotals), DEADLINE * S)
        else:
            clock.reset("breach", "it broke", wall)
            looks = [*looks[:-1], (*looks[-1][:2], False)] if looks else looks
            saved = msgspec.json.encode(clock.totals)
            first_look = len(looks) - 1 if looks else 0
    counts = [
        later - earlier
        for (first_incarnation, earlier, was_healthy), (next_incarnation, later, is_healthy) in zip(
            looks[first_look:], looks[first_look + 1 :], strict=False
        )
        if first_incarnation == next_incarnation and was_healthy and is_healthy and 0 < later - earlier <= DEADLINE
    ]
    assert clock.totals.healthy_ns == sum(counts) * S


def test_how_the_clock_is_told() -> None:
    """Hours to one decimal, never rounded up to what is asked for."""
    assert healthy_time_text(round(83.5 * HOUR_NS)) == "T+83.5h"
    assert healthy_time_text(72 * HOUR_NS - 1) == "T+71.9h"
    assert healthy_time_text(0) == "T+0.0h"


# -- faults and components ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("HTTP 401 from the venue", "authentication"),
        ("Unauthorized: token expired", "authentication"),
        ("order book IBM disabled by venue", "disabled-book"),
        ("sequence gap: expected 17", "gap"),
        ("order rejected: too late", "reject"),
        ("connection reset by peer", "disconnect"),
        ("clock skew of 3 s", "clock-skew"),
        ("all is well, 4012 orders", ""),
    ],
)
def test_a_fault_by_its_words(text: str, name: str) -> None:
    """What a system says of a fault tells its class, and what it says else none."""
    assert classify_fault(text) == name


def write_config(directory: Path, text: str) -> Path:
    """A configuration in a file."""
    path = directory / "shadow.toml"
    path.write_text(text)
    return path


FOLLOWING = """
[candidate]
journal = "journal.jsonl"
guard = "guard"
[clock]
tick_s = 1
deadline_s = 10
resets_on = ["breach", "authentication"]
[[component]]
name = "feed"
deadline_s = 5
[cutover]
hours = 0.01
gate = "gate.json"
workstreams = "streams.toml"
"""


class Clocks:
    """A monotonic clock and a host's, moved by hand."""

    def __init__(self) -> None:
        self.mono, self.wall = 100 * S, 1_700_000_000 * S

    def advance(self, seconds: float) -> None:
        """Both move on."""
        self.mono += round(seconds * S)
        self.wall += round(seconds * S)


@pytest.fixture
def clocks() -> Clocks:
    """At some time."""
    return Clocks()


def make_shadow_run(config: Path, clocks: Clocks, *names: str) -> ShadowRun:
    """Return a shadow run whose components have a deadline of 5 s."""
    tables = [ComponentTable(name=name, deadline_s=5) for name in names]
    return ShadowRun(
        read_shadow_config(config), components=tables, monotonic=lambda: clocks.mono, wall=lambda: clocks.wall
    )


def test_a_silent_component_is_unhealthy(tmp_path: Path, clocks: Clocks) -> None:
    """Within its deadline it counts, past it not; its silence is one fault, and a new life has not heard it yet."""
    config = write_config(tmp_path, FOLLOWING)
    shadow_run = make_shadow_run(config, clocks, "feed")
    assert shadow_run.check() is False
    shadow_run.components.mark_alive("feed", clocks.mono)
    assert shadow_run.check() is True
    for expected in (True, True, False, False):
        clocks.advance(2)
        assert shadow_run.check() is expected
    assert shadow_run.state.faults["silence"].count == 1
    assert shadow_run.state.clock.healthy_ns == 4 * S
    second_run = make_shadow_run(config, clocks, "feed")
    assert second_run.check() is False
    assert second_run.state.components[0].silent_s is None
    assert (second_run.state.clock.run_count, second_run.state.clock.healthy_ns) == (2, 4 * S)


def test_a_jump_of_the_hosts_clock_is_a_fault_and_no_time(tmp_path: Path, clocks: Clocks) -> None:
    """Forward and back: counted as clock-skew each, and the seconds are those of the monotonic clock."""
    shadow_run = make_shadow_run(write_config(tmp_path, FOLLOWING), clocks)
    for jump in (0, 3600, 0, -7200, 0):
        shadow_run.check()
        clocks.advance(2)
        clocks.wall += jump * S
    shadow_run.check()
    assert shadow_run.state.faults["clock-skew"].count == 2
    assert shadow_run.state.clock.healthy_ns == 10 * S


def test_what_resets_is_configured(tmp_path: Path, clocks: Clocks) -> None:
    """A 401 resets here, a reject does not; what was lost is kept with the reset."""
    shadow_run = make_shadow_run(write_config(tmp_path, FOLLOWING), clocks)
    shadow_run.check()
    clocks.advance(3)
    shadow_run.check()
    shadow_run.record_fault("reject", "too late")
    assert shadow_run.state.clock.healthy_ns == 3 * S
    shadow_run.record_fault("authentication", "401", "venue")
    assert (shadow_run.state.clock.healthy_ns, shadow_run.state.clock.resets[0].lost_ns) == (0, 3 * S)
    with pytest.raises(KeyError, match="no class of fault"):
        shadow_run.record_fault("tired", "")


def test_a_damaged_state_is_not_begun_anew(tmp_path: Path, clocks: Clocks) -> None:
    """What cannot be read is said, and not overwritten; the two clocks are never added up."""
    config = write_config(tmp_path, FOLLOWING)
    state = read_shadow_config(config).state_path
    state.parent.mkdir()
    state.write_bytes(b"{")
    with pytest.raises(ShadowStateError, match="cannot be read"):
        make_shadow_run(config, clocks)
    assert state.read_bytes() == b"{"
    state.unlink()
    make_shadow_run(config, clocks).check()
    with pytest.raises(ShadowStateError, match="cannot be added up"):
        ShadowRun(read_shadow_config(config), virtual=True)


def test_a_bad_configuration_is_told_whole(tmp_path: Path) -> None:
    """Every problem at once."""
    path = write_config(
        tmp_path,
        '[clock]\ntick_s = 9\ndeadline_s = 3\nresets_on = ["tired"]\n[[component]]\nname = "a"\ndeadline_s = 0\n',
    )
    with pytest.raises(ShadowConfigError) as error:
        read_shadow_config(path)
    for words in ("either subject", "no class of fault is called 'tired'", "tick_s should be", "a: deadline_s"):
        assert words in str(error.value)
    with pytest.raises(ShadowConfigError, match="not known here"):
        read_shadow_config(write_config(tmp_path, "[shade]\n"))


# -- workstreams --------------------------------------------------------------------------------------------------


def make_workstream(name: str, state: Any = "complete", **fields: Any) -> Workstream:
    """A workstream."""
    return Workstream(name=name, owner="olga", state=state, kind="runtime", **fields)


def test_workstreams_are_counted_and_checked() -> None:
    """As people say it; and what cannot be true together is named."""
    good = [make_workstream(f"w{n}") for n in range(19)] + [make_workstream(f"r{n}", "ready") for n in range(11)]
    good.append(make_workstream("b", "blocked", blocked_by=["r1"]))
    assert workstreams_text(good) == "19 / 31 complete, 11 ready, 1 blocked"
    kinds = Counter(workstream.kind for workstream in good if workstream.required and workstream.state != "complete")
    assert (
        open_boundaries_text(good)
        == f"{kinds['governance']} of governance and {kinds['runtime']} of runtime instability are open"
    )
    assert open_boundaries_text([workstream for workstream in good if workstream.state == "complete"]).startswith(
        "nothing that is required is open"
    )
    assert find_contradictions(good) == []
    bad = [
        make_workstream("alone", "blocked"),
        make_workstream("hasty", "ready", blocked_by=["alone"]),
        make_workstream("lost", "blocked", blocked_by=["nobody"], reason="x"),
        make_workstream("a", "blocked", blocked_by=["b"]),
        make_workstream("b", "blocked", blocked_by=["a"]),
    ]
    problems_text = "\n".join(find_contradictions(bad))
    for words in (
        "alone: is blocked, and neither",
        "hasty: is ready, but blocked by alone",
        "lost: is blocked by nobody, which is not there",
        "none of them can ever begin",
    ):
        assert words in problems_text


# -- divergence ---------------------------------------------------------------------------------------------------


def make_order(name: str, **fields: Any) -> dict[str, Any]:
    """An order's record as a journal has it."""
    return {
        "root_cl_ord_id": name, "cl_ord_id": name, "symbol": "IBM", "side": "1", "order_qty": 100, "leaves_qty": 0,
        "cum_qty": 100, "notional": 5000, "ord_status": "2", "account": "A1", "price": 50, **fields,
    }  # fmt: skip


def write_journal(path: Path, orders: list[dict[str, Any]]) -> Path:
    """A journal with these orders, each new at first."""
    lines = []
    for order_record in orders:
        for record in ({**order_record, "cum_qty": 0, "ord_status": "0"}, order_record):
            line = {"seq": len(lines), "time_ns": 1, "subsystem": "orders", "kind": "Order", "record": record}
            lines.append(json.dumps(line, separators=(",", ":")))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_identical_orders_do_not_differ_and_a_changed_one_is_found(tmp_path: Path) -> None:
    """By field, with what either said; within the tolerance it is none; missing ones are counted on both sides."""
    orders = [make_order(f"C-{n}") for n in range(50)]
    candidate = write_journal(tmp_path / "one.jsonl", orders)
    same_path = write_journal(tmp_path / "same.jsonl", list(reversed(orders)))
    assert compare_orders(candidate, same_path) == OrderComparison(
        orders=50, identical=50, differing=0, unexplained=0, only_candidate=0, only_incumbent=0
    )
    orders[7] = make_order("C-7", price=51, cum_qty=99)
    changed_path = write_journal(tmp_path / "other.jsonl", [*orders[:49], make_order("C-99")])
    comparison = compare_orders(candidate, changed_path)
    assert (comparison.orders, comparison.differing, comparison.only_candidate, comparison.only_incumbent) == (
        51,
        3,
        1,
        1,
    )
    assert comparison.fields == {"cum_qty": 1, "order": 2, "price": 1}
    difference = next(entry for entry in comparison.first if entry.order == "C-7")
    assert (difference.field, difference.candidate, difference.incumbent) == ("price, cum_qty", "50", "51")
    assert compare_orders(candidate, changed_path, tolerance={"price": 1, "cum_qty": 1}).differing == 2
    with pytest.raises(ComparisonError, match="no field of an order is called colour"):
        compare_orders(candidate, changed_path, tolerance={"colour": 1})
    assert main(["shadow", "diff", str(candidate), str(same_path)]) == 0
    assert main(["shadow", "diff", str(candidate), str(changed_path)]) == 1
    assert main(["shadow", "diff", str(candidate), str(tmp_path / "none.jsonl")]) == 2


def test_the_noise_floor_is_measured(tmp_path: Path) -> None:
    """Where two copies of the candidate differ, the incumbent may; in another field it may not."""
    base = [make_order(f"C-{n}") for n in range(10)]
    candidate = write_journal(tmp_path / "one.jsonl", base)
    copy = write_journal(tmp_path / "copy.jsonl", [make_order("C-0", price=51), *base[1:]])
    incumbent = write_journal(
        tmp_path / "inc.jsonl", [make_order("C-0", price=49), make_order("C-1", price=49), *base[2:]]
    )
    comparison = compare_orders(candidate, incumbent, noise=copy)
    assert (comparison.differing, comparison.unexplained, comparison.noise) == (2, 1, 0.1)
    assert {difference.order: bool(difference.reason) for difference in comparison.first} == {"C-0": True, "C-1": False}


def test_orders_with_ids_of_their_own_meet_in_sequence(tmp_path: Path) -> None:
    """The n-th of an account, symbol and side."""
    candidate = write_journal(tmp_path / "one.jsonl", [make_order(f"C-{n}", price=50 + n) for n in range(5)])
    incumbent = write_journal(tmp_path / "other.jsonl", [make_order(f"X{n}", price=50 + n) for n in range(5)])
    assert compare_orders(candidate, incumbent).differing == 10
    assert compare_orders(candidate, incumbent, match="sequence").differing == 0


def test_fix_logs_are_compared(tmp_path: Path) -> None:
    """A chain of replaces is one order, by the ClOrdID with which it began."""
    log = tmp_path / "fix.log"
    log.write_text(
        "8=FIX.4.4|35=D|11=C1|55=IBM|54=1|38=100|44=50|40=2|1=A1|10=000|\n"
        "8=FIX.4.4|35=G|11=C2|41=C1|55=IBM|54=1|38=100|44=51|40=2|1=A1|10=000|\n"
        "8=FIX.4.4|35=8|11=C2|41=C1|37=O|17=E|150=5|39=0|55=IBM|54=1|38=100|44=51|14=0|151=100|1=A1|10=000|\n"
    )
    last: dict[str, Any] = {order: fields for order, fields, _ in read_orders(log)}
    assert list(last) == ["C1"]
    assert last["C1"][4] == "51"


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30))
def test_the_count_of_differences_is_that_of_the_last_states(
    candidate_prices: list[int], incumbent_prices: list[int]
) -> None:
    """However often an order's state is said: only the last counts, on either side."""

    def stream_of(prices: list[int]) -> Iterator[OrderUpdate]:
        for place, price in enumerate(prices):
            yield f"C-{place % 7}", ["A1", "IBM", "1", 100, price, "2", "0", "0", 0, 100, 0], place

    first = {f"C-{place % 7}": price for place, price in enumerate(candidate_prices)}
    second = {f"C-{place % 7}": price for place, price in enumerate(incumbent_prices)}
    comparison = compare_orders(stream_of(candidate_prices), stream_of(incumbent_prices))
    names = first.keys() | second.keys()
    assert comparison.orders == len(names)
    assert comparison.differing == sum(first.get(name) != second.get(name) for name in names)


# -- cutover ------------------------------------------------------------------------------------------------------


def write_eligible_state(directory: Path, clocks: Clocks) -> Path:
    """Write a configuration and a state with which the candidate is eligible. Returns the configuration's path."""
    config = write_config(directory, FOLLOWING)
    (directory / "gate.json").write_text(json.dumps({"verdict": "met", "coverage": {"catalogue": "d1"}}))
    (directory / "streams.toml").write_text(
        '[[workstream]]\nname = "kill switch"\nowner = "olga"\nstate = "complete"\nkind = "runtime"\n'
    )
    FreezeStore(directory / "guard" / "guard.db").close()
    shadow_run = make_shadow_run(config, clocks, "feed")
    for _ in range(20):
        shadow_run.components.mark_alive("feed", clocks.mono)
        shadow_run.check(save=False)
        clocks.advance(2)
    shadow_run.state.digest = "d1"
    shadow_run.state.compared = OrderComparison(
        orders=9, identical=9, differing=0, unexplained=0, only_candidate=0, only_incumbent=0
    )
    shadow_run.save()
    return config


def test_eligible_and_every_condition_that_can_stand_in_its_way(tmp_path: Path, clocks: Clocks) -> None:
    """0 with everything met; each condition by itself makes 1, and what cannot be told 3."""
    config = write_eligible_state(tmp_path, clocks)
    answer = check_cutover(read_shadow_config(config), clocks.wall)
    assert [condition.name for condition in answer.conditions if not condition.met] == []
    assert (answer.verdict, answer.exit_code, answer.clock) == ("eligible", 0, "T+0.0h")

    state = read_state(read_shadow_config(config).state_path)

    def with_state(**changes: Any) -> tuple[int, list[str]]:
        msgspec.structs.replace(state, **changes).save(read_shadow_config(config).state_path)
        result = check_cutover(read_shadow_config(config), clocks.wall)
        state.save(read_shadow_config(config).state_path)
        return result.exit_code, [condition.name for condition in result.conditions if not condition.met]

    assert with_state(clock=ClockTotals(healthy_ns=S)) == (1, ["healthy clock"])
    assert with_state(breaches_since_reset=1) == (1, ["no breach"])
    worse = msgspec.structs.replace(state.compared or OrderComparison(9, 9, 0, 0, 0, 0), unexplained=1)
    assert with_state(compared=worse) == (1, ["no unexplained divergence"])
    assert with_state(compared=None) == (3, ["no unexplained divergence"])
    assert with_state(digest="d2") == (1, ["the gate's catalogue"])
    assert with_state(digest="d2", policy=["clock-monotone: off"]) == (1, ["the gate's catalogue"])
    assert with_state(checked_ns=1) == (3, ["running"])
    silent = [msgspec.structs.replace(component, healthy=False) for component in state.components]
    assert with_state(components=silent) == (1, ["running"])
    assert with_state(virtual=True) == (1, ["real hours"])

    store = FreezeStore(tmp_path / "guard" / "guard.db")
    store.freeze("instrument:IBM", [], "olga", "look", 1)
    assert with_state() == (1, ["no unresolved freeze"])
    store.thaw("instrument:IBM", "olga", "seen", "it is", "", 2)
    streams = tmp_path / "streams.toml"
    streams.write_text(streams.read_text().replace("complete", "active"))
    assert with_state() == (1, ["workstreams complete"])
    streams.write_text(streams.read_text().replace("active", "blocked"))
    assert with_state() == (1, ["workstreams complete", "workstreams consistent"])
    streams.write_text("[[workstream")
    assert with_state() == (3, ["workstreams complete"])


def test_by_command_line_and_on_the_console(tmp_path: Path, clocks: Clocks, capsys: pytest.CaptureFixture[str]) -> None:
    """The same answer everywhere; without a state it cannot be told."""
    config = write_eligible_state(tmp_path, clocks)
    (tmp_path / "gate.json").unlink()
    html, markdown = tmp_path / "r.html", tmp_path / "r.md"
    code = main(
        ["shadow", "report", "--config", str(config), "--html", str(html), "--markdown", str(markdown), "--json"]
    )
    assert code == 3
    assert json.loads(capsys.readouterr().out)["verdict"] == "cannot tell"
    assert "May it go live?" in html.read_text()
    assert markdown.read_text().startswith("# Cannot tell: T+0.0h")
    bench = ConsoleBench(tmp_path / "guard", lambda: clocks.wall, config={"console": _console("../shadow.toml")})
    shown = bench.browser("vera").get("/shadow").text
    assert "Cannot tell: T+0.0h" in shown
    assert "authentication" in shown
    state = read_state(read_shadow_config(config).state_path)
    night = {"after": "2024-11-27", "open_orders": 3, "partially_filled": 2, "positions": {"A1/IBM": -40}, "frozen": []}
    state.nights, state.batch, state.market_events = [night], 7, 1234
    state.compared = OrderComparison(
        orders=9,
        identical=8,
        differing=1,
        unexplained=1,
        only_candidate=0,
        only_incumbent=0,
        first=[OrderDifference(order="C-<7>", field="price", candidate="1", incumbent="2")],
    )
    state.save(read_shadow_config(config).state_path)
    shown = bench.browser("vera").get("/shadow").text
    for text in ("1,234 market events", "9 orders, 1 differ", "C-&lt;7&gt;", "2024-11-27", "A1/IBM -40"):
        assert text in shown
    (read_shadow_config(config).state_path).unlink()
    assert main(["cutover", "--config", str(config), "--json"]) == 3
    assert "Cannot tell" in bench.browser("vera").get("/shadow").text
    config.write_text("[shade]\n")
    assert "not known here" in bench.browser("vera").get("/shadow").text
    assert main(["cutover", "--config", str(config)]) == 2


def _console(path: str) -> Any:
    from holdover.runtime.config import ConsoleTable

    return ConsoleTable(shadow=path)


def test_what_is_told_is_escaped(tmp_path: Path, clocks: Clocks) -> None:
    """A fault's words are no markup."""
    config = write_eligible_state(tmp_path, clocks)
    state = read_state(read_shadow_config(config).state_path)
    shadow_run = make_shadow_run(config, clocks)
    shadow_run.record_fault("reject", "<script>x</script> | y")
    shadow_run.save()
    state = read_state(read_shadow_config(config).state_path)
    answer = check_cutover(read_shadow_config(config), clocks.wall)
    assert "<script>" not in shadow_page(answer, state, read_shadow_config(config))
    assert "\\| y" in shadow_markdown(answer, state)


# -- following ----------------------------------------------------------------------------------------------------


def write_beat(store: FreezeStore, clocks: Clocks) -> None:
    """Write a heartbeat of the candidate's guard."""
    heartbeat = Beat(
        pid=1, host="h", version="1", digest="d1", time_ns=clocks.wall, mutations=1, breaches=0, last_ns=0, open_ns=0,
        frozen=[], problem="", limits=HeartbeatLimits(),
    )  # fmt: skip
    store.write_heartbeat("candidate", clocks.wall, msgspec.json.encode(heartbeat))


def test_a_candidate_is_followed_by_its_journal(tmp_path: Path, clocks: Clocks) -> None:
    """Faults, orders and nights by what it writes; nothing is read twice over two lives; notes are taken up."""
    config = write_config(tmp_path, FOLLOWING)
    store = FreezeStore(tmp_path / "guard" / "guard.db")
    journal = write_journal(
        tmp_path / "journal.jsonl", [make_order("C-1"), make_order("C-2", ord_status="8", cum_qty=0)]
    )

    def append_lines(*lines: dict[str, Any] | str) -> None:
        with open(journal, "a") as file:
            for line in lines:
                file.write((line if isinstance(line, str) else json.dumps(line, separators=(",", ":"))) + "\n")

    def link(seq: int, **fields: Any) -> dict[str, Any]:
        record = {"name": "V", "up": True, "epoch": 1, "in_seq": seq, **fields}
        return {"seq": 9, "time_ns": 9, "subsystem": "gateway", "kind": "Link", "record": record}

    def start_follower() -> FollowedShadow:
        tables = [ComponentTable(name="candidate"), ComponentTable(name="feed")]
        shadow_run = ShadowRun(
            read_shadow_config(config), components=tables, monotonic=lambda: clocks.mono, wall=lambda: clocks.wall
        )
        return FollowedShadow(read_shadow_config(config), shadow_run)

    follower = start_follower()
    assert main(["shadow", "note", "--config", str(config), "--component", "feed"]) == 0
    write_beat(store, clocks)
    assert follower.poll() is True
    assert follower.shadow_run.state.digest == "d1"
    assert follower.shadow_run.state.faults["reject"].count == 1
    append_lines({"seq": 9, "time_ns": 9, "what": "disconnect", "detail": "d"}, link(5), link(6, change="gap-fill"))
    append_lines(
        {
            "seq": 9,
            "time_ns": 9,
            "subsystem": "venue",
            "kind": "Book",
            "record": {"symbol": "IBM", "trading": False, "reason": "disabled"},
        },
        {
            "seq": 9,
            "time_ns": 9,
            "subsystem": "orders",
            "kind": "Order",
            "record": make_order("C-3", ord_status="1", cum_qty=5),
        },
        {"seq": 9, "time_ns": 9, "what": "overnight", "detail": "2024-11-27"},
    )
    clocks.advance(2)
    follower.poll()
    faults = follower.shadow_run.state.faults
    assert {name: fault.count for name, fault in faults.items()} == {
        "reject": 1, "disconnect": 1, "gap": 1, "disabled-book": 1,
    }  # fmt: skip
    assert follower.shadow_run.state.nights[0]["open_orders"] == 1
    assert follower.shadow_run.state.nights[0]["partially_filled"] == 1
    assert follower.shadow_run.state.clock.healthy_ns == 2 * S
    second_follower = start_follower()
    assert second_follower.poll() is False  # the feed has not been heard in this life
    assert second_follower.shadow_run.state.faults["reject"].count == 1
    assert main(["shadow", "note", "--config", str(config), "--component", "V", "--fault", "authentication"]) == 0
    append_lines({"seq": 9, "time_ns": 9, "what": "breach", "detail": "x does not hold"})
    second_follower.poll()
    assert second_follower.shadow_run.state.faults["authentication"].count == 1
    assert (second_follower.shadow_run.state.breach_count, second_follower.shadow_run.state.clock.healthy_ns) == (1, 0)
    second_follower.close()
    assert read_state(read_shadow_config(config).state_path).stopped


def test_following_by_command_line(tmp_path: Path, clocks: Clocks, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends after its time, in good order, with the orders compared; a breach in it makes 1."""
    incumbent = '[incumbent]\njournal = "incumbent.jsonl"\n'
    config = write_config(tmp_path, FOLLOWING.replace("tick_s = 1\n", "tick_s = 0.01\n") + incumbent)
    FreezeStore(tmp_path / "guard" / "guard.db").close()
    journal = write_journal(tmp_path / "journal.jsonl", [make_order("C-1"), make_order("C-2")])
    write_journal(tmp_path / "incumbent.jsonl", [make_order("C-1"), make_order("C-2", price=51)])
    run = ["shadow", "run", "--config", str(config), "--seconds", "0.02", "--json"]
    assert main(run) == 0
    assert json.loads(capsys.readouterr().out)["breaches"] == 0
    state = read_state(read_shadow_config(config).state_path)
    assert state.stopped
    assert state.compared is not None
    assert (state.compared.orders, state.compared.unexplained, state.faults["divergence"].count) == (2, 1, 1)
    with open(journal, "a") as file:
        file.write('{"seq":9,"time_ns":9,"what":"breach","detail":"x does not hold"}\n')
    assert main(run) == 1


def test_nothing_is_expected_of_a_component_out_of_its_calendar_s_sessions(tmp_path: Path) -> None:
    """However the candidate is run: silent over the night it is healthy, silent in a session it is not."""
    config = tmp_path / "shadow.toml"
    config.write_text("[candidate]\njournal = 'journal.jsonl'\nguard = 'guard'\n")
    opens = hours("XNYS", "2024-11-27").open_ns
    clock_ns = [opens - 3600 * S]
    tables = [ComponentTable(name="desk", deadline_s=60, calendar="XNYS")]
    shadow_run = ShadowRun(
        read_shadow_config(config), components=tables, monotonic=lambda: clock_ns[0], wall=lambda: clock_ns[0]
    )
    assert shadow_run.check() is True
    clock_ns[0] = opens - S
    assert shadow_run.check() is True
    clock_ns[0] = opens + 30 * S
    assert shadow_run.check() is True
    clock_ns[0] = opens + 90 * S
    assert shadow_run.check() is False
    assert shadow_run.state.faults["silence"].count == 1
