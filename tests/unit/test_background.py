"""Work off the caller's path: bundles and counts that hold up no other thread, and say when they do not fit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.catalogue import Catalogue
from holdover.runtime import Guard, GuardSettings, Journal
from holdover.runtime.background import BackgroundWriter, Pace
from holdover.runtime.bundle import Bundle, GuardSnapshot, replay
from holdover.runtime.config import GuardConfig, PagesTable
from holdover.runtime.memory import MemorySnapshot, encode_memory
from holdover.runtime.monitor import Monitor
from holdover.state import decode_msgpack, encode_msgpack
from holdover.state.encoding import encode_in_pieces
from holdover.watch.judge import MutationJudge

from .orders import BAD, GOOD, order

WAIT_S = 30.0
CATALOGUE = Catalogue.load()


@pytest.fixture
def guard(tmp_path: Path) -> Any:
    """A guard with its threads."""
    opened = Guard.open(GuardConfig.for_directory(tmp_path, pages=PagesTable(log=False)))
    yield opened
    opened.close()


class Gate:
    """Holds up work until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> None:
        self.reached.set()
        assert self.opened.wait(WAIT_S)


def can_lock(guard: Guard) -> bool:
    """Whether another thread gets the guard's lock at once."""
    answers: list[bool] = []

    def try_lock() -> None:
        answers.append(guard.steps.lock.acquire(blocking=False))
        if answers[0]:
            guard.steps.lock.release()

    thread = threading.Thread(target=try_lock)
    thread.start()
    thread.join()
    return answers[0]


def test_a_slow_bundle_holds_up_nobody(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is redacted and written, the step has returned, the lock is free and the freeze is on disk."""
    gate = Gate()
    monkeypatch.setattr("holdover.runtime.evidence.save_in_pieces", gate)
    guard.record("orders", BAD)
    assert gate.reached.wait(WAIT_S)
    assert can_lock(guard)
    guard.record("orders", BAD)
    assert guard.store.active_freezes()
    gate.opened.set()


def test_the_bundle_of_the_background_reproduces_the_breach(tmp_path: Path, guard: Guard) -> None:
    """Also when other steps were recorded before it was copied."""
    for number in range(300):
        key = f"N{number}"
        guard.record("orders", order(root_cl_ord_id=key, cl_ord_id=key, account="A", strategy="S"))
    guard.record("orders", GOOD)
    guard.record("orders", BAD)
    guard.record("orders", order(root_cl_ord_id="after", cl_ord_id="after", account="A", strategy="S"))
    assert guard.services.copier.drain(WAIT_S)
    assert guard.services.background.drain(WAIT_S)
    bundle = Bundle.open(tmp_path / "bundles" / "breach-1.hbundle")
    assert guard.breaches[0].invariant in {breach.invariant for breach in replay(bundle, guard.catalogue)}


def test_without_threads_a_bundle_is_there_at_once(make_guard: Callable[..., Guard], tmp_path: Path) -> None:
    """The twin: a simulation stays deterministic."""
    guard = make_guard(bundles=tmp_path / "bundles")
    guard.record("orders", BAD)
    assert (tmp_path / "bundles" / "breach-1.hbundle").exists()
    guard.close()


def test_a_full_queue_refuses_and_says_so() -> None:
    """The caller never waits, and what was accepted is done."""
    writer, gate, finished = BackgroundWriter(2), Gate(), []
    writer.start()
    assert writer.submit("first", gate)
    assert gate.reached.wait(WAIT_S)
    assert [writer.submit(name, lambda pace: finished.append(pace)) for name in "abc"] == [True, True, False]
    assert (writer.refused_count, writer.problem) == (1, "c was not written: 2 others are waiting for the disk")
    gate.opened.set()
    writer.stop()
    assert len(finished) == 2


def test_failing_work_ends_no_thread() -> None:
    """It is reported; the next work is done. Newer work replaces queued work of the same name."""
    writer, finished = BackgroundWriter(), []
    writer.start()

    def fail(pace: Pace) -> None:
        raise OSError("no space left on the device")

    writer.submit("counts", fail)
    assert writer.drain(WAIT_S)
    assert writer.problem == "counts could not be written: no space left on the device"
    gate = Gate()
    writer.submit("gate", gate)
    assert gate.reached.wait(WAIT_S)
    for number in range(5):
        writer.submit("counts", lambda pace, number=number: finished.append(number), replaces=True)
    gate.opened.set()
    writer.stop()
    assert finished == [4]
    writer.submit("late", lambda pace: finished.append(9))
    assert finished == [4, 9]


def test_a_copy_in_slices_is_the_memory(guard: Guard) -> None:
    """With mutations, insertions and a restart between the slices; byte for byte what one copy gives."""
    for acts in ("record", "restore", "nothing"):
        snapshot = GuardSnapshot(guard)
        turns = iter(range(100))

        def give_way(acts: str = acts, turns: Any = turns) -> None:
            key = f"{acts}{next(turns)}"
            record = order(root_cl_ord_id=key, cl_ord_id=key, account="A", strategy="S")
            if acts == "record":
                guard.record("orders", record)
                guard.record("orders", GOOD)
            elif acts == "restore":
                guard.restore("orders", [record])

        snapshot.take(give_way)
        expected = decode_msgpack(encode_memory(guard.monitor))
        copied = decode_msgpack(b"".join(snapshot.memory.encode()))
        for content in (expected, copied):
            content["by_table"] = {
                (subsystem, kind): sorted(map(repr, records)) for subsystem, kind, records in content["by_table"]
            }
        assert copied == expected
        assert guard.monitor.captures == []


def test_a_memory_in_pieces_has_the_same_bytes(guard: Guard) -> None:
    """As in one piece; also with integers of 30 digits."""
    for number in range(250):
        key = f"N{number}"
        guard.record(
            "orders", order(root_cl_ord_id=key, cl_ord_id=key, order_qty=10**30 + number, leaves_qty=10**30 + number)
        )
    assert b"".join(MemorySnapshot(guard.monitor).encode()) == encode_memory(guard.monitor)


def records_of(monitor: Monitor) -> dict[Any, Any]:
    """The records of a monitor by table, without empty tables."""
    return {table: dict(records) for table, records in monitor.all_records().items() if records}


VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.binary(max_size=5) | st.integers(-(10**30), 10**30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(value=VALUES)
def test_integers_of_any_length_come_back(value: Any) -> None:
    """Whole and in pieces."""
    assert decode_msgpack(encode_msgpack(value)) == value
    assert b"".join(encode_in_pieces(value)) == encode_msgpack(value)


@given(items=st.lists(st.integers(-(2**63), 2**64 - 1), min_size=100, max_size=350))
def test_pieces_of_long_lists(items: list[int]) -> None:
    """The bytes are those of plain MessagePack."""
    assert b"".join(encode_in_pieces(items)) == msgspec.msgpack.encode(items)
    mapping = {str(item): item for item in items}
    assert b"".join(encode_in_pieces(mapping)) == msgspec.msgpack.encode(mapping)


@settings(max_examples=25, deadline=None)
@given(quantity=st.integers(2**64, 10**30), price=st.integers(2**64, 10**30))
def test_amounts_of_thirty_digits_survive_every_form(quantity: int, price: int) -> None:
    """Memory, bundle, journal and sidecar; the totals over them are right again."""
    record = order(account="A", strategy="S", order_qty=quantity, leaves_qty=quantity, price=price)
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        guard = Guard(
            directory,
            GuardSettings(bundles=directory),
            catalogue=CATALOGUE,
            channels=[],
            journal=Journal(directory / "journal.jsonl"),
        )
        guard.evidence.is_quiet = True
        guard.record("orders", record)
        guard.record("orders", msgspec.structs.replace(record, cum_qty=quantity // 2))  # breaks the invariants
        guard.save_memory()
        other = Guard(directory, catalogue=CATALOGUE, channels=[])
        assert other.load_memory()
        assert records_of(other.monitor) == records_of(guard.monitor)
        assert other.monitor.tables.totals == guard.monitor.tables.totals
        bundle = Bundle.open(directory / "breach-1.hbundle")
        assert replay(bundle, CATALOGUE)[0].invariant == guard.breaches[0].invariant
        judge = MutationJudge(CATALOGUE)
        for number, line in enumerate((directory / "journal.jsonl").read_bytes().splitlines(), 1):
            judge.judge_line(line, number)
        assert judge.skipped == []
        restored = MutationJudge(CATALOGUE)
        restored.restore_bytes(judge.to_bytes())
        assert records_of(restored.monitor) == records_of(judge.monitor)
        other.close()
        guard.close()
