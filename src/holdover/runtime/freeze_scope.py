"""Which frozen scope forbids a message: the rule for real freezes and for those that are only observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from holdover.model import MsgType, Position, Request, Side, enclosing_scopes


class FreezePermissions(Protocol):
    """A freeze, or what would have been one: what it still allows."""

    @property
    def allows(self) -> list[str]:
        """What the freeze still permits."""


def find_forbidding_scope(
    frozen: Mapping[str, Sequence[FreezePermissions]], request: Request, reduces: Callable[[Request], bool]
) -> str:
    """Return the widest frozen scope that forbids a request, or an empty string.

    Args:
        frozen: the freezes by scope.
        request: the message to check.
        reduces: tells whether a request only reduces a position.
    """
    if not frozen:
        return ""

    def is_allowed(freeze: FreezePermissions) -> bool:
        if request.msg_type == MsgType.ORDER_CANCEL_REQUEST:
            return "cancel" in freeze.allows
        return "reduce" in freeze.allows and reduces(request)

    for scope in enclosing_scopes(request):
        for freeze in frozen.get(scope, ()):
            if not is_allowed(freeze):
                return scope
    for scope, freezes in frozen.items():
        # Every message depends on every subsystem, so a frozen subsystem holds up all messages.
        if scope.startswith("subsystem:") and not all(is_allowed(freeze) for freeze in freezes):
            return scope
    return ""


def reduces_position(position: Position | None, request: Request) -> bool:
    """Return whether a request only reduces a position; False without a position."""
    if position is None or request.msg_type != MsgType.NEW_ORDER_SINGLE:
        return False
    unreserved_qty = abs(position.net_qty) - position.reserved_qty
    is_opposite = position.net_qty < 0 if request.side == Side.BUY else position.net_qty > 0
    return is_opposite and request.order_qty <= unreserved_qty
