"""What became of the `state` tests of a run: the file that pytest leaves beside the coverage file, for the gate."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

MAGIC: Final = "holdover-state-results"
VERSION: Final = 1


class BadResults(ValueError):
    """A results file that cannot be used; the message names it and says why."""


class StateTest(msgspec.Struct, frozen=True, order=True):
    """One test marked `state`: what became of it, how many recorded market events it played, whether it is logic."""

    test: str
    outcome: str
    played: int = 0
    logic: bool = False


class Results(msgspec.Struct, kw_only=True):
    """The state tests of a run, by name; which others failed; how many workers died without a word."""

    magic: str = MAGIC
    version: int = VERSION
    catalogue: str = ""
    tests: list[StateTest] = []
    others_failed: list[str] = []
    lost_workers: int = 0

    def write(self, path: Path) -> None:
        """Write the file whole. Raises `OSError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        part.replace(path)


def join(parts: Iterable[Results], catalogue: str) -> Results:
    """The results of several workers as one."""
    rest = list(parts)
    return Results(
        catalogue=catalogue,
        tests=sorted(test for part in rest for test in part.tests),
        others_failed=sorted(test for part in rest for test in part.others_failed),
        lost_workers=sum(part.lost_workers for part in rest),
    )


def results_beside(file: Path) -> Path:
    """Where the results are for a coverage file: `.state-results.json` beside `.state-coverage.json`."""
    name = file.name.removesuffix(".json")
    return file.with_name(
        f"{name.removesuffix('coverage')}results.json" if "coverage" in name else f"{name}.results.json"
    )


def read_results(path: Path) -> Results | None:
    """The results in a file, None where there is none. Raises `BadResults` for a file that is no such thing."""
    if not path.exists():
        return None
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Results)
    except msgspec.MsgspecError as problem:
        raise BadResults(f"{path.name}: is no results file, as `pytest --state-cov` writes it: {problem}") from problem
    if found.magic != MAGIC:
        raise BadResults(f"{path.name}: is no results file; its magic should be {MAGIC!r}")
    if found.version != VERSION:
        raise BadResults(f"{path.name}: was written as version {found.version}, this Holdover reads version {VERSION}")
    return found
