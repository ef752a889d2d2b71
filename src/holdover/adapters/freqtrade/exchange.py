"""The simulated venue as a ccxt exchange: each call is a message on the link, and waits for what comes back.

`Gateway` is the connection; `Api` and `AsyncApi` are what freqtrade finds under the name `holdover` in ccxt. A call
whose answer does not come within ccxt's ten seconds is a `RequestTimeout`, one on a link that is down, or that goes
down meanwhile, a `NetworkError`: what the venue has made of it is as unknown as it is to any REST client.
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
_PATIENCE_NS: Final = 10_000_000_000
_RETRY_NS: Final = 5_000_000_000
_FUNDS: Final = 1_000_000_000.0
_UNKNOWN_ORDER: Final = 5
_STATUS: Final = {
    OrdStatus.FILLED: "closed",
    OrdStatus.CANCELED: "canceled",
    OrdStatus.EXPIRED: "expired",
    OrdStatus.REJECTED: "rejected",
}


class Gateway:
    """One account's connection to the venue.

    `told` is set when the venue has said something that nobody asked for; `asked` are the orders asked for since the
    last logon, and `on_asked` is called after each.
    """

    def __init__(self, env: Env, account: str, fibre: Fibre, config: dict[str, Any]) -> None:
        self.env, self.account, self.fibre = env, account, fibre
        self.strategy = str(config["strategy"])
        self.symbols = {f"{one.symbol}/{one.currency}": one for one in env.instruments}
        self.told = False
        self.asked: set[str] = set()
        self.on_asked: Callable[[], None] = lambda: None
        self.done_for_day: set[str] = set()
        self._in_seq = 0
        self._catching_up = True
        self._resent_from = 0
        self._number = self._attempt = 0
        self._answers: dict[str, list[Inbound]] = {}
        config["exchange"]["ccxt_config"] = {"gateway": self}

    def __deepcopy__(self, memo: Any) -> Gateway:
        return self  # it is handed over in a configuration, which they copy

    # -- the session ------------------------------------------------------------------------------------------------

    def log_on(self, attempt: int = 0) -> None:
        """Ask for a logon, and again until there is one; of several attempts that wait only the last counts."""
        if not self.env.link.up and attempt == self._attempt:
            self.env.link.connect(self._in_seq + 1, 1)
            self._try_again()

    def on_timer(self, name: str, told: tuple[Any, ...]) -> None:
        """A timer of ours, or one that the fibre waits for."""
        if name == "log on":
            self.log_on(*told)
        else:
            self.fibre.go(name)

    def on_up(self, epoch: int, out_seq: int) -> None:
        """The link is up."""
        self.told = self._catching_up = True
        self._resent_from = 0
        self.asked.clear()
        self.fibre.go("logon")

    def on_down(self, reason: str) -> None:
        """The link is down: try again in a while."""
        self._try_again()
        self.fibre.go("logout")

    def _try_again(self) -> None:
        self._attempt += 1
        self.env.clock.call_at(self.env.clock.now_ns + _RETRY_NS, "log on", self._attempt)

    def on_sequence_reset(self, new_seq: int) -> None:
        """What was missed will not come."""
        self.told = self.told or new_seq > self._in_seq + 1
        self._in_seq = new_seq - 1
        self.fibre.go("reset")

    def on_heartbeat(self, seq: int) -> None:
        """The venue has sent up to `seq`."""
        if seq > self._in_seq:
            self.env.link.resend(self._in_seq + 1)

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """One message: taken when it is the next one, else asked for in order."""
        if seq == self._in_seq + 1:
            self._in_seq = seq
            self._take(message, known=poss_dup and self._catching_up)
            self._catching_up = self._catching_up and poss_dup
            self.fibre.go("message")
        elif seq > self._in_seq and not (poss_dup and self._resent_from == self._in_seq + 1):
            self._resent_from = self._in_seq + 1
            self.env.link.resend(self._resent_from)

    def _take(self, message: Inbound, *, known: bool) -> None:
        """An answer goes to who waits for it. What nobody asked for, and each fill, is something to tell: the next poll
        need not wait, except for what comes again after a logon, when everything is polled anyway.
        """
        asked = getattr(message, "req_id", "")
        name = asked or getattr(message, "cl_ord_id", "")
        if name in self._answers:
            self._answers[name].append(message)
        if isinstance(message, ExecutionReport) and not asked:
            self._note(message)
            if message.exec_type in TRADES or name not in self._answers:
                self.told = self.told or not known

    def _note(self, report: ExecutionReport) -> None:
        """Their statuses have none for an order that is done for the day: it is open."""
        if report.exec_type == ExecType.DONE_FOR_DAY:
            self.done_for_day.add(report.cl_ord_id)
        else:
            self.done_for_day.discard(report.cl_ord_id)

    # -- calls ------------------------------------------------------------------------------------------------------

    def name(self, letter: str) -> str:
        """A ClOrdID or a request's id that was never used before: no two calls are made in one millisecond."""
        self._number += 1
        return f"{letter}{self.env.clock.now_ns // 1_000_000:x}"

    def ask(self, msg_type: MsgType, **fields: Any) -> list[Any]:
        """A question and its answers."""
        name = self.name("Q") + f"-{self._number}"
        query = Query(msg_type=msg_type, req_id=name, account=self.account, link=self.env.link.name, **fields)
        return self._call([name], query, lambda answers: bool(answers) and answers[-1].last_rpt_requested)

    def request(self, request: Request) -> Any:
        """An order or a cancel: recorded, asked for, sent; and the venue's answer."""
        self._down()
        if not self.env.guard.permits(request):
            raise ccxt.PermissionDenied("HOLDOVER: frozen")
        self.env.guard.record("gateway", request)
        if not self.env.guard.permits(request):
            raise ccxt.PermissionDenied("HOLDOVER: frozen on its way out")
        cancels = request.msg_type == MsgType.ORDER_CANCEL_REQUEST
        over = _ended if cancels else _taken
        # A cancel's answer names the order, its refusal the request.
        names = [request.cl_ord_id, request.orig_cl_ord_id] if cancels else [request.cl_ord_id]
        done = self._call(names, request, lambda answers: any(over(one) for one in answers))
        return next(one for one in done if over(one))

    def _down(self) -> None:
        if not self.env.link.up:
            raise ccxt.NetworkError(f"{self.env.link.name} cannot be reached")

    def _call(self, names: list[str], message: Request | Query, enough: Callable[[list[Any]], bool]) -> list[Any]:
        self._down()
        link, epoch = self.env.link, self.env.link.epoch
        answers: list[Any] = []
        self._answers.update(dict.fromkeys(names, answers))
        try:
            link.send(message)
            until_ns = self.env.clock.now_ns + _PATIENCE_NS
            until_ns = -(-until_ns // _RETRY_NS) * _RETRY_NS
            self.fibre.wait(until_ns, lambda: enough(answers) or not link.up or link.epoch != epoch)
            if enough(answers):
                return answers
            if link.up and link.epoch == epoch:
                raise ccxt.RequestTimeout(f"{type(message).__name__} {message.key} timed out")
            raise ccxt.NetworkError(f"{link.name}: connection reset")
        finally:
            for name in names:
                del self._answers[name]

    # -- what they ask for, in ccxt's words ---------------------------------------------------------------------------

    def create(self, symbol: str, kind: str, side: str, amount: float, price: float | None) -> dict[str, Any]:
        """A new order. Raises `ccxt.InsufficientFunds` where a spot market would, `ccxt.InvalidOrder` when refused."""
        units, lots = self.symbols[symbol], self.lots(symbol, amount)
        if side == "sell" and lots > self._free(units):
            raise ccxt.InsufficientFunds(f"{lots} {units.symbol} is more than is free")
        name = self.name("F")
        report = self.request(
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
        return self.order(report)

    def cancel(self, name: str, symbol: str) -> dict[str, Any]:
        """Cancel. Raises `ccxt.OrderNotFound` when there is nothing to cancel."""
        known = self.find(name)
        if known is None:
            raise ccxt.OrderNotFound(name)
        report = self.request(
            Request(
                msg_type=MsgType.ORDER_CANCEL_REQUEST,
                cl_ord_id=self.name("X"),
                orig_cl_ord_id=name,
                root_cl_ord_id=name,
                symbol=known.symbol,
                side=known.side,
                order_qty=known.order_qty,
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
        return self.order(report)

    def find(self, name: str) -> ExecutionReport | None:
        """An order's status; None when the venue does not know it."""
        (report,) = self.ask(MsgType.ORDER_STATUS_REQUEST, cl_ord_id=name)
        self.asked.add(name)
        self.on_asked()
        return None if report.ord_rej_reason == _UNKNOWN_ORDER or not report.order_id else report

    def working(self) -> list[ExecutionReport]:
        """Every open order of the account."""
        return [one for one in self.ask(MsgType.ORDER_MASS_STATUS_REQUEST) if one.order_id]

    def trades(self, since_ms: int | None) -> list[ExecutionReport]:
        """Every trade since a time."""
        answers = self.ask(MsgType.TRADE_CAPTURE_REPORT_REQUEST, since_ns=(since_ms or 0) * 1_000_000)
        return [one for one in answers if one.exec_type == ExecType.TRADE]

    def orders(self, symbol: str, since_ms: int | None) -> list[dict[str, Any]]:
        """Open orders, and those that have traded since: a closed order without a fill cannot be asked for by time."""
        wanted = self.symbols[symbol].symbol
        found = {one.cl_ord_id: one for one in self.working() if one.symbol == wanted}
        for name in dict.fromkeys(one.cl_ord_id for one in self.trades(since_ms) if one.symbol == wanted):
            report = None if name in found else self.find(name)
            if report is not None:
                found[name] = report
        return [self.order(one) for one in found.values()]

    def balance(self) -> dict[str, Any]:
        """What is held of each instrument, and a currency that never runs out."""
        told: dict[str, Any] = {}
        selling = self._selling()
        for one in self.ask(MsgType.REQUEST_FOR_POSITIONS):
            if isinstance(one, PositionReport) and one.symbol:
                lot = float(Decimal(next(u for u in self.env.instruments if u.symbol == one.symbol).lot_size))
                used = min(selling.get(one.symbol, 0), one.net_qty)
                told[one.symbol] = {"free": (one.net_qty - used) * lot, "used": used * lot, "total": one.net_qty * lot}
        for currency in dict.fromkeys(one.currency for one in self.env.instruments):
            told[currency] = {"free": _FUNDS, "used": 0.0, "total": _FUNDS}
        return told

    def _selling(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for one in self.working():
            if one.side != Side.BUY:
                found[one.symbol] = found.get(one.symbol, 0) + one.leaves_qty
        return found

    def _free(self, units: Instrument) -> int:
        held = {one.symbol: one.net_qty for one in self.ask(MsgType.REQUEST_FOR_POSITIONS)}
        return int(held.get(units.symbol, 0)) - self._selling().get(units.symbol, 0)

    # -- units ------------------------------------------------------------------------------------------------------

    def lots(self, symbol: str, amount: float | None) -> int:
        """An amount of theirs in lots."""
        return round(float(amount or 0) / float(self.symbols[symbol].lot_size))

    def ticks(self, symbol: str, price: float | None) -> int:
        """A price of theirs, or a cost per lot, in ticks."""
        return round(float(price or 0) / float(self.symbols[symbol].tick_size))

    def order(self, report: ExecutionReport) -> dict[str, Any]:
        """A report as ccxt's unified order."""
        symbol, units = next((name, one) for name, one in self.symbols.items() if one.symbol == report.symbol)
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


def _taken(message: Any) -> bool:
    return bool(message.exec_type in (ExecType.NEW, ExecType.REJECTED))


def _ended(message: Any) -> bool:
    return isinstance(message, CancelReject) or message.exec_type in (ExecType.CANCELED, ExecType.EXPIRED)


class _Described:
    """What both ccxt classes say of the exchange. `gateway` comes in with the configuration."""

    gateway: Gateway

    def describe(self) -> dict[str, Any]:
        """Its name and what it can do."""
        found: dict[str, Any] = super().describe()  # type: ignore[misc]
        can = (
            *("createOrder", "createLimitOrder", "createMarketOrder", "cancelOrder", "fetchOrder", "fetchOrders"),
            *("fetchOpenOrders", "fetchMyTrades", "fetchBalance", "fetchTicker", "fetchTickers", "fetchOHLCV"),
            *("fetchL2OrderBook", "fetchOrderBook"),
        )
        return {
            **found,
            "id": NAME,
            "name": "Holdover",
            "rateLimit": 1,
            "precisionMode": ccxt.TICK_SIZE,
            "has": {**found["has"], **dict.fromkeys(can, True), "fetchCurrencies": False, "fetchTime": False},
            "features": {"spot": {"fetchOHLCV": {"limit": 1000}}},
            "timeframes": {"1m": "1m", "5m": "5m", "1h": "1h", "1d": "1d"},
            "fees": {"trading": {"maker": 0.0, "taker": 0.0, "percentage": True, "tierBased": False}},
        }

    def listed(self) -> list[dict[str, Any]]:
        """Every instrument as a spot market."""
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


class Api(_Described, ccxt.Exchange):  # type: ignore[misc]
    """The synchronous one: everything about orders."""

    def fetch_ticker(self, symbol: str, params: Any = None) -> dict[str, Any]:
        """The market as last seen, not asked for over the link; a side that nobody quotes has the last price."""
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
        """Of every market."""
        return {symbol: self.fetch_ticker(symbol) for symbol in symbols or self.gateway.symbols}

    def fetch_l2_order_book(self, symbol: str, limit: Any = None, params: Any = None) -> dict[str, Any]:
        """One level."""
        ticker = self.fetch_ticker(symbol)
        return {side: [[ticker[one], 1.0]] if ticker[one] else [] for side, one in (("bids", "bid"), ("asks", "ask"))}

    def create_order(
        self, symbol: str, type: str, side: str, amount: float, price: float | None = None, params: Any = None
    ) -> dict[str, Any]:
        """See `Gateway.create`."""
        return self.gateway.create(symbol, type, side, amount, price)

    def cancel_order(self, id: str, symbol: str = "", params: Any = None) -> dict[str, Any]:
        """See `Gateway.cancel`."""
        return self.gateway.cancel(id, symbol)

    def fetch_order(self, id: str, symbol: str = "", params: Any = None) -> dict[str, Any]:
        """One order. Raises `ccxt.OrderNotFound`."""
        report = self.gateway.find(id)
        if report is None:
            raise ccxt.OrderNotFound(id)
        return self.gateway.order(report)

    def fetch_orders(
        self, symbol: str = "", since: int | None = None, limit: Any = None, params: Any = None
    ) -> list[dict[str, Any]]:
        """See `Gateway.orders`."""
        return self.gateway.orders(symbol, since)

    def fetch_open_orders(
        self, symbol: str = "", since: int | None = None, limit: Any = None, params: Any = None
    ) -> list[dict[str, Any]]:
        """Those that are open."""
        return [self.gateway.order(one) for one in self.gateway.working()]

    def fetch_my_trades(
        self, symbol: str = "", since: int | None = None, limit: Any = None, params: Any = None
    ) -> list[dict[str, Any]]:
        """Each trade, without a fee."""
        found = []
        for one in self.gateway.trades(since):
            told = self.gateway.order(one)
            units = self.gateway.symbols[told["symbol"]]
            amount = float(one.last_qty * Decimal(units.lot_size))
            price = float(one.last_px * Decimal(units.tick_size))
            found.append({**told, "id": one.exec_id, "order": one.cl_ord_id, "amount": amount, "price": price})
            found[-1]["cost"] = amount * price
        return found

    def fetch_balance(self, params: Any = None) -> dict[str, Any]:
        """See `Gateway.balance`."""
        return self.gateway.balance()


class AsyncApi(_Described, ccxt.async_support.Exchange):  # type: ignore[misc]
    """The asynchronous one: markets and candles, neither of which is asked for over the link."""

    async def fetch_markets(self, params: Any = None) -> list[dict[str, Any]]:
        """See `listed`."""
        return self.listed()

    async def fetch_ohlcv(
        self, symbol: str, timeframe: str = "1m", since: int | None = None, limit: Any = None, params: Any = None
    ) -> list[list[float]]:
        """Candles at the last price, one a minute: a strategy can tell the time by them, and no history."""
        span = self.parse_timeframe(timeframe) * 1000
        gateway = self.gateway
        units = gateway.symbols[symbol]
        top = gateway.env.market.top(units.symbol)
        price = float((top.last_px or (top.bid_px if top.bid_sz else 1)) * Decimal(units.tick_size))
        now = gateway.env.clock.now_ns // 1_000_000 // span * span
        return [[float(now - back * span), price, price, price, price, 1.0] for back in range(9, -1, -1)]


def listed() -> None:
    """Have ccxt know the exchange; what freqtrade logs goes nowhere unless a handler is set."""
    logging.getLogger("freqtrade").addHandler(logging.NullHandler())
    for module, made in ((ccxt, Api), (ccxt.async_support, AsyncApi)):
        setattr(module, NAME, made)
        if NAME not in module.exchanges:
            module.exchanges.append(NAME)
