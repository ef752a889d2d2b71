"""Shared output of the benchmarks: a plain table, the machine, the versions, and one JSON file."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OUT_DIRECTORY = Path("out/bench")


def machine(*packages: str) -> dict[str, Any]:
    """What it ran on: processor, cores, Python, and the versions of the packages named that are there."""
    cpu = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = {"holdover": importlib.metadata.version("holdover"), "msgspec": importlib.metadata.version("msgspec")}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    cores = os.cpu_count()
    return {"cpu": cpu, "cores": cores, "python": platform.python_version(), "versions": versions}


def print_machine(*packages: str) -> dict[str, Any]:
    """As `machine`, said on the way."""
    about = machine(*packages)
    print(format_machine(about), flush=True)
    return about


def format_machine(about: dict[str, Any]) -> str:
    """The machine in one line."""
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    return f"{about['cpu']}, {about['cores']} cores, Python {about['python']}; {versions}"


def report_table(
    name: str, rows: Sequence[dict[str, Any]], about: dict[str, Any], out_path: Path | None = None
) -> None:
    """Print the rows as a table, say what it ran on, and write both as JSON."""
    heads = list(dict.fromkeys(head for row in rows for head in row))
    cells = [[format_value(row.get(head, "")) for head in heads] for row in rows]
    widths = [max(len(head), *(len(line[at]) for line in cells)) for at, head in enumerate(heads)]
    left_alignments = [all(not isinstance(row.get(head), (int, float)) for row in rows) for head in heads]
    for line in [heads, *cells]:
        print(
            "  ".join(
                _align(cell, width, flag) for cell, width, flag in zip(line, widths, left_alignments, strict=True)
            ).rstrip()
        )
    print(format_machine(about), end="\n\n", flush=True)
    path = out_path or OUT_DIRECTORY / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": about, "rows": list(rows)}, indent=1) + "\n")


def format_value(value: Any) -> str:
    """A figure or a word as it stands in a table."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _align(cell: str, width: int, is_left_aligned: bool) -> str:
    return cell.ljust(width) if is_left_aligned else cell.rjust(width)
