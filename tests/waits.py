"""Waiting for what another process or thread brings about, with an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def waiting(within_s: float = 20.0, look_s: float = 0.005) -> Callable[..., None]:
    """A wait that looks every so often, and fails when the condition does not come about in time."""

    def wait(holds: Callable[[], object], within_s: float = within_s) -> None:
        event, end_s = threading.Event(), time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < end_s, "it did not come about in time"
            event.wait(look_s)

    return wait
