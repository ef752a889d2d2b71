"""What `holdover desk run` runs by: one TOML file, checked whole, with the guard's tables in it.

[desk]
directory = "desk"                 # its store, its socket, its sessions; relative to the file
store_url_env = "DESK_STORE"       # its store on PostgreSQL: postgresql://...; or store_url_file. Without them SQLite
schema = "desk"                    # there
tap = "tap"                        # a folder into which what the feed says is recorded; without it nowhere
day = 2024-11-27                   # without it today
open = 14:30:00                    # the session's hours, UTC
close = 21:00:00
clock = "real"                     # or feed: the time that the feed tells, for a venue that plays a recorded day
accelerate = 1.0                   # seconds of that time in a second
position_max = 10000000            # limits, in lots: of a position, one order, all open orders
order_qty_max = 1000000
open_qty_max = 10000000
answer_s = 5.0                     # a request unanswered for longer is asked about
retry_s = 1.0                      # between two logons

[fix]
host = "127.0.0.1"
port = 9880
sender = "DESK"
target = "VENUE"
feed_sender = "DESK.FEED"          # without it SENDER.FEED
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

[guard]                            # and all else of a guard's configuration
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
from holdover.runtime import BadConfig, GuardConfig, read_config
from holdover.runtime.secrets import secret

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


class LiveConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A desk that trades over FIX: its own part, whom it calls, its hours, its clock, its guard."""

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


def read_live(path: Path) -> LiveConfig:
    """Read it. Raises `BadConfig` with everything that is wrong with it."""
    guard = read_config(path)
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    problems: list[str] = []
    store_url = ""
    desk = _table(told, "desk", _DeskTable, problems)
    fix = _table(told, "fix", _FixTable, problems)
    strategies = [_strategy(one, number, problems) for number, one in enumerate(told.get("strategy", []), 1)]
    if not guard.instruments:
        problems.append("[[instrument]] is missing: a desk trades at least one")
    known = {one.symbol for one in guard.instruments}
    problems += [
        f"[[strategy]] {one.name}: there is no [[instrument]] {one.symbol}"
        for one in strategies
        if one is not None and one.symbol not in known
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
            store_url = secret(desk.store_url_env, desk.store_url_file, path.resolve().parent)
        except ValueError as problem:
            problems.append(f"[desk] store: {problem}")
    if fix is not None and fix.password_env and fix.password_env not in os.environ:
        problems.append(f"[fix] password_env: the environment does not set {fix.password_env}")
    if problems or desk is None or fix is None:
        raise BadConfig("\n".join(f"{path.name}: {problem}" for problem in problems))
    day = desk.day or datetime.now(UTC).date()
    return LiveConfig(
        directory=path.resolve().parent / desk.directory,
        desk=DeskConfig(
            instruments=guard.instruments,
            strategies=[one for one in strategies if one is not None],
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
        open_ns=_at(day, desk.open),
        close_ns=_at(day, desk.close),
        clock=desk.clock,
        accelerate=desk.accelerate,
        store_url=store_url,
        schema=desk.schema,
        tap=path.resolve().parent / desk.tap if desk.tap else None,
    )


def _at(day: date, clock: clock_time) -> int:
    return int(datetime.combine(day, clock, UTC).timestamp()) * _SECOND


def _table(told: dict[str, Any], name: str, kind: type[Any], problems: list[str]) -> Any:
    if name not in told:
        problems.append(f"[{name}] is missing")
        return None
    try:
        return msgspec.convert(told[name], kind)
    except msgspec.ValidationError as problem:
        problems.append(f"[{name}] {problem}")
        return None


def _strategy(told: Any, number: int, problems: list[str]) -> Strategy | None:
    if not isinstance(told, dict):
        problems.append(f"[[strategy]] {number} is no table")
        return None
    given = dict(told)
    for seconds, name in (("interval_s", "interval_ns"), ("late_s", "late_ns")):
        if isinstance(given.get(seconds), (int, float)):
            given[name] = int(given.pop(seconds) * _SECOND)
    strange = [name for name in given if name not in Strategy.__struct_fields__]
    if strange:
        problems.append(f"[[strategy]] {number}: there is no {', '.join(strange)} in it")
        return None
    try:
        return msgspec.convert(given, Strategy)
    except msgspec.ValidationError as problem:
        problems.append(f"[[strategy]] {number}: {problem}")
        return None
