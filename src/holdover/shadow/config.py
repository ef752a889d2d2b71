"""The configuration of a shadow run: one TOML file, checked as a whole before anything starts.

[shadow]
directory = "shadow"               # state of the run; relative to the file

[candidate]
subject = "desk"                   # run here, over recordings, on the virtual clock; or MODULE:NAME
recordings = "days"                # default: the bundled simulated recordings
instruments = ["ACME"]             # default: the first instrument that is recorded
days = 2                           # default: all days
seed = 0
snapshot = "eod.hsnap"             # start from this state, taken at the end of a day
[candidate.settings]               # for the subject's plan
# or, for a candidate that runs in its own process next to the incumbent:
# journal = "candidate/journal.jsonl"
# guard = "candidate"              # the directory of its guard, or the guard's TOML

[incumbent]
journal = "incumbent/journal.jsonl" # or a FIX log

[input]                            # the incumbent's inputs, for a subject that is run here live; over recordings only
                                   # reports
market = "feed.jsonl"              # a growing file of lines, nats://HOST:PORT/STREAM, or a directory of recordings
reports = "incumbent/journal.jsonl" # reports about the incumbent's orders: a journal, a FIX log or a stream of either
instruments = ["acme.toml"]
open = 14:30:00                    # session hours, UTC; default: the calendar of the instruments
close = 21:00:00
begin = "now"                      # or start: from the first line of the source
patience_ms = 2000                 # how long a request waits for the incumbent's report on the matching request
after_close_s = 10                 # how long after the close reports of the day may still arrive
keep_days = 5                      # days of stored inputs

[clock]
tick_s = 1.0
deadline_s = 30.0                  # between two checks; a longer gap is never counted
skew_ms = 1000                     # a larger jump of the host's clock is a fault
resets_on = ["breach", "crash", "authentication", "disabled-book", "gap", "silence"]

[[component]]
name = "market data"
deadline_s = 5
calendar = "XNYS"                  # the deadline applies during these sessions only

[[component]]                      # probed by the shadow itself
name = "orders"
url = "https://venue/orders"       # or wss://venue/feed, for as long as the connection lasts
every_s = 1.0
header_env = ["VENUE_AUTH"]        # this variable holds a header, Name: value; never in the file
items = "books"                    # the list of items in the response; default: the response is the item
book = "symbol"
disabled = "status=disabled"       # FIELD=VALUE: the book takes no orders when it matches
sequence = "seq"                   # a number that grows by one; a larger step is a gap
channel = "symbol"                 # the sequence is counted per channel
subscribe = '{"op":"subscribe"}'   # sent after a feed connects

[cutover]
hours = 72
virtual = false                    # whether hours on the virtual clock are enough
fresh_s = 600                      # an older state does not show that the shadow is running
gate = "gate.json"                 # the output of holdover gate --json
workstreams = "workstreams.toml"

[divergence]
noise = "candidate-2/journal.jsonl" # a second copy of the candidate on the same input
copy = true                        # live: run the second copy here, too
match = "id"                       # or sequence: the n-th order of one account, symbol and side
[divergence.tolerance]
price = 1                          # by field of the order, in ticks, lots or ns
[[divergence.explained]]
order = "C-17"                     # the first ClOrdID of the order's chain; * matches any letters
reason = "the incumbent rounds down"
"""

from __future__ import annotations

from datetime import time as clock_time
from math import inf
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from holdover.runtime.files import read_toml
from holdover.shadow.components import DEFAULT_RESET_FAULTS, FAULTS, ComponentTable
from holdover.shadow.probe import find_probe_problems

_DAY_S: Final = 86_400.0


class ShadowConfigError(ValueError):
    """The configuration cannot be used; the message lists every problem."""


class _ShadowTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    directory: str = "shadow"


class CandidateTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The candidate: run here as a subject, or followed by its journal."""

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
    """The incumbent's inputs, for a candidate that is run here on them."""

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
    resets_on: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_RESET_FAULTS))


class CutoverTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conditions for a cutover."""

    hours: float = 72.0
    virtual: bool = False
    fresh_s: float = 600.0
    gate: str = ""
    workstreams: str = ""


class Explanation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Orders that may differ, and the reason."""

    order: str
    reason: str


class DivergenceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How orders are compared."""

    noise: str = ""
    copy: bool = False
    match: Literal["id", "sequence"] = "id"
    tolerance: dict[str, int] = {}
    explained: list[Explanation] = []


class ShadowConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a shadow run. `resolve_path` makes a path of the file absolute."""

    base_directory: Path
    directory: Path
    candidate: CandidateTable
    incumbent: IncumbentTable
    input: InputTable
    clock: ClockTable
    components: list[ComponentTable]
    cutover: CutoverTable
    divergence: DivergenceTable

    def resolve_path(self, relative: str) -> Path:
        """Returns the absolute path of a path that is relative to the file."""
        return self.base_directory / relative

    @property
    def state_path(self) -> Path:
        """The file with the state of the run."""
        return self.directory / "shadow.json"

    @property
    def is_virtual(self) -> bool:
        """Whether the candidate runs here over recordings, on the virtual clock."""
        return bool(self.candidate.subject) and not self.is_live

    @property
    def is_live(self) -> bool:
        """Whether the candidate runs here on the incumbent's live inputs."""
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


def read_shadow_config(path: Path) -> ShadowConfig:
    """Read the configuration from a TOML file. Raises `ShadowConfigError`, which names the file and every problem."""
    document = read_toml(path, ShadowConfigError)
    problems = [
        f"[{name}] is not known here; there are {', '.join(_TABLES)}, component"
        for name in document
        if name not in _TABLES and name != "component"
    ]
    tables: dict[str, Any] = {}
    for name, kind in _TABLES.items():
        try:
            tables[name] = msgspec.convert(document.get(name, {}), kind)
        except msgspec.ValidationError as problem:
            problems.append(f"[{name}]: {problem}")
    components: list[ComponentTable] = []
    try:
        components = msgspec.convert(document.get("component", []), list[ComponentTable])
    except msgspec.ValidationError as problem:
        problems.append(f"[[component]]: {problem}")
    if not problems:
        problems = _find_problems(tables, components)
    if problems:
        raise ShadowConfigError("\n".join(f"{path.name}: {problem}" for problem in problems))
    base_directory = path.resolve().parent
    return ShadowConfig(
        base_directory=base_directory,
        directory=base_directory / tables["shadow"].directory,
        components=components,
        **{name: tables[name] for name in _TABLES if name != "shadow"},
    )


def _find_problems(tables: dict[str, Any], components: list[ComponentTable]) -> list[str]:
    candidate, clock, cutover = tables["candidate"], tables["clock"], tables["cutover"]
    problems = []
    if bool(candidate.subject) == bool(candidate.journal):
        problems.append("[candidate] should say either subject, to be run here, or journal, to be followed")
    if candidate.journal and not candidate.guard:
        problems.append("[candidate] with a journal should say guard, too: where its freezes are")
    problems += [
        f"[clock] resets_on: no class of fault is called {name!r}; there are {', '.join(FAULTS)}"
        for name in clock.resets_on
        if name not in FAULTS
    ]
    if not 0 < clock.tick_s <= clock.deadline_s < inf:
        problems.append("[clock] tick_s should be above 0 and not above deadline_s")
    if not 0 < clock.skew_ms < inf or cutover.hours <= 0 or cutover.fresh_s <= 0:
        problems.append("[clock] skew_ms, [cutover] hours and fresh_s should be above 0")
    names = [component.name for component in components]
    problems += [
        f"[[component]] {name}: there are two of that name" for name in sorted(set(names)) if names.count(name) > 1
    ]
    problems += [
        f"[[component]] {component.name}: deadline_s should be above 0"
        for component in components
        if component.deadline_s <= 0
    ]
    problems += [
        f"[[component]] {component.name}: {problem}"
        for component in components
        for problem in find_probe_problems(component)
    ]
    problems += _find_input_problems(tables)
    if candidate.subject and not tables["input"].market and any(component.url for component in components):
        problems.append(
            "[[component]] url: a venue is asked in real time, a candidate that is run here is on the virtual clock"
        )
    problems += [
        f"[[divergence.explained]] {entry.order}: should say its order and a reason"
        for entry in tables["divergence"].explained
        if not (entry.order.strip() and entry.reason.strip())
    ]
    problems += [
        f"[divergence] tolerance {name} is below 0"
        for name, limit in tables["divergence"].tolerance.items()
        if limit < 0
    ]
    return problems


def _find_input_problems(tables: dict[str, Any]) -> list[str]:
    candidate, input_table, divergence = tables["candidate"], tables["input"], tables["divergence"]
    problems = []
    if input_table != InputTable():
        if not candidate.subject:
            problems.append("[input] is what a candidate gets that is run here: [candidate] should say subject")
        if bool(input_table.market) != bool(input_table.instruments) or not (input_table.market or input_table.reports):
            problems.append("[input] should say market, and instruments (TOML files); over recordings reports alone")
    if not input_table.market and (divergence.copy or candidate.snapshot):
        problems.append("[divergence] copy and [candidate] snapshot are for a candidate run here live: say [input]")
    if (input_table.open is None) != (input_table.close is None) or (
        input_table.open and input_table.close and input_table.open >= input_table.close
    ):
        problems.append("[input] open should be before close, both UTC, or neither be there")
    is_valid = (
        0 < input_table.patience_ms <= _DAY_S * 1e3
        and 0 <= input_table.after_close_s <= _DAY_S
        and input_table.keep_days >= 0
    )
    if not is_valid:
        problems.append(
            "[input] patience_ms should be above 0, after_close_s and keep_days not below, neither time over a day"
        )
    if divergence.copy and divergence.noise:
        problems.append("[divergence] should say noise or copy, not both")
    return problems
