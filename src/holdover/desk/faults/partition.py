"""Faults in the handling of orders while the link is cut, and of messages that are lost, late or repeated."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdover.desk.faults.fault import Fault, combine, replace_methods
from holdover.desk.gateway import Gateway
from holdover.desk.orders import Orders
from holdover.desk.parents import Parents
from holdover.desk.reconciler import Reconciler
from holdover.model import (
    CancelReject,
    ExecType,
    Execution,
    ExecutionReport,
    LinkState,
    MsgType,
    Order,
    OrdStatus,
    Reconciliation,
    Request,
)

_PARTITION: Final = "partition"


def _resume_without_asking(self: Reconciler, *, is_gap: bool = False) -> None:
    if is_gap or not _is_reconnected(self):
        Reconciler.begin(self, is_gap=is_gap)
    else:
        _resume(self)


def _is_reconnected(self: Reconciler) -> bool:
    """Return whether this is a later connection of the same incarnation."""
    return self._epoch not in (0, self._gateway.epoch)


def _resume(self: Reconciler) -> None:
    """Continue after a reconnect on the assumption that nothing has changed."""
    self.is_done, self._epoch = True, self._gateway.epoch
    self.__dict__["_resumed"] = True
    self._record_state()
    self.on_finished()


def _passes_over_what_it_missed(self: Reconciler) -> None:
    if not self.__dict__.get("_resumed"):
        Reconciler.restart_after_gap(self)


def _over_before_this_logon(self: Reconciler, *, is_gap: bool = False) -> None:
    if not is_gap and self._epoch != self._gateway.epoch:
        self._orders.__dict__["_over"] = [order.key for order in self._orders.all_orders() if not order.is_open]
    Reconciler.begin(self, is_gap=is_gap)


def _nothing_after_the_end(self: Orders, order: Order, report: ExecutionReport) -> None:
    if order.is_open or order.key not in self.__dict__.get("_over", ()):
        Orders.apply_trade(self, order, report)


def _note_earlier_reconciliation(self: Reconciler, *, is_gap: bool = False) -> None:
    if self._epoch != self._gateway.epoch:
        self._orders.__dict__["_sure"] = bool(self._orders._store.get("reconciled"))
    Reconciler.begin(self, is_gap=is_gap)


def _cancel_assumed(self: Orders, order: Order, request: Request) -> None:
    if not self.__dict__.get("_sure"):
        Orders.request_cancel(self, order, request)
        return
    self._roots[request.cl_ord_id] = order.key
    self._save(
        order,
        msgspec.structs.replace(
            order, ord_status=OrdStatus.CANCELED, leaves_qty=0, exec_type=ExecType.CANCELED, link=request.link
        ),
    )


def _cancelled_is_cancelled(self: Orders, report: ExecutionReport) -> None:
    order = self.find(report.cl_ord_id)
    if order is None or order.ord_status != OrdStatus.CANCELED or report.leaves_qty == 0:
        Orders.apply_status(self, report)


def _resubmit_on_silence(self: Reconciler, *, is_gap: bool = False) -> None:
    silent = [order for order in self._orders.open_orders() if order.ord_status == OrdStatus.PENDING_NEW]
    if is_gap or not _is_reconnected(self) or not silent:
        self.__dict__["_resumed"] = False
        Reconciler.begin(self, is_gap=is_gap)
        return
    _resume(self)
    for order in silent:
        if self._gateway.is_up:
            stem, _, count = order.cl_ord_id.rpartition("-")
            cl_ord_id = f"{stem}-{int(count) + 50}"
            request = Request(
                msg_type=MsgType.NEW_ORDER_SINGLE,
                cl_ord_id=cl_ord_id,
                root_cl_ord_id=cl_ord_id,
                symbol=order.symbol,
                side=order.side,
                order_qty=order.order_qty,
                price=order.price,
                account=order.account,
                strategy=order.strategy,
                time_in_force=order.time_in_force,
                position_effect=order.position_effect,
                cl_ord_link_id=order.cl_ord_link_id,
                link=order.link,
                link_epoch=self._gateway.epoch,
                trade_date=order.trade_date,
                transact_time_ns=order.transact_time_ns,
            )
            self._orders.create(request)
            self._gateway.queue(request)


def _forgets_what_it_saw(self: Reconciler, *, is_gap: bool = False) -> None:
    if _is_reconnected(self) and not is_gap:
        self._orders.__dict__["_unseen"] = dict.fromkeys(execution.key for execution in self._orders.executions())
    Reconciler.begin(self, is_gap=is_gap)


def _seen_on_this_connection(self: Orders, execution: Execution) -> bool:
    return execution.key not in self.__dict__.get("_unseen", ()) and Orders.is_booked(self, execution)


def _applied_on_send(self: Orders, order: Order, request: Request) -> None:
    self.__dict__.setdefault("_before", {})[order.key] = (order.order_qty, order.price)
    Orders.request_replace(self, order, request)
    pending_order = self._orders[order.key]
    leaves_qty = max(request.order_qty - pending_order.cum_qty, 0)
    self._save(
        pending_order,
        msgspec.structs.replace(pending_order, order_qty=request.order_qty, price=request.price, leaves_qty=leaves_qty),
    )


def _undone_when_refused(self: Orders, reject: CancelReject) -> None:
    order = self.find(reject.orig_cl_ord_id) or self.find(reject.cl_ord_id)
    before = self.__dict__.get("_before", {}).pop(order.key, None) if order is not None else None
    if order is not None and before is not None and order.is_open:
        leaves_qty = max(before[0] - order.cum_qty, 0)
        self._save(order, msgspec.structs.replace(order, order_qty=before[0], price=before[1], leaves_qty=leaves_qty))
    Orders.apply_cancel_reject(self, reject)


def _status_without_terms(self: Orders, report: ExecutionReport) -> None:
    order = self.find(report.cl_ord_id)
    if order is not None and report.ord_rej_reason is None:
        report = msgspec.structs.replace(report, order_qty=order.order_qty, price=order.price)
    Orders.apply_status(self, report)


# -- beyond the list ----------------------------------------------------------------------------------------------


def _books_fills_of_strangers(self: Orders, report: ExecutionReport) -> None:
    known_order = self.find(report.cl_ord_id) or (report.orig_cl_ord_id and self.find(report.orig_cl_ord_id))
    if known_order or report.exec_type != ExecType.TRADE or not report.req_id:
        Orders.apply_report(self, report)
        return
    stranger = Order(
        root_cl_ord_id=report.cl_ord_id,
        cl_ord_id=report.cl_ord_id,
        symbol=report.symbol,
        side=report.side,
        order_qty=report.order_qty,
        leaves_qty=0,
        account=report.account,
    )
    execution = self._build_execution(stranger, report)
    if execution is not None and not self.is_booked(execution):
        self.book(execution)


def _done_from_the_first_answer(self: Reconciler) -> bool:
    return bool(self.__dict__.get("_over") or self.__dict__.get("_answers"))


def _set_done(self: Reconciler, value: bool) -> None:
    self.__dict__["_over"] = value
    if not value:
        self.__dict__["_answers"] = 0


def _counts_answers(self: Reconciler, report: Any) -> bool:
    is_answer = Reconciler.take_answer(self, report)
    if is_answer:
        self.__dict__["_answers"] = self.__dict__.get("_answers", 0) + 1
    return is_answer


def _says_when_over(self: Reconciler) -> None:
    is_complete = bool(self.__dict__.get("_over"))
    self._guard.record(
        self.subsystem, Reconciliation(link=self._config.link, epoch=self._epoch, is_complete=is_complete)
    )


def _asks_once(self: Reconciler, now_ns: int, patience_ns: int) -> None:
    if not self._orders._store.get("reconciled"):
        Reconciler.repeat_lost_query(self, now_ns, patience_ns)


def _first_epoch(self: Gateway) -> int:
    if not self.__dict__.get("_epoch"):
        self.__dict__["_epoch"] = self._link.epoch
    return int(self.__dict__["_epoch"])


def _counts_logons(self: Gateway, out_seq: int) -> bool:
    self.__dict__["_again"] = "_again" in self.__dict__
    return Gateway.on_link_up(self, out_seq)


def _passes_over_gaps(self: Gateway, seq: int, poss_dup: bool = False) -> bool:
    if not self.__dict__.get("_again") or seq <= self.in_seq:
        return Gateway.accept_sequence(self, seq, poss_dup)
    self.in_seq = seq
    self._store.set("in_seq", str(seq))
    self._record_link(LinkState.MESSAGE)
    return True


def _chain_lost_in_status(self: Orders, report: ExecutionReport) -> None:
    order = self.find(report.cl_ord_id) or (self.find(report.orig_cl_ord_id) if report.orig_cl_ord_id else None)
    if order is None or report.cl_ord_id == order.cl_ord_id:
        Orders.apply_status(self, report)
        return
    # The new ClOrdID is taken over, and the one that it replaced is forgotten.
    self._roots[report.cl_ord_id] = order.key
    after = msgspec.structs.replace(
        order, cl_ord_id=report.cl_ord_id, orig_cl_ord_id="", ord_status=order.status_by_quantities
    )
    self._save(order, msgspec.structs.replace(after, price=report.price))


def _pulls_nothing(self: Parents, book_key: str) -> None:
    return None


FAULTS: Final = (
    Fault(
        "resume-without-asking",
        _PARTITION,
        "goes on with local state after a reconnect, without asking, when the venue does not replay",
        "a fill while the link is cut, not replayed",
        ("books-agree-with-venue", "venue-open-orders-known", "no-open-order-unknown-to-venue"),
        replace_methods("reconciler", begin=_resume_without_asking, restart_after_gap=_passes_over_what_it_missed),
    ),
    Fault(
        "late-fill-after-cancel-dropped",
        _PARTITION,
        "ignores executions of an order that was cancelled, or over otherwise, before the link last came up",
        "a partial fill, the rest cancelled, a cut, then a fill told late, or a bust or a correction",
        ("books-agree-with-venue",),
        combine(
            replace_methods("orders", apply_trade=_nothing_after_the_end),
            replace_methods("reconciler", begin=_over_before_this_logon),
        ),
    ),
    Fault(
        "cancel-assumed",
        _PARTITION,
        "takes an order for cancelled when the cancel is sent, on any connection but the first, whatever it is told",
        "a cut, a reconnect, a cancel lost on its way out",
        ("venue-open-orders-known", "books-agree-with-venue"),
        combine(
            replace_methods("orders", request_cancel=_cancel_assumed, apply_status=_cancelled_is_cancelled),
            replace_methods("reconciler", begin=_note_earlier_reconciliation),
        ),
    ),
    Fault(
        "resubmit-on-silence",
        _PARTITION,
        "sends an unacknowledged order again under a new ClOrdID after a reconnect, without asking",
        "an acknowledgement lost in a cut, a reconnect",
        ("one-live-order-per-intent", "parent-not-overfilled"),
        replace_methods("reconciler", begin=_resubmit_on_silence, restart_after_gap=_passes_over_what_it_missed),
    ),
    Fault(
        "resent-fill-booked-again",
        _PARTITION,
        "remembers for the present connection only which executions it has seen",
        "a fill, a cut, the last fill told again at the logon",
        ("execution-booked-once",),
        combine(
            replace_methods("orders", is_booked=_seen_on_this_connection),
            replace_methods("reconciler", begin=_forgets_what_it_saw),
        ),
    ),
    Fault(
        "replace-applied-on-send",
        _PARTITION,
        "applies a replace when it is sent, takes it back when it hears the refusal, and never asks for the terms",
        "a replace that the venue refuses, the refusal lost in a cut",
        ("books-agree-with-venue",),
        replace_methods(
            "orders",
            request_replace=_applied_on_send,
            apply_cancel_reject=_undone_when_refused,
            apply_status=_status_without_terms,
        ),
    ),
    Fault(
        "external-order-not-adopted",
        _PARTITION,
        "books a fill that it learns of by asking, of an order that it does not know, and does not take the order in",
        "a trade by hand while the link is cut, not replayed",
        ("every-execution-has-its-order",),
        replace_methods("orders", apply_report=_books_fills_of_strangers),
    ),
    Fault(
        "works-on-the-first-answer",
        _PARTITION,
        "goes on working when the first question of a reconciliation is answered",
        "a reconnect whose further answers take longer than until the next look",
        ("no-order-before-reconciled",),
        replace_methods(
            "reconciler",
            is_done=property(_done_from_the_first_answer, _set_done),
            take_answer=_counts_answers,
            _record_state=_says_when_over,
        ),
    ),
    Fault(
        "question-asked-once",
        _PARTITION,
        "asks each question of every reconciliation but the first once, and waits for ever for an answer that is lost",
        "a reconnect, a question lost on its way out",
        ("reconciled-within",),
        replace_methods("reconciler", repeat_lost_query=_asks_once),
    ),
    Fault(
        "epoch-of-the-first-logon",
        _PARTITION,
        "remembers the epoch of its first logon and marks its orders with that",
        "a cut, a reconnect, a new order",
        ("no-send-while-down",),
        replace_methods("gateway", epoch=property(_first_epoch)),
    ),
    Fault(
        "gap-passed-over",
        _PARTITION,
        "takes a message that is too early for the next one, on any connection of a life but the first",
        "a cut, a reconnect, one message of the venue lost",
        ("sequence-continuous",),
        replace_methods("gateway", accept_sequence=_passes_over_gaps, on_link_up=_counts_logons),
    ),
    Fault(
        "close-left-after-a-bust",
        _PARTITION,
        "leaves a closing order at work when a bust takes the position from under it",
        "a closing order at work, the fills that it was to close are busted",
        ("closing-orders-covered",),
        replace_methods("parents", pull_surplus=_pulls_nothing),
    ),
    Fault(
        "chain-lost-in-status",
        _PARTITION,
        "takes the new ClOrdID over from a status answer and forgets what it replaced",
        "two replaces of an order, the answer to the second lost in a cut, not replayed",
        ("replace-chain-unbroken",),
        replace_methods("orders", apply_status=_chain_lost_in_status),
    ),
)
"""The faults of this category."""
