"""Holdover on its own desk: state carried over nights, restarts and cuts, on recorded days."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdover.harness import (
    Fill,
    IllegalTransitionError,
    PartialFill,
    Pending,
    Session,
    SessionConfig,
    first,
    nth,
    resolve_factory,
)
from holdover.harness.session import RESTARTS
from holdover.harness.snapshot import Snapshot, SnapshotError, compare_snapshots, take_snapshot
from holdover.model import Side
from holdover.recording import bundled_store

DAYS = ("2024-11-27", "2024-11-29")
pytestmark = pytest.mark.state(instrument="ACME")


def make_session(directory: Path, **options: Any) -> Session:
    """A session of the desk over the bundled days."""
    options.setdefault("days", DAYS)
    return Session(resolve_factory("desk"), bundled_store(), ["ACME"], directory, SessionConfig(**options))


def test_a_partial_fill_survives_the_night(session: Session) -> None:
    """A GTC order that is partly filled at a kill is what the venue says it is, that day and the next."""
    session.begin("2024-11-27")
    assert session.run(until=first(PartialFill, tif="GTC"))
    partial = next(order for order in session.orders() if order.is_carried and 0 < order.cum_qty < order.order_qty)
    session.restart(kill=True)
    session.run(until="close")
    session.end()
    session.overnight()
    assert session.carried[0]["partially_filled"] >= 1
    session.begin("2024-11-29")
    session.run()
    venue_order = session.venue.order_record(partial.cl_ord_id)
    assert venue_order is not None
    assert session.order(partial.root_cl_ord_id).cum_qty == venue_order.cum_qty
    assert session.breaches == []


@pytest.mark.parametrize("kind", RESTARTS)
def test_the_desk_survives_every_kind_of_restart(session: Session, kind: str) -> None:
    """Whatever the disk lost, books and venue agree again, and nothing is breached."""
    session.begin("2024-11-27")
    session.run(0.3)
    session.run(until=nth(3, Fill), kill=kind not in ("clean", "upgrade"))
    session.restart(kind)
    session.run(0.5)
    assert session.position("A1", "ACME") == session.venue.positions["A1/ACME"].net_qty
    assert session.breaches == []


@pytest.mark.parametrize("recovery", ["replay", "drop"])
def test_orders_in_flight_survive_a_cut(session: Session, recovery: str) -> None:
    """What happened at the venue while the link was cut is known afterwards, whatever the venue's policy."""
    session.begin("2024-11-27")
    session.run(0.2)
    assert session.run(until=first(Pending))
    session.disconnect(recovery=recovery)
    session.run(session.clock.now_ns + 120_000_000_000)
    live = [order for order in session.venue.orders.values() if order.is_open]
    session.venue.cancel_order(live[0].cl_ord_id)
    session.reconnect()
    session.run(0.4)
    assert session.order(live[0].root_cl_ord_id).ord_status.name == "CANCELED"
    assert session.breaches == []


def test_a_hand_at_the_venue_is_taken_in(session: Session) -> None:
    """A trade by hand, a bust and a correction end in both books alike; the foreign order is marked so."""
    session.begin("2024-11-27")
    session.run(0.2)
    hand = session.venue.manual_trade("A1", "ACME", Side.BUY, 7, 10_000)
    trades = [trade for trade in session.venue.trades if trade.last_qty > 3]
    assert session.venue.bust_trade(trades[0].exec_id)
    assert session.venue.correct_trade(trades[1].exec_id, trades[1].last_qty - 1, trades[1].last_px)
    closed_trade = next(
        trade for trade in trades if (order := session.venue.order_record(trade.cl_ord_id)) and not order.is_open
    )
    assert session.venue.correct_trade(closed_trade.exec_id, closed_trade.last_qty, closed_trade.last_px + 1)
    session.run(0.4)
    assert session.order(hand).foreign
    assert session.position("A1", "ACME") == session.venue.positions["A1/ACME"].net_qty
    assert session.breaches == []


@pytest.mark.parametrize("fault", ["drop", "delay", "hold", "duplicate", "reorder"])
@pytest.mark.parametrize("direction", ["in", "out"])
def test_one_message_gone_wrong_is_noticed(session: Session, fault: str, direction: str) -> None:
    """One message lost, late, twice or out of order in a healthy session leaves nothing wrong behind."""
    session.begin("2024-11-27")
    session.run(0.2)
    session.link.inject_fault(direction, 3, fault, 3_000_000_000)
    session.run(0.4)
    assert session.breaches == []


@pytest.mark.state(logic=True)
def test_transitions_that_make_no_sense_are_refused(session: Session) -> None:
    """The message says what was legal."""
    with pytest.raises(IllegalTransitionError, match="legal is: begin"):
        session.overnight()
    session.begin("2024-11-27")
    with pytest.raises(IllegalTransitionError, match="legal is: run, disconnect"):
        session.overnight()
    with pytest.raises(IllegalTransitionError, match="no restart is called 'gently'"):
        session.restart("gently")


@pytest.mark.state(instrument="ACME", faults=["forget-carried-partial"])
def test_a_kill_is_exactly_a_kill(session: Session) -> None:
    """What the killed life had not committed is not on the disk, and what still unwinds in it has no effect."""
    session.expected = {"order-quantity-conserved", "children-sum-to-parent"}
    session.begin("2024-11-27")
    assert session.run(until=first(PartialFill, tif="GTC"), kill=True)
    sent_count = session.link.sent_counts["out"]
    assert session.subject is None
    session.run_without_subject(10)
    assert session.link.sent_counts["out"] == sent_count
    session.restart("kill")
    session.run(0.5)
    assert session.host.leaked_requests == []


def test_restored_and_run_on_equals_never_stopped(tmp_path: Path) -> None:
    """The state of the night, loaded into a new world, gives the same second day, journal line for journal line."""
    first_session = make_session(tmp_path / "one")
    first_session.begin(DAYS[0])
    first_session.run(0.4)
    first_session.restart(kill=True)
    first_session.end()
    first_session.overnight()
    saved = take_snapshot(first_session).save(tmp_path / "snapshots")
    assert first_session.guard.journal is not None
    first_day = first_session.guard.journal.path.stat().st_size
    second_session = make_session(tmp_path / "other")
    second_session.restore(Snapshot.open(saved).parts)
    for session in (first_session, second_session):
        session.begin(DAYS[1])
        session.run()
        session.end()
        session.overnight()
    assert (
        compare_snapshots(_without_store(take_snapshot(first_session)), _without_store(take_snapshot(second_session)))
        == []
    )
    first_session.close()
    second_session.close()
    lines = (tmp_path / "one" / "journal.jsonl").read_bytes()[first_day:]
    _header, other_lines = (tmp_path / "other" / "journal.jsonl").read_bytes().split(b"\n", 1)
    assert lines == other_lines
    assert lines.count(b"\n") > 1000


def _without_store(snapshot: Snapshot) -> Snapshot:
    # SQLite's pages hold counters of writes, and a memory the order of its filling: their records are in the journal.
    parts = {name: part for name, part in snapshot.parts.items() if not name.startswith(("subject/", "guard/"))}
    return Snapshot(snapshot.info, parts)


RUN = """
import sys
from pathlib import Path
from holdover.harness import PartialFill, Session, SessionConfig, first, resolve_factory
from holdover.recording import bundled_store
days = ["2024-11-27", "2024-11-29"]
config = SessionConfig(days=days, seed=3)
session = Session(resolve_factory("desk"), bundled_store(), ["BOLT"], Path(sys.argv[1]), config)
session.begin()
session.run(first(PartialFill), kill=True)
session.restart("kill")
session.disconnect()
session.run(0.6)
session.reconnect()
session.end()
session.overnight()
session.begin()
session.run(0.3)
session.close()
"""


@pytest.mark.state(logic=True)  # its recorded day is replayed in processes of its own, out of sight of this one
def test_the_journal_is_the_same_in_any_process(tmp_path: Path) -> None:
    """Byte for byte, with another hash seed."""
    journals = []
    for seed in ("1", "77"):
        directory = tmp_path / seed
        subprocess.run(
            [sys.executable, "-c", RUN, str(directory)], check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        journals.append((directory / "journal.jsonl").read_bytes())
    assert journals[0] == journals[1]
    assert len(journals[0]) > 100_000


def test_a_snapshot_is_whole_or_refused(session: Session, snapshot: Callable[..., Snapshot], tmp_path: Path) -> None:
    """Content names it; damage, another version and a missing file are each refused with a reason."""
    session.begin("2024-11-27")
    session.run(0.2)
    session_snapshot = snapshot(session)
    path = session_snapshot.save(tmp_path)
    assert Snapshot.open(path).digest == session_snapshot.digest
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match="damaged"):
        Snapshot.open(path)
    data[4] = 9
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match="version 9"):
        Snapshot.open(path)
    with pytest.raises(ValueError, match="in the middle of"):
        session.restore(session_snapshot.parts)


SECRET = "s3cret-of-the-house"


def test_redaction_leaves_nothing_to_read(session: Session, snapshot: Callable[..., Snapshot]) -> None:
    """A named field is gone from databases, write-ahead logs, encoded records and JSON, however deep it was."""
    session.begin("2024-11-27")
    directory = session.disk.directory
    with sqlite3.connect(directory / "own.db") as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE login (name TEXT, api_key TEXT, more BLOB)")
        inside = msgspec.msgpack.encode({"deep": [{"api_key": SECRET}]})
        db.execute("INSERT INTO login VALUES ('desk', ?, ?)", (SECRET, inside))
        db.execute("INSERT INTO login VALUES ('other', ?, ?)", (SECRET, json.dumps({"api_key": SECRET})))
    (directory / "settings.json").write_text(json.dumps({"venue": {"api_key": SECRET, "name": "V"}}))
    session.run(0.1)
    plain, hidden = snapshot(session), snapshot(session, redact=("api_key",))
    assert any(SECRET.encode() in part for part in plain.parts.values())
    assert not any(SECRET.encode() in part for part in hidden.parts.values())
    assert b'"name":"V"' in hidden.parts["subject/settings.json"]
    assert hidden.digest != plain.digest
    assert compare_snapshots(plain, hidden)


def test_a_split_is_restated_over_the_night(tmp_path: Path) -> None:
    """Two for one: orders and positions double in both books, and nothing is breached."""
    session = make_session(tmp_path)
    session.begin(DAYS[0])
    session.run(until=first(PartialFill, tif="GTC"))
    session.run()
    session.end()
    net_qty = session.position("A2", "ACME")
    for order in session.venue.orders.values():
        if order.is_open and ((order.price or 0) % 2 or (order.stop_px or 0) % 2):
            session.venue.cancel_order(order.cl_ord_id)
    session.overnight({"ACME": (2, 1)})
    assert session.venue.positions["A2/ACME"].net_qty == 2 * net_qty
    session.close()
