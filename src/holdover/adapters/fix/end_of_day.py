"""The end of day of a served venue: the state that the next day starts from.

DAY orders expire at the close. GTC orders, positions, trades and the clients' accounts are carried, and so are the
sequence numbers of the sessions, unless the venue resets them. The end-of-day state is the start state of the next day.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from holdover.adapters.fix.venue_engine import InboundLog, VenueEngine, VenueStateError, replay_log
from holdover.fix.engine import BEGIN
from holdover.recording import RecordingStore
from holdover.state import DECODE_ERRORS

APPLICATION_MESSAGE: Final = re.compile(rb"\x0135=(?![0-5A]\x01)")
"""Matches an application message in the engine's store."""

_STORE_SUFFIXES: Final = (".body", ".header", ".seqnums")


class EndOfDayState(msgspec.Struct, frozen=True, kw_only=True):
    """The state at the end of the day `trade_date`: the venue's state, the owners of its accounts, the engine's files.

    `engine` has the files of the engine's store by name; empty when the sequence numbers restart with the day.
    """

    trade_date: str
    venue: bytes
    owners: dict[str, str]
    engine: dict[str, bytes] = {}

    def to_bytes(self) -> bytes:
        """Returns the state as bytes, for `read_end_of_day`."""
        return msgspec.msgpack.encode(self)


def read_end_of_day(content: bytes) -> EndOfDayState:
    """Decode an end-of-day state. Raises `VenueStateError` when the bytes are damaged."""
    try:
        return msgspec.msgpack.decode(content, type=EndOfDayState)
    except DECODE_ERRORS as problem:
        raise VenueStateError(f"what the venue should carry over the night is damaged: {problem}") from problem


def end_venue_day(core: VenueEngine, engine: dict[str, bytes]) -> EndOfDayState:
    """Run a venue's day to its close and its end of day. Returns the state."""
    core.advance(core.close_ns)
    core.venue.overnight()
    return EndOfDayState(
        trade_date=core.trade_date, venue=core.venue.to_bytes(), owners=dict(core.owners), engine=engine
    )


def end_of_day_after(state: Path, store: RecordingStore) -> EndOfDayState:
    """Returns the end-of-day state of the day in a state directory of `holdover venue serve`.

    Raises `VenueStateError` when the directory has no state, or has messages that no venue has applied.
    """
    if not (state / "venue.db").exists():
        raise VenueStateError(f"{state}: no state of a venue is in it; give the --state of the day before")
    ledger = InboundLog(state)
    try:
        marks = [mark.split("/") for mark in ledger.get_value("what").split() if mark.count("/") == 2]
        recordings = [store.get(symbol, day) for symbol, day, _ in marks]
        for recording, (symbol, day, digest) in zip(recordings, marks, strict=True):
            if not recording.digest.startswith(digest):
                raise VenueStateError(f"{state}: the state is of another recording of {symbol} on {day}")
        previous_state = read_end_of_day(ledger.carried_state) if ledger.carried_state else None
        core = VenueEngine(
            recordings, end_of_day=(previous_state.venue, previous_state.owners) if previous_state else None
        )
        remaining = replay_log(core, ledger)
    finally:
        ledger.close()
    if remaining:
        raise VenueStateError(
            f"{state}: {len(remaining)} messages were told there and not taken; serve that day to its close first"
        )
    return end_venue_day(core, read_engine_files(state / "session"))


def read_engine_files(session: Path) -> dict[str, bytes]:
    """Returns the files of an engine's store that are carried: its messages and its sequence numbers."""
    return {
        path.name: path.read_bytes() for path in sorted(session.glob(f"{BEGIN}-*")) if path.suffix in _STORE_SUFFIXES
    }


def make_sequence_files(name: str, client: str, *, out_seq: int, in_seq: int) -> dict[str, bytes]:
    """Returns the files of a session that continues with these sequence numbers and has no message to resend."""
    return {f"{BEGIN}-{name}-{client}.seqnums": f"{out_seq:010d} : {in_seq:010d}".encode()}


def write_engine_files(end_of_day: EndOfDayState, session: Path) -> dict[str, int]:
    """Write the store that an engine continues with, created now.

    Returns the count of stored messages per session file.

    The engine resets a store that was created on another day of the machine; in recorded time it is only one night
    later.
    """
    part = session.with_name(f".{session.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    now_text = f"{datetime.now(UTC):%Y%m%d-%H:%M:%S}"
    counts: dict[str, int] = {}
    for name, content in sorted(end_of_day.engine.items()):
        (part / name).write_bytes(content)
        (part / name).with_suffix(".session").write_text(now_text, encoding="ascii")
    part.replace(session)
    for path in sorted(session.glob(f"{BEGIN}-*.session")):
        body = path.with_suffix(".body")
        counts[path.stem] = len(APPLICATION_MESSAGE.findall(body.read_bytes())) if body.exists() else 0
    return counts
