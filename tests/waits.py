"""Waits with a timeout, for conditions that another process or thread brings about."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def make_wait(timeout_s: float = 20.0, poll_s: float = 0.005) -> Callable[..., None]:
    """Return a wait function that polls a condition every `poll_s` seconds and fails after `timeout_s` seconds."""

    def wait(condition: Callable[[], object], timeout_s: float = timeout_s) -> None:
        event, end_s = threading.Event(), time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end_s, "it did not come about in time"
            event.wait(poll_s)

    return wait
