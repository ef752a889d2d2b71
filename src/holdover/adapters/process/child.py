"""The process under test: a command line in its own process group, stopped in good order or by SIGKILL.

It never outlives this process: `watchdog.py` ends its group when this process is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from holdover.adapters.process.watchdog import GroupWatchdog

_OUTPUT_BYTES_MAX: Final = 2000


class ProcessStartError(RuntimeError):
    """A command cannot be run. The message says which one and why."""


class ChildProcess:
    """One process under test over its incarnations. Its output goes to one file.

    `start` it, `kill` its whole process group with SIGKILL, or `stop` it with SIGTERM first.
    """

    def __init__(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str], log: Path, stop_s: float
    ) -> None:
        self.command, self.directory, self.log = list(command), directory, log
        self.environment = dict(environment)
        self.stop_s = stop_s
        self.incarnations = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: GroupWatchdog | None = None
        self._log_file: IO[bytes] | None = None

    def start(self) -> None:
        """Start the process. Raises `ProcessStartError` when the command cannot be run."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_file = open(self.log, "ab")  # noqa: SIM115 - held as long as the process lives
        self._close_watchdog()
        self._watchdog = GroupWatchdog()
        try:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=self._log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._close_log()
            self._close_watchdog()
            raise ProcessStartError(f"{self.command[0]}: cannot be started: {error.strerror}") from error
        self._watchdog.watch(self._process.pid)
        self.incarnations += 1

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while the process runs or when it was never started."""
        return self._process.poll() if self._process is not None else None

    @property
    def is_running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Send SIGKILL to the process group: no handler, `finally` or flush runs, in the process or its children."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._close_log()
        self._close_watchdog()

    def stop(self) -> int | None:
        """Send SIGTERM, then SIGKILL after a timeout; return the exit code, or None when it was killed."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(self.stop_s)
            except subprocess.TimeoutExpired:
                self.kill()
                return None
        exit_code = self._process.returncode
        self.kill()  # also ends child processes that it left behind
        return exit_code

    def read_output_end(self) -> str:
        """Return the end of the process's output."""
        try:
            return self.log.read_bytes()[-_OUTPUT_BYTES_MAX:].decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def _close_watchdog(self) -> None:
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None

    def _close_log(self) -> None:
        if self._log_file is not None:
            self._log_file.close()
            self._log_file = None
