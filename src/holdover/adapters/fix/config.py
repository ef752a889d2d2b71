"""The configuration of `holdover desk run`: one TOML file, checked as a whole, that includes the guard's tables.

[desk]
directory = "desk"                 # its store, socket and sessions; relative to the file
store_url_env = "DESK_STORE"       # a store on PostgreSQL: postgresql://...; or store_url_file. Default: SQLite
schema = "desk"                    # the schema on PostgreSQL
tap = "tap"                        # a directory that the feed is recorded into; default: no recording
day = 2024-11-27                   # default: today
open = 14:30:00                    # session hours, UTC
close = 21:00:00
clock = "real"                     # or feed: the feed's time, for a venue that plays a recorded day
accelerate = 1.0                   # feed seconds per second
position_max = 10000000            # limits, in lots: of a position, of one order, of all open orders
order_qty_max = 1000000
open_qty_max = 10000000
answer_s = 5.0                     # query the status of a request that is unanswered for longer
retry_s = 1.0                      # between two logons

[fix]
host = "127.0.0.1"
port = 9880
sender = "DESK"
target = "VENUE"
feed_sender = "DESK.FEED"          # default: SENDER.FEED
heartbeat_s = 30
username = "desk"
password_env = "VENUE_PASSWORD"

[[instrument]]                     # shared with the guard
symbol = "ACME"

[[strategy]]                       # see DeskConfig; times in seconds
name = "accumulate"
account = "A1"
symbol = "ACME"
side = "1"
order_qty = 10000
day_qty = 5000
slice_qty = 100
interval_s = 30.0

[guard]                            # and the other tables of a guard's configuration
directory = "guard"
"""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from datetime import time as clock_time
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from holdover.adapters.fix.link import FixAddress
from holdover.desk import DeskConfig, Strategy
from holdover.model import Instrument, PositionEffect, PositionSide, Side, TimeInForce
from holdover.model.spelling import suggest_spelling
from holdover.runtime import GuardConfig, GuardConfigError, read_config
from holdover.runtime.config_file import (
    ConfigFile,
    NonNegativeFloat,
    NonNegativeInt,
    PlainName,
    Port,
    PositiveFloat,
    PositiveInt,
    read_config_file,
)
from holdover.runtime.secrets import read_secret

_SECOND: Final = 1_000_000_000


class DeskTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [desk]: store, day and session hours, clock, limits."""

    directory: str
    open: clock_time
    close: clock_time
    store_url_env: str = ""
    store_url_file: str = ""
    schema: PlainName = "desk"
    tap: str = ""
    day: date | None = None
    clock: Literal["real", "feed"] = "real"
    accelerate: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 1.0
    position_max: NonNegativeInt = 10_000_000
    order_qty_max: NonNegativeInt = 1_000_000
    open_qty_max: NonNegativeInt = 10_000_000
    answer_s: PositiveFloat = 5.0
    retry_s: PositiveFloat = 1.0


class FixTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table [fix]: address, CompIDs and credentials of the counterparty."""

    host: str
    port: Port
    sender: str
    target: str
    feed_sender: str = ""
    heartbeat_s: PositiveInt = 30
    username: str = ""
    password_env: str = ""


class StrategyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table [[strategy]]: a `Strategy` with its times in seconds."""

    name: str
    account: str
    symbol: str
    side: Side
    order_qty: PositiveInt
    day_qty: PositiveInt
    slice_qty: PositiveInt
    algorithm: str = "twap"
    participation_bp: NonNegativeInt = 100
    time_in_force: TimeInForce = TimeInForce.DAY
    position_effect: PositionEffect = PositionEffect.OPEN
    interval_s: PositiveFloat = 30.0
    interval_ns: PositiveInt | None = None
    patience: NonNegativeInt = 4
    slices_working_max: NonNegativeInt = 3
    rests: bool = False
    late_s: NonNegativeFloat = 0.0
    late_ns: NonNegativeInt | None = None
    offset: int = 0
    take_profit: NonNegativeInt = 0
    stop_loss: NonNegativeInt = 0
    position_side: PositionSide | None = None

    def to_strategy(self) -> Strategy:
        """Return the strategy with its times in nanoseconds."""
        fields = msgspec.structs.asdict(self)
        for name in ("interval", "late"):
            seconds, nanoseconds = fields.pop(f"{name}_s"), fields.pop(f"{name}_ns")
            fields[f"{name}_ns"] = int(seconds * _SECOND) if nanoseconds is None else nanoseconds
        return Strategy(**fields)


class DeskTables(msgspec.Struct, frozen=True, kw_only=True):
    """The tables of the desk; those of its guard are read by `read_config`."""

    desk: DeskTable
    fix: FixTable
    strategy: list[StrategyTable] = []
    instrument: list[Instrument]


class LiveDeskConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a desk that trades over FIX: desk, counterparty, hours, clock and guard."""

    directory: Path
    desk: DeskConfig
    address: FixAddress
    guard: GuardConfig
    trade_date: str
    open_ns: int
    close_ns: int
    clock: str
    accelerate: float
    store_url: str = ""
    schema: str = "desk"
    tap: Path | None = None


def read_live_config(path: Path) -> LiveDeskConfig:
    """Read the configuration. Raises `GuardConfigError` with every problem."""
    problems: list[str] = []
    guard = tables = None
    try:
        guard = read_config(path)
    except GuardConfigError as problem:
        problems += str(problem).splitlines()
    try:
        tables = read_config_file(path, DeskTables, GuardConfigError, _check, other_tables=None)
    except GuardConfigError as problem:
        problems += str(problem).splitlines()
    if guard is None or tables is None:
        raise GuardConfigError("\n".join(dict.fromkeys(problems)))  # both readers see the instruments
    try:
        return _make_live_config(path, guard, tables)
    except (ValueError, OverflowError) as problem:
        if isinstance(problem, GuardConfigError):
            raise
        raise GuardConfigError(f"{path.name}: {problem}") from problem


def _make_live_config(path: Path, guard: GuardConfig, tables: DeskTables) -> LiveDeskConfig:
    desk, fix = tables.desk, tables.fix
    strategies = [table.to_strategy() for table in tables.strategy]
    store_url = _read_store_url(desk, path)
    day = desk.day or datetime.now(UTC).date()
    return LiveDeskConfig(
        directory=path.resolve().parent / desk.directory,
        desk=DeskConfig(
            instruments=guard.instruments,
            strategies=strategies,
            link=fix.target,
            venue=fix.target,
            position_max=desk.position_max,
            order_qty_max=desk.order_qty_max,
            open_qty_max=desk.open_qty_max,
            answer_ns=int(desk.answer_s * desk.accelerate * _SECOND),
            retry_ns=int(desk.retry_s * desk.accelerate * _SECOND),
        ),
        address=FixAddress(
            host=fix.host,
            port=fix.port,
            sender=fix.sender,
            target=fix.target,
            feed_sender=fix.feed_sender,
            heartbeat_s=fix.heartbeat_s,
            username=fix.username,
            password=os.environ[fix.password_env] if fix.password_env else "",
        ),
        guard=guard,
        trade_date=day.isoformat(),
        open_ns=_time_on(day, desk.open),
        close_ns=_time_on(day, desk.close),
        clock=desk.clock,
        accelerate=desk.accelerate,
        store_url=store_url,
        schema=desk.schema,
        tap=path.resolve().parent / desk.tap if desk.tap else None,
    )


def _time_on(day: date, clock: clock_time) -> int:
    return int(datetime.combine(day, clock, UTC).timestamp()) * _SECOND


def _read_store_url(desk: DeskTable, path: Path) -> str:
    return read_secret(desk.store_url_env, desk.store_url_file, path.resolve().parent)


def _check(file: ConfigFile) -> None:
    desk, fix = file.table("desk", DeskTable), file.table("fix", FixTable)
    symbols = [instrument.symbol for _, instrument in file.rows("instrument", Instrument)]
    for place, strategy in file.rows("strategy", StrategyTable):
        if strategy.symbol not in symbols:
            hint = suggest_spelling(strategy.symbol, symbols)
            file.add(
                f"{place}.symbol", f"[[strategy]] {strategy.name}: there is no [[instrument]] {strategy.symbol}{hint}"
            )
    if desk is not None:
        _check_desk(desk, file)
    if fix is not None and fix.password_env and fix.password_env not in os.environ:
        file.add("fix.password_env", f"[fix] password_env: the environment does not set {fix.password_env}")


def _check_desk(desk: DeskTable, file: ConfigFile) -> None:
    if desk.open >= desk.close:
        file.add("desk.open", "[desk] open should be before close, both UTC")
    if desk.clock == "real" and desk.accelerate != 1.0:
        file.add("desk.accelerate", '[desk] accelerate needs clock = "feed": the real clock goes at its own pace')
    try:
        _read_store_url(desk, file.path)
    except ValueError as problem:
        file.add("desk", f"[desk] store: {problem}")
