"""The desk as a subject: the one file that knows both."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from holdover.desk import Desk, DeskConfig, Strategy
from holdover.desk.faults import parts_with
from holdover.model import Order, PositionEffect, Side, TimeInForce

if TYPE_CHECKING:
    from holdover.harness.subject import Env, Plan


class DeskSubject:
    """One life of the desk. The plan's days give the instruments and how much one may trade of them.

    The plan's settings may hold a whole `DeskConfig` (`desk`) or the file by which a live desk runs (`live`), fields of
    one to be set otherwise (`limits`), the names of the only strategies that trade (`strategies`), and how many slices
    of each may work at a time (`slices`).
    """

    def __init__(self, plan: Plan) -> None:
        told = plan.settings.get("desk")
        config = told if isinstance(told, DeskConfig) else _live_config(plan) or config_for(plan)
        self.settings = plan.settings
        self.config = _only(msgspec.structs.replace(config, **plan.settings.get("limits", {})), plan)
        self.parts = parts_with(plan.faults)
        self.accounts = self.config.accounts()
        self.desk: Desk | None = None
        self._attributes: list[set[str]] = []

    def start(self, env: Env) -> None:
        """Come up on what the directory holds."""
        self.desk = Desk(
            self.config,
            clock=env.clock,
            link=env.link,
            market=env.market,
            directory=env.directory,
            guard=env.guard,  # type: ignore[arg-type]  # the guard by shape
            parts=self.parts,
        )
        self._attributes = [set(vars(part)) for part in self._made()]
        self.desk.start(env.trade_date, env.open_ns, env.close_ns)

    def stop(self) -> None:
        """Go down in good order."""
        if self.desk is not None:
            self.desk.stop()

    # -- what exploration may ask of a subject; all of it may be left out ------------------------------------------

    isolated = True
    """One life keeps nothing outside its own objects and its directory: another may run beside it in one process."""

    def volatile(self) -> Any:
        """What it decides by that is neither recorded nor on the disk, as plain data."""
        if self.desk is None:
            return None
        # What a part holds beside its own attributes is a seeded fault's memory; without a fault there is none.
        more = [
            [(name, repr(value)) for name, value in sorted(vars(part).items()) if name not in known]
            for part, known in zip(self._made(), self._attributes, strict=True)
        ]
        return [self.desk.reconciler.done, len(self.desk._early), sorted(self.desk._waiting_since), more]

    def _made(self) -> list[Any]:
        desk = self.desk
        if desk is None:
            return []
        return [desk.orders, desk.positions, desk.risk, desk.parents, desk.gateway, desk.reconciler]

    def rows(self, directory: Path) -> Iterator[tuple[Any, ...]]:
        """The rows of its store; of the executions, which are never changed and read back at every start, how many."""
        reader = sqlite3.connect(f"file:{directory / 'desk.db'}?mode=ro", uri=True)
        try:
            yield from reader.execute("SELECT * FROM record WHERE kind < 'Execution'")
            yield from reader.execute("SELECT * FROM record WHERE kind > 'Execution'")
            yield from reader.execute("SELECT kind, COUNT(*) FROM record WHERE kind = 'Execution'")
            yield from reader.execute("SELECT * FROM meta WHERE name NOT IN ('in_seq', 'out_seq', 'forgotten')")
        finally:
            reader.close()

    def normal_row(self, row: tuple[Any, ...]) -> Any:
        """A row without what says how or when it was learnt."""
        if row[0] != "Order":
            return list(row)
        told = msgspec.msgpack.decode(row[-1])
        return [*row[:-1], {name: told[name] for name in sorted(told) if name not in Order.told_by}]

    def fewer(self) -> Iterator[dict[str, Any]]:
        """Settings with which it would do less: one strategy, without one strategy, one slice of each at a time."""
        names = [one.name for one in self.config.strategies]
        if len(names) > 1:
            for name in names:
                yield {**self.settings, "strategies": [name]}
            for name in names if len(names) > 2 else ():
                yield {**self.settings, "strategies": [one for one in names if one != name]}
        if any(one.slices_working_max > 1 for one in self.config.strategies):
            yield {**self.settings, "slices": 1}

    def act(self, what: str, *told: Any) -> None:
        """What may be asked of it: `cancel` ROOT, `replace` ROOT PRICE, `submit` NUMBER LOTS TICKS."""
        if self.desk is not None:
            acts: dict[str, Any] = {
                "cancel": self.desk.cancel,
                "replace": self.desk.reprice,
                "submit": self.desk.submit,
            }
            acts[what](*told)


def _live_config(plan: Plan) -> DeskConfig | None:
    """What a live desk runs by, where the settings name its file. Raises `BadConfig`."""
    if not plan.settings.get("live"):
        return None
    from holdover.adapters.fix.config import read_live  # here, so that a desk that is not live needs none of it

    return read_live(Path(str(plan.settings["live"]))).desk


def _only(config: DeskConfig, plan: Plan) -> DeskConfig:
    """A config with the strategies and slices that the settings leave."""
    names = plan.settings.get("strategies", [one.name for one in config.strategies])
    most = plan.settings.get("slices", 0)
    if not isinstance(names, list) or not isinstance(most, int):
        raise ValueError("settings: strategies should be a list of names, slices a number")
    strategies = [
        msgspec.structs.replace(one, slices_working_max=min(one.slices_working_max, most or one.slices_working_max))
        for one in config.strategies
        if one.name in names
    ]
    if not strategies:
        there = ", ".join(one.name for one in config.strategies)
        raise ValueError(f"settings: of the strategies {', '.join(names) or 'none'} the desk has none; it has {there}")
    return msgspec.structs.replace(config, strategies=strategies)


def config_for(plan: Plan) -> DeskConfig:
    """Three strategies an instrument in two accounts, sized by what the recorded days traded: a slice is a print.

    `accumulate` buys a multi-day parent in GTC slices by time, `distribute` sells out of that position by
    participation, `short` always has a GTC order standing in an account of its own, so big that it is carried over the
    night partly filled.
    """
    strategies: list[Strategy] = []
    for instrument in plan.instruments():
        days = [meta for meta in plan.days if meta.instrument.symbol == instrument.symbol]
        traded = sum(meta.traded_qty for meta in days) // max(len(days), 1)
        usual = traded or 200_000_000
        prints = sum(meta.trades for meta in days)
        slice_qty = max(min(usual // 4_000, traded * len(days) // prints if prints else usual), 1)
        day_qty = slice_qty * 150
        resting_qty = slice_qty * 3
        strategies += [
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
        ]
    biggest = max((strategy.order_qty for strategy in strategies), default=1)
    return DeskConfig(
        instruments=plan.instruments(),
        strategies=strategies,
        position_max=biggest * 2,
        order_qty_max=biggest,
        open_qty_max=biggest * 2,
        synced=False,
    )
