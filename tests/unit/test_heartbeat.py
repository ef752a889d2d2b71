"""Silence is noticed: HEALTHY, FROZEN, WEDGED, SILENT and STOPPED are told apart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdover.runtime import Guard, StoreProblem
from holdover.runtime.heartbeat import Health, Heartbeat, Limits, judge, look, page_silence, ping

from .orders import BAD, GOOD

MakeGuard = Callable[..., Guard]
LIMITS = Limits(silent_after_s=10, wedged_after_s=30, progress_within_s=60)


def seconds(time_ns: Any, count: float) -> None:
    """Let time pass."""
    time_ns.now_ns += round(count * 1e9)


def health(guard: Guard, time_ns: Any) -> Health:
    """How the one process stands."""
    (seen,) = look(guard.store, time_ns())
    assert seen.why
    return seen.health


def test_the_five_states(make_guard: MakeGuard, time_ns: Any) -> None:
    """Each from what brings it about; a silent process is not called frozen, whatever it said last."""
    guard = make_guard()
    heart = Heartbeat(guard, LIMITS)
    guard.record("orders", GOOD)
    heart.once()
    assert health(guard, time_ns) == Health.HEALTHY
    guard.record("orders", BAD)
    heart.once()
    assert health(guard, time_ns) == Health.FROZEN
    seconds(time_ns, 11)
    assert health(guard, time_ns) == Health.SILENT
    heart.once()
    assert health(guard, time_ns) == Health.FROZEN
    heart.stop()
    seconds(time_ns, 1000)
    assert health(guard, time_ns) == Health.STOPPED


def test_an_open_step_and_standing_still_are_wedged(make_guard: MakeGuard, time_ns: Any) -> None:
    """A thread that beats while the process is stuck does not make it healthy."""
    guard = make_guard()
    heart = Heartbeat(guard, LIMITS)
    with guard.step("stuck"):
        seconds(time_ns, 31)
        heart.once()
        assert health(guard, time_ns) == Health.WEDGED
    heart.once()
    assert health(guard, time_ns) == Health.HEALTHY
    seconds(time_ns, 61)
    heart.once()
    assert health(guard, time_ns) == Health.WEDGED
    guard.tick()
    heart.once()
    assert health(guard, time_ns) == Health.HEALTHY


def test_a_held_lock_does_not_hold_the_beat(make_guard: MakeGuard, time_ns: Any) -> None:
    """The sign of life takes no lock that a stuck process may hold."""
    guard = make_guard()
    heart = Heartbeat(guard, LIMITS)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with guard._lock:
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        heart.once()
        assert health(guard, time_ns) == Health.HEALTHY
    finally:
        done.set()
        thread.join()


def test_silence_is_paged_once_and_resolves_itself(make_guard: MakeGuard, time_ns: Any, tmp_path: Path) -> None:
    """However often somebody looks there is one page as long as it lasts, and a new one the next time."""
    guard = make_guard()
    heart = Heartbeat(guard, LIMITS)
    heart.once()
    pages = []
    for gap, beats in ((0, True), (20, False), (5, False), (5, True), (20, False)):
        seconds(time_ns, gap)
        if beats:
            heart.once()
        (seen,) = look(guard.store, time_ns())
        pages.append(page_silence(guard.store, seen, ["log"], time_ns()))
    assert pages == [False, True, False, False, True]
    titles = [pending.page.headline() for pending in guard.store.backlog()]
    assert titles == ["SILENT guard", "RESOLVED by itself: SILENT guard", "SILENT guard"]


def test_a_lost_store_is_part_of_the_beat(make_guard: MakeGuard) -> None:
    """What the process itself knows to be wrong it says."""
    guard = make_guard()
    guard.problem = "the freeze could not be written"
    beat = Heartbeat(guard, LIMITS).beat()
    assert judge(beat, beat.time_ns) == (Health.FROZEN, "the freeze could not be written")


def test_the_switch_is_called_only_while_the_process_is_not_wedged(
    make_guard: MakeGuard, time_ns: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its silence is the alarm: a wedged process must not keep it quiet."""
    called: list[str] = []
    monkeypatch.setattr("holdover.runtime.heartbeat.ping", lambda url: called.append(url))
    guard = make_guard()
    heart = Heartbeat(guard, LIMITS, "http://127.0.0.1:1/switch")
    heart._ping()
    heart._ping()
    assert len(called) == 1
    heart._pinged = float("-inf")
    with guard.step("stuck"):
        seconds(time_ns, 31)
        heart._ping()
    assert len(called) == 1


def test_a_switch_that_is_not_there_is_said_without_its_url(caplog: pytest.LogCaptureFixture) -> None:
    """The URL is a secret."""
    assert ping("http://127.0.0.1:1/s3cret") is False
    assert "s3cret" not in caplog.text


def test_a_beat_that_cannot_be_read_is_said(make_guard: MakeGuard, time_ns: Any) -> None:
    """Not a traceback."""
    guard = make_guard()
    guard.store.beat("other", 1, b"{")
    with pytest.raises(StoreProblem, match="the sign of life of other"):
        look(guard.store, time_ns())
