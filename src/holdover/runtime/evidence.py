"""The evidence of breaches: their numbers, how often each recurred, and the bundles that reproduce them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.catalogue.policy import OBSERVE
from holdover.model import Balance, Execution, Order, ParentOrder, Position, Record, scope_of
from holdover.runtime.background import Pace
from holdover.runtime.breach import Breach, make_page
from holdover.runtime.bundle import SUFFIX, GuardSnapshot, encode_breach_part, make_bundle_info, save_in_pieces
from holdover.runtime.causes import CauseTracker, find_example, find_subjects, trace_breach
from holdover.runtime.check import Check
from holdover.runtime.database import StoreError
from holdover.runtime.redaction import RedactionRules
from holdover.state import Stateful

if TYPE_CHECKING:
    from holdover.runtime.guard import Guard

log = logging.getLogger("holdover.guard")

_LEARNED_MUTATIONS: Final = 32
_EXAMPLE_TABLES: Final[tuple[tuple[str, type[Record]], ...]] = (
    ("orders", Order),
    ("venue", Order),
    ("orders", ParentOrder),
    ("positions", Position),
    ("venue", Position),
    ("ledger", Balance),
)
"""Where the records are that the example of a self-check can name."""


class BreachEvidenceState(msgspec.Struct):
    """The state of the evidence."""

    breaches: list[Breach]
    repeat_counts: dict[tuple[str, str], int]
    last_number: int
    unbundled_breaches: list[Breach]
    causes: CauseTracker


class BreachEvidence(Stateful[BreachEvidenceState]):
    """The breaches of one guard, oldest first; each subject of an invariant counts once until its scope is thawed.

    `bundles`, a folder, receives a bundle for each breach, redacted by `rules`. `repeat_counts` counts each breach by
    (invariant/subsystem/key, scope). `causes` tells which of them have one cause. `on_breach` receives each breach
    after its freeze. `is_quiet` suppresses the log.
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
        rules.list_records = self._list_records
        self.is_quiet = False
        self.last_number = guard.store.last_breach_number()
        self.causes = CauseTracker()
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
        example = str(getattr(anchor, "first", ""))
        subject = find_example(example, self._find_record) if example else anchor
        subjects, feeds = find_subjects(subject, check.entry.family, self._find_currency)
        breach = msgspec.structs.replace(
            breach, scope=scope, number=self.last_number + 1, subjects=subjects, feeds=feeds
        )
        observation = guard.freezes.observation
        is_observed = observation.is_observed(breach.invariant)
        if is_observed:
            observed_breach = observation.record_breach(breach, check)
            if observed_breach is None:
                return
            breach = observed_breach
        else:
            breach = self._freeze_with_cause(breach, check)
        if breach.number < 1:
            raise ValueError(f"{breach!r} was numbered {breach.number}; numbers begin with 1")
        self.last_number = max(self.last_number, breach.number)
        self.breaches.append(breach)
        if not self.is_quiet:
            _log_breach(self._redact_for_log(breach, anchor))
        if guard.journal is not None:
            event = "observed" if is_observed else "breach"
            guard.journal.write_event(guard.monitor.mutations, breach.time_ns, event, breach.explanation)
        guard.freezes.publish_level()
        if self.bundles is not None and (not is_observed or observation.takes_bundle(breach)):
            self._unbundled_breaches.append(breach)  # written when the step ends: then the recorder has its mutation
        if self.on_breach is not None:
            self.on_breach(breach)

    def _list_records(self) -> list[Record]:
        """Return the records of every table, for the redaction of alerts and bundles."""
        return [record for table in self._guard.monitor.all_records().values() for record in list(table.values())]

    def _redact_for_log(self, breach: Breach, anchor: Record | None) -> Breach:
        """Return a breach without what the rules remove. Under the lock, it learns from the last mutations only."""
        mutations = self._guard.recorder.mutations()[-_LEARNED_MUTATIONS:]
        for record in [anchor, *(mutation.record for mutation in mutations)]:
            self.rules.learn(record)
        self.rules.learn_scope(breach.scope)
        return msgspec.structs.replace(
            breach,
            explanation=self.rules.redact_text(breach.explanation),
            scope=self.rules.redact_text(breach.scope),
        )

    def _freeze_with_cause(self, breach: Breach, check: Check) -> Breach:
        """Freeze the breach under its cause, and remember it for the causes of later breaches."""
        guard = self._guard
        if not self.causes.is_loaded:
            self._load_causes()
        self.causes.forget_thawed(lambda scope: bool(guard.freezes.cache.freezes_of(scope)))
        trace = trace_breach(breach, check.entry.family, check.asserted)
        breach = msgspec.structs.replace(breach, consequence_of=self.causes.find_cause(trace))
        breach = guard.freezes.freeze_breach(breach, check)
        self.causes.add(msgspec.structs.replace(trace, number=breach.number), breach.consequence_of)
        return breach

    def _load_causes(self) -> None:
        """Take over the incidents that an earlier process of this guard left frozen."""
        guard = self._guard
        numbers = {freeze.breach for freeze in guard.active_freezes if freeze.holder == guard.store.name}
        by_cause: dict[int, list[Breach]] = {}
        try:
            stored_breaches = guard.store.breaches() if numbers - {0} else []
        except StoreError:
            return  # the freeze of this breach will not be written either; the next one tries again
        for breach in stored_breaches:
            by_cause.setdefault(breach.cause_number, []).append(breach)
        traces = []
        for cause in sorted(by_cause.keys() & numbers):
            breaches = sorted(by_cause[cause], key=lambda breach: breach.number != breach.cause_number)
            entries = [guard.catalogue.invariants.get(breach.invariant) for breach in breaches]
            traces.append(
                [
                    trace_breach(
                        breach,
                        invariant.entry.family if invariant is not None else "",
                        invariant.entry.asserted if invariant is not None else "",
                    )
                    for breach, invariant in zip(breaches, entries, strict=True)
                ]
            )
        self.causes.load(traces)

    def _find_record(self, key: str) -> Record | None:
        """Return the order, parent order, position or balance of a key; None when there is none."""
        for subsystem, kind in _EXAMPLE_TABLES:
            record = self._guard.monitor.records(kind, subsystem).get(key)
            if record is not None:
                return record
        return None

    def _find_currency(self, account: str, symbol: str) -> str:
        """Return the currency in which an account trades an instrument; empty when nothing says so."""
        monitor = self._guard.monitor
        instrument = monitor.instruments.get(symbol)
        if instrument is not None:
            return str(instrument.currency)
        executions = monitor.records(Execution, "orders").values()
        return next(
            (
                execution.currency
                for execution in executions
                if execution.symbol == symbol and execution.account == account and execution.currency
            ),
            "",
        )

    def close_settle(self) -> None:
        """Decide the causes of the breaches since the last call, and let the pager deliver their alerts."""
        if not self.causes.settle:
            return
        final = self.causes.regrouped_settle()
        if final and not self._write_causes(final):
            final = {}
        self.causes.close_settle(final)
        self._guard.pager.wake()

    def _write_causes(self, causes: dict[int, int]) -> bool:
        """Write the final causes of the settle's breaches. Returns whether they could be changed."""
        guard = self._guard
        indexes = [index for index, breach in enumerate(self.breaches) if breach.number in causes]
        regrouped: dict[int, Breach] = {}
        for index in indexes:
            breach = self.breaches[index]
            cause = causes[breach.number]
            regrouped[breach.number] = msgspec.structs.replace(
                breach, consequence_of=cause if cause != breach.number else 0
            )
        pages = []
        for breach in regrouped.values():
            if not breach.consequence_of:
                followers = [other for other in regrouped.values() if other.consequence_of == breach.number]
                page = make_page(breach, guard.catalogue[breach.invariant].entry, breach.number, guard.location)
                pages.append(page.with_consequences(follower.consequence_line for follower in followers))
        guard.freezes.image.mark_changed()
        try:
            is_written = guard.store.regroup(list(regrouped.values()), pages, guard.pager.channel_names())
        except StoreError as problem:
            log.warning("the causes of %d breaches could not be written: %s", len(regrouped), problem)
            return False
        if is_written:
            for index in indexes:
                self.breaches[index] = regrouped[self.breaches[index].number]
            self._unbundled_breaches[:] = [regrouped.get(b.number, b) for b in self._unbundled_breaches]
        return is_written

    def reset_repeat_counts(self, scope: str, invariant: str = "") -> None:
        """Treat the next failure in the scope as a new breach; with `invariant`, only a failure of that invariant."""
        prefix = f"{invariant}/" if invariant else ""
        for mark in [mark for mark in self.repeat_counts if mark[1] == scope and mark[0].startswith(prefix)]:
            del self.repeat_counts[mark]

    def load(self) -> None:
        """Take the breaches and the last number from the store."""
        self.breaches[:] = self._guard.store.breaches()
        self.last_number = self._guard.store.last_breach_number()
        self.causes.is_loaded = False

    def write_bundles(self) -> None:
        """Write the bundles of the breaches so far, when no step is open, or have the background thread write them."""
        guard = self._guard
        if not self._unbundled_breaches or self.bundles is None or guard.steps.open_steps:
            return
        breaches = list(self._unbundled_breaches)
        self._unbundled_breaches.clear()
        numbers = ", ".join(str(breach.number) for breach in breaches)
        name, snapshot = f"the bundle of breach {numbers}", GuardSnapshot(guard)
        write = partial(_write_bundles, self.bundles, breaches, snapshot, self.rules, guard.catalogue)

        def copy(pace: Pace) -> None:
            snapshot.take(pace.give_way)
            guard.services.background.submit(name, write)

        if not guard.services.copier.submit(name, copy):
            snapshot.discard()


def _log_breach(breach: Breach) -> None:
    state = breach.state or "not known"
    if breach.mode == OBSERVE:
        log.warning("OBSERVED %s; state: %s; nothing frozen in %s", breach.explanation, state, breach.scope)
    else:
        follows = f"; follows from breach {breach.consequence_of}" if breach.consequence_of else ""
        log.error("BREACH %s; state: %s; frozen: %s%s", breach.explanation, state, breach.scope, follows)


def _write_bundles(
    directory: Path,
    breaches: Sequence[Breach],
    snapshot: GuardSnapshot,
    rules: RedactionRules,
    catalogue: Catalogue,
    pace: Pace,
) -> None:
    parts = snapshot.encode_parts(rules, pace.give_way)
    for breach in breaches:
        info = make_bundle_info(breach, rules, snapshot.trade_date, catalogue)
        breach_parts = {name: [content] for name, content in encode_breach_part(breach, rules).items()}
        save_in_pieces(directory / f"breach-{breach.number}{SUFFIX}", info, {**parts, **breach_parts}, pace.give_way)
