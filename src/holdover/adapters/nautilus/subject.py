"""One life of NautilusTrader under the harness: what it believes is recorded at its cache database, write by write."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from nautilus_trader.model.enums import AccountType, OmsType, OrderStatus
from nautilus_trader.model.events import OrderFilled

from holdover.adapters.nautilus import backing as store
from holdover.adapters.nautilus.backing import Backing
from holdover.adapters.nautilus.database import database_on
from holdover.adapters.nautilus.names import Names, Units
from holdover.adapters.nautilus.stack import TRADER, Stack
from holdover.adapters.nautilus.strategy import Restless, RestlessConfig
from holdover.model import (
    CASH_UNIT,
    Balance,
    Exposure,
    Inbound,
    MsgType,
    Position,
    Reconciliation,
    Record,
    Request,
    Restored,
    Side,
)

if TYPE_CHECKING:
    from holdover.harness.subject import Env, Plan

_ACCOUNT: Final = "A1"
_FUNDS: Final = 1_000_000_000
_LOOK_NS: Final = 5_000_000_000
_OMS: Final = {"netting": OmsType.NETTING, "hedging": OmsType.HEDGING}
_ACCOUNTS: Final = {"margin": AccountType.MARGIN, "cash": AccountType.CASH}


class NautilusSubject:
    """The plan's settings may say `strategy` (`MODULE:NAME` of a callable that takes the plan and gives strategies),
    `oms` (`netting`, `hedging`), `account` (`margin`; `cash`, which has its ledger checked and sells nothing short),
    `engine` (fields of its `LiveExecEngineConfig`), `replays` (what comes again after a logon is handed to the
    engine, and not passed over) and, of the strategy that is used without one, `orders` at a time.

    `strategies` may be overridden instead. Raises `ValueError` for settings that it does not know.
    """

    isolated = False
    """Its message bus and engines register names that are the process's: trials are tried in forks."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.settings = plan, plan.settings
        self.accounts = [_ACCOUNT]
        self.oms = _chosen(self.settings, "oms", _OMS, "netting")
        self.account_type = _chosen(self.settings, "account", _ACCOUNTS, "margin")
        if len({one.venue for one in plan.instruments()}) != 1:
            raise ValueError("this adapter trades on one venue; the instruments name several")
        self.units = {one.symbol: Units(one, plan.days[0].open_ns) for one in plan.instruments()}
        self.stack: Stack | None = None
        self._woken_ns = 0

    def strategies(self, plan: Plan) -> list[Any]:
        """The strategies of one life, made anew: the user's, or one restless one for each instrument."""
        named = self.settings.get("strategy", "")
        if named:
            module, _, name = str(named).partition(":")
            made = getattr(importlib.import_module(module), name)(plan)
            return list(made)
        hours = sorted({(meta.open_ns, meta.close_ns) for meta in plan.days})
        return [
            Restless(
                RestlessConfig(
                    strategy_id=f"Restless-{number:03d}",
                    order_id_tag=f"{number:03d}",
                    instrument_id=units.id,
                    quantity=int(units.lot) * _usual_lots(plan, symbol),
                    hours=hours,
                    working_max=int(self.settings.get("orders", 4)),
                    shorts=self.account_type == AccountType.MARGIN,
                )
            )
            for number, (symbol, units) in enumerate(self.units.items(), 1)
        ]

    # -- one life ---------------------------------------------------------------------------------------------------

    def start(self, env: Env) -> None:
        """Come up on what the directory holds; a freeze is put in force before anything runs."""
        self.env = env
        self.backing = Backing(env.directory, TRADER)
        self.names = Names(self.units, _ACCOUNT, env.link.name, self.plan.days)
        database = database_on(self.backing, TRADER)
        database.order, database.position, database.account = self._order, self._position, self._account
        self._held: dict[str, tuple[str, int]] = {}
        self._exposed: dict[str, Exposure] = {}
        self._moved = True
        self._quiet = True
        self.stack = Stack(
            env,
            database,
            self.names,
            self.strategies(self.plan),
            oms=self.oms,
            account_type=self.account_type,
            funds=_FUNDS,
            replays=bool(self.settings.get("replays", False)),
            engine=self.settings.get("engine", {}),
        )
        self.stack.on_reconciled = self._reconciled
        with env.guard.step("start"):
            self._came_back()
            self._obey()
            self._quiet = False
            self._exposures()
        env.link.listen(self)
        env.clock.on_timer(self._timer)
        self._epoch = 0
        with self._step("start"):
            self._roll()
            self.stack.start()

    def stop(self) -> None:
        """Go down in good order."""
        if self.stack is not None:
            with self.env.guard.step("stop"):
                self.stack.stop()
            self.backing.close()

    def _step(self, cause: str) -> _Delivered:
        return _Delivered(self, cause)

    def _timer(self, name: str, told: tuple[Any, ...]) -> None:
        with self._step(name):
            if name == "look" and self.stack is not None:
                self.stack.look()
                self._next_look()

    def _next_look(self) -> None:
        now_ns = self.env.clock.now_ns
        if now_ns < self.env.close_ns:
            self.env.clock.call_at(now_ns // _LOOK_NS * _LOOK_NS + _LOOK_NS, "look")

    # -- the link's listener ------------------------------------------------------------------------------------------

    def on_up(self, epoch: int, out_seq: int) -> None:
        """The link has come up."""
        self._epoch = epoch
        with self._step("logon") as stack:
            stack.client.on_up(epoch)

    def on_down(self, reason: str) -> None:
        """The link has gone down."""
        with self._step("logout") as stack:
            stack.client.on_down()

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """A message of the venue."""
        with self._step("message") as stack:
            stack.client.on_message(seq, poss_dup, message)

    def on_sequence_reset(self, new_seq: int) -> None:
        """The next message will carry `new_seq`."""
        with self._step("reset") as stack:
            stack.client.on_sequence_reset(new_seq)

    def on_heartbeat(self, seq: int) -> None:
        """The venue has sent up to `seq`."""
        with self._step("heartbeat") as stack:
            stack.client.on_heartbeat(seq)

    # -- what it believes ---------------------------------------------------------------------------------------------

    def _record(self, subsystem: str, record: Record) -> None:
        """Record; a kill comes out of here, and must end the life whatever catches it on its way."""
        if self._quiet:
            return
        self._moved = self._moved or subsystem in ("orders", "positions")
        try:
            self.env.guard.record(subsystem, record)
        except BaseException as problem:
            if self.stack is not None:
                self.stack.end(problem)
            raise

    def _order(self, order: Any) -> None:
        self._record("orders", self.names.order(order))
        event = order.last_event
        if isinstance(event, OrderFilled):
            self._record("orders", self.names.execution(order, event))

    def _position(self, position: Any) -> None:
        symbol = str(position.instrument_id.symbol.value)
        self._held[position.id.value] = (symbol, self.units[symbol].lots(position.signed_decimal_qty()))
        if not self._quiet:
            self._record("positions", self._net(symbol, self.env.trade_date))

    def _net(self, symbol: str, trade_date: str) -> Position:
        return Position(
            account=_ACCOUNT,
            symbol=symbol,
            net_qty=sum(lots for name, lots in self._held.values() if name == symbol),
            carried_qty=self._carried.get(symbol, 0),
            trade_date=trade_date,
            reference_version=self.units[symbol].ours.reference_version,
        )

    def _exposures(self) -> None:
        """What its portfolio and the indexes of its cache say, beside the positions and orders themselves."""
        if self.stack is None or not self._moved:
            return
        self._moved = False
        cache = self.stack.cache
        for symbol, units in self.units.items():
            working = {one.client_order_id: one for one in cache.orders_open(instrument_id=units.id)}
            working |= {one.client_order_id: one for one in cache.orders_inflight(instrument_id=units.id)}
            # One that a kill left before it was submitted is in neither index.
            for one in cache.orders(instrument_id=units.id):
                if one.status == OrderStatus.INITIALIZED:
                    working[one.client_order_id] = one
            found = Exposure(
                account=_ACCOUNT,
                symbol=symbol,
                net_qty=self._risked(units),
                open_buy_qty=sum(units.lots(one.leaves_qty) for one in working.values() if one.is_buy),
                open_sell_qty=sum(units.lots(one.leaves_qty) for one in working.values() if one.is_sell),
            )
            if self._exposed.get(symbol) != found:
                self._exposed[symbol] = found
                self._record("risk", found)

    def _risked(self, units: Units) -> int:
        """Its portfolio's net position; before the portfolio is initialized, and anything runs, that of its cache."""
        assert self.stack is not None
        if self.stack.running:
            return units.lots(self.stack.portfolio.net_position(units.id))
        return sum(
            units.lots(one.signed_decimal_qty()) for one in self.stack.cache.positions_open(instrument_id=units.id)
        )

    def _account(self, account: Any) -> None:
        if self.account_type == AccountType.CASH and not self._quiet:
            self._record("ledger", self._cash(account, self.env.trade_date))

    def _cash(self, account: Any, trade_date: str) -> Balance:
        currency = account.base_currency
        return Balance(
            account=_ACCOUNT,
            currency=currency.code,
            cash=int(account.balance_total(currency).as_decimal() / CASH_UNIT),
            carried_cash=self._carried_cash,
            trade_date=trade_date,
        )

    def _came_back(self) -> None:
        """Say what was read back, beside what the store holds."""
        assert self.stack is not None
        cache, guard = self.stack.cache, self.env.guard
        day = json.loads(self.backing.get("day", "{}"))
        self._day = str(day.get("date", self.env.trade_date))
        self._carried: dict[str, int] = day.get("carried", {})
        self._carried_cash = int(day.get("cash", 0))
        self.names.done_for_day = set(day.get("done_for_day", []))
        orders = sorted(cache.orders(), key=lambda order: (order.ts_init, order.client_order_id.value))
        for position in cache.positions():
            self._position(position)
        read: list[Record] = [self.names.order(order) for order in orders]
        read += [
            self.names.execution(one, event) for one in orders for event in one.events if isinstance(event, OrderFilled)
        ]
        guard.restore("orders", read)
        symbols = dict.fromkeys(symbol for symbol, _ in self._held.values())
        guard.restore("positions", [self._net(symbol, self._day) for symbol in symbols])
        account = cache.account_for_venue(next(iter(self.units.values())).theirs.id.venue)
        if self.account_type == AccountType.CASH:
            guard.restore("ledger", [self._cash(account, self._day)] if account is not None else [])
        for kind, found in (("orders", len(orders)), ("positions", len(cache.positions()))):
            stored = len(self.backing.keys(f"{kind}:*"))
            guard.record("store", Restored(store=kind, stored=stored, restored=found, differing=0))

    def _roll(self) -> None:
        """A new session: what is held is what was carried in."""
        assert self.stack is not None
        today = self.env.trade_date
        if self.backing.get("day") and self._day == today:
            return
        self.backing.set("since", self._day)
        self._carried = {
            symbol: self._net(symbol, today).net_qty for symbol in dict.fromkeys(one for one, _ in self._held.values())
        }
        account = self.stack.cache.account_for_venue(next(iter(self.units.values())).theirs.id.venue)
        if account is not None:
            self._carried_cash = self._cash(account, today).cash
        elif self.account_type == AccountType.CASH:
            self._carried_cash = int(_FUNDS / CASH_UNIT)
        named, self.names.done_for_day, self._day = self.names.done_for_day, set(), today
        self._keep_day()
        for symbol in self._carried:
            self._record("positions", self._net(symbol, today))
        if account is not None:
            self._account(account)
        for order in self.stack.cache.orders_open():
            if self.names.key(order) in named:
                self._record("orders", self.names.order(order))

    def _keep_day(self) -> None:
        day = {
            "date": self._day,
            "carried": self._carried,
            "cash": self._carried_cash,
            "done_for_day": sorted(self.names.done_for_day),
        }
        if self.backing.get("day") != json.dumps(day):
            self.backing.set("day", json.dumps(day))

    def _reconciled(self, done: bool) -> None:
        link = self.env.link
        self._record("reconciler", Reconciliation(link=link.name, epoch=link.epoch, done=done))
        if done:
            self.env.guard.reconciled(self.env.trade_date)
            self._next_look()

    def _obey(self) -> None:
        """Its own switch follows the guard: it forgets being halted over a restart, the guard does not."""
        assert self.stack is not None
        probe = Request(
            msg_type=MsgType.NEW_ORDER_SINGLE,
            cl_ord_id="PROBE",
            symbol="",
            side=Side.BUY,
            order_qty=1,
            account=_ACCOUNT,
            link=self.env.link.name,
        )
        self.stack.trading(self.env.guard.permits(probe))

    # -- what exploration may ask of it -------------------------------------------------------------------------------

    def volatile(self) -> Any:
        """What it decides by that is neither recorded nor on the disk."""
        if self.stack is None:
            return None
        return [self.stack.running, self.stack.client.reconciled, str(self.stack.risk.trading_state)]

    def rows(self, directory: Path) -> Iterator[tuple[Any, ...]]:
        """What the store comes to: each list's events without names and times that are made up anew each time."""
        lists: dict[str, list[Any]] = {}
        for table, key, *rest in store.rows(directory):
            if table == "list":
                told = msgspec.msgpack.decode(rest[1])
                kind = told.get("type", "") if isinstance(told, dict) else ""
                lists.setdefault(key, []).append(kind)
            elif table == "ours" and key == "day":
                yield (table, key, *rest)
        for key, kinds in lists.items():
            fills = sum(1 for kind in kinds if kind == "OrderFilled")
            yield ("list", key, fills, hashlib.sha256(str(kinds[-1]).encode()).hexdigest()[:8])

    def fewer(self) -> Iterator[dict[str, Any]]:
        """Settings with which it would do less: one order at a time."""
        if int(self.settings.get("orders", 4)) > 1 and not self.settings.get("strategy"):
            yield {**self.settings, "orders": 1}

    def act(self, what: str, *told: Any) -> None:
        """What may be asked of it: `cancel` ROOT, `replace` ROOT PRICE, `submit` NUMBER LOTS TICKS."""
        if self.stack is None or not self.stack.running:
            return
        with self._step("act") as stack:
            if what == "submit":
                strategy = stack.strategies[int(told[0]) % len(stack.strategies)]
                units = next(iter(self.units.values()))
                quote = stack.cache.quote_tick(units.id)
                if quote is not None and isinstance(strategy, Restless):
                    price = units.price(max(units.ticks(quote.bid_price) + int(told[2]), 1))
                    strategy.act("submit", int(told[1]) * int(units.lot), price)
                return
            order = next((one for one in stack.cache.orders_open() if self.names.key(one) == told[0]), None)
            owner = next((one for one in stack.strategies if order is not None and one.id == order.strategy_id), None)
            if order is not None and isinstance(owner, Restless):
                units = self.units[order.instrument_id.symbol.value]
                owner.act(what, order, *(units.price(int(price)) for price in told[1:]))


class _Delivered:
    """One event that we deliver: a step around it and around all that the engine does about it."""

    def __init__(self, subject: NautilusSubject, cause: str) -> None:
        self._subject = subject
        self._step = subject.env.guard.step(cause)

    def __enter__(self) -> Stack:
        self._step.__enter__()
        stack = self._subject.stack
        assert stack is not None
        stack.clock.set_time(max(stack.clock.timestamp_ns(), 0))
        return stack

    def __exit__(self, *raised: Any) -> None:
        subject, stack = self._subject, self._subject.stack
        try:
            if raised[0] is None and stack is not None:
                subject._obey()
                stack.advance()
                if subject._moved:
                    subject._exposures()
                    subject._keep_day()
                due = stack.next_ns()
                if due is not None and due != subject._woken_ns:
                    subject._woken_ns = due
                    subject.env.clock.call_at(due, "due")
        except BaseException as problem:
            self._step.__exit__(type(problem), problem, problem.__traceback__)
            raise
        self._step.__exit__(*raised)


def _chosen(settings: dict[str, Any], name: str, choices: dict[str, Any], default: str) -> Any:
    told = settings.get(name, default)
    if told not in choices:
        raise ValueError(f"settings: {name} is {told!r}, should be one of {', '.join(choices)}")
    return choices[told]


def _usual_lots(plan: Plan, symbol: str) -> int:
    """A size that the recorded market fills in parts."""
    days = [meta for meta in plan.days if meta.instrument.symbol == symbol]
    traded, prints = sum(meta.traded_qty for meta in days), sum(meta.trades for meta in days)
    return max(traded // prints * 2 if prints else 100, 1)


FACTORY: Callable[[Plan], NautilusSubject] = NautilusSubject
"""What makes a life."""
