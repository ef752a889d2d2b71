"""Compares the candidate's orders with the incumbent's in a thread, without blocking the candidate."""

from __future__ import annotations

import threading
from typing import Final

from holdover.shadow.divergence import ComparisonError, ComparisonWindow
from holdover.shadow.live_day import LiveDay
from holdover.shadow.runner import COMPARE_EVERY_S, compare_journals
from holdover.shadow.shadow_run import ShadowRun
from holdover.shadow.state import OrderComparison

_SETTLED_NS: Final = 1_000_000_000


class BackgroundComparison:
    """Compares when it is due. Without a journal of the incumbent it does nothing."""

    def __init__(self, day: LiveDay, run: ShadowRun) -> None:
        self.day, self.shadow_run, self.config = day, run, day.config
        self._thread: threading.Thread | None = None
        self._outcome: OrderComparison | ComparisonError | None = None
        self._compared_ns: int | None = None

    def compare_when_due(self) -> None:
        """Take the result of the last comparison, and start another one when it is due."""
        self._take_outcome()
        now_ns = self.shadow_run.monotonic()
        is_due = self._compared_ns is None or now_ns - self._compared_ns >= COMPARE_EVERY_S * 1e9
        is_busy = self._thread is not None and self._thread.is_alive()
        if self.config.incumbent.journal and is_due and not is_busy and self.day.session is not None:
            self._compared_ns = now_ns
            self._thread = threading.Thread(target=self._compare, name="shadow-compare", daemon=True)
            self._thread.start()

    def compare_now(self) -> None:
        """Compare all orders up to now and wait for the result."""
        if self._thread is not None:
            self._thread.join()
        if self.config.incumbent.journal:
            self._compare()
            self._compared_ns = self.shadow_run.monotonic()
            self._take_outcome()

    def _take_outcome(self) -> None:
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, OrderComparison):
            self.shadow_run.record_comparison(outcome)
        elif outcome is not None:
            self.shadow_run.state.compared = None

    def _compare(self) -> None:
        arms = self.day.arms
        noise = arms[1].journals if len(arms) > 1 else None
        try:
            self._outcome = compare_journals(self.config, arms[0].journals, noise=noise, window=self._window())
        except ComparisonError as problem:
            self._outcome = problem

    def _window(self) -> ComparisonWindow:
        """Leave out orders from before the candidate began, and orders that changed only now: the other log may lag."""
        day, state = self.day, self.shadow_run.state
        settled_ns = round(self.config.input.patience_ms * 1e6) + _SETTLED_NS
        played_ns = day.now_ns if day.session is None else min(day.now_ns, day.close_ns)
        return ComparisonWindow(since_ns=max(state.since_ns, state.compared_since_ns), until_ns=played_ns - settled_ns)
