"""Servers for the tests: a PostgreSQL from a wheel, on a socket in a directory."""

from __future__ import annotations

import os
import signal
import socket
import warnings
from pathlib import Path
from typing import Any


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """A PostgreSQL server that a test can stop, start and suspend."""

    def __init__(self, directory: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pgserver

        self._pgserver = pgserver
        self._server: Any = pgserver.get_server(directory)
        self.url = str(self._server.get_uri())
        # The tests end its processes, and never the machine: what it has handed to the kernel is there afterwards.
        self._server.psql("ALTER SYSTEM SET fsync = off")
        self._server.psql("SELECT pg_reload_conf()")

    def _processes(self) -> list[int]:
        import psutil

        first = psutil.Process(self._server.get_pid())
        return [first.pid, *(child.pid for child in first.children(recursive=True))]

    def suspend(self) -> None:
        """Suspend its processes: connections stay open, and the server answers nothing."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume its processes."""
        for process in self._processes():
            os.kill(process, signal.SIGCONT)

    def stop(self) -> None:
        """Stop it in immediate mode, as a crash would."""
        self._pgserver.pg_ctl(
            ["stop", "-w", "-m", "immediate"], pgdata=self._server.pgdata, user=self._server.system_user
        )

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()
        self.url = str(self._server.get_uri())

    def close(self) -> None:
        """Stop it permanently."""
        self._server.cleanup()
