"""The invariant catalogue: one TOML entry per invariant, the predicates, the digest and the operator's book."""

from holdover.catalogue.catalogue import Catalogue, Invariant
from holdover.catalogue.entry import CatalogueError, Entry, Evidence, ResponseStep
from holdover.catalogue.policy import Policy
from holdover.catalogue.predicate import BoundPredicate, PredicateError, Read, predicate
from holdover.catalogue.reads import (
    Adopted,
    AdoptedBy,
    Adoption,
    Before,
    Boundary,
    Frozen,
    Held,
    Recent,
    ReferenceData,
    Sum,
    Threshold,
    Total,
    Used,
    Via,
)

__all__ = [
    "CatalogueError",
    "PredicateError",
    "Before",
    "Adopted",
    "AdoptedBy",
    "Adoption",
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
    "Recent",
    "ReferenceData",
    "ResponseStep",
    "Sum",
    "Threshold",
    "Total",
    "Used",
    "Via",
    "predicate",
]
