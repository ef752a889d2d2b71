"""The cell class of a breach: the state in which the invariant failed, as far as the breach itself tells it.

    instrument/Order/PARTIALLY_FILLED/at overnight/carried-partial=yes,after=overnight

Parts, each read off the breach and never judged: the kind of its scope, the kind of the record that failed, the order's
status where that is an order, the boundary at which it was found, or else the cause of its step; and last the class of
the cell in which the system was. Two breaches of one invariant in one class are the same thing happening again.

The class of the cell says what kind of carried state it was, and nothing that differs by chance between two occurrences
of one defect, for a class too fine calls everything novel:

- `carried-partial`, of the orders in the breach: is one of them a partial fill to carry. Of the whole system it is not
  taken, since any other order can make it so: seeded faults on two instruments fell apart by it, and by nothing else.
- `link` and `reconciliation`, as the cell has them.
- `after`, the last lifecycle transition where that had brought the system there: the breach was found at a boundary,
  while records were read back, or before the reconciliation that follows was done. Once it is done it is `none`: a
  restart or a night hours ago is there by chance. Of a restart the kind is left out: a kill, a torn write and a stop in
  good order lead to the same recovery, and which of them it was is chance, too, or not known.

Left out are the axes of the other orders (open, unacknowledged, a change in flight, time in force, age), the sign of
the positions, the phase of the session, which boundary and transition tell, and what was frozen before.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import msgspec

from holdover.model import Order, OrdStatus, Restored
from holdover.runtime import Breach
from holdover.runtime.axes import CarriedPartial, LinkUp, Reconciled
from holdover.runtime.breach import CARRIED

AFTER: Final = "after"
"""The name under which a class tells the last transition, beside those of the axes."""

_CAUSE: Final = re.compile(r"[A-Za-z][A-Za-z_-]*")
_CELL: Final = re.compile(r"[^/,=\s]+=[^/,=]+(,[^/,=\s]+=[^/,=]+)*")


def cell_class(breach: Breach) -> str:
    """The cell class of a breach. What tells one occurrence from another (an order's ID, a number) is no part of it."""
    parts = [scope_kind(breach.scope), breach.kind]
    anchor = next((shown.fields for shown in breach.records if shown.kind == breach.kind), None)
    if breach.kind == "Order" and anchor is not None:
        parts.append(_status(str(anchor.get("ord_status", OrdStatus.PENDING_NEW.value))))
    if breach.boundary:
        parts.append(f"at {breach.boundary}")
    else:
        words = _CAUSE.match(breach.cause)
        parts.append(f"during {words[0].rstrip('-_') if words else 'nothing named'}")
    cell = _class_of_cell(breach)
    return "/".join([*parts, *([",".join(f"{name}={value}" for name, value in cell.items())] if cell else [])])


def same_class(one: str, other: str) -> bool:
    """Whether two classes are the same by the parts that both have.

    One written before breaches told their cell, or imported, has no cell, and is compared by the parts before it; of an
    axis that one of the two does not tell, nothing can be said.
    """
    (before, cell), (others_before, others_cell) = _parted(one), _parted(other)
    return before == others_before and all(others_cell.get(name, value) == value for name, value in cell.items())


def scope_kind(scope: str) -> str:
    """The kind of a scope: `account+instrument` of `account:A1/instrument:IBM`."""
    return "+".join(part.partition(":")[0] for part in scope.split("/") if ":" in part) or scope


def _class_of_cell(breach: Breach) -> dict[str, str]:
    """The axes that count, and what had brought the system there; empty for a breach that tells neither."""
    if not breach.cell and not breach.after:
        return {}
    orders = [_carried_partial(shown.fields) for shown in breach.records if shown.kind == Order.__name__]
    cell = {CarriedPartial.name: max(told)} if (told := [one for one in orders if one]) else {}
    cell |= {name: breach.cell[name] for name in (LinkUp.name, Reconciled.name) if name in breach.cell}
    reconciliation = breach.cell.get(Reconciled.name)
    read_back = breach.cause == "restore" or breach.kind == Restored.__name__
    if breach.after and (breach.boundary or read_back or reconciliation == "pending"):
        cell[AFTER] = breach.after.partition(":")[0]
    elif breach.after and reconciliation == "done":
        cell[AFTER] = "none"
    return cell


def _carried_partial(told: dict[str, Any]) -> str:
    """The axis of one order alone; empty for what is no order of this version."""
    try:
        return CarriedPartial.values[CarriedPartial().of(msgspec.convert(told, Order))]
    except msgspec.ValidationError:
        return ""


@lru_cache(4096)
def _parted(told: str) -> tuple[str, dict[str, str]]:
    """(the parts before the cell, the cell) of a class; an imported one may be anything."""
    before, _, last = told.rpartition("/")
    if before and _CELL.fullmatch(last):
        cell = dict(part.split("=") for part in last.split(","))
        if cell.keys() <= {*CARRIED, AFTER}:
            return before, cell
    return told, {}


def _status(value: str) -> str:
    try:
        return OrdStatus(value).name
    except ValueError:
        return value
