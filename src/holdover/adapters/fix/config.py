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
import tomllib
from datetime import UTC, date, datetime
from datetime import time as clock_time
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from holdover.adapters.fix.link import FixAddress
from holdover.desk import DeskConfig, Strategy
from holdover.runtime import GuardConfig, GuardConfigError, read_config
from holdover.runtime.secrets import read_secret

_SECOND: Final = 1_000_000_000


class _DeskTable(msgspec.Struct, forbid_unknown_fields=True):
    directory: str
    open: clock_time
    close: clock_time
    store_url_env: str = ""
    store_url_file: str = ""
    schema: str = "desk"
    tap: str = ""
    day: date | None = None
    clock: Literal["real", "feed"] = "real"
    accelerate: float = 1.0
    position_max: int = 10_000_000
    order_qty_max: int = 1_000_000
    open_qty_max: int = 10_000_000
    answer_s: float = 5.0
    retry_s: float = 1.0


class _FixTable(msgspec.Struct, forbid_unknown_fields=True):
    host: str
    port: int
    sender: str
    target: str
    feed_sender: str = ""
    heartbeat_s: int = 30
    username: str = ""
    password_env: str = ""


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
    guard = read_config(path)
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    problems: list[str] = []
    store_url = ""
    desk = _read_table(document, "desk", _DeskTable, problems)
    fix = _read_table(document, "fix", _FixTable, problems)
    strategies = [
        _read_strategy(table, number, problems) for number, table in enumerate(document.get("strategy", []), 1)
    ]
    if not guard.instruments:
        problems.append("[[instrument]] is missing: a desk trades at least one")
    symbols = {instrument.symbol for instrument in guard.instruments}
    problems += [
        f"[[strategy]] {strategy.name}: there is no [[instrument]] {strategy.symbol}"
        for strategy in strategies
        if strategy is not None and strategy.symbol not in symbols
    ]
    if desk is not None:
        if desk.open >= desk.close:
            problems.append("[desk] open should be before close, both UTC")
        if not 0 < desk.accelerate <= 100_000 or desk.answer_s <= 0 or desk.retry_s <= 0:
            problems.append("[desk] accelerate, answer_s and retry_s should be above 0")
        if desk.clock == "real" and desk.accelerate != 1.0:
            problems.append('[desk] accelerate needs clock = "feed": the real clock goes at its own pace')
        if not desk.schema.isidentifier():
            problems.append("[desk] schema should be a plain name of letters, digits and underscores")
        try:
            store_url = read_secret(desk.store_url_env, desk.store_url_file, path.resolve().parent)
        except ValueError as problem:
            problems.append(f"[desk] store: {problem}")
    if fix is not None and fix.password_env and fix.password_env not in os.environ:
        problems.append(f"[fix] password_env: the environment does not set {fix.password_env}")
    if problems or desk is None or fix is None:
        raise GuardConfigError("\n".join(f"{path.name}: {problem}" for problem in problems))
    day = desk.day or datetime.now(UTC).date()
    return LiveDeskConfig(
        directory=path.resolve().parent / desk.directory,
        desk=DeskConfig(
            instruments=guard.instruments,
            strategies=[strategy for strategy in strategies if strategy is not None],
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


def _read_table(document: dict[str, Any], name: str, kind: type[Any], problems: list[str]) -> Any:
    if name not in document:
        problems.append(f"[{name}] is missing")
        return None
    try:
        return msgspec.convert(document[name], kind)
    except msgspec.ValidationError as problem:
        problems.append(f"[{name}] {problem}")
        return None


def _read_strategy(table: Any, number: int, problems: list[str]) -> Strategy | None:
    if not isinstance(table, dict):
        problems.append(f"[[strategy]] {number} is no table")
        return None
    fields = dict(table)
    for seconds, name in (("interval_s", "interval_ns"), ("late_s", "late_ns")):
        if isinstance(fields.get(seconds), (int, float)):
            fields[name] = int(fields.pop(seconds) * _SECOND)
    unknown_names = [name for name in fields if name not in Strategy.__struct_fields__]
    if unknown_names:
        problems.append(f"[[strategy]] {number}: there is no {', '.join(unknown_names)} in it")
        return None
    try:
        return msgspec.convert(fields, Strategy)
    except msgspec.ValidationError as problem:
        problems.append(f"[[strategy]] {number}: {problem}")
        return None
