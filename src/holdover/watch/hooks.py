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
from holdover.runtime import Breach, FreezeStore, read_config
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
    """Freezes the breach's scope in the store of a guard, and puts the page into its outbox.

    `guard` is the guard's directory or its configuration. A guard that is running obeys the freeze within the time that
    it is configured to, and delivers the page by its own channels.
    """

    def __init__(self, guard: Path, catalogue: Catalogue) -> None:
        self.name = "guard"
        told = read_config(guard) if guard.is_file() else None
        self.store = told.open_store() if told is not None else FreezeStore(guard / "guard.db", "watch")
        names = [channel.name for channel in told.channels()] if told is not None else ["file:pages.jsonl"]
        self._channels = told.levels[0].channels if told is not None and told.levels else names
        self._catalogue = catalogue

    def act(self, breach: Breach, key: str) -> None:
        """Breach, freeze, page and audit in one synced transaction, unless the store has the breach already."""
        if any(one.identity == breach.identity for one in self.store.breaches()):
            return
        entry = self._catalogue.invariants[breach.invariant].entry
        frozen = any(one.scope == breach.scope and one.invariant == breach.invariant for one in self.store.in_force())
        if frozen:
            self.store.note(breach)
        else:
            self.store.record(breach, list(entry.allows), page_for(breach, entry, 0), self._channels)


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
