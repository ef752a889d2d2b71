"""The predicates of the built-in catalogue, one module per family. Importing this package declares all of them."""

from holdover.catalogue.predicates import (
    accounts,
    agreement,
    exposure,
    freeze,
    identity,
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
    "exposure",
    "freeze",
    "identity",
    "lifecycle",
    "link",
    "quantity",
    "rates",
    "reconciliation",
    "terms",
    "timing",
]
