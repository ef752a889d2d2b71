"""What the tests of `holdover carry` share: two processes under test, described in TOML, and days short enough."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from .live_setup import CONFIG

ROOT = Path(__file__).resolve().parents[2]
FIRST_DAY, SECOND_DAY = "2024-11-27", "2024-11-29"

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


def write_desk_file(directory: Path, *arguments: str, accelerate: float = 60.0, name: str = "process.toml") -> Path:
    """The process file of our own desk, that of docs/process.md; `more` goes before its configuration's option."""
    text = CONFIG.format(accelerate="${accelerate}", port="${port}")
    for source, placeholder in ((FIRST_DAY, "${day}"), ("14:30:00", "${open}"), ("21:00:00", "${close}")):
        text = text.replace(source, placeholder)
    (directory / "desk.toml.in").write_text(text + PATIENT)
    page = (ROOT / "docs" / "process.md").read_text()
    block = page.partition("```toml\n")[2].partition("```")[0]
    source = re.sub(r"^command = .*$", "command = [{command}]", block, flags=re.MULTILINE)
    source = re.sub(r"^accelerate = .*$", "accelerate = {accelerate}", source, flags=re.MULTILINE)
    command = [sys.executable, "-m", "holdover", "desk", "run", *arguments, "--config", "desk.toml"]
    return _write_process_file(directory / name, source, command, accelerate)


def write_client_file(
    directory: Path, store: str, states: str, *arguments: str, accelerate: float = 60.0, name: str = "process.toml"
) -> Path:
    """The process file of the foreign client, which keeps its state in a store and its session's in a folder."""
    command = [sys.executable, "-m", "tests.real.fix_client", "${port}", store, "99.99", *arguments]
    return _write_process_file(directory / name, CLIENT + states, command, accelerate)


def _write_process_file(path: Path, text: str, command: list[str], accelerate: float) -> Path:
    quoted = ", ".join(json.dumps(argument) for argument in command)
    path.write_text(
        text.replace("{command}", quoted).replace("{accelerate}", str(accelerate)).replace("{root}", str(ROOT))
    )
    return path


def run_carry(directory: Path, process: Path, *arguments: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """Run `holdover carry`; returns its exit code, its result and what it said on standard error."""
    command = [
        sys.executable,
        "-m",
        "holdover",
        "carry",
        *arguments,
        "--day",
        SECOND_DAY,
        "--process",
        str(process),
        "--json",
    ]
    command += ["--recordings", str(directory / "days"), "--out", str(directory / "out")]
    completed = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=directory, env={**os.environ, **environment}
    )
    try:
        result = json.loads(completed.stdout)
    except ValueError:
        result = {}
    return completed.returncode, result, completed.stderr


def find_arm(result: dict[str, Any], name: str) -> dict[str, Any]:
    """One arm of a result."""
    return next(entry for entry in result["arms"] if entry["name"] == name)


def find_snapshot(directory: Path) -> Path:
    """The snapshot that a run with --from has made."""
    (snapshot,) = (directory / "out" / "snapshots").glob("*.hsnap")
    return snapshot
