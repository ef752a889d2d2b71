"""The state of a guard as a value: nothing is left out of a checkpoint, and no other version is read."""

from __future__ import annotations

import json
import linecache
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import holdover.watch.watch as watching
from holdover.audit import Audit
from holdover.audit.audit import AUDIT_FORMAT
from holdover.catalogue import Catalogue
from holdover.model import Order, OrdStatus, Side
from holdover.runtime import Guard, GuardSettings, Journal, read_journal
from holdover.runtime.cells import CellCounterState
from holdover.runtime.check_compiler import CheckCountsState
from holdover.runtime.deadlines import DeadlinesState
from holdover.runtime.freeze_store import FreezeStore
from holdover.runtime.memory import MEMORY_FORMAT, MonitorMemory
from holdover.runtime.monitor import MonitorState
from holdover.runtime.presence import PresenceState
from holdover.runtime.reconciliation import VenueComparisonState
from holdover.runtime.recovery import RecoveryTrackerState
from holdover.runtime.tables import RecordTablesState
from holdover.state import StateError, StoredFormat, encode_stored
from holdover.watch.judge import JUDGE_FORMAT, FixJudge, MutationJudge
from holdover.watch.watch import Watch, WatchStateError

CATALOGUE = Catalogue.load()
ORDER = Order(
    root_cl_ord_id="A1",
    cl_ord_id="A1",
    symbol="IBM",
    side=Side.BUY,
    order_qty=100,
    leaves_qty=100,
    account="X",
    strategy="S",
    ord_status=OrdStatus.NEW,
    order_id="V1",
    trade_date="2024-01-02",
)
BAD = replace(ORDER, root_cl_ord_id="B1", cl_ord_id="B1", leaves_qty=99)


class CountingClock:
    """A clock that advances by one second at each reading."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        self.now_ns += 1_000_000_000
        return self.now_ns


def open_guard(directory: Path, **options: Any) -> Guard:
    """Open a guard in memory that is quiet."""
    guard = Guard(
        directory,
        GuardSettings(bundles=options.pop("bundles", None)),
        catalogue=CATALOGUE,
        clock=CountingClock(),
        channels=[],
        store=FreezeStore.in_memory(),
        **options,
    )
    guard.evidence.is_quiet = True
    return guard


# -- what a checkpoint holds ---------------------------------------------------------------------------------------


def test_a_rollback_restores_the_number_of_steps(tmp_path: Path) -> None:
    """Mutations after a rollback get the step numbers that they had before."""
    guard = open_guard(tmp_path)
    guard.record("orders", ORDER)
    checkpoint = guard.checkpoint()
    guard.record("orders", replace(ORDER, cl_ord_id="A2"))
    guard.rollback(checkpoint)
    assert guard.steps.count == 1
    guard.record("orders", ORDER)
    assert [mutation.step for mutation in guard.recorder.mutations()] == [1, 2]


def test_a_rollback_restores_the_last_settled_mutation(tmp_path: Path) -> None:
    """The journal marks a step after a rollback as settled, although its mutation number occurred before."""
    path = tmp_path / "journal.jsonl"
    guard = open_guard(tmp_path, journal=Journal(path))
    guard.record("orders", ORDER)
    checkpoint = guard.checkpoint()
    for _ in range(2):
        guard.record("orders", replace(ORDER, price=5))
        guard.rollback(checkpoint)
    settled = [line["seq"] for line in read_journal(path) if line.get("settled")]
    assert settled == [1, 2, 2]


def test_a_rollback_restores_the_time_of_the_last_tick(tmp_path: Path) -> None:
    """A tick after the checkpoint does not make the process look more alive than it is."""
    guard = open_guard(tmp_path)
    guard.tick()
    checkpoint, newest_ns = guard.checkpoint(), guard.steps.newest_ns
    guard.tick()
    assert guard.steps.newest_ns > newest_ns
    guard.rollback(checkpoint)
    assert guard.steps.newest_ns == newest_ns


def test_a_rollback_drops_breaches_that_still_have_no_bundle(tmp_path: Path) -> None:
    """A breach that was rolled back inside its step leaves no bundle behind."""
    guard = open_guard(tmp_path, bundles=tmp_path / "bundles")
    with guard.step("outer"):
        checkpoint = guard.checkpoint()
        with guard.step("inner"):
            guard.record("orders", replace(ORDER, order_qty=-1))
        assert guard.breaches
        guard.rollback(checkpoint)
    assert guard.breaches == []
    assert not (tmp_path / "bundles").exists()


def test_a_rollback_restores_the_mutation_of_the_last_restore(tmp_path: Path) -> None:
    """A bundle after a rollback holds the mutations that a restore after the checkpoint would have cut off."""
    guard = open_guard(tmp_path)
    guard.record("orders", ORDER)
    checkpoint = guard.checkpoint()
    guard.restore("orders", [ORDER])
    assert guard.steps.restored_at_mutation == 1
    guard.rollback(checkpoint)
    assert guard.steps.restored_at_mutation == 0


def describe(guard: Guard) -> tuple[Any, ...]:
    """Everything of a guard that a rollback must restore."""
    return (
        guard.monitor.to_bytes(),
        list(guard.breaches),
        dict(guard.evidence.repeat_counts),
        guard.active_freezes,
        guard.store.breaches(),
        [freeze.identity for freeze in guard.store.active_freezes()],
        guard.recorder.mutations(),
        guard.steps.count,
        guard.steps.newest_ns,
        guard.monitor.remaining_times(),
        guard.cells.known_values(),
        {summed: {key: total for key, total in totals.items() if total} for summed, totals in _totals(guard)},
    )


def _totals(guard: Guard) -> list[tuple[Any, dict[str, int]]]:
    return list(guard.monitor.tables.totals.items())


ACTIONS: list[Callable[[Guard, int], None]] = [
    lambda guard, number: guard.record("orders", replace(ORDER, root_cl_ord_id=f"R{number}", cl_ord_id=f"R{number}")),
    lambda guard, number: guard.record("orders", replace(BAD, root_cl_ord_id=f"B{number}")),
    lambda guard, number: guard.record(
        "venue", replace(ORDER, root_cl_ord_id=f"R{number}", ord_status=OrdStatus.CANCELED, leaves_qty=0)
    ),
    lambda guard, number: guard.restore("orders", [replace(ORDER, root_cl_ord_id=f"R{number}")]),
    lambda guard, number: guard.boundary("overnight", f"2024-01-{number % 20 + 3:02d}"),
    lambda guard, number: guard.reconciled("2024-01-02"),
    lambda guard, number: guard.tick(),
    lambda guard, number: guard.quiescent(),
    lambda guard, number: guard.freeze(f"instrument:I{number}", operator="op", reason="test"),
    lambda guard, number: guard.steps.mark_subject_down(),
]
STEPS = st.lists(st.tuples(st.integers(0, len(ACTIONS) - 1), st.integers(0, 5)), max_size=12)


@settings(deadline=None, max_examples=40)
@given(STEPS, STEPS)
def test_a_rollback_undoes_whatever_a_guard_did(before: list[tuple[int, int]], after: list[tuple[int, int]]) -> None:
    """After a rollback every part of the guard is what it was at the checkpoint, more than once."""
    guard = open_guard(Path("unused"))
    try:
        for action, number in before:
            ACTIONS[action](guard, number)
        checkpoint, expected = guard.checkpoint(), describe(guard)
        for _ in range(2):
            for action, number in after:
                ACTIONS[action](guard, number)
            guard.rollback(checkpoint)
            assert describe(guard) == expected
    finally:
        guard.close()


@settings(deadline=None, max_examples=40)
@given(STEPS)
def test_a_memory_gives_the_same_memory(steps: list[tuple[int, int]]) -> None:
    """A memory restored into another monitor, or over another one, encodes to the same bytes."""
    guard, other = open_guard(Path("unused")), open_guard(Path("unused"))
    try:
        for action, number in steps:
            ACTIONS[action](guard, number)
        other.record("orders", replace(BAD, root_cl_ord_id="other"))
        memory = guard.monitor.to_bytes()
        other.monitor.restore_bytes(memory)
        assert other.monitor.to_bytes() == memory
        assert other.monitor.tables.find_total_differences()[1] == []
    finally:
        guard.close()
        other.close()


def test_every_part_of_a_monitors_state_is_stored_or_has_a_reason() -> None:
    """A field that is added to a state must be added to the memory, or to the list of what is not stored."""
    states = (
        MonitorState,
        RecordTablesState,
        CheckCountsState,
        PresenceState,
        DeadlinesState,
        RecoveryTrackerState,
        VenueComparisonState,
    )
    parts = {"tables", "compiler", "presence", "deadlines", "recovery", "comparison"}
    fields = {name for state in states for name in state.__struct_fields__} - parts
    assert fields - set(MonitorMemory.__struct_fields__) == set(MonitorMemory.NOT_STORED)
    assert set(CellCounterState.__struct_fields__) >= {"axes", "last_transition", "observed_axes"}


# -- versions ------------------------------------------------------------------------------------------------------


def older(stored_format: StoredFormat, data: bytes) -> bytes:
    """A stored form as a former version would have written it."""
    fields = msgspec.msgpack.decode(data)
    assert fields["format"] == stored_format.name
    return msgspec.msgpack.encode({**fields, "version": stored_format.version - 1})


def test_a_memory_of_another_version_is_refused(tmp_path: Path) -> None:
    """One sentence says what it is, its version, what this build reads and what to do; the guard stays as it was."""
    guard = open_guard(tmp_path)
    guard.record("orders", ORDER)
    memory = guard.monitor.to_bytes()
    with pytest.raises(StateError, match=r"monitor memory, version 2\); this build reads version 3 of it; remove it"):
        guard.monitor.restore_bytes(older(MEMORY_FORMAT, memory))
    assert guard.monitor.to_bytes() == memory
    with pytest.raises(StateError, match="no format name, version none"):
        guard.monitor.restore_bytes(msgspec.msgpack.encode({"digest": "x", "tables": []}))
    with pytest.raises(StateError, match="the monitor memory is damaged"):
        guard.monitor.restore_bytes(memory[:-3])
    (tmp_path / "monitor.memory").write_bytes(older(MEMORY_FORMAT, memory))
    with pytest.raises(StateError, match=r"monitor\.memory: the monitor memory was written by another build"):
        guard.load_memory()


def test_an_audit_memory_of_another_version_is_refused() -> None:
    """The audit's memory holds no code and no former version is read."""
    audit = Audit(CATALOGUE)
    with pytest.raises(StateError, match="audit memory, version 2"):
        audit.restore_bytes(older(AUDIT_FORMAT, audit.to_bytes()))
    with pytest.raises(StateError, match="the audit memory is damaged"):
        audit.restore_bytes(b"\x80\x04cos\nsystem\n")


def test_a_watch_of_another_version_is_refused(tmp_path: Path) -> None:
    """The state of a watch and the memory of its judge are refused by their versions."""
    judge = MutationJudge(CATALOGUE)
    with pytest.raises(StateError, match="memory of a watch, version 1"):
        judge.restore_bytes(older(JUDGE_FORMAT, judge.to_bytes()))

    def open_watch() -> Watch:
        problems: list[str] = []
        return Watch("log", FixJudge(CATALOGUE, "log"), "digest", [], lambda breach: None, problems.append, tmp_path)

    watch = open_watch()
    watch.save(watching.Offset(), force=True)
    watch.close()
    open_watch().close()
    path = tmp_path / watching.STATE
    path.write_bytes(older(watching.WATCH_FORMAT, path.read_bytes()))
    with pytest.raises(WatchStateError, match="state of a watch, version 1"):
        open_watch()


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    """Neither a writer nor a reader nor a watch takes a journal of another version for its own."""
    path = tmp_path / "journal.jsonl"
    Journal(path).close()
    assert list(read_journal(path)) == []
    header = json.loads(path.read_text())
    path.write_text(json.dumps({**header, "version": 1}) + "\n")
    with pytest.raises(StateError, match="a journal of version 1; this build reads version 2; move it"):
        Journal(path)
    with pytest.raises(StateError, match="a journal of version 1"):
        list(read_journal(path))
    judge = MutationJudge(CATALOGUE)
    judge.judge_line(path.read_bytes(), 1)
    judge.judge_line(b'{"subsystem":"orders","kind":"Order","record":{}}', 2)
    assert judge.skipped == ["line 1 and all that follow: it is a journal of version 1; this build reads version 2"]
    path.write_bytes(b'{"format":"hold')
    Journal(path).close()
    assert list(read_journal(path)) == []


def test_a_stored_form_of_another_name_is_refused() -> None:
    """Bytes of one kind are never read as another kind."""

    class Empty(msgspec.Struct):
        pass

    foreign = encode_stored(StoredFormat(name="other", version=2, next_step="x"), Empty())
    with pytest.raises(StateError, match=r"\(other, version 2\)"):
        Audit(CATALOGUE).restore_bytes(foreign)


# -- generated functions -------------------------------------------------------------------------------------------


def test_generated_functions_show_their_lines(tmp_path: Path) -> None:
    """A traceback through a generated function shows its source, and the source can be listed."""
    guard = open_guard(tmp_path)
    guard.record("orders", ORDER)
    sources = guard.monitor.compiler.list_sources()
    *_, name = [name for name in sources if name.startswith("<holdover mutate orders.Order")]
    assert linecache.getline(name, 1) == "def mutate(after, key, now, touched):\n"
    assert sources[name].startswith("def mutate(after, key, now, touched):\n")
    mutate = guard.monitor.compiler.mutate_function(("orders", Order))
    with pytest.raises(TypeError) as raised:
        mutate(ORDER, [], 0, {})
    lines = "".join(traceback.format_exception(raised.value))
    assert "before = T.get(key)" in lines


# -- python -O -----------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.unit.test_guard_state import ACTIONS, open_guard
guard = open_guard(Path("unused"))
for number in range(60):
    ACTIONS[number % (len(ACTIONS) - 1)](guard, number % 7)
for breach in guard.breaches:
    print(breach.invariant, breach.key, breach.explanation)
print(len(guard.active_freezes), guard.monitor.check_count, guard.catalogue.digest)
"""


def test_an_optimised_interpreter_gives_the_same_verdict() -> None:
    """`python -O` removes assertions; no verdict depends on one."""
    root = str(Path(__file__).parents[2])
    outputs = [
        subprocess.run(
            [sys.executable, *options, "-c", SCRIPT, root], capture_output=True, text=True, check=True
        ).stdout
        for options in ((), ("-O",), ("-OO",))
    ]
    assert outputs[0].count("\n") > 3
    assert outputs[0] == outputs[1] == outputs[2]
