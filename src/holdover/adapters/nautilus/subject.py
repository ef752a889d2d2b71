"""One incarnation of NautilusTrader in the harness; its state is recorded at its cache database, write by write."""

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
from holdover.adapters.nautilus.backing import SqliteBacking
from holdover.adapters.nautilus.database import open_cache_database
from holdover.adapters.nautilus.records import NautilusUnits, RecordMapper
from holdover.adapters.nautilus.stack import TRADER, NautilusStack
from holdover.adapters.nautilus.strategy import RestlessConfig, RestlessStrategy
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
_QUOTE_INTERVAL_NS: Final = 5_000_000_000
_OMS: Final = {"netting": OmsType.NETTING, "hedging": OmsType.HEDGING}
_ACCOUNTS: Final = {"margin": AccountType.MARGIN, "cash": AccountType.CASH}


class NautilusSubject:
    """The plan's settings may have `strategy` (`MODULE:NAME` of a callable that takes the plan and returns
    strategies), `oms` (`netting`, `hedging`), `account` (`margin`; `cash`, whose ledger is checked and which
    sells nothing short), `engine` (fields of `LiveExecEngineConfig`), `replays` (messages that are resent after
    a logon are passed to the engine and not skipped) and, for the default strategy, `orders`, the maximum of
    working orders.

    You may override `make_strategies` instead. Raises `ValueError` for unknown settings.
    """

    is_isolated = False
    """Its message bus and engines register names for the whole process, so trials run in forks."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.settings = plan, plan.settings
        self.accounts = [_ACCOUNT]
        self.oms = _choose(self.settings, "oms", _OMS, "netting")
        self.account_type = _choose(self.settings, "account", _ACCOUNTS, "margin")
        if len({instrument.venue for instrument in plan.instruments()}) != 1:
            raise ValueError("this adapter trades on one venue; the instruments name several")
        self.units = {
            instrument.symbol: NautilusUnits(instrument, plan.days[0].open_ns) for instrument in plan.instruments()
        }
        self.stack: NautilusStack | None = None
        self._due_ns = 0

    def make_strategies(self, plan: Plan) -> list[Any]:
        """Returns new strategies for one incarnation: the user's, or one default strategy per instrument."""
        strategy_path = self.settings.get("strategy", "")
        if strategy_path:
            module, _, name = str(strategy_path).partition(":")
            strategies = getattr(importlib.import_module(module), name)(plan)
            return list(strategies)
        hours = sorted({(meta.open_ns, meta.close_ns) for meta in plan.days})
        return [
            RestlessStrategy(
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

    # -- one incarnation --------------------------------------------------------------------------------------------

    def start(self, env: Env) -> None:
        """Start from the directory; a freeze takes effect before anything runs."""
        self.env = env
        self.backing = SqliteBacking(env.directory, TRADER)
        self.names = RecordMapper(self.units, _ACCOUNT, env.link.name, self.plan.days)
        database = open_cache_database(self.backing, TRADER)
        database.on_order, database.on_position, database.on_account = (
            self._record_order,
            self._record_position,
            self._record_account,
        )
        self._lots_by_position: dict[str, tuple[str, int]] = {}
        self._exposure_by_symbol: dict[str, Exposure] = {}
        self._has_changed = True
        self._is_loading = True
        self.stack = NautilusStack(
            env,
            database,
            self.names,
            self.make_strategies(self.plan),
            oms=self.oms,
            account_type=self.account_type,
            funds=_FUNDS,
            replays=bool(self.settings.get("replays", False)),
            engine=self.settings.get("engine", {}),
        )
        self.stack.on_reconciled = self._record_reconciliation
        with env.guard.step("start"):
            self._record_restored()
            self._apply_guard_switch()
            self._is_loading = False
            self._record_exposures()
        env.link.listen(self)
        env.clock.on_timer(self._on_timer)
        self._epoch = 0
        with self._step("start"):
            self._begin_trade_date()
            self.stack.start()

    def stop(self) -> None:
        """Stop in good order."""
        if self.stack is not None:
            with self.env.guard.step("stop"):
                self.stack.stop()
            self.backing.close()

    def _step(self, cause: str) -> _DeliveryStep:
        return _DeliveryStep(self, cause)

    def _on_timer(self, name: str, args: tuple[Any, ...]) -> None:
        with self._step(name):
            if name == "look" and self.stack is not None:
                self.stack.publish_quotes()
                self._schedule_look()

    def _schedule_look(self) -> None:
        now_ns = self.env.clock.now_ns
        if now_ns < self.env.close_ns:
            self.env.clock.call_at(now_ns // _QUOTE_INTERVAL_NS * _QUOTE_INTERVAL_NS + _QUOTE_INTERVAL_NS, "look")

    # -- the link's listener ------------------------------------------------------------------------------------------

    def on_up(self, epoch: int, out_seq: int) -> None:
        """The link is up."""
        self._epoch = epoch
        with self._step("logon") as stack:
            stack.client.on_up(epoch)

    def on_down(self, reason: str) -> None:
        """The link is down."""
        with self._step("logout") as stack:
            stack.client.on_down()

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """A message of the venue has arrived."""
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

    # -- recording ----------------------------------------------------------------------------------------------------

    def _record(self, subsystem: str, record: Record) -> None:
        """Record. A kill is raised from here and must end the incarnation even if the engine catches it."""
        if self._is_loading:
            return
        self._has_changed = self._has_changed or subsystem in ("orders", "positions")
        try:
            self.env.guard.record(subsystem, record)
        except BaseException as problem:
            if self.stack is not None:
                self.stack.fail(problem)
            raise

    def _record_order(self, order: Any) -> None:
        self._record("orders", self.names.to_order(order))
        event = order.last_event
        if isinstance(event, OrderFilled):
            self._record("orders", self.names.to_execution(order, event))

    def _record_position(self, position: Any) -> None:
        symbol = str(position.instrument_id.symbol.value)
        self._lots_by_position[position.id.value] = (symbol, self.units[symbol].lots(position.signed_decimal_qty()))
        if not self._is_loading:
            self._record("positions", self._net_position(symbol, self.env.trade_date))

    def _net_position(self, symbol: str, trade_date: str) -> Position:
        return Position(
            account=_ACCOUNT,
            symbol=symbol,
            net_qty=sum(lots for name, lots in self._lots_by_position.values() if name == symbol),
            carried_qty=self._carried.get(symbol, 0),
            trade_date=trade_date,
            reference_version=self.units[symbol].instrument.reference_version,
        )

    def _record_exposures(self) -> None:
        """Record the exposure from the portfolio and the cache's indexes, separately from positions and orders."""
        if self.stack is None or not self._has_changed:
            return
        self._has_changed = False
        cache = self.stack.cache
        for symbol, units in self.units.items():
            working = {order.client_order_id: order for order in cache.orders_open(instrument_id=units.id)}
            working |= {order.client_order_id: order for order in cache.orders_inflight(instrument_id=units.id)}
            # An order that a kill left before its submission is in neither index.
            for order in cache.orders(instrument_id=units.id):
                if order.status == OrderStatus.INITIALIZED:
                    working[order.client_order_id] = order
            exposure = Exposure(
                account=_ACCOUNT,
                symbol=symbol,
                net_qty=self._portfolio_net_qty(units),
                open_buy_qty=sum(units.lots(order.leaves_qty) for order in working.values() if order.is_buy),
                open_sell_qty=sum(units.lots(order.leaves_qty) for order in working.values() if order.is_sell),
            )
            if self._exposure_by_symbol.get(symbol) != exposure:
                self._exposure_by_symbol[symbol] = exposure
                self._record("risk", exposure)

    def _portfolio_net_qty(self, units: NautilusUnits) -> int:
        """The portfolio's net position; the cache's until the portfolio is initialized."""
        assert self.stack is not None
        if self.stack.is_running:
            return units.lots(self.stack.portfolio.net_position(units.id))
        return sum(
            units.lots(position.signed_decimal_qty())
            for position in self.stack.cache.positions_open(instrument_id=units.id)
        )

    def _record_account(self, account: Any) -> None:
        if self.account_type == AccountType.CASH and not self._is_loading:
            self._record("ledger", self._balance(account, self.env.trade_date))

    def _balance(self, account: Any, trade_date: str) -> Balance:
        currency = account.base_currency
        return Balance(
            account=_ACCOUNT,
            currency=currency.code,
            cash=int(account.balance_total(currency).as_decimal() / CASH_UNIT),
            carried_cash=self._carried_cash,
            trade_date=trade_date,
        )

    def _record_restored(self) -> None:
        """Record what was read back, together with the contents of the store."""
        assert self.stack is not None
        cache, guard = self.stack.cache, self.env.guard
        day = json.loads(self.backing.get("day", "{}"))
        self._trade_date = str(day.get("date", self.env.trade_date))
        self._carried: dict[str, int] = day.get("carried", {})
        self._carried_cash = int(day.get("cash", 0))
        self.names.done_for_day = set(day.get("done_for_day", []))
        orders = sorted(cache.orders(), key=lambda order: (order.ts_init, order.client_order_id.value))
        for position in cache.positions():
            self._record_position(position)
        records: list[Record] = [self.names.to_order(order) for order in orders]
        records += [
            self.names.to_execution(order, event)
            for order in orders
            for event in order.events
            if isinstance(event, OrderFilled)
        ]
        guard.restore("orders", records)
        symbols = dict.fromkeys(symbol for symbol, _ in self._lots_by_position.values())
        guard.restore("positions", [self._net_position(symbol, self._trade_date) for symbol in symbols])
        account = cache.account_for_venue(next(iter(self.units.values())).equity.id.venue)
        if self.account_type == AccountType.CASH:
            guard.restore("ledger", [self._balance(account, self._trade_date)] if account is not None else [])
        for kind, restored_count in (("orders", len(orders)), ("positions", len(cache.positions()))):
            stored_count = len(self.backing.keys(f"{kind}:*"))
            guard.record("store", Restored(store=kind, stored=stored_count, restored=restored_count, differing=0))

    def _begin_trade_date(self) -> None:
        """Begin a session: the held quantity becomes the carried quantity."""
        assert self.stack is not None
        trade_date = self.env.trade_date
        if self.backing.get("day") and self._trade_date == trade_date:
            return
        self.backing.set("since", self._trade_date)
        self._carried = {
            symbol: self._net_position(symbol, trade_date).net_qty
            for symbol in dict.fromkeys(name for name, _ in self._lots_by_position.values())
        }
        account = self.stack.cache.account_for_venue(next(iter(self.units.values())).equity.id.venue)
        if account is not None:
            self._carried_cash = self._balance(account, trade_date).cash
        elif self.account_type == AccountType.CASH:
            self._carried_cash = int(_FUNDS / CASH_UNIT)
        done_for_day, self.names.done_for_day, self._trade_date = self.names.done_for_day, set(), trade_date
        self._save_day()
        for symbol in self._carried:
            self._record("positions", self._net_position(symbol, trade_date))
        if account is not None:
            self._record_account(account)
        for order in self.stack.cache.orders_open():
            if self.names.order_key(order) in done_for_day:
                self._record("orders", self.names.to_order(order))

    def _save_day(self) -> None:
        day = {
            "date": self._trade_date,
            "carried": self._carried,
            "cash": self._carried_cash,
            "done_for_day": sorted(self.names.done_for_day),
        }
        if self.backing.get("day") != json.dumps(day):
            self.backing.set("day", json.dumps(day))

    def _record_reconciliation(self, is_complete: bool) -> None:
        link = self.env.link
        self._record("reconciler", Reconciliation(link=link.name, epoch=link.epoch, is_complete=is_complete))
        if is_complete:
            self.env.guard.reconciled(self.env.trade_date)
            self._schedule_look()

    def _apply_guard_switch(self) -> None:
        """Set the trading state by the guard: NautilusTrader forgets a halt at a restart, the guard does not."""
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
        self.stack.allow_trading(self.env.guard.permits(probe))

    # -- interface of exploration -------------------------------------------------------------------------------------

    def volatile_state(self) -> Any:
        """Returns the in-memory state that affects decisions and is neither recorded nor stored."""
        if self.stack is None:
            return None
        return [self.stack.is_running, self.stack.client.is_reconciled, str(self.stack.risk.trading_state)]

    def rows(self, directory: Path) -> Iterator[tuple[Any, ...]]:
        """Yield the comparable content of the store: the events of each list, without random names and times."""
        lists: dict[str, list[Any]] = {}
        for table, key, *rest in store.read_rows(directory):
            if table == "list":
                event = msgspec.msgpack.decode(rest[1])
                kind = event.get("type", "") if isinstance(event, dict) else ""
                lists.setdefault(key, []).append(kind)
            elif table == "ours" and key == "day":
                yield (table, key, *rest)
        for key, kinds in lists.items():
            fills = sum(1 for kind in kinds if kind == "OrderFilled")
            yield ("list", key, fills, hashlib.sha256(str(kinds[-1]).encode()).hexdigest()[:8])

    def reduced_settings(self) -> Iterator[dict[str, Any]]:
        """Yield settings with less activity: one order at a time."""
        if int(self.settings.get("orders", 4)) > 1 and not self.settings.get("strategy"):
            yield {**self.settings, "orders": 1}

    def perform(self, operation: str, *args: Any) -> None:
        """Perform an operation: `cancel` ROOT, `replace` ROOT PRICE, `submit` NUMBER LOTS TICKS."""
        if self.stack is None or not self.stack.is_running:
            return
        with self._step("act") as stack:
            if operation == "submit":
                strategy = stack.strategies[int(args[0]) % len(stack.strategies)]
                units = next(iter(self.units.values()))
                quote = stack.cache.quote_tick(units.id)
                if quote is not None and isinstance(strategy, RestlessStrategy):
                    price = units.price(max(units.ticks(quote.bid_price) + int(args[2]), 1))
                    strategy.perform("submit", int(args[1]) * int(units.lot), price)
                return
            order = next(
                (candidate for candidate in stack.cache.orders_open() if self.names.order_key(candidate) == args[0]),
                None,
            )
            owner = next(
                (
                    candidate
                    for candidate in stack.strategies
                    if order is not None and candidate.id == order.strategy_id
                ),
                None,
            )
            if order is not None and isinstance(owner, RestlessStrategy):
                units = self.units[order.instrument_id.symbol.value]
                owner.perform(operation, order, *(units.price(int(price)) for price in args[1:]))


class _DeliveryStep:
    """One delivered event: a guard step around it and around everything that the engine does because of it."""

    def __init__(self, subject: NautilusSubject, cause: str) -> None:
        self._subject = subject
        self._step = subject.env.guard.step(cause)

    def __enter__(self) -> NautilusStack:
        self._step.__enter__()
        stack = self._subject.stack
        assert stack is not None
        stack.clock.set_time(max(stack.clock.timestamp_ns(), 0))
        return stack

    def __exit__(self, *raised: Any) -> None:
        subject, stack = self._subject, self._subject.stack
        try:
            if raised[0] is None and stack is not None:
                subject._apply_guard_switch()
                stack.advance()
                if subject._has_changed:
                    subject._record_exposures()
                    subject._save_day()
                due = stack.next_ns()
                if due is not None and due != subject._due_ns:
                    subject._due_ns = due
                    subject.env.clock.call_at(due, "due")
        except BaseException as problem:
            self._step.__exit__(type(problem), problem, problem.__traceback__)
            raise
        self._step.__exit__(*raised)


def _choose(settings: dict[str, Any], name: str, choices: dict[str, Any], default: str) -> Any:
    value = settings.get(name, default)
    if value not in choices:
        raise ValueError(f"settings: {name} is {value!r}, should be one of {', '.join(choices)}")
    return choices[value]


def _usual_lots(plan: Plan, symbol: str) -> int:
    """An order size that the recorded market fills in parts."""
    days = [meta for meta in plan.days if meta.instrument.symbol == symbol]
    traded, prints = sum(meta.traded_qty for meta in days), sum(meta.trades for meta in days)
    return max(traded // prints * 2 if prints else 100, 1)


FACTORY: Callable[[Plan], NautilusSubject] = NautilusSubject
"""Creates an incarnation."""
