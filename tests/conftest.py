"""Fixtures for every test."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.runtime import Guard, GuardSettings

# Hundreds of processes are started by the tests. Where bytecode is not kept, each of them compiles the whole package.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A script's background job ignores SIGINT, and everything that it starts inherits that. Tests send SIGINT to what they
# start, so the signal is handled again here: with a handler in this process, a started program has the default action.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """The built-in catalogue."""
    return Catalogue.load()


@pytest.fixture(autouse=True)
def _quiet_log() -> None:
    logging.getLogger("holdover").setLevel(logging.CRITICAL + 1)


class SettableClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def time_ns() -> SettableClock:
    """The guard's clock."""
    return SettableClock()


@pytest.fixture
def make_guard(tmp_path: Path, catalogue: Catalogue, time_ns: SettableClock) -> Callable[..., Guard]:
    """A guard in a directory of its own."""

    def make(**options: object) -> Guard:
        options.setdefault("catalogue", catalogue)
        options.setdefault("clock", time_ns)
        options.setdefault("channels", [])
        directory = tmp_path / str(options.pop("name", "guard"))
        settings = {name: options.pop(name) for name in GuardSettings.__struct_fields__ if name in options}
        return Guard(directory, GuardSettings(**settings), **options)  # type: ignore[arg-type]

    return make


def find_recordings() -> Path | None:
    """Return the directory of real recorded days in the Lean layout, or None when there is none."""
    named = os.environ.get("HOLDOVER_RECORDINGS")
    directory = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "recordings"
    return directory / "lean" if (directory / "lean").is_dir() else None


@pytest.fixture(scope="session")
def lean() -> Path:
    """Return the directory of real recorded days; skip the test when there is none."""
    folder = find_recordings()
    if folder is None:
        pytest.skip("no real recordings at hand: set HOLDOVER_RECORDINGS")
    return folder
