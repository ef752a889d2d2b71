"""A live execution client of NautilusTrader on the simulated venue, written as its integrations are.

Below it is a FIX-like session: messages in their order, gaps asked for again, questions with answers. What was missed
while a process was down is not taken from the session but from its own start-up reconciliation, as with most of its
venues: replays that come before the first answer to a question are passed over, because that answer is later than they.
With `replays` they are handed to the engine as they come, which then has to know its own fills again.
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

from holdover.adapters.nautilus.names import SIDE, TIF, TO_SIDE, TO_STATUS, TO_TIF, TO_TYPE, TYPE, Names, Units
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
    from holdover.adapters.nautilus.backing import Backing
    from holdover.adapters.nautilus.loop import VirtualLoop
    from holdover.harness.subject import Env

_PATIENCE_S: Final = 4.0
_TRIES: Final = 3
_UNKNOWN_ORDER: Final = 5
_PART: Final = "~"
"""Between an order's own name and the number of a cancel or replace of it, in a ClOrdID."""


class SimulatedVenueClient(LiveExecutionClient):  # type: ignore[misc]
    """One account on one venue. `came_up` is called after each logon; `problem` gets what went wrong in here."""

    def __init__(
        self,
        loop: VirtualLoop,
        env: Env,
        names: Names,
        backing: Backing,
        *,
        oms: OmsType,
        account_type: AccountType,
        funds: int,
        replays: bool,
        problem: Callable[[BaseException], None],
        **parts: Any,
    ) -> None:
        units = next(iter(names.units.values()))
        super().__init__(
            loop=loop,
            client_id=ClientId(units.ours.venue),
            venue=Venue(units.ours.venue),
            oms_type=oms,
            account_type=account_type,
            base_currency=units.currency,
            instrument_provider=InstrumentProvider(),
            **parts,
        )
        self._set_account_id(AccountId(f"{units.ours.venue}-{names.account}"))
        self.env, self.names, self.backing, self.funds, self.problem = env, names, backing, funds, problem
        self.replays = replays
        self.came_up: Callable[[], None] = lambda: None
        self.reconciled = False
        self.in_seq = 0
        self.unspoken = 0
        self._catching_up = True
        self._asked_from = 0
        self._asked: dict[str, tuple[asyncio.Future[list[Inbound]], list[Inbound]]] = {}
        self._question = 0
        self._attempt: Any = None
        self._up: asyncio.Future[None] = self._loop.create_future()

    # -- the session ------------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        for units in self.names.units.values():
            self._cache.add_instrument(units.theirs)
            self._instrument_provider.add(units.theirs)
        if self._cache.account(self.account_id) is None:
            money = Money(self.funds, next(iter(self.names.units.values())).currency)
            self.generate_account_state(
                balances=[AccountBalance(money, Money(0, money.currency), money)],
                margins=[],
                reported=True,
                ts_event=self._clock.timestamp_ns(),
            )
        self.log_on()
        await self.logged_on()

    async def _disconnect(self) -> None:
        self.env.link.disconnect()

    async def logged_on(self) -> None:
        """Wait for the first logon of this life."""
        await asyncio.shield(self._up)

    def log_on(self) -> None:
        """Ask for a logon; again by itself for as long as there is none."""
        if not self.env.link.up:
            self.env.link.connect(self.in_seq + 1, 1)
            self._try_again(5.0)

    def _try_again(self, seconds: float) -> None:
        """One attempt waits at a time."""
        if self._attempt is not None:
            self._attempt.cancel()
        self._attempt = self._loop.call_later(seconds, self.log_on)

    def on_up(self, epoch: int) -> None:
        """The link is up."""
        self._catching_up, self.reconciled, self._asked_from = True, False, 0
        self._say(LinkState.RESET)
        if not self._up.done():
            self._up.set_result(None)
        else:
            self.came_up()

    def on_down(self) -> None:
        """The link is down: no answer will come."""
        self.reconciled = False
        self._say(LinkState.LOGOUT)
        asked, self._asked = self._asked, {}
        for future, _ in asked.values():
            if not future.done():
                future.set_exception(ConnectionError("the link went down"))
        self._try_again(5.0)

    def on_sequence_reset(self, new_seq: int) -> None:
        """What was missed will not come: ask what is so."""
        passed_over = new_seq > self.in_seq + 1
        self.in_seq = new_seq - 1
        self._say(LinkState.RESET)
        if passed_over and not self._catching_up:
            self._catching_up, self.reconciled = True, False
            self.came_up()

    def on_heartbeat(self, seq: int) -> None:
        """The venue has sent up to `seq`."""
        if seq > self.in_seq:
            self.env.link.resend(self.in_seq + 1)

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """One message: taken when it is the next one, else asked for in order."""
        if seq != self.in_seq + 1:
            if seq > self.in_seq and not (poss_dup and self._asked_from == self.in_seq + 1):
                self._asked_from = self.in_seq + 1
                self.env.link.resend(self._asked_from)
            return
        self.in_seq = seq
        self._say(LinkState.MESSAGE)
        req_id = getattr(message, "req_id", "")
        if req_id:
            self._answered(req_id, message)
        elif poss_dup and self._catching_up and not self.replays:
            return
        elif isinstance(message, ExecutionReport):
            self._report(message)
        elif isinstance(message, CancelReject):
            self._refused(message)
        elif isinstance(message, SecurityStatus):
            self._say_book(message)

    def _say(self, change: str) -> None:
        link = self.env.link
        self.env.guard.record(
            "gateway", Link(name=link.name, up=link.up, epoch=link.epoch, in_seq=self.in_seq, change=change)
        )

    def _say_book(self, message: SecurityStatus) -> None:
        """NautilusTrader is told nothing: its status messages are market data, and it does not judge orders by them."""

    # -- questions --------------------------------------------------------------------------------------------------

    async def ask(self, msg_type: MsgType, **fields: Any) -> list[Inbound]:
        """A question and its answers. Raises `ConnectionError` without a link, `TimeoutError` when none comes."""
        for _ in range(_TRIES):
            if not self.env.link.up:
                raise ConnectionError("the link is down")
            self._question += 1
            req_id = f"Q{self.env.link.epoch}-{self._question}"
            future: asyncio.Future[list[Inbound]] = self._loop.create_future()
            self._asked[req_id] = (future, [])
            query = Query(
                msg_type=msg_type, req_id=req_id, account=self.names.account, link=self.env.link.name, **fields
            )
            try:
                self.env.link.send(query)
            except Exception:
                raise
            except BaseException as problem:  # its engine takes even that for a failed question, and would live on
                self.problem(problem)
                raise
            try:
                return await asyncio.wait_for(future, _PATIENCE_S)
            except TimeoutError:
                self._asked.pop(req_id, None)
        raise TimeoutError(f"no answer to {msg_type.name}")

    def _answered(self, req_id: str, message: Any) -> None:
        if req_id not in self._asked:
            return  # asked by an earlier life, or too long ago
        self._catching_up = False
        future, answers = self._asked[req_id]
        answers.append(message)
        if message.last_rpt_requested:
            del self._asked[req_id]
            if not future.done():
                future.set_result(answers)

    async def generate_order_status_report(self, command: Any, *more: Any, **others: Any) -> Any:
        """One order's status; None when the venue does not know it."""
        name = command.client_order_id
        if name is None:
            return None
        (report,) = await self.ask(MsgType.ORDER_STATUS_REQUEST, cl_ord_id=name.value)
        return self._status(report) if isinstance(report, ExecutionReport) else None

    async def generate_order_status_reports(self, command: Any, *more: Any, **others: Any) -> list[Any]:
        """Every open order, and every other one that we hold open or that has traded since we last looked."""
        answers = await self.ask(MsgType.ORDER_MASS_STATUS_REQUEST)
        found = {one.cl_ord_id: one for one in answers if isinstance(one, ExecutionReport) and one.order_id}
        named = {self._root(one.cl_ord_id) for one in found.values()}
        held = {order.client_order_id.value for order in (*self._cache.orders_open(), *self._cache.orders_inflight())}
        if not getattr(command, "open_only", False):
            held |= {self._root(one.cl_ord_id) for one in await self._trades()}
        for name in sorted(held - named):
            for one in await self.ask(MsgType.ORDER_STATUS_REQUEST, cl_ord_id=name):
                if isinstance(one, ExecutionReport) and one.order_id:
                    found[one.cl_ord_id] = one
        return [made for made in map(self._status, found.values()) if made is not None]

    async def generate_fill_reports(self, command: Any, *more: Any, **others: Any) -> list[Any]:
        """Every trade since the session that we last looked in."""
        return [self._fill(one) for one in await self._trades()]

    async def generate_position_status_reports(self, command: Any, *more: Any, **others: Any) -> list[Any]:
        """The net position in each instrument."""
        asked = getattr(command, "instrument_id", None)
        found: dict[str, int] = {} if asked is None else {asked.symbol.value: 0}
        for one in await self.ask(MsgType.REQUEST_FOR_POSITIONS):
            if isinstance(one, PositionReport) and one.symbol and (asked is None or one.symbol in found):
                found[one.symbol] = one.net_qty
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
            for symbol, net in found.items()
        ]

    async def _trades(self) -> list[ExecutionReport]:
        since = self.backing.get("since")
        answers = await self.ask(MsgType.TRADE_CAPTURE_REPORT_REQUEST, since_date=since)
        return [one for one in answers if isinstance(one, ExecutionReport) and one.exec_type == ExecType.TRADE]

    def _root(self, cl_ord_id: str) -> str:
        return cl_ord_id.partition(_PART)[0]

    def _status(self, report: ExecutionReport, *, as_new: bool = False) -> Any:
        if report.ord_rej_reason == _UNKNOWN_ORDER or not report.order_id:
            return None
        units = self.names.units[report.symbol]
        name = self._root(report.cl_ord_id)
        cum_qty = 0 if as_new else report.cum_qty
        status = OrderStatus.ACCEPTED if as_new else TO_STATUS.get(report.ord_status)
        if status is None:  # done for the day: it is open still
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

    def _fill(self, report: ExecutionReport) -> Any:
        units = self.names.units[report.symbol]
        return FillReport(
            account_id=self.account_id,
            instrument_id=units.id,
            client_order_id=ClientOrderId(self._root(report.cl_ord_id)),
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

    # -- what the venue says ----------------------------------------------------------------------------------------

    def _report(self, report: ExecutionReport) -> None:
        name = ClientOrderId(self._root(report.cl_ord_id))
        order = self._cache.order(name)
        if order is None:
            if report.exec_type == ExecType.REJECTED:
                return
            status = self._status(report, as_new=True)
            if status is None:
                return
            self._send_order_status_report(status)  # theirs now: an external order
            order = self._cache.order(name)
            if order is None:
                return
        units = self.names.units[report.symbol]
        about = {
            "strategy_id": order.strategy_id,
            "instrument_id": order.instrument_id,
            "client_order_id": name,
            "venue_order_id": VenueOrderId(report.order_id) if report.order_id else None,
            "ts_event": report.transact_time_ns,
        }
        kind = report.exec_type
        if kind != ExecType.DONE_FOR_DAY:
            self.names.done_for_day.discard(self.names.key(order))
        if kind == ExecType.NEW:
            self.generate_order_accepted(**about)
        elif kind == ExecType.TRADE:
            self._filled(report, order, units, about)
        elif kind == ExecType.CANCELED:
            self.generate_order_canceled(**about)
        elif kind == ExecType.EXPIRED:
            self.generate_order_expired(**about)
        elif kind == ExecType.REPLACED:
            price = units.price(report.price) if report.price is not None else None
            self.generate_order_updated(
                quantity=units.quantity(report.order_qty), price=price, trigger_price=None, **about
            )
        elif kind == ExecType.REJECTED:
            del about["venue_order_id"]
            self.generate_order_rejected(reason=report.text or "rejected", **about)
        elif kind == ExecType.DONE_FOR_DAY:
            self._done_for_day(order)
        elif kind in (ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT):
            self.unspoken += 1  # there is no event for a bust or a correction

    def _filled(self, report: ExecutionReport, order: Any, units: Units, about: dict[str, Any]) -> None:
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
            **about,
        )

    def _done_for_day(self, order: Any) -> None:
        """There is no event for it, and the order is open still: we remember it for the record."""
        self.names.done_for_day.add(self.names.key(order))
        self.env.guard.record("orders", self.names.order(order))

    def _refused(self, message: CancelReject) -> None:
        order = self._cache.order(ClientOrderId(self._root(message.orig_cl_ord_id)))
        if order is not None:
            self._not_done(order, message.text, modify=message.cxl_rej_response_to == "2")

    def _not_done(self, order: Any, reason: str, *, modify: bool) -> None:
        say = self.generate_order_modify_rejected if modify else self.generate_order_cancel_rejected
        say(
            strategy_id=order.strategy_id,
            instrument_id=order.instrument_id,
            client_order_id=order.client_order_id,
            venue_order_id=order.venue_order_id,
            reason=reason or "refused",
            ts_event=self._clock.timestamp_ns(),
        )

    # -- what leaves ------------------------------------------------------------------------------------------------

    async def _submit_order(self, command: Any) -> None:
        self._in_here(lambda: self._submit(command.order))

    async def _submit_order_list(self, command: Any) -> None:
        for order in command.order_list.orders:
            self._in_here(partial(self._submit, order))

    async def _modify_order(self, command: Any) -> None:
        self._in_here(lambda: self._modify(command))

    async def _cancel_order(self, command: Any) -> None:
        self._in_here(lambda: self._cancel(command.client_order_id))

    async def _cancel_all_orders(self, command: Any) -> None:
        for order in self._cache.orders_open(instrument_id=command.instrument_id, strategy_id=command.strategy_id):
            self._in_here(partial(self._cancel, order.client_order_id))

    async def _batch_cancel_orders(self, command: Any) -> None:
        for one in command.cancels:
            self._in_here(partial(self._cancel, one.client_order_id))

    def _in_here(self, what: Callable[[], None]) -> None:
        """Their base class logs what a task raises and goes on: a mistake of this client's must not pass as theirs."""
        try:
            what()
        except BaseException as problem:
            self.problem(problem)
            raise

    def _submit(self, order: Any) -> None:
        about = {
            "strategy_id": order.strategy_id,
            "instrument_id": order.instrument_id,
            "client_order_id": order.client_order_id,
            "ts_event": self._clock.timestamp_ns(),
        }
        request = self._request(MsgType.NEW_ORDER_SINGLE, order, order.client_order_id.value, "")
        if not self._may_leave(request):
            self._denied("HOLDOVER: frozen, or the venue is not reconciled", about)
            return
        self.generate_order_submitted(**about)
        if not self._send(request):
            self.generate_order_rejected(reason="HOLDOVER: frozen on its way out", **about)

    def _denied(self, reason: str, about: dict[str, Any]) -> None:
        """Older releases let a client only reject, and only what it has submitted."""
        deny = getattr(self, "generate_order_denied", None)
        if deny is None:
            self.generate_order_submitted(**about)
            deny = self.generate_order_rejected
        deny(reason=reason, **about)

    def _modify(self, command: Any) -> None:
        order = self._cache.order(command.client_order_id)
        root = order.client_order_id.value
        request = self._request(
            MsgType.ORDER_CANCEL_REPLACE_REQUEST, order, self._next_name(root), root, command.quantity, command.price
        )
        if not self._may_leave(request) or not self._send(request):
            self._not_done(order, "HOLDOVER: frozen, or the venue is not reconciled", modify=True)

    def _cancel(self, client_order_id: Any) -> None:
        order = self._cache.order(client_order_id)
        root = order.client_order_id.value
        request = self._request(MsgType.ORDER_CANCEL_REQUEST, order, self._next_name(root), root)
        if not self.env.link.up or not self.env.guard.permits(request) or not self._send(request):
            self._not_done(order, "HOLDOVER: frozen, or the link is down", modify=False)

    def _next_name(self, root: str) -> str:
        """A ClOrdID for a cancel or replace: never used before, over restarts too."""
        number = int(self.backing.get("requests", "0")) + 1
        self.backing.set("requests", str(number))
        return f"{root}{_PART}{number}"

    def _request(
        self, msg_type: MsgType, order: Any, name: str, orig: str, quantity: Any = None, price: Any = None
    ) -> Request:
        units = self.names.units[order.instrument_id.symbol.value]
        price = price if price is not None else order.price if order.has_price else None
        return Request(
            msg_type=msg_type,
            cl_ord_id=name,
            root_cl_ord_id=self.names.key(order),
            orig_cl_ord_id=orig,
            symbol=units.ours.symbol,
            side=SIDE[order.side],
            order_qty=units.lots(quantity if quantity is not None else order.quantity),
            account=self.names.account,
            strategy=self.names.order(order).strategy,
            ord_type=TYPE[order.order_type],
            time_in_force=TIF[order.time_in_force],
            price=units.ticks(price) if price is not None else None,
            link=self.env.link.name,
            link_epoch=self.env.link.epoch,
            trade_date=self.env.trade_date,
            transact_time_ns=self._clock.timestamp_ns(),
        )

    def _may_leave(self, request: Request) -> bool:
        return self.env.link.up and self.reconciled and self.env.guard.permits(request)

    def _send(self, request: Request) -> bool:
        """The last line before the wire: recorded, asked once more, sent."""
        self.env.guard.record("gateway", request)
        if not self.env.link.up or not self.env.guard.permits(request):
            return False
        self.env.link.send(request)
        return True
