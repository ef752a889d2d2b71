"""Predicates: plain functions bound to a catalogue name, with reads derived from their signatures."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass

from holdover.catalogue.reads import BEFORE, Boundary, Frozen, Predicate, Total, Via
from holdover.model import Record


class PredicateError(ValueError):
    """The monitor cannot serve a predicate's signature; the message names the function and the parameter."""


@dataclass(frozen=True)
class Read:
    """One parameter of a predicate and what it reads.

    `source` is anchor, held, via, before, total, boundary or frozen.
    """

    parameter: str
    source: str
    kind: type[Record] | None = None
    subsystem: str | None = None
    optional: bool = False
    via: Via | None = None
    total: Total | None = None


@dataclass(frozen=True)
class BoundPredicate:
    """A predicate with its reads; the first read is the anchor. A non-empty `asserted` overrides the entry's."""

    name: str
    function: Predicate
    reads: tuple[Read, ...]
    asserted: str = ""

    @property
    def anchor(self) -> Read:
        """The record that the invariant is about."""
        return self.reads[0]


REGISTERED_PREDICATES: dict[str, list[BoundPredicate]] = {}
"""Every predicate declared in this process, by name, in the order of declaration."""


def predicate(name: str, *, asserted: str = "") -> Callable[[Predicate], Predicate]:
    """Declare a function as a predicate of the invariant `name`.

    Several functions may share a name; the invariant holds when each of them does. `asserted` overrides when this
    predicate is evaluated: a message, for example, must be checked before it leaves, not when the step has
    settled.

    Raises `PredicateError` when the monitor cannot serve the signature.
    """

    def bind(function: Predicate) -> Predicate:
        bound = BoundPredicate(name, function, parse_reads(function), asserted)
        other_predicates = [
            candidate
            for candidate in REGISTERED_PREDICATES.get(name, [])
            if candidate.function.__qualname__ != function.__qualname__
            or candidate.function.__module__ != function.__module__
        ]
        REGISTERED_PREDICATES[name] = [*other_predicates, bound]
        return function

    return bind


def parse_reads(function: Predicate) -> tuple[Read, ...]:
    """Return what the function's parameters read. Raises `PredicateError`."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as problem:
        raise PredicateError(
            f"predicate {function.__qualname__}: an annotation cannot be resolved: {problem}"
        ) from problem
    reads = tuple(_parse_read(function, name, hints.get(name)) for name in inspect.signature(function).parameters)
    if not reads or reads[0].source not in ("anchor", "held"):
        raise PredicateError(
            f"predicate {function.__qualname__}: the first parameter must be a record (its anchor), "
            f"such as `order: Order` or `position: Held[Position, 'positions']`"
        )
    first, *rest = reads
    if first.source == "held":
        first = Read(first.parameter, "anchor", first.kind, first.subsystem, first.optional)
    for read in rest:
        if read.source == "anchor":
            raise PredicateError(
                f"predicate {function.__qualname__}: {read.parameter} must say whose record it reads: "
                f"Held[{read.kind.__name__ if read.kind else 'Record'}, 'subsystem']"
            )
    return (first, *rest)


def _parse_read(function: Predicate, parameter: str, hint: object) -> Read:
    if hint is Boundary:
        return Read(parameter, "boundary")
    if hint is Frozen:
        return Read(parameter, "frozen")
    notes: tuple[object, ...] = ()
    if typing.get_origin(hint) is typing.Annotated:
        hint, *extra = typing.get_args(hint)
        notes = tuple(extra)
    kind, optional = _record_kind(hint)
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
        raise PredicateError(
            f"predicate {function.__qualname__}: parameter {parameter} says nothing that can be read; "
            f"expected a record class, Held[...], Before[...], a total, Boundary or Frozen"
        )
    return Read(parameter, "anchor", kind, optional=optional)


def _record_kind(hint: object) -> tuple[type[Record] | None, bool]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = typing.get_args(hint)
        kinds = [member for member in members if isinstance(member, type) and issubclass(member, Record)]
        return (kinds[0] if len(kinds) == 1 else None), type(None) in members
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint, False
    return None, False
