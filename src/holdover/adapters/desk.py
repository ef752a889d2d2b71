"""The desk as a subject."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from holdover.desk import Desk, DeskConfig, Strategy
from holdover.desk.faults import parts_with
from holdover.model import Instrument, Order, PositionEffect, PositionSide, Side, TimeInForce

if TYPE_CHECKING:
    from holdover.harness.subject import Env, Plan


class DeskSubject:
    """One incarnation of the desk. The plan's days determine the instruments and the order sizes.

    The plan's settings may contain a whole `DeskConfig` (`desk`) or the file of a live desk (`live`), config
    fields to override (`limits`), the names of the only strategies that trade (`strategies`), and how many slices
    of each may work at a time (`slices`).
    """

    def __init__(self, plan: Plan) -> None:
        desk_config = plan.settings.get("desk")
        config = desk_config if isinstance(desk_config, DeskConfig) else _live_config(plan) or config_for(plan)
        self.settings = plan.settings
        self.takes_account_reports = bool(plan.settings.get("account_reports", not plan.settings.get("live")))
        overrides = {"account_reports": self.takes_account_reports, **plan.settings.get("limits", {})}
        self.config = _restrict_config(msgspec.structs.replace(config, **overrides), plan)
        self.parts = parts_with(plan.faults)
        self.accounts = self.config.accounts()
        self.desk: Desk | None = None
        self._attributes: list[set[str]] = []

    def start(self, env: Env) -> None:
        """Start from the state in the directory."""
        self.desk = Desk(
            self.config,
            clock=env.clock,
            link=env.link,
            market=env.market,
            directory=env.directory,
            guard=env.guard,  # type: ignore[arg-type]  # the guard by shape
            parts=self.parts,
        )
        self._attributes = [set(vars(part)) for part in self._part_objects()]
        self.desk.start(env.trade_date, env.open_ns, env.close_ns)

    def stop(self) -> None:
        """Stop in good order."""
        if self.desk is not None:
            self.desk.stop()

    # -- optional interface for exploration ----------------------------------------------------------------------------

    is_isolated = True
    """An incarnation keeps nothing outside its objects and its directory, so several may run in one process."""

    def volatile_state(self) -> Any:
        """Return the in-memory state that affects decisions and is neither recorded nor stored, as plain data."""
        if self.desk is None:
            return None
        # Attributes added after the construction are a seeded fault's memory; without a fault there are none.
        extra_state = [
            [(name, repr(value)) for name, value in sorted(vars(part).items()) if name not in attributes]
            for part, attributes in zip(self._part_objects(), self._attributes, strict=True)
        ]
        return [
            self.desk.reconciler.is_done,
            len(self.desk._early_reports),
            sorted(self.desk._pending_since_ns),
            sorted(self.desk.brackets.unfinished),
            extra_state,
        ]

    def _part_objects(self) -> list[Any]:
        desk = self.desk
        if desk is None:
            return []
        parts = [desk.orders, desk.positions, desk.ledger, desk.profit, desk.risk, desk.parents]
        return [*parts, desk.brackets, desk.gateway, desk.reconciler]

    def rows(self, directory: Path) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of the store; for executions, which never change and are read at every start, their number."""
        reader = sqlite3.connect(f"file:{directory / 'desk.db'}?mode=ro", uri=True)
        try:
            yield from reader.execute("SELECT * FROM record WHERE kind < 'Execution'")
            yield from reader.execute("SELECT * FROM record WHERE kind > 'Execution'")
            yield from reader.execute("SELECT kind, COUNT(*) FROM record WHERE kind = 'Execution'")
            yield from reader.execute("SELECT * FROM meta WHERE name NOT IN ('in_seq', 'out_seq', 'forgotten')")
        finally:
            reader.close()

    def normalize_row(self, row: tuple[Any, ...]) -> Any:
        """Return a row without the fields that say how or when its content was learnt."""
        if row[0] != "Order":
            return list(row)
        record = msgspec.msgpack.decode(row[-1])
        return [*row[:-1], {name: record[name] for name in sorted(record) if name not in Order.provenance_fields}]

    def reduced_settings(self) -> Iterator[dict[str, Any]]:
        """Yield settings with less activity: one strategy, all but one strategy, one slice of each at a time."""
        names = [strategy.name for strategy in self.config.strategies]
        if len(names) > 1:
            for name in names:
                yield {**self.settings, "strategies": [name]}
            for name in names if len(names) > 2 else ():
                yield {**self.settings, "strategies": [strategy for strategy in names if strategy != name]}
        if any(strategy.slices_working_max > 1 for strategy in self.config.strategies):
            yield {**self.settings, "slices": 1}

    def perform(self, action: str, *arguments: Any) -> None:
        """Perform an action: `cancel` ROOT, `replace` ROOT PRICE, or `submit` NUMBER LOTS TICKS."""
        if self.desk is not None:
            actions: dict[str, Any] = {
                "cancel": self.desk.cancel,
                "replace": self.desk.reprice,
                "submit": self.desk.submit,
            }
            actions[action](*arguments)


def _live_config(plan: Plan) -> DeskConfig | None:
    """Return the config of a live desk when the settings name its file. Raises `GuardConfigError`."""
    if not plan.settings.get("live"):
        return None
    from holdover.adapters.fix.config import read_live_config  # imported here, because only a live desk needs it

    return read_live_config(Path(str(plan.settings["live"]))).desk


def _restrict_config(config: DeskConfig, plan: Plan) -> DeskConfig:
    """Return the config restricted to the strategies and slices of the settings."""
    names = plan.settings.get("strategies", [strategy.name for strategy in config.strategies])
    slices_max = plan.settings.get("slices", 0)
    if not isinstance(names, list) or not isinstance(slices_max, int):
        raise ValueError("settings: strategies should be a list of names, slices a number")
    strategies = [
        msgspec.structs.replace(
            strategy, slices_working_max=min(strategy.slices_working_max, slices_max or strategy.slices_working_max)
        )
        for strategy in config.strategies
        if strategy.name in names
    ]
    if not strategies:
        available = ", ".join(strategy.name for strategy in config.strategies)
        raise ValueError(
            f"settings: of the strategies {', '.join(names) or 'none'} the desk has none; it has {available}"
        )
    return msgspec.structs.replace(config, strategies=strategies)


def config_for(plan: Plan) -> DeskConfig:
    """Return a config with four strategies an instrument in three accounts. A slice is about the size of a trade.

    `accumulate` buys a multi-day parent in GTC slices by time. `distribute` sells from that position by
    participation. `short` always has a GTC order in an account of its own, large enough to be carried overnight
    partly filled. `bracket` holds a few lots at a time on the long leg of a third account, with a take-profit and a
    stop that are carried overnight.
    """
    strategies = [strategy for instrument in plan.instruments() for strategy in _strategies_for(plan, instrument)]
    biggest = max((strategy.order_qty for strategy in strategies), default=1)
    return DeskConfig(
        instruments=plan.instruments(),
        strategies=strategies,
        position_max=biggest * 2,
        order_qty_max=biggest,
        open_qty_max=biggest * 2,
        synced=False,
    )


def _strategies_for(plan: Plan, instrument: Instrument) -> list[Strategy]:
    """Return the four strategies of one instrument; see `config_for`."""
    days = [meta for meta in plan.days if meta.instrument.symbol == instrument.symbol]
    traded = sum(meta.traded_qty for meta in days) // max(len(days), 1)
    usual = traded or 200_000_000
    prints = sum(meta.trades for meta in days)
    slice_qty = max(min(usual // 4_000, traded * len(days) // prints if prints else usual), 1)
    day_qty = slice_qty * 150
    resting_qty = slice_qty * 3
    return [
        Strategy(
            name=f"accumulate.{instrument.symbol}",
            account="A1",
            symbol=instrument.symbol,
            side=Side.BUY,
            order_qty=day_qty * max(len(days), 1),
            day_qty=day_qty,
            slice_qty=resting_qty,
            time_in_force=TimeInForce.GTC,
            patience=20,
            slices_working_max=4,
            rests=True,
            offset=2,
        ),
        Strategy(
            name=f"distribute.{instrument.symbol}",
            account="A1",
            symbol=instrument.symbol,
            side=Side.SELL,
            order_qty=day_qty * max(len(days), 1),
            day_qty=day_qty * 2 // 3,
            slice_qty=slice_qty,
            algorithm="participation",
            participation_bp=150,
            position_effect=PositionEffect.CLOSE,
            time_in_force=TimeInForce.DAY,
            offset=3,
        ),
        Strategy(
            name=f"short.{instrument.symbol}",
            account="A2",
            symbol=instrument.symbol,
            side=Side.SELL,
            order_qty=usual * 4 * max(len(days), 1),
            day_qty=slice_qty * 100,
            slice_qty=usual * 2,
            algorithm="standing",
            time_in_force=TimeInForce.GTC,
            patience=60,
            slices_working_max=1,
            rests=True,
            offset=60,
            late_ns=900_000_000_000,
        ),
        Strategy(
            name=f"bracket.{instrument.symbol}",
            account="A3",
            symbol=instrument.symbol,
            side=Side.BUY,
            order_qty=slice_qty * 10 * max(len(days), 1),
            day_qty=slice_qty * 10,
            slice_qty=slice_qty,
            algorithm="bracket",
            time_in_force=TimeInForce.GTC,
            interval_ns=120_000_000_000,
            patience=10,
            slices_working_max=1,
            rests=True,
            offset=1,
            take_profit=60,
            stop_loss=40,
            position_side=PositionSide.LONG,
        ),
    ]
