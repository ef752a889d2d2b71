"""Predicates: plain functions bound to a catalogue name, with reads derived from their signatures."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdover.catalogue.reads import (
    ADOPTED,
    BEFORE,
    AdoptedBy,
    Boundary,
    Frozen,
    Predicate,
    Recent,
    ReferenceData,
    Threshold,
    Total,
    Used,
    Via,
)
from holdover.model import Record


class PredicateError(ValueError):
    """The monitor cannot serve a predicate's signature; the message names the function and the parameter."""


@dataclass(frozen=True)
class Read:
    """One parameter of a predicate and what it reads.

    `source` is anchor, held, via, before, total, used, recent, reference, adopted, threshold, boundary or frozen.
    `required` is false for a table without which the predicate applies, too.
    """

    parameter: str
    source: str
    kind: type[Record] | None = None
    subsystem: str | None = None
    optional: bool = False
    via: Via | None = None
    total: Total | None = None
    recent: Recent | None = None
    reference: ReferenceData | None = None
    used: Used | None = None
    required: bool = True

    @property
    def table(self) -> str:
        """The table that it reads besides the anchor's, as `subsystem.Kind`; empty when it reads none."""
        return f"{self.subsystem}.{self.kind.__name__}" if self.subsystem and self.kind is not None else ""


@dataclass(frozen=True)
class BoundPredicate:
    """A predicate with its reads; the first read is the anchor. A non-empty `asserted` overrides the entry's.

    `needs` are the fields that must be in use, `at_restore` says whether a restored record is judged.
    """

    name: str
    function: Predicate
    reads: tuple[Read, ...]
    asserted: str = ""
    needs: tuple[str, ...] = ()
    at_restore: bool = True

    @property
    def anchor(self) -> Read:
        """The record that the invariant is about."""
        return self.reads[0]

    @property
    def anchor_table(self) -> str:
        """The anchor's table, as `subsystem.Kind`; empty when it may be in any subsystem."""
        return self.anchor.table

    def requirements(self, subsystem: str) -> tuple[str, ...]:
        """Return what must exist for the predicate to apply, for an anchor of one subsystem.

        Tables are written as `subsystem.Kind`, fields as `subsystem.Kind.field`.
        """
        anchor_table = f"{subsystem}.{self.anchor.kind.__name__}" if self.anchor.kind is not None else subsystem
        tables = [read.table for read in self.reads[1:] if read.required and read.table]
        fields = [need if "." in need else f"{anchor_table}.{need}" for need in self.needs]
        return tuple(dict.fromkeys([*tables, *fields]))


REGISTERED_PREDICATES: dict[str, list[BoundPredicate]] = {}
"""Every predicate declared in this process, by name, in the order of declaration."""


def predicate(
    name: str, *, asserted: str = "", needs: Sequence[str] = (), at_restore: bool = True
) -> Callable[[Predicate], Predicate]:
    """Declare a function as a predicate of the invariant `name`.

    Several functions may share a name; the invariant holds when each of them does.

    Args:
        name: the catalogue entry.
        asserted: overrides when this predicate is evaluated: a message, for example, must be checked before it leaves,
            not when the step has settled.
        needs: fields without which the predicate says nothing, of the anchor (`reserved_qty`) or of another table
            (`venue.Order.stop_px`). It is inapplicable until some record has set each of them.
        at_restore: whether a record is judged that a restarted system has read back.

    Raises `PredicateError` when the monitor cannot serve the signature, or when `needs` names a field that the anchor
    does not have.
    """

    def bind(function: Predicate) -> Predicate:
        bound = BoundPredicate(name, function, parse_reads(function), asserted, tuple(needs), at_restore)
        _check_needs(bound)
        other_predicates = [
            candidate
            for candidate in REGISTERED_PREDICATES.get(name, [])
            if candidate.function.__qualname__ != function.__qualname__
            or candidate.function.__module__ != function.__module__
        ]
        REGISTERED_PREDICATES[name] = [*other_predicates, bound]
        return function

    return bind


def _check_needs(bound: BoundPredicate) -> None:
    kind = bound.anchor.kind
    for need in bound.needs:
        if "." not in need and kind is not None and need not in kind.__struct_fields__:
            raise PredicateError(f"predicate {bound.function.__qualname__}: {kind.__name__} has no field {need!r}")
        if need.count(".") not in (0, 2):
            raise PredicateError(
                f"predicate {bound.function.__qualname__}: needs {need!r}, should be a field of the anchor or "
                f"subsystem.Kind.field"
            )


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
    if hint is Threshold:
        return Read(parameter, "threshold")
    notes: tuple[object, ...] = ()
    if typing.get_origin(hint) is typing.Annotated:
        hint, *extra = typing.get_args(hint)
        notes = tuple(extra)
    kind, optional = _record_kind(hint)
    for note in notes:
        if note is BEFORE:
            return Read(parameter, "before", kind, optional=True)
        if note is ADOPTED:
            return Read(parameter, "adopted", optional=True)
        if isinstance(note, AdoptedBy):
            return Read(parameter, "adopted", optional=True, via=Via(note.subsystem, note.by))
        if isinstance(note, Total):
            return Read(parameter, "total", note.sum.kind, note.sum.subsystem, total=note, required=note.required)
        if isinstance(note, Via):
            return Read(parameter, "via", kind, note.subsystem, optional, via=note, required=note.required)
        if isinstance(note, Used):
            return Read(parameter, "used", note.kind, note.subsystem, used=note, required=False)
        if isinstance(note, Recent):
            return Read(parameter, "recent", note.kind, note.subsystem, recent=note, required=False)
        if isinstance(note, ReferenceData):
            return Read(parameter, "reference", optional=True, reference=note)
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
