"""The components that a shadow run depends on, each with a deadline, and the faults of the run by class."""

from __future__ import annotations

import re
from typing import Final

import msgspec

FAULTS: Final[dict[str, str]] = {
    "authentication": "a venue or feed refused the credentials (401)",
    "disabled-book": "the venue takes no orders in an instrument that should trade",
    "gap": "messages are missing from a sequence",
    "disconnect": "a connection was cut",
    "reject": "an order or a change of one was rejected",
    "clock-skew": "the host's clock moved against the monotonic one",
    "silence": "a component said nothing for longer than its deadline",
    "crash": "the candidate ended by itself",
    "breach": "an invariant did not hold",
    "divergence": "the candidate's order differs from the incumbent's",
}
"""Every class of fault, and what it is in words."""

DEFAULT_RESET_FAULTS: Final = ("breach", "crash", "authentication", "disabled-book", "gap", "silence")
"""The classes that reset the healthy clock where the configuration says nothing."""

_LAST_FAULTS_MAX: Final = 20
_FAULT_PATTERNS: Final = (
    (
        "authentication",
        re.compile(r"\b401\b|unauthori[sz]ed|authenticat|invalid (?:api )?(?:key|token|credential)", re.I),
    ),
    ("disabled-book", re.compile(r"book[^.]{0,40}disabled|disabled[^.]{0,40}book|instrument[^.]{0,40}disabled", re.I)),
    ("gap", re.compile(r"\bgap\b|sequence (?:too|number)|missing (?:message|sequence)", re.I)),
    ("clock-skew", re.compile(r"clock (?:skew|jump|drift)|SendingTime", re.I)),
    ("reject", re.compile(r"\breject", re.I)),
    ("disconnect", re.compile(r"disconnect|connection (?:reset|refused|lost|closed)|broken pipe|timed out", re.I)),
)


def classify_fault(text: str) -> str:
    """Returns the class of a fault by the words of its message; empty when no known pattern matches."""
    return next((name for name, words in _FAULT_PATTERNS if words.search(text)), "")


class ComponentTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configuration of one component.

    With a `calendar` (`XNYS`) the deadline applies only during that exchange's sessions. With a `url` the shadow
    probes the component itself: over HTTP every `every_s` seconds, or over a WebSocket for as long as the
    connection lasts. Fields of a response are named by their path (`data.seq`); `each` is the path to a list of
    items. `sequence` is a number that grows by one (within each `channel`); a `book` is disabled when `disabled`
    (`status=halted`) matches.
    """

    name: str
    deadline_s: float = 30.0
    url: str = ""
    every_s: float = 1.0
    header_env: list[str] = []
    subscribe: str = ""
    sequence: str = ""
    channel: str = ""
    disabled: str = ""
    calendar: str = ""
    book: str = ""
    items: str = ""


class ComponentFault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: the time (ns, host's or virtual clock), the component and the detail."""

    time_ns: int
    component: str
    detail: str


class FaultHistory(msgspec.Struct, kw_only=True):
    """The faults of one class: their count and the latest of them."""

    count: int = 0
    last: list[ComponentFault] = []

    def add(self, fault: ComponentFault) -> None:
        """Add a fault."""
        self.count += 1
        self.last = [*self.last, fault][-_LAST_FAULTS_MAX:]


class ComponentMonitor:
    """When each component last sent something in this run, by the monotonic clock."""

    def __init__(self, tables: list[ComponentTable]) -> None:
        self._deadlines = {table.name: round(table.deadline_s * 1e9) for table in tables}
        self._last_heard_ns: dict[str, int] = {}
        self._silent_names: set[str] = set()
        self.refusing_components: set[str] = set()
        """Components that answer but refuse the credentials: unhealthy while that lasts, and not silent."""

    @property
    def names(self) -> list[str]:
        """The names of all components."""
        return list(self._deadlines)

    def mark_alive(self, name: str, monotonic_ns: int) -> None:
        """Record that a component sent something. Raises `KeyError` when no component has that name."""
        if name not in self._deadlines:
            raise KeyError(f"no component is called {name}; there are {', '.join(self._deadlines) or 'none'}")
        self._last_heard_ns[name] = monotonic_ns

    def silent_components(self, monotonic_ns: int) -> dict[str, float]:
        """Returns the components past their deadline, with the seconds of silence; infinite if never heard in
        this run.
        """
        silences: dict[str, float] = {}
        for name, deadline in self._deadlines.items():
            heard_ns = self._last_heard_ns.get(name)
            if name in self.refusing_components:
                continue
            if heard_ns is None:
                silences[name] = float("inf")
            elif monotonic_ns - heard_ns > deadline:
                silences[name] = (monotonic_ns - heard_ns) / 1e9
        return silences

    def newly_silent_components(self, silent: dict[str, float]) -> list[str]:
        """Returns the components that became silent since the last call; each is a fault."""
        silent_names = {name for name, seconds in silent.items() if seconds != float("inf")}
        new_names = sorted(silent_names - self._silent_names)
        self._silent_names = silent_names
        return new_names
