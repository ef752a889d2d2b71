"""Which frozen scope forbids a message: the rule for real freezes and for those that are only observed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from holdover.model import MsgType, Order, Position, Request, Side, enclosing_scopes

if TYPE_CHECKING:
    from holdover.runtime.monitor import Monitor


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


def reduces_position(monitor: Monitor, request: Request) -> bool:
    """Return whether a request only reduces a position that a monitor knows.

    An alternative to working orders shares their part of what is reserved: a stop may join its take-profit.
    """
    position = monitor.records(Position, "positions").get(request.book_key)
    if position is None or request.msg_type != MsgType.NEW_ORDER_SINGLE:
        return False
    if position.net_qty >= 0 if request.side == Side.BUY else position.net_qty <= 0:
        return False
    free_qty = abs(position.net_qty) - position.reserved_qty
    if request.order_qty > free_qty and request.alternatives_key:
        alternatives = (
            order.closing_qty
            for order in monitor.records(Order, "orders").values()
            if order.alternatives_key == request.alternatives_key
            and (order.book_key, order.side) == (request.book_key, request.side)
        )
        free_qty += max(alternatives, default=0)
    return request.order_qty <= free_qty
