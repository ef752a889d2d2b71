"""A live execution client of NautilusTrader for the simulated venue, written like its own integrations.

It uses a FIX-like session: ordered messages, resend of gaps, queries with answers. As with most of its venues, messages
that were missed while the process was down come from the start-up reconciliation and not from the session: replayed
messages before the first answer to a query are skipped, because that answer is newer. With `replays` they are passed
to the engine as they arrive, which must then recognise its own fills.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from nautilus_trader.common.providers import InstrumentProvider
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.execution.reports import FillReport, OrderStatusReport, PositionStatusReport
from nautilus_trader.live.execution_client import LiveExecutionClient
from nautilus_trader.model.enums import AccountType, LiquiditySide, OmsType, OrderStatus, PositionSide
from nautilus_trader.model.identifiers import AccountId, ClientId, ClientOrderId, TradeId, Venue, VenueOrderId
from nautilus_trader.model.objects import AccountBalance, Money

from holdover.adapters.nautilus.records import (
    SIDE,
    TIF,
    TO_SIDE,
    TO_STATUS,
    TO_TIF,
    TO_TYPE,
    TYPE,
    NautilusUnits,
    RecordMapper,
)
from holdover.model import (
    CancelReject,
    ExecType,
    ExecutionReport,
    Inbound,
    Link,
    LinkState,
    MsgType,
    PositionReport,
    Query,
    Request,
    SecurityStatus,
)

if TYPE_CHECKING:
    from holdover.adapters.nautilus.backing import SqliteBacking
    from holdover.adapters.nautilus.loop import VirtualLoop
    from holdover.harness.subject import Env

_ANSWER_TIMEOUT_S: Final = 4.0
_TRIES_MAX: Final = 3
_UNKNOWN_ORDER: Final = 5
_REQUEST_SEPARATOR: Final = "~"
"""Separates an order's own name from the number of a cancel or replace request in a ClOrdID."""


class SimulatedVenueClient(LiveExecutionClient):  # type: ignore[misc]
    """One account on one venue.

    `on_relogon` is called after each later logon; `on_problem` receives internal errors.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        env: Env,
        names: RecordMapper,
        backing: SqliteBacking,
        *,
        oms: OmsType,
        account_type: AccountType,
        funds: int,
        replays: bool,
        on_problem: Callable[[BaseException], None],
        **parts: Any,
    ) -> None:
        units = next(iter(names.units.values()))
        super().__init__(
            loop=loop,
            client_id=ClientId(units.instrument.venue),
            venue=Venue(units.instrument.venue),
            oms_type=oms,
            account_type=account_type,
            base_currency=units.currency,
            instrument_provider=InstrumentProvider(),
            **parts,
        )
        self._set_account_id(AccountId(f"{units.instrument.venue}-{names.account}"))
        self.env, self.names, self.backing, self.funds, self.on_problem = env, names, backing, funds, on_problem
        self.replays = replays
        self.on_relogon: Callable[[], None] = lambda: None
        self.is_reconciled = False
        self.in_seq = 0
        self.unreported_corrections = 0
        self._is_catching_up = True
        self._resend_from = 0
        self._pending_queries: dict[str, tuple[asyncio.Future[list[Inbound]], list[Inbound]]] = {}
        self._query_number = 0
        self._logon_timer: Any = None
        self._first_logon: asyncio.Future[None] = self._loop.create_future()

    # -- the session ------------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        for units in self.names.units.values():
            self._cache.add_instrument(units.equity)
            self._instrument_provider.add(units.equity)
        if self._cache.account(self.account_id) is None:
            money = Money(self.funds, next(iter(self.names.units.values())).currency)
            self.generate_account_state(
                balances=[AccountBalance(money, Money(0, money.currency), money)],
                margins=[],
                reported=True,
                ts_event=self._clock.timestamp_ns(),
            )
        self.log_on()
        await self.wait_for_logon()

    async def _disconnect(self) -> None:
        self.env.link.disconnect()

    async def wait_for_logon(self) -> None:
        """Wait for the first logon of this incarnation."""
        await asyncio.shield(self._first_logon)

    def log_on(self) -> None:
        """Request a logon, and repeat while there is none."""
        if not self.env.link.is_up:
            self.env.link.connect(self.in_seq + 1, 1)
            self._schedule_logon(5.0)

    def _schedule_logon(self, seconds: float) -> None:
        """Schedule the next attempt; at most one is scheduled."""
        if self._logon_timer is not None:
            self._logon_timer.cancel()
        self._logon_timer = self._loop.call_later(seconds, self.log_on)

    def on_up(self, epoch: int) -> None:
        """The link is up."""
        self._is_catching_up, self.is_reconciled, self._resend_from = True, False, 0
        self._record_link(LinkState.RESET)
        if not self._first_logon.done():
            self._first_logon.set_result(None)
        else:
            self.on_relogon()

    def on_down(self) -> None:
        """The link is down: pending queries get no answer."""
        self.is_reconciled = False
        self._record_link(LinkState.LOGOUT)
        pending, self._pending_queries = self._pending_queries, {}
        for future, _ in pending.values():
            if not future.done():
                future.set_exception(ConnectionError("the link went down"))
        self._schedule_logon(5.0)

    def on_sequence_reset(self, new_seq: int) -> None:
        """Missed messages will not be resent: reconcile with the venue."""
        has_gap = new_seq > self.in_seq + 1
        self.in_seq = new_seq - 1
        self._record_link(LinkState.RESET)
        if has_gap and not self._is_catching_up:
            self._is_catching_up, self.is_reconciled = True, False
            self.on_relogon()

    def on_heartbeat(self, seq: int) -> None:
        """The venue has sent up to `seq`."""
        if seq > self.in_seq:
            self.env.link.resend(self.in_seq + 1)

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """Apply a message if it is the next one; otherwise request a resend."""
        if seq != self.in_seq + 1:
            if seq > self.in_seq and not (poss_dup and self._resend_from == self.in_seq + 1):
                self._resend_from = self.in_seq + 1
                self.env.link.resend(self._resend_from)
            return
        self.in_seq = seq
        self._record_link(LinkState.MESSAGE)
        req_id = getattr(message, "req_id", "")
        if req_id:
            self._on_answer(req_id, message)
        elif poss_dup and self._is_catching_up and not self.replays:
            return
        elif isinstance(message, ExecutionReport):
            self._apply_report(message)
        elif isinstance(message, CancelReject):
            self._apply_cancel_reject(message)
        elif isinstance(message, SecurityStatus):
            self._ignore_status(message)

    def _record_link(self, change: str) -> None:
        link = self.env.link
        self.env.guard.record(
            "gateway", Link(name=link.name, is_up=link.is_up, epoch=link.epoch, in_seq=self.in_seq, change=change)
        )

    def _ignore_status(self, message: SecurityStatus) -> None:
        """NautilusTrader receives nothing: its status messages are market data, and it does not check orders
        against them.
        """

    # -- queries ----------------------------------------------------------------------------------------------------

    async def query_venue(self, msg_type: MsgType, **fields: Any) -> list[Inbound]:
        """Send a query and return its answers.

        Raises `ConnectionError` without a link, `TimeoutError` without an answer.
        """
        for _ in range(_TRIES_MAX):
            if not self.env.link.is_up:
                raise ConnectionError("the link is down")
            self._query_number += 1
            req_id = f"Q{self.env.link.epoch}-{self._query_number}"
            future: asyncio.Future[list[Inbound]] = self._loop.create_future()
            self._pending_queries[req_id] = (future, [])
            query = Query(
                msg_type=msg_type, req_id=req_id, account=self.names.account, link=self.env.link.name, **fields
            )
            try:
                self.env.link.send(query)
            except Exception:
                raise
            except BaseException as problem:  # the engine would treat even this as a failed query and continue
                self.on_problem(problem)
                raise
            try:
                return await asyncio.wait_for(future, _ANSWER_TIMEOUT_S)
            except TimeoutError:
                self._pending_queries.pop(req_id, None)
        raise TimeoutError(f"no answer to {msg_type.name}")

    def _on_answer(self, req_id: str, message: Any) -> None:
        if req_id not in self._pending_queries:
            return  # the query is of an earlier incarnation, or timed out
        self._is_catching_up = False
        future, answers = self._pending_queries[req_id]
        answers.append(message)
        if message.last_rpt_requested:
            del self._pending_queries[req_id]
            if not future.done():
                future.set_result(answers)

    async def generate_order_status_report(self, command: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the status of one order; None when the venue does not know it."""
        name = command.client_order_id
        if name is None:
            return None
        (report,) = await self.query_venue(MsgType.ORDER_STATUS_REQUEST, cl_ord_id=name.value)
        return self._make_status_report(report) if isinstance(report, ExecutionReport) else None

    async def generate_order_status_reports(self, command: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """Returns every open order, and every other order that is open here or has traded since the last session."""
        answers = await self.query_venue(MsgType.ORDER_MASS_STATUS_REQUEST)
        reports = {
            report.cl_ord_id: report for report in answers if isinstance(report, ExecutionReport) and report.order_id
        }
        reported_names = {self._root_of(report.cl_ord_id) for report in reports.values()}
        open_names = {
            order.client_order_id.value for order in (*self._cache.orders_open(), *self._cache.orders_inflight())
        }
        if not getattr(command, "open_only", False):
            open_names |= {self._root_of(report.cl_ord_id) for report in await self._query_trades()}
        for name in sorted(open_names - reported_names):
            for report in await self.query_venue(MsgType.ORDER_STATUS_REQUEST, cl_ord_id=name):
                if isinstance(report, ExecutionReport) and report.order_id:
                    reports[report.cl_ord_id] = report
        return [status for status in map(self._make_status_report, reports.values()) if status is not None]

    async def generate_fill_reports(self, command: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """Returns every trade since the last session of this process."""
        return [self._make_fill_report(report) for report in await self._query_trades()]

    async def generate_position_status_reports(self, command: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """Returns the net position in each instrument."""
        instrument_id = getattr(command, "instrument_id", None)
        net_by_symbol: dict[str, int] = {} if instrument_id is None else {instrument_id.symbol.value: 0}
        for report in await self.query_venue(MsgType.REQUEST_FOR_POSITIONS):
            if (
                isinstance(report, PositionReport)
                and report.symbol
                and (instrument_id is None or report.symbol in net_by_symbol)
            ):
                net_by_symbol[report.symbol] = report.net_qty
        now_ns = self._clock.timestamp_ns()
        return [
            PositionStatusReport(
                account_id=self.account_id,
                instrument_id=self.names.units[symbol].id,
                position_side=PositionSide.LONG if net > 0 else PositionSide.SHORT if net < 0 else PositionSide.FLAT,
                quantity=self.names.units[symbol].quantity(abs(net)),
                report_id=UUID4(),
                ts_last=now_ns,
                ts_init=now_ns,
            )
            for symbol, net in net_by_symbol.items()
        ]

    async def _query_trades(self) -> list[ExecutionReport]:
        since_date = self.backing.get("since")
        answers = await self.query_venue(MsgType.TRADE_CAPTURE_REPORT_REQUEST, since_date=since_date)
        return [
            report for report in answers if isinstance(report, ExecutionReport) and report.exec_type == ExecType.TRADE
        ]

    def _root_of(self, cl_ord_id: str) -> str:
        return cl_ord_id.partition(_REQUEST_SEPARATOR)[0]

    def _make_status_report(self, report: ExecutionReport, *, as_new: bool = False) -> Any:
        if report.ord_rej_reason == _UNKNOWN_ORDER or not report.order_id:
            return None
        units = self.names.units[report.symbol]
        name = self._root_of(report.cl_ord_id)
        cum_qty = 0 if as_new else report.cum_qty
        status = OrderStatus.ACCEPTED if as_new else TO_STATUS.get(report.ord_status)
        if status is None:  # done for the day: NautilusTrader has it as open
            self.names.done_for_day.add(name)
            status = OrderStatus.PARTIALLY_FILLED if cum_qty else OrderStatus.ACCEPTED
        return OrderStatusReport(
            account_id=self.account_id,
            instrument_id=units.id,
            client_order_id=ClientOrderId(name),
            venue_order_id=VenueOrderId(report.order_id),
            order_side=TO_SIDE[report.side],
            order_type=TO_TYPE[report.ord_type],
            time_in_force=TO_TIF[report.time_in_force],
            order_status=status,
            price=units.price(report.price) if report.price is not None else None,
            quantity=units.quantity(report.order_qty),
            filled_qty=units.quantity(cum_qty),
            avg_px=Decimal(report.notional) * units.tick / cum_qty if cum_qty else None,
            report_id=UUID4(),
            ts_accepted=report.transact_time_ns,
            ts_last=report.transact_time_ns,
            ts_init=self._clock.timestamp_ns(),
        )

    def _make_fill_report(self, report: ExecutionReport) -> Any:
        units = self.names.units[report.symbol]
        return FillReport(
            account_id=self.account_id,
            instrument_id=units.id,
            client_order_id=ClientOrderId(self._root_of(report.cl_ord_id)),
            venue_order_id=VenueOrderId(report.order_id),
            trade_id=TradeId(f"{report.trade_date}/{report.exec_id}"),
            order_side=TO_SIDE[report.side],
            last_qty=units.quantity(report.last_qty),
            last_px=units.price(report.last_px),
            commission=Money(0, units.currency),
            liquidity_side=LiquiditySide.NO_LIQUIDITY_SIDE,
            report_id=UUID4(),
            ts_event=report.transact_time_ns,
            ts_init=self._clock.timestamp_ns(),
        )

    # -- inbound ----------------------------------------------------------------------------------------------------

    def _apply_report(self, report: ExecutionReport) -> None:
        name = ClientOrderId(self._root_of(report.cl_ord_id))
        order = self._cache.order(name)
        if order is None:
            if report.exec_type == ExecType.REJECTED:
                return
            status = self._make_status_report(report, as_new=True)
            if status is None:
                return
            self._send_order_status_report(status)  # from here on it is an external order of the engine
            order = self._cache.order(name)
            if order is None:
                return
        units = self.names.units[report.symbol]
        event_fields = {
            "strategy_id": order.strategy_id,
            "instrument_id": order.instrument_id,
            "client_order_id": name,
            "venue_order_id": VenueOrderId(report.order_id) if report.order_id else None,
            "ts_event": report.transact_time_ns,
        }
        kind = report.exec_type
        if kind != ExecType.DONE_FOR_DAY:
            self.names.done_for_day.discard(self.names.order_key(order))
        if kind == ExecType.NEW:
            self.generate_order_accepted(**event_fields)
        elif kind == ExecType.TRADE:
            self._apply_fill(report, order, units, event_fields)
        elif kind == ExecType.CANCELED:
            self.generate_order_canceled(**event_fields)
        elif kind == ExecType.EXPIRED:
            self.generate_order_expired(**event_fields)
        elif kind == ExecType.REPLACED:
            price = units.price(report.price) if report.price is not None else None
            self.generate_order_updated(
                quantity=units.quantity(report.order_qty), price=price, trigger_price=None, **event_fields
            )
        elif kind == ExecType.REJECTED:
            del event_fields["venue_order_id"]
            self.generate_order_rejected(reason=report.text or "rejected", **event_fields)
        elif kind == ExecType.DONE_FOR_DAY:
            self._apply_done_for_day(order)
        elif kind in (ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT):
            self.unreported_corrections += 1  # NautilusTrader has no event for a bust or a correction

    def _apply_fill(
        self, report: ExecutionReport, order: Any, units: NautilusUnits, event_fields: dict[str, Any]
    ) -> None:
        self.generate_order_filled(
            venue_position_id=None,
            trade_id=TradeId(f"{report.trade_date}/{report.exec_id}"),
            order_side=order.side,
            order_type=order.order_type,
            last_qty=units.quantity(report.last_qty),
            last_px=units.price(report.last_px),
            quote_currency=units.currency,
            commission=Money(0, units.currency),
            liquidity_side=LiquiditySide.NO_LIQUIDITY_SIDE,
            **event_fields,
        )

    def _apply_done_for_day(self, order: Any) -> None:
        """NautilusTrader has no event for this and keeps the order open; the record gets the status from here."""
        self.names.done_for_day.add(self.names.order_key(order))
        self.env.guard.record("orders", self.names.to_order(order))

    def _apply_cancel_reject(self, message: CancelReject) -> None:
        order = self._cache.order(ClientOrderId(self._root_of(message.orig_cl_ord_id)))
        if order is not None:
            self._reject_change(order, message.text, modify=message.cxl_rej_response_to == "2")

    def _reject_change(self, order: Any, reason: str, *, modify: bool) -> None:
        reject = self.generate_order_modify_rejected if modify else self.generate_order_cancel_rejected
        reject(
            strategy_id=order.strategy_id,
            instrument_id=order.instrument_id,
            client_order_id=order.client_order_id,
            venue_order_id=order.venue_order_id,
            reason=reason or "refused",
            ts_event=self._clock.timestamp_ns(),
        )

    # -- outbound ---------------------------------------------------------------------------------------------------

    async def _submit_order(self, command: Any) -> None:
        self._run_guarded(lambda: self._submit(command.order))

    async def _submit_order_list(self, command: Any) -> None:
        for order in command.order_list.orders:
            self._run_guarded(partial(self._submit, order))

    async def _modify_order(self, command: Any) -> None:
        self._run_guarded(lambda: self._modify(command))

    async def _cancel_order(self, command: Any) -> None:
        self._run_guarded(lambda: self._cancel(command.client_order_id))

    async def _cancel_all_orders(self, command: Any) -> None:
        for order in self._cache.orders_open(instrument_id=command.instrument_id, strategy_id=command.strategy_id):
            self._run_guarded(partial(self._cancel, order.client_order_id))

    async def _batch_cancel_orders(self, command: Any) -> None:
        for cancel in command.cancels:
            self._run_guarded(partial(self._cancel, cancel.client_order_id))

    def _run_guarded(self, action: Callable[[], None]) -> None:
        """Report errors of this client: the base class only logs what a task raises and continues."""
        try:
            action()
        except BaseException as problem:
            self.on_problem(problem)
            raise

    def _submit(self, order: Any) -> None:
        event_fields = {
            "strategy_id": order.strategy_id,
            "instrument_id": order.instrument_id,
            "client_order_id": order.client_order_id,
            "ts_event": self._clock.timestamp_ns(),
        }
        request = self._make_request(MsgType.NEW_ORDER_SINGLE, order, order.client_order_id.value, "")
        if not self._may_send(request):
            self._deny_order("HOLDOVER: frozen, or the venue is not reconciled", event_fields)
            return
        self.generate_order_submitted(**event_fields)
        if not self._send(request):
            self.generate_order_rejected(reason="HOLDOVER: frozen on its way out", **event_fields)

    def _deny_order(self, reason: str, event_fields: dict[str, Any]) -> None:
        """Deny an order. In older releases a client can only reject, and only an order that it has submitted."""
        deny = getattr(self, "generate_order_denied", None)
        if deny is None:
            self.generate_order_submitted(**event_fields)
            deny = self.generate_order_rejected
        deny(reason=reason, **event_fields)

    def _modify(self, command: Any) -> None:
        order = self._cache.order(command.client_order_id)
        root = order.client_order_id.value
        request = self._make_request(
            MsgType.ORDER_CANCEL_REPLACE_REQUEST,
            order,
            self._next_cl_ord_id(root),
            root,
            command.quantity,
            command.price,
        )
        if not self._may_send(request) or not self._send(request):
            self._reject_change(order, "HOLDOVER: frozen, or the venue is not reconciled", modify=True)

    def _cancel(self, client_order_id: Any) -> None:
        order = self._cache.order(client_order_id)
        root = order.client_order_id.value
        request = self._make_request(MsgType.ORDER_CANCEL_REQUEST, order, self._next_cl_ord_id(root), root)
        if not self.env.link.is_up or not self.env.guard.permits(request) or not self._send(request):
            self._reject_change(order, "HOLDOVER: frozen, or the link is down", modify=False)

    def _next_cl_ord_id(self, root: str) -> str:
        """A ClOrdID for a cancel or replace request that was never used before, across restarts, too."""
        number = int(self.backing.get("requests", "0")) + 1
        self.backing.set("requests", str(number))
        return f"{root}{_REQUEST_SEPARATOR}{number}"

    def _make_request(
        self, msg_type: MsgType, order: Any, name: str, orig: str, quantity: Any = None, price: Any = None
    ) -> Request:
        units = self.names.units[order.instrument_id.symbol.value]
        price = price if price is not None else order.price if order.has_price else None
        return Request(
            msg_type=msg_type,
            cl_ord_id=name,
            root_cl_ord_id=self.names.order_key(order),
            orig_cl_ord_id=orig,
            symbol=units.instrument.symbol,
            side=SIDE[order.side],
            order_qty=units.lots(quantity if quantity is not None else order.quantity),
            account=self.names.account,
            strategy=self.names.to_order(order).strategy,
            ord_type=TYPE[order.order_type],
            time_in_force=TIF[order.time_in_force],
            price=units.ticks(price) if price is not None else None,
            link=self.env.link.name,
            link_epoch=self.env.link.epoch,
            trade_date=self.env.trade_date,
            transact_time_ns=self._clock.timestamp_ns(),
        )

    def _may_send(self, request: Request) -> bool:
        return self.env.link.is_up and self.is_reconciled and self.env.guard.permits(request)

    def _send(self, request: Request) -> bool:
        """Record the request, check the guard once more and send."""
        self.env.guard.record("gateway", request)
        if not self.env.link.is_up or not self.env.guard.permits(request):
            return False
        self.env.link.send(request)
        return True
