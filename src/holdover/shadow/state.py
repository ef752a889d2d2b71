"""The saved state of a shadow run, in one file that is written whole: clock, faults, breaches, nights and
divergence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.runtime.files import make_private_directory, write_whole
from holdover.shadow.clock import ClockTotals
from holdover.shadow.components import FaultHistory
from holdover.state import DECODE_ERRORS
from holdover.watch.source import Offset
from holdover.world import ReplicationStats

VERSION: Final = 2
_MAGIC: Final = "holdover-shadow"
BREACHES_MAX: Final = 50
NIGHTS_MAX: Final = 200


class ShadowStateError(ValueError):
    """The state is missing, damaged or of another run; the message says which."""


class ComponentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A component at the last check: seconds of silence, None if never heard in that run."""

    name: str
    silent_s: float | None
    deadline_s: float
    healthy: bool


class ShadowBreach(msgspec.Struct, frozen=True, kw_only=True):
    """A breach of the candidate: its time (ns) and its explanation."""

    time_ns: int
    detail: str


class OrderDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One order that differs: its ClOrdID, the fields, both values, and the reason if there is an explanation."""

    order: str
    field: str
    candidate: str
    incumbent: str
    reason: str = ""


class OrderComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a comparison. `noise` is the share of orders in which two copies of the candidate differ.

    `moving` orders had changed just before and were left out.
    """

    orders: int
    identical: int
    differing: int
    unexplained: int
    only_candidate: int
    only_incumbent: int
    fields: dict[str, int] = {}
    noise: float | None = None
    noise_orders: int = 0
    moving: int = 0
    first: list[OrderDifference] = []

    @property
    def share(self) -> float:
        """The share of orders that differ, 0 to 1."""
        return self.differing / self.orders if self.orders else 0.0


class ShadowState(msgspec.Struct, kw_only=True):
    """The state of a shadow run. Times in ns; `checked_ns` is the last check by the host's clock.

    `virtual` says which clock counts. `kind` says how the candidate runs: over recordings, live, or followed. For a
    live candidate, `instruments` are its instruments, `since_ns` is its start by the feed's time,
    `compared_since_ns` is when the earliest day began whose orders are still there to compare (0: all are), `batch`
    is the last applied batch of inputs, and `counted_lines` are the counted journal lines of the day
    `counted_lines_date`.
    """

    magic: str = _MAGIC
    version: int = VERSION
    virtual: bool = False
    kind: str = ""
    instruments: list[str] = []
    began_ns: int = 0
    checked_ns: int = 0
    stopped: bool = False
    clock: ClockTotals = msgspec.field(default_factory=ClockTotals)
    faults: dict[str, FaultHistory] = {}
    components: list[ComponentStatus] = []
    breach_count: int = 0
    breaches_since_reset: int = 0
    breaches: list[ShadowBreach] = []
    nights: list[dict[str, Any]] = []
    sessions: int = 0
    digest: str = ""
    policy: list[str] = []
    subject: str = ""
    guard: str = ""
    orders: int = 0
    mutations: int = 0
    checks: int = 0
    compared: OrderComparison | None = None
    market_events: int = 0
    followed: ReplicationStats | None = None
    since_ns: int = 0
    compared_since_ns: int = 0
    batch: int = 0
    counted_lines: int = 0
    counted_lines_date: str = ""
    offsets: dict[str, Offset] = {}

    def save(self, path: Path) -> None:
        """Write the state: whole and synced. Raises `OSError`."""
        make_private_directory(path.parent)
        write_whole(path, msgspec.json.encode(self))


class _ShadowStateHead(msgspec.Struct):
    magic: str = ""
    version: int = 0


def read_state(path: Path) -> ShadowState:
    """Read the saved state.

    Raises `ShadowStateError` when there is none, when it cannot be read, and when it is of another version.
    """
    try:
        content = path.read_bytes()
        head = msgspec.json.decode(content, type=_ShadowStateHead)
        if head.magic != _MAGIC or head.version != VERSION:
            raise ShadowStateError(
                f"{path.name}: is {head.magic or 'no shadow state'} version {head.version}, this Holdover reads "
                f"version {VERSION}; take another [shadow] directory"
            )
        return msgspec.json.decode(content, type=ShadowState)
    except FileNotFoundError:
        raise ShadowStateError(f"{path}: no shadow has run here; see holdover shadow run") from None
    except (*DECODE_ERRORS, OSError) as problem:
        raise ShadowStateError(f"{path.name}: cannot be read: {problem}") from problem
