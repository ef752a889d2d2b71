"""The process under test: a command line with a process group of its own, ended in good order or by SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

_LAST: Final = 2000


class NotStarted(RuntimeError):
    """A command that cannot be run; the message says which and why."""


class Child:
    """One process under test over its lives; what it says goes into one file.

    `start` it, `kill` it with SIGKILL (its whole group, nothing of it runs on), or `stop` it with SIGTERM first.
    """

    def __init__(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str], log: Path, stop_s: float
    ) -> None:
        self.command, self.directory, self.log = list(command), directory, log
        self.environment = dict(environment)
        self.stop_s = stop_s
        self.lives = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    def start(self) -> None:
        """Bring it up. Raises `NotStarted`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._said = open(self.log, "ab")  # noqa: SIM115 - held as long as the process lives
        try:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as problem:
            self._close()
            raise NotStarted(f"{self.command[0]}: cannot be started: {problem.strerror}") from problem
        self.lives += 1

    @property
    def returned(self) -> int | None:
        """What it has ended with; None while it runs, or where it was never started."""
        return self._process.poll() if self._process is not None else None

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL to its process group: no handler, no `finally`, no flush runs, in it or in what it has started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._close()

    def stop(self) -> int | None:
        """SIGTERM, and SIGKILL where that does not end it in time; returns its exit code, None when it was killed."""
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
        returned = self._process.returncode
        self.kill()  # whatever it has started and left behind
        return returned

    def last_words(self) -> str:
        """The end of what it has said."""
        try:
            return self.log.read_bytes()[-_LAST:].decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def _close(self) -> None:
        if self._said is not None:
            self._said.close()
            self._said = None
