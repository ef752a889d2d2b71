"""A process under test in one TOML file, checked whole before anything starts.

[process]
command = ["holdover", "desk", "run", "--config", "desk.toml"]
directory = "."                    # where it runs, below the folder of the run
ready_s = 20.0                     # so long it may take to log on, every time
stop_s = 10.0                      # from SIGTERM to SIGKILL
guard = "guard"                    # the directory of a guard of its own, where it has one

[process.environment]              # beside the environment of `holdover carry` itself
DESK_HOME = "${directory}"

[venue]
symbols = ["ACME"]
clients = ["DESK"]                 # its CompIDs; each has a second session for market data, CLIENT.FEED
name = "VENUE"
accelerate = 60.0                  # seconds of the recorded day in a second
heartbeat_s = 30
numbers = "carried"                # of the sessions, over the night; or "reset": they begin anew with the day
settle_s = 2.0                     # after the close, and at most: what the venue has said then is taken in

[venue.users]                      # a client's user, and the variable that has the password
DESK = "trader:VENUE_PASSWORD"

[[file]]                           # written before each start, with ${port} and the like filled in
path = "desk.toml"
from = "desk.toml.in"              # relative to this file

[[state]]                          # where it keeps its state; each has a name of its own
name = "desk"
kind = "directory"
path = "desk"
exclude = ["*.lock"]               # of its files; sockets and the like are none

[[state]]
name = "book"
kind = "sqlite"                    # taken by the online backup, whoever has it open
path = "book.db"

[[state]]
name = "ledger"
kind = "postgresql"
url_env = "LEDGER_URL"             # or url, url_file
database = "ledger_${arm}"         # without it the URL's own
capture = "dump"                   # or "template": on the server, by CREATE DATABASE ... TEMPLATE
pg_dump = "/usr/lib/postgresql/16/bin/pg_dump"   # without it the one on the path
disposable = true                  # `carry` and `restore` may put another in its place

[[state]]
name = "cache"
kind = "redis"
url_env = "CACHE_URL"
keys = ["desk:*"]                  # without it all
disposable = true

[redact]                           # beside passwords, tokens and keys
fields = ["client_name"]
patterns = ["ACC-[0-9]{8}"]

In command, environment, files, paths and databases stand: ${port} and ${host} of the venue, ${day} and ${open} and
${close} (UTC), ${accelerate}, ${arm}, ${directory} where it runs, ${here} where this file lies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from holdover.runtime import BadConfig
from holdover.runtime.files import read_toml
from holdover.runtime.redaction import BadRule, Rules
from holdover.runtime.secrets import BadSecret, secret

NAMES: Final = ("port", "host", "day", "open", "close", "accelerate", "arm", "directory", "here")
"""What can be filled in."""

_FILLED: Final = re.compile(r"\$\{(\w+)\}")
_KINDS: Final = ("directory", "sqlite", "postgresql", "redis")
_TABLES: Final = ("process", "venue", "file", "state", "redact")


class _ProcessTable(msgspec.Struct, forbid_unknown_fields=True):
    command: list[str]
    directory: str = "."
    environment: dict[str, str] = {}
    ready_s: float = 20.0
    stop_s: float = 10.0
    guard: str = ""


class _VenueTable(msgspec.Struct, forbid_unknown_fields=True):
    symbols: list[str]
    clients: list[str]
    name: str = "VENUE"
    accelerate: float = 1.0
    heartbeat_s: int = 30
    numbers: Literal["carried", "reset"] = "carried"
    settle_s: float = 2.0
    users: dict[str, str] = {}


class _RedactTable(msgspec.Struct, forbid_unknown_fields=True):
    fields: list[str] = []
    patterns: list[str] = []


class FileTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from"}):
    """A file that is written before each start."""

    path: str
    source: str


class StateTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place where the process keeps its state."""

    name: str
    kind: Literal["directory", "sqlite", "postgresql", "redis"]
    path: str = ""
    exclude: list[str] = []
    url: str = ""
    url_env: str = ""
    url_file: str = ""
    database: str = ""
    capture: Literal["dump", "template"] = "dump"
    pg_dump: str = ""
    keys: list[str] = []
    disposable: bool = False


class ProcessConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A process under test: how it runs, whom it trades with, where its state lies. `here` is its file's folder."""

    here: Path
    command: list[str]
    directory: str
    environment: dict[str, str]
    ready_s: float
    stop_s: float
    guard: str
    symbols: list[str]
    clients: list[str]
    venue: str
    accelerate: float
    heartbeat_s: int
    numbers: str
    settle_s: float
    users: dict[str, tuple[str, str]]
    files: list[FileTable]
    states: list[StateTable]
    redact_fields: list[str]
    redact_patterns: list[str]

    def rules(self, fields: list[str]) -> Rules:
        """What is taken out of a snapshot: the usual secrets, this file's, and these fields."""
        return Rules.usual([*self.redact_fields, *fields], self.redact_patterns)


def filled(text: str, values: Mapping[str, str]) -> str:
    """A text with what is known in the place of its names; another name stays as it stands."""
    return _FILLED.sub(lambda found: values.get(found[1], found[0]), text)


def read_process(path: Path) -> ProcessConfig:
    """Read it. Raises `BadConfig` with everything that is wrong with it."""
    told = read_toml(path, BadConfig)
    here = path.resolve().parent
    problems = [
        f"[{name}] is no table that is known here; there are {', '.join(_TABLES)}"
        for name in told
        if name not in _TABLES
    ]
    process = _table(told, "process", _ProcessTable, problems)
    venue = _table(told, "venue", _VenueTable, problems)
    redact = _table({"redact": {}, **told}, "redact", _RedactTable, problems)
    files = _rows(told, "file", FileTable, problems)
    states = _rows(told, "state", StateTable, problems)
    if process is not None:
        _check_process(process, problems)
    users = _check_venue(venue, problems) if venue is not None else {}
    problems += [
        f"[[file]] {one.path}: from: {here / one.source} is not there"
        for one in files
        if not (here / one.source).is_file()
    ]
    problems += [f"[[file]] {one.path}: path should be below the run's folder" for one in files if _leaves(one.path)]
    _check_states(states, here, problems)
    if redact is not None:
        try:
            Rules(redact.fields, redact.patterns)
        except BadRule as problem:
            problems.append(f"[redact] {problem}")
    if problems or process is None or venue is None or redact is None:
        raise BadConfig("\n".join(f"{path.name}: {problem}" for problem in problems))
    return ProcessConfig(
        here=here,
        command=process.command,
        directory=process.directory,
        environment=process.environment,
        ready_s=process.ready_s,
        stop_s=process.stop_s,
        guard=process.guard,
        symbols=venue.symbols,
        clients=venue.clients,
        venue=venue.name,
        accelerate=venue.accelerate,
        heartbeat_s=venue.heartbeat_s,
        numbers=venue.numbers,
        settle_s=venue.settle_s,
        users=users,
        files=files,
        states=states,
        redact_fields=redact.fields,
        redact_patterns=redact.patterns,
    )


def _check_process(process: _ProcessTable, problems: list[str]) -> None:
    if not process.command or not process.command[0]:
        problems.append("[process] command should have at least the program")
    if process.ready_s <= 0 or process.stop_s <= 0:
        problems.append("[process] ready_s and stop_s should be above 0")
    if _leaves(process.directory):
        problems.append("[process] directory should be below the run's folder")


def _check_venue(venue: _VenueTable, problems: list[str]) -> dict[str, tuple[str, str]]:
    if not venue.symbols or not venue.clients:
        problems.append("[venue] symbols and clients should each have at least one")
    if not 0 < venue.accelerate <= 100_000:
        problems.append("[venue] accelerate should be above 0 and at most 100000")
    if venue.heartbeat_s < 1 or venue.settle_s < 0:
        problems.append("[venue] heartbeat_s should be 1 or more, and settle_s not below 0")
    users: dict[str, tuple[str, str]] = {}
    for client, said in venue.users.items():
        user, _, variable = said.partition(":")
        if client not in venue.clients:
            problems.append(f"[venue.users] {client} is none of the clients: {', '.join(venue.clients)}")
        elif not user or variable not in os.environ:
            problems.append(f"[venue.users] {client}: {said!r} should be USER:VARIABLE, and the environment set it")
        else:
            users[client] = (user, os.environ[variable])
    return users


def _check_states(states: list[StateTable], here: Path, problems: list[str]) -> None:
    names = [one.name for one in states]
    problems += [
        f"[[state]] {name}: there are two of that name" for name in sorted(set(names)) if names.count(name) > 1
    ]
    if not states:
        problems.append("[[state]] is missing: a process without a state of its own carries nothing")
    for one in states:
        where = f"[[state]] {one.name}:"
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", one.name) or one.name in (".", ".."):
            problems.append(f"{where} the name should be of letters, digits and . _ -")
        if one.kind in ("directory", "sqlite"):
            if not one.path:
                problems.append(f"{where} a {one.kind} needs its path")
            elif not Path(one.path).is_absolute() and _leaves(one.path):
                problems.append(f"{where} path should be absolute, or below where the process runs")
            continue
        if sum(map(bool, (one.url, one.url_env, one.url_file))) != 1:
            problems.append(f"{where} needs one of url, url_env, url_file")
            continue
        if "@" in one.url.partition("://")[2].partition("/")[0]:
            problems.append(f"{where} url carries a secret; it belongs into url_env or url_file")
        try:
            secret(one.url_env, one.url_file, here)
        except BadSecret as problem:
            problems.append(f"{where} {problem}")


def _leaves(path: str) -> bool:
    """Whether a relative path leads out of the folder that it is below, or is not relative at all."""
    return Path(path).is_absolute() or ".." in Path(path).parts


def _table(told: dict[str, Any], name: str, kind: type[Any], problems: list[str]) -> Any:
    if name not in told:
        problems.append(f"[{name}] is missing")
        return None
    return _convert(told[name], kind, f"[{name}]", problems)


def _rows(told: dict[str, Any], name: str, kind: type[Any], problems: list[str]) -> list[Any]:
    rows = told.get(name, [])
    if not isinstance(rows, list):
        problems.append(f"[{name}] should be [[{name}]], once for each")
        return []
    found = (_convert(one, kind, f"[[{name}]] {number}", problems) for number, one in enumerate(rows, 1))
    return [one for one in found if one is not None]


def _convert(value: Any, kind: type[Any], where: str, problems: list[str]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as problem:
        problems.append(f"{where}: {problem}")
        return None
