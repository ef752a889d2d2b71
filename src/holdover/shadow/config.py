"""The configuration of a shadow run: one TOML file, checked whole before anything starts.

[shadow]
directory = "shadow"               # what is kept; relative to the file

[candidate]
subject = "desk"                   # run here, over recordings, on the virtual clock; or MODULE:NAME
recordings = "days"                # without it the bundled simulated ones
instruments = ["ACME"]             # without it the first at hand
days = 2                           # without it all
seed = 0
snapshot = "eod.hsnap"             # begin with this state, taken at the end of a day
[candidate.settings]               # for the subject's plan
# or, where it runs by itself beside the incumbent:
# journal = "candidate/journal.jsonl"
# guard = "candidate"              # the directory of its guard, or the guard's TOML

[incumbent]
journal = "incumbent/journal.jsonl" # or a FIX log

[input]                            # what the incumbent gets, for a subject that is run here live; over recordings
                                   # reports alone
market = "feed.jsonl"              # lines that grow, nats://HOST:PORT/STREAM, or a folder into which a feed is recorded
reports = "incumbent/journal.jsonl" # what the incumbent is told of its orders: a journal, a FIX log, a stream of either
instruments = ["acme.toml"]
open = 14:30:00                    # the session's hours, UTC; without them the instruments' calendar's
close = 21:00:00
begin = "now"                      # or start: from the first line that is there
patience_ms = 2000                 # how long a request waits for the report that the incumbent got on the same
after_close_s = 10                 # how long after the close reports of the day may still come
keep_days = 5                      # of what came in

[clock]
tick_s = 1.0
deadline_s = 30.0                  # between two looks; a longer gap is never counted
skew_ms = 1000                     # a jump of the host's clock past this is a fault
resets_on = ["breach", "crash", "authentication", "disabled-book", "gap", "silence"]

[[component]]
name = "market data"
deadline_s = 5
calendar = "XNYS"                  # expected to say something in these sessions only

[[component]]                      # asked by the shadow itself
name = "orders"
url = "https://venue/orders"       # or wss://venue/feed, as long as the connection lives
every_s = 1.0
header_env = ["VENUE_AUTH"]        # that variable holds a header, Name: value; never the file
each = "books"                     # the list in the answer that the rest is read from; without it the answer
book = "symbol"
disabled = "status=disabled"       # FIELD=VALUE: then the book takes no orders
sequence = "seq"                   # a number that grows by one; a step over is a gap
channel = "symbol"                 # counted for each of these
subscribe = '{"op":"subscribe"}'   # sent when a feed is up

[cutover]
hours = 72
virtual = false                    # whether hours on the virtual clock are enough
fresh_s = 600                      # what was written longer ago tells nothing of now
gate = "gate.json"                 # what holdover gate --json printed
workstreams = "workstreams.toml"

[divergence]
noise = "candidate-2/journal.jsonl" # a second copy of the candidate on the same input
copy = true                        # live: run that second copy here, too
match = "id"                       # or sequence: the n-th order of one account, symbol and side
[divergence.tolerance]
price = 1                          # by field of the order, in ticks, lots or ns
[[divergence.explained]]
order = "C-17"                     # the ClOrdID with which its chain began, * for any letters
reason = "the incumbent rounds down"
"""

from __future__ import annotations

from datetime import time as clock_time
from math import inf
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from holdover.runtime.files import read_toml
from holdover.shadow.components import FAULTS, RESETS, ComponentTable
from holdover.shadow.probe import problems_of

_DAY_S: Final = 86_400.0


class BadShadow(ValueError):
    """A configuration that cannot be used; the message lists every problem."""


class _ShadowTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    directory: str = "shadow"


class CandidateTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The candidate: run here over recordings, or followed by its journal."""

    subject: str = ""
    recordings: str = ""
    instruments: list[str] = []
    days: int = 0
    seed: int = 0
    faults: list[str] = []
    settings: dict[str, Any] = {}
    snapshot: str = ""
    journal: str = ""
    guard: str = ""


class InputTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the incumbent gets, where the candidate is run here on it."""

    market: str = ""
    reports: str = ""
    instruments: list[str] = []
    open: clock_time | None = None
    close: clock_time | None = None
    begin: Literal["now", "start"] = "now"
    patience_ms: float = 2000.0
    after_close_s: float = 10.0
    keep_days: int = 5


class IncumbentTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The incumbent's journal or FIX log."""

    journal: str = ""


class ClockTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the healthy clock counts, in seconds and milliseconds."""

    tick_s: float = 1.0
    deadline_s: float = 30.0
    skew_ms: float = 1000.0
    resets_on: list[str] = msgspec.field(default_factory=lambda: list(RESETS))


class CutoverTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for before a cutover."""

    hours: float = 72.0
    virtual: bool = False
    fresh_s: float = 600.0
    gate: str = ""
    workstreams: str = ""


class Explained(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Orders that may differ, and why."""

    order: str
    reason: str


class DivergenceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How orders are compared."""

    noise: str = ""
    copy: bool = False
    match: Literal["id", "sequence"] = "id"
    tolerance: dict[str, int] = {}
    explained: list[Explained] = []


class ShadowConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a shadow run needs. `path` takes a path of the file's to an absolute one."""

    here: Path
    directory: Path
    candidate: CandidateTable
    incumbent: IncumbentTable
    input: InputTable
    clock: ClockTable
    components: list[ComponentTable]
    cutover: CutoverTable
    divergence: DivergenceTable

    def path(self, told: str) -> Path:
        """A path as the file says it."""
        return self.here / told

    @property
    def state(self) -> Path:
        """What is kept, whole, over lives."""
        return self.directory / "shadow.json"

    @property
    def is_virtual(self) -> bool:
        """Whether the candidate is run here over recordings, on the virtual clock."""
        return bool(self.candidate.subject) and not self.is_live

    @property
    def is_live(self) -> bool:
        """Whether the candidate is run here on what the incumbent gets, as it comes."""
        return bool(self.input.market)


_TABLES: Final[dict[str, Any]] = {
    "shadow": _ShadowTable,
    "candidate": CandidateTable,
    "incumbent": IncumbentTable,
    "input": InputTable,
    "clock": ClockTable,
    "cutover": CutoverTable,
    "divergence": DivergenceTable,
}


def read_shadow(path: Path) -> ShadowConfig:
    """The configuration in a TOML file. Raises `BadShadow` with the file and all that is wrong."""
    told = read_toml(path, BadShadow)
    problems = [
        f"[{name}] is not known here; there are {', '.join(_TABLES)}, component"
        for name in told
        if name not in _TABLES and name != "component"
    ]
    tables: dict[str, Any] = {}
    for name, kind in _TABLES.items():
        try:
            tables[name] = msgspec.convert(told.get(name, {}), kind)
        except msgspec.ValidationError as problem:
            problems.append(f"[{name}]: {problem}")
    components: list[ComponentTable] = []
    try:
        components = msgspec.convert(told.get("component", []), list[ComponentTable])
    except msgspec.ValidationError as problem:
        problems.append(f"[[component]]: {problem}")
    if not problems:
        problems = _wrong(tables, components)
    if problems:
        raise BadShadow("\n".join(f"{path.name}: {problem}" for problem in problems))
    here = path.resolve().parent
    return ShadowConfig(
        here=here,
        directory=here / tables["shadow"].directory,
        components=components,
        **{name: tables[name] for name in _TABLES if name != "shadow"},
    )


def _wrong(tables: dict[str, Any], components: list[ComponentTable]) -> list[str]:
    candidate, clock, cutover = tables["candidate"], tables["clock"], tables["cutover"]
    found = []
    if bool(candidate.subject) == bool(candidate.journal):
        found.append("[candidate] should say either subject, to be run here, or journal, to be followed")
    if candidate.journal and not candidate.guard:
        found.append("[candidate] with a journal should say guard, too: where its freezes are")
    found += [
        f"[clock] resets_on: no class of fault is called {name!r}; there are {', '.join(FAULTS)}"
        for name in clock.resets_on
        if name not in FAULTS
    ]
    if not 0 < clock.tick_s <= clock.deadline_s < inf:
        found.append("[clock] tick_s should be above 0 and not above deadline_s")
    if not 0 < clock.skew_ms < inf or cutover.hours <= 0 or cutover.fresh_s <= 0:
        found.append("[clock] skew_ms, [cutover] hours and fresh_s should be above 0")
    names = [one.name for one in components]
    found += [
        f"[[component]] {name}: there are two of that name" for name in sorted(set(names)) if names.count(name) > 1
    ]
    found += [f"[[component]] {one.name}: deadline_s should be above 0" for one in components if one.deadline_s <= 0]
    found += [f"[[component]] {one.name}: {problem}" for one in components for problem in problems_of(one)]
    found += _wrong_input(tables)
    if candidate.subject and not tables["input"].market and any(one.url for one in components):
        found.append(
            "[[component]] url: a venue is asked in real time, a candidate that is run here is on the virtual clock"
        )
    found += [
        f"[[divergence.explained]] {one.order}: should say its order and a reason"
        for one in tables["divergence"].explained
        if not (one.order.strip() and one.reason.strip())
    ]
    found += [
        f"[divergence] tolerance {name} is below 0" for name, most in tables["divergence"].tolerance.items() if most < 0
    ]
    return found


def _wrong_input(tables: dict[str, Any]) -> list[str]:
    candidate, told, divergence = tables["candidate"], tables["input"], tables["divergence"]
    found = []
    if told != InputTable():
        if not candidate.subject:
            found.append("[input] is what a candidate gets that is run here: [candidate] should say subject")
        if bool(told.market) != bool(told.instruments) or not (told.market or told.reports):
            found.append("[input] should say market, and instruments (TOML files); over recordings reports alone")
    if not told.market and (divergence.copy or candidate.snapshot):
        found.append("[divergence] copy and [candidate] snapshot are for a candidate run here live: say [input]")
    if (told.open is None) != (told.close is None) or (told.open and told.close and told.open >= told.close):
        found.append("[input] open should be before close, both UTC, or neither be there")
    fits = 0 < told.patience_ms <= _DAY_S * 1e3 and 0 <= told.after_close_s <= _DAY_S and told.keep_days >= 0
    if not fits:
        found.append(
            "[input] patience_ms should be above 0, after_close_s and keep_days not below, neither time over a day"
        )
    if divergence.copy and divergence.noise:
        found.append("[divergence] should say noise or copy, not both")
    return found
