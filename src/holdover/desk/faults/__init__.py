"""Seeded faults: realistic state-carry defects, switched on by name, to show that they are found.

Each is one class with a method or two changed, put in place of the desk's own; when no fault is on, none of this code
is on any path. Every one of them leaves the desk's fresh-state tests green. They are modelled on defects in public
trackers of trading systems and on published incidents.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdover.desk.desk import Parts
from holdover.desk.faults import carried, partition, restarts
from holdover.desk.faults.fault import Fault


class BadFault(ValueError):
    """No fault is called so."""


FAULTS: dict[str, Fault] = {fault.name: fault for fault in (*carried.FAULTS, *restarts.FAULTS, *partition.FAULTS)}
"""Every seeded fault by name."""


def parts_with(faults: Sequence[str]) -> Parts:
    """The desk's parts with some faults switched on. Raises `BadFault` for a name that there is not."""
    parts = Parts()
    for name in faults:
        fault = FAULTS.get(name)
        if fault is None:
            raise BadFault(f"no seeded fault is called {name!r}; there are {', '.join(FAULTS)}")
        parts = fault.parts(parts)
    return parts


__all__ = ["FAULTS", "BadFault", "Fault", "parts_with"]
