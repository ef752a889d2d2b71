"""The invariant catalogue: one TOML entry per invariant, the predicates, the digest and the operator's book."""

from holdover.catalogue.catalogue import Catalogue, Invariant
from holdover.catalogue.entry import CatalogueError, Entry, Evidence, ResponseStep
from holdover.catalogue.policy import Policy
from holdover.catalogue.predicate import BoundPredicate, PredicateError, Read, predicate
from holdover.catalogue.reads import Before, Boundary, Frozen, Held, Sum, Total, Via

__all__ = [
    "CatalogueError",
    "PredicateError",
    "Before",
    "BoundPredicate",
    "Boundary",
    "Catalogue",
    "Entry",
    "Evidence",
    "Frozen",
    "Held",
    "Invariant",
    "Policy",
    "Read",
    "ResponseStep",
    "Sum",
    "Total",
    "Via",
    "predicate",
]
