"""What the tests of `holdover carry` share: two processes under test, described in TOML, and days short enough."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from .live import CONFIG

ROOT = Path(__file__).resolve().parents[2]
BEFORE, NEXT = "2024-11-27", "2024-11-29"

PATIENT = """
[[strategy]]
name = "patient"
account = "A4"
symbol = "ACME"
side = "1"
order_qty = 6000000
day_qty = 6000000
slice_qty = 600000
offset = -3
algorithm = "standing"
slices_working_max = 1
time_in_force = "1"
interval_s = 5.0
patience = 100000
"""
"""Has an order open over the night, partly filled: it takes what is displayed, never so much on a short day."""

CLIENT = """
[process]
command = [{command}]
ready_s = 30.0

[process.environment]
PYTHONPATH = "{root}"

[venue]
symbols = ["ACME"]
clients = ["CLIENT"]
accelerate = {accelerate}
heartbeat_s = 2

[[state]]
name = "session"
kind = "directory"
path = "session"
"""

SQLITE = """
[[state]]
name = "book"
kind = "sqlite"
path = "book.db"
"""


def desk_file(directory: Path, *more: str, accelerate: float = 60.0, name: str = "process.toml") -> Path:
    """The process file of our own desk, that of docs/process.md; `more` goes before its configuration's option."""
    text = CONFIG.format(accelerate="${accelerate}", port="${port}")
    for said, filled in ((BEFORE, "${day}"), ("14:30:00", "${open}"), ("21:00:00", "${close}")):
        text = text.replace(said, filled)
    (directory / "desk.toml.in").write_text(text + PATIENT)
    page = (ROOT / "docs" / "process.md").read_text()
    told = page.partition("```toml\n")[2].partition("```")[0]
    said = re.sub(r"^command = .*$", "command = [{command}]", told, flags=re.MULTILINE)
    said = re.sub(r"^accelerate = .*$", "accelerate = {accelerate}", said, flags=re.MULTILINE)
    command = [sys.executable, "-m", "holdover", "desk", "run", *more, "--config", "desk.toml"]
    return _written(directory / name, said, command, accelerate)


def client_file(
    directory: Path, store: str, states: str, *more: str, accelerate: float = 60.0, name: str = "process.toml"
) -> Path:
    """The process file of the foreign client, which keeps its state in a store and its session's in a folder."""
    command = [sys.executable, "-m", "tests.real.fix_client", "${port}", store, "99.99", *more]
    return _written(directory / name, CLIENT + states, command, accelerate)


def _written(path: Path, text: str, command: list[str], accelerate: float) -> Path:
    said = ", ".join(json.dumps(one) for one in command)
    path.write_text(
        text.replace("{command}", said).replace("{accelerate}", str(accelerate)).replace("{root}", str(ROOT))
    )
    return path


def carried(directory: Path, process: Path, *more: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """Run `holdover carry`; returns its exit code, its result and what it said on standard error."""
    command = [sys.executable, "-m", "holdover", "carry", *more, "--day", NEXT, "--process", str(process), "--json"]
    command += ["--recordings", str(directory / "days"), "--out", str(directory / "out")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=directory, env={**os.environ, **environment}
    )
    try:
        told = json.loads(done.stdout)
    except ValueError:
        told = {}
    return done.returncode, told, done.stderr


def arm(told: dict[str, Any], name: str) -> dict[str, Any]:
    """One arm of a result."""
    return next(one for one in told["arms"] if one["name"] == name)


def snapshot_of(directory: Path) -> Path:
    """The snapshot that a run with --from has made."""
    (found,) = (directory / "out" / "snapshots").glob("*.hsnap")
    return found
