"""Real servers, one of each for all tests of a process."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..servers import PostgresServer
from ..waits import make_wait

_SCHEMAS = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, in a folder outside of pytest's own: those are closed again to the server's user."""
    with tempfile.TemporaryDirectory(prefix="holdover-postgres-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder) / "data")
        yield server
        server.close()


@pytest.fixture
def schema() -> str:
    """A schema that no other test uses."""
    return f"s{next(_SCHEMAS)}"


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for a condition of another process or thread; fails when it does not come about."""
    return make_wait()
