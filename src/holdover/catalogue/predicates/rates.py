"""Rates: a system that repeats itself, floods the venue or never finishes its reconciliation is out of control."""

from __future__ import annotations

from typing import Annotated

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Recent, Threshold
from holdover.model import Order, ReconciliationEffort, Request

MESSAGES = Recent(Request, "gateway", by="account", within="1s")
REPEATS = Recent(Request, "gateway", by="terms_key", within="10s")
REJECTS = Recent(Order, "orders", by="book_key", within="10s", where="is_rejected")


@predicate("message-rate-bounded")
def message_rate_bounded(
    request: Annotated[Request, "gateway"], message_count: Annotated[int, MESSAGES], threshold: Threshold
) -> bool:
    """Counts the requests of one account in the last second."""
    return message_count <= threshold.limit


@predicate("repeated-requests-bounded")
def repeated_requests_bounded(
    request: Annotated[Request, "gateway"], repeat_count: Annotated[int, REPEATS], threshold: Threshold
) -> bool:
    """Counts the requests of the last ten seconds that differ only in their ClOrdID."""
    return repeat_count <= threshold.limit


@predicate("reject-rate-bounded")
def reject_rate_bounded(
    order: Annotated[Order, "orders"], reject_count: Annotated[int, REJECTS], threshold: Threshold
) -> bool | None:
    """Counts the rejected orders of one account and instrument in the last ten seconds."""
    if not order.is_rejected:
        return None
    return reject_count <= threshold.limit


@predicate("reconciliation-bounded", needs=("reconciler.Reconciliation.is_complete",))
def reconciliation_attempts_bounded(effort: ReconciliationEffort, threshold: Threshold) -> bool:
    """Each start since the last complete reconciliation counts, also one that ended with a lost link."""
    return effort.attempts <= threshold.limit


@predicate("reconciliation-bounded", needs=("reconciler.Reconciliation.is_complete",))
def unreconciled_time_bounded(effort: ReconciliationEffort, threshold: Threshold) -> bool:
    """Sums the time on a link that is up and not reconciled, over its reconnects: ten seconds for each attempt."""
    return effort.unreconciled_ns <= threshold.limit * 10_000_000_000
