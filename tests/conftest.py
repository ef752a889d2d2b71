"""What every test may use."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.runtime import Guard

# Hundreds of processes are started by the tests. Where bytecode is not kept, each of them compiles the whole package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """The built-in catalogue."""
    return Catalogue.load()


@pytest.fixture(autouse=True)
def _quiet_log() -> None:
    logging.getLogger("holdover").setLevel(logging.CRITICAL + 1)


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def time_ns() -> Time:
    """The guard's clock."""
    return Time()


@pytest.fixture
def make_guard(tmp_path: Path, catalogue: Catalogue, time_ns: Time) -> Callable[..., Guard]:
    """A guard in a directory of its own."""

    def make(**options: object) -> Guard:
        options.setdefault("catalogue", catalogue)
        options.setdefault("clock", time_ns)
        options.setdefault("channels", [])
        return Guard(tmp_path / str(options.pop("name", "guard")), **options)  # type: ignore[arg-type]

    return make


def recordings_folder() -> Path | None:
    """Real recorded days in the Lean layout, where they are at hand."""
    named = os.environ.get("HOLDOVER_RECORDINGS")
    place = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "recordings"
    return place / "lean" if (place / "lean").is_dir() else None


@pytest.fixture(scope="session")
def lean() -> Path:
    """The folder of real recorded days; a test that needs it is left out where there is none."""
    found = recordings_folder()
    if found is None:
        pytest.skip("no real recordings at hand: set HOLDOVER_RECORDINGS")
    return found
