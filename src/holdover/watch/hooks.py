"""Hooks: what a breach triggers: a freeze in a guard's store, a POST, a command.

Each hook runs at least once with a key that is the same every time, so that the receiver can act once. The
freeze hook first checks whether the store already has the breach.
"""

from __future__ import annotations

import shlex
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final, Protocol

import msgspec

from holdover.catalogue import Catalogue
from holdover.catalogue.policy import OBSERVE, SWITCHED_OFF
from holdover.runtime import Breach, FreezeStore, read_config
from holdover.runtime.breach import make_page
from holdover.runtime.observation import make_observed_page
from holdover.runtime.redaction import RedactionRules

_TIMEOUT_S = 30.0


class HookError(RuntimeError):
    """A hook did not accept a breach; the message says which and why."""


class Hook(Protocol):
    """An action on a breach."""

    name: str

    def run(self, breach: Breach, key: str) -> None:
        """Run the hook. Raises `HookError` or `StoreError` when it failed."""


class FreezeHook:
    """Freezes the breach's scope in a guard's store and puts the page into its outbox.

    `guard` is the guard's directory or its configuration. A running guard obeys the freeze within its configured
    time and delivers the page by its own channels.
    """

    def __init__(self, guard: Path, catalogue: Catalogue) -> None:
        self.name = "guard"
        config = read_config(guard) if guard.is_file() else None
        self.store = config.open_store() if config is not None else FreezeStore(guard / "guard.db", "watch")
        names = [channel.name for channel in config.make_channels()] if config is not None else ["file:pages.jsonl"]
        self._channels = config.pages.level[0].channels if config is not None and config.pages.level else names
        self._catalogue = catalogue
        self._policy = config.load_catalogue() if config is not None else catalogue
        self._location = guard.resolve()

    def run(self, breach: Breach, key: str) -> None:
        """Write breach, freeze, page and audit in one synced transaction, unless the store already has the breach.

        An invariant that the guard's policy observes freezes nothing, and one that is off is ignored.

        Raises `StoreError`.
        """
        mode = self._policy.mode_of(breach.invariant)
        if mode == SWITCHED_OFF:
            return
        if mode == OBSERVE:
            self._record_observed(msgspec.structs.replace(breach, mode=OBSERVE))
            return
        if any(stored.identity == breach.identity for stored in self.store.breaches()):
            return
        entry = self._catalogue.invariants[breach.invariant].entry
        frozen = any(
            freeze.scope == breach.scope and freeze.invariant == breach.invariant
            for freeze in self.store.active_freezes()
        )
        if frozen:
            self.store.record_repeated_breach(breach)
        else:
            page = make_page(breach, entry, 0, self._location)
            self.store.record_breach(breach, list(entry.allows), page, self._channels)

    def _record_observed(self, breach: Breach) -> None:
        entry = self._catalogue.invariants[breach.invariant].entry
        page = make_observed_page(breach, entry)
        open_marks = {freeze.mark for freeze in self.store.observed_freezes(open_only=True)}
        if (breach.scope, breach.invariant) not in open_marks:
            self.store.record_observed_breach(breach, entry.allows, page, self._channels)


_RULES: Final = RedactionRules.with_defaults()


class UrlHook:
    """Posts the breach as JSON; the header Idempotency-Key holds the key."""

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"--hook-url {url}: it should begin with http:// or https://")
        self.name = "url"
        self._url = url

    def run(self, breach: Breach, key: str) -> None:
        """Post the breach. Raises `HookError` for any answer but 2xx."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        request = urllib.request.Request(
            self._url, data=msgspec.json.encode(_RULES.redact_struct(breach)), headers=headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
                return
        except (urllib.error.URLError, OSError) as problem:
            raise HookError(_RULES.redact_text(f"the hook at {self._url} did not take the breach: {problem}")) from None


class CommandHook:
    """Runs a command with the breach as JSON on its standard input and the key in HOLDOVER_KEY."""

    def __init__(self, command: str) -> None:
        self.name = "command"
        self._command = shlex.split(command)
        if not self._command:
            raise ValueError("--hook-command: the command is empty")

    def run(self, breach: Breach, key: str) -> None:
        """Run the command. Raises `HookError` when it cannot run or its exit code is not 0."""
        try:
            completed = subprocess.run(
                ["env", f"HOLDOVER_KEY={key}", *self._command],
                input=msgspec.json.encode(breach),
                stdout=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise HookError(f"the hook {self._command[0]} could not be run: {problem}") from problem
        if completed.returncode:
            raise HookError(f"the hook {self._command[0]} ended with exit code {completed.returncode}")
