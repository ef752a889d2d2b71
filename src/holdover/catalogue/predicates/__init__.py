"""The predicates of the built-in catalogue, one module a family. Importing this package declares them all."""

from holdover.catalogue.predicates import (
    agreement,
    exposure,
    freeze,
    identity,
    lifecycle,
    link,
    quantity,
    reconciliation,
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
    "reconciliation",
    "timing",
]
