"""Silence is noticed: HEALTHY, FROZEN, WEDGED, SILENT and STOPPED are told apart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdover.runtime import Guard, StoreError
from holdover.runtime.heartbeat import (
    Health,
    Heartbeat,
    HeartbeatLimits,
    judge_health,
    page_unhealthy_process,
    ping,
    read_health,
)

from .orders import BAD, GOOD

MakeGuard = Callable[..., Guard]
LIMITS = HeartbeatLimits(silent_after_s=10, wedged_after_s=30, progress_within_s=60)


def advance_clock(time_ns: Any, count: float) -> None:
    """Let time pass."""
    time_ns.now_ns += round(count * 1e9)


def current_health(guard: Guard, time_ns: Any) -> Health:
    """How the one process stands."""
    (process,) = read_health(guard.store, time_ns())
    assert process.reason
    return process.health


def test_the_five_states(make_guard: MakeGuard, time_ns: Any) -> None:
    """Each from what brings it about; a silent process is not called frozen, whatever it said last."""
    guard = make_guard()
    heart = Heartbeat(guard, LIMITS)
    guard.record("orders", GOOD)
    heart.write_beat()
    assert current_health(guard, time_ns) == Health.HEALTHY
    guard.record("orders", BAD)
    heart.write_beat()
    assert current_health(guard, time_ns) == Health.FROZEN
    advance_clock(time_ns, 11)
    assert current_health(guard, time_ns) == Health.SILENT
    heart.write_beat()
    assert current_health(guard, time_ns) == Health.FROZEN
    heart.stop()
    advance_clock(time_ns, 1000)
    assert current_health(guard, time_ns) == Health.STOPPED


def test_an_open_step_and_standing_still_are_wedged(make_guard: MakeGuard, time_ns: Any) -> None:
    """A thread that beats while the process is stuck does not make it healthy."""
    guard = make_guard()
    heart = Heartbeat(guard, LIMITS)
    with guard.step("stuck"):
        advance_clock(time_ns, 31)
        heart.write_beat()
        assert current_health(guard, time_ns) == Health.WEDGED
    heart.write_beat()
    assert current_health(guard, time_ns) == Health.HEALTHY
    advance_clock(time_ns, 61)
    heart.write_beat()
    assert current_health(guard, time_ns) == Health.WEDGED
    guard.tick()
    heart.write_beat()
    assert current_health(guard, time_ns) == Health.HEALTHY


def test_a_held_lock_does_not_hold_the_beat(make_guard: MakeGuard, time_ns: Any) -> None:
    """The sign of life takes no lock that a stuck process may hold."""
    guard = make_guard()
    heart = Heartbeat(guard, LIMITS)
    lock_event, release_event = threading.Event(), threading.Event()

    def hold() -> None:
        with guard.steps.lock:
            lock_event.set()
            release_event.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    lock_event.wait(10)
    try:
        heart.write_beat()
        assert current_health(guard, time_ns) == Health.HEALTHY
    finally:
        release_event.set()
        thread.join()


def test_silence_is_paged_once_and_resolves_itself(make_guard: MakeGuard, time_ns: Any, tmp_path: Path) -> None:
    """However often somebody looks there is one page as long as it lasts, and a new one the next time."""
    guard = make_guard()
    heart = Heartbeat(guard, LIMITS)
    heart.write_beat()
    pages = []
    for gap, beats in ((0, True), (20, False), (5, False), (5, True), (20, False)):
        advance_clock(time_ns, gap)
        if beats:
            heart.write_beat()
        (process,) = read_health(guard.store, time_ns())
        pages.append(page_unhealthy_process(guard.store, process, ["log"], time_ns()))
    assert pages == [False, True, False, False, True]
    titles = [pending.page.headline() for pending in guard.store.backlog()]
    assert titles == ["SILENT guard", "RESOLVED by itself: SILENT guard", "SILENT guard"]


def test_a_lost_store_is_part_of_the_beat(make_guard: MakeGuard) -> None:
    """What the process itself knows to be wrong it says."""
    guard = make_guard()
    guard.freezes.problem = "the freeze could not be written"
    beat = Heartbeat(guard, LIMITS).current_beat()
    assert judge_health(beat, beat.time_ns) == (Health.FROZEN, "the freeze could not be written")


def test_the_switch_is_called_only_while_the_process_is_not_wedged(
    make_guard: MakeGuard, time_ns: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its silence is the alarm: a wedged process must not keep it quiet."""
    urls: list[str] = []
    monkeypatch.setattr("holdover.runtime.heartbeat.ping", lambda url: urls.append(url))
    guard = make_guard()
    heart = Heartbeat(guard, LIMITS, "http://127.0.0.1:1/switch")
    heart._ping()
    heart._ping()
    assert len(urls) == 1
    heart._last_ping_s = float("-inf")
    with guard.step("stuck"):
        advance_clock(time_ns, 31)
        heart._ping()
    assert len(urls) == 1


def test_a_switch_that_is_not_there_is_said_without_its_url(caplog: pytest.LogCaptureFixture) -> None:
    """The URL is a secret."""
    assert ping("http://127.0.0.1:1/s3cret") is False
    assert "s3cret" not in caplog.text


def test_a_beat_that_cannot_be_read_is_said(make_guard: MakeGuard, time_ns: Any) -> None:
    """Not a traceback."""
    guard = make_guard()
    guard.store.write_heartbeat("other", 1, b"{")
    with pytest.raises(StoreError, match="the sign of life of other"):
        read_health(guard.store, time_ns())
