"""The desk live over FIX against our venue and somebody else's acceptor, over loopback: killed, cut, stalled."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdover.adapters.fix.live_desk import send_command
from holdover.cli import main
from holdover.fix.engine import find_dictionary
from holdover.recording import RecordingStore
from holdover.runtime import FreezeStore

from ..days import write_short_days
from ..servers import free_port
from ..waits import make_wait
from .live_setup import (
    DAY,
    KILLS,
    SYMBOL,
    AlertWebhook,
    RawClient,
    ReplayedVenue,
    TcpProxy,
    desk_command,
    find_differences,
    read_drill,
    read_status,
    read_store,
    venue_command,
    write_config,
)
from .test_fix_drop_copy import Process

pytest.importorskip("quickfix")

Wait = Callable[..., None]
Start = Callable[..., Any]


@pytest.fixture
def wait_until() -> Wait:
    """Wait for a condition of another process; looked at seldom enough not to be in its way."""
    return make_wait(timeout_s=30.0, poll_s=0.03)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes and kills them at the end."""
    processes: list[Process] = []

    def start_process(command: list[str], **environment: str) -> Process:
        processes.append(Process(*command, **environment))
        return processes[-1]

    yield start_process
    for process in processes:
        process.kill()


def serve_venue(start: Start, wait_until: Wait, *command: Any, **environment: str) -> Process:
    """A venue that serves."""
    venue = start(venue_command(*command), **environment)
    wait_until(lambda: any("serves" in line for line in venue.errors) or venue.process.poll() is not None, 60)
    assert venue.process.poll() is None, venue.errors
    return venue


def read_mark(state: Path) -> tuple[int, int]:
    """How far the venue's day has come: time and events."""
    with contextlib.closing(sqlite3.connect(f"file:{state / 'venue.db'}?mode=ro", uri=True)) as reader:
        row = reader.execute("SELECT value FROM meta WHERE name='mark'").fetchone()
    time_ns, _, events = (row[0] if row else "0 0").partition(" ")
    return int(time_ns), int(events)


def wait_for_agreement(
    recordings: RecordingStore, state: Path, directory: Path, wait_until: Wait, within_s: float = 20.0
) -> ReplayedVenue:
    """Wait until the desk's books are the venue's."""
    last: list[Any] = [None, ["never compared"]]

    def compare() -> bool:
        last[0] = ReplayedVenue(recordings, state)
        last[1] = find_differences(directory, last[0])
        return not last[1]

    try:
        wait_until(compare, within_s)
    except AssertionError:
        pytest.fail("\n".join(last[1]))
    return last[0]


def test_it_trades_a_day_and_agrees_with_the_venue(
    start: Start, wait_until: Wait, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fills, partial ones among them; an operator's order and its cancel; at the close both sides hold the same."""
    recordings = write_short_days(tmp_path / "days", SYMBOL, 6)
    port, state = free_port(), tmp_path / "state"
    path = write_config(tmp_path, port, 90)
    serve_venue(start, wait_until, tmp_path / "days", port, state, 90)
    desk = start(desk_command(path))
    wait_until(lambda: read_status(tmp_path).get("positions"), 60)
    answer = send_command(tmp_path / "desk", {"act": "submit", "strategy": "manual", "quantity": "70", "offset": 90})
    order = answer["order"]
    wait_until(
        lambda: any(
            open_order["cl_ord_id"] == order and open_order.get("order_id")
            for open_order in read_status(tmp_path)["open_orders"]
        )
    )
    assert send_command(tmp_path / "desk", {"act": "cancel", "order": order}) == {
        "order": order,
        "status": "PENDING_CANCEL",
    }
    assert "nothing that can be asked" in send_command(tmp_path / "desk", {"act": "dance"})["problem"]
    assert "no strategy is called" in send_command(tmp_path / "desk", {"act": "submit", "strategy": "x"})["problem"]
    assert main(["desk", "status", "--config", str(path)]) == 0
    answer = capsys.readouterr().out
    assert "link UP" in answer
    assert "parent    P-manual" in answer
    assert main(["desk", "cancel", "--config", str(path), "NOBODY"]) == 1
    close_ns = recordings.get(SYMBOL, DAY).meta.close_ns
    wait_until(lambda: read_mark(state)[0] > close_ns, 60)
    truth = wait_for_agreement(recordings, state, tmp_path, wait_until)
    assert truth.orders[order].ord_status.name == "CANCELED"
    assert len(truth.trades) > 10
    assert any(trade.ord_status.name == "PARTIALLY_FILLED" for trade in truth.trades.values())
    assert read_status(tmp_path)["frozen"] == []
    desk.process.send_signal(signal.SIGTERM)
    assert desk.process.wait(10) == 0
    assert not any("Traceback" in line for line in desk.errors)


@pytest.mark.parametrize("store_kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_killed_cut_and_stalled(
    start: Start, wait_until: Wait, tmp_path: Path, store_kind: str, request: pytest.FixtureRequest, schema: str
) -> None:
    """Stopped once, then SIGKILL at random moments, the wire cut and stalled between: each life comes to the books.

    That a life's books were the venue's when it had reconciled is what its guard judges, live; at the end both are
    compared from outside, order by order. On a busy machine a freeze may say that something took too long, and no more.
    """
    rng = random.Random(20241127)
    recordings = write_short_days(tmp_path / "days", SYMBOL, 60 + 10 * KILLS)
    port, state = free_port(), tmp_path / "state"
    wire = TcpProxy(port)
    url = request.getfixturevalue("postgres").url if store_kind == "postgresql" else ""
    pace = 40 if KILLS < 20 else 8  # many lives want a long day, and strategies that are not done before it is
    path = write_config(tmp_path, wire.port, pace, url=url, schema=schema)
    if KILLS >= 20:
        path.write_text(
            path.read_text().replace("qty = 200000", "qty = 5000000").replace("qty = 40000", "qty = 5000000")
        )
    venue = serve_venue(start, wait_until, tmp_path / "days", port, state, pace)
    waits, traded = threading.Event(), -1
    for incarnation in range(KILLS + 1):
        desk = start(desk_command(path))
        wait_until(lambda: read_status(tmp_path).get("reconciled"), 60)
        wait_until(lambda: len(read_store(tmp_path)["executions"]) > traded, 60)  # noqa: B023
        traded = len(read_store(tmp_path)["executions"])
        if incarnation == 0:
            desk.process.send_signal(signal.SIGTERM)
            assert desk.process.wait(15) in (0, 1)
            continue
        if incarnation % 3 == 1:
            wire.drop_connections()
        elif incarnation % 3 == 2:
            wire.is_stalled = True
            waits.wait(rng.uniform(0.1, 1.0))  # what a stall is: time in which nothing comes
            wire.is_stalled = False
        else:
            venue.kill()
            venue = serve_venue(start, wait_until, tmp_path / "days", port, state, pace)
        waits.wait(rng.uniform(0.0, 0.4))  # the moment of the kill is nobody's to choose
        desk.kill()
    venue.process.send_signal(signal.SIGTERM)
    venue.process.wait(10)
    # The venue comes up once more with its market standing nearly still, so that both sides can be compared.
    serve_venue(start, wait_until, recordings.directory, port, state, 0.001)
    desk = start(desk_command(path))
    wait_until(lambda: read_status(tmp_path).get("reconciled"), 60)
    wait_for_agreement(recordings, state, tmp_path, wait_until)
    frozen = {freeze.invariant for freeze in FreezeStore(tmp_path / "guard" / "guard.db").active_freezes()}
    assert frozen <= {"acknowledged-within", "reconciled-within"}, read_status(tmp_path)["breaches"]
    assert not any("Traceback" in line for line in desk.errors)
    wire.close()


def test_a_state_has_one_venue(start: Start, wait_until: Wait, tmp_path: Path) -> None:
    """A second one on the same folder is refused while the first lives, and comes up when that was killed."""
    write_short_days(tmp_path / "days", SYMBOL, 6)
    state = tmp_path / "state"
    first = serve_venue(start, wait_until, tmp_path / "days", free_port(), state, 60)
    second = start(venue_command(tmp_path / "days", free_port(), state, 60))
    wait_until(lambda: second.process.poll() is not None)
    assert second.process.returncode == 2
    assert f"{state}: another venue runs there" in second.errors[-1]
    first.kill()
    serve_venue(start, wait_until, tmp_path / "days", free_port(), state, 60)


@pytest.mark.slow
def test_without_its_store_the_desk_goes_down(
    start: Start, wait_until: Wait, tmp_path: Path, postgres: Any, schema: str
) -> None:
    """A second desk is refused; a server that crashes ends the desk in a sentence; then it comes to the books again."""
    recordings = write_short_days(tmp_path / "days", SYMBOL, 60)
    port, state = free_port(), tmp_path / "state"
    path = write_config(tmp_path, port, 40, url=postgres.url, schema=schema)
    venue = serve_venue(start, wait_until, tmp_path / "days", port, state, 40)
    desk = start(desk_command(path))
    wait_until(lambda: read_status(tmp_path), 60)  # its store is open, and the second waits for it while it trades
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    second = start(desk_command(write_config(elsewhere, port, 40, url=postgres.url, schema=schema)))
    wait_until(lambda: len(read_store(tmp_path)["executions"]) > 3, 60)
    wait_until(lambda: second.process.poll() is not None)
    assert second.process.returncode == 3
    assert f"another desk has the schema {schema}" in second.errors[-1]
    postgres.stop()
    try:
        wait_until(lambda: desk.process.poll() is not None)
    finally:
        postgres.start()
    assert desk.process.returncode == 3
    assert "the desk's store cannot be used" in "".join(desk.errors)
    assert "Traceback" not in "".join(desk.errors)
    venue.process.send_signal(signal.SIGTERM)
    venue.process.wait(10)
    serve_venue(start, wait_until, recordings.directory, port, state, 0.001)
    start(desk_command(path))
    wait_until(lambda: read_status(tmp_path).get("reconciled"), 60)
    wait_for_agreement(recordings, state, tmp_path, wait_until)


def test_a_fault_in_the_middle_of_trading(start: Start, wait_until: Wait, tmp_path: Path) -> None:
    """It is switched on, the wire is cut, the desk books a fill twice: frozen, nothing leaks, the page arrives."""
    recordings = write_short_days(tmp_path / "days", SYMBOL, 60)
    port, state, pages = free_port(), tmp_path / "state", AlertWebhook(failures=2)
    wire = TcpProxy(port)
    path = write_config(tmp_path, wire.port, 40, pages.channel_toml)
    venue = serve_venue(start, wait_until, tmp_path / "days", port, state, 40)
    desk = start(desk_command(path, "--fault", "resent-fill-booked-again", "--fault-after", "1"))
    wait_until(lambda: bool(read_drill(tmp_path)), 60)
    before = len(read_store(tmp_path)["executions"])
    wait_until(lambda: len(read_store(tmp_path)["executions"]) > before + 2)
    wire.drop_connections()
    wait_until(lambda: len(read_drill(tmp_path)) > 1, 60)
    breach = read_drill(tmp_path)[1]
    assert breach["invariant"] == "execution-booked-once"
    assert breach["scope"].startswith("account:A")
    assert 0 < breach["frozen_ns"] - breach["mutation_ns"] < 2_000_000_000
    store = FreezeStore(tmp_path / "guard" / "guard.db")
    assert breach["scope"] in {freeze.scope for freeze in store.active_freezes()}
    wait_until(lambda: any(alert["invariant"] == "execution-booked-once" for alert in list(pages.alerts)), 40)
    assert sorted(pages.tries.values())[-1] == 3, "refused twice, then taken, and not sent again"
    desk.kill()
    venue.process.send_signal(signal.SIGTERM)
    venue.process.wait(10)
    account = breach["scope"].partition("/")[0].removeprefix("account:")
    truth = ReplayedVenue(recordings, state)
    assert truth.orders_sent_after(0, account), "the venue has seen orders of the account before"
    assert truth.orders_sent_after(breach["frozen_ns"], account) == []
    wire.close()
    pages.shutdown()


def send_order(raw: RawClient, cl_ord_id: str, *, quantity: int = 100, price: str = "90.00", **options: Any) -> bytes:
    """A new order far from the market."""
    return raw.send(
        "D",
        (11, cl_ord_id),
        (1, "R1"),
        (55, SYMBOL),
        (54, "1"),
        (38, quantity),
        (40, "2"),
        (44, price),
        (59, "0"),
        (60, "20241127-14:30:00"),
        (21, "1"),
        **options,
    )


def test_the_venue_takes_what_a_client_can_do_to_it(start: Start, wait_until: Wait, tmp_path: Path) -> None:
    """Passwords, names, garbage, gaps, resends, a cut inside a message, its own kill: it neither ends nor forgets."""
    write_short_days(tmp_path / "days", SYMBOL, 60)
    port, drop, state = free_port(), free_port(), tmp_path / "state"
    options = ["--user", "DESK:trader:DESK_PASSWORD", "--client", "DESK", "--drop-copy-port", str(drop)]
    command = (tmp_path / "days", port, state, 60, *options)
    venue = serve_venue(start, wait_until, *command, DESK_PASSWORD="secret")
    password = ((553, "trader"), (554, "secret"))

    wrong = RawClient(port)
    message = wrong.logon((553, "trader"), (554, "guess"))
    assert message.kind == "5"
    assert "wrong user or password" in message.get(58)
    wrong.close()
    stranger = RawClient(port, sender="STRANGER")
    stranger.send("A", (98, 0), (108, 30))
    assert stranger.is_closed_by_peer()

    raw = RawClient(port)
    raw.seq = 2  # the refused Logon has taken a number
    message = raw.logon(*password)
    if message.kind == "5":  # or it has not, as engines differ
        pytest.fail(message.get(58))
    wait_until(lambda: read_mark(state)[1] > 5)
    send_order(raw, "C1")
    assert raw.receive_until("8", t11="C1").get(150) == "0"

    for bad in (
        b"garbage\x01\x00\xff",
        raw.frame("1", (112, "x"), seq=99)[:-4] + b"000\x01",
        b"8=FIX.4.4\x019=abc\x01",
    ):
        raw.socket.sendall(bad)
        wait_for_answer(raw)
    raw.send("D", (11, "C2"), (1, "R1"), (55, SYMBOL), (38, 5), (40, "2"), (60, "20241127-14:30:00"))
    message = raw.receive()
    assert message.kind == "3", message.pairs  # required tag missing: Side
    assert message.get(371) == "54"
    send_order(raw, "C3", price="90.001")
    assert "no whole number" in raw.receive_until("8", t11="C3").get(58)
    raw.send("B", (148, "news"), (33, 1), (58, "hello"))
    assert raw.receive_until("j").get(380) == "3"
    raw.send("1", (112, "still there"))
    assert raw.receive_until("0").get(112) == "still there"

    expected = raw.seq
    send_order(raw, "C4", seq=expected + 2)  # two are missing before it
    assert raw.receive_until("2").get(7) == str(expected)
    dup_fields = "43=Y\x01122=20241127-14:30:00\x01"
    raw.send("4", (123, "Y"), (36, expected + 2), seq=expected, head=dup_fields)
    raw.seq = expected + 3
    assert raw.receive_until("8", t11="C4").get(39) == "0"
    send_order(raw, "C4", seq=expected + 2, head=dup_fields)  # told again
    raw.send("1", (112, "after"))
    while (message := raw.receive()).kind != "0":
        assert message.kind != "8", "a message told again is not taken again"

    raw.send("2", (7, 1), (16, 0))
    assert raw.receive_until("8", t11="C1").get(43) == "Y"
    raw.send("1", (112, "resent"))
    raw.receive_until("0", t112="resent")
    whole = raw.frame(
        "D", (11, "C5"), (1, "R1"), (55, SYMBOL), (54, "1"), (38, 5), (40, "1"), (60, "20241127-14:30:00")
    )
    raw.seq -= 1
    raw.socket.sendall(whole[: len(whole) // 2])
    raw.close()

    seq = raw.seq
    raw = log_on_again(port, seq, password, wait_until)
    send_order(raw, "C6")
    last = raw.receive_until("8", t11="C6")
    venue.kill()
    raw.close()
    assert not any("Traceback" in line for line in venue.errors)
    serve_venue(start, wait_until, *command, DESK_PASSWORD="secret")
    raw = log_on_again(port, raw.seq, password, wait_until)
    raw.send("AF", (584, "all"), (585, "7"), (1, "R1"))
    named = {}
    while len(named) < 3:
        message = raw.receive_until("8", t584="all")
        named[message.get(11)] = message.get(37)
    assert set(named) == {"C1", "C4", "C6"}
    assert named["C6"] == last.get(37)
    raw.close()
    copy = RawClient(drop, sender="DROP")
    copy.logon()
    copy.send("2", (7, 1), (16, 0))
    exec_ids = [copy.receive_until("8").get(17) for _ in range(4)]
    assert len(set(exec_ids)) == 4, "each report once, over the kill"
    copy.close()


def wait_for_answer(raw: RawClient) -> None:
    """The venue answers; what the garbage has swallowed with it is asked for again, and passed over."""
    raw.socket.settimeout(1)
    for number in range(8):
        raw.send("1", (112, f"alive {number}"))
        try:
            while (message := raw.receive()).kind != "0":
                if message.kind == "2":
                    fills = "43=Y\x01122=20241127-14:30:00\x01"
                    raw.send("4", (123, "Y"), (36, raw.seq), seq=int(message.get(7)), head=fills)
        except TimeoutError:
            continue
        raw.socket.settimeout(10)
        return
    pytest.fail("the venue answers no more")


def log_on_again(port: int, seq: int, password: Any, wait_until: Wait) -> RawClient:
    """Logged on again; the venue may not have noticed yet that the one before is gone."""
    clients: list[RawClient] = []

    def try_logon() -> bool:
        raw = RawClient(port)
        raw.seq = seq
        try:
            answer = raw.logon(*password)
        except (ConnectionError, TimeoutError):
            raw.close()
            return False
        assert answer.kind == "A", answer.get(58)
        clients.append(raw)
        return True

    wait_until(try_logon)
    return clients[0]


def test_against_an_acceptor_of_somebody_else(start: Start, wait_until: Wait, tmp_path: Path) -> None:
    """It fills all orders and answers no question: the desk trades, is killed, and books agree with what was filled."""
    port = free_port()
    strict = ["-m", "tests.real.fix_executor", str(port), str(tmp_path / "executor"), str(find_dictionary())]
    executor = start(strict)
    wait_until(lambda: "ready\n" in executor.out, 60)
    path = tmp_path / "desk.toml"
    path.write_text(FOREIGN.format(port=port))
    desk = start(desk_command(path))
    wait_until(lambda: len(executor.out) > 8, 60)
    desk.kill()
    desk = start(desk_command(path))
    before = len(executor.out)
    wait_until(lambda: len(executor.out) > before + 5, 60)
    os.kill(desk.process.pid, signal.SIGTERM)
    assert desk.process.wait(15) == 0, (desk.errors, list((tmp_path / "guard").glob("pages*")))
    filled = [line.split() for line in executor.out if line.startswith("filled")]
    desk_records = read_store(tmp_path)
    assert sum(fill.cum_qty for fill in desk_records["orders"].values()) == sum(int(one[2]) for one in filled)
    assert desk_records["positions"] == {"A1/ACME": sum(int(fill[2]) for fill in filled)}
    assert not (tmp_path / "guard" / "pages.jsonl").exists(), (tmp_path / "guard" / "pages.jsonl").read_text()


FOREIGN = """
[desk]
directory = "desk"
open = 00:00:00
close = 23:59:59
retry_s = 0.1

[fix]
host = "127.0.0.1"
port = {port}
sender = "DESK"
target = "EXEC"

[guard]
directory = "guard"

[pages]
log = false

[[instrument]]
symbol = "ACME"

[[strategy]]
name = "standing"
account = "A1"
symbol = "ACME"
side = "1"
order_qty = 100000
day_qty = 100000
slice_qty = 10
algorithm = "standing"
interval_s = 0.2
"""


def test_the_configuration_of_the_docs_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of docs/live.md is one that a desk runs by."""
    from holdover.adapters.fix.config import read_live_config

    monkeypatch.setenv("VENUE_PASSWORD", "x")
    page = (Path(__file__).resolve().parents[2] / "docs" / "live.md").read_text()
    (tmp_path / "desk.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    assert read_live_config(tmp_path / "desk.toml").desk.strategies[0].name == "accumulate"


def test_bad_input_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration with several things wrong, no daemon, no recording, a strange port."""
    path = tmp_path / "desk.toml"
    path.write_text('[guard]\ndirectory = "g"\n[desk]\ndirectory = "d"\nopen = 10:00:00\nclose = 09:00:00\n')
    assert main(["desk", "status", "--config", str(path)]) == 2
    stderr = capsys.readouterr().err
    assert "[fix] is missing" in stderr
    assert "[[instrument]] is missing" in stderr
    assert "open should be before close" in stderr
    path = write_config(tmp_path, 1, 1)
    assert main(["desk", "status", "--config", str(path)]) == 3
    assert main(["venue", "serve", "--instrument", "NOPE", "--day", DAY]) == 2
    assert "no recording of NOPE" in capsys.readouterr().err
    assert json.dumps(read_status(tmp_path)) == "{}"
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        assert main(["venue", "serve", "--instrument", SYMBOL, "--day", DAY, "--port", str(port)]) == 2
    assert f"port {port} at 127.0.0.1 cannot be had" in capsys.readouterr().err
