"""The guard's configuration: one TOML file, checked completely before anything starts.

[guard]
directory = "guard"                # freezes, outbox, audit, memory; relative to the file
name = "desk"                      # identifies this guard to others that share the store
subsystems = ["orders", "positions"]  # those that must exist; without it, those that were ever recorded
obey_within_ms = 500               # maximum age of the freezes that a message is checked against; 0: read for each
catalogue = ["our_invariants"]     # folders or packages in addition to the built-in catalogue
journal = true
journal_max_mb = 1024              # size at which the journal rotates; 0: never
journal_keep = 7                   # number of rotated files to keep
journal_sync_ms = 100              # maximum loss on a power failure; 0: no explicit sync
recorder_size = 256
axes = ["our_axes"]                # modules that register additional axes of state coverage
bundles = true                     # write a bundle for each breach into bundles/ of the directory
mode = "enforce"                   # or observe: record breaches, freeze nothing

[[policy]]                         # an entry that is not simply enforced; see docs/observe.md
invariant = "reconciled-within"
mode = "observe"                   # or enforce, with other thresholds; or off
reason = "the drop copy is late"   # needed for observe and off
expires = "2027-01-31"             # the last day in UTC, needed for observe and off
within = "90s"                     # instead of the entry's time; limit and tolerance.USD likewise

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

import contextlib
import os
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from holdover.catalogue import Catalogue, Policy
from holdover.catalogue.policy import GuardMode, find_policy_problems
from holdover.model import SUBSYSTEMS, Instrument
from holdover.model.spelling import suggest_spelling
from holdover.runtime.channels import (
    PAGERDUTY_URL,
    AppriseChannel,
    Channel,
    FileChannel,
    LogChannel,
    PagerDutyChannel,
    WebhookChannel,
)
from holdover.runtime.config_file import (
    ConfigFile,
    NonNegativeFloat,
    NonNegativeInt,
    PlainName,
    Port,
    PositiveFloat,
    read_config_file,
)
from holdover.runtime.database import PostgresDatabase
from holdover.runtime.freeze_store import FreezeStore
from holdover.runtime.heartbeat import HeartbeatLimits
from holdover.runtime.journal import JOURNAL_FILE, Journal
from holdover.runtime.metrics import MetricsConfig, MetricsError, parse_address
from holdover.runtime.pager import EscalationLevel
from holdover.runtime.redaction import RedactionRuleError, RedactionRules, load_salt
from holdover.runtime.secrets import SecretError, read_secret, secret_from_environment

T = TypeVar("T")


class GuardConfigError(ValueError):
    """The configuration cannot be used; the message lists every problem."""


class GuardTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [guard]: name, directory, catalogue, journal and flight recorder of a guard."""

    directory: str
    name: Annotated[str, msgspec.Meta(min_length=1)] = "guard"
    subsystems: list[str] = []
    obey_within_ms: NonNegativeFloat = 500.0
    catalogue: list[str] = []
    journal: bool = True
    journal_max_mb: NonNegativeFloat = 1024.0
    journal_keep: NonNegativeInt = 7
    journal_sync_ms: NonNegativeFloat = 100.0
    recorder_size: NonNegativeInt = 256
    axes: list[str] = []
    bundles: bool = True
    mode: GuardMode = "enforce"


class StoreTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [store]: where the freezes are stored when not in a file of the guard's directory."""

    url_env: str = ""
    url_file: str = ""
    schema: PlainName = "holdover"
    timeout_s: PositiveFloat = 2.0


class RedactTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [redact]: what is removed from all that leaves the process, in addition to the usual secrets."""

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


class PagesTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [pages]: the channels of alerts, and the levels of their escalation."""

    file: str = "pages.jsonl"
    log: bool = True
    url_env: list[str] = []
    repeat_s: NonNegativeFloat = 0.0
    channel: list[ChannelTable] = []
    level: list[EscalationLevel] = []


class ConsoleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [console]: address, host names for browsers, session lengths in seconds, the shadow run to show."""

    host: str = "127.0.0.1"
    port: Port = 8321
    names: list[str] = []
    idle_s: PositiveFloat = 1800.0
    day_s: PositiveFloat = 43200.0
    shadow: str = ""


class GuardTables(msgspec.Struct, frozen=True, kw_only=True):
    """The tables of a guard's configuration file."""

    guard: GuardTable
    store: StoreTable = StoreTable()
    redact: RedactTable = RedactTable()
    pages: PagesTable = PagesTable()
    heartbeat: HeartbeatLimits = HeartbeatLimits()
    metrics: MetricsConfig | None = None
    console: ConsoleTable = ConsoleTable()
    policy: list[Policy] = []
    instrument: list[Instrument] = []


class GuardConfig(GuardTables, frozen=True, kw_only=True):
    """The configuration for `Guard.open`. `base_directory` resolves the relative paths of `file`."""

    base_directory: Path
    file: Path | None = None

    @classmethod
    def for_directory(cls, directory: Path, **tables: Any) -> GuardConfig:
        """Return the default configuration of a guard in a directory; `tables` replaces whole tables."""
        return cls(base_directory=directory, guard=GuardTable(directory="."), **tables)

    @property
    def location(self) -> Path:
        """What names the guard on a command line: its configuration file, or its directory without one."""
        return self.file if self.file is not None else self.directory.absolute()

    @property
    def directory(self) -> Path:
        """The directory of the guard."""
        return self.base_directory / self.guard.directory

    @property
    def name(self) -> str:
        """The name of the guard, unique among those that share a store."""
        return self.guard.name

    @property
    def instruments(self) -> list[Instrument]:
        """The instruments that the configuration names."""
        return self.instrument

    @property
    def catalogue(self) -> list[str]:
        """The sources of further invariants: directories with absolute paths, or packages."""
        paths = [(source, self.base_directory / source) for source in self.guard.catalogue]
        return [str(path) if path.is_dir() else source for source, path in paths]

    def load_catalogue(self, today: date | None = None) -> Catalogue:
        """Load the catalogue under the policy of this configuration.

        Args:
            today: the day for which the policy must be valid; None does not check expiry.

        Raises:
            CatalogueError: with every problem of the catalogue or of the policy, one per line.
        """
        return Catalogue.load(*self.catalogue).with_policy(self.policy, self.guard.mode, today=today)

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

    def redaction_rules(self) -> RedactionRules:
        """Return the rules for everything that leaves a process of this guard, with the salt of its directory."""
        return RedactionRules.with_defaults(self.redact.fields, self.redact.patterns, load_salt(self.directory))

    def open_journal(self, path: Path | None = None) -> Journal | None:
        """Open the journal at a path, or in the directory; None when the configuration disables it."""
        if not self.guard.journal:
            return None
        size_max = round(self.guard.journal_max_mb * 1e6)
        return Journal(path or self.directory / JOURNAL_FILE, size_max, self.guard.journal_keep)

    def make_channels(self) -> list[Channel]:
        """Make the configured channels. Raises `GuardConfigError` when a secret or an optional extra is missing."""
        channels: list[Channel] = [FileChannel(self.directory / self.pages.file)]
        if self.pages.log:
            channels.append(LogChannel())
        channels += [self._make_apprise_channel(name) for name in self.pages.url_env]
        return channels + [self._make_channel(table) for table in self.pages.channel]

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
            *(partial(self._make_channel, table) for table in self.pages.channel),
            *(partial(self._make_apprise_channel, name) for name in self.pages.url_env),
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


_DESK_TABLES: Final = ("desk", "fix", "strategy")
"""Tables of `holdover desk run`, which may be in the same file."""


def read_config(path: Path, today: date | None = None) -> GuardConfig:
    """Read the configuration from a TOML file and the environment.

    Args:
        path: the file.
        today: the day for which the policies must be valid; with it they are also checked against the catalogue.

    Raises:
        GuardConfigError: with the file and every problem in it.
    """
    tables = read_config_file(
        path,
        GuardTables,
        GuardConfigError,
        partial(_check, today=today),
        other_tables=_DESK_TABLES,
        environment=os.environ,
    )
    return GuardConfig(base_directory=path.resolve().parent, file=path.resolve(), **msgspec.structs.asdict(tables))


def _check(file: ConfigFile, today: date | None) -> None:
    redact, pages = file.table("redact", RedactTable), file.table("pages", PagesTable)
    guard, metrics = file.table("guard", GuardTable), file.table("metrics", MetricsConfig)
    if guard is not None and not guard.name.strip():
        file.add("guard.name", "[guard] name should not be empty")
    for name in guard.subsystems if guard is not None else ():
        subsystem = name.partition(".")[0]
        if subsystem not in SUBSYSTEMS:
            hint = suggest_spelling(subsystem, SUBSYSTEMS)
            file.add(
                "guard.subsystems",
                f"[guard] subsystems: {name!r}, should be one of {', '.join(SUBSYSTEMS)}, or subsystem.Kind{hint}",
            )
    if redact is not None:
        check_redaction(redact, file)
    if pages is not None:
        _check_channels(pages, file)
        _check_levels(pages, file)
    if metrics is not None and metrics.prometheus:
        try:
            parse_address(metrics.prometheus, beyond_loopback=metrics.beyond_loopback)
        except MetricsError as problem:
            file.add("metrics.prometheus", f"[metrics] {problem}")
    _check_policies(file, today)


def _check_policies(file: ConfigFile, today: date | None) -> None:
    rows = file.rows("policy", Policy)
    catalogue = None
    if rows and today is not None:
        sources = [str(source) for source in file.value("guard", "catalogue", list) or []]
        table = GuardTable(directory=".", catalogue=sources)
        config = GuardConfig(base_directory=file.path.resolve().parent, guard=table)
        with contextlib.suppress(ValueError, LookupError, ImportError):  # reported as a problem of the catalogue
            catalogue = Catalogue.load(*config.catalogue)
    for index, key, problem in find_policy_problems([policy for _, policy in rows], catalogue, today):
        place, policy = rows[index]
        number = int(place.removeprefix("policy[").removesuffix("]")) + 1
        file.add(f"{place}.{key}", f"[[policy]] {number} ({policy.invariant}): {problem}")


def check_redaction(redact: RedactTable, file: ConfigFile) -> None:
    """Add a problem when a pattern of the table [redact] cannot be used."""
    try:
        RedactionRules(redact.fields, redact.patterns)
    except RedactionRuleError as problem:
        file.add("redact.patterns", f"[redact] {problem}")


def _channel_names(pages: PagesTable) -> list[str]:
    built_in = [f"file:{Path(pages.file).name}", *(["log"] if pages.log else [])]
    return [*built_in, *(channel.name for channel in pages.channel)]


def _check_channels(pages: PagesTable, file: ConfigFile) -> None:
    names = _channel_names(pages)
    rows = [(f"pages.channel[{index}].name", channel.name) for index, channel in enumerate(pages.channel)]
    file.add_duplicates([("", name) for name in names[: len(names) - len(rows)]] + rows, "[[pages.channel]]")
    for index, channel in enumerate(pages.channel):
        place, context = f"pages.channel[{index}]", f"[[pages.channel]] {channel.name}:"
        if channel.kind == "pagerduty" and not (channel.key_env or channel.key_file):
            file.add(place, f"{context} needs the integration key, by key_env or key_file")
        if channel.kind != "pagerduty" and not (channel.url or channel.url_env or channel.url_file):
            file.add(place, f"{context} needs url, url_env or url_file")
        if "@" in channel.url.partition("://")[2].partition("/")[0]:
            file.add(f"{place}.url", f"{context} url carries a secret; it belongs into url_env or url_file")


def _check_levels(pages: PagesTable, file: ConfigFile) -> None:
    names = _channel_names(pages)
    for index, level in enumerate(pages.level):
        place, context = f"pages.level[{index}].channels", f"[[pages.level]] {index + 1}:"
        if not level.channels:
            file.add(place, f"{context} needs at least one channel; there are {', '.join(names)}")
        for name in level.channels:
            if name not in names and not name.startswith("apprise:"):
                hint = suggest_spelling(name, names) or f"; there are {', '.join(names)}"
                file.add(place, f"{context} has no channel called {name}{hint}")
    waits = [level.after_s for level in pages.level]
    if waits != sorted(waits) or (waits and waits[0] != 0):
        file.add("pages.level[0]", "[[pages.level]]: after_s should begin with 0 and grow from level to level")
