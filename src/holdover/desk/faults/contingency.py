"""Faults in brackets, legs and intents: what a restart loses of the links between orders and of a plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from holdover.desk.accounting import Positions
from holdover.desk.brackets import Brackets
from holdover.desk.config import Strategy
from holdover.desk.faults.fault import Fault, replace_methods
from holdover.desk.gateway import Gateway
from holdover.model import Execution, Order, Outbound, ParentOrder, PositionEffect, Record, Request

_RESTART: Final = "restart-reconciliation"
_CARRIED: Final = "carried-partial-fill"


def _sends_exits_unlinked(self: Gateway, message: Outbound) -> None:
    is_restarted = self.__dict__.setdefault("_is_restarted", self._store.get("reconciled") != "")
    if is_restarted and isinstance(message, Request) and message.position_effect == PositionEffect.CLOSE:
        message = msgspec.structs.replace(message, list_id="", contingency_type=None)
    Gateway.queue(self, message)


def _starts_legs_flat(self: Positions, executions: Iterable[Execution]) -> list[Record]:
    records = Positions.load(self, executions)
    self._positions = {
        key: msgspec.structs.replace(position, net_qty=0) if position.leg else position
        for key, position in self._positions.items()
    }
    return records


def _never_protects_again(self: Brackets, strategy: Strategy, orders: list[Order]) -> None:
    """Trust that the exits of the entry are all that a position ever needs."""


def _takes_the_remainder_for_the_whole(self: object, parent: ParentOrder) -> ParentOrder:
    return msgspec.structs.replace(parent, order_qty=parent.order_qty - parent.filled_qty)


FAULTS: Final = (
    Fault(
        "exits-sent-unlinked",
        _RESTART,
        "holds the lists of its brackets in memory, and after a restart sends exits without ListID and ContingencyType",
        "a restart, a bracket, the market reaches its take-profit and later its stop",
        ("alternative-ends-with-its-group", "alternatives-not-both-filled"),
        replace_methods("gateway", queue=_sends_exits_unlinked),
    ),
    Fault(
        "stop-not-sent-again",
        _RESTART,
        "sends the stop of a position once, with the entry, and never looks whether it still works",
        "a bracket, a cut in which the venue cancels its stop",
        ("position-protected",),
        replace_methods("brackets", _protect=_never_protects_again),
    ),
    Fault(
        "leg-starts-flat",
        _RESTART,
        "restores net positions and starts the legs of hedge mode at zero",
        "a position on the long leg, its stop fills while the desk is down, a restart",
        ("leg-keeps-its-side",),
        replace_methods("positions", load=_starts_legs_flat),
    ),
    Fault(
        "parent-shrinks-to-its-remainder",
        _CARRIED,
        "restores a parent order with what was left of it as its whole quantity",
        "a fill of a parent, a restart",
        ("intent-not-shrunk", "restored-equals-persisted"),
        replace_methods("parents", restore_parent=_takes_the_remainder_for_the_whole),
    ),
)
"""The faults of this module."""
