"""What predicates read, in words: running totals, counts within a time, and where a record is."""

from __future__ import annotations

from typing import Final

from holdover.catalogue.reads import Recent, Total
from holdover.runtime.record_text import field_words, format_window, kind_words

_PLACES: Final = {
    "venue": "at the venue",
    "risk": "in the risk check",
    "ledger": "in the ledger",
    "gateway": "at the gateway",
    "reconciler": "in the reconciler",
    "store": "in the store",
    "guard": "in the guard",
    "positions": "in the position keeper",
    "orders": "in the order manager",
}
_TOTAL_OWNERS: Final = {
    "cl_ord_link_id": "its parent order's",
    "alternatives_key": "its group's",
    "list_id": "its list's",
    "day_key": "the day's",
    "cash_key": "the day's",
}
"""Whose records a total adds up, by the anchor's attribute that gives its key."""

_COUNT_NOUNS: Final = {
    "new_order_count": "requests for a new order",
    "replace_count": "replace requests",
    "filled_alternative_count": "orders that are filled whole",
    "unacknowledged": "unacknowledged orders",
}
"""What a total counts, by the attribute that is 1 for each."""

_RECENT_OWNERS: Final = {
    "account": "of its account",
    "terms_key": "with the same terms",
    "book_key": "of its account and instrument",
}
"""Which records are counted together, by their common attribute."""

LARGEST_ONLY: Final = "(of alternatives only the largest)"
"""What a total of which only the largest of several alternatives counts says after its records."""


def describe_place(subsystem: str | None) -> str:
    """Return where a subsystem's record is: `at the venue`."""
    return _PLACES.get(subsystem or "", f"in the {subsystem} subsystem")


def describe_total(total: Total) -> str:
    """Return what a running total adds up, in words: `the total booked quantity of its executions`."""
    owner = _TOTAL_OWNERS.get(total.key, "its")
    if total.sum.of in _COUNT_NOUNS:
        return f"the number of {owner} {_COUNT_NOUNS[total.sum.of]}"
    records = f"{owner} {kind_words(total.sum.kind)}s"
    place = f" {describe_place(total.sum.subsystem)}" if total.sum.subsystem == "venue" else ""
    if total.sum.alternatives == total.sum.by:
        return f"the largest {field_words(total.sum.of)} of {records}{place}"
    largest_only = f" {LARGEST_ONLY}" if total.sum.alternatives else ""
    return f"the total {field_words(total.sum.of)} of {records}{place}{largest_only}"


def describe_recent(recent: Recent) -> str:
    """Return what is counted within a time, in words: `the number of requests of its account in the last second`."""
    state = f"{field_words(recent.where)} " if recent.where else ""
    owner = _RECENT_OWNERS.get(recent.by, f"with the same {field_words(recent.by)}")
    return f"the number of {state}{kind_words(recent.kind)}s {owner} in the last {format_window(recent.within_ns)}"
