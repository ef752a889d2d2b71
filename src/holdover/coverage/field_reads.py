"""Finds the record fields that an invariant reads, from its annotations and from the source of its predicates.

A predicate that uses `order.leaves_qty` reads that field. A predicate that uses `order.is_open` reads the
fields that the property reads. A predicate that passes the order to a function reads what the function reads.
Without source, every attribute name in the code counts as read.
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

FieldKey = tuple[str | None, str, str]
"""Subsystem (None for any), record kind and field."""


def find_fields_read(catalogue: Catalogue, active: Iterable[str]) -> set[FieldKey]:
    """Return the fields that the predicates of these invariants read."""
    names = set(active)
    return {
        field
        for invariant in catalogue
        if invariant.name in names
        for bound in invariant.predicates
        for field in _predicate_fields(bound)
    }


def select_checked_fields(written_fields: Iterable[str], read: set[FieldKey]) -> list[str]:
    """Return the written fields, as `subsystem.Kind.field`, that are also read."""
    fields = []
    for name in sorted(written_fields):
        subsystem, kind, field = name.split(".", 2)
        if (subsystem, kind, field) in read or (None, kind, field) in read:
            fields.append(name)
    return fields


def _predicate_fields(bound: BoundPredicate) -> set[FieldKey]:
    anchor = bound.anchor
    fields: set[FieldKey] = set()

    def add(subsystem: str | None, kind: type[Record] | None, attribute: str) -> None:
        if kind is not None:
            fields.update((subsystem, kind.__name__, field) for field in resolve_fields(kind, attribute))

    for read in bound.reads:
        if read.total is not None:
            add(read.total.sum.subsystem, read.total.sum.kind, read.total.sum.of)
            add(read.total.sum.subsystem, read.total.sum.kind, read.total.sum.by)
            add(anchor.subsystem, anchor.kind, read.total.key)
        elif read.kind is not None:
            subsystem = anchor.subsystem if read.source == "before" else read.subsystem
            for attribute in _find_attributes(bound.function, read.parameter):
                add(subsystem, read.kind, attribute)
            if read.via is not None:
                add(anchor.subsystem, anchor.kind, read.via.by)
            elif read.source == "held":
                add(subsystem, read.kind, "key")
                add(anchor.subsystem, anchor.kind, "key")
    return fields


@lru_cache(maxsize=4096)
def resolve_fields(kind: type[Record], attribute: str) -> frozenset[str]:
    """Return the fields behind an attribute of a record kind: the field itself, or those that the property or method
    reads.
    """
    if attribute in kind.__struct_fields__:
        return frozenset({attribute})
    member = inspect.getattr_static(kind, attribute, None)
    function = member.fget if isinstance(member, property) else member
    if not isinstance(function, FunctionType):
        return frozenset()
    self_name = next(iter(inspect.signature(function).parameters), "self")
    return frozenset(
        field
        for inner in _find_attributes(function, self_name)
        if inner != attribute
        for field in resolve_fields(kind, inner)
    )


def _find_attributes(function: Any, parameter: str, depth: int = 0) -> frozenset[str]:
    """Return the attributes of a parameter that a function uses, also through the functions that it calls."""
    tree = _parse_source(function)
    if tree is None:
        code = getattr(function, "__code__", None)
        return frozenset(code.co_names if code is not None else ())
    attributes: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == parameter:
            attributes.add(node.attr)
        elif isinstance(node, ast.Call) and depth < 5:
            callee = _resolve_callee(function, node)
            names = list(inspect.signature(callee).parameters) if callee is not None else []
            for position, argument in enumerate(node.args):
                if isinstance(argument, ast.Name) and argument.id == parameter and position < len(names):
                    attributes |= _find_attributes(callee, names[position], depth + 1)
    return frozenset(attributes)


def _resolve_callee(function: Any, node: ast.Call) -> Any:
    if not isinstance(node.func, ast.Name) or not isinstance(function, FunctionType):
        return None
    callee = function.__globals__.get(node.func.id)
    return callee if isinstance(callee, FunctionType) else None


@lru_cache(maxsize=1024)
def _parse_source(function: Any) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None


__all__ = ["select_checked_fields", "resolve_fields", "find_fields_read"]
