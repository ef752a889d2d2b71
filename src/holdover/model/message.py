"""Messages between a system and its venue, as FIX fields before encoding.

A `Request` is also a record: the gateway records it immediately before it sends it, so invariants check what
leaves.
"""

from __future__ import annotations

from typing import Any, ClassVar

from holdover.model.fix import (
    ContingencyType,
    ExecRestatementReason,
    ExecType,
    MsgType,
    OrderOrigin,
    OrdStatus,
    OrdType,
    PositionEffect,
    PositionSide,
    Side,
    TimeInForce,
    status_from_quantities,
)
from holdover.model.record import (
    Balance,
    CashMovement,
    Margin,
    Order,
    PositionAdjustment,
    Record,
    alternatives_key,
    position_key,
)


class Request(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="request", tag_field="t"):
    """An outgoing new order (D), cancel (F) or replace (G). Quantities in lots, prices in ticks.

    `root_cl_ord_id` is the order's key; it is ours, never goes on the wire, and venues ignore it. `link_epoch` is
    the epoch of the link that sends the request.
    """

    per_connection: ClassVar[bool] = True

    msg_type: MsgType
    cl_ord_id: str
    symbol: str
    side: Side
    order_qty: int
    root_cl_ord_id: str = ""
    orig_cl_ord_id: str = ""
    account: str = ""
    strategy: str = ""
    ord_type: OrdType = OrdType.LIMIT
    time_in_force: TimeInForce = TimeInForce.DAY
    price: int | None = None
    stop_px: int | None = None
    expire_date: str = ""
    cl_ord_link_id: str = ""
    position_effect: PositionEffect = PositionEffect.OPEN
    link: str = ""
    link_epoch: int = 0
    trade_date: str = ""
    poss_resend: bool = False
    transact_time_ns: int = 0
    position_side: PositionSide | None = None
    position_id: str = ""
    list_id: str = ""
    contingency_type: ContingencyType | None = None
    intent_id: str = ""

    @property
    def key(self) -> str:
        """Account and ClOrdID."""
        return f"{self.account}/{self.cl_ord_id}"

    @property
    def orig_key(self) -> str:
        """Account and OrigClOrdID; empty when there is none."""
        return f"{self.account}/{self.orig_cl_ord_id}" if self.orig_cl_ord_id else ""

    @property
    def book_key(self) -> str:
        """Account, instrument and leg: the key of the position that the order moves."""
        return position_key(self.account, self.symbol, self.position_id or self.position_side or "")

    @property
    def alternatives_key(self) -> str:
        """The key of the orders of which only one can fill in full; empty for a request without alternatives."""
        return alternatives_key(self.contingency_type, self.list_id, self.cl_ord_link_id)

    @property
    def root_key(self) -> str:
        """The first ClOrdID of the replace chain; the request's own when it states none."""
        return self.root_cl_ord_id or self.cl_ord_id

    @property
    def new_order_count(self) -> int:
        """1 for a new order, else 0. A sum over requests counts them."""
        return int(self.msg_type == MsgType.NEW_ORDER_SINGLE)

    @property
    def replace_count(self) -> int:
        """1 for a replace, else 0. A sum over requests counts them."""
        return int(self.msg_type == MsgType.ORDER_CANCEL_REPLACE_REQUEST)

    @property
    def limit_key(self) -> str:
        """Account and instrument: the key of the limits."""
        return f"{self.account}/{self.symbol}"

    @property
    def terms_key(self) -> str:
        """All that the venue sees of a message except its id: two requests with one key ask for the same."""
        return (
            f"{self.account}/{self.symbol}/{self.msg_type}/{self.side}/{self.order_qty}/{self.ord_type}/{self.price}/"
            f"{self.stop_px}/{self.orig_cl_ord_id}/{self.position_id or self.position_side or ''}"
        )

    def to_order(self) -> Order:
        """Return the order that this request asks for, as its owner holds it until the venue answers."""
        return Order(
            root_cl_ord_id=self.root_cl_ord_id or self.cl_ord_id,
            cl_ord_id=self.cl_ord_id,
            symbol=self.symbol,
            side=self.side,
            order_qty=self.order_qty,
            leaves_qty=self.order_qty,
            account=self.account,
            strategy=self.strategy,
            ord_type=self.ord_type,
            time_in_force=self.time_in_force,
            price=self.price,
            stop_px=self.stop_px,
            expire_date=self.expire_date,
            cl_ord_link_id=self.cl_ord_link_id,
            position_effect=self.position_effect,
            link=self.link,
            trade_date=self.trade_date,
            transact_time_ns=self.transact_time_ns,
            position_side=self.position_side,
            position_id=self.position_id,
            list_id=self.list_id,
            contingency_type=self.contingency_type,
            intent_id=self.intent_id,
        )

    def to_rejection(
        self, exec_id: str, *, trade_date: str, transact_time_ns: int, ord_rej_reason: int, text: str
    ) -> ExecutionReport:
        """Return the report that rejects the new order. `ord_rej_reason` is OrdRejReason (103)."""
        return ExecutionReport(
            exec_type=ExecType.REJECTED,
            ord_status=OrdStatus.REJECTED,
            cl_ord_id=self.cl_ord_id,
            exec_id=exec_id,
            symbol=self.symbol,
            side=self.side,
            order_qty=self.order_qty,
            account=self.account,
            ord_type=self.ord_type,
            time_in_force=self.time_in_force,
            price=self.price,
            cl_ord_link_id=self.cl_ord_link_id,
            list_id=self.list_id,
            contingency_type=self.contingency_type,
            trade_date=trade_date,
            order_date=trade_date,
            ord_rej_reason=ord_rej_reason,
            text=text,
            transact_time_ns=transact_time_ns,
        )

    def __repr__(self) -> str:
        return f"<Request {self.msg_type.name} {self.cl_ord_id} {self.side.name} {self.order_qty} {self.symbol}>"


class Query(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="query", tag_field="t"):
    """A question to the venue: order status (H), mass status (AF), positions (AN), executions since a time (AD),
    account changes since a date (BB).

    An execution query starts at a trade date (`since_date`) or at a TransactTime (`since_ns`, inclusive), an account
    query at a trade date.
    """

    msg_type: MsgType
    req_id: str
    account: str = ""
    symbol: str = ""
    cl_ord_id: str = ""
    order_id: str = ""
    since_date: str = ""
    since_ns: int = 0
    link: str = ""

    @property
    def key(self) -> str:
        """The request's id."""
        return self.req_id


class ExecutionReport(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="8", tag_field="t"):
    """ExecutionReport (8): the venue's report on an order.

    `trade_date` is TradeDate (75); `exec_ref_date` is the trade date of the busted or corrected execution;
    `expire_date` is ExpireDate (432). `origin` says who made an order that no client requested. `req_id` and
    `last_rpt_requested` belong to an answer (MassStatusReqID 584, OrdStatusReqID 790, TradeRequestID 568,
    LastRptRequested 912). `tot_num_reports` is 0 in the single report of an empty answer. `ord_rej_reason` 5 means
    unknown order.
    """

    exec_type: ExecType
    ord_status: OrdStatus
    cl_ord_id: str
    exec_id: str
    symbol: str = ""
    side: Side = Side.BUY
    order_qty: int = 0
    cum_qty: int = 0
    leaves_qty: int = 0
    notional: int = 0
    last_qty: int = 0
    last_px: int = 0
    order_id: str = ""
    orig_cl_ord_id: str = ""
    exec_ref_id: str = ""
    exec_ref_date: str = ""
    account: str = ""
    ord_type: OrdType = OrdType.LIMIT
    time_in_force: TimeInForce = TimeInForce.DAY
    price: int | None = None
    stop_px: int | None = None
    expire_date: str = ""
    cl_ord_link_id: str = ""
    position_effect: PositionEffect = PositionEffect.OPEN
    trade_date: str = ""
    order_date: str = ""
    exec_restatement_reason: ExecRestatementReason | None = None
    reference_version: str = ""
    ord_rej_reason: int | None = None
    text: str = ""
    req_id: str = ""
    last_rpt_requested: bool = False
    tot_num_reports: int | None = None
    poss_resend: bool = False
    transact_time_ns: int = 0
    position_side: PositionSide | None = None
    position_id: str = ""
    list_id: str = ""
    contingency_type: ContingencyType | None = None
    origin: OrderOrigin | None = None

    @property
    def key(self) -> str:
        """The ExecID."""
        return self.exec_id

    def to_order(self, root_cl_ord_id: str, **fields: Any) -> Order:
        """Return the order as this report states it. `fields` replace fields of the order, such as its owner.

        A report of a replace or an acknowledgement on an open order implies the status by its quantities.
        """
        status = self.ord_status
        if status == OrdStatus.REPLACED:
            status = status_from_quantities(self.cum_qty, self.order_qty)
        terms: dict[str, Any] = {
            "cl_ord_id": self.cl_ord_id,
            "orig_cl_ord_id": self.orig_cl_ord_id,
            "order_id": self.order_id,
            "account": self.account,
            "symbol": self.symbol,
            "side": self.side,
            "order_qty": self.order_qty,
            "leaves_qty": self.leaves_qty,
            "cum_qty": self.cum_qty,
            "notional": self.notional,
            "ord_status": status,
            "ord_type": self.ord_type,
            "time_in_force": self.time_in_force,
            "price": self.price,
            "stop_px": self.stop_px,
            "expire_date": self.expire_date,
            "cl_ord_link_id": self.cl_ord_link_id,
            "position_effect": self.position_effect,
            "trade_date": self.order_date or self.trade_date,
            "exec_type": self.exec_type,
            "exec_id": self.exec_id,
            "exec_ref_id": self.exec_ref_id,
            "exec_restatement_reason": self.exec_restatement_reason,
            "reference_version": self.reference_version,
            "position_side": self.position_side,
            "position_id": self.position_id,
            "list_id": self.list_id,
            "contingency_type": self.contingency_type,
            "origin": self.origin,
        }
        return Order(root_cl_ord_id=root_cl_ord_id, **(terms | fields))


class CancelReject(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="9", tag_field="t"):
    """OrderCancelReject (9): the venue refused a cancel or replace. `ord_status` is the order's current status."""

    cl_ord_id: str
    orig_cl_ord_id: str
    ord_status: OrdStatus
    account: str = ""
    order_id: str = ""
    cxl_rej_reason: int = 0
    cxl_rej_response_to: str = "1"
    text: str = ""

    @property
    def key(self) -> str:
        """The ClOrdID of the refused request."""
        return self.cl_ord_id


class PositionReport(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="AP", tag_field="t"):
    """PositionReport (AP): the venue's net position, in lots. An empty symbol means that there is no position."""

    req_id: str
    account: str
    symbol: str
    net_qty: int
    reference_version: str = ""
    last_rpt_requested: bool = False
    position_side: PositionSide | None = None
    position_id: str = ""

    @property
    def key(self) -> str:
        """Account, instrument and leg."""
        return position_key(self.account, self.symbol, self.position_id or self.position_side or "")


class AccountReport(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="CQ", tag_field="t"):
    """AccountSummaryReport (CQ): what changed in an account without a trade, and its state after the change.

    A report that the venue sends by itself states one movement of cash or one adjustment of a position, or none; an
    answer to a `Query` states each of them since the date of the query in a report of its own. Source: FIX 5.0 SP2,
    AccountSummaryReport (CQ), PositionMaintenanceReport (AM), CollateralInquiry (BB).
    """

    report_id: str
    account: str
    movement: CashMovement | None = None
    adjustment: PositionAdjustment | None = None
    balance: Balance | None = None
    margin: Margin | None = None
    req_id: str = ""
    last_rpt_requested: bool = False

    @property
    def key(self) -> str:
        """The report's id."""
        return self.report_id


class SecurityStatus(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag="f", tag_field="t"):
    """SecurityStatus (f): whether the venue takes orders in an instrument.

    `reason` is open, halt, disabled or closed.
    """

    symbol: str
    trading: bool
    reason: str = ""
    trade_date: str = ""
    reference_version: str = ""

    @property
    def key(self) -> str:
        """The symbol."""
        return self.symbol


Outbound = Request | Query
"""What a system sends to its venue."""

Inbound = ExecutionReport | CancelReject | PositionReport | SecurityStatus | AccountReport
"""What a venue sends to a system."""
