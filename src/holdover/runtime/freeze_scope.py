"""Which frozen scope forbids a message: the rule for real freezes and for those that are only observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from holdover.model import MsgType, Order, Position, Request, Side, enclosing_scopes


class FreezePermissions(Protocol):
    """A freeze, or what would have been one: what it still allows."""

    @property
    def allows(self) -> list[str]:
        """What the freeze still permits."""


FreezeT = TypeVar("FreezeT", bound=FreezePermissions)


def find_forbidding_scope(
    frozen: Mapping[str, Sequence[FreezePermissions]], request: Request, reduces: Callable[[Request], bool]
) -> str:
    """Return the widest frozen scope that forbids a request, or an empty string; see `iterate_forbidding_freezes`."""
    if not frozen:
        return ""
    return next((scope for scope, _ in iterate_forbidding_freezes(frozen, request, reduces)), "")


def iterate_forbidding_freezes(
    frozen: Mapping[str, Sequence[FreezeT]], request: Request, reduces: Callable[[Request], bool]
) -> Iterator[tuple[str, FreezeT]]:
    """Yield the freezes that forbid a request with their scopes, the widest first.

    Args:
        frozen: the freezes by scope.
        request: the message to check.
        reduces: tells whether a request only reduces a position.
    """

    def is_allowed(freeze: FreezePermissions) -> bool:
        if request.msg_type == MsgType.ORDER_CANCEL_REQUEST:
            return "cancel" in freeze.allows
        return "reduce" in freeze.allows and reduces(request)

    # Every message depends on every subsystem, so a frozen subsystem holds up all messages.
    subsystems = [scope for scope in frozen if scope.startswith("subsystem:")]
    for scope in [*enclosing_scopes(request), *subsystems]:
        for freeze in frozen.get(scope, ()):
            if not is_allowed(freeze):
                yield scope, freeze


def reduces_position(position: Position | None, request: Request, orders: Iterable[Order]) -> bool:
    """Return whether a request only reduces a position; False without a position.

    An alternative to working orders shares their part of what is reserved: a stop may join its take-profit.

    Args:
        position: the position that the request would move.
        request: the request.
        orders: the orders of the system.
    """
    if position is None or request.msg_type != MsgType.NEW_ORDER_SINGLE:
        return False
    unreserved_qty = abs(position.net_qty) - position.reserved_qty
    is_opposite = position.net_qty < 0 if request.side == Side.BUY else position.net_qty > 0
    if not is_opposite or request.order_qty <= unreserved_qty or not request.alternatives_key:
        return is_opposite and request.order_qty <= unreserved_qty
    shared_qty = max(
        (
            order.closing_qty
            for order in orders
            if order.alternatives_key == request.alternatives_key
            and (order.book_key, order.side) == (request.book_key, request.side)
        ),
        default=0,
    )
    return request.order_qty <= unreserved_qty + shared_qty
