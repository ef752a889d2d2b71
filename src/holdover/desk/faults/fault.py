"""What a seeded fault is, and how it is put in place of a part of the desk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from holdover.desk.desk import Parts


@dataclass(frozen=True)
class Fault:
    """One seeded fault: its category, what the faulty code does, what exposes it, what must catch it.

    Each invariant of `catches` is violated by the fault itself, not by what follows from it; which of them shows first
    is a matter of how the fault is come upon. The first is the one that the fault is named for.
    """

    name: str
    category: str
    what: str
    exposed_by: str
    catches: tuple[str, ...]
    parts: Callable[[Parts], Parts]


def changed(part: str, **methods: Any) -> Callable[[Parts], Parts]:
    """A change of one part: the class that stands there, with some of its methods changed."""

    def change(parts: Parts) -> Parts:
        kept = getattr(parts, part)
        return replace(parts, **{part: type(f"Faulty{kept.__name__}", (kept,), methods)})

    return change


def both(first: Callable[[Parts], Parts], second: Callable[[Parts], Parts]) -> Callable[[Parts], Parts]:
    """Two changes that make one fault."""
    return lambda parts: second(first(parts))
