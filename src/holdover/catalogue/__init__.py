"""The invariant catalogue: one TOML entry each, the predicates, the digest, the book."""

from holdover.catalogue.entry import BadCatalogue, Entry, Evidence, ResponseStep
from holdover.catalogue.load import Catalogue, Invariant
from holdover.catalogue.predicate import BadPredicate, BoundPredicate, Read, predicate
from holdover.catalogue.reads import Before, Boundary, Frozen, Held, Sum, Total, Via

__all__ = [
    "BadCatalogue",
    "BadPredicate",
    "Before",
    "BoundPredicate",
    "Boundary",
    "Catalogue",
    "Entry",
    "Evidence",
    "Frozen",
    "Held",
    "Invariant",
    "Read",
    "ResponseStep",
    "Sum",
    "Total",
    "Via",
    "predicate",
]
