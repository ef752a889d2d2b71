"""Other people's servers for the tests: a PostgreSQL of its own, from a wheel, on a socket in a folder."""

from __future__ import annotations

import os
import signal
import socket
import warnings
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Postgres:
    """A PostgreSQL server that a test may stop, start again, and hold still."""

    def __init__(self, place: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pgserver

        self._pgserver = pgserver
        self._server: Any = pgserver.get_server(place)
        self.url = str(self._server.get_uri())
        # The tests end its processes, and never the machine: what it has handed to the kernel is there afterwards.
        self._server.psql("ALTER SYSTEM SET fsync = off")
        self._server.psql("SELECT pg_reload_conf()")

    def _processes(self) -> list[int]:
        import psutil

        first = psutil.Process(self._server.get_pid())
        return [first.pid, *(child.pid for child in first.children(recursive=True))]

    def hold(self) -> None:
        """Stop it in its tracks: connections stay open, nothing is answered."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP)

    def let_go(self) -> None:
        """Let it run on."""
        for process in self._processes():
            os.kill(process, signal.SIGCONT)

    def stop(self) -> None:
        """Stop it as a crash would."""
        self._pgserver.pg_ctl(
            ["stop", "-w", "-m", "immediate"], pgdata=self._server.pgdata, user=self._server.system_user
        )

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()
        self.url = str(self._server.get_uri())

    def close(self) -> None:
        """Stop it for good."""
        self._server.cleanup()
