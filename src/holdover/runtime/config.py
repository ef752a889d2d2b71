"""The guard's configuration: one TOML file, checked completely before anything starts.

[guard]
directory = "guard"                # freezes, outbox, audit, memory; relative to the file
name = "desk"                      # identifies this guard to others that share the store
obey_within_ms = 500               # maximum age of the freezes that a message is checked against; 0: read for each
catalogue = ["our_invariants"]     # folders or packages in addition to the built-in catalogue
journal = true
journal_max_mb = 1024              # size at which the journal rotates; 0: never
journal_keep = 7                   # number of rotated files to keep
journal_sync_ms = 100              # maximum loss on a power failure; 0: no explicit sync
recorder_size = 256
axes = ["our_axes"]                # modules that register additional axes of state coverage
bundles = true                     # write a bundle for each breach into bundles/ of the directory

[store]                            # without this table: a SQLite file in the directory
url_env = "HOLDOVER_STORE"         # postgresql://...; or url_file, readable only by its owner
schema = "holdover"
timeout_s = 2.0                    # without an answer for longer the store is lost and no message may leave

[redact]
fields = ["client_name"]           # removed from bundles, in addition to passwords, tokens and keys
patterns = ["ACC-[0-9]{8}"]        # regular expressions; every match is blanked

[pages]
file = "pages.jsonl"
log = true
url_env = ["PAGING_URL"]           # environment variables with Apprise URLs, which carry secrets
repeat_s = 1800                    # repeat the last level until somebody acknowledges; 0: once

[[pages.channel]]
name = "desk"
kind = "pagerduty"                 # or apprise, webhook
key_env = "PAGERDUTY_KEY"          # or key_file; for the others url, url_env, url_file

[[pages.level]]                    # without levels: all channels at once
channels = ["desk"]

[[pages.level]]
after_s = 900                      # unless somebody has acknowledged
channels = ["desk", "log"]

[heartbeat]
every_s = 1.0
silent_after_s = 15.0
wedged_after_s = 30.0              # for one step
progress_within_s = 0              # between two steps or ticks; 0: no limit
url_env = "DEAD_MANS_SWITCH"       # called every ping_every_s while the process makes progress

[metrics]
prometheus = "127.0.0.1:9464"      # address of /metrics
beyond_loopback = false            # true allows an address beyond loopback
cost = true                        # measure the time spent inside the guard
otel = false                       # breach, freeze, thaw and page as OpenTelemetry events

[console]
host = "127.0.0.1"                 # any address beyond loopback needs TLS
port = 8321
names = ["console.example.com"]    # host names that browsers use, in addition to the host's own
idle_s = 1800                      # a session ends after this long without a request, and after day_s in any case
day_s = 43200
shadow = "shadow.toml"             # the shadow run whose cutover clock the console shows

[[instrument]]
symbol = "IBM"
tick_size = "0.0001"

An environment variable overrides any value: HOLDOVER__GUARD__OBEY_WITHIN_MS=100. Keep secrets in the environment or
in separate files, never in this file.
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
    PAGERDUTY_URL,
    AppriseChannel,
    Channel,
    FileChannel,
    LogChannel,
    PagerDutyChannel,
    WebhookChannel,
)
from holdover.runtime.database import PostgresDatabase
from holdover.runtime.files import read_toml
from holdover.runtime.freeze_store import FreezeStore
from holdover.runtime.heartbeat import HeartbeatLimits
from holdover.runtime.journal import Journal
from holdover.runtime.metrics import MetricsConfig, MetricsError, parse_address
from holdover.runtime.pager import EscalationLevel
from holdover.runtime.redaction import RedactionRuleError, RedactionRules
from holdover.runtime.secrets import SecretError, read_secret, secret_from_environment

T = TypeVar("T")
PREFIX: Final = "HOLDOVER__"


class GuardConfigError(ValueError):
    """The configuration cannot be used; the message lists every problem."""


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
    """The table [store]: where the freezes are stored when not in a file of the guard's directory."""

    url_env: str = ""
    url_file: str = ""
    schema: str = "holdover"
    timeout_s: float = 2.0


class _GuardRedactTable(msgspec.Struct, forbid_unknown_fields=True):
    fields: list[str] = []
    patterns: list[str] = []


class ChannelTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The configuration of one channel."""

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
    level: list[EscalationLevel] = []


class ConsoleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [console]: address, host names for browsers, session lengths in seconds, the shadow run to show."""

    host: str = "127.0.0.1"
    port: int = 8321
    names: list[str] = []
    idle_s: float = 1800.0
    day_s: float = 43200.0
    shadow: str = ""


class GuardConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration for `Guard.open`, with absolute paths. `base_directory` resolves the file's relative paths."""

    directory: Path
    base_directory: Path = Path(".")
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
    levels: list[EscalationLevel] = []
    repeat_s: float = 0.0
    heartbeat: HeartbeatLimits = HeartbeatLimits()
    console: ConsoleTable = ConsoleTable()
    bundles: bool = True
    redact_fields: list[str] = []
    redact_patterns: list[str] = []
    instruments: list[Instrument] = []
    metrics: MetricsConfig | None = None

    def store_url(self) -> str:
        """Return the URL of the store, empty for a file in the directory. Raises `GuardConfigError` for its secret."""
        return _call_with_context(
            "[store]", lambda: read_secret(self.store.url_env, self.store.url_file, self.base_directory)
        )

    def open_store(self) -> FreezeStore:
        """Open the store. Raises `StoreError` when it cannot be used, `GuardConfigError` for its secret."""
        url = self.store_url()
        if not url:
            return FreezeStore(self.directory / "guard.db", self.name)
        return FreezeStore(PostgresDatabase(url, self.store.schema, self.store.timeout_s), self.name)

    def open_journal(self) -> Journal | None:
        """Open the journal in the directory; None when the configuration disables it."""
        if not self.journal:
            return None
        return Journal(self.directory / "journal.jsonl", round(self.journal_max_mb * 1e6), self.journal_keep)

    def make_channels(self) -> list[Channel]:
        """Make the configured channels. Raises `GuardConfigError` when a secret or an optional extra is missing."""
        channels: list[Channel] = [FileChannel(self.directory / self.pages_file)]
        if self.pages_log:
            channels.append(LogChannel())
        channels += [self._make_apprise_channel(name) for name in self.url_env]
        return channels + [self._make_channel(table) for table in self.channel_tables]

    def _make_apprise_channel(self, name: str) -> Channel:
        return _call_with_context("[pages] url_env", lambda: AppriseChannel(secret_from_environment(name)))

    def _make_channel(self, table: ChannelTable) -> Channel:
        def make() -> Channel:
            if table.kind == "pagerduty":
                url = table.url or read_secret(table.url_env, table.url_file, self.base_directory) or PAGERDUTY_URL
                return PagerDutyChannel(
                    read_secret(table.key_env, table.key_file, self.base_directory), table.name, url
                )
            url = table.url or read_secret(table.url_env, table.url_file, self.base_directory)
            return AppriseChannel(url, table.name) if table.kind == "apprise" else WebhookChannel(url, table.name)

        return _call_with_context(f"[[pages.channel]] {table.name}", make)

    def heartbeat_url(self) -> str:
        """Return the URL of the dead man's switch, empty for none.

        Raises `GuardConfigError` when its variable or file is missing.
        """
        return _call_with_context(
            "[heartbeat]", lambda: read_secret(self.heartbeat.url_env, self.heartbeat.url_file, self.base_directory)
        )

    def find_problems(self) -> list[str]:
        """Return what will not work on this machine: missing or readable secrets, extras that are not installed."""
        problems: list[str] = []
        checks: list[Callable[[], object]] = [
            self.store_url,
            self.heartbeat_url,
            *(partial(self._make_channel, table) for table in self.channel_tables),
            *(partial(self._make_apprise_channel, name) for name in self.url_env),
        ]
        for check in checks:
            try:
                check()
            except GuardConfigError as problem:
                problems.append(str(problem))
        return problems


def _call_with_context(context: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except (SecretError, ValueError) as problem:
        raise GuardConfigError(f"{context}: {problem}") from None


def read_config(path: Path) -> GuardConfig:
    """Read the configuration from a TOML file and the environment.

    Raises `GuardConfigError` with the file and every problem in it.
    """
    tables = read_toml(path, GuardConfigError)
    problems: list[str] = []
    _apply_environment(tables, problems)
    problems += [
        f"[{name}] is no table that is known here; there are {', '.join(_TABLES)}"
        for name in tables
        if name not in _TABLES and name not in _DESK_TABLES
    ]
    guard = _convert_table(tables, "guard", _GuardTable, problems)
    pages = _convert_table(tables, "pages", _PagesTable, problems)
    redact = _convert_table(tables, "redact", _GuardRedactTable, problems)
    store = _convert_table(tables, "store", StoreTable, problems)
    heartbeat = _convert_table(tables, "heartbeat", HeartbeatLimits, problems)
    console = _convert_table(tables, "console", ConsoleTable, problems)
    if console is not None and (not 0 < console.port < 65536 or min(console.idle_s, console.day_s) <= 0):
        problems.append("[console] port should be 1 to 65535, and idle_s and day_s above 0")
    if redact is not None:
        try:
            RedactionRules(redact.fields, redact.patterns)
        except RedactionRuleError as problem:
            problems.append(f"[redact] {problem}")
    if pages is not None:
        _check_pages(pages, problems)
    if guard is not None and (guard.obey_within_ms < 0 or not guard.name.strip()):
        problems.append("[guard] obey_within_ms should not be below 0, and name not be empty")
    if guard is not None and guard.journal_sync_ms < 0:
        problems.append("[guard] journal_sync_ms should not be below 0")
    if store is not None and (store.timeout_s <= 0 or not store.schema.isidentifier()):
        problems.append("[store] timeout_s should be above 0, and schema a plain name of letters, digits, underscores")
    metrics = _convert_table(tables, "metrics", MetricsConfig, problems) if "metrics" in tables else None
    if metrics is not None and metrics.prometheus:
        try:
            parse_address(metrics.prometheus, beyond_loopback=metrics.beyond_loopback)
        except MetricsError as problem:
            problems.append(f"[metrics] {problem}")
    instruments = [
        instrument
        for number, table in enumerate(tables.get("instrument", []), 1)
        if (instrument := _convert(table, Instrument, f"[[instrument]] {number}", problems)) is not None
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
        raise GuardConfigError("\n".join(f"{path.name}: {problem}" for problem in problems))
    base_directory = path.resolve().parent
    return GuardConfig(
        directory=base_directory / guard.directory,
        base_directory=base_directory,
        name=guard.name,
        obey_within_ms=guard.obey_within_ms,
        catalogue=[
            str(base_directory / source) if (base_directory / source).is_dir() else source for source in guard.catalogue
        ],
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
_DESK_TABLES: Final = ("desk", "fix", "strategy")
"""Tables of `holdover desk run`, which may be in the same file."""


def _check_pages(pages: _PagesTable, problems: list[str]) -> None:
    built_in = [f"file:{Path(pages.file).name}", *(["log"] if pages.log else [])]
    names = [*built_in, *(channel.name for channel in pages.channel)]
    problems += [
        f"[[pages.channel]] {name}: there are two of that name" for name in sorted(set(names)) if names.count(name) > 1
    ]
    for channel in pages.channel:
        context = f"[[pages.channel]] {channel.name}:"
        if channel.kind == "pagerduty" and not (channel.key_env or channel.key_file):
            problems.append(f"{context} needs the integration key, by key_env or key_file")
        if channel.kind != "pagerduty" and not (channel.url or channel.url_env or channel.url_file):
            problems.append(f"{context} needs url, url_env or url_file")
        if "@" in channel.url.partition("://")[2].partition("/")[0]:
            problems.append(f"{context} url carries a secret; it belongs into url_env or url_file")
    for number, level in enumerate(pages.level, 1):
        unknown = [name for name in level.channels if name not in names and not name.startswith("apprise:")]
        if unknown or not level.channels:
            problem = f"has no channel called {', '.join(unknown)}" if unknown else "needs at least one channel"
            problems.append(f"[[pages.level]] {number}: {problem}; there are {', '.join(names)}")
    waits = [level.after_s for level in pages.level]
    if waits != sorted(waits) or (waits and waits[0] != 0):
        problems.append("[[pages.level]]: after_s should begin with 0 and grow from level to level")


def _apply_environment(tables: dict[str, Any], problems: list[str]) -> None:
    """Override values of the file with HOLDOVER__TABLE__KEY from the environment."""
    for variable in sorted(os.environ):
        if not variable.startswith(PREFIX):
            continue
        table, _, key = variable[len(PREFIX) :].lower().partition("__")
        if not key or "__" in key or table == "instrument":
            problems.append(f"the environment's {variable} should read {PREFIX}TABLE__KEY")
            continue
        text = os.environ[variable]
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        table_values = tables.setdefault(table, {})
        if isinstance(table_values, dict):
            table_values[key] = value


def _convert_table(tables: dict[str, Any], name: str, kind: type[Any], problems: list[str]) -> Any:
    if name == "guard" and name not in tables:
        problems.append("[guard] is missing; it must at least say its directory")
        return None
    return _convert(tables.get(name, {}), kind, f"[{name}]", problems)


def _convert(value: Any, kind: type[Any], context: str, problems: list[str]) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as problem:
        problems.append(f"{context}: {problem}")
        return None
