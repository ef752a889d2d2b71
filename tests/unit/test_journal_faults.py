"""The journal on a full disk, with torn lines and a failed rotation; and alerts that outlive damage."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdover.runtime import Guard, Journal, read_journal
from holdover.runtime.breach import Page
from holdover.runtime.channels import FileChannel
from holdover.runtime.config import GuardConfig, PagesTable
from holdover.runtime.database import StoreError
from holdover.runtime.freeze_watcher import FreezeWatcher
from holdover.runtime.heartbeat import Health, judge_health
from holdover.runtime.pager import Pager

from .orders import BAD, GOOD


class FullDisk:
    """A file on a disk that takes `room` more bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        """Write what there is room for."""
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = self.file.write(data[: self.room])
        self.room -= count
        return int(count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    """Cut off by a full disk in this process, or by a kill in the one before."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    failures: list[str] = []
    journal.on_failure = failures.append
    journal.write_event(1, 0, "begin")
    journal.flush()
    whole = journal._file
    journal._file = FullDisk(whole, 20)  # type: ignore[assignment]
    journal.write_event(2, 0, "torn")
    journal.flush()
    journal.write_event(3, 0, "lost")
    journal.flush()
    journal._file = whole
    journal.write_event(4, 0, "end")
    journal.flush()
    journal.close()
    assert (len(failures), journal.lost_count) == (2, 2)
    damaged: list[int] = []
    lines = [line["what"] for line in read_journal(path, lambda number, problem: damaged.append(number))]
    assert lines == ["begin", "lost", "end"]
    assert damaged == [3]
    path.write_bytes(path.read_bytes()[:-5])
    journal = Journal(path)
    journal.write_event(5, 0, "next")
    journal.close()
    assert [line["what"] for line in read_journal(path)][-1] == "next"


def test_a_journal_without_a_listener_raises(tmp_path: Path) -> None:
    """The twin: a harness hears of a full disk."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal._file = FullDisk(journal._file, 0)  # type: ignore[assignment]
    journal.write_event(1, 0, "begin")
    with pytest.raises(OSError, match="No space"):
        journal.flush()


def test_trading_goes_on_without_a_journal(tmp_path: Path) -> None:
    """A full disk raises nothing into trading code: an alert, a counter, and a memory that is not current."""
    guard = Guard.open(GuardConfig.for_directory(tmp_path, pages=PagesTable(log=False)))
    assert guard.journal is not None
    guard.journal._file = FullDisk(guard.journal._file, 0)  # type: ignore[assignment]
    guard.record("orders", GOOD)
    assert guard.journal.lost_count
    assert "No space left" in guard.memory_problem
    assert guard.services.background.drain(30)
    assert "journal/guard" in [alert.page.dedup_key for alert in guard.store.alerts()]
    guard.record("orders", BAD)
    assert guard.active_freezes
    guard.close()
    assert (
        "No space left" in Guard.open(GuardConfig.for_directory(tmp_path, pages=PagesTable(log=False))).memory_problem
    )


def test_a_rotation_that_fails_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a directory that became read-only: the lines of that step are lost or written, later ones are written."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, max_bytes=1)
    journal.on_failure = lambda reason: None

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr("holdover.runtime.journal.os.replace", refuse)
        journal.write_event(1, 0, "begin")
        journal.flush()
    journal.write_event(2, 0, "end")
    journal.close()
    files = [*sorted(tmp_path.glob("journal.jsonl.*")), path]
    assert "end" in [line["what"] for file in files for line in read_journal(file)]


def test_a_damaged_alert_is_still_an_alert(make_guard: Callable[..., Guard], tmp_path: Path) -> None:
    """It says that it is damaged, and those behind it are delivered too."""
    guard = make_guard(channels=[FileChannel(tmp_path / "pages.jsonl")])
    guard.record("orders", BAD)
    guard.store.database.write(lambda run: run("UPDATE outbox SET body=? WHERE number=1", b"\x00{"))
    guard.store.database.write(lambda run: run("UPDATE alert SET body=?", b"\x00{"))
    guard.pager.deliver_due()
    pages = (tmp_path / "pages.jsonl").read_text()
    assert "A damaged alert" in pages
    assert guard.store.backlog() == []
    assert len(guard.store.alerts()) >= 1
    assert guard.store.acknowledge(guard.store.alerts()[0].page.dedup_key, "op", 1)


class FlakyChannel:
    """A channel that fails a number of times."""

    name = "flaky"

    def __init__(self, failures: int) -> None:
        self.failures, self.pages = failures, list[Page]()

    def deliver(self, page: Page) -> None:
        """Fail, or take the page."""
        if self.failures:
            self.failures -= 1
            raise OSError("not reached")
        self.pages.append(page)


def test_the_alert_of_a_freeze_in_memory_is_retried(
    make_guard: Callable[..., Guard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those in the outbox are: until the channel has taken it, and then no more."""
    channel = FlakyChannel(2)
    guard = make_guard(channels=[channel])
    seconds = iter(range(0, 10_000, 400))
    monkeypatch.setattr("holdover.runtime.pager.time.monotonic_ns", lambda: next(seconds) * 1_000_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(guard.store, "record_breach", _fail)
        guard.record("orders", BAD)
    count = len(guard.pager._direct_pages)
    for _ in range(5):
        guard.pager.deliver_due()
    assert len(channel.pages) == count
    assert guard.pager._direct_pages == []


def _fail(*arguments: object) -> None:
    raise StoreError("the store cannot be used")


def test_a_clock_set_back_delays_no_alert(make_guard: Callable[..., Guard], time_ns: Any) -> None:
    """A failed attempt that was to be repeated a second later is, by a clock that shows an hour before."""
    channel = FlakyChannel(1)
    guard = make_guard(channels=[channel])
    time_ns.now_ns = 10_000_000_000_000
    guard.record("orders", BAD)
    guard.pager.deliver_due()
    time_ns.now_ns -= 3_600_000_000_000
    guard.pager.deliver_due()
    assert channel.pages


def test_a_clock_set_back_hides_no_silence(tmp_path: Path) -> None:
    """A last sign of life far in the future is no sign of life; one a moment ahead is."""
    guard = Guard.open(GuardConfig.for_directory(tmp_path, pages=PagesTable(log=False)))
    assert guard.services.heartbeat is not None
    beat = guard.services.heartbeat.current_beat()
    assert judge_health(beat, beat.time_ns - 3_600_000_000_000)[0] == Health.SILENT
    assert judge_health(beat, beat.time_ns - 1_000_000_000)[0] == Health.HEALTHY
    guard.close()


def test_the_thread_of_alerts_outlives_any_error(make_guard: Callable[..., Guard]) -> None:
    """Without it, nobody is alerted."""
    guard = make_guard(channels=[])
    rounds = threading.Semaphore(0)

    class FailingPager(Pager):
        def deliver_due(self) -> int:
            rounds.release()
            raise ValueError("a damaged row")

    pager = FailingPager(guard.store, [], guard.clock)
    pager.start()
    for _ in range(3):
        pager.wake()
        assert rounds.acquire(timeout=30)
    pager.stop()


def test_a_message_waits_for_no_hung_read() -> None:
    """Another thread's read hangs: after the timeout of the store the message is refused."""
    hung, released = threading.Event(), threading.Event()

    def read() -> None:
        hung.set()
        released.wait(30)

    watcher = FreezeWatcher(read, 1, timeout_s=0.01)
    thread = threading.Thread(target=watcher.refresh)
    thread.start()
    assert hung.wait(30)
    assert not watcher.ensure_fresh()
    released.set()
    thread.join()
