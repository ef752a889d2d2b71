"""The night between two days of a served venue: what of its state the next day begins with.

DAY orders have expired at the close; GTC orders, positions, trades and the clients' accounts go on, and so do the
numbers of the sessions, unless the venue begins them anew. A state of one day plus the night is the next day's begin.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from holdover.adapters.fix.core import BadState, Core, Ledger, restored
from holdover.adapters.fix.session import BEGIN
from holdover.recording import RecordingStore

APPLICATION: Final = re.compile(rb"\x0135=(?![0-5A]\x01)")
"""How an application message stands in an engine's store."""

_KEPT: Final = (".body", ".header", ".seqnums")


class Night(msgspec.Struct, frozen=True, kw_only=True):
    """What a venue carries out of the day `trade_date`: its own state, whose accounts are whose, its sessions' files.

    `engine` has the files of the engine's store by name; empty where the numbers begin anew with the day.
    """

    trade_date: str
    venue: bytes
    owners: dict[str, str]
    engine: dict[str, bytes] = {}

    def encoded(self) -> bytes:
        """As bytes, for `read_night`."""
        return msgspec.msgpack.encode(self)


def read_night(content: bytes) -> Night:
    """A night off its bytes. Raises `BadState` when they are none."""
    try:
        return msgspec.msgpack.decode(content, type=Night)
    except msgspec.MsgspecError as problem:
        raise BadState(f"what the venue should carry over the night is damaged: {problem}") from problem


def night_of(core: Core, engine: dict[str, bytes]) -> Night:
    """Let a day's venue go into the night: what is left of the day passes first, then its close."""
    core.advance(core.close_ns)
    core.venue.overnight()
    return Night(trade_date=core.trade_date, venue=core.venue.dump(), owners=dict(core.owners), engine=engine)


def night_after(state: Path, store: RecordingStore) -> Night:
    """The night after the day that a state directory of `holdover venue serve` is of.

    Raises `BadState` when there is no state in it, or messages are left that no venue has taken.
    """
    if not (state / "venue.db").exists():
        raise BadState(f"{state}: no state of a venue is in it; give the --state of the day before")
    ledger = Ledger(state)
    try:
        marks = [one.split("/") for one in ledger.get("what").split() if one.count("/") == 2]
        recordings = [store.get(symbol, day) for symbol, day, _ in marks]
        for recording, (symbol, day, digest) in zip(recordings, marks, strict=True):
            if not recording.digest.startswith(digest):
                raise BadState(f"{state}: the state is of another recording of {symbol} on {day}")
        before = read_night(ledger.carried) if ledger.carried else None
        core = Core(recordings, night=(before.venue, before.owners) if before else None)
        left = restored(core, ledger)
    finally:
        ledger.close()
    if left:
        raise BadState(
            f"{state}: {len(left)} messages were told there and not taken; serve that day to its close first"
        )
    return night_of(core, engine_files(state / "session"))


def engine_files(session: Path) -> dict[str, bytes]:
    """The files of an engine's store that go on: its messages and its numbers."""
    return {path.name: path.read_bytes() for path in sorted(session.glob(f"{BEGIN}-*")) if path.suffix in _KEPT}


def numbers(name: str, client: str, *, out: int, heard: int) -> dict[str, bytes]:
    """The files of a session that goes on with these numbers and has no message to send again."""
    return {f"{BEGIN}-{name}-{client}.seqnums": f"{out:010d} : {heard:010d}".encode()}


def lay_engine(night: Night, session: Path) -> dict[str, int]:
    """Write the store that an engine goes on with, begun now; returns how many messages of the past each client's has.

    The engine begins a store anew that was begun on another day of the machine: in the recorded time it is only one
    night later.
    """
    part = session.with_name(f".{session.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    now = f"{datetime.now(UTC):%Y%m%d-%H:%M:%S}"
    found: dict[str, int] = {}
    for name, content in sorted(night.engine.items()):
        (part / name).write_bytes(content)
        (part / name).with_suffix(".session").write_text(now, encoding="ascii")
    part.replace(session)
    for path in sorted(session.glob(f"{BEGIN}-*.session")):
        body = path.with_suffix(".body")
        found[path.stem] = len(APPLICATION.findall(body.read_bytes())) if body.exists() else 0
    return found
