"""Lifecycle: an order moves along FIX's order state change matrices and ends when its time in force ends.

Source: FIX 4.2 appendix D; FIX 4.4 and 5.0 SP2 volume 4, order state change matrices. `STATUS_STEPS` is their
union: for each OrdStatus, the statuses that the next report may show. Whether a closed order reopens also
depends on the report's ExecType: only a replace, a bust or a correction may reopen it.
"""

from __future__ import annotations

from typing import Annotated, Final

from holdover.catalogue.predicate import predicate
from holdover.catalogue.reads import Before, Boundary, Via
from holdover.model import ExecType, MsgType, Order, OrdStatus, Request, TimeInForce

_S = OrdStatus
_LIVE: Final = frozenset(
    {
        _S.NEW,
        _S.PARTIALLY_FILLED,
        _S.FILLED,
        _S.DONE_FOR_DAY,
        _S.CANCELED,
        _S.PENDING_CANCEL,
        _S.STOPPED,
        _S.SUSPENDED,
        _S.CALCULATED,
        _S.EXPIRED,
        _S.PENDING_REPLACE,
    }
)
STATUS_STEPS: Final[dict[OrdStatus, frozenset[OrdStatus]]] = {
    _S.PENDING_NEW: _LIVE | {_S.PENDING_NEW, _S.REJECTED, _S.ACCEPTED_FOR_BIDDING},
    _S.ACCEPTED_FOR_BIDDING: _LIVE | {_S.ACCEPTED_FOR_BIDDING, _S.REJECTED},
    _S.NEW: _LIVE | {_S.REJECTED},
    _S.PARTIALLY_FILLED: _LIVE - {_S.NEW},
    _S.PENDING_CANCEL: _LIVE,
    _S.PENDING_REPLACE: _LIVE,
    _S.STOPPED: _LIVE,
    _S.SUSPENDED: _LIVE | {_S.REJECTED},
    _S.DONE_FOR_DAY: _LIVE,
    _S.CALCULATED: frozenset({_S.CALCULATED, _S.FILLED, _S.DONE_FOR_DAY}),
    _S.FILLED: frozenset({_S.FILLED, _S.PENDING_REPLACE, _S.CALCULATED}),
    _S.CANCELED: frozenset({_S.CANCELED}),
    _S.EXPIRED: frozenset({_S.EXPIRED}),
    _S.REJECTED: frozenset({_S.REJECTED}),
    _S.REPLACED: frozenset({_S.REPLACED}),
}
"""OrdStatus to the OrdStatus that a later report may show, before the ExecType is considered."""

_REOPENED: Final = frozenset({_S.NEW, _S.PARTIALLY_FILLED, _S.FILLED, _S.PENDING_CANCEL, _S.PENDING_REPLACE})
_REOPENS: Final[dict[OrdStatus, frozenset[ExecType]]] = {
    _S.FILLED: frozenset({ExecType.REPLACED, ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT}),
    _S.CALCULATED: frozenset({ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT}),
}
_CHANGES_CLOSED: Final = frozenset(
    {
        ExecType.TRADE,
        ExecType.TRADE_CANCEL,
        ExecType.TRADE_CORRECT,
        ExecType.REPLACED,
        ExecType.PENDING_REPLACE,
        ExecType.RESTATED,
        ExecType.DONE_FOR_DAY,
        ExecType.CALCULATED,
    }
)


@predicate("legal-status-step")
def legal_status_step(order: Order, before: Before[Order]) -> bool | None:
    """Also covers the return to New when a bust removes the only fill."""
    if before is None or order.ord_status == before.ord_status:
        return None
    return order.ord_status in legal_statuses_after(before.ord_status, order.exec_type)


def legal_statuses_after(status: OrdStatus, exec_type: ExecType | None) -> frozenset[OrdStatus]:
    """Return the statuses that may follow `status` in a report of this ExecType."""
    legal = STATUS_STEPS[status]
    if exec_type in _REOPENS.get(status, ()):
        legal = legal | _REOPENED
    if status == _S.PARTIALLY_FILLED and exec_type in (ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT):
        legal = legal | {_S.NEW}
    return legal


@predicate("terminal-stays-terminal")
def terminal_stays_terminal(order: Order, before: Before[Order]) -> bool | None:
    """A late fill, a bust, a correction or a replace may reopen the order; a new status alone may not."""
    if before is None or before.is_open:
        return None
    if order.ord_status == before.ord_status and order.cum_qty == before.cum_qty:
        return order.leaves_qty == before.leaves_qty
    # An ExecID is unique only within its day: today's bust may reuse the ExecID of yesterday's fill.
    report, report_before = (order.exec_id, order.exec_type), (before.exec_id, before.exec_type)
    if order.exec_type in _CHANGES_CLOSED and report != report_before:
        return None
    return False


@predicate("replace-chain-unbroken")
def order_chain_unbroken(order: Order, before: Before[Order]) -> bool | None:
    """The chain moves on to the request that names it, or back when the venue refuses that request."""
    if before is None or order.cl_ord_id == before.cl_ord_id:
        return None
    return order.orig_cl_ord_id == before.cl_ord_id or order.cl_ord_id in (
        before.orig_cl_ord_id,
        order.root_cl_ord_id,
    )


@predicate("replace-chain-unbroken")
def request_names_known_order(
    request: Request,
    original: Annotated[Request | None, Via("gateway", by="orig_key", required=False)],
    order: Annotated[Order | None, Via("orders", by="root_cl_ord_id")],
) -> bool | None:
    """The guard never saw the request of a foreign order or of one that predates its memory; the order itself
    suffices.
    """
    if request.msg_type == MsgType.NEW_ORDER_SINGLE:
        return None
    return original is not None or (
        order is not None and request.orig_cl_ord_id in (order.cl_ord_id, order.orig_cl_ord_id, order.root_cl_ord_id)
    )


@predicate("day-order-ends-with-its-day")
def day_order_ends_with_its_day(order: Annotated[Order, "orders"], boundary: Boundary) -> bool | None:
    """Source: FIX 4.4, TimeInForce (59) Day and Good Till Date with ExpireDate (432)."""
    if not order.is_open:
        return None
    if order.time_in_force == TimeInForce.GTD and order.expire_date:
        return order.expire_date >= boundary.trade_date
    if order.is_carried or not order.trade_date:
        return None
    return order.trade_date >= boundary.trade_date
