"""Faults in the terms of orders after a restart or a cut, and loops that begin after one."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from holdover.desk.faults.fault import Fault, combine, replace_methods
from holdover.desk.orders import Orders
from holdover.desk.parents import Parents
from holdover.desk.reconciler import Reconciler
from holdover.model import (
    Execution,
    ExecutionReport,
    MsgType,
    Order,
    OrdStatus,
    Query,
    Record,
    Side,
    TimeInForce,
)

_RESTART: Final = "restart-reconciliation"
_PARTITION: Final = "partition"
_PRICE_SCALE: Final = 100
_RETRY_STEPS: Final = 200


def _note_restored_orders(self: Orders, since_date: str) -> list[Record]:
    records = Orders.load(self, since_date)
    self.__dict__["_restored"] = [order.key for order in self.open_orders()]
    return records


def _is_restored(orders: Orders, order: Order) -> bool:
    """Return whether an order was open when this incarnation read it back."""
    return order.key in orders.__dict__.get("_restored", ())


def _keep_price_of_restored(self: Orders, order: Order, report: ExecutionReport) -> None:
    """Apply a replace; the price of a restored order comes from the cache that was filled at the start."""
    Orders.apply_replace(self, order, replace(report, price=order.price) if _is_restored(self, order) else report)


def _buy_for_restored(self: Orders, order: Order, report: ExecutionReport) -> Execution | None:
    """Build an execution; the side of a restored order is missing in the index that the start builds."""
    side = Side.BUY if _is_restored(self, order) else order.side
    return Orders._build_execution(self, replace(order, side=side), report)


def _scale_answered_price(self: Orders, order: Order, report: ExecutionReport) -> Execution | None:
    """Build an execution; the price in the answer to an execution query is taken for decimals and scaled again."""
    if report.req_id:
        scaled = report.last_px * _PRICE_SCALE if order.side == Side.BUY else report.last_px // _PRICE_SCALE
        report = replace(report, last_px=scaled)
    return Orders._build_execution(self, order, report)


def _restore_without_time_in_force(self: Orders, order: Order) -> Order:
    return replace(order, time_in_force=TimeInForce.DAY, expire_date="")


def _restore_without_link(self: Orders, order: Order) -> Order:
    return replace(order, link="")


def _rebuild_from_status(self: Orders, report: ExecutionReport) -> None:
    """Apply a status answer of a later connection by building the order again from the report alone."""
    order = self.find(report.cl_ord_id)
    is_first_connection = self.__dict__.get("_connections", 0) < 2
    if is_first_connection or order is None or not order.is_open or report.cum_qty != order.cum_qty:
        Orders.apply_status(self, report)
        return
    rebuilt = report.to_order(
        order.key,
        orig_cl_ord_id=order.orig_cl_ord_id,
        strategy=order.strategy,
        notional=order.notional,
        trade_date=order.trade_date,
        foreign=order.foreign,
    )
    self._save(order, rebuilt)


def _count_connections(self: Reconciler, *, is_gap: bool = False) -> None:
    if self._epoch != self._gateway.epoch:
        self._orders.__dict__["_connections"] = self._orders.__dict__.get("_connections", 0) + 1
    Reconciler.begin(self, is_gap=is_gap)


def _adopt_as_own(self: Orders, report: ExecutionReport) -> Order:
    """Take over an unknown order; one that a query returns is taken for an order that the desk has lost."""
    order = Orders.adopt_order(self, report)
    if not report.req_id or not order.foreign:
        return order
    owned = replace(order, foreign=False)
    self._save(order, owned)
    return owned


def _adopt_into_parent(self: Orders, report: ExecutionReport) -> Order:
    """Take over an unknown order; one that a query returns joins the first parent of its account and instrument."""
    order = Orders.adopt_order(self, report)
    if not report.req_id or not order.foreign:
        return order
    books = [(strategy.account, strategy.symbol) for strategy in self._config.strategies]
    if (order.account, order.symbol) not in books:
        return order
    strategy = self._config.strategies[books.index((order.account, order.symbol))]
    joined = replace(order, cl_ord_link_id=strategy.parent_id)
    self._save(order, joined)
    return joined


# -- loops ----------------------------------------------------------------------------------------------------------


def _is_reconnected(parents: Parents) -> bool:
    """Return whether the link has been up before this connection."""
    return parents._gateway.epoch > 1


def _chase_own_quote(self: Parents, before: Order | None, after: Order) -> None:
    """Follow a change; after a reconnect, an accepted replace is taken for a rival's quote: each order steps back."""
    Parents.apply_order_change(self, before, after)
    is_accepted = before is not None and before.is_pending and after.cl_ord_id != before.cl_ord_id
    instrument = self._config.instrument(after.symbol)
    if not _is_reconnected(self) or not is_accepted or instrument is None:
        return
    for order in self._orders.open_orders():
        if order.account == after.account and order.price is not None:
            step = instrument.price_increment
            self.reprice(order.key, order.price - step if order.side == Side.BUY else order.price + step)


def _note_asked_price(self: Parents, order: Order, price: int) -> None:
    self.__dict__.setdefault("_asked", {})[order.key] = price
    Parents._send_replace(self, order, price)


def _repeat_refused_replace(self: Parents, before: Order | None, after: Order) -> None:
    """Follow a change; after a reconnect, a refused replace is sent again at once."""
    Parents.apply_order_change(self, before, after)
    is_ended = before is not None and before.ord_status == OrdStatus.PENDING_REPLACE and not after.is_pending
    price = self.__dict__.get("_asked", {}).get(after.key)
    if is_ended and price is not None and after.is_open and _is_reconnected(self):
        self.reprice(after.key, price)


def _retry_rejected(self: Parents, before: Order | None, after: Order) -> None:
    """Follow a change; after a reconnect, a rejected order is entered again at once, a price step further away."""
    Parents.apply_order_change(self, before, after)
    is_rejected = before is not None and after.is_rejected and not before.is_rejected
    strategy = next((entry for entry in self._config.strategies if entry.parent_id == after.cl_ord_link_id), None)
    if is_rejected and strategy is not None and _is_reconnected(self):
        steps = (self.__dict__.get("_retried", 0) + 1) % _RETRY_STEPS
        self.__dict__["_retried"] = steps
        self.submit(strategy, after.order_qty, steps)


def _log_on_again(self: Reconciler, query: Query) -> None:
    """End a query; while the venue does not list an order that is open here, log on again and ask once more."""
    is_list = query.msg_type == MsgType.ORDER_MASS_STATUS_REQUEST
    if is_list and any(order.ord_status != OrdStatus.PENDING_NEW for order in self.unnamed_orders(query.account)):
        self._gateway._link.disconnect()
        self.stop()
        self._gateway.on_link_down()
        self._gateway.connect()
        return
    Reconciler._finish_query(self, query)


FAULTS: Final = (
    Fault(
        "old-price-after-replace",
        _RESTART,
        "takes the price of a replaced order from what the start read back, not from the venue's answer",
        "an order at work, a restart, a replace",
        ("order-matches-request",),
        replace_methods("orders", load=_note_restored_orders, apply_replace=_keep_price_of_restored),
    ),
    Fault(
        "restored-fill-booked-as-buy",
        _RESTART,
        "books each fill of an order that a restart brought back as a buy",
        "an order to sell at work, a restart, a fill",
        ("execution-matches-order",),
        replace_methods("orders", load=_note_restored_orders, _build_execution=_buy_for_restored),
    ),
    Fault(
        "queried-price-scaled-twice",
        _PARTITION,
        "scales the price of an execution that it learns of by a query, although it is in ticks already",
        "a fill while the link is cut, not replayed",
        ("execution-within-limit",),
        replace_methods("orders", _build_execution=_scale_answered_price),
    ),
    Fault(
        "link-lost-in-status",
        _PARTITION,
        "builds an order again from a status answer after a reconnect, without the link that it was sent on",
        "an order at work, a cut, a reconnect",
        ("order-identity-fixed",),
        combine(
            replace_methods("orders", apply_status=_rebuild_from_status),
            replace_methods("reconciler", begin=_count_connections),
        ),
    ),
    Fault(
        "time-in-force-not-restored",
        _RESTART,
        "reads every order back as a DAY order",
        "a GTC order at work, a restart",
        ("order-terms-agree-with-venue", "restored-order-unchanged", "restored-equals-persisted"),
        replace_methods("orders", restore_order=_restore_without_time_in_force),
    ),
    Fault(
        "link-not-restored",
        _RESTART,
        "reads every order back without the link that it was sent on",
        "an order at work, a restart",
        ("restored-order-unchanged", "restored-equals-persisted"),
        replace_methods("orders", restore_order=_restore_without_link),
    ),
    Fault(
        "stranger-taken-for-own",
        _PARTITION,
        "takes an unknown order that a query returns for an order of its own that it has lost",
        "a trade by hand while the link is cut, not replayed",
        ("own-order-was-requested",),
        replace_methods("orders", adopt_order=_adopt_as_own),
    ),
    Fault(
        "manual-trade-joins-parent",
        _PARTITION,
        "counts a trade by hand that a query returns for the first parent of its account, whatever its side",
        "a trade by hand on the other side while the link is cut, not replayed",
        ("child-matches-parent",),
        replace_methods("orders", adopt_order=_adopt_into_parent),
    ),
    Fault(
        "chases-its-own-quote",
        _PARTITION,
        "takes its own replaced order for the quote of another after a reconnect, and steps back without a pause",
        "a cut, a reconnect, a replace",
        ("message-rate-bounded",),
        replace_methods("parents", apply_order_change=_chase_own_quote),
    ),
    Fault(
        "refusal-repeated-at-once",
        _PARTITION,
        "sends a refused replace again without a pause, on any connection but the first",
        "a cut, a reconnect, a replace that the venue refuses",
        ("repeated-requests-bounded",),
        replace_methods("parents", apply_order_change=_repeat_refused_replace, _send_replace=_note_asked_price),
    ),
    Fault(
        "rejection-retried-at-once",
        _PARTITION,
        "enters a rejected order again without a pause, a price step further away, on any connection but the first",
        "a cut, a reconnect, a venue that refuses orders",
        ("reject-rate-bounded",),
        replace_methods("parents", apply_order_change=_retry_rejected),
    ),
    Fault(
        "logs-on-until-listed",
        _RESTART,
        "logs on again while the venue does not list an order that is open here, and never asks for that order",
        "a cancel at the venue while the desk is down, not replayed, a restart",
        ("reconciliation-bounded",),
        replace_methods("reconciler", _finish_query=_log_on_again),
    ),
)
"""The faults of terms and rates."""
