"""The evidence of breaches: their numbers, how often each recurred, and the bundles that reproduce them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from holdover.model import Record, scope_of
from holdover.runtime.background import Pace
from holdover.runtime.breach import Breach
from holdover.runtime.bundle import SUFFIX, GuardSnapshot, encode_breach_part, make_bundle_info, save_in_pieces
from holdover.runtime.check import Check
from holdover.runtime.redaction import RedactionRules
from holdover.state import Stateful

if TYPE_CHECKING:
    from holdover.runtime.guard import Guard

log = logging.getLogger("holdover.guard")


class BreachEvidenceState(msgspec.Struct):
    """The state of the evidence."""

    breaches: list[Breach]
    repeat_counts: dict[tuple[str, str], int]
    last_number: int
    unbundled_breaches: list[Breach]


class BreachEvidence(Stateful[BreachEvidenceState]):
    """The breaches of one guard, oldest first; each subject of an invariant counts once until its scope is thawed.

    `bundles`, a folder, receives a bundle for each breach, redacted by `rules`. `repeat_counts` counts each breach by
    (invariant/subsystem/key, scope). `on_breach` receives each breach after its freeze. `is_quiet` suppresses the log.
    """

    State = BreachEvidenceState
    DERIVED: ClassVar = {
        "_guard": "the guard that this is a part of",
        "bundles": "a setting of the guard",
        "rules": "a setting of the guard",
        "is_quiet": "a setting of the guard",
        "on_breach": "a function of whoever follows the guard",
    }

    def __init__(self, guard: Guard, bundles: Path | None, rules: RedactionRules) -> None:
        self.breaches: list[Breach] = []
        self.repeat_counts: dict[tuple[str, str], int] = {}
        self.bundles, self.rules = bundles, rules
        self.on_breach: Callable[[Breach], None] | None = None
        self.is_quiet = False
        self.last_number = guard.store.last_breach_number()
        self._unbundled_breaches: list[Breach] = []
        self._guard = guard

    def handle_breach(self, breach: Breach, check: Check) -> None:
        """Freeze, number and publish a breach, unless it is a repetition."""
        guard = self._guard
        anchor = guard.monitor.records(check.bound.anchor.kind or Record, breach.subsystem).get(breach.key)
        scope = scope_of(check.entry.scope, breach.subsystem, anchor)
        mark = (f"{breach.invariant}/{breach.subsystem}/{breach.key}", scope)
        self.repeat_counts[mark] = self.repeat_counts.get(mark, 0) + 1
        if self.repeat_counts[mark] > 1:
            return
        guard.freezes.image.mark_changed()
        breach = msgspec.structs.replace(breach, scope=scope, number=self.last_number + 1)
        breach = guard.freezes.freeze_breach(breach, check)
        if breach.number < 1:
            raise ValueError(f"{breach!r} was numbered {breach.number}; numbers begin with 1")
        self.last_number = max(self.last_number, breach.number)
        self.breaches.append(breach)
        if not self.is_quiet:
            log.error("BREACH %s; state: %s; frozen: %s", breach.explanation, breach.state or "not known", scope)
        if guard.journal is not None:
            guard.journal.write_event(guard.monitor.mutations, breach.time_ns, "breach", breach.explanation)
        guard.freezes.publish_level()
        if self.bundles is not None:
            self._unbundled_breaches.append(breach)  # written when the step ends: then the recorder has its mutation
        if self.on_breach is not None:
            self.on_breach(breach)

    def reset_repeat_counts(self, scope: str) -> None:
        """Treat the next failure in the scope as a new breach."""
        for mark in [mark for mark in self.repeat_counts if mark[1] == scope]:
            del self.repeat_counts[mark]

    def load(self) -> None:
        """Take the breaches and the last number from the store."""
        self.breaches[:] = self._guard.store.breaches()
        self.last_number = self._guard.store.last_breach_number()

    def write_bundles(self) -> None:
        """Write the bundles of the breaches so far, when no step is open, or have the background thread write them."""
        guard = self._guard
        if not self._unbundled_breaches or self.bundles is None or guard.steps.open_steps:
            return
        breaches = list(self._unbundled_breaches)
        self._unbundled_breaches.clear()
        numbers = ", ".join(str(breach.number) for breach in breaches)
        name, snapshot = f"the bundle of breach {numbers}", GuardSnapshot(guard)
        write = partial(_write_bundles, self.bundles, breaches, snapshot, self.rules)

        def copy(pace: Pace) -> None:
            snapshot.take(pace.give_way)
            guard.services.background.submit(name, write)

        if not guard.services.copier.submit(name, copy):
            snapshot.discard()


def _write_bundles(
    directory: Path, breaches: Sequence[Breach], snapshot: GuardSnapshot, rules: RedactionRules, pace: Pace
) -> None:
    parts = snapshot.encode_parts(rules, pace.give_way)
    for breach in breaches:
        info = make_bundle_info(breach, rules, snapshot.trade_date)
        breach_parts = {name: [content] for name, content in encode_breach_part(breach, rules).items()}
        save_in_pieces(directory / f"breach-{breach.number}{SUFFIX}", info, {**parts, **breach_parts}, pace.give_way)
