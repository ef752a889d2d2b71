"""How long and how often a link was up without a complete reconciliation, over its reconnects."""

from __future__ import annotations

from typing import Annotated

import msgspec

from holdover.model import Link, Reconciliation, ReconciliationEffort
from holdover.state import Owned, StateError, Stateful


class LinkEffort(msgspec.Struct):
    """The effort on one link since its last complete reconciliation; `since_ns` is 0 while no time counts."""

    epoch: int = 0
    attempts: int = 0
    unreconciled_ns: int = 0
    since_ns: int = 0
    is_up: bool = False
    is_reconciled: bool = False


class EffortTrackerState(msgspec.Struct):
    """The efforts by link."""

    by_link: Annotated[dict[str, LinkEffort], Owned]


class EffortTracker(Stateful[EffortTrackerState]):
    """Follows links and reconciliations; each change of the effort is a record for `reconciliation-bounded`."""

    State = EffortTrackerState

    def __init__(self) -> None:
        self.by_link: dict[str, LinkEffort] = {}

    def observe_link(self, link: Link, now_ns: int) -> ReconciliationEffort | None:
        """Note a change of a link. Returns the effort when the link came up anew or went down."""
        effort = self.by_link.setdefault(link.name, LinkEffort())
        if link.is_up == effort.is_up and link.epoch == effort.epoch:
            return None
        self._stop(effort, now_ns)
        effort.is_up = link.is_up
        if link.is_up:
            effort.epoch, effort.is_reconciled = link.epoch, False
            effort.attempts += 1
            effort.since_ns = now_ns
        return self._state_of(link.name, effort)

    def observe_reconciliation(self, reconciliation: Reconciliation, now_ns: int) -> ReconciliationEffort | None:
        """Note the progress of a reconciliation. Returns the effort when it has begun again or is complete."""
        effort = self.by_link.setdefault(reconciliation.link, LinkEffort())
        is_reconciled = reconciliation.is_complete and reconciliation.epoch >= effort.epoch
        if is_reconciled == effort.is_reconciled:
            return None
        self._stop(effort, now_ns)
        effort.is_reconciled = is_reconciled
        if is_reconciled:
            effort.attempts = effort.unreconciled_ns = 0
        else:
            effort.attempts += 1
            effort.since_ns = now_ns if effort.is_up else 0
        return self._state_of(reconciliation.link, effort)

    def _after_restore(self) -> None:
        for link, effort in self.by_link.items():
            if min(effort.attempts, effort.unreconciled_ns, effort.since_ns) < 0:
                raise StateError(
                    f"link {link}: {effort.attempts} attempts to reconcile in {effort.unreconciled_ns} ns since "
                    f"{effort.since_ns}; none of these can be negative"
                )

    def pause(self, now_ns: int) -> None:
        """Stop counting while the guarded process is down; its next link comes up anew."""
        for effort in self.by_link.values():
            self._stop(effort, now_ns)
            effort.is_up = False

    def _stop(self, effort: LinkEffort, now_ns: int) -> None:
        if effort.since_ns:
            effort.unreconciled_ns += max(now_ns - effort.since_ns, 0)
        effort.since_ns = 0

    def _state_of(self, link: str, effort: LinkEffort) -> ReconciliationEffort:
        return ReconciliationEffort(link=link, attempts=effort.attempts, unreconciled_ns=effort.unreconciled_ns)
