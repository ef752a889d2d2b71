"""Observation: what a guard does instead of a freeze for an entry whose mode is `observe`.

The breach is written to the store with the freeze that it would have caused; an alert of low urgency is sent; nothing
is frozen. `permits` counts the requests that the guard would have refused. Trading goes on in observe mode, so one
defect can breach an entry at every order: only the first breach of a scope is synced, bundled and sent, its repetitions
are written up to a limit and counted from there on.

An observed freeze ends when a thaw would have been accepted. The guard looks for that once a minute, at a tick or a
boundary. On the day after the last valid day of a policy, the first boundary that begins a day enforces the entry
again; an entry that is off stays off until the restart, which refuses the expired policy.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from holdover.catalogue.entry import Entry
from holdover.catalogue.policy import ENFORCE, OBSERVE, Policy, date_of
from holdover.model import Request
from holdover.runtime.breach import Breach, Page, make_page
from holdover.runtime.check import Check
from holdover.runtime.database import StoreError
from holdover.runtime.observed_freezes import ObservedFreeze, ObservedFreezes, alert_key, make_observed_freeze
from holdover.state import Stateful

if TYPE_CHECKING:
    from holdover.catalogue import Catalogue
    from holdover.runtime.guard import Guard

log = logging.getLogger("holdover.guard")

REVIEW_EVERY_NS: Final = 60_000_000_000
"""How often the guard looks whether a thaw would be accepted, and writes the counts."""
REPETITIONS_MAX: Final = 100
"""How many breaches of one observed freeze are written; later ones are counted only."""
BUNDLES_MAX: Final = 20
"""How many bundles the observed breaches of one invariant leave for each process."""
EXPIRY_NOTICE: Final = timedelta(days=7)
"""How long before the last valid day of a policy an alert announces it."""
DAY_BOUNDARIES: Final = ("begin", "overnight", "restart")
"""The boundaries at which an expired policy takes effect."""
EVERYTHING_ENFORCED: Final = "every entry is enforced"
"""The policy of a guard that has none, in the audit log."""
THAW_POSSIBLE: Final = "a thaw would have been accepted"
"""What ends an observed freeze when a thaw would have been accepted."""


class ObservationState(msgspec.Struct):
    """The state of an observation."""

    freezes: ObservedFreezes
    enforced: set[str]
    bundle_counts: dict[str, int]
    journalled: dict[tuple[str, str], int]
    next_review_ns: int


class Observation(Stateful[ObservationState]):
    """The observed freezes of one guard.

    `enforced` are the entries whose policy has expired in this process. `reduces` tells whether a request only reduces
    a position.
    """

    State = ObservationState
    IN_PROCESS: ClassVar = {"_lock": "a lock of this process"}
    DERIVED: ClassVar = {"_guard": "the guard that this is a part of"}

    def __init__(self, guard: Guard, reduces: Callable[[Request], bool]) -> None:
        self.freezes = ObservedFreezes(reduces)
        self.enforced: set[str] = set()
        self.bundle_counts: dict[str, int] = {}
        self.journalled: dict[tuple[str, str], int] = {}
        self.next_review_ns = 0
        self._lock = threading.Lock()
        self._guard = guard

    # -- breaches -----------------------------------------------------------------------------------------------

    def is_observed(self, invariant: str) -> bool:
        """Return whether a breach of an invariant freezes nothing now."""
        catalogue = self._guard.catalogue
        if catalogue.mode == OBSERVE:
            return True
        return invariant not in self.enforced and catalogue.mode_of(invariant) == OBSERVE

    def record_breach(self, breach: Breach, check: Check) -> Breach | None:
        """Write an observed breach. Returns it with the store's number; None when it was only counted.

        Never raises `StoreError`: a store that cannot be written is no reason to freeze in observe mode.
        """
        guard = self._guard
        breach = msgspec.structs.replace(breach, mode=OBSERVE)
        with self._lock:
            freeze = self.freezes.find(breach.scope, breach.invariant)
            if freeze is not None:
                self.freezes.set_freeze(msgspec.structs.replace(freeze, breaches=freeze.breaches + 1))
        try:
            if freeze is None:
                return self._open_freeze(breach, check)
            if freeze.breaches >= REPETITIONS_MAX:
                return None
            return msgspec.structs.replace(breach, number=guard.store.record_repeated_breach(breach, durable=False))
        except StoreError as problem:
            log.error("the observed breach of %s could not be written: %s", breach.invariant, problem)
            if freeze is None:
                self._set_freeze(make_observed_freeze(breach, check.entry.allows, -breach.number, guard.name))
                guard.pager.send_directly(make_observed_page(breach, check.entry))
            return breach

    def _open_freeze(self, breach: Breach, check: Check) -> Breach:
        guard = self._guard
        page, channels = make_observed_page(breach, check.entry), guard.pager.channel_names()
        freeze = guard.store.record_observed_breach(breach, check.entry.allows, page, channels)
        self._set_freeze(freeze)
        guard.pager.wake()
        return msgspec.structs.replace(breach, number=freeze.breach)

    def _set_freeze(self, freeze: ObservedFreeze) -> None:
        with self._lock:
            self.freezes.set_freeze(freeze)

    def takes_bundle(self, breach: Breach) -> bool:
        """Return whether an observed breach leaves a bundle: the first of its scope, up to a limit; counts it."""
        if breach.mode != OBSERVE:
            raise ValueError(f"{breach!r} was not observed: each enforced breach leaves a bundle")
        freeze = self.freezes.find(breach.scope, breach.invariant)
        count = self.bundle_counts.get(breach.invariant, 0)
        if freeze is None or freeze.breach != breach.number or count >= BUNDLES_MAX:
            return False
        self.bundle_counts[breach.invariant] = count + 1
        return True

    # -- requests -----------------------------------------------------------------------------------------------

    def count_refusal(self, request: Request) -> str:
        """Count a request that the guard would have refused. Returns the scope, or an empty string.

        The journal receives it once a minute for each scope and message type.
        """
        with self._lock:
            scope = self.freezes.count_refusal(request)
        if not scope:
            return ""
        guard, message_type = self._guard, request.msg_type.name
        now_ns = guard.clock()
        if abs(now_ns - self.journalled.get((scope, message_type), -REVIEW_EVERY_NS)) >= REVIEW_EVERY_NS:
            with guard.steps.lock:
                self.journalled[scope, message_type] = now_ns
                if guard.journal is not None:
                    detail = f"{scope} {message_type} {request.cl_ord_id}"
                    guard.journal.write_event(guard.monitor.mutations, now_ns, "would-refuse", detail)
        return scope

    # -- time ---------------------------------------------------------------------------------------------------

    def review(self) -> None:
        """End the freezes that a thaw would have ended, and write the counts; at most once a minute."""
        guard = self._guard
        now_ns = guard.clock()
        if now_ns < 0:
            raise ValueError(f"the guard's clock shows {now_ns} ns, should be ns since the epoch")
        if not self.freezes.by_scope or guard.steps.is_open:
            return
        if now_ns < self.next_review_ns <= now_ns + REVIEW_EVERY_NS:
            return
        self.next_review_ns = now_ns + REVIEW_EVERY_NS
        self.journalled = {
            place: time_ns for place, time_ns in self.journalled.items() if now_ns - time_ns < REVIEW_EVERY_NS
        }
        try:
            self.write_counts()
            self._drop_cleared()
            holds = guard.monitor.holds
            recovered = [
                freeze
                for freeze in self.freezes.freezes()
                if holds(freeze.invariant, freeze.subsystem, freeze.kind, freeze.key) is not False
            ]
            self._end(recovered, THAW_POSSIBLE, now_ns)
        except StoreError as problem:
            log.error("the observed freezes could not be written: %s", problem)

    def write_counts(self) -> None:
        """Write how many breaches and refused requests the open freezes have. Raises `StoreError`."""
        if self.freezes.by_scope:
            self._guard.freezes.image.mark_changed()
            self._guard.store.write_observed_counts(self.freezes.freezes(), self._guard.clock())

    def _drop_cleared(self) -> None:
        """Drop the freezes that an operator has cleared in the store."""
        guard = self._guard
        stored = {freeze.number for freeze in guard.store.observed_freezes(open_only=True)}
        for freeze in self.freezes.freezes():
            if freeze.number > 0 and freeze.number not in stored:
                self._remove(freeze)

    def _end(self, freezes: list[ObservedFreeze], by: str, now_ns: int) -> None:
        if not by:
            raise ValueError(f"{len(freezes)} observed freezes cannot end without a reason")
        if not freezes:
            return
        guard = self._guard
        guard.freezes.image.mark_changed()
        guard.store.end_observed_freezes([freeze.number for freeze in freezes], by, now_ns, "itself")
        for freeze in freezes:
            self._remove(freeze)
            if guard.journal is not None:
                detail = f"{freeze.scope} {freeze.invariant}: {by}"
                guard.journal.write_event(guard.monitor.mutations, now_ns, "observed-end", detail)

    def _remove(self, freeze: ObservedFreeze) -> None:
        with self._lock:
            self.freezes.remove(*freeze.mark)
        self._guard.evidence.reset_repeat_counts(freeze.scope, freeze.invariant)

    # -- policies -----------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Take this guard's open freezes from the store; end those of entries that are not observed any more."""
        guard = self._guard
        stored = guard.store.observed_freezes(open_only=True, holder=guard.name)
        self.freezes.by_scope = {}
        for freeze in stored:
            self.freezes.set_freeze(freeze)
        changed = [freeze for freeze in stored if not self.is_observed(freeze.invariant)]
        self._end(changed, "the policy has changed", guard.clock())

    def begin(self) -> None:
        """Load the open freezes, and write the policy to the log and to the audit log."""
        guard = self._guard
        self.load()
        lines = describe_policy(guard.catalogue)
        for line in lines:
            log.warning("%s", line)
        before = guard.store.last_observation_begin()
        if lines or before not in ("", self._describe_begin([])):
            guard.store.log_action("observe", self._describe_begin(lines), guard.clock())
        self.apply_expiry("begin")

    def _describe_begin(self, lines: list[str]) -> str:
        return f"{self._guard.name} begins; {'; '.join(lines) or EVERYTHING_ENFORCED}"

    def apply_expiry(self, boundary: str) -> None:
        """Announce policies that expire soon; enforce the observed entries whose policy has expired.

        Does nothing at a boundary that begins no day.
        """
        guard = self._guard
        if boundary not in DAY_BOUNDARIES or not guard.catalogue.policies:
            return
        now_ns = guard.clock()
        today = date_of(now_ns)
        for policy in guard.catalogue.exceptions():
            if policy.expires is None or today + EXPIRY_NOTICE < policy.expires:
                continue
            if policy.is_expired(today) and policy.mode == OBSERVE:
                self.enforced.add(policy.invariant)
            try:
                self._announce_expiry(policy, now_ns)
            except StoreError as problem:
                log.error("the expiry of the policy of %s could not be announced: %s", policy.invariant, problem)

    def _announce_expiry(self, policy: Policy, now_ns: int) -> None:
        guard = self._guard
        guard.freezes.image.mark_changed()
        guard.store.send_page(make_expiry_page(policy, guard, now_ns), guard.pager.channel_names())
        if not self.is_observed(policy.invariant):
            open_freezes = [freeze for freeze in self.freezes.freezes() if freeze.invariant == policy.invariant]
            self._end(open_freezes, "the policy has expired", now_ns)


def make_observed_page(breach: Breach, entry: Entry) -> Page:
    """Make the alert about an observed breach: low urgency, a key of its own, nothing frozen.

    Raises `ValueError` for the breach of an enforced entry, which needs an alert of high urgency.
    """
    if breach.mode != OBSERVE:
        raise ValueError(f"{breach!r} is the breach of an enforced entry; its alert is that of a freeze")
    return msgspec.structs.replace(
        make_page(breach, entry, breach.number),
        dedup_key=alert_key(breach.scope, breach.invariant),
        severity="warning",
        title=f"OBSERVED, nothing frozen: {breach.invariant} in {breach.scope}",
        next_command=f"holdover catalogue show {breach.invariant}",
        urgency="low",
        is_frozen=False,
    )


def make_expiry_page(policy: Policy, guard: Guard, now_ns: int) -> Page:
    """Make the alert that a policy expires soon or has expired: one for each policy and day of expiry."""
    if policy.expires is None:
        raise ValueError(f"the policy of {policy.invariant} does not expire")
    is_expired = policy.is_expired(date_of(now_ns))
    is_enforced = is_expired and policy.mode == OBSERVE and guard.catalogue.mode != OBSERVE
    result = "the guard enforces it from now on" if is_enforced else "a restart of the guard refuses the policy"
    state = f"has expired: {result}" if is_expired else f"expires after {policy.expires} (UTC)"
    return Page(
        number=0,
        dedup_key=f"policy/{policy.invariant}/{policy.expires}{'/expired' if is_expired else ''}",
        time_ns=now_ns,
        severity="warning",
        invariant=policy.invariant,
        scope="",
        title=f"Policy of {policy.invariant} {'has expired' if is_expired else f'expires after {policy.expires}'}",
        explanation=f"The policy {policy.mode!r} of {policy.invariant} {state}. Its reason: {policy.reason}",
        statement="An entry that is not enforced has a reason and a last day.",
        implication="After that day, the guard does not start with this policy.",
        steps=[
            f"Read what was observed: holdover observe report --guard {guard.directory}. Done when: you know whether "
            "the entry can be enforced.",
            "Remove its [[policy]] table, or enter a later day and the reason for it. Done when: holdover config "
            "check finds no problem.",
        ],
        allows=[],
        next_command=f"holdover observe report --guard {guard.directory}",
        digest=guard.catalogue.digest,
        urgency="low",
        is_frozen=False,
    )


def describe_policy(catalogue: Catalogue) -> list[str]:
    """Return the policy of a catalogue in lines: the guard, what is not enforced, then what has other thresholds."""
    lines = ["the whole guard observes: a breach freezes nothing"] if catalogue.mode == OBSERVE else []
    ordered = sorted(catalogue.policies.values(), key=lambda policy: (policy.mode == ENFORCE, policy.invariant))
    return lines + [f"{policy.invariant}: {policy.describe()}" for policy in ordered]


def describe_policy_difference(first: Sequence[str], second: Sequence[str]) -> str:
    """Return in words how two policies differ, in lines as `describe_policy` gives them; empty when they do not."""
    parts = [f"only here: {line}" for line in first if line not in second]
    parts += [f"only there: {line}" for line in second if line not in first]
    return "; ".join(parts)
