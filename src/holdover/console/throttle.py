"""A limit on password attempts: counted in memory by name and by address, over a sliding window."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Final

NAME_TRIES: Final = 10
ADDRESS_TRIES: Final = 30
WINDOW_S: Final = 300.0
_KEYS_MAX: Final = 10_000


class LoginThrottle:
    """Failures within the last `window_s` seconds; times in ns."""

    def __init__(
        self, name_tries: int = NAME_TRIES, address_tries: int = ADDRESS_TRIES, window_s: float = WINDOW_S
    ) -> None:
        self.window_s = window_s
        self._tries_max = {"name": name_tries, "address": address_tries}
        self._failures: OrderedDict[tuple[str, str], deque[int]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, name: str, address: str, now_ns: int) -> int:
        """Returns for how many seconds no attempt is accepted; 0 when one is accepted now."""
        with self._lock:
            return max(self._wait_s("name", name, now_ns), self._wait_s("address", address, now_ns))

    def record_failure(self, name: str, address: str, now_ns: int) -> None:
        """Record a failed attempt."""
        with self._lock:
            for mark in (("name", name), ("address", address)):
                failures = self._failures.setdefault(mark, deque(maxlen=max(self._tries_max.values())))
                failures.append(now_ns)
                self._failures.move_to_end(mark)
            while len(self._failures) > _KEYS_MAX:
                self._failures.popitem(last=False)

    def record_success(self, name: str) -> None:
        """Record a right password: failures under the name are forgotten, those from the address are not."""
        with self._lock:
            self._failures.pop(("name", name), None)

    def _wait_s(self, kind: str, value: str, now_ns: int) -> int:
        failures = self._failures.get((kind, value))
        if failures is None:
            return 0
        # A failure in the future was recorded before the clock was set back.
        while failures and not 0 <= now_ns - failures[0] <= self.window_s * 1e9:
            failures.popleft()
        if len(failures) < self._tries_max[kind]:
            return 0
        oldest = failures[len(failures) - self._tries_max[kind]]
        return max(1, round(self.window_s - (now_ns - oldest) / 1e9))
