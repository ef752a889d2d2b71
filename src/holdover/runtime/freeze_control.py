"""Freezes and thaws of one guard: what is frozen, what that forbids, and how it ends.

A freeze is durable before the step of its breach returns. When it cannot be written, the whole system is frozen in
memory, and the freeze is written as soon as the store accepts it. Only a thaw by a named operator ends a freeze.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from holdover.catalogue.policy import OBSERVE
from holdover.model import SYSTEM, Query, Request
from holdover.runtime.axes import freeze_level_of
from holdover.runtime.breach import Breach, make_page
from holdover.runtime.check import Check
from holdover.runtime.database import StoreError
from holdover.runtime.freeze_cache import FreezeCache, make_memory_freeze
from holdover.runtime.freeze_scope import reduces_position
from holdover.runtime.freeze_store import AGREES, Freeze, FreezeIdentity, FreezeStore, ThawRequest
from holdover.runtime.observation import Observation
from holdover.runtime.persons import check_person, escape_unprintable
from holdover.state import Stateful

if TYPE_CHECKING:
    from holdover.runtime.guard import Guard

log = logging.getLogger("holdover.guard")

_REQUEST_AGE_MAX_NS = 30_000_000_000


class ThawRefusedError(RuntimeError):
    """A thaw was refused; the message says why."""


class UnwrittenFreeze(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's freeze that could not be written yet."""

    freeze: Freeze
    operator: str
    reason: str


class StoreImageState(msgspec.Struct):
    """The number of the store's content."""

    number: int


class StoreImage(Stateful[StoreImageState]):
    """The content of a store as a value. Each change has a unique number, by which a checkpoint recognises it.

    Number 0 is the empty store. A checkpoint of an unchanged store costs nothing.
    """

    State = StoreImageState
    DERIVED: ClassVar = {"_store": "the store itself", "_numbers": "numbers that are never used again"}

    def __init__(self, store: FreezeStore) -> None:
        self.number = 0
        self._store = store
        self._numbers = itertools.count(1)

    def mark_changed(self) -> None:
        """Note that the store is about to change."""
        self.number = next(self._numbers)

    def checkpoint(self) -> Any:
        """Return the number and, unless the store is empty, its content."""
        return super().checkpoint(), self._store.to_bytes() if self.number else b""

    def rollback(self, checkpoint: Any) -> None:
        """Restore the content of a checkpoint, if the store has changed since."""
        state, content = checkpoint
        before = self.number
        super().rollback(state)
        if self.number == before:
            return
        if content:
            self._store.restore_bytes(content)
        else:
            self._store.clear()


class FreezeControlState(msgspec.Struct):
    """The state of the freezes."""

    cache: FreezeCache
    image: StoreImage
    observation: Observation
    problem: str
    unwritten_breaches: list[tuple[Breach, Check]]
    unwritten_freezes: list[UnwrittenFreeze]


class FreezeControl(Stateful[FreezeControlState]):
    """The freezes of one guard. `problem` says what is wrong with the store; `unwritten_breaches` are those whose
    freezes exist only in memory, `unwritten_freezes` those of operators. `observation` has the freezes that are only
    observed.
    """

    State = FreezeControlState
    DERIVED: ClassVar = {"_guard": "the guard that this is a part of"}

    def __init__(self, guard: Guard) -> None:
        self.problem = ""
        self.unwritten_breaches: list[tuple[Breach, Check]] = []
        self.unwritten_freezes: list[UnwrittenFreeze] = []
        self.cache = FreezeCache(guard.store, self._reduces_position)
        self.image = StoreImage(guard.store)
        self.observation = Observation(guard, self._reduces_position)
        self._guard = guard

    # -- what may leave -----------------------------------------------------------------------------------------

    def permits(self, message: Request | Query) -> bool:
        """Whether a message may leave; see `Guard.permits`."""
        if isinstance(message, Query):
            return True
        watcher = self._guard.services.freeze_watcher
        if watcher is not None and not watcher.ensure_fresh() and self._guard.catalogue.mode != OBSERVE:
            return False
        if self.cache.by_scope and self.cache.forbids(message):
            return False
        if self.observation.freezes.by_scope:
            self.observation.count_refusal(message)
        return True

    def _reduces_position(self, request: Request) -> bool:
        return reduces_position(self._guard.monitor, request)

    # -- operators ----------------------------------------------------------------------------------------------

    def freeze(self, scope: str, operator: str, reason: str, allows: Sequence[str]) -> None:
        """Freeze a scope on an operator's request; see `Guard.freeze`."""
        guard = self._guard
        check_person(operator)
        with guard.steps.lock:
            number = min([0, *(number for number, _, _, _ in self.cache.by_identity)]) - 1
            unwritten = Freeze(
                number=number,
                scope=scope,
                allows=list(allows),
                invariant=f"by hand: {operator}",
                breach=0,
                time_ns=guard.clock(),
                holder=guard.name,
            )
            self.cache.add(unwritten)  # it holds before it is written, also when it cannot be written
            self.image.mark_changed()
            try:
                freeze = guard.store.freeze(scope, list(allows), operator, reason, unwritten.time_ns)
            except StoreError as problem:
                self.problem = f"the freeze of {scope} by {operator} could not be written: {problem}"
                self.unwritten_freezes.append(UnwrittenFreeze(freeze=unwritten, operator=operator, reason=reason))
                log.critical("%s; it holds in memory", self.problem)
                self.publish_level()
                raise
            except ValueError:
                self.cache.replace(unwritten, None)
                raise
            self.cache.replace(unwritten, freeze)
            self.publish_level()

    def thaw(self, scope: str, operator: str, reason: str, evidence: str, forced_by: str) -> int:
        """End the freezes of a scope, and write a refusal to the audit log; see `Guard.thaw`."""
        try:
            return self.end_freezes(scope, operator, reason, evidence, forced_by)
        except ThawRefusedError as refusal:
            detail = f"{scope} by {escape_unprintable(operator)}: {refusal}"
            with contextlib.suppress(StoreError):
                self._guard.store.log_action("thaw refused", detail, self._guard.clock())
            raise

    def end_freezes(
        self,
        scope: str,
        operator: str,
        reason: str,
        evidence: str,
        forced_by: str,
        agreed: Collection[int] = (),
    ) -> int:
        """End the freezes of a scope, as `thaw` does; whoever requests it writes a refusal to the audit log.

        `agreed` are the numbers of the breaches of which another guard knows that they hold again.
        """
        for field_name, value in (("operator", operator), ("reason", reason), ("evidence", evidence)):
            if not value.strip():
                raise ThawRefusedError(f"a thaw needs {field_name}: say who, why and on what evidence")
        try:
            check_person(operator)
            check_person(forced_by or operator, "second person")
        except ValueError as problem:
            raise ThawRefusedError(str(problem)) from None
        guard = self._guard
        with guard.steps.lock:
            freezes = self.cache.freezes_of(scope)
            if not freezes:
                frozen = ", ".join(dict.fromkeys(freeze.scope for freeze in self.cache.active_freezes())) or "nothing"
                raise ThawRefusedError(f"{scope} is not frozen; frozen is: {frozen}")
            if forced_by and forced_by.strip() == operator.strip():
                raise ThawRefusedError("a forced thaw needs the name of a second person")
            if not forced_by:
                frozen_numbers = {freeze.breach for freeze in freezes}
                for breach in self._breaches_to_judge(freezes):
                    # Which guard recorded a breach without a freeze is not known, so it may fail at none of them.
                    is_agreed = breach.number in agreed
                    if not is_agreed or (breach.number not in frozen_numbers and self._fails(breach)):
                        self._refuse_unless_known(breach)
            self.image.mark_changed()
            ended_count = guard.store.thaw(scope, operator, reason, evidence, forced_by, guard.clock())
            if self.cache.memory_freeze is not None and scope == SYSTEM:
                self.cache.memory_freeze = None
                self.unwritten_breaches.clear()
                self.problem = ""
            self.unwritten_freezes[:] = [entry for entry in self.unwritten_freezes if entry.freeze.scope != scope]
            self.load(thawed=[freeze.identity for freeze in freezes])
            guard.evidence.reset_repeat_counts(scope)
            self.publish_level()
        log.warning("thawed %s by %s: %s", scope, operator, reason)
        return ended_count

    def judge_own_breaches(self, scope: str) -> list[int]:
        """Return the numbers of the breaches in a frozen scope that this guard knows to hold again.

        Raises `ThawRefusedError` when one of its own freezes may not be ended, or a breach of any guard fails here. A
        breach for which another guard froze is that guard's to judge; one that it cannot judge is left out.
        """
        with self._guard.steps.lock:
            freezes = self.cache.freezes_of(scope)
            holders = {freeze.breach: freeze.holder for freeze in freezes}
            agreed = []
            for breach in self._breaches_to_judge(freezes):
                holder = holders.get(breach.number, "")
                if holder not in ("", self._guard.name):
                    continue
                try:
                    self._refuse_unless_known(breach)
                except ThawRefusedError:
                    if holder or self._fails(breach):
                        raise
                else:
                    agreed.append(breach.number)
            return agreed

    def _fails(self, breach: Breach) -> bool:
        holds = self._guard.monitor.holds(breach.invariant, breach.subsystem, breach.kind, breach.key)
        return holds is False

    def _breaches_to_judge(self, freezes: Sequence[Freeze]) -> list[Breach]:
        stored_breaches = {breach.number: breach for breach in self._guard.store.breaches()}
        breaches: list[Breach] = []
        for freeze in freezes:
            if freeze is self.cache.memory_freeze:
                breaches += [breach for breach, _ in self.unwritten_breaches]
            elif freeze.breach in stored_breaches:
                breaches.append(stored_breaches[freeze.breach])
            elif freeze.breach:
                raise ThawRefusedError(
                    f"the store has no breach {freeze.breach}, for which {freeze.scope} is frozen: nobody can tell "
                    f"what has to hold again, and a second person has to force the thaw"
                )
        return breaches + self._covered_breaches(freezes, stored_breaches.values())

    def _covered_breaches(self, freezes: Sequence[Freeze], stored_breaches: Iterable[Breach]) -> list[Breach]:
        """Return the breaches that needed no freeze of their own, because their scope was frozen already."""
        oldest = min((freeze.breach for freeze in freezes if freeze.breach > 0), default=0)
        numbers = {freeze.breach for freeze in freezes}
        scope = freezes[0].scope
        return [
            breach
            for breach in stored_breaches
            if oldest and breach.number > oldest and breach.scope == scope and breach.number not in numbers
        ]

    def _refuse_unless_known(self, breach: Breach) -> None:
        """Raise `ThawRefusedError` unless it is known that the invariant holds again or no longer applies."""
        monitor = self._guard.monitor
        subject = (breach.invariant, breach.subsystem, breach.kind, breach.key)
        result = monitor.holds(*subject)
        if result is False:
            raise ThawRefusedError(
                f"{breach.invariant} still does not hold of {breach.key}: put it right first, "
                f"or have a second person force the thaw"
            )
        unknown = f"whether {breach.invariant} holds again of {breach.key} is unknown"
        if problem := self._guard.memory_problem:
            raise ThawRefusedError(
                f"{unknown}: {problem}. It becomes known when the system has restored its records and reported "
                f"`reconciled`; until then, a second person has to force the thaw"
            )
        if result is not None:
            return
        is_recorded = any(
            table[0] == breach.subsystem and table[1].__name__ == breach.kind and breach.key in records
            for table, records in monitor.all_records().items()
        )
        if not is_recorded:
            raise ThawRefusedError(
                f"{unknown}: the guard has no {breach.kind} {breach.key} of {breach.subsystem}. It becomes known when "
                f"the system records or restores it; until then, a second person has to force the thaw"
            )
        if monitor.lacks_records(*subject):
            raise ThawRefusedError(
                f"{unknown}: records that it compares are missing. It becomes known when the system records or "
                f"restores them; until then, a second person has to force the thaw"
            )

    # -- breaches -----------------------------------------------------------------------------------------------

    def freeze_breach(self, breach: Breach, check: Check) -> Breach:
        """Freeze the breach's scope on disk, or everything in memory. Returns the breach with the store's number."""
        try:
            return self._write_freeze(breach, check)
        except StoreError as problem:
            self._freeze_in_memory(breach, check, problem)
            return breach

    def _write_freeze(self, breach: Breach, check: Check) -> Breach:
        """Write a cause with its alert, or a consequence; `BreachEvidence.close_settle` wakes the pager."""
        guard = self._guard
        if breach.consequence_of:
            allows = None if self._is_covered(breach, check) else list(check.entry.allows)
            number, consequence_freeze = guard.store.record_consequence(breach, allows)
            if consequence_freeze is not None:
                self.cache.add(consequence_freeze)
            if number:
                return msgspec.structs.replace(breach, number=number)
        page = make_page(breach, check.entry, breach.number, guard.location)
        freeze = guard.store.record_breach(breach, list(check.entry.allows), page, guard.pager.channel_names())
        self.cache.add(freeze)
        return msgspec.structs.replace(breach, number=freeze.breach, consequence_of=0)

    def _is_covered(self, breach: Breach, check: Check) -> bool:
        """Whether this guard has frozen exactly the breach's scope, no more loosely than the breach would.

        A wider frozen scope does not cover it: a thaw of that must not thaw this one.
        """
        return any(
            freeze.breach > 0
            and freeze.number > 0
            and freeze.holder == self._guard.store.name
            and set(freeze.allows) <= set(check.entry.allows)
            for freeze in self.cache.freezes_of(breach.scope)
        )

    def _freeze_in_memory(self, breach: Breach, check: Check, problem: StoreError) -> None:
        """Freeze the whole system in memory and page on-call, because the freeze cannot be made durable."""
        guard = self._guard
        self.problem = f"the freeze for {breach.invariant} could not be written: {problem}"
        self.unwritten_breaches.append((breach, check))
        allows = list(check.entry.allows)
        memory_freeze = make_memory_freeze(breach.invariant, allows, breach.number, breach.time_ns, guard.name)
        self.cache.memory_freeze = memory_freeze
        self.cache.add(memory_freeze)
        log.critical("%s; the whole system is frozen in memory", self.problem)
        if not breach.consequence_of:
            page_breach = msgspec.structs.replace(breach, scope=SYSTEM)
            guard.pager.send_directly(make_page(page_breach, check.entry, breach.number, guard.location))

    def _write_pending_freezes(self) -> None:
        """Write the freezes that so far exist only in memory, now that the store accepts writes again.

        The freeze of the whole system stays until a thaw, because an operator must look at the failure of the store.
        """
        guard = self._guard
        while self.unwritten_breaches:
            breach, check = self.unwritten_breaches[0]
            self.image.mark_changed()
            written = self._write_freeze(breach, check)
            if written.number != breach.number:  # another process used the number meanwhile
                self.unwritten_breaches[:] = [
                    (msgspec.structs.replace(later, consequence_of=written.number), later_check)
                    if later.consequence_of == breach.number
                    else (later, later_check)
                    for later, later_check in self.unwritten_breaches
                ]
            guard.pager.wake()
            memory_freeze = self.cache.memory_freeze
            if memory_freeze is not None and not self.cache.is_system_frozen_durably():
                self.cache.add(
                    guard.store.freeze(SYSTEM, memory_freeze.allows, guard.name, self.problem, guard.clock())
                )
            del self.unwritten_breaches[0]
        while self.unwritten_freezes:
            entry = self.unwritten_freezes[0]
            self.image.mark_changed()
            unwritten = entry.freeze
            freeze = guard.store.freeze(
                unwritten.scope, unwritten.allows, entry.operator, entry.reason, unwritten.time_ns
            )
            self.cache.replace(unwritten, freeze)
            del self.unwritten_freezes[0]
            if self.cache.memory_freeze is None:
                self.problem = ""

    # -- the store ----------------------------------------------------------------------------------------------

    def load(self, stored_freezes: Sequence[Freeze] | None = None, thawed: Sequence[FreezeIdentity] = ()) -> None:
        """Merge the store's freezes into the known ones, without the `thawed` ones."""
        self.cache.reload(stored_freezes, thawed)
        self._guard.cells.notify("freeze", freeze_level_of(self.cache.scopes()))

    def reload(self) -> None:
        """Read the freezes in force again; see `Guard.reload`."""
        changed = self.cache.find_changes()
        if changed is None:
            return
        stored_freezes, thawed = changed
        with self._guard.steps.lock:
            scopes = {scope for _, scope, _, _ in thawed}
            self.image.mark_changed()
            self.load(stored_freezes, thawed)
            for scope in scopes:
                if not self.cache.freezes_of(scope):
                    self._guard.evidence.reset_repeat_counts(scope)

    def follow_store(self) -> None:
        """Run one round of the freeze watcher: reload freezes, write pending freezes, answer thaw requests."""
        guard = self._guard
        self.reload()
        if self.unwritten_breaches or self.unwritten_freezes:
            with guard.steps.lock:
                self._write_pending_freezes()
        since_ns = guard.clock() - _REQUEST_AGE_MAX_NS
        for request in guard.store.open_thaw_requests(guard.name, since_ns):
            guard.store.answer_request(request.number, self._answer(request), guard.clock())

    def _answer(self, request: ThawRequest) -> str:
        """Do what a request asks for. Returns the answer: empty after a thaw, otherwise the refusal or an agreement."""
        try:
            if request.judges_only:
                return AGREES + ",".join(str(number) for number in self.judge_own_breaches(request.scope))
            self.end_freezes(
                request.scope, request.operator, request.reason, request.evidence, request.forced_by, request.agreed
            )
        except ThawRefusedError as problem:
            return str(problem)
        return ""

    def check_store(self, boundary: str) -> None:
        """Compare the freezes in the store with the known ones, for `freeze-survives`."""
        try:
            stored_identities = {freeze.identity for freeze in self._guard.store.active_freezes()}
        except StoreError as problem:
            self.problem = str(problem)
            stored_identities = set()
        lost_freezes = [
            repr(freeze) for mark, freeze in self.cache.durable_freezes().items() if mark not in stored_identities
        ]
        self._guard.monitor.record_freeze_check(boundary, len(stored_identities), lost_freezes)

    def publish_level(self) -> None:
        """Tell the axes and the journal how much is frozen."""
        guard = self._guard
        level = freeze_level_of(self.cache.scopes())
        guard.cells.notify("freeze", level)
        if guard.journal is not None:
            guard.journal.write_event(guard.monitor.mutations, guard.clock(), "freeze", level)
