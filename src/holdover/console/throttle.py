"""How often a password may be tried: counted in memory by name and by address, over a window that slides."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Final

NAME_TRIES: Final = 10
ADDRESS_TRIES: Final = 30
WITHIN_S: Final = 300.0
_KNOWN_MAX: Final = 10_000


class Throttle:
    """Failures within the last `within_s` seconds; times are given in ns."""

    def __init__(
        self, name_tries: int = NAME_TRIES, address_tries: int = ADDRESS_TRIES, within_s: float = WITHIN_S
    ) -> None:
        self.within_s = within_s
        self._most = {"name": name_tries, "address": address_tries}
        self._failed: OrderedDict[tuple[str, str], deque[int]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, name: str, address: str, now_ns: int) -> int:
        """For how many seconds no try is taken; 0 when one is taken now."""
        with self._lock:
            return max(self._wait("name", name, now_ns), self._wait("address", address, now_ns))

    def failed(self, name: str, address: str, now_ns: int) -> None:
        """A try that was none."""
        with self._lock:
            for mark in (("name", name), ("address", address)):
                kept = self._failed.setdefault(mark, deque(maxlen=max(self._most.values())))
                kept.append(now_ns)
                self._failed.move_to_end(mark)
            while len(self._failed) > _KNOWN_MAX:
                self._failed.popitem(last=False)

    def passed(self, name: str) -> None:
        """The right password: what was tried under the name before is forgotten, what came from the address is not."""
        with self._lock:
            self._failed.pop(("name", name), None)

    def _wait(self, kind: str, told: str, now_ns: int) -> int:
        kept = self._failed.get((kind, told))
        if kept is None:
            return 0
        while kept and now_ns - kept[0] > self.within_s * 1e9:
            kept.popleft()
        if len(kept) < self._most[kind]:
            return 0
        oldest = kept[len(kept) - self._most[kind]]
        return max(1, round(self.within_s - (now_ns - oldest) / 1e9))
