"""The cell class of a breach: the state in which the invariant failed, as far as the breach itself tells it.

    instrument/Order/PARTIALLY_FILLED/at overnight

Four parts, each read off the breach and never judged: the kind of its scope, the kind of the record that failed, the
order's status where that is an order, and the boundary at which it was found, or else the cause of its step. Two
breaches of one invariant in one class are the same thing happening again.
"""

from __future__ import annotations

import re
from typing import Final

from holdover.model import OrdStatus
from holdover.runtime import Breach

_CAUSE: Final = re.compile(r"[A-Za-z][A-Za-z_-]*")


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
    return "/".join(parts)


def scope_kind(scope: str) -> str:
    """The kind of a scope: `account+instrument` of `account:A1/instrument:IBM`."""
    return "+".join(part.partition(":")[0] for part in scope.split("/") if ":" in part) or scope


def _status(value: str) -> str:
    try:
        return OrdStatus(value).name
    except ValueError:
        return value
