"""What a breach sets off: a freeze in a guard's own store, a POST, a command.

Each is done at least once and carries a key that is the same every time, so that its receiver can do it once; the
freeze store is asked first whether it has the breach already.
"""

from __future__ import annotations

import shlex
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Protocol

import msgspec

from holdover.catalogue import Catalogue
from holdover.runtime import Breach, FreezeStore
from holdover.runtime.breach import page_for

_TIMEOUT_S = 30.0


class HookFailed(RuntimeError):
    """A hook that did not take a breach; it says which and why."""


class Hook(Protocol):
    """Something that acts on a breach."""

    name: str

    def act(self, breach: Breach, key: str) -> None:
        """Act. Raises `HookFailed`, or `StoreProblem`, when it was not done."""


class FreezeHook:
    """Freezes the breach's scope in the store of a guard's directory, and puts the page into its outbox."""

    def __init__(self, directory: Path, catalogue: Catalogue) -> None:
        self.name = "guard"
        self.store = FreezeStore(directory / "guard.db")
        self._catalogue = catalogue

    def act(self, breach: Breach, key: str) -> None:
        """Breach, freeze, page and audit in one synced transaction, unless the store has the breach already."""
        told = _identity(breach)
        if any(_identity(one) == told for one in self.store.breaches()):
            return
        entry = self._catalogue.invariants[breach.invariant].entry
        number = self.store.last_breach() + 1
        breach = msgspec.structs.replace(breach, number=number)
        frozen = any(one.scope == breach.scope and one.invariant == breach.invariant for one in self.store.in_force())
        if frozen:
            self.store.note(breach)
        else:
            page = page_for(breach, entry, number)
            self.store.record(breach, list(entry.allows), page, ["file:pages.jsonl"])


class UrlHook:
    """Posts the breach as JSON; the key stands in the header Idempotency-Key."""

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"--hook-url {url}: it should begin with http:// or https://")
        self.name = "url"
        self._url = url

    def act(self, breach: Breach, key: str) -> None:
        """Post. Raises `HookFailed` for anything but an answer of 2xx."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        request = urllib.request.Request(self._url, data=msgspec.json.encode(breach), headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
                return
        except (urllib.error.URLError, OSError) as problem:
            raise HookFailed(f"the hook at {self._url} did not take the breach: {problem}") from problem


class CommandHook:
    """Runs a command with the breach as JSON on its standard input and the key in HOLDOVER_KEY."""

    def __init__(self, command: str) -> None:
        self.name = "command"
        self._command = shlex.split(command)
        if not self._command:
            raise ValueError("--hook-command: the command is empty")

    def act(self, breach: Breach, key: str) -> None:
        """Run it. Raises `HookFailed` when it cannot be run or does not end with 0."""
        try:
            ended = subprocess.run(
                ["env", f"HOLDOVER_KEY={key}", *self._command],
                input=msgspec.json.encode(breach),
                stdout=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise HookFailed(f"the hook {self._command[0]} could not be run: {problem}") from problem
        if ended.returncode:
            raise HookFailed(f"the hook {self._command[0]} ended with exit code {ended.returncode}")


def _identity(breach: Breach) -> tuple[object, ...]:
    return (breach.invariant, breach.subsystem, breach.key, breach.time_ns, breach.mutation, breach.explanation)
