"""The configuration of a process under test: one TOML file, checked completely before anything starts.

[process]
command = ["holdover", "desk", "run", "--config", "desk.toml"]
directory = "."                    # working directory, below the folder of the run
ready_s = 20.0                     # time allowed for each logon
stop_s = 10.0                      # from SIGTERM to SIGKILL
guard = "guard"                    # the directory of the process's own guard, if it has one

[process.environment]              # in addition to the environment of `holdover carry`
DESK_HOME = "${directory}"

[venue]
symbols = ["ACME"]
clients = ["DESK"]                 # CompIDs; each has a second session for market data, CLIENT.FEED
name = "VENUE"
accelerate = 60.0                  # seconds of the recorded day per second
heartbeat_s = 30
numbers = "carried"                # sequence numbers overnight; or "reset": they restart with the day
settle_s = 2.0                     # at most this long after the close, so that the venue's last messages arrive

[venue.users]                      # a client's user, and the environment variable with the password
DESK = "trader:VENUE_PASSWORD"

[[file]]                           # written before each start, with ${port} and the like filled in
path = "desk.toml"
from = "desk.toml.in"              # relative to this file

[[state]]                          # a state store of the process; each has a unique name
name = "desk"
kind = "directory"
path = "desk"
exclude = ["*.lock"]               # files to leave out; sockets and the like are never captured

[[state]]
name = "book"
kind = "sqlite"                    # captured by the online backup, also while it is open
path = "book.db"

[[state]]
name = "ledger"
kind = "postgresql"
url_env = "LEDGER_URL"             # or url, url_file
database = "ledger_${arm}"         # default: the database of the URL
capture = "dump"                   # or "template": on the server, by CREATE DATABASE ... TEMPLATE
pg_dump = "/usr/lib/postgresql/16/bin/pg_dump"   # default: the one on the path
disposable = true                  # `carry` and `restore` may replace it

[[state]]
name = "cache"
kind = "redis"
url_env = "CACHE_URL"
keys = ["desk:*"]                  # default: all
disposable = true

[redact]                           # in addition to passwords, tokens and keys
fields = ["client_name"]
patterns = ["ACC-[0-9]{8}"]

Command, environment, files, paths and databases may contain ${port} and ${host} of the venue, ${day}, ${open} and
${close} (UTC), ${accelerate}, ${arm}, ${directory} (the working directory) and ${here} (the folder of this file).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from holdover.runtime import GuardConfigError
from holdover.runtime.files import read_toml
from holdover.runtime.redaction import RedactionRuleError, RedactionRules
from holdover.runtime.secrets import SecretError, read_secret

TEMPLATE_NAMES: Final = ("port", "host", "day", "open", "close", "accelerate", "arm", "directory", "here")
"""The names that a template can contain."""

_TEMPLATE_NAME: Final = re.compile(r"\$\{(\w+)\}")
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


class _ProcessRedactTable(msgspec.Struct, forbid_unknown_fields=True):
    fields: list[str] = []
    patterns: list[str] = []


class FileTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from"}):
    """A file that is written before each start."""

    path: str
    source: str


class StateTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One state store of the process."""

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
    """A process under test: command, venue and state stores. `config_directory` is the folder of the config file."""

    config_directory: Path
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

    def redaction_rules(self, fields: list[str]) -> RedactionRules:
        """Return the redaction rules of a snapshot: the usual secrets, those of this file, and these fields."""
        return RedactionRules.with_defaults([*self.redact_fields, *fields], self.redact_patterns)


def fill_template(text: str, values: Mapping[str, str]) -> str:
    """Replace the known names in a text by their values; unknown names stay."""
    return _TEMPLATE_NAME.sub(lambda match: values.get(match[1], match[0]), text)


def read_process_config(path: Path) -> ProcessConfig:
    """Read the config. Raises `GuardConfigError` that lists everything wrong with it."""
    tables = read_toml(path, GuardConfigError)
    config_directory = path.resolve().parent
    problems = [
        f"[{name}] is no table that is known here; there are {', '.join(_TABLES)}"
        for name in tables
        if name not in _TABLES
    ]
    process = _read_table(tables, "process", _ProcessTable, problems)
    venue = _read_table(tables, "venue", _VenueTable, problems)
    redact = _read_table({"redact": {}, **tables}, "redact", _ProcessRedactTable, problems)
    files = _read_rows(tables, "file", FileTable, problems)
    states = _read_rows(tables, "state", StateTable, problems)
    if process is not None:
        _check_process(process, problems)
    users = _check_venue(venue, problems) if venue is not None else {}
    problems += [
        f"[[file]] {file.path}: from: {config_directory / file.source} is not there"
        for file in files
        if not (config_directory / file.source).is_file()
    ]
    problems += [
        f"[[file]] {file.path}: path should be below the run's folder" for file in files if _is_outside(file.path)
    ]
    _check_states(states, config_directory, problems)
    if redact is not None:
        try:
            RedactionRules(redact.fields, redact.patterns)
        except RedactionRuleError as error:
            problems.append(f"[redact] {error}")
    if problems or process is None or venue is None or redact is None:
        raise GuardConfigError("\n".join(f"{path.name}: {problem}" for problem in problems))
    return ProcessConfig(
        config_directory=config_directory,
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
    if _is_outside(process.directory):
        problems.append("[process] directory should be below the run's folder")


def _check_venue(venue: _VenueTable, problems: list[str]) -> dict[str, tuple[str, str]]:
    if not venue.symbols or not venue.clients:
        problems.append("[venue] symbols and clients should each have at least one")
    if not 0 < venue.accelerate <= 100_000:
        problems.append("[venue] accelerate should be above 0 and at most 100000")
    if venue.heartbeat_s < 1 or venue.settle_s < 0:
        problems.append("[venue] heartbeat_s should be 1 or more, and settle_s not below 0")
    users: dict[str, tuple[str, str]] = {}
    for client, credentials in venue.users.items():
        user, _, variable = credentials.partition(":")
        if client not in venue.clients:
            problems.append(f"[venue.users] {client} is none of the clients: {', '.join(venue.clients)}")
        elif not user or variable not in os.environ:
            problems.append(
                f"[venue.users] {client}: {credentials!r} should be USER:VARIABLE, and the environment set it"
            )
        else:
            users[client] = (user, os.environ[variable])
    return users


def _check_states(states: list[StateTable], config_directory: Path, problems: list[str]) -> None:
    names = [state.name for state in states]
    problems += [
        f"[[state]] {name}: there are two of that name" for name in sorted(set(names)) if names.count(name) > 1
    ]
    if not states:
        problems.append("[[state]] is missing: a process without a state of its own carries nothing")
    for state in states:
        label = f"[[state]] {state.name}:"
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", state.name) or state.name in (".", ".."):
            problems.append(f"{label} the name should be of letters, digits and . _ -")
        if state.kind in ("directory", "sqlite"):
            if not state.path:
                problems.append(f"{label} a {state.kind} needs its path")
            elif not Path(state.path).is_absolute() and _is_outside(state.path):
                problems.append(f"{label} path should be absolute, or below where the process runs")
            continue
        if sum(map(bool, (state.url, state.url_env, state.url_file))) != 1:
            problems.append(f"{label} needs one of url, url_env, url_file")
            continue
        if "@" in state.url.partition("://")[2].partition("/")[0]:
            problems.append(f"{label} url carries a secret; it belongs into url_env or url_file")
        try:
            read_secret(state.url_env, state.url_file, config_directory)
        except SecretError as error:
            problems.append(f"{label} {error}")


def _is_outside(path: str) -> bool:
    """Return whether a path is absolute or leads out of its folder."""
    return Path(path).is_absolute() or ".." in Path(path).parts


def _read_table(tables: dict[str, Any], name: str, kind: type[Any], problems: list[str]) -> Any:
    if name not in tables:
        problems.append(f"[{name}] is missing")
        return None
    return _convert(tables[name], kind, f"[{name}]", problems)


def _read_rows(tables: dict[str, Any], name: str, kind: type[Any], problems: list[str]) -> list[Any]:
    rows = tables.get(name, [])
    if not isinstance(rows, list):
        problems.append(f"[{name}] should be [[{name}]], once for each")
        return []
    converted = (_convert(row, kind, f"[[{name}]] {number}", problems) for number, row in enumerate(rows, 1))
    return [entry for entry in converted if entry is not None]


def _convert(value: Any, kind: type[Any], label: str, problems: list[str]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problems.append(f"{label}: {error}")
        return None
