"""What a shadow run depends on, each with a deadline, and the faults that it meets, by class."""

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

RESETS: Final = ("breach", "crash", "authentication", "disabled-book", "gap", "silence")
"""The classes that reset the healthy clock where the configuration says nothing."""

_KEPT: Final = 20
_WORDS: Final = (
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


def fault_of(said: str) -> str:
    """The class of a fault by what a system said of it; empty where the words are none that are known."""
    return next((name for name, words in _WORDS if words.search(said)), "")


class ComponentTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A component as it is configured.

    With a `calendar` (`XNYS`) it is expected to say something in that exchange's sessions only. With a `url` it is
    asked itself, over HTTP each `every_s` seconds or over a WebSocket as long as that lives. In what it answers, fields
    are named by their path (`data.seq`); `each` is the path to a list of them. `sequence` is a number that grows by one
    (in each `channel`); a `book` is disabled when `disabled` (`status=halted`) holds.
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
    each: str = ""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: when (ns, the host's or the virtual clock), where, what."""

    time_ns: int
    component: str
    detail: str


class Faults(msgspec.Struct, kw_only=True):
    """The faults of one class: how many there were, and the last of them."""

    count: int = 0
    last: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """One more."""
        self.count += 1
        self.last = [*self.last, fault][-_KEPT:]


class Components:
    """When each component was last heard in this life, by the monotonic clock."""

    def __init__(self, tables: list[ComponentTable]) -> None:
        self._deadlines = {table.name: round(table.deadline_s * 1e9) for table in tables}
        self._heard: dict[str, int] = {}
        self._silent: set[str] = set()
        self.ailing: set[str] = set()
        """Those that answer and are of no use: unhealthy for as long as that lasts, and not silent."""

    @property
    def names(self) -> list[str]:
        """All of them."""
        return list(self._deadlines)

    def heard(self, name: str, monotonic_ns: int) -> None:
        """A component has said something. Raises `KeyError` for one that is not configured."""
        if name not in self._deadlines:
            raise KeyError(f"no component is called {name}; there are {', '.join(self._deadlines) or 'none'}")
        self._heard[name] = monotonic_ns

    def silent(self, monotonic_ns: int) -> dict[str, float]:
        """The silent ones, each with the seconds since it was heard; infinite for one never heard in this life."""
        found: dict[str, float] = {}
        for name, deadline in self._deadlines.items():
            heard = self._heard.get(name)
            if name in self.ailing:
                continue
            if heard is None:
                found[name] = float("inf")
            elif monotonic_ns - heard > deadline:
                found[name] = (monotonic_ns - heard) / 1e9
        return found

    def newly_silent(self, silent: dict[str, float]) -> list[str]:
        """Those that had been heard and have fallen silent since this was asked last: a fault each."""
        now = {name for name, seconds in silent.items() if seconds != float("inf")}
        found = sorted(now - self._silent)
        self._silent = now
        return found
