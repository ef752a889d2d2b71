"""The guard's configuration: one TOML file, checked whole before anything starts.

[guard]
directory = "guard"                # freezes, outbox, audit, memory; relative to the file
name = "desk"                      # by which others that share the store know it
obey_within_ms = 500               # no message leaves on freezes that were read longer ago; 0: read for each message
catalogue = ["our_invariants"]     # folders or packages beside the built-in catalogue
journal = true
journal_max_mb = 1024              # past it the journal is put aside and begun anew; 0: never
journal_keep = 7                   # of those put aside
journal_sync_ms = 100              # what a machine that loses its power may lose of it; 0: whatever the system holds
recorder_size = 256
axes = ["our_axes"]                # modules that register axes of state coverage beside the built-in ones
bundles = true                     # each breach leaves a bundle in bundles/ of the directory

[store]                            # without it a SQLite file in the directory
url_env = "HOLDOVER_STORE"         # postgresql://...; or url_file, readable by nobody else
schema = "holdover"
timeout_s = 2.0                    # no answer for longer: the store is lost, and nothing is let out

[redact]
fields = ["client_name"]           # taken out of bundles wherever they stand, beside passwords, tokens and keys
patterns = ["ACC-[0-9]{8}"]        # regular expressions; what they match is blanked out

[pages]
file = "pages.jsonl"
log = true
url_env = ["PAGING_URL"]           # Apprise URLs, read from the environment: they carry secrets
repeat_s = 1800                    # the last level again until somebody acknowledges; 0: once

[[pages.channel]]
name = "desk"
kind = "pagerduty"                 # or apprise, webhook
key_env = "PAGERDUTY_KEY"          # or key_file; for the others url, url_env, url_file

[[pages.level]]                    # without levels every channel at once
channels = ["desk"]

[[pages.level]]
after_s = 900                      # unless somebody has acknowledged
channels = ["desk", "log"]

[heartbeat]
every_s = 1.0
silent_after_s = 15.0
wedged_after_s = 30.0              # for one step
progress_within_s = 0              # between two steps or ticks; 0: for ever
url_env = "DEAD_MANS_SWITCH"       # called every ping_every_s while the process is not wedged

[metrics]
prometheus = "127.0.0.1:9464"      # where /metrics is served
beyond_loopback = false            # another address must be allowed in so many words
cost = true                        # measure the time spent inside the guard
otel = false                       # breach, freeze, thaw and page as OpenTelemetry events

[console]
host = "127.0.0.1"                 # anything but loopback needs TLS
port = 8321
names = ["console.example.com"]    # by which browsers call it, beside the host's own
idle_s = 1800                      # a session ends after this long without a click, and after day_s in any case
day_s = 43200
shadow = "shadow.toml"             # the shadow run whose cutover clock it shows

[[instrument]]
symbol = "IBM"
tick_size = "0.0001"

Any value can be set from the environment: HOLDOVER__GUARD__OBEY_WITHIN_MS=100. Secrets stand in the environment or in
files of their own, never here.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from holdover.model import Instrument
from holdover.runtime.channels import (
    PAGERDUTY,
    AppriseChannel,
    Channel,
    FileChannel,
    LogChannel,
    PagerDutyChannel,
    WebhookChannel,
)
from holdover.runtime.database import PostgresDatabase
from holdover.runtime.files import read_toml
from holdover.runtime.freezes import FreezeStore
from holdover.runtime.heartbeat import Limits
from holdover.runtime.journal import Journal
from holdover.runtime.metrics import MetricsConfig, MetricsProblem, parsed
from holdover.runtime.pager import Level
from holdover.runtime.redaction import BadRule, Rules
from holdover.runtime.secrets import BadSecret, from_environment, secret

T = TypeVar("T")
PREFIX: Final = "HOLDOVER__"


class BadConfig(ValueError):
    """A configuration that cannot be used; the message lists every problem."""


class _GuardTable(msgspec.Struct, forbid_unknown_fields=True):
    directory: str
    name: str = "guard"
    obey_within_ms: float = 500.0
    catalogue: list[str] = []
    journal: bool = True
    journal_max_mb: float = 1024.0
    journal_keep: int = 7
    journal_sync_ms: float = 100.0
    recorder_size: int = 256
    axes: list[str] = []
    bundles: bool = True


class StoreTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the freezes lie, when not in a file of the guard's directory."""

    url_env: str = ""
    url_file: str = ""
    schema: str = "holdover"
    timeout_s: float = 2.0


class _RedactTable(msgspec.Struct, forbid_unknown_fields=True):
    fields: list[str] = []
    patterns: list[str] = []


class ChannelTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A channel as it is configured."""

    name: str
    kind: Literal["pagerduty", "apprise", "webhook"]
    url: str = ""
    url_env: str = ""
    url_file: str = ""
    key_env: str = ""
    key_file: str = ""


class _PagesTable(msgspec.Struct, forbid_unknown_fields=True):
    file: str = "pages.jsonl"
    log: bool = True
    url_env: list[str] = []
    repeat_s: float = 0.0
    channel: list[ChannelTable] = []
    level: list[Level] = []


class ConsoleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the console listens, its names for browsers, how long a session lasts in s, which shadow it shows."""

    host: str = "127.0.0.1"
    port: int = 8321
    names: list[str] = []
    idle_s: float = 1800.0
    day_s: float = 43200.0
    shadow: str = ""


class GuardConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What `Guard.open` needs; paths are absolute. `here` is the folder that the file's own paths start from."""

    directory: Path
    here: Path = Path(".")
    name: str = "guard"
    obey_within_ms: float = 500.0
    catalogue: list[str] = []
    journal: bool = True
    journal_max_mb: float = 1024.0
    journal_keep: int = 7
    journal_sync_ms: float = 100.0
    recorder_size: int = 256
    axes: list[str] = []
    store: StoreTable = StoreTable()
    pages_file: str = "pages.jsonl"
    pages_log: bool = True
    url_env: list[str] = []
    channel_tables: list[ChannelTable] = []
    levels: list[Level] = []
    repeat_s: float = 0.0
    heartbeat: Limits = Limits()
    console: ConsoleTable = ConsoleTable()
    bundles: bool = True
    redact_fields: list[str] = []
    redact_patterns: list[str] = []
    instruments: list[Instrument] = []
    metrics: MetricsConfig | None = None

    def store_url(self) -> str:
        """Where the store lies when in no file of the directory. Raises `BadConfig` for its secret."""
        return _said("[store]", lambda: secret(self.store.url_env, self.store.url_file, self.here))

    def open_store(self) -> FreezeStore:
        """The store that it names. Raises `StoreProblem` when it cannot be used, `BadConfig` for its secret."""
        url = self.store_url()
        if not url:
            return FreezeStore(self.directory / "guard.db", self.name)
        return FreezeStore(PostgresDatabase(url, self.store.schema, self.store.timeout_s), self.name)

    def open_journal(self) -> Journal | None:
        """The journal in the directory, where there is to be one."""
        if not self.journal:
            return None
        return Journal(self.directory / "journal.jsonl", round(self.journal_max_mb * 1e6), self.journal_keep)

    def channels(self) -> list[Channel]:
        """The channels that it names. Raises `BadConfig` when a secret or an optional extra is missing."""
        found: list[Channel] = [FileChannel(self.directory / self.pages_file)]
        if self.pages_log:
            found.append(LogChannel())
        found += [self._by_url(name) for name in self.url_env]
        return found + [self._channel(table) for table in self.channel_tables]

    def _by_url(self, name: str) -> Channel:
        return _said("[pages] url_env", lambda: AppriseChannel(from_environment(name)))

    def _channel(self, table: ChannelTable) -> Channel:
        def make() -> Channel:
            if table.kind == "pagerduty":
                url = table.url or secret(table.url_env, table.url_file, self.here) or PAGERDUTY
                return PagerDutyChannel(secret(table.key_env, table.key_file, self.here), table.name, url)
            url = table.url or secret(table.url_env, table.url_file, self.here)
            return AppriseChannel(url, table.name) if table.kind == "apprise" else WebhookChannel(url, table.name)

        return _said(f"[[pages.channel]] {table.name}", make)

    def heartbeat_url(self) -> str:
        """The dead man's switch, empty for none. Raises `BadConfig` when its variable or file is missing."""
        return _said("[heartbeat]", lambda: secret(self.heartbeat.url_env, self.heartbeat.url_file, self.here))

    def problems(self) -> list[str]:
        """What of it will not work here: secrets that are missing or open to others, extras not installed."""
        found: list[str] = []
        tries: list[Callable[[], object]] = [
            self.store_url,
            self.heartbeat_url,
            *(partial(self._channel, table) for table in self.channel_tables),
            *(partial(self._by_url, name) for name in self.url_env),
        ]
        for one in tries:
            try:
                one()
            except BadConfig as problem:
                found.append(str(problem))
        return found


def _said(where: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except (BadSecret, ValueError) as problem:
        raise BadConfig(f"{where}: {problem}") from None


def read_config(path: Path) -> GuardConfig:
    """The configuration in a TOML file and the environment. Raises `BadConfig` with the file and all that is wrong."""
    told = read_toml(path, BadConfig)
    problems: list[str] = []
    _override(told, problems)
    problems += [
        f"[{name}] is no table that is known here; there are {', '.join(_TABLES)}"
        for name in told
        if name not in _TABLES and name not in _OTHERS
    ]
    guard = _table(told, "guard", _GuardTable, problems)
    pages = _table(told, "pages", _PagesTable, problems)
    redact = _table(told, "redact", _RedactTable, problems)
    store = _table(told, "store", StoreTable, problems)
    heartbeat = _table(told, "heartbeat", Limits, problems)
    console = _table(told, "console", ConsoleTable, problems)
    if console is not None and (not 0 < console.port < 65536 or min(console.idle_s, console.day_s) <= 0):
        problems.append("[console] port should be 1 to 65535, and idle_s and day_s above 0")
    if redact is not None:
        try:
            Rules(redact.fields, redact.patterns)
        except BadRule as problem:
            problems.append(f"[redact] {problem}")
    if pages is not None:
        _check_pages(pages, problems)
    if guard is not None and (guard.obey_within_ms < 0 or not guard.name.strip()):
        problems.append("[guard] obey_within_ms should not be below 0, and name not be empty")
    if guard is not None and guard.journal_sync_ms < 0:
        problems.append("[guard] journal_sync_ms should not be below 0")
    if store is not None and (store.timeout_s <= 0 or not store.schema.isidentifier()):
        problems.append("[store] timeout_s should be above 0, and schema a plain name of letters, digits, underscores")
    metrics = _table(told, "metrics", MetricsConfig, problems) if "metrics" in told else None
    if metrics is not None and metrics.prometheus:
        try:
            parsed(metrics.prometheus, beyond_loopback=metrics.beyond_loopback)
        except MetricsProblem as problem:
            problems.append(f"[metrics] {problem}")
    instruments = [
        found
        for number, one in enumerate(told.get("instrument", []), 1)
        if (found := _convert(one, Instrument, f"[[instrument]] {number}", problems)) is not None
    ]
    if (
        guard is None
        or pages is None
        or redact is None
        or store is None
        or heartbeat is None
        or console is None
        or problems
    ):
        raise BadConfig("\n".join(f"{path.name}: {problem}" for problem in problems))
    here = path.resolve().parent
    return GuardConfig(
        directory=here / guard.directory,
        here=here,
        name=guard.name,
        obey_within_ms=guard.obey_within_ms,
        catalogue=[str(here / source) if (here / source).is_dir() else source for source in guard.catalogue],
        journal=guard.journal,
        journal_max_mb=guard.journal_max_mb,
        journal_keep=guard.journal_keep,
        journal_sync_ms=guard.journal_sync_ms,
        recorder_size=guard.recorder_size,
        axes=guard.axes,
        store=store,
        pages_file=pages.file,
        pages_log=pages.log,
        url_env=pages.url_env,
        channel_tables=pages.channel,
        levels=pages.level,
        repeat_s=pages.repeat_s,
        heartbeat=heartbeat,
        console=console,
        bundles=guard.bundles,
        redact_fields=redact.fields,
        redact_patterns=redact.patterns,
        instruments=instruments,
        metrics=metrics,
    )


_TABLES: Final = ("guard", "store", "redact", "pages", "heartbeat", "metrics", "console", "instrument")
_OTHERS: Final = ("desk", "fix", "strategy")
"""Tables of `holdover desk run`, which may stand in the same file."""


def _check_pages(pages: _PagesTable, problems: list[str]) -> None:
    built_in = [f"file:{Path(pages.file).name}", *(["log"] if pages.log else [])]
    names = [*built_in, *(one.name for one in pages.channel)]
    problems += [
        f"[[pages.channel]] {name}: there are two of that name" for name in sorted(set(names)) if names.count(name) > 1
    ]
    for one in pages.channel:
        where = f"[[pages.channel]] {one.name}:"
        if one.kind == "pagerduty" and not (one.key_env or one.key_file):
            problems.append(f"{where} needs the integration key, by key_env or key_file")
        if one.kind != "pagerduty" and not (one.url or one.url_env or one.url_file):
            problems.append(f"{where} needs url, url_env or url_file")
        if "@" in one.url.partition("://")[2].partition("/")[0]:
            problems.append(f"{where} url carries a secret; it belongs into url_env or url_file")
    for number, level in enumerate(pages.level, 1):
        unknown = [name for name in level.channels if name not in names and not name.startswith("apprise:")]
        if unknown or not level.channels:
            said = f"has no channel called {', '.join(unknown)}" if unknown else "needs at least one channel"
            problems.append(f"[[pages.level]] {number}: {said}; there are {', '.join(names)}")
    waits = [level.after_s for level in pages.level]
    if waits != sorted(waits) or (waits and waits[0] != 0):
        problems.append("[[pages.level]]: after_s should begin with 0 and grow from level to level")


def _override(told: dict[str, Any], problems: list[str]) -> None:
    """Put what the environment says in the place of what the file says: HOLDOVER__TABLE__KEY."""
    for variable in sorted(os.environ):
        if not variable.startswith(PREFIX):
            continue
        table, _, key = variable[len(PREFIX) :].lower().partition("__")
        if not key or "__" in key or table == "instrument":
            problems.append(f"the environment's {variable} should read {PREFIX}TABLE__KEY")
            continue
        said = os.environ[variable]
        try:
            value = tomllib.loads(f"value = {said}")["value"]
        except tomllib.TOMLDecodeError:
            value = said
        inside = told.setdefault(table, {})
        if isinstance(inside, dict):
            inside[key] = value


def _table(told: dict[str, Any], name: str, kind: type[Any], problems: list[str]) -> Any:
    if name == "guard" and name not in told:
        problems.append("[guard] is missing; it must at least say its directory")
        return None
    return _convert(told.get(name, {}), kind, f"[{name}]", problems)


def _convert(value: Any, kind: type[Any], where: str, problems: list[str]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as problem:
        problems.append(f"{where}: {problem}")
        return None
