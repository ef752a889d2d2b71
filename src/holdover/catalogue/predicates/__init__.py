"""The predicates of the built-in catalogue, one module per family. Importing this package declares all of them."""

from holdover.catalogue.predicates import (
    accounts,
    agreement,
    contingency,
    exposure,
    freeze,
    identity,
    intent,
    lifecycle,
    link,
    quantity,
    rates,
    reconciliation,
    terms,
    timing,
)

__all__ = [
    "accounts",
    "agreement",
    "contingency",
    "exposure",
    "freeze",
    "identity",
    "intent",
    "lifecycle",
    "link",
    "quantity",
    "rates",
    "reconciliation",
    "terms",
    "timing",
]
