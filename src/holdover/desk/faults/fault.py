"""A seeded fault, and how it replaces a part of the desk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from holdover.desk.desk import Parts


@dataclass(frozen=True)
class Fault:
    """One seeded fault: its category, what the faulty code does, what exposes it, and which invariants catch it.

    The fault itself violates each invariant of `catches`; none of them is a consequence of another. Which one
    breaches first depends on how the fault is triggered. The first in the list is the one that the fault is named
    for.
    """

    name: str
    category: str
    description: str
    exposed_by: str
    catches: tuple[str, ...]
    parts: Callable[[Parts], Parts]

    def __post_init__(self) -> None:
        if not (self.name and self.category and self.description and self.exposed_by):
            raise ValueError(
                f"seeded fault {self.name!r}: name, category, description and exposure should not be empty"
            )
        if not self.catches or len(set(self.catches)) < len(self.catches):
            raise ValueError(
                f"seeded fault {self.name}: it names the invariants that catch it, each once: {self.catches}"
            )


def replace_methods(part: str, **methods: Any) -> Callable[[Parts], Parts]:
    """Return a change that replaces methods of one part's class, or an attribute that the class declares."""

    if part not in Parts.__dataclass_fields__:
        raise AttributeError(f"a desk has no part {part!r}; it has {', '.join(Parts.__dataclass_fields__)}")
    if not methods:
        raise AttributeError(f"a fault of {part} replaces no method: it changes nothing")

    def change(parts: Parts) -> Parts:
        part_class = getattr(parts, part)
        declared = getattr(part_class, "__annotations__", {})
        missing = [name for name in methods if name not in declared and not hasattr(part_class, name)]
        if missing:
            raise AttributeError(
                f"{part_class.__name__} has no method {', '.join(missing)}: this fault changes nothing"
            )
        return replace(parts, **{part: type(f"Faulty{part_class.__name__}", (part_class,), methods)})

    return change


def combine(first: Callable[[Parts], Parts], second: Callable[[Parts], Parts]) -> Callable[[Parts], Parts]:
    """Combine two changes into one fault."""
    return lambda parts: second(first(parts))
