"""The configuration of a shadow run: one TOML file, checked as a whole before anything starts.

[shadow]
directory = "shadow"               # state of the run; relative to the file
keep_days = 60                     # days of the candidate's files; orders from before are compared no more

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
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from holdover.model.spelling import suggest_spelling
from holdover.runtime.config_file import (
    ConfigFile,
    NonNegativeInt,
    PositiveFloat,
    read_config_file,
)
from holdover.shadow.components import DEFAULT_RESET_FAULTS, FAULTS, ComponentTable
from holdover.shadow.probe import find_probe_problems

_DAY_S: Final = 86_400.0
_PositiveMsOfDay = Annotated[float, msgspec.Meta(gt=0, le=_DAY_S * 1e3)]
_SecondsOfDay = Annotated[float, msgspec.Meta(ge=0, le=_DAY_S)]


class ShadowConfigError(ValueError):
    """The configuration cannot be used; the message lists every problem."""


class ShadowTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [shadow]: the directory of the run, and how many days of the candidate's files it keeps."""

    directory: str = "shadow"
    keep_days: Annotated[int, msgspec.Meta(ge=1)] = 60


class CandidateTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The candidate: run here as a subject, or followed by its journal."""

    subject: str = ""
    recordings: str = ""
    instruments: list[str] = []
    days: NonNegativeInt = 0
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
    patience_ms: _PositiveMsOfDay = 2000.0
    after_close_s: _SecondsOfDay = 10.0
    keep_days: NonNegativeInt = 5


class IncumbentTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The incumbent's journal or FIX log."""

    journal: str = ""


class ClockTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the healthy clock counts, in seconds and milliseconds."""

    tick_s: PositiveFloat = 1.0
    deadline_s: PositiveFloat = 30.0
    skew_ms: PositiveFloat = 1000.0
    resets_on: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_RESET_FAULTS))


class CutoverTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conditions for a cutover."""

    hours: PositiveFloat = 72.0
    virtual: bool = False
    fresh_s: PositiveFloat = 600.0
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
    tolerance: dict[str, NonNegativeInt] = {}
    explained: list[Explanation] = []


class ShadowTables(msgspec.Struct, frozen=True, kw_only=True):
    """The tables of a shadow run's configuration file."""

    shadow: ShadowTable = ShadowTable()
    candidate: CandidateTable = CandidateTable()
    incumbent: IncumbentTable = IncumbentTable()
    input: InputTable = InputTable()
    clock: ClockTable = ClockTable()
    component: list[ComponentTable] = []
    cutover: CutoverTable = CutoverTable()
    divergence: DivergenceTable = DivergenceTable()


class ShadowConfig(ShadowTables, frozen=True, kw_only=True):
    """The configuration of a shadow run. `resolve_path` makes a path of the file absolute."""

    base_directory: Path

    @property
    def directory(self) -> Path:
        """The directory of the run."""
        return self.base_directory / self.shadow.directory

    @property
    def components(self) -> list[ComponentTable]:
        """The components whose signs of life the healthy clock needs."""
        return self.component

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


def read_shadow_config(path: Path) -> ShadowConfig:
    """Read the configuration from a TOML file. Raises `ShadowConfigError`, which names the file and every problem."""
    tables = read_config_file(path, ShadowTables, ShadowConfigError, _check)
    return ShadowConfig(base_directory=path.resolve().parent, **msgspec.structs.asdict(tables))


def _check(file: ConfigFile) -> None:
    candidate, input_table = file.table("candidate", CandidateTable), file.table("input", InputTable)
    divergence, clock = file.table("divergence", DivergenceTable), file.table("clock", ClockTable)
    if candidate is not None:
        _check_candidate(candidate, file)
    if clock is not None:
        _check_clock(clock, file)
    if input_table is not None:
        _check_input(input_table, file)
    if candidate is not None and input_table is not None and divergence is not None:
        _check_live(candidate, input_table, divergence, file)
    if divergence is not None:
        _check_divergence(divergence, file)


def _check_candidate(candidate: CandidateTable, file: ConfigFile) -> None:
    if bool(candidate.subject) == bool(candidate.journal):
        file.add("candidate", "[candidate] should say either subject, to be run here, or journal, to be followed")
    if candidate.journal and not candidate.guard:
        file.add("candidate.journal", "[candidate] with a journal should say guard, too: where its freezes are")


def _check_clock(clock: ClockTable, file: ConfigFile) -> None:
    for name in clock.resets_on:
        if name not in FAULTS:
            hint = suggest_spelling(name, FAULTS) or f"; there are {', '.join(FAULTS)}"
            file.add("clock.resets_on", f"[clock] resets_on: no class of fault is called {name!r}{hint}")
    if clock.tick_s > clock.deadline_s:
        file.add("clock.tick_s", "[clock] tick_s should be above 0 and not above deadline_s")


def _check_input(input_table: InputTable, file: ConfigFile) -> None:
    if input_table != InputTable() and (
        bool(input_table.market) != bool(input_table.instruments) or not (input_table.market or input_table.reports)
    ):
        file.add("input", "[input] should say market, and instruments (TOML files); over recordings reports alone")
    has_open, has_close = input_table.open is not None, input_table.close is not None
    if has_open != has_close or (input_table.open and input_table.close and input_table.open >= input_table.close):
        file.add("input.open", "[input] open should be before close, both UTC, or neither be there")


def _check_live(
    candidate: CandidateTable, input_table: InputTable, divergence: DivergenceTable, file: ConfigFile
) -> None:
    if input_table != InputTable() and not candidate.subject:
        file.add("input", "[input] is what a candidate gets that is run here: [candidate] should say subject")
    if not input_table.market and (divergence.copy or candidate.snapshot):
        file.add(
            "divergence.copy",
            "[divergence] copy and [candidate] snapshot are for a candidate run here live: say [input]",
        )
    components = file.rows("component", ComponentTable)
    file.add_duplicates([(f"{place}.name", component.name) for place, component in components], "[[component]]")
    for place, component in components:
        if component.deadline_s <= 0:
            file.add(f"{place}.deadline_s", f"[[component]] {component.name}: deadline_s should be above 0")
        for problem in find_probe_problems(component):
            file.add(place, f"[[component]] {component.name}: {problem}")
    if candidate.subject and not input_table.market and any(component.url for _, component in components):
        file.add(
            "component[0]",
            "[[component]] url: a venue is asked in real time, a candidate that is run here is on the virtual clock",
        )


def _check_divergence(divergence: DivergenceTable, file: ConfigFile) -> None:
    for index, entry in enumerate(divergence.explained):
        if not (entry.order.strip() and entry.reason.strip()):
            file.add(
                f"divergence.explained[{index}]",
                f"[[divergence.explained]] {entry.order}: should say its order and a reason",
            )
    if divergence.copy and divergence.noise:
        file.add("divergence.noise", "[divergence] should say noise or copy, not both")
