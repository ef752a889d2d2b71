"""Binding a plain function to a name of the catalogue, and reading off its signature what it needs."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass

from holdover.catalogue.reads import BEFORE, Boundary, Frozen, Predicate, Total, Via
from holdover.model import Record


class BadPredicate(ValueError):
    """A predicate whose signature the monitor cannot serve; the message names the function and the parameter."""


@dataclass(frozen=True)
class Read:
    """One parameter: what it reads (anchor, held, via, before, total, boundary or frozen) and from where."""

    parameter: str
    what: str
    kind: type[Record] | None = None
    subsystem: str | None = None
    optional: bool = False
    via: Via | None = None
    total: Total | None = None


@dataclass(frozen=True)
class BoundPredicate:
    """A predicate with its reads; the first is the anchor. A non-empty `asserted` overrides the entry's."""

    name: str
    function: Predicate
    reads: tuple[Read, ...]
    asserted: str = ""

    @property
    def anchor(self) -> Read:
        """The record that the invariant is about."""
        return self.reads[0]


REGISTERED: dict[str, list[BoundPredicate]] = {}
"""Every predicate declared in this process by name, in the order of declaration."""


def predicate(name: str, *, asserted: str = "") -> Callable[[Predicate], Predicate]:
    """Declare the function below as the predicate of the invariant `name`.

    Several functions may carry one name: the invariant holds when each of them does (an order and an execution, say,
    each with its own statement of the same fact). `asserted` says when this one is evaluated, where that differs from
    the entry's: a message must be judged before it leaves, not once the step has settled. Raises `BadPredicate` when
    the signature cannot be served.
    """

    def bind(function: Predicate) -> Predicate:
        bound = BoundPredicate(name, function, reads_of(function), asserted)
        others = [
            known
            for known in REGISTERED.get(name, [])
            if known.function.__qualname__ != function.__qualname__ or known.function.__module__ != function.__module__
        ]
        REGISTERED[name] = [*others, bound]
        return function

    return bind


def reads_of(function: Predicate) -> tuple[Read, ...]:
    """What the function's parameters read. Raises `BadPredicate`."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as problem:
        raise BadPredicate(
            f"predicate {function.__qualname__}: an annotation cannot be resolved: {problem}"
        ) from problem
    reads = tuple(_read(function, name, hints.get(name)) for name in inspect.signature(function).parameters)
    if not reads or reads[0].what not in ("anchor", "held"):
        raise BadPredicate(
            f"predicate {function.__qualname__}: the first parameter must be a record (its anchor), "
            f"such as `order: Order` or `position: Held[Position, 'positions']`"
        )
    first, *rest = reads
    if first.what == "held":
        first = Read(first.parameter, "anchor", first.kind, first.subsystem, first.optional)
    for other in rest:
        if other.what == "anchor":
            raise BadPredicate(
                f"predicate {function.__qualname__}: {other.parameter} must say whose record it reads: "
                f"Held[{other.kind.__name__ if other.kind else 'Record'}, 'subsystem']"
            )
    return (first, *rest)


def _read(function: Predicate, parameter: str, hint: object) -> Read:
    if hint is Boundary:
        return Read(parameter, "boundary")
    if hint is Frozen:
        return Read(parameter, "frozen")
    notes: tuple[object, ...] = ()
    if typing.get_origin(hint) is typing.Annotated:
        hint, *extra = typing.get_args(hint)
        notes = tuple(extra)
    kind, optional = _kind(hint)
    for note in notes:
        if note is BEFORE:
            return Read(parameter, "before", kind, optional=True)
        if isinstance(note, Total):
            return Read(parameter, "total", note.sum.kind, note.sum.subsystem, total=note)
        if isinstance(note, Via):
            return Read(parameter, "via", kind, note.subsystem, optional, via=note)
        if isinstance(note, str):
            return Read(parameter, "held", kind, note, optional)
    if kind is None:
        raise BadPredicate(
            f"predicate {function.__qualname__}: parameter {parameter} says nothing that can be read; "
            f"expected a record class, Held[...], Before[...], a total, Boundary or Frozen"
        )
    return Read(parameter, "anchor", kind, optional=optional)


def _kind(hint: object) -> tuple[type[Record] | None, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = typing.get_args(hint)
        kinds = [member for member in members if isinstance(member, type) and issubclass(member, Record)]
        return (kinds[0] if len(kinds) == 1 else None), type(None) in members
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint, False
    return None, False
