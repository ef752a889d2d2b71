"""The guard's configuration: one TOML file, checked whole before anything starts.

[guard]
directory = "guard"                # freezes, outbox, audit, memory; relative to the file
catalogue = ["our_invariants"]     # folders or packages beside the built-in catalogue
journal = true
recorder_size = 256
axes = ["our_axes"]                # modules that register axes of state coverage beside the built-in ones
bundles = true                     # each breach leaves a bundle in bundles/ of the directory

[redact]
fields = ["client_name"]           # taken out of bundles wherever they stand, beside passwords, tokens and keys
patterns = ["ACC-[0-9]{8}"]        # regular expressions; what they match is blanked out

[pages]
file = "pages.jsonl"
log = true
url_env = ["PAGING_URL"]           # Apprise URLs, read from the environment: they carry secrets

[metrics]
prometheus = "127.0.0.1:9464"      # where /metrics is served
beyond_loopback = false            # another address must be allowed in so many words
cost = true                        # measure the time spent inside the guard
otel = false                       # breach, freeze, thaw and page as OpenTelemetry events

[[instrument]]
symbol = "IBM"
tick_size = "0.0001"
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from holdover.model import Instrument
from holdover.runtime.metrics import MetricsConfig, MetricsProblem, parsed
from holdover.runtime.redaction import BadRule, Rules


class BadConfig(ValueError):
    """A configuration that cannot be used; the message lists every problem."""


class _GuardTable(msgspec.Struct, forbid_unknown_fields=True):
    directory: str
    catalogue: list[str] = []
    journal: bool = True
    recorder_size: int = 256
    axes: list[str] = []
    bundles: bool = True


class _RedactTable(msgspec.Struct, forbid_unknown_fields=True):
    fields: list[str] = []
    patterns: list[str] = []


class _PagesTable(msgspec.Struct, forbid_unknown_fields=True):
    file: str = "pages.jsonl"
    log: bool = True
    url_env: list[str] = []


class GuardConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What `Guard.open` needs; paths are absolute."""

    directory: Path
    catalogue: list[str] = []
    journal: bool = True
    recorder_size: int = 256
    axes: list[str] = []
    pages_file: str = "pages.jsonl"
    pages_log: bool = True
    url_env: list[str] = []
    bundles: bool = True
    redact_fields: list[str] = []
    redact_patterns: list[str] = []
    instruments: list[Instrument] = []
    metrics: MetricsConfig | None = None

    def urls(self) -> list[str]:
        """The paging URLs. Raises `BadConfig` when a variable that should hold one is not set."""
        missing = [name for name in self.url_env if not os.environ.get(name)]
        if missing:
            raise BadConfig(f"[pages] url_env: the environment does not set {', '.join(missing)}")
        return [os.environ[name] for name in self.url_env]


def read_config(path: Path) -> GuardConfig:
    """The configuration in a TOML file. Raises `BadConfig` naming the file and all that is wrong."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise BadConfig(f"{path.name}: cannot be read: {problem.strerror}") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise BadConfig(f"{path.name}: not a TOML file: {problem}") from problem
    problems: list[str] = []
    guard = _table(told, "guard", _GuardTable, problems)
    pages = _table(told, "pages", _PagesTable, problems)
    redact = _table(told, "redact", _RedactTable, problems)
    if redact is not None:
        try:
            Rules(redact.fields, redact.patterns)
        except BadRule as problem:
            problems.append(f"[redact] {problem}")
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
    if guard is None or pages is None or redact is None or problems:
        raise BadConfig("\n".join(f"{path.name}: {problem}" for problem in problems))
    here = path.resolve().parent
    return GuardConfig(
        directory=here / guard.directory,
        catalogue=[str(here / source) if (here / source).is_dir() else source for source in guard.catalogue],
        journal=guard.journal,
        recorder_size=guard.recorder_size,
        axes=guard.axes,
        pages_file=pages.file,
        pages_log=pages.log,
        url_env=pages.url_env,
        bundles=guard.bundles,
        redact_fields=redact.fields,
        redact_patterns=redact.patterns,
        instruments=instruments,
        metrics=metrics,
    )


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
