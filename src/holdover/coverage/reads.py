"""Which fields of which records an invariant reads: from its annotations, and from the source of its predicates.

A predicate that says `order.leaves_qty` reads that field; one that says `order.is_open` reads what that property reads;
one that hands the order to a function of its own reads what that function reads. Where source is not at hand, every
attribute that the code names counts as read.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable
from functools import lru_cache
from types import FunctionType
from typing import Any

from holdover.catalogue import BoundPredicate, Catalogue
from holdover.model import Record

Field = tuple[str | None, str, str]
"""Subsystem (None: whichever), kind, field."""


def fields_read(catalogue: Catalogue, active: Iterable[str]) -> set[Field]:
    """The fields that the predicates of these invariants read."""
    chosen = set(active)
    return {
        field
        for invariant in catalogue
        if invariant.name in chosen
        for bound in invariant.predicates
        for field in _reads(bound)
    }


def checked(written: Iterable[str], read: set[Field]) -> list[str]:
    """Those of the fields written, as `subsystem.Kind.field`, that are among the fields read."""
    found = []
    for name in sorted(written):
        subsystem, kind, field = name.split(".", 2)
        if (subsystem, kind, field) in read or (None, kind, field) in read:
            found.append(name)
    return found


def _reads(bound: BoundPredicate) -> set[Field]:
    anchor = bound.anchor
    found: set[Field] = set()

    def add(subsystem: str | None, kind: type[Record] | None, attribute: str) -> None:
        if kind is not None:
            found.update((subsystem, kind.__name__, field) for field in fields_of(kind, attribute))

    for read in bound.reads:
        if read.total is not None:
            add(read.total.sum.subsystem, read.total.sum.kind, read.total.sum.of)
            add(read.total.sum.subsystem, read.total.sum.kind, read.total.sum.by)
            add(anchor.subsystem, anchor.kind, read.total.key)
        elif read.kind is not None:
            subsystem = anchor.subsystem if read.what == "before" else read.subsystem
            for attribute in _attributes(bound.function, read.parameter):
                add(subsystem, read.kind, attribute)
            if read.via is not None:
                add(anchor.subsystem, anchor.kind, read.via.by)
            elif read.what == "held":
                add(subsystem, read.kind, "key")
                add(anchor.subsystem, anchor.kind, "key")
    return found


@lru_cache(maxsize=4096)
def fields_of(kind: type[Record], attribute: str) -> frozenset[str]:
    """The fields behind an attribute of a kind: itself, or what the property or method of that name reads."""
    if attribute in kind.__struct_fields__:
        return frozenset({attribute})
    found = inspect.getattr_static(kind, attribute, None)
    function = found.fget if isinstance(found, property) else found
    if not isinstance(function, FunctionType):
        return frozenset()
    own = next(iter(inspect.signature(function).parameters), "self")
    return frozenset(
        field for inner in _attributes(function, own) if inner != attribute for field in fields_of(kind, inner)
    )


def _attributes(function: Any, parameter: str, depth: int = 0) -> frozenset[str]:
    """The attributes that a function names of one of its parameters, through the functions that it hands it to."""
    tree = _tree(function)
    if tree is None:
        code = getattr(function, "__code__", None)
        return frozenset(code.co_names if code is not None else ())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == parameter:
            found.add(node.attr)
        elif isinstance(node, ast.Call) and depth < 5:
            called = _called(function, node)
            names = list(inspect.signature(called).parameters) if called is not None else []
            for place, given in enumerate(node.args):
                if isinstance(given, ast.Name) and given.id == parameter and place < len(names):
                    found |= _attributes(called, names[place], depth + 1)
    return frozenset(found)


def _called(function: Any, node: ast.Call) -> Any:
    if not isinstance(node.func, ast.Name) or not isinstance(function, FunctionType):
        return None
    called = function.__globals__.get(node.func.id)
    return called if isinstance(called, FunctionType) else None


@lru_cache(maxsize=1024)
def _tree(function: Any) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None


__all__ = ["checked", "fields_of", "fields_read"]
