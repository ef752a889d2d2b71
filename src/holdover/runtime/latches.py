"""What is frozen, as one process knows it: read from the store, added to by breaches, ended only by thaws."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdover.model import SYSTEM, MsgType, Request, scopes_around
from holdover.runtime.freezes import Freeze, FreezeStore, Mark

Kept = tuple[dict[str, list[Freeze]], dict[Mark, Freeze], Freeze | None]


class Latches:
    """The freezes in force. Each change puts new dictionaries in the place of the old: other threads may read those.

    `reduces` says whether a request only makes what is held smaller. `memory` is the freeze of the whole system that
    stands for one which could not be written.
    """

    def __init__(self, store: FreezeStore, reduces: Callable[[Request], bool]) -> None:
        self.store = store
        self.by_scope: dict[str, list[Freeze]] = {}
        self.known: dict[Mark, Freeze] = {}
        self.memory: Freeze | None = None
        self._reduces = reduces

    def forbids(self, request: Request) -> str:
        """The widest frozen scope that this request must not leave, or an empty string."""
        frozen = self.by_scope
        if not frozen:
            return ""
        for scope in scopes_around(request):
            for freeze in frozen.get(scope, ()):
                if not self._allowed(freeze, request):
                    return scope
        for scope, kept in frozen.items():
            # Every message leaves on the word of every subsystem: one whose word is doubted holds up all.
            if scope.startswith("subsystem:") and not all(self._allowed(freeze, request) for freeze in kept):
                return scope
        return ""

    def _allowed(self, freeze: Freeze, request: Request) -> bool:
        if request.msg_type == MsgType.ORDER_CANCEL_REQUEST:
            return "cancel" in freeze.allows
        return "reduce" in freeze.allows and self._reduces(request)

    def scopes(self) -> list[str]:
        """The scopes that are frozen, oldest freeze first; takes no lock."""
        return list(self.by_scope)

    def all(self) -> list[Freeze]:
        """The freezes in force, oldest first."""
        return sorted(self.known.values(), key=lambda one: (one.number, one.time_ns))

    def of(self, scope: str) -> list[Freeze]:
        """Those of one scope."""
        return self.by_scope.get(scope, [])

    def by(self, scope: str, invariant: str) -> bool:
        """Whether a scope is frozen for an invariant already."""
        return any(freeze.invariant == invariant for freeze in self.of(scope))

    def add(self, freeze: Freeze) -> None:
        """One more."""
        self.by_scope = {**self.by_scope, freeze.scope: [*self.of(freeze.scope), freeze]}
        self.known = {**self.known, freeze.mark: freeze}

    def load(self, there: Sequence[Freeze] | None = None, gone: Sequence[Mark] = ()) -> None:
        """Take the freezes that the store has, and those that are known, without those that are gone."""
        kept = {mark: freeze for mark, freeze in self.known.items() if mark not in gone}
        for freeze in self.store.in_force() if there is None else there:
            kept[freeze.mark] = freeze
        if self.memory is not None:
            kept[self.memory.mark] = self.memory
        frozen: dict[str, list[Freeze]] = {}
        for freeze in sorted(kept.values(), key=lambda one: (one.number < 0, abs(one.number), one.time_ns)):
            frozen.setdefault(freeze.scope, []).append(freeze)
        self.known, self.by_scope = kept, frozen

    def changed(self) -> tuple[list[Freeze], list[Mark]] | None:
        """What the store has now and which of the known were thawed elsewhere; None where nothing has changed.

        A freeze that is known here and that the store does not have is not thawed: it stays. Raises `StoreProblem`.
        """
        there = self.store.in_force()
        marks = {freeze.mark for freeze in there}
        known = self.written()
        if marks == known.keys():
            return None
        return there, [mark for mark, freeze in known.items() if mark not in marks and self.store.thawed(freeze)]

    def written(self) -> dict[Mark, Freeze]:
        """Those that the store should have."""
        return {freeze.mark: freeze for freeze in list(self.known.values()) if freeze.number > 0}

    def written_for_all(self) -> bool:
        """Whether the whole system is frozen in the store."""
        return any(freeze.number > 0 for freeze in self.of(SYSTEM))

    def keep(self) -> Kept:
        """What may change from here on, for `put_back`."""
        return {scope: list(kept) for scope, kept in self.by_scope.items()}, dict(self.known), self.memory

    def put_back(self, kept: Kept, *, stored: bool) -> None:
        """Make it what it was when `keep` was called; without `stored` only what is in memory."""
        frozen, known, self.memory = kept
        if stored:
            self.by_scope, self.known = {scope: list(held) for scope, held in frozen.items()}, dict(known)


def in_memory(invariant: str, allows: list[str], breach: int, time_ns: int, holder: str) -> Freeze:
    """The freeze of the whole system that stands for one which could not be written."""
    return Freeze(
        number=-breach,
        scope=SYSTEM,
        allows=allows,
        invariant=invariant,
        breach=breach,
        time_ns=time_ns,
        holder=holder,
    )
