"""The freezes in force as one process knows them: read from the store, extended by breaches, ended only by thaws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import msgspec

from holdover.model import SYSTEM, Request
from holdover.runtime.freeze_scope import find_forbidding_scope
from holdover.runtime.freeze_store import Freeze, FreezeIdentity, FreezeStore
from holdover.state import Stateful


class FreezeCacheState(msgspec.Struct):
    """The state of the cache: values, because each change replaces them."""

    by_scope: Mapping[str, Sequence[Freeze]]
    by_identity: Mapping[FreezeIdentity, Freeze]
    memory_freeze: Freeze | None


class FreezeCache(Stateful[FreezeCacheState]):
    """The freezes in force. Each change replaces the dictionaries, so other threads may read the old ones.

    `reduces` tells whether a request only reduces a position. `memory_freeze` is the freeze of the whole system
    that replaces a freeze which could not be written.
    """

    State = FreezeCacheState
    DERIVED: ClassVar = {
        "store": "the store, whose content the guard saves itself",
        "_reduces": "a function of the guard",
    }

    def __init__(self, store: FreezeStore, reduces: Callable[[Request], bool]) -> None:
        self.store = store
        self.by_scope: dict[str, list[Freeze]] = {}
        self.by_identity: dict[FreezeIdentity, Freeze] = {}
        self.memory_freeze: Freeze | None = None
        self._reduces = reduces

    def forbids(self, request: Request) -> str:
        """Return the widest frozen scope that forbids the request, or an empty string."""
        return find_forbidding_scope(self.by_scope, request, self._reduces)

    def scopes(self) -> list[str]:
        """Return the frozen scopes, oldest freeze first. Takes no lock."""
        return list(self.by_scope)

    def active_freezes(self) -> list[Freeze]:
        """Return the freezes in force, oldest first."""
        return sorted(self.by_identity.values(), key=lambda freeze: (freeze.number, freeze.time_ns))

    def freezes_of(self, scope: str) -> list[Freeze]:
        """Return the freezes of one scope."""
        return self.by_scope.get(scope, [])

    def is_frozen_by(self, scope: str, invariant: str) -> bool:
        """Whether a scope is already frozen for an invariant."""
        return any(freeze.invariant == invariant for freeze in self.freezes_of(scope))

    def add(self, freeze: Freeze) -> None:
        """Add a freeze. Raises `ValueError` for one without a scope: it would forbid nothing."""
        if not freeze.scope:
            raise ValueError(f"the freeze {freeze.number} of {freeze.invariant} has no scope")
        self.by_scope = {**self.by_scope, freeze.scope: [*self.freezes_of(freeze.scope), freeze]}
        self.by_identity = {**self.by_identity, freeze.identity: freeze}

    def replace(self, freeze: Freeze, written: Freeze | None) -> None:
        """Replace a freeze in memory by the one that was written, or remove it."""
        by_identity = {mark: known for mark, known in self.by_identity.items() if mark != freeze.identity}
        if written is not None:
            by_identity[written.identity] = written
        by_scope: dict[str, list[Freeze]] = {}
        for known in sorted(by_identity.values(), key=_freeze_order):
            by_scope.setdefault(known.scope, []).append(known)
        self.by_identity, self.by_scope = by_identity, by_scope

    def reload(self, stored_freezes: Sequence[Freeze] | None = None, thawed: Sequence[FreezeIdentity] = ()) -> None:
        """Merge the store's freezes into the known ones, without the `thawed` ones."""
        by_identity = {mark: freeze for mark, freeze in self.by_identity.items() if mark not in thawed}
        for freeze in self.store.active_freezes() if stored_freezes is None else stored_freezes:
            by_identity[freeze.identity] = freeze
        missing = [mark for mark in thawed if mark in by_identity and stored_freezes is not None]
        if missing:
            raise ValueError(f"the store says of {missing[0][1]} that it is frozen and that it was thawed")
        if self.memory_freeze is not None:
            by_identity[self.memory_freeze.identity] = self.memory_freeze
        frozen: dict[str, list[Freeze]] = {}
        for freeze in sorted(by_identity.values(), key=_freeze_order):
            frozen.setdefault(freeze.scope, []).append(freeze)
        self.by_identity, self.by_scope = by_identity, frozen

    def find_changes(self) -> tuple[list[Freeze], list[FreezeIdentity]] | None:
        """Return the store's freezes and the identities of those thawed elsewhere; None when nothing changed.

        A known freeze that the store does not have is not thawed: it stays. Raises `StoreError`.
        """
        stored_freezes = self.store.active_freezes()
        marks = {freeze.identity for freeze in stored_freezes}
        durable = self.durable_freezes()
        if marks == durable.keys():
            return None
        return stored_freezes, [
            mark for mark, freeze in durable.items() if mark not in marks and self.store.is_thawed(freeze)
        ]

    def durable_freezes(self) -> dict[FreezeIdentity, Freeze]:
        """Return the freezes that the store should have, by identity."""
        return {freeze.identity: freeze for freeze in list(self.by_identity.values()) if freeze.number > 0}

    def is_system_frozen_durably(self) -> bool:
        """Whether the store has a freeze of the whole system."""
        return any(freeze.number > 0 for freeze in self.freezes_of(SYSTEM))


def _freeze_order(freeze: Freeze) -> tuple[bool, int, int]:
    return freeze.number < 0, abs(freeze.number), freeze.time_ns


def make_memory_freeze(invariant: str, allows: list[str], breach: int, time_ns: int, holder: str) -> Freeze:
    """Make the freeze of the whole system that replaces a freeze which could not be written.

    Raises `ValueError` for a breach without a number: the negative number marks a freeze that the store does not have.
    """
    if breach < 1:
        raise ValueError(f"a freeze for breach {breach} of {invariant}: breaches count from 1")
    return Freeze(
        number=-breach,
        scope=SYSTEM,
        allows=allows,
        invariant=invariant,
        breach=breach,
        time_ns=time_ns,
        holder=holder,
    )
