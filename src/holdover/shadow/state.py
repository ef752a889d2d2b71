"""What a shadow run keeps, in one file that is there whole: clock, faults, breaches, what was carried, divergence."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.runtime.files import write_whole
from holdover.shadow.clock import Counted
from holdover.shadow.components import Faults
from holdover.watch.source import Place
from holdover.world import Followed

VERSION: Final = 1
_MAGIC: Final = "holdover-shadow"
BREACHES_KEPT: Final = 50
NIGHTS_KEPT: Final = 200


class BadState(ValueError):
    """A shadow's state that is missing, damaged or another's; the message says which."""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A component as it was at the last look: silent for so long (s), None for one never heard in that life."""

    name: str
    silent_s: float | None
    deadline_s: float
    healthy: bool


class Broke(msgspec.Struct, frozen=True, kw_only=True):
    """A breach of the candidate: when (ns), what."""

    time_ns: int
    told: str


class Differs(msgspec.Struct, frozen=True, kw_only=True):
    """One order that differs: by its ClOrdID, in which field, and what either said; why, where that is explained."""

    order: str
    field: str
    candidate: str
    incumbent: str
    reason: str = ""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison came to. `noise` is the share of orders in which two copies of the candidate differ.

    `moving` orders had moved just before and were left out.
    """

    orders: int
    same: int
    differing: int
    unexplained: int
    only_candidate: int
    only_incumbent: int
    fields: dict[str, int] = {}
    noise: float | None = None
    noise_orders: int = 0
    moving: int = 0
    first: list[Differs] = []

    @property
    def share(self) -> float:
        """The share of orders that differ."""
        return self.differing / self.orders if self.orders else 0.0


class State(msgspec.Struct, kw_only=True):
    """Times in ns; `told_ns` is the last look by the host's clock; `virtual` says which clock counts.

    `kind` says how the candidate is run: over recordings, live, or by itself and followed. Of one that is run live:
    `instruments` are those that it gets, `since_ns` is when it began by the time of the feed, `batch` the last of what
    came in, `lines` how many lines of the journal of the day `lines_of` are counted in this.
    """

    magic: str = _MAGIC
    version: int = VERSION
    virtual: bool = False
    kind: str = ""
    instruments: list[str] = []
    began_ns: int = 0
    told_ns: int = 0
    stopped: bool = False
    clock: Counted = msgspec.field(default_factory=Counted)
    faults: dict[str, Faults] = {}
    components: list[Heard] = []
    breach_count: int = 0
    breaches_since_reset: int = 0
    breaches: list[Broke] = []
    nights: list[dict[str, Any]] = []
    sessions: int = 0
    digest: str = ""
    subject: str = ""
    guard: str = ""
    orders: int = 0
    mutations: int = 0
    checks: int = 0
    compared: Compared | None = None
    market_events: int = 0
    followed: Followed | None = None
    since_ns: int = 0
    batch: int = 0
    lines: int = 0
    lines_of: str = ""
    places: dict[str, Place] = {}

    def save(self, path: Path) -> None:
        """Write it: whole, synced. Raises `OSError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(self))


def read_state(path: Path) -> State:
    """What was kept. Raises `BadState`, also where nothing was."""
    try:
        state = msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        raise BadState(f"{path}: no shadow has run here; see holdover shadow run") from None
    except (OSError, msgspec.MsgspecError) as problem:
        raise BadState(f"{path.name}: cannot be read: {problem}") from problem
    if state.magic != _MAGIC or state.version != VERSION:
        raise BadState(f"{path.name}: is {state.magic} version {state.version}, this Holdover reads version {VERSION}")
    return state
