"""NautilusTrader's live stack in one process on virtual time, built in the order of its kernel.

Message bus, cache with its database, portfolio, live data, risk and execution engines, emulator and trader are its own.
The clocks are its `TestClock`, advanced by ours; the queues and loops of the engines run on a `VirtualLoop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nautilus_trader.accounting.factory import AccountFactory
from nautilus_trader.cache.cache import Cache
from nautilus_trader.common import Environment
from nautilus_trader.common.component import MessageBus, TestClock
from nautilus_trader.common.messages import ShutdownSystem
from nautilus_trader.common.providers import InstrumentProvider
from nautilus_trader.config import LiveDataEngineConfig, LiveExecEngineConfig, LiveRiskEngineConfig
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.execution.emulator import OrderEmulator
from nautilus_trader.live.data_client import LiveMarketDataClient
from nautilus_trader.live.data_engine import LiveDataEngine
from nautilus_trader.live.execution_engine import LiveExecutionEngine
from nautilus_trader.live.risk_engine import LiveRiskEngine
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import AccountType, OmsType, TradingState
from nautilus_trader.model.identifiers import ClientId, TraderId, Venue
from nautilus_trader.portfolio.portfolio import Portfolio
from nautilus_trader.trading.trader import Trader

from holdover.adapters.nautilus.client import SimulatedVenueClient
from holdover.adapters.nautilus.database import ObservedCacheDatabase
from holdover.adapters.nautilus.loop import VirtualLoop
from holdover.adapters.nautilus.records import NautilusUnits, RecordMapper
from holdover.world.book import UNDEF_PRICE

if TYPE_CHECKING:
    from holdover.harness.subject import Env

TRADER: str = "HOLDOVER-001"


class EngineStoppedError(RuntimeError):
    """The engine has shut itself down after an exception."""


class SimulatedDataClient(LiveMarketDataClient):  # type: ignore[misc]
    """The data client of the simulated venue.

    `NautilusStack.publish_quotes` publishes; subscriptions need only exist.
    """

    async def _connect(self) -> None:
        return None

    async def _disconnect(self) -> None:
        return None

    async def _subscribe_quote_ticks(self, *args: Any) -> None:
        return None

    async def _unsubscribe_quote_ticks(self, *args: Any) -> None:
        return None


class NautilusStack:
    """One incarnation of the stack. `start` begins, `advance` runs what is due, `stop` ends it."""

    def __init__(
        self,
        env: Env,
        database: ObservedCacheDatabase,
        names: RecordMapper,
        strategies: list[Any],
        *,
        oms: OmsType,
        account_type: AccountType,
        funds: int,
        replays: bool,
        engine: dict[str, Any],
    ) -> None:
        self.env, self.names = env, names
        self.loop = VirtualLoop(lambda: env.clock.now_ns)  # type: ignore[abstract]
        self.clock = TestClock()
        self.clock.set_time(env.clock.now_ns)
        trader_id, instance_id = TraderId(TRADER), UUID4()
        self.msgbus = MessageBus(trader_id=trader_id, clock=self.clock, instance_id=instance_id)
        self.cache = Cache(database=database)
        self.portfolio = Portfolio(msgbus=self.msgbus, cache=self.cache, clock=self.clock)
        parts = {"msgbus": self.msgbus, "cache": self.cache, "clock": self.clock}
        self.data = LiveDataEngine(loop=self.loop, config=LiveDataEngineConfig(), **parts)
        self.risk = LiveRiskEngine(loop=self.loop, portfolio=self.portfolio, config=LiveRiskEngineConfig(), **parts)
        engine_settings: dict[str, Any] = {"graceful_shutdown_on_exception": True, **engine}
        field_names = set(LiveExecEngineConfig.__struct_fields__)
        self.exec = LiveExecutionEngine(
            loop=self.loop,
            config=LiveExecEngineConfig(
                **{name: value for name, value in engine_settings.items() if name in field_names}
            ),
            **parts,
        )
        self.exec.load_cache()
        # Older releases name it `reconcile_state`.
        self.reconcile_venue_state = getattr(self.exec, "reconcile_execution_state", None) or self.exec.reconcile_state
        self.emulator = OrderEmulator(portfolio=self.portfolio, **parts)
        trader_options = (
            {"environment": Environment.LIVE} if "environment" in inspect.signature(Trader).parameters else {}
        )
        self.trader = Trader(
            trader_id=trader_id,
            instance_id=instance_id,
            portfolio=self.portfolio,
            data_engine=self.data,
            risk_engine=self.risk,
            exec_engine=self.exec,
            loop=self.loop,
            **trader_options,
            **parts,
        )
        for strategy in strategies:
            self.trader.add_strategy(strategy)
        self.trader.load()
        units = next(iter(names.units.values()))
        # The venue reports no balances: NautilusTrader computes them from its fills, as in its sandbox.
        with contextlib.suppress(KeyError):
            AccountFactory.register_calculated_account(units.instrument.venue)
        self.client = SimulatedVenueClient(
            self.loop,
            env,
            names,
            database.backing,
            oms=oms,
            account_type=account_type,
            funds=funds,
            replays=replays,
            on_problem=self.fail,
            **parts,
        )
        self.client.on_relogon = lambda: self._start_task(self.reconcile())
        self.exec.register_client(self.client)
        self.quotes = SimulatedDataClient(
            loop=self.loop,
            client_id=ClientId(units.instrument.venue),
            venue=Venue(units.instrument.venue),
            instrument_provider=InstrumentProvider(),
            **parts,
        )
        self.data.register_client(self.quotes)
        self.msgbus.subscribe("commands.system.shutdown", self._on_shutdown)
        self.strategies = strategies
        self.is_running = False
        self.on_reconciled: Callable[[bool], None] = lambda is_complete: None
        self._last_quotes: dict[str, tuple[int, int, int, int]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- lifecycle --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start as NautilusTrader's kernel does."""
        self._start_task(self._start())

    async def _start(self) -> None:
        """Source: `NautilusKernel.start_async`."""
        self.data.start()
        self.risk.start()
        self.exec.start()
        self.data.connect()
        self.exec.connect()
        await self.client.wait_for_logon()
        while not (self.data.check_connected() and self.exec.check_connected()):
            await asyncio.sleep(0)  # no pause: reconciliation starts with the logon
        await self.reconcile()
        self.emulator.start()
        self.portfolio.initialize_orders()
        self.portfolio.initialize_positions()
        self.trader.start()
        self.is_running = True

    async def reconcile(self) -> None:
        """Run NautilusTrader's reconciliation until it is complete; a logon in between starts another one."""
        epoch = self.env.link.epoch
        self.on_reconciled(False)
        while self.env.link.is_up and self.env.link.epoch == epoch:
            if await self.reconcile_venue_state():
                if self.env.link.is_up and self.env.link.epoch == epoch:
                    self.client.is_reconciled = True
                    self.on_reconciled(True)
                return
            await asyncio.sleep(5.0)

    def _start_task(self, coroutine: Any) -> None:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            self.fail(problem)

    def fail(self, problem: BaseException) -> None:
        """End this incarnation: the next `settle` of the loop raises the problem."""
        if self.loop.problem is None:
            self.loop.problem = problem

    def _on_shutdown(self, command: ShutdownSystem) -> None:
        self.fail(EngineStoppedError(f"{command.reason}"))

    def list_clocks(self) -> list[Any]:
        """Returns every clock of the stack."""
        return [self.clock, *(strategy.clock for strategy in self.trader.strategies()), *self._list_actor_clocks()]

    def _list_actor_clocks(self) -> list[Any]:
        return [actor.clock for actor in (*self.trader.actors(), *self.trader.exec_algorithms())]

    def advance(self) -> None:
        """Run everything that is due now: the loop, the timers of each clock in the order of their times, and
        the loop again.
        """
        now_ns = self.env.clock.now_ns
        self.loop.settle()
        for clock in self.list_clocks():
            if clock.timestamp_ns() < now_ns:
                for handler in clock.advance_time(now_ns):
                    handler.handle()
                    self.loop.settle()
        self.loop.settle()

    def next_ns(self) -> int | None:
        """Returns when something is due next (ns); None when nothing is."""
        times = [clock.next_time_ns(name) for clock in self.list_clocks() for name in clock.timer_names]
        due = self.loop.next_ns()
        if due is not None:
            times.append(due)
        return min(times) if times else None

    def publish_quotes(self) -> None:
        """Publish the quotes that have changed."""
        now_ns = self.env.clock.now_ns
        for symbol, units in self.names.units.items():
            top = self.env.market.top(symbol)
            if UNDEF_PRICE in (top.bid_px, top.ask_px) or not (top.bid_sz and top.ask_sz):
                continue
            quote = (top.bid_px, top.ask_px, top.bid_sz, top.ask_sz)
            if self._last_quotes.get(symbol) != quote:
                self._last_quotes[symbol] = quote
                self.data.process(_make_quote_tick(units, quote, now_ns))

    def allow_trading(self, allowed: bool) -> None:
        """Set NautilusTrader's trading state; halted, it denies every new order."""
        state = TradingState.ACTIVE if allowed else TradingState.HALTED
        if self.risk.trading_state != state:
            self.risk.set_trading_state(state)

    def stop(self) -> None:
        """Stop in good order: what the kernel stops, without its pauses."""
        if self.trader.is_running:
            self.trader.stop()
        self.loop.settle()
        self.trader.save()
        self.env.link.disconnect()
        for engine in (self.data, self.risk, self.exec):
            engine.stop()
        self.loop.settle()


def _make_quote_tick(units: NautilusUnits, quote: tuple[int, int, int, int], now_ns: int) -> Any:
    return QuoteTick(
        instrument_id=units.id,
        bid_price=units.price(quote[0]),
        ask_price=units.price(quote[1]),
        bid_size=units.quantity(quote[2]),
        ask_size=units.quantity(quote[3]),
        ts_event=now_ns,
        ts_init=now_ns,
    )
