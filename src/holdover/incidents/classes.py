"""The cell class of a breach: the state in which the invariant failed, as far as the breach records it.

    instrument/Order/PARTIALLY_FILLED/at overnight/carried-partial=yes,after=overnight

The parts are read from the breach: the kind of its scope, the kind of the record that failed, the order's status if
that is an order, the boundary at which it was found or else the cause of its step, and last the class of the system's
cell. Two breaches of one invariant in one class are the same problem occurring again.

The cell part describes the kind of carried state. It contains nothing that differs by chance between two occurrences
of one defect, because a class that is too fine makes every incident novel:

- `carried-partial`, of the orders in the breach: whether one of them is a partial fill to carry. It is not taken from
  the whole system, because any other order can change it: with seeded faults on two instruments it split the classes.
- `link` and `reconciliation`, as in the cell.
- `after`, the last lifecycle transition if that caused the state: the breach was found at a boundary, while records
  were read back, or before the following reconciliation was complete. After the reconciliation it is `none`, because
  a restart or a night hours ago is coincidence. The kind of a restart is left out: a kill, a torn write and an orderly
  stop lead to the same recovery, and which of them it was is coincidence or unknown.

Left out are the axes of the other orders (open, unacknowledged, a change in flight, time in force, age), the sign of
the positions, the phase of the session (boundary and transition cover it), and earlier freezes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import msgspec

from holdover.model import Order, OrdStatus, Restored
from holdover.runtime import Breach
from holdover.runtime.axes import CarriedPartialAxis, LinkUpAxis, ReconciliationAxis
from holdover.runtime.breach import CARRIED
from holdover.state import DECODE_ERRORS

AFTER: Final = "after"
"""The name of the last transition in a class, next to the names of the axes."""

_CAUSE: Final = re.compile(r"[A-Za-z][A-Za-z_-]*")
_CELL: Final = re.compile(r"[^/,=\s]+=[^/,=]+(,[^/,=\s]+=[^/,=]+)*")


def cell_class(breach: Breach) -> str:
    """Returns the cell class of a breach.

    Order IDs and numbers, which differ between occurrences, are no part of it.
    """
    parts = [scope_kind(breach.scope), breach.kind]
    anchor = next((shown.fields for shown in breach.records if shown.kind == breach.kind), None)
    if breach.kind == "Order" and anchor is not None:
        parts.append(_status_name(str(anchor.get("ord_status", OrdStatus.PENDING_NEW.value))))
    if breach.boundary:
        parts.append(f"at {breach.boundary}")
    else:
        words = _CAUSE.match(breach.cause)
        parts.append(f"during {words[0].rstrip('-_') if words else 'nothing named'}")
    cell = _carried_state(breach)
    return "/".join([*parts, *([",".join(f"{name}={value}" for name, value in cell.items())] if cell else [])])


def is_same_class(first: str, second: str) -> bool:
    """Whether two classes agree in the parts that both have.

    A class that was imported or written before breaches recorded their cell has no cell part; only the parts before
    it are compared. An axis that only one of the two has is ignored.
    """
    (prefix, cell), (other_prefix, other_cell) = _split_class(first), _split_class(second)
    return prefix == other_prefix and all(other_cell.get(name, value) == value for name, value in cell.items())


def scope_kind(scope: str) -> str:
    """Returns the kind of a scope: `account+instrument` for `account:A1/instrument:IBM`."""
    return "+".join(part.partition(":")[0] for part in scope.split("/") if ":" in part) or scope


def _carried_state(breach: Breach) -> dict[str, str]:
    """The axes that count and the transition that caused the state; empty when the breach records neither."""
    if not breach.cell and not breach.after:
        return {}
    orders = [_carried_partial(shown.fields) for shown in breach.records if shown.kind == Order.__name__]
    cell = {CarriedPartialAxis.name: max(partials)} if (partials := [partial for partial in orders if partial]) else {}
    cell |= {name: breach.cell[name] for name in (LinkUpAxis.name, ReconciliationAxis.name) if name in breach.cell}
    reconciliation = breach.cell.get(ReconciliationAxis.name)
    read_back = breach.cause == "restore" or breach.kind == Restored.__name__
    if breach.after and (breach.boundary or read_back or reconciliation == "pending"):
        cell[AFTER] = breach.after.partition(":")[0]
    elif breach.after and reconciliation == "done":
        cell[AFTER] = "none"
    return cell


def _carried_partial(fields: dict[str, Any]) -> str:
    """The axis value of one order alone; empty for a record that is not an order of this version."""
    try:
        return CarriedPartialAxis.values[CarriedPartialAxis().of(msgspec.convert(fields, Order))]
    except DECODE_ERRORS:
        return ""


@lru_cache(4096)
def _split_class(text: str) -> tuple[str, dict[str, str]]:
    """(the parts before the cell, the cell) of a class; an imported class may have any form."""
    prefix, _, last = text.rpartition("/")
    if prefix and _CELL.fullmatch(last):
        cell = dict(part.split("=") for part in last.split(","))
        if cell.keys() <= {*CARRIED, AFTER}:
            return prefix, cell
    return text, {}


def _status_name(value: str) -> str:
    try:
        return OrdStatus(value).name
    except ValueError:
        return value
