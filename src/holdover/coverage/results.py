"""The results of the tests marked `state`: pytest writes them next to the coverage file, and the gate reads
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from holdover.state import DECODE_ERRORS

MAGIC: Final = "holdover-state-results"
VERSION: Final = 2


class ResultsError(ValueError):
    """A results file that cannot be used; the message names the file and the reason."""


class StateTest(msgspec.Struct, frozen=True, order=True):
    """The result of one test marked `state`: outcome, recorded market events played, and whether it is marked
    `logic`.
    """

    test: str
    outcome: str
    events_played: int = 0
    is_logic: bool = False


class _ResultsHeader(msgspec.Struct):
    magic: str = ""
    version: int = 0


class StateTestResults(msgspec.Struct, kw_only=True):
    """The state tests of a run, by name; the other tests that failed; the number of workers that died."""

    magic: str = MAGIC
    version: int = VERSION
    catalogue: str = ""
    tests: list[StateTest] = []
    failed_other_tests: list[str] = []
    lost_workers: int = 0

    def write(self, path: Path) -> None:
        """Write the file atomically. Raises `OSError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        part.replace(path)


def join_results(parts: Iterable[StateTestResults], catalogue: str) -> StateTestResults:
    """Return the results of several workers as one."""
    rest = list(parts)
    return StateTestResults(
        catalogue=catalogue,
        tests=sorted(test for part in rest for test in part.tests),
        failed_other_tests=sorted(test for part in rest for test in part.failed_other_tests),
        lost_workers=sum(part.lost_workers for part in rest),
    )


def results_path(file: Path) -> Path:
    """Return the results file of a coverage file: `.state-results.json` for `.state-coverage.json`."""
    name = file.name.removesuffix(".json")
    return file.with_name(
        f"{name.removesuffix('coverage')}results.json" if "coverage" in name else f"{name}.results.json"
    )


def read_results(path: Path) -> StateTestResults | None:
    """Return the results in a file, or None when there is no file. Raises `ResultsError` for any other file."""
    if not path.exists():
        return None
    content = path.read_bytes()
    try:
        header = msgspec.json.decode(content, type=_ResultsHeader)
        if header.magic != MAGIC:
            raise ResultsError(f"{path.name}: is no results file; its magic should be {MAGIC!r}")
        if header.version != VERSION:
            raise ResultsError(
                f"{path.name}: was written as version {header.version}, this Holdover reads version {VERSION}; "
                "run `pytest --state-cov` again"
            )
        return msgspec.json.decode(content, type=StateTestResults)
    except DECODE_ERRORS as problem:
        raise ResultsError(
            f"{path.name}: is no results file, as `pytest --state-cov` writes it: {problem}"
        ) from problem
