"""The simulated venue as a ccxt exchange: each call sends a message on the link and waits for the answer.

`ExchangeGateway` is the connection; `SimulatedExchange` and `AsyncSimulatedExchange` are what freqtrade finds under the
name `holdover` in ccxt. A call without an answer within ccxt's ten seconds raises `RequestTimeout`. A call on a link
that is down or goes down meanwhile raises `NetworkError`: as for any REST client, the result at the venue is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import ccxt
import ccxt.async_support

from holdover.model import (
    TRADES,
    CancelReject,
    ExecType,
    ExecutionReport,
    Inbound,
    Instrument,
    MsgType,
    OrdStatus,
    OrdType,
    PositionReport,
    Query,
    Request,
    Side,
    TimeInForce,
)

if TYPE_CHECKING:
    from holdover.adapters.freqtrade.fibre import Fibre
    from holdover.harness.subject import Env

NAME: Final = "holdover"
"""The exchange's name in ccxt and in freqtrade's configuration."""
_ANSWER_TIMEOUT_NS: Final = 10_000_000_000
_RETRY_NS: Final = 5_000_000_000
_FUNDS: Final = 1_000_000_000.0
_UNKNOWN_ORDER: Final = 5
_STATUS: Final = {
    OrdStatus.FILLED: "closed",
    OrdStatus.CANCELED: "canceled",
    OrdStatus.EXPIRED: "expired",
    OrdStatus.REJECTED: "rejected",
}


class ExchangeGateway:
    """One account's connection to the venue.

    `has_news` is set when the venue has sent something unsolicited; `queried_orders` are the orders queried since
    the last logon, and `on_query` is called after each query.
    """

    def __init__(self, env: Env, account: str, fibre: Fibre, config: dict[str, Any]) -> None:
        self.env, self.account, self.fibre = env, account, fibre
        self.strategy = str(config["strategy"])
        self.symbols = {f"{instrument.symbol}/{instrument.currency}": instrument for instrument in env.instruments}
        self.has_news = False
        self.queried_orders: set[str] = set()
        self.on_query: Callable[[], None] = lambda: None
        self.done_for_day: set[str] = set()
        self._in_seq = 0
        self._is_catching_up = True
        self._resend_from = 0
        self._number = self._attempt = 0
        self._answers: dict[str, list[Inbound]] = {}
        config["exchange"]["ccxt_config"] = {"gateway": self}

    def __deepcopy__(self, memo: Any) -> ExchangeGateway:
        return self  # freqtrade copies the configuration that holds it

    # -- the session ------------------------------------------------------------------------------------------------

    def log_on(self, attempt: int = 0) -> None:
        """Request a logon and repeat until there is one; of several scheduled attempts only the last counts."""
        if not self.env.link.is_up and attempt == self._attempt:
            self.env.link.connect(self._in_seq + 1, 1)
            self._schedule_logon()

    def on_timer(self, name: str, args: tuple[Any, ...]) -> None:
        """Handle a timer of the gateway, or one that the fibre waits for."""
        if name == "log on":
            self.log_on(*args)
        else:
            self.fibre.resume(name)

    def on_up(self, epoch: int, out_seq: int) -> None:
        """The link is up."""
        self.has_news = self._is_catching_up = True
        self._resend_from = 0
        self.queried_orders.clear()
        self.fibre.resume("logon")

    def on_down(self, reason: str) -> None:
        """The link is down: retry later."""
        self._schedule_logon()
        self.fibre.resume("logout")

    def _schedule_logon(self) -> None:
        self._attempt += 1
        self.env.clock.call_at(self.env.clock.now_ns + _RETRY_NS, "log on", self._attempt)

    def on_sequence_reset(self, new_seq: int) -> None:
        """Missed messages will not be resent."""
        self.has_news = self.has_news or new_seq > self._in_seq + 1
        self._in_seq = new_seq - 1
        self.fibre.resume("reset")

    def on_heartbeat(self, seq: int) -> None:
        """The venue has sent up to `seq`."""
        if seq > self._in_seq:
            self.env.link.resend(self._in_seq + 1)

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """Apply a message if it is the next one; otherwise request a resend."""
        if seq == self._in_seq + 1:
            self._in_seq = seq
            self._apply_message(message, is_replayed=poss_dup and self._is_catching_up)
            self._is_catching_up = self._is_catching_up and poss_dup
            self.fibre.resume("message")
        elif seq > self._in_seq and not (poss_dup and self._resend_from == self._in_seq + 1):
            self._resend_from = self._in_seq + 1
            self.env.link.resend(self._resend_from)

    def _apply_message(self, message: Inbound, *, is_replayed: bool) -> None:
        """Pass an answer to its caller. Unsolicited reports and fills set `has_news`, so that the next poll need
        not wait; reports replayed after a logon do not, because everything is polled then anyway.
        """
        req_id = getattr(message, "req_id", "")
        name = req_id or getattr(message, "cl_ord_id", "")
        if name in self._answers:
            self._answers[name].append(message)
        if isinstance(message, ExecutionReport) and not req_id:
            self._note_done_for_day(message)
            if message.exec_type in TRADES or name not in self._answers:
                self.has_news = self.has_news or not is_replayed

    def _note_done_for_day(self, report: ExecutionReport) -> None:
        """Remember orders that are done for the day: freqtrade has no such status and keeps them open."""
        if report.exec_type == ExecType.DONE_FOR_DAY:
            self.done_for_day.add(report.cl_ord_id)
        else:
            self.done_for_day.discard(report.cl_ord_id)

    # -- calls ------------------------------------------------------------------------------------------------------

    def next_id(self, letter: str) -> str:
        """Returns a ClOrdID or request ID that was never used before: no two calls happen in one millisecond."""
        self._number += 1
        return f"{letter}{self.env.clock.now_ns // 1_000_000:x}"

    def query_venue(self, msg_type: MsgType, **fields: Any) -> list[Any]:
        """Send a query and return its answers."""
        name = self.next_id("Q") + f"-{self._number}"
        query = Query(msg_type=msg_type, req_id=name, account=self.account, link=self.env.link.name, **fields)
        return self._call([name], query, lambda answers: bool(answers) and answers[-1].last_rpt_requested)

    def send_request(self, request: Request) -> Any:
        """Record an order or cancel request, check the guard, send it and return the venue's answer.

        Raises `ccxt.PermissionDenied` when it is frozen, `ccxt.NetworkError` or `ccxt.RequestTimeout` without an
        answer.
        """
        self._require_link()
        if not self.env.guard.permits(request):
            raise ccxt.PermissionDenied("HOLDOVER: frozen")
        self.env.guard.record("gateway", request)
        if not self.env.guard.permits(request):
            raise ccxt.PermissionDenied("HOLDOVER: frozen on its way out")
        cancels = request.msg_type == MsgType.ORDER_CANCEL_REQUEST
        is_final = _is_ended if cancels else _is_acknowledged
        # The answer to a cancel names the order; its reject names the request.
        names = [request.cl_ord_id, request.orig_cl_ord_id] if cancels else [request.cl_ord_id]
        replies = self._call(names, request, lambda answers: any(is_final(answer) for answer in answers))
        return next(reply for reply in replies if is_final(reply))

    def _require_link(self) -> None:
        if not self.env.link.is_up:
            raise ccxt.NetworkError(f"{self.env.link.name} cannot be reached")

    def _call(self, names: list[str], message: Request | Query, is_complete: Callable[[list[Any]], bool]) -> list[Any]:
        self._require_link()
        link, epoch = self.env.link, self.env.link.epoch
        answers: list[Any] = []
        self._answers.update(dict.fromkeys(names, answers))
        try:
            link.send(message)
            until_ns = self.env.clock.now_ns + _ANSWER_TIMEOUT_NS
            until_ns = -(-until_ns // _RETRY_NS) * _RETRY_NS
            self.fibre.wait(until_ns, lambda: is_complete(answers) or not link.is_up or link.epoch != epoch)
            if is_complete(answers):
                return answers
            if link.is_up and link.epoch == epoch:
                raise ccxt.RequestTimeout(f"{type(message).__name__} {message.key} timed out")
            raise ccxt.NetworkError(f"{link.name}: connection reset")
        finally:
            for name in names:
                del self._answers[name]

    # -- ccxt operations ----------------------------------------------------------------------------------------------

    def create_order(self, symbol: str, kind: str, side: str, amount: float, price: float | None) -> dict[str, Any]:
        """Create an order.

        Raises `ccxt.InsufficientFunds` as a spot market would, `ccxt.InvalidOrder` when it is rejected.
        """
        units, lots = self.symbols[symbol], self.lots(symbol, amount)
        if side == "sell" and lots > self._free_lots(units):
            raise ccxt.InsufficientFunds(f"{lots} {units.symbol} is more than is free")
        name = self.next_id("F")
        report = self.send_request(
            Request(
                msg_type=MsgType.NEW_ORDER_SINGLE,
                cl_ord_id=name,
                root_cl_ord_id=name,
                symbol=units.symbol,
                side=Side.BUY if side == "buy" else Side.SELL,
                order_qty=lots,
                account=self.account,
                strategy=self.strategy,
                ord_type=OrdType.MARKET if kind == "market" else OrdType.LIMIT,
                time_in_force=TimeInForce.GTC,
                price=None if price is None or kind == "market" else self.ticks(symbol, price),
                link=self.env.link.name,
                link_epoch=self.env.link.epoch,
                trade_date=self.env.trade_date,
                transact_time_ns=self.env.clock.now_ns,
            )
        )
        if report.ord_status == OrdStatus.REJECTED:
            raise ccxt.InvalidOrder(report.text or "rejected")
        return self.to_ccxt_order(report)

    def cancel_order(self, name: str, symbol: str) -> dict[str, Any]:
        """Cancel an order. Raises `ccxt.OrderNotFound` when there is nothing to cancel."""
        status_report = self.find_order(name)
        if status_report is None:
            raise ccxt.OrderNotFound(name)
        report = self.send_request(
            Request(
                msg_type=MsgType.ORDER_CANCEL_REQUEST,
                cl_ord_id=self.next_id("X"),
                orig_cl_ord_id=name,
                root_cl_ord_id=name,
                symbol=status_report.symbol,
                side=status_report.side,
                order_qty=status_report.order_qty,
                account=self.account,
                strategy=self.strategy,
                link=self.env.link.name,
                link_epoch=self.env.link.epoch,
                trade_date=self.env.trade_date,
                transact_time_ns=self.env.clock.now_ns,
            )
        )
        if isinstance(report, CancelReject):
            raise ccxt.OrderNotFound(report.text)
        return self.to_ccxt_order(report)

    def find_order(self, name: str) -> ExecutionReport | None:
        """Returns an order's status; None when the venue does not know it."""
        (report,) = self.query_venue(MsgType.ORDER_STATUS_REQUEST, cl_ord_id=name)
        self.queried_orders.add(name)
        self.on_query()
        return None if report.ord_rej_reason == _UNKNOWN_ORDER or not report.order_id else report

    def open_orders(self) -> list[ExecutionReport]:
        """Returns every open order of the account."""
        return [report for report in self.query_venue(MsgType.ORDER_MASS_STATUS_REQUEST) if report.order_id]

    def query_trades(self, since_ms: int | None) -> list[ExecutionReport]:
        """Returns every trade since a time (ms)."""
        answers = self.query_venue(MsgType.TRADE_CAPTURE_REPORT_REQUEST, since_ns=(since_ms or 0) * 1_000_000)
        return [report for report in answers if report.exec_type == ExecType.TRADE]

    def query_orders(self, symbol: str, since_ms: int | None) -> list[dict[str, Any]]:
        """Returns open orders and those that traded since; closed orders without a fill cannot be queried by time."""
        venue_symbol = self.symbols[symbol].symbol
        reports = {report.cl_ord_id: report for report in self.open_orders() if report.symbol == venue_symbol}
        for name in dict.fromkeys(
            trade.cl_ord_id for trade in self.query_trades(since_ms) if trade.symbol == venue_symbol
        ):
            report = None if name in reports else self.find_order(name)
            if report is not None:
                reports[name] = report
        return [self.to_ccxt_order(report) for report in reports.values()]

    def query_balance(self) -> dict[str, Any]:
        """Returns the held quantity of each instrument, and a currency balance that never runs out."""
        balances: dict[str, Any] = {}
        selling = self._selling_lots()
        for position in self.query_venue(MsgType.REQUEST_FOR_POSITIONS):
            if isinstance(position, PositionReport) and position.symbol:
                lot = float(Decimal(next(u for u in self.env.instruments if u.symbol == position.symbol).lot_size))
                used = min(selling.get(position.symbol, 0), position.net_qty)
                balances[position.symbol] = {
                    "free": (position.net_qty - used) * lot,
                    "used": used * lot,
                    "total": position.net_qty * lot,
                }
        for currency in dict.fromkeys(instrument.currency for instrument in self.env.instruments):
            balances[currency] = {"free": _FUNDS, "used": 0.0, "total": _FUNDS}
        return balances

    def _selling_lots(self) -> dict[str, int]:
        lots_by_symbol: dict[str, int] = {}
        for report in self.open_orders():
            if report.side != Side.BUY:
                lots_by_symbol[report.symbol] = lots_by_symbol.get(report.symbol, 0) + report.leaves_qty
        return lots_by_symbol

    def _free_lots(self, units: Instrument) -> int:
        positions = {position.symbol: position.net_qty for position in self.query_venue(MsgType.REQUEST_FOR_POSITIONS)}
        return int(positions.get(units.symbol, 0)) - self._selling_lots().get(units.symbol, 0)

    # -- units ------------------------------------------------------------------------------------------------------

    def lots(self, symbol: str, amount: float | None) -> int:
        """Convert a ccxt amount to lots."""
        return round(float(amount or 0) / float(self.symbols[symbol].lot_size))

    def ticks(self, symbol: str, price: float | None) -> int:
        """Convert a ccxt price, or a cost per lot, to ticks."""
        return round(float(price or 0) / float(self.symbols[symbol].tick_size))

    def to_ccxt_order(self, report: ExecutionReport) -> dict[str, Any]:
        """Returns a report as ccxt's unified order."""
        symbol, units = next(
            (name, instrument) for name, instrument in self.symbols.items() if instrument.symbol == report.symbol
        )
        lot, tick = Decimal(units.lot_size), Decimal(units.tick_size)
        ms = report.transact_time_ns // 1_000_000
        name = report.cl_ord_id
        return {
            "id": name,
            "clientOrderId": None,
            "symbol": symbol,
            "type": "market" if report.ord_type == OrdType.MARKET else "limit",
            "timeInForce": "GTC",
            "side": "buy" if report.side == Side.BUY else "sell",
            "price": float(report.price * tick) if report.price is not None else None,
            "average": float(report.notional * tick / report.cum_qty) if report.cum_qty else None,
            "amount": float(report.order_qty * lot),
            "filled": float(report.cum_qty * lot),
            "remaining": float((report.order_qty - report.cum_qty) * lot),
            "cost": float(report.notional * lot * tick),
            "status": _STATUS.get(report.ord_status, "open"),
            "timestamp": int(name[1:], 16) if name.startswith("F") else ms,
            "datetime": None,
            "lastTradeTimestamp": ms if report.cum_qty else None,
            "fee": {"cost": 0.0, "currency": units.currency, "rate": 0.0},
            "trades": [],
            "info": {},
        }


def _is_acknowledged(message: Any) -> bool:
    return bool(message.exec_type in (ExecType.NEW, ExecType.REJECTED))


def _is_ended(message: Any) -> bool:
    return isinstance(message, CancelReject) or message.exec_type in (ExecType.CANCELED, ExecType.EXPIRED)


class _ExchangeDescription:
    """The description that both ccxt classes share. `gateway` is set from the configuration."""

    gateway: ExchangeGateway

    def describe(self) -> dict[str, Any]:
        """Returns the exchange's name and features."""
        description: dict[str, Any] = super().describe()  # type: ignore[misc]
        can = (
            *("createOrder", "createLimitOrder", "createMarketOrder", "cancelOrder", "fetchOrder", "fetchOrders"),
            *("fetchOpenOrders", "fetchMyTrades", "fetchBalance", "fetchTicker", "fetchTickers", "fetchOHLCV"),
            *("fetchL2OrderBook", "fetchOrderBook"),
        )
        return {
            **description,
            "id": NAME,
            "name": "Holdover",
            "rateLimit": 1,
            "precisionMode": ccxt.TICK_SIZE,
            "has": {**description["has"], **dict.fromkeys(can, True), "fetchCurrencies": False, "fetchTime": False},
            "features": {"spot": {"fetchOHLCV": {"limit": 1000}}},
            "timeframes": {"1m": "1m", "5m": "5m", "1h": "1h", "1d": "1d"},
            "fees": {"trading": {"maker": 0.0, "taker": 0.0, "percentage": True, "tierBased": False}},
        }

    def list_spot_markets(self) -> list[dict[str, Any]]:
        """Returns every instrument as a spot market."""
        return [
            {
                "id": symbol,
                "symbol": symbol,
                "base": units.symbol,
                "quote": units.currency,
                "baseId": units.symbol,
                "quoteId": units.currency,
                "type": "spot",
                "spot": True,
                "margin": False,
                "swap": False,
                "future": False,
                "option": False,
                "contract": False,
                "active": True,
                "taker": 0.0,
                "maker": 0.0,
                "precision": {
                    "amount": float(units.lot_size),
                    "price": float(Decimal(units.tick_size) * units.price_increment),
                },
                "limits": {
                    "amount": {"min": float(units.lot_size), "max": None},
                    "price": {"min": None, "max": None},
                    "cost": {"min": None, "max": None},
                },
                "info": {},
            }
            for symbol, units in self.gateway.symbols.items()
        ]


class SimulatedExchange(_ExchangeDescription, ccxt.Exchange):  # type: ignore[misc]
    """The synchronous exchange: everything about orders."""

    def fetch_ticker(self, symbol: str, params: Any = None) -> dict[str, Any]:
        """Returns the recorded market, without a call over the link; a side without a quote gets the last price."""
        units = self.gateway.symbols[symbol]
        top = self.gateway.env.market.top(units.symbol)
        tick = Decimal(units.tick_size)
        bid = float(top.bid_px * tick) if top.bid_sz else None
        ask = float(top.ask_px * tick) if top.ask_sz else None
        last = float(top.last_px * tick) if top.last_px else bid or ask
        return {
            "symbol": symbol,
            "bid": bid or last,
            "ask": ask or last,
            "last": last,
            "quoteVolume": 0.0,
            "percentage": 0.0,
        }

    def fetch_tickers(self, symbols: Any = None, params: Any = None) -> dict[str, Any]:
        """Returns the tickers of all markets."""
        return {symbol: self.fetch_ticker(symbol) for symbol in symbols or self.gateway.symbols}

    def fetch_l2_order_book(self, symbol: str, limit: Any = None, params: Any = None) -> dict[str, Any]:
        """Returns one level of the book."""
        ticker = self.fetch_ticker(symbol)
        return {side: [[ticker[key], 1.0]] if ticker[key] else [] for side, key in (("bids", "bid"), ("asks", "ask"))}

    def create_order(
        self, symbol: str, type: str, side: str, amount: float, price: float | None = None, params: Any = None
    ) -> dict[str, Any]:
        """See `ExchangeGateway.create_order`."""
        return self.gateway.create_order(symbol, type, side, amount, price)

    def cancel_order(self, id: str, symbol: str = "", params: Any = None) -> dict[str, Any]:
        """See `ExchangeGateway.cancel_order`."""
        return self.gateway.cancel_order(id, symbol)

    def fetch_order(self, id: str, symbol: str = "", params: Any = None) -> dict[str, Any]:
        """Returns one order. Raises `ccxt.OrderNotFound`."""
        report = self.gateway.find_order(id)
        if report is None:
            raise ccxt.OrderNotFound(id)
        return self.gateway.to_ccxt_order(report)

    def fetch_orders(
        self, symbol: str = "", since: int | None = None, limit: Any = None, params: Any = None
    ) -> list[dict[str, Any]]:
        """See `ExchangeGateway.query_orders`."""
        return self.gateway.query_orders(symbol, since)

    def fetch_open_orders(
        self, symbol: str = "", since: int | None = None, limit: Any = None, params: Any = None
    ) -> list[dict[str, Any]]:
        """Returns the open orders."""
        return [self.gateway.to_ccxt_order(report) for report in self.gateway.open_orders()]

    def fetch_my_trades(
        self, symbol: str = "", since: int | None = None, limit: Any = None, params: Any = None
    ) -> list[dict[str, Any]]:
        """Returns each trade, without a fee."""
        trades = []
        for report in self.gateway.query_trades(since):
            order = self.gateway.to_ccxt_order(report)
            units = self.gateway.symbols[order["symbol"]]
            amount = float(report.last_qty * Decimal(units.lot_size))
            price = float(report.last_px * Decimal(units.tick_size))
            trades.append({**order, "id": report.exec_id, "order": report.cl_ord_id, "amount": amount, "price": price})
            trades[-1]["cost"] = amount * price
        return trades

    def fetch_balance(self, params: Any = None) -> dict[str, Any]:
        """See `ExchangeGateway.query_balance`."""
        return self.gateway.query_balance()


class AsyncSimulatedExchange(_ExchangeDescription, ccxt.async_support.Exchange):  # type: ignore[misc]
    """The asynchronous exchange: markets and candles, without calls over the link."""

    async def fetch_markets(self, params: Any = None) -> list[dict[str, Any]]:
        """See `list_spot_markets`."""
        return self.list_spot_markets()

    async def fetch_ohlcv(
        self, symbol: str, timeframe: str = "1m", since: int | None = None, limit: Any = None, params: Any = None
    ) -> list[list[float]]:
        """Returns candles at the last price, one per span: a strategy gets the time from them, but no history."""
        span = self.parse_timeframe(timeframe) * 1000
        gateway = self.gateway
        units = gateway.symbols[symbol]
        top = gateway.env.market.top(units.symbol)
        price = float((top.last_px or (top.bid_px if top.bid_sz else 1)) * Decimal(units.tick_size))
        now_ms = gateway.env.clock.now_ns // 1_000_000 // span * span
        return [[float(now_ms - age * span), price, price, price, price, 1.0] for age in range(9, -1, -1)]


def register_exchange() -> None:
    """Register the exchange in ccxt and silence freqtrade's log unless a handler is set."""
    logging.getLogger("freqtrade").addHandler(logging.NullHandler())
    for module, exchange_class in ((ccxt, SimulatedExchange), (ccxt.async_support, AsyncSimulatedExchange)):
        setattr(module, NAME, exchange_class)
        if NAME not in module.exchanges:
            module.exchanges.append(NAME)
