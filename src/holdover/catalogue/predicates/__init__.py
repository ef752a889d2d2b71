"""The predicates of the built-in catalogue, one module per family. Importing this package declares all of them."""

from holdover.catalogue.predicates import (
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
