"""A process under test: its file, its wire proxy, the time of its messages, and the end of day."""

from __future__ import annotations

import json
import shlex
import socket
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdover.adapters.fix.end_of_day import (
    EndOfDayState,
    end_of_day_after,
    end_venue_day,
    read_end_of_day,
    read_engine_files,
    write_engine_files,
)
from holdover.adapters.fix.venue_engine import ClientMessage, InboundLog, VenueEngine, VenueStateError
from holdover.adapters.process.carry import ArmBreach, CarryArm, CarryRunner, to_json
from holdover.adapters.process.child import ChildProcess, ProcessStartError
from holdover.adapters.process.config import fill_template, read_process_config
from holdover.adapters.process.day import DayResult
from holdover.adapters.process.judge import (
    Era,
    Transcript,
    WireMessage,
    audit_messages,
    find_divergence,
    restamp_message,
)
from holdover.adapters.process.seed import read_night_export
from holdover.adapters.process.state_store import StateStoreError, StateStores
from holdover.adapters.process.wire import INBOUND, OUTBOUND, WireProxy
from holdover.audit import Audit
from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.model import OrdStatus
from holdover.recording import bundled_store
from holdover.report import carry_text
from holdover.runtime import GuardConfigError

from ..days import write_short_days
from ..waits import make_wait

GOOD = """
[process]
command = ["run"]
[venue]
symbols = ["ACME"]
clients = ["DESK"]
[[state]]
name = "desk"
kind = "directory"
path = "desk"
"""

BAD = """
[process]
command = []
directory = "/elsewhere"
ready_s = 0
[process.strange]
[venue]
symbols = ["ACME"]
clients = ["DESK"]
accelerate = 0
[venue.users]
NOBODY = "u:V"
DESK = "u:NOT_SET_HERE"
[other]
[[file]]
path = "../x"
from = "nowhere"
[[state]]
name = "a b"
kind = "directory"
[[state]]
name = "one"
kind = "sqlite"
path = "../up.db"
[[state]]
name = "one"
kind = "redis"
url = "redis://user:pass@host"
[[state]]
name = "two"
kind = "postgresql"
[[state]]
name = "three"
kind = "postgresql"
url_env = "NOT_SET_HERE"
[[state]]
name = "four"
kind = "paper"
[redact]
patterns = ["("]
"""


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for what a thread brings about."""
    return make_wait()


def write_process_file(directory: Path, text: str) -> Path:
    """A process file."""
    path = directory / "process.toml"
    path.write_text(text)
    return path


def test_all_problems_of_a_file_are_said_at_once(tmp_path: Path) -> None:
    """Each with its place and what would be right."""
    with pytest.raises(GuardConfigError) as error:
        read_process_config(write_process_file(tmp_path, BAD))
    error_lines = str(error.value).splitlines()
    for problem in (
        "[other] is not known here",
        "[process] has no key strange",
        "[venue] accelerate should be a number above 0 and at most 100000, not 0",
        "[venue.users] NOBODY is none of the clients: DESK",
        "[venue.users] DESK: 'u:NOT_SET_HERE' should be USER:VARIABLE",
        "[[file]] ../x: from: ",
        "[[file]] ../x: path should be below the run's folder",
        "[[state]] a b: the name should be of letters",
        "[[state]] a b: a directory needs its path",
        "[[state]] one: there are two of that name",
        "[[state]] one: path should be absolute, or below where the process runs",
        "[[state]] one: url carries a secret; it belongs into url_env or url_file",
        "[[state]] two: needs one of url, url_env, url_file",
        "[[state]] three: the environment does not set NOT_SET_HERE",
        "[[state]] 6 kind should be 'directory' or 'sqlite' or 'postgresql' or 'redis', not \"paper\"",
        "[redact] redaction pattern '('",
    ):
        assert any(line.startswith("process.toml: ") and problem in line for line in error_lines), (
            problem,
            error_lines,
        )
    with pytest.raises(GuardConfigError, match="cannot be read"):
        read_process_config(tmp_path / "none.toml")
    with pytest.raises(GuardConfigError, match="not a TOML file"):
        read_process_config(write_process_file(tmp_path, "["))
    config_path = write_process_file(
        tmp_path, GOOD.replace("[venue]", 'ready_s = 0\ndirectory = "/x"\n[venue]').replace('["run"]', "[]")
    )
    with pytest.raises(GuardConfigError) as error:
        read_process_config(config_path)
    assert "command should be a list with at least one entry, not an empty list" in str(error.value)
    assert "ready_s should be a number above 0, not 0" in str(error.value)
    assert "directory should be below the run's folder" in str(error.value)


def test_names_are_filled_in_and_others_left() -> None:
    """What is known stands in its place, what a shell or a template of its own means does not."""
    assert fill_template("a ${port} ${HOME} $port ${day}", {"port": "1", "day": "d"}) == "a 1 ${HOME} $port d"


def test_a_place_that_is_not_ours_is_not_emptied(tmp_path: Path) -> None:
    """An absolute path without `disposable` may be taken, and neither be put back nor emptied."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "f").write_text("x")
    config = read_process_config(
        write_process_file(tmp_path, GOOD.replace('path = "desk"', f'path = "{tmp_path}/book"'))
    )
    places = StateStores(config, tmp_path / "run", {}, owns_folder=True)
    parts = places.capture()
    assert parts == {"subject/desk/f": b"x"}
    for operation in (places.clear, lambda: places.restore(parts)):
        with pytest.raises(StateStoreError, match="say disposable = true"):
            operation()
    assert (tmp_path / "book" / "f").exists()
    free = read_process_config(
        write_process_file(tmp_path, GOOD.replace('path = "desk"', f'path = "{tmp_path}/book"\ndisposable = true'))
    )
    StateStores(free, tmp_path / "run", {}, owns_folder=True).clear()
    assert not (tmp_path / "book").exists()
    with pytest.raises(StateStoreError, match=r"has a state strange, for which the file has no \[\[state\]\]"):
        StateStores(free, tmp_path / "run", {}, owns_folder=True).restore({"subject/strange/f": b""})


def test_take_and_restore_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same places, with secrets taken out; put back where the file says that they may be."""
    home = tmp_path / "desk"
    home.mkdir()
    (home / "a").write_text("api_key=abcdefgh")
    path = write_process_file(tmp_path, GOOD)
    store = ["--store", str(tmp_path / "store")]
    assert main(["snapshot", "take", "--process", str(path), *store]) == 2
    assert "needs --day" in capsys.readouterr().err
    assert main(["snapshot", "take", "--process", str(path), "--day", "27.11.", *store]) == 2
    assert "should be a date" in capsys.readouterr().err
    names = []
    for _ in range(2):
        assert main(["snapshot", "take", "--process", str(path), "--day", "2024-11-27", "--json", *store]) == 0
        names.append(json.loads(capsys.readouterr().out)["name"])
    assert names[0] == names[1], "the same state has the same name"
    (home / "b").write_text("new")
    assert main(["snapshot", "restore", names[0], "--process", str(path), *store]) == 2
    assert "say disposable = true" in capsys.readouterr().err
    path.write_text(GOOD + "disposable = true\n")
    assert main(["snapshot", "restore", names[0], "--process", str(path), *store]) == 0
    assert [(file.name, file.read_text()) for file in home.iterdir()] == [("a", "api_key=[redacted]")]
    assert main(["snapshot", "restore", names[0], *store]) == 2
    assert "either --into DIR or --process FILE" in capsys.readouterr().err
    assert main(["snapshot", "take", "--process", str(path), "--day", "2024-11-27", "--json", *store]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == names[0], "and what was put back is the same state"


# -- the process --------------------------------------------------------------------------------------------------


def test_a_child_is_killed_with_what_it_has_started(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """Its whole group, at once; a handler of SIGTERM runs only where it is stopped."""
    import os

    script = (
        "trap 'echo ended >> said; exit 3' TERM; (while :; do :; done) & echo $! > child; echo up >> said;"
        "while :; do wait; done"
    )
    child = ChildProcess(["sh", "-c", script], tmp_path / "home", {}, tmp_path / "log", 5.0)
    child.start()
    output_path, started = tmp_path / "home" / "said", tmp_path / "home" / "child"
    wait_until(lambda: output_path.exists() and output_path.read_text() == "up\n")
    below = int(started.read_text())
    child.kill()
    assert not child.is_running
    assert output_path.read_text() == "up\n"
    wait_until(lambda: _has_exited(below))
    child.start()
    wait_until(lambda: output_path.read_text() == "up\nup\n")
    below = int(started.read_text())
    assert child.stop() == 3
    assert output_path.read_text() == "up\nup\nended\n"
    wait_until(lambda: _has_exited(below))
    assert child.incarnations == 2
    with pytest.raises(ProcessStartError, match="no-such-program: cannot be started"):
        ChildProcess(["no-such-program"], tmp_path, {}, tmp_path / "log", 1.0).start()
    assert os.path.exists(tmp_path / "log")


def _has_exited(pid: int) -> bool:
    """Whether a process is no more, or only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


# -- the wire -----------------------------------------------------------------------------------------------------


def make_message(kind: str, *fields: str) -> bytes:
    """One whole message."""
    body = "\x01".join([f"35={kind}", *fields]).encode() + b"\x01"
    framed = b"8=FIX.4.4\x019=%d\x01" % len(body) + body
    return framed + b"10=%03d\x01" % (sum(framed) % 256)


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that says again what it hears."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield int(server.getsockname()[1])
    server.close()


def test_the_wire(echo: int, wait_until: Callable[..., None]) -> None:
    """It tells whole messages in both directions, stalls one or the other, cuts, refuses, and heals."""
    wire_messages: list[tuple[str, bytes]] = []
    wire = WireProxy(echo, lambda direction, text: wire_messages.append((direction, text)))
    first, second, third, fourth = (make_message("0", f"112={number}") for number in range(4))
    client = socket.create_connection(("127.0.0.1", wire.port), timeout=10)
    client.sendall(first[:10])
    client.sendall(first[10:] + second)
    assert _receive(client, len(first + second)) == first + second
    assert sorted(wire_messages) == sorted([(OUTBOUND, first), (OUTBOUND, second), (INBOUND, first), (INBOUND, second)])
    wire.stall(INBOUND)
    client.sendall(third)
    wait_until(lambda: (OUTBOUND, third) in wire_messages)
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert (INBOUND, third) not in wire_messages, "it has not reached anybody"
    client.settimeout(10)
    wire.heal()
    assert _receive(client, len(third)) == third
    assert (INBOUND, third) in wire_messages
    wire.stall(OUTBOUND)
    client.sendall(fourth)
    wait_until(lambda: (OUTBOUND, fourth) in wire_messages)
    wire.drop_connections()
    assert client.recv(1) == b""
    assert (INBOUND, fourth) not in wire_messages
    refused = socket.create_connection(("127.0.0.1", wire.port), timeout=10)
    assert _is_closed(refused)
    wire.heal()
    reconnected = socket.create_connection(("127.0.0.1", wire.port), timeout=10)
    reconnected.sendall(first)
    assert _receive(reconnected, len(first)) == first
    wire.close()
    assert _is_closed(reconnected)


def _receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += client.recv(4096)
    return data


def _is_closed(client: socket.socket) -> bool:
    try:
        return not client.recv(1)
    except ConnectionError:
        return True


# -- what passed --------------------------------------------------------------------------------------------------

OPEN_NS = bundled_store().get("ACME", "2024-11-29").meta.open_ns


def make_message_record(direction: str, second: int, kind: str, *fields: str) -> WireMessage:
    """A message of a run, so many seconds after the open."""
    sender, target = ("DESK", "VENUE") if direction == OUTBOUND else ("VENUE", "DESK")
    head = (f"49={sender}", f"56={target}", "52=20261126-04:00:00")
    return WireMessage(OPEN_NS + second * 1_000_000_000, direction, make_message(kind, *head, *fields))


def test_messages_are_judged_in_the_time_of_the_day() -> None:
    """SendingTime is the day's; what a message says of an earlier day of the run is that day's."""
    passed_message = make_message_record(INBOUND, 5, "0", "34=7", "122=20261126-03:00:01")
    eras = [Era(1_795_662_000_000_000_000, OPEN_NS - 2 * 86_400_000_000_000, 60.0)]
    dated_text = restamp_message(passed_message, eras)
    assert b"\x0152=20241129-14:30:05\x01" in dated_text
    assert b"\x01122=20241127-14:31:00\x01" in dated_text
    audit = audit_messages(Catalogue.load(), [passed_message], eras, "x")
    assert audit.skipped == []
    assert audit.messages == 1


def test_the_transcript_has_no_password(tmp_path: Path) -> None:
    """A Logon is in the file without it, still a message; what is judged is what passed."""
    transcript = Transcript(tmp_path / "wire.fix", lambda: OPEN_NS)
    logon, heartbeat = make_message("A", "34=1", "553=u", "554=hunter2"), make_message("0", "34=2")
    transcript.record(OUTBOUND, logon)
    transcript.record(INBOUND, heartbeat)
    transcript.close()
    assert [entry.text for entry in transcript.messages] == [logon, heartbeat]
    lines = (tmp_path / "wire.fix").read_bytes().splitlines()
    stamped = b"20241129-14:30:00.000000000"
    assert lines == [
        stamped + b" out " + make_message("A", "34=1", "553=u", "554=[redacted]"),
        stamped + b" in " + heartbeat,
    ]
    audit = Audit(Catalogue.load())
    audit.read_file(tmp_path / "wire.fix")
    assert (audit.messages, audit.skipped) == (2, []), "and `holdover audit` reads it"


def test_where_two_runs_part() -> None:
    """By what is asked for and told, not by names and prices; by the first of the two that differs in time."""
    new = ("1=A1", "55=ACME", "54=1", "38=100", "59=0")
    carried_messages = [
        make_message_record(OUTBOUND, 1, "D", "11=C1", "44=98.01", *new),
        make_message_record(OUTBOUND, 9, "D", "11=C2", *new),
    ]
    same_messages = [
        make_message_record(OUTBOUND, 1, "D", "11=X7", "44=98.02", *new),
        make_message_record(OUTBOUND, 8, "D", "11=X8", *new),
    ]
    assert find_divergence(carried_messages, same_messages) is None
    other_messages = [same_messages[0], make_message_record(OUTBOUND, 8, "D", "11=X8", *(*new[:3], "38=200", "59=0"))]
    difference = find_divergence(carried_messages, other_messages)
    assert difference is not None
    assert difference.time_ns == other_messages[1].time_ns
    assert (difference.carried, difference.control) == ("new C2 A1 buy 100 ACME", "new X8 A1 buy 200 ACME")
    restated = make_message_record(
        INBOUND, 0, "8", "11=G1", "17=E1", "150=D", "1=A1", "55=ACME", "54=1", "38=100", "14=40"
    )
    difference = find_divergence([restated, *carried_messages], same_messages)
    assert difference is not None
    assert (difference.direction, difference.carried, difference.control) == (
        INBOUND,
        "Restated G1 buy 40/100 ACME",
        "",
    )


# -- the night ----------------------------------------------------------------------------------------------------


def make_order(number: int, tif: str, price: str = "90.00") -> ClientMessage:
    """A client's new order, far from the market."""
    fields = (f"34={number}", f"11=C{number}", "1=A1", "55=ACME", "54=1", "38=100", "40=2", f"44={price}", f"59={tif}")
    head = ("49=DESK", "56=VENUE", "52=20261126-04:00:00")
    return ClientMessage(number, "DESK", make_message("D", *head, *fields, "60=20241127-14:30:00").decode())


def test_a_venue_goes_through_the_night() -> None:
    """DAY orders expire, GTC orders and positions go on, ExecIDs begin anew, its owner hears that they are restated."""
    first = VenueEngine([bundled_store().get("ACME", "2024-11-27")])
    first.advance(first.open_ns + 60_000_000_000)
    first.apply_message(make_order(1, "0"))
    first.apply_message(make_order(2, "1"))
    first.apply_message(make_order(3, "1", "99.99"))
    night = end_venue_day(first, {})
    assert first.venue.orders["C1"].ord_status == OrdStatus.EXPIRED
    filled_qty = first.venue.orders["C3"].cum_qty
    assert filled_qty > 0
    restored_night = read_end_of_day(night.to_bytes())
    second = VenueEngine(
        [bundled_store().get("ACME", "2024-11-29")], end_of_day=(restored_night.venue, restored_night.owners)
    )
    assert next(venue_order.cl_ord_id for venue_order in second.venue.orders.values() if venue_order.is_open) == "C2"
    assert second.venue.positions["A1/ACME"].net_qty == filled_qty
    outbound = [(client, dict(wire.fields)) for client, _, wire in second.outgoing]
    assert ("DESK", "C2", "D") in {(client, fields[11], fields[150]) for client, fields in outbound if 150 in fields}
    second.apply_message(make_order(2, "0"))
    assert second.outgoing[-1][2].fields[-1] != ()
    assert any(value == "6" for tag, value in second.outgoing[-1][2].fields if tag == 103), "a name is had once"
    end_of_day = (restored_night.venue, restored_night.owners)
    with pytest.raises(VenueStateError, match="does not come after it"):
        VenueEngine([bundled_store().get("ACME", "2024-11-27")], end_of_day=end_of_day)
    with pytest.raises(VenueStateError, match="no recording of ACME is here"):
        VenueEngine([bundled_store().get("BOLT", "2024-11-29")], end_of_day=end_of_day)
    with pytest.raises(VenueStateError, match="is damaged"):
        read_end_of_day(b"x")


def test_a_state_of_the_day_before_is_gone_on_with(tmp_path: Path) -> None:
    """`--after`: played to its close, its night is what the next state begins with, again after a kill of its own."""
    recording = bundled_store().get("ACME", "2024-11-27")
    recording_id = f"ACME/2024-11-27/{recording.digest[:12]}"
    ledger = InboundLog(tmp_path / "one", recording_id)
    inbound = ledger.append_message("DESK", make_order(1, "1").text)
    assert inbound is not None
    ledger.save_progress(recording.meta.open_ns, 1, [inbound.number], {})
    ledger.close()
    session = tmp_path / "one" / "session"
    session.mkdir()
    (session / "FIX.4.4-VENUE-DESK.seqnums").write_text("0000000007 : 0000000009")
    (session / "FIX.4.4-VENUE-DESK.body").write_bytes(make_message("8") + make_message("0"))
    night = end_of_day_after(tmp_path / "one", bundled_store())
    assert night.trade_date == "2024-11-27"
    assert night.owners == {"A1": "DESK"}
    counts = write_engine_files(night, tmp_path / "two" / "session")
    assert counts == {"FIX.4.4-VENUE-DESK": 1}
    assert read_engine_files(tmp_path / "two" / "session") == night.engine
    second = InboundLog(tmp_path / "two", "x/y/z", night.to_bytes())
    second.close()
    assert InboundLog(tmp_path / "two", "x/y/z").carried_state == night.to_bytes()
    with pytest.raises(VenueStateError, match="began with another night"):
        InboundLog(tmp_path / "two", "x/y/z", b"other")
    with pytest.raises(VenueStateError, match="no state of a venue"):
        end_of_day_after(tmp_path, bundled_store())


def test_what_an_owner_exports_of_a_venue(tmp_path: Path) -> None:
    """JSON and CSV give the same; every problem is said at once."""
    config = read_process_config(write_process_file(tmp_path, GOOD))
    instruments = [bundled_store().get("ACME", "2024-11-29").meta.instrument]
    row: dict[str, Any] = {"client": "DESK", "account": "A1", "cl_ord_id": "G1", "symbol": "ACME", "side": "buy"}
    row |= {"order_qty": "100", "cum_qty": "40", "price": "98.05", "time_in_force": "GTC"}
    position_row = {"client": "DESK", "account": "A1", "symbol": "ACME", "net_qty": "-40"}
    numbers = {"DESK": {"out": 57, "in": 43}}
    path = tmp_path / "venue.json"
    path.write_text(json.dumps({"orders": [row], "positions": [position_row], "numbers": numbers}))
    night: EndOfDayState = read_night_export(path, config, instruments, "2024-11-27")
    core = VenueEngine([bundled_store().get("ACME", "2024-11-29")], end_of_day=(night.venue, night.owners))
    venue_order = core.venue.orders["G1"]
    assert (venue_order.cum_qty, venue_order.leaves_qty, venue_order.ord_status) == (40, 60, OrdStatus.PARTIALLY_FILLED)
    assert venue_order.notional == 40 * 9805
    assert core.venue.positions["A1/ACME"].net_qty == -40
    assert night.engine == {"FIX.4.4-VENUE-DESK.seqnums": b"0000000057 : 0000000043"}
    names = [
        "client",
        "account",
        "cl_ord_id",
        "symbol",
        "side",
        "order_qty",
        "cum_qty",
        "price",
        "time_in_force",
        "net_qty",
    ]
    lines = [names, [row.get(name, "") for name in names], [position_row.get(name, "") for name in names]]
    (tmp_path / "venue.csv").write_text("\n".join(",".join(line) for line in lines))
    assert read_night_export(tmp_path / "venue.csv", config, instruments, "2024-11-27").venue == night.venue
    path.write_text(
        json.dumps(
            {
                "orders": [
                    row | {"cum_qty": "100"},
                    row | {"side": "up", "time_in_force": "DAY", "price": "1.001", "cl_ord_id": "G2"},
                    {"symbol": "ACME", "odd": 1},
                    row | {"client": "NOBODY"},
                ],
                "positions": [position_row | {"symbol": "NOPE"}, 7],
                "numbers": {"DESK": {"out": 0}},
            }
        )
    )
    with pytest.raises(VenueStateError) as error:
        read_night_export(path, config, instruments, "2024-11-27")
    for problem in (
        "order 1: cum_qty should be from 0 to below order_qty",
        "order 2: side is 'up'",
        "order 2: time_in_force is 'DAY': only GTC and GTD are carried",
        "order 2: price: ",
        "order 3: there is no client, account",
        "order 3: odd is nothing that is known of it",
        "order 4: client NOBODY is none of DESK",
        "position 1: symbol NOPE is none of ACME",
        "position 2: should be an object",
        'numbers of DESK: should be {"out": N, "in": N}',
    ):
        assert problem in str(error.value)
    path.write_text("[")
    with pytest.raises(VenueStateError, match="is no JSON"):
        read_night_export(path, config, instruments, "2024-11-27")


def test_bad_input_of_carry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each a sentence with 2, before anything runs."""
    write_short_days(tmp_path / "days", "ACME", 1)
    path = write_process_file(tmp_path, GOOD)
    common = ["--process", str(path), "--recordings", str(tmp_path / "days"), "--out", str(tmp_path / "out")]
    for arguments, reason in (
        (["--day", "2024-11-29"], "either SNAPSHOT, or --from DAY"),
        (["x", "--from", "2024-11-27", "--day", "2024-11-29"], "either SNAPSHOT, or --from DAY"),
        (["--from", "2024-11-29", "--day", "2024-11-27"], "should come after --from"),
        (["--from", "2024-11-27", "--day", "2024-12-25"], "available: 2024-11-27, 2024-11-29"),
        (["--from", "2024-11-27", "--day", "2024-11-29", "--accelerate", "0"], "above 0"),
        (["--from", "2024-11-27", "--day", "2024-11-29", "--kill-at", "x"], "--kill-at x should be SECONDS"),
        (["--from", "2024-11-27", "--day", "2024-11-29", "--stall-at", "1:2:up"], "--stall-at 1:2:up should be"),
        (["nope", "--day", "2024-11-29", "--store", str(tmp_path)], "no snapshot is called nope"),
    ):
        assert main(["carry", *arguments, *common]) == 2, arguments
        error_text = capsys.readouterr().err
        assert reason in error_text, error_text
    assert not (tmp_path / "out").exists()


ROOT = Path(__file__).resolve().parents[2]


def test_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, the export and each command line of docs/process.md are ones that are understood."""
    from holdover.cli import carry, snapshot

    page = (ROOT / "docs" / "process.md").read_text()
    (tmp_path / "desk.toml.in").write_text("")
    config = read_process_config(write_process_file(tmp_path, page.partition("```toml\n")[2].partition("```")[0]))
    assert [state.name for state in config.state] == ["desk", "guard"]
    (tmp_path / "venue.json").write_text(page.partition("```json\n")[2].partition("```")[0])
    instruments = [bundled_store().get("ACME", "2024-11-29").meta.instrument]
    night = read_night_export(tmp_path / "venue.json", config, instruments, "2024-11-27")
    assert night.owners == {"A1": "DESK"}
    for module in (carry, snapshot):
        monkeypatch.setattr(module, "run", lambda arguments: 0)
    lines = [line for line in page.splitlines() if line.startswith("holdover ")]
    assert len(lines) >= 4
    for line in lines:
        assert main(shlex.split(line, comments=True)[1:]) == 0, line


def test_the_fields_that_the_module_shows_are_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example at the head of config.py is read, and has every field of every table."""
    import holdover.adapters.process.config as module

    assert module.__doc__ is not None
    text = module.__doc__.partition("\n\n")[2].partition("\nCommand,")[0]
    for name, value in (("VENUE_PASSWORD", "x"), ("LEDGER_URL", "postgresql://h/d"), ("CACHE_URL", "redis://h")):
        monkeypatch.setenv(name, value)
    (tmp_path / "desk.toml.in").write_text("")
    config = read_process_config(write_process_file(tmp_path, text))
    assert [state.kind for state in config.state] == ["directory", "sqlite", "postgresql", "redis"]
    tables = {
        "process": module.ProcessTable,
        "venue": module.VenueTable,
        "redact": module.RedactTable,
        "state": module.StateTable,
    }
    document = tomllib.loads(text)
    for name, table in tables.items():
        table_rows = document[name] if isinstance(document[name], list) else [document[name]]
        missing = set(table.__struct_fields__) - set().union(*table_rows) - {"url", "url_file"}
        assert not missing, (name, missing)


def make_arm(name: str, **overrides: Any) -> CarryArm:
    """Return an arm in which every invariant holds; `overrides` replace the defaults."""
    defaults: dict[str, Any] = {
        "trade_date": "2024-11-29", "began_with": [], "problems": [], "breaches": [], "operations": [], "logons": 1,
        "incarnations": 1, "exit_code": 0, "requests": 3, "executions": 5, "messages": 20, "skipped": [], "notes": [],
        "ended_with": ["<Order>"], "seconds": 1.5, "wire": "wire.fix",
    }  # fmt: skip
    return CarryArm(name=name, **{**defaults, **overrides})


BREACH = ArmBreach(by="fix", invariant="client-order-id-unique", key="C1", explanation="it is not", time_ns=OPEN_NS)


@pytest.mark.parametrize(
    ("carried", "control", "verdict", "reason"),
    [
        ({}, {}, "holds", "the catalogue holds in each arm"),
        ({"breaches": [BREACH]}, {}, "breach", "does not hold in the arm carried"),
        ({}, {"breaches": [BREACH]}, "breach", "does not hold in the arm control"),
        (
            {"problems": ["it ended"]},
            {},
            "breach",
            "from yesterday's state the day cannot be run, from none it can: it",
        ),
        (
            {"problems": ["it ended"]},
            {"problems": ["so"]},
            "unknown",
            "the arm carried was not run to its end: it ended",
        ),
        ({}, {"problems": ["so"]}, "unknown", "the arm control was not run to its end: so"),
        ({"executions": 0}, {}, "unknown", "in the arm carried the venue has said nothing about any order"),
    ],
)
def test_what_the_arms_come_to(
    tmp_path: Path, carried: dict[str, Any], control: dict[str, Any], verdict: str, reason: str
) -> None:
    """A breach outweighs all; a day that yesterday's state alone makes impossible is one; else what is not known."""
    recordings = [bundled_store().get("ACME", "2024-11-29")]
    carrier = CarryRunner(read_process_config(write_process_file(tmp_path, GOOD)), tmp_path, Catalogue.load())
    carrier.arms = [make_arm("carried", **carried), make_arm("control", **control), make_arm("control-again")]
    new = ("1=A1", "55=ACME", "54=1", "38=100", "59=0")
    runs = {
        "carried": DayResult(
            arm="carried", trade_date="2024-11-29", messages=[make_message_record(OUTBOUND, 1, "D", "11=C1", *new)]
        ),
        "control": DayResult(arm="control", trade_date="2024-11-29", messages=[]),
        "control-again": DayResult(
            arm="control-again", trade_date="2024-11-29", messages=[make_message_record(OUTBOUND, 7, "D", "11=X", *new)]
        ),
    }
    document = to_json(carrier.result(recordings, "abc", runs))
    assert document["verdict"] == verdict
    assert reason in document["reason"]
    assert document["divergence"]["time_ns"] == OPEN_NS + 1_000_000_000
    assert document["noise"]["time_ns"] == OPEN_NS + 7_000_000_000
    text = carry_text(document)
    assert text.startswith(verdict.upper())
    assert "the arms first part at 14:30:01.000, in what they asked for" in text
    assert "carried  new C1 A1 buy 100 ACME" in text
    assert "the control parts from itself, by timing alone, at 14:30:07.000" in text
    assert ("client-order-id-unique (fix at 14:30:00.000)" in text) == ("breaches" in {**carried, **control})
