"""A bounded number of passwords that are hashed or wait for it.

Argon2 takes 64 MiB and a core for each password. Browsers that have logged in before have a lane of their own, so
that a flood of attempts from elsewhere never delays an operator.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

T = TypeVar("T")

STRANGER_WORKERS: Final = 2
DEVICE_WORKERS: Final = 1
WAITING_MAX: Final = 20


class LoginGateFullError(RuntimeError):
    """Too many passwords wait to be hashed; nothing was counted."""


class LoginGate:
    """Two lanes of threads that check passwords, one for known devices and one for all others."""

    def __init__(self, waiting_max: int = WAITING_MAX) -> None:
        self._waiting_max = waiting_max
        self._lanes = {
            False: ThreadPoolExecutor(STRANGER_WORKERS, "holdover-login"),
            True: ThreadPoolExecutor(DEVICE_WORKERS, "holdover-login-device"),
        }
        self._waiting_counts = {False: 0, True: 0}
        self._lock = threading.Lock()

    async def run(self, is_device: bool, check: Callable[..., T], *arguments: Any) -> T:
        """Returns what `check` returns, run in a lane. Raises `LoginGateFullError` when the lane is full."""
        with self._lock:
            if self._waiting_counts[is_device] >= self._waiting_max:
                raise LoginGateFullError
            self._waiting_counts[is_device] += 1

        def run_and_count() -> T:
            try:
                return check(*arguments)
            finally:
                with self._lock:
                    self._waiting_counts[is_device] -= 1

        return await asyncio.get_running_loop().run_in_executor(self._lanes[is_device], run_and_count)
