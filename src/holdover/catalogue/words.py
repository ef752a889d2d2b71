"""The words of the catalogue: families, when an invariant is asserted, what a breach freezes and still allows."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from holdover.catalogue.catalogue import Catalogue, Invariant
from holdover.catalogue.entry import Entry

_FAMILIES: Final = {
    "quantity": ("Quantity", "What an order, a position, an account and a parent order are made of adds up."),
    "agreement": ("Agreement", "The parts of one system tell the same story, and so do memory, store and venue units."),
    "reconciliation": ("Reconciliation", "What the system believes is what the venue knows."),
    "lifecycle": ("Lifecycle", "An order moves as FIX says it may, and ends when its time in force says so."),
    "identity": ("Identity", "An execution is booked once, a ClOrdID used once, and everything has one owner."),
    "session": ("Session", "Nothing is missed on the link, and nothing is sent where nobody hears it."),
    "exposure": ("Exposure", "What could still happen stays inside what was allowed."),
    "freeze": ("Freeze discipline", "What is frozen stays frozen, and nothing leaves it."),
    "timing": ("Timing", "Answers come in time, and time goes forward."),
}
_FREEZES: Final = {
    "system": "the whole system",
    "subsystem": "the subsystem",
    "account": "the account",
    "account+instrument": "the instrument in that account",
    "strategy": "the strategy",
    "instrument": "the instrument, in every account",
    "order": "the order",
    "link": "the link to the venue",
}
_ALLOWS: Final = {"cancel": "cancels", "reduce": "orders that reduce a position", "query": "questions to the venue"}
CATEGORY_WORDS: Final = {
    "carried-partial-fill": "partial fills carried overnight",
    "restart-reconciliation": "reconciliation across a restart",
    "partition": "order state over a disconnect",
}


def describe_assertion(entry: Entry, asserted: str = "") -> str:
    """Describe when the invariant is evaluated. A non-empty `asserted` overrides the entry's own."""
    phrases = {
        "on-mutation": "on every mutation",
        "when-settled": "when a step has settled",
        "when-reconciled": "whenever nothing is in flight, and in full when a reconciliation is complete",
        "at-boundary": f"at the boundary {', '.join(entry.at)}" if entry.at else "at every boundary",
        "within": f"must come to hold within {entry.within}",
    }
    return phrases[asserted or entry.asserted]


def describe_freeze(entry: Entry) -> str:
    """Describe what a breach freezes."""
    return _FREEZES.get(entry.scope, entry.scope)


def describe_allowed(entry: Entry) -> str:
    """Describe what the freeze still allows."""
    return ", ".join(_ALLOWS.get(action, action) for action in entry.allows) or "nothing"


def group_families(catalogue: Catalogue) -> list[tuple[str, str, str, list[Invariant]]]:
    """Return each family with its title, its sentence and its invariants, in the catalogue's order."""
    families = []
    for family, invariants in groupby(catalogue, key=lambda invariant: invariant.entry.family):
        title, lede = _FAMILIES.get(family, (family.replace("-", " ").capitalize(), ""))
        families.append((family, title, lede, list(invariants)))
    return families
