"""NautilusTrader's live stack in one process on virtual time: what its kernel builds, in the same order.

Message bus, cache on its database, portfolio, live data, risk and execution engines, emulator and trader are its own.
The clocks are its `TestClock`, moved on by ours; the engines' queues and loops run on a `VirtualLoop`.
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
from holdover.adapters.nautilus.database import Database
from holdover.adapters.nautilus.loop import VirtualLoop
from holdover.adapters.nautilus.names import Names, Units
from holdover.world.book import UNDEF_PRICE

if TYPE_CHECKING:
    from holdover.harness.subject import Env

TRADER: str = "HOLDOVER-001"


class EngineStopped(RuntimeError):
    """The engine has shut itself down after an exception of its own."""


class QuotesFromTheMarket(LiveMarketDataClient):  # type: ignore[misc]
    """The data client of the simulated venue: whoever polls the market publishes; subscriptions only have to exist."""

    async def _connect(self) -> None:
        return None

    async def _disconnect(self) -> None:
        return None

    async def _subscribe_quote_ticks(self, *told: Any) -> None:
        return None

    async def _unsubscribe_quote_ticks(self, *told: Any) -> None:
        return None


class Stack:
    """One life of it. `start` begins, `advance` runs what is due now, `stop` ends."""

    def __init__(
        self,
        env: Env,
        database: Database,
        names: Names,
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
        told: dict[str, Any] = {"graceful_shutdown_on_exception": True, **engine}
        known = set(LiveExecEngineConfig.__struct_fields__)
        self.exec = LiveExecutionEngine(
            loop=self.loop,
            config=LiveExecEngineConfig(**{name: value for name, value in told.items() if name in known}),
            **parts,
        )
        self.exec.load_cache()
        # Older releases call it `reconcile_state`.
        self.ask_the_venue = getattr(self.exec, "reconcile_execution_state", None) or self.exec.reconcile_state
        self.emulator = OrderEmulator(portfolio=self.portfolio, **parts)
        more = {"environment": Environment.LIVE} if "environment" in inspect.signature(Trader).parameters else {}
        self.trader = Trader(
            trader_id=trader_id,
            instance_id=instance_id,
            portfolio=self.portfolio,
            data_engine=self.data,
            risk_engine=self.risk,
            exec_engine=self.exec,
            loop=self.loop,
            **more,
            **parts,
        )
        for strategy in strategies:
            self.trader.add_strategy(strategy)
        self.trader.load()
        units = next(iter(names.units.values()))
        # The venue reports no balances: they are its own sums over its fills, as in its sandbox.
        with contextlib.suppress(KeyError):
            AccountFactory.register_calculated_account(units.ours.venue)
        self.client = SimulatedVenueClient(
            self.loop,
            env,
            names,
            database.backing,
            oms=oms,
            account_type=account_type,
            funds=funds,
            replays=replays,
            problem=self.end,
            **parts,
        )
        self.client.came_up = lambda: self._own(self.reconcile())
        self.exec.register_client(self.client)
        self.quotes = QuotesFromTheMarket(
            loop=self.loop,
            client_id=ClientId(units.ours.venue),
            venue=Venue(units.ours.venue),
            instrument_provider=InstrumentProvider(),
            **parts,
        )
        self.data.register_client(self.quotes)
        self.msgbus.subscribe("commands.system.shutdown", self._shut_down)
        self.strategies = strategies
        self.running = False
        self.on_reconciled: Callable[[bool], None] = lambda done: None
        self._last: dict[str, tuple[int, int, int, int]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- living -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Come up as its kernel does."""
        self._own(self._start())

    async def _start(self) -> None:
        """Source: `NautilusKernel.start_async`."""
        self.data.start()
        self.risk.start()
        self.exec.start()
        self.data.connect()
        self.exec.connect()
        await self.client.logged_on()
        while not (self.data.check_connected() and self.exec.check_connected()):
            await asyncio.sleep(0)  # no pause: from the logon on the venue is being asked
        await self.reconcile()
        self.emulator.start()
        self.portfolio.initialize_orders()
        self.portfolio.initialize_positions()
        self.trader.start()
        self.running = True

    async def reconcile(self) -> None:
        """Its own reconciliation, again until it says that it is complete; a logon in between begins another one."""
        epoch = self.env.link.epoch
        self.on_reconciled(False)
        while self.env.link.up and self.env.link.epoch == epoch:
            if await self.ask_the_venue():
                if self.env.link.up and self.env.link.epoch == epoch:
                    self.client.reconciled = True
                    self.on_reconciled(True)
                return
            await asyncio.sleep(5.0)

    def _own(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._owned)

    def _owned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        problem = None if task.cancelled() else task.exception()
        if problem is not None:
            self.end(problem)

    def end(self, problem: BaseException) -> None:
        """The life is over: whoever settles the loop raises this."""
        if self.loop.ended is None:
            self.loop.ended = problem

    def _shut_down(self, command: ShutdownSystem) -> None:
        self.end(EngineStopped(f"{command.reason}"))

    def clocks(self) -> list[Any]:
        """Every clock of it."""
        return [self.clock, *(one.clock for one in self.trader.strategies()), *self._actor_clocks()]

    def _actor_clocks(self) -> list[Any]:
        return [one.clock for one in (*self.trader.actors(), *self.trader.exec_algorithms())]

    def advance(self) -> None:
        """Run all that is due now: the loop, then the timers of each clock in the order of their times, and again."""
        now_ns = self.env.clock.now_ns
        self.loop.settle()
        for clock in self.clocks():
            if clock.timestamp_ns() < now_ns:
                for handler in clock.advance_time(now_ns):
                    handler.handle()
                    self.loop.settle()
        self.loop.settle()

    def next_ns(self) -> int | None:
        """When something is due again."""
        times = [clock.next_time_ns(name) for clock in self.clocks() for name in clock.timer_names]
        due = self.loop.next_ns()
        if due is not None:
            times.append(due)
        return min(times) if times else None

    def look(self) -> None:
        """Publish the market's quotes where they have changed."""
        now_ns = self.env.clock.now_ns
        for symbol, units in self.names.units.items():
            top = self.env.market.top(symbol)
            if UNDEF_PRICE in (top.bid_px, top.ask_px) or not (top.bid_sz and top.ask_sz):
                continue
            seen = (top.bid_px, top.ask_px, top.bid_sz, top.ask_sz)
            if self._last.get(symbol) != seen:
                self._last[symbol] = seen
                self.data.process(_quote(units, seen, now_ns))

    def trading(self, allowed: bool) -> None:
        """Its own switch: halted it denies every new order."""
        wanted = TradingState.ACTIVE if allowed else TradingState.HALTED
        if self.risk.trading_state != wanted:
            self.risk.set_trading_state(wanted)

    def stop(self) -> None:
        """Go down in good order: what its kernel stops, without the pauses in between."""
        if self.trader.is_running:
            self.trader.stop()
        self.loop.settle()
        self.trader.save()
        self.env.link.disconnect()
        for engine in (self.data, self.risk, self.exec):
            engine.stop()
        self.loop.settle()


def _quote(units: Units, seen: tuple[int, int, int, int], now_ns: int) -> Any:
    return QuoteTick(
        instrument_id=units.id,
        bid_price=units.price(seen[0]),
        ask_price=units.price(seen[1]),
        bid_size=units.quantity(seen[2]),
        ask_size=units.quantity(seen[3]),
        ts_event=now_ns,
        ts_init=now_ns,
    )
