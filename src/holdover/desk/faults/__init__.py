"""Seeded faults: realistic state-carry defects, switched on by name, to prove that the guard finds them.

Each fault replaces a method or two of one desk class. Without a fault none of this code runs. The desk's
fresh-state tests pass with every one of them. They are modelled on defects in public trackers of trading
systems and on published incidents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdover.desk.desk import Parts
from holdover.desk.faults import accounts, carried, contingency, partition, restarts, terms
from holdover.desk.faults.fault import Fault


class UnknownFaultError(ValueError):
    """There is no seeded fault of that name."""


_ALL: Final = (
    *carried.FAULTS,
    *restarts.FAULTS,
    *partition.FAULTS,
    *terms.FAULTS,
    *contingency.FAULTS,
    *accounts.FAULTS,
)

FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
"""Every seeded fault by name."""

if len(FAULTS) < len(_ALL):
    raise ValueError(f"two seeded faults have the same name, among {', '.join(FAULTS)}")


def parts_with(faults: Sequence[str]) -> Parts:
    """Return the desk's parts with some faults switched on. Raises `UnknownFaultError` for an unknown name."""
    parts = Parts()
    for name in faults:
        fault = FAULTS.get(name)
        if fault is None:
            raise UnknownFaultError(f"no seeded fault is called {name!r}; there are {', '.join(FAULTS)}")
        parts = fault.parts(parts)
    return parts


__all__ = ["FAULTS", "UnknownFaultError", "Fault", "parts_with"]
