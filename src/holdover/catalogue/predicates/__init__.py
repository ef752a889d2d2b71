"""The predicates of the built-in catalogue, one module per family. Importing this package declares all of them."""

from holdover.catalogue.predicates import (
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
