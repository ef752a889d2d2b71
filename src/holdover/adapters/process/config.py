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
from typing import Annotated, Any, Final, Literal

import msgspec

from holdover.model.spelling import suggest_spelling
from holdover.runtime import GuardConfigError
from holdover.runtime.config import RedactTable, check_redaction
from holdover.runtime.config_file import ConfigFile, NonNegativeFloat, PositiveFloat, PositiveInt, read_config_file
from holdover.runtime.redaction import RedactionRules, load_user_salt
from holdover.runtime.secrets import SecretError, read_secret

TEMPLATE_NAMES: Final = ("port", "host", "day", "open", "close", "accelerate", "arm", "directory", "here")
"""The names that a template can contain."""

_TEMPLATE_NAME: Final = re.compile(r"\$\{(\w+)\}")


class ProcessTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [process]: the command, its working directory and how long it may take to start and stop."""

    command: Annotated[list[str], msgspec.Meta(min_length=1)]
    directory: str = "."
    environment: dict[str, str] = {}
    ready_s: PositiveFloat = 20.0
    stop_s: PositiveFloat = 10.0
    guard: str = ""


class VenueTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [venue]: the simulated venue that the process trades at."""

    symbols: Annotated[list[str], msgspec.Meta(min_length=1)]
    clients: Annotated[list[str], msgspec.Meta(min_length=1)]
    name: str = "VENUE"
    accelerate: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 1.0
    heartbeat_s: PositiveInt = 30
    numbers: Literal["carried", "reset"] = "carried"
    settle_s: NonNegativeFloat = 2.0
    users: dict[str, str] = {}


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


class ProcessTables(msgspec.Struct, frozen=True, kw_only=True):
    """The tables of the configuration file of a process."""

    process: ProcessTable
    venue: VenueTable
    file: list[FileTable] = []
    state: list[StateTable]
    redact: RedactTable = RedactTable()


class ProcessConfig(ProcessTables, frozen=True, kw_only=True):
    """A process under test: command, venue and state stores. `config_directory` is the folder of the config file."""

    config_directory: Path
    users: dict[str, tuple[str, str]]

    def redaction_rules(self, fields: list[str]) -> RedactionRules:
        """Return the redaction rules of a snapshot: the usual secrets, those of this file, and these fields."""
        return RedactionRules.with_defaults([*self.redact.fields, *fields], self.redact.patterns, load_user_salt())


def fill_template(text: str, values: Mapping[str, str]) -> str:
    """Replace the known names in a text by their values; unknown names stay."""
    return _TEMPLATE_NAME.sub(lambda match: values.get(match[1], match[0]), text)


def read_process_config(path: Path) -> ProcessConfig:
    """Read the configuration. Raises `GuardConfigError` that lists everything wrong with it."""
    users: dict[str, tuple[str, str]] = {}
    config_directory = path.resolve().parent

    def check(file: ConfigFile) -> None:
        _check_process(file)
        _check_users(users, file)
        _check_files(config_directory, file)
        _check_states(config_directory, file)
        redact = file.table("redact", RedactTable)
        if redact is not None:
            check_redaction(redact, file)

    tables = read_config_file(path, ProcessTables, GuardConfigError, check)
    return ProcessConfig(config_directory=config_directory, users=users, **msgspec.structs.asdict(tables))


def _check_process(file: ConfigFile) -> None:
    command, directory = file.value("process", "command", list), file.value("process", "directory", str)
    if command is not None and command[:1] == [""]:
        file.add("process.command", "[process] command should have at least the program")
    if directory is not None and _is_outside(directory):
        file.add("process.directory", "[process] directory should be below the run's folder")


def _check_users(users: dict[str, tuple[str, str]], file: ConfigFile) -> None:
    """Fill in user and password of each client of the table [venue.users]."""
    clients: list[Any] = file.value("venue", "clients", list) or []
    table: dict[str, Any] = file.value("venue", "users", dict) or {}
    for client, credentials in table.items():
        user, _, variable = str(credentials).partition(":")
        place = f"venue.users.{client}"
        if client not in clients:
            hint = suggest_spelling(client, clients)
            file.add(place, f"[venue.users] {client} is none of the clients: {', '.join(map(str, clients))}{hint}")
        elif not user or variable not in os.environ:
            file.add(
                place, f"[venue.users] {client}: {credentials!r} should be USER:VARIABLE, and the environment set it"
            )
        else:
            users[client] = (user, os.environ[variable])


def _check_files(config_directory: Path, file: ConfigFile) -> None:
    for place, entry in file.rows("file", FileTable):
        if not (config_directory / entry.source).is_file():
            file.add(f"{place}.from", f"[[file]] {entry.path}: from: {config_directory / entry.source} is not there")
        if _is_outside(entry.path):
            file.add(f"{place}.path", f"[[file]] {entry.path}: path should be below the run's folder")


def _check_states(config_directory: Path, file: ConfigFile) -> None:
    rows = file.rows("state", StateTable)
    file.add_duplicates([(f"{place}.name", state.name) for place, state in rows], "[[state]]")
    for place, state in rows:
        label = f"[[state]] {state.name}:"
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", state.name) or state.name in (".", ".."):
            file.add(f"{place}.name", f"{label} the name should be of letters, digits and . _ -")
        if state.kind in ("directory", "sqlite"):
            if not state.path:
                file.add(place, f"{label} a {state.kind} needs its path")
            elif not Path(state.path).is_absolute() and _is_outside(state.path):
                file.add(f"{place}.path", f"{label} path should be absolute, or below where the process runs")
            continue
        if sum(map(bool, (state.url, state.url_env, state.url_file))) != 1:
            file.add(place, f"{label} needs one of url, url_env, url_file")
            continue
        if "@" in state.url.partition("://")[2].partition("/")[0]:
            file.add(f"{place}.url", f"{label} url carries a secret; it belongs into url_env or url_file")
        try:
            read_secret(state.url_env, state.url_file, config_directory)
        except SecretError as error:
            file.add(f"{place}.url_env" if state.url_env else f"{place}.url_file", f"{label} {error}")


def _is_outside(path: str) -> bool:
    """Return whether a path is absolute or leads out of its folder."""
    return Path(path).is_absolute() or ".." in Path(path).parts
