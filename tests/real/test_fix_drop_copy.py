"""The sidecar on a FIX drop copy session with a QuickFIX engine on either side, over loopback."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdover.audit import Audit
from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.fix.engine import FixEngineError
from holdover.fix.listener import listen, own_sockets
from holdover.fix.tls_relay import TlsConfig, TlsRelay
from holdover.runtime import FreezeStore
from holdover.watch import DropCopy, FixConfig, FixJudge, Offset, SourceError, Spool
from holdover.watch import watch as watching

from ..servers import free_port
from ..state.test_watch import make_stories, read_breaches, wait_until
from ..unit.fixlog import TAGS, _as_fix42, frame

ROOT = Path(__file__).resolve().parents[2]
Fields = list[list[Any]]


def venue_messages(version: str = "4.4") -> list[Fields]:
    """What a venue says in all stories of one day, the two wrong ones among them."""
    messages = []
    for story in make_stories():
        exec_ids = [report["exec_id"] for report in story if "exec_id" in report]
        if len(set(exec_ids)) < len(exec_ids):
            continue  # numbers begin anew with another day, or something is told again: here nothing is, by itself
        for report in story:
            report = {"symbol": "ABC", **report}
            kind = report.pop("msg_type")
            if kind not in "89":
                continue
            report.pop("day", None)
            report = _as_fix42(report) if kind == "8" and version == "4.2" else report
            fields = [[int(TAGS.get(name, name.lstrip("_"))), value] for name, value in report.items()]
            messages.append([[35, kind], *fields])
    return messages


class Process:
    """A process whose lines are kept as they come."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self.out: list[str] = []
        self.errors: list[str] = []
        for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.errors)):
            threading.Thread(target=self._read, args=(stream, lines), daemon=True).start()

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        lines.extend(line.decode() for line in stream)

    def kill(self) -> None:
        """With -9."""
        self.process.kill()
        self.process.wait()


class Venue(Process):
    """The other side."""

    def __init__(self, port: int, store: Path, version: str = "4.4", kind: str = "acceptor") -> None:
        super().__init__("-m", "tests.real.fix_venue", str(port), str(store), version, kind)
        wait_until(lambda: "ready\n" in self.out)

    def send(self, messages: list[Fields]) -> None:
        """Hand over messages; they are sent, or kept for a ResendRequest, on return."""
        before = self.out.count("sent\n")
        assert self.process.stdin is not None
        self.process.stdin.write("".join(json.dumps(message) + "\n" for message in messages).encode())
        self.process.stdin.flush()
        wait_until(lambda: self.out.count("sent\n") == before + len(messages) or bool(self.errors))
        assert not self.errors


Start = Callable[..., Any]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes and kills them at the end."""
    processes: list[Process] = []

    def start_process(kind: type[Process], *arguments: Any, **named: Any) -> Process:
        processes.append(kind(*arguments, **named))
        return processes[-1]

    yield start_process
    for process in processes:
        process.kill()


def watch_command(port: int, state: Path, *options: str, scheme: str = "fix") -> tuple[str, ...]:
    """The command."""
    host = "127.0.0.1" if scheme == "fix" else "0.0.0.0"
    source = f"{scheme}://{host}:{port}"
    return (
        "-m",
        "holdover",
        "watch",
        source,
        "--state",
        str(state),
        "--sender",
        "WATCH",
        "--target",
        "VENUE",
        *options,
    )


def read_spool(state: Path) -> list[bytes]:
    """Every message in the spool, read without touching it."""
    messages, path = [], state / "spool" / "000001.fix"
    rest = path.read_bytes() if path.exists() else b""
    while len(rest) > 9 and len(rest) >= 10 + int(rest[:8]):
        size = int(rest[:8])
        messages.append(rest[9 : 9 + size])
        rest = rest[10 + size :]
    return messages


def count_applied(state: Path) -> int:
    """How many different application messages are in the spool."""
    messages = [
        dict(field.split(b"=", 1) for field in line.split(b"\x01") if b"=" in field) for line in read_spool(state)
    ]
    return len({message[b"34"] for message in messages if message[b"35"] in (b"8", b"9")})


def read_watch_state(state: Path) -> watching.WatchState | None:
    """The state."""
    path = state / watching.STATE
    return msgspec.msgpack.decode(path.read_bytes(), type=watching.WatchState) if path.exists() else None


def has_progress(state: Path) -> bool:
    """Whether a state with something judged has been written."""
    watch_state = read_watch_state(state)
    return watch_state is not None and watch_state.offset.byte_offset > 0


def is_finished(state: Path, messages: list[Fields]) -> bool:
    """Whether all the messages have come, and all that has come is judged and kept."""
    if count_applied(state) < len(messages):
        return False
    watch_state = read_watch_state(state)
    return watch_state is not None and watch_state.offset.byte_offset == (state / "spool" / "000001.fix").stat().st_size


def count_mutations(state: Path, catalogue: Catalogue) -> int:
    """How many mutations a state has judged."""
    watch_state = read_watch_state(state)
    assert watch_state is not None
    judge = FixJudge(catalogue, "state")
    judge.restore_bytes(watch_state.memory)
    return judge.mutations


def breach_marks(breaches: Iterable[Any]) -> list[tuple[str, str]]:
    """Breaches by invariant and key; the keys without the day on which they were sent."""
    return [(breach.invariant, re.sub(r"\d{4}-\d\d-\d\d", "DAY", breach.key)) for breach in breaches]


def audit_messages(messages: list[Fields], catalogue: Catalogue, version: str) -> tuple[list[tuple[str, str]], int]:
    """The audit's breaches of the same messages as a log of one session, and its mutations."""
    audit = Audit(catalogue)
    audit.begin_log("log")
    begin = {"4.2": "FIX.4.2", "4.4": "FIX.4.4", "5.0": "FIXT.1.1"}[version]
    for number, fields in enumerate(messages, 2):
        kind = fields[0]
        head = [
            kind,
            [34, number],
            [49, "VENUE"],
            [52, f"20240102-10:{number // 60:02d}:{number % 60:02d}"],
            [56, "WATCH"],
        ]
        audit.read_lines([frame(begin, [(str(tag), value) for tag, value in [*head, *fields[1:]]])], number)
    return breach_marks(audit.breaches), audit.monitor.mutations


@pytest.mark.parametrize(
    "version", ["4.4", *(pytest.param(version, marks=pytest.mark.slow) for version in ("4.2", "5.0"))]
)
def test_killed_again_and_again_in_the_middle(version: str, start: Start, tmp_path: Path, catalogue: Catalogue) -> None:
    """Missed messages are had again, what comes twice is judged once: the audit's breaches, after as many mutations."""
    messages = venue_messages(version)
    expected, mutations = audit_messages(messages, catalogue, version)
    assert len(expected) >= 2
    port, state = free_port(), tmp_path / "state"
    venue = start(Venue, port, tmp_path / "venue", version)
    command = watch_command(port, state, "--fix-version", version)
    first = len(messages) // 4
    for count in (first, 2 * first, 3 * first):
        before = venue.out.count("logon\n")
        watch = start(Process, *command)
        wait_until(lambda: venue.out.count("logon\n") > before)  # noqa: B023
        venue.send(messages[count - first : count])
        if count == 2 * first:
            wait_until(lambda: has_progress(state))
        else:
            wait_until(lambda: count_applied(state) > count - first)  # noqa: B023
        watch.kill()
    venue.send(messages[3 * first :])  # while nobody watches
    watch = start(Process, *command)
    wait_until(lambda: is_finished(state, messages))
    watch.kill()
    assert any(line.startswith("resend ") for line in venue.out)
    assert breach_marks(read_breaches(state)) == expected
    assert count_mutations(state, catalogue) == mutations
    assert not any("Traceback" in line for line in watch.errors)


def test_an_engine_that_is_behind_the_spool(start: Start, tmp_path: Path, catalogue: Catalogue) -> None:
    """Its store put back by ten messages, as a lost disk cache would: they come again and change nothing."""
    messages = venue_messages()
    expected, mutations = audit_messages(messages, catalogue, "4.4")
    port, state = free_port(), tmp_path / "state"
    venue = start(Venue, port, tmp_path / "venue")
    watch = start(Process, *watch_command(port, state))
    wait_until(lambda: "logon\n" in venue.out)
    venue.send(messages)
    wait_until(lambda: is_finished(state, messages))
    watch.kill()
    numbers = next((state / "session").glob("*.seqnums"))
    out_number, in_number = (int(number) for number in numbers.read_text().split(":"))
    numbers.write_text(f"{out_number:010d} : {in_number - 10:010d}")
    before = len(read_spool(state))
    watch = start(Process, *watch_command(port, state))
    wait_until(lambda: len(read_spool(state)) >= before + 10)
    wait_until(lambda: is_finished(state, messages))
    watch.kill()
    assert breach_marks(read_breaches(state)) == expected
    assert count_mutations(state, catalogue) == mutations


def test_a_cut_connection_and_a_freeze(start: Start, tmp_path: Path, catalogue: Catalogue) -> None:
    """The venue dies and comes back; it is said once each way; the wrong report freezes in the guard's store."""
    messages = venue_messages()
    expected, _ = audit_messages(messages, catalogue, "4.4")
    port, state, guard = free_port(), tmp_path / "state", tmp_path / "guard"
    venue = start(Venue, port, tmp_path / "venue")
    watch = start(Process, *watch_command(port, state, "--guard", str(guard), "--json"))
    wait_until(lambda: "logon\n" in venue.out)
    venue.send(messages[:7])
    wait_until(lambda: count_applied(state) == 7)
    venue.kill()
    wait_until(lambda: any("the session has ended" in line for line in watch.errors))
    venue = start(Venue, port, tmp_path / "venue")
    venue.send(messages[7:])
    wait_until(lambda: is_finished(state, messages))
    store = FreezeStore(guard / "guard.db")
    wait_until(lambda: len(store.breaches()) == len(expected))
    assert [json.loads(line)["invariant"] for line in watch.out] == [invariant for invariant, _ in expected]
    assert {freeze.scope for freeze in store.active_freezes()} == {"instrument:ABC"}
    assert {invariant.invariant for invariant in store.active_freezes()} == {one for one, _ in expected}
    store.close()
    assert len([line for line in watch.errors if "the session has ended" in line]) == 1
    assert len([line for line in watch.errors if "logged on again" in line]) == 1


def test_the_watch_listens(start: Start, tmp_path: Path) -> None:
    """As acceptor: the venue calls; a stranger is refused and told; the log keeps no message a second time."""
    messages = venue_messages()
    port, state = free_port(), tmp_path / "state"
    watch = start(Process, *watch_command(port, state, scheme="fix-listen"))
    venue = start(Venue, port, tmp_path / "venue", "4.4", "initiator")
    wait_until(lambda: "logon\n" in venue.out)
    venue.send(messages)
    wait_until(lambda: is_finished(state, messages))
    start(Process, *watch_command(port, tmp_path / "stranger", "--sender", "STRANGER"))
    wait_until(lambda: bool(watch.errors))
    assert "a Logon from STRANGER to VENUE was refused; expected is one from VENUE to WATCH" in watch.errors[0]
    assert not any(path.is_file() and not path.is_symlink() for path in (state / "events").glob("*.messages.*"))


def test_a_wrong_name_is_said_in_a_sentence(start: Start, tmp_path: Path) -> None:
    """The venue knows no WOTCH: one sentence, however often it is tried."""
    port = free_port()
    start(Venue, port, tmp_path / "venue")
    watch = start(Process, *watch_command(port, tmp_path / "state", "--sender", "WOTCH"))
    wait_until(lambda: bool(watch.errors))
    numbers = tmp_path / "state" / "session" / "FIX.4.4-WOTCH-VENUE.seqnums"
    wait_until(lambda: int(numbers.read_text().split(":")[0] or 0) >= 3)
    assert len(watch.errors) == 1
    assert (
        "nobody answers the Logon of WOTCH: nobody is at the address, or another SenderCompID (49)" in watch.errors[0]
    )


def test_user_and_password(start: Start, tmp_path: Path) -> None:
    """They go into the Logon, the password out of the environment."""
    config = tmp_path / "drop.toml"
    config.write_text(
        '[fix]\nversion = "4.4"\nsender = "WATCH"\ntarget = "VENUE"\nusername = "u"\npassword_env = "DROP_WORD"\n'
        '[fix.settings]\nLogonTimeout = "5"\n'
    )
    port = free_port()
    venue = start(Venue, port, tmp_path / "venue")
    options = ["watch", f"fix://127.0.0.1:{port}", "--state", str(tmp_path / "s"), "--fix-config", str(config)]
    start(Process, "-m", "holdover", *options, DROP_WORD="open")
    wait_until(lambda: "user u open\n" in venue.out)


def test_problems_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be used is named, with what would be right, and exits with 2."""
    session_options = ["--sender", "A", "--target", "B"]
    state = ["--state", str(tmp_path / "state")]
    config = tmp_path / "drop.toml"
    config.write_text("[fix]\nsendr = 'A'\n")
    for arguments, reason in (
        (["fix://127.0.0.1:1", *session_options], "needs --state DIR"),
        (["fix://127.0.0.1:1", *session_options, *state, "--once"], "has no end"),
        (["fix://127.0.0.1:1", *state], "needs SenderCompID and TargetCompID"),
        (["fix://127.0.0.1", *session_options, *state], "it should be fix://HOST:PORT"),
        (["fix-listen://[::1]:1", *session_options, *state], "listens at IPv4 addresses only"),
        (["fix-listen://192.0.2.1:9999", *session_options, *state], "port 9999 at 192.0.2.1 cannot be had"),
        (["fixs-listen://127.0.0.1:9999", *session_options, *state], "a listener over TLS needs both"),
        (["fix://127.0.0.1:1", *session_options, *state, "--fix-version", "3.9"], "is none of 4.2, 4.4, 5.0"),
        (["fix://127.0.0.1:1", *session_options, *state, "--fix-config", str(config)], "did you mean sender?"),
        (["fix://127.0.0.1:1", *session_options, *state, "--fix-config", str(tmp_path / "no")], "No such file"),
    ):
        assert main(["watch", *arguments]) == 2
        stderr = capsys.readouterr().err
        assert reason in stderr
        assert stderr.count("\n") == 1
    config.write_text("[fix]\nsender = 'A'\ntarget = 'B'\npassword_env = 'NOT_SET_HERE'\n")
    with pytest.raises(SourceError, match="does not set NOT_SET_HERE"):
        FixConfig.load(config)
    for wrong, reason in (
        ("start = 'noon'", "start should be a time like 14:30:00"),
        ("[fix.settings]\nStartTime = '07:00:00'", "StartTime has a name of its own in"),
        ("[fix.settings]\nLogonTimeout = 'x'", "the FIX engine does not start: "),
    ):
        config.write_text(f"[fix]\nsender = 'A'\ntarget = 'B'\n{wrong}\n")
        assert main(["watch", "fix://127.0.0.1:1", *state, "--fix-config", str(config)]) == 2
        assert reason in capsys.readouterr().err


def test_a_spool_keeps_what_it_took(tmp_path: Path) -> None:
    """Line ends inside, several files, a message cut off by a kill, a reader that begins anew at its place."""
    spool = Spool(tmp_path, size_max=40)
    messages = [b"8=FIX one\nhalf", b"8=FIX two", b"8=FIX three", b"", b"8=FIX four"]
    for message in messages[:4]:
        spool.append(message)
    assert spool.read_lines(2) == [b"8=FIX one\nhalf\n", b"8=FIX two\n"]
    offset = msgspec.msgpack.decode(msgspec.msgpack.encode(spool.offset), type=Offset)
    spool.close()
    last = sorted(tmp_path.iterdir())[-1]
    assert last.name > "000001.fix"
    with open(last, "ab") as file:
        file.write(b"00000099 8=FIX cut")
    second_spool = Spool(tmp_path, offset, size_max=40)
    assert second_spool.read_lines() == [b"8=FIX three\n", b"\n"]
    assert second_spool.read_lines() == []
    second_spool.append(messages[4])
    assert second_spool.read_lines() == [b"8=FIX four\n"]
    assert Spool(tmp_path).read_lines() == [message + b"\n" for message in messages]
    offset.byte_offset = 10_000
    with pytest.raises(SourceError, match="is shorter than what was judged of it"):
        Spool(tmp_path, offset)


def test_a_spool_is_trimmed_of_what_is_judged(tmp_path: Path) -> None:
    """Whole files before the saved offset, the oldest first, by age or by size; nothing that is needed."""
    spool = Spool(tmp_path, size_max=40)
    for number in range(12):
        spool.append(b"8=FIX %d of the messages" % number)
    now_ns = time.time_ns()
    day_ns = 86_400 * 10**9
    count = len(list(tmp_path.iterdir()))
    assert spool.trim(spool.offset, now_ns + 400 * day_ns, 30, 0) == 0  # nothing was judged
    spool.read_lines(7)
    saved = msgspec.structs.replace(spool.offset)
    rest = spool.read_lines(2)
    assert spool.trim(saved, now_ns, 30, 10_000) == 0  # neither old nor large
    assert spool.trim(saved, now_ns, 30, 350) == 1
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 350
    assert spool.trim(saved, now_ns + 31 * day_ns, 30, 10_000) > 0
    assert min(int(path.stem) for path in tmp_path.iterdir()) == saved.sequence
    assert len(list(tmp_path.iterdir())) < count
    rest += spool.read_lines()
    spool.close()
    assert Spool(tmp_path, saved).read_lines() == rest  # a kill after the state was saved loses nothing
    assert len(rest) == 5


# -- addresses and TLS ---------------------------------------------------------------------------------------------


def frame_fix(body: str) -> bytes:
    """A FIX 4.4 message of fields separated by bars."""
    text = body.replace("|", "\x01")
    head = f"8=FIX.4.4\x019={len(text)}\x01{text}"
    return f"{head}10={sum(head.encode()) % 256:03d}\x01".encode()


def log_on(connection: socket.socket) -> bytes:
    """Send the venue's Logon. Returns what is answered."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H:%M:%S.000")
    connection.settimeout(20)
    connection.sendall(frame_fix(f"35=A|34=1|49=VENUE|52={now}|56=WATCH|98=0|108=30|141=Y|"))
    return connection.recv(1000)


@pytest.fixture
def authority(tmp_path: Path) -> Any:
    """An authority, and the files of its certificates for localhost and for another host."""
    trustme = pytest.importorskip("trustme")
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("localhost", "elsewhere.example"):
        path = tmp_path / f"{name}.pem"
        made.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(path)
        path.chmod(0o600)
    return made


def test_the_engine_listens_at_its_address_only(tmp_path: Path) -> None:
    """At 127.0.0.2 and not at 127.0.0.1, nor at any other port of this process."""
    port = free_port()
    drop_copy = DropCopy(f"fix-listen://127.0.0.2:{port}", FixConfig(sender="WATCH", target="VENUE"), tmp_path)
    try:
        with socket.create_connection(("127.0.0.2", port)) as connection:
            assert b"35=A" in log_on(connection)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        listening = [own.getsockname() for _, own in own_sockets() if is_listening(own)]
        assert listening
        assert {address[0] for address in listening} == {"127.0.0.2"}
    finally:
        drop_copy.close()


def is_listening(own: socket.socket) -> bool:
    """Whether a socket listens for TCP connections."""
    return own.family == socket.AF_INET and bool(own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def test_the_watch_listens_over_tls(tmp_path: Path, authority: Any) -> None:
    """A Logon over TLS with a certificate of the authority; without TLS or certificate there is none."""
    port = free_port()
    own = str(tmp_path / "localhost.pem")
    tls = TlsConfig(ca=str(tmp_path / "ca.pem"), cert=own, key=own)
    config = FixConfig(sender="WATCH", target="VENUE", tls=tls)
    drop_copy = DropCopy(f"fixs-listen://127.0.0.1:{port}", config, tmp_path / "state")
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    try:
        with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises((OSError, AssertionError)):
            assert log_on(plain)
        with (
            socket.create_connection(("127.0.0.1", port)) as stranger,
            pytest.raises((ssl.SSLError, OSError, AssertionError)),
            trust.wrap_socket(stranger, server_hostname="localhost") as wrapped,
        ):
            assert log_on(wrapped)
        trust.load_cert_chain(own)
        with (
            socket.create_connection(("127.0.0.1", port)) as venue,
            trust.wrap_socket(venue, server_hostname="localhost") as wrapped,
        ):
            assert b"35=A" in log_on(wrapped)
        for _, own_socket in own_sockets():
            if is_listening(own_socket):
                assert own_socket.getsockname()[0] == "127.0.0.1"
    finally:
        drop_copy.close()


def tls_venue(tmp_path: Path, name: str, venue_port: int) -> TlsRelay:
    """A TLS server with the certificate of a name, in front of a venue without TLS."""
    path = str(tmp_path / f"{name}.pem")
    context = TlsConfig(cert=path, key=path).server_context()
    return TlsRelay(listen("127.0.0.1", 0), ("127.0.0.1", venue_port), server=context)


def test_the_watch_calls_over_tls(start: Start, tmp_path: Path, authority: Any) -> None:
    """The whole day of a venue over TLS; a certificate of the same authority for another host is refused."""
    messages = venue_messages()
    port = free_port()
    venue = start(Venue, port, tmp_path / "venue")
    right, wrong = (tls_venue(tmp_path, name, port) for name in ("localhost", "elsewhere.example"))
    config = tmp_path / "drop.toml"
    config.write_text(f"[fix.tls]\nca = '{tmp_path / 'ca.pem'}'\n")
    options = ["--sender", "WATCH", "--target", "VENUE", "--fix-config", str(config)]
    command = ["-m", "holdover", "watch"]
    try:
        refused = start(
            Process, *command, f"fixs://localhost:{wrong.port}", "--state", str(tmp_path / "refused"), *options
        )
        wait_until(lambda: any("the certificate of localhost is refused" in line for line in refused.errors))
        assert "Hostname mismatch" in "".join(refused.errors)
        assert "logon\n" not in venue.out
        refused.kill()
        state = tmp_path / "state"
        start(Process, *command, f"fixs://localhost:{right.port}", "--state", str(state), *options)
        wait_until(lambda: "logon\n" in venue.out)
        venue.send(messages)
        wait_until(lambda: is_finished(state, messages))
    finally:
        right.close()
        wrong.close()


def test_another_process_cannot_use_the_relay(start: Start, tmp_path: Path, authority: Any) -> None:
    """The relay's loopback port, with our certificate behind it, is for this process only."""
    received: list[bytes] = []
    with listen("127.0.0.1", 0) as target:
        relay = TlsRelay(
            listen("127.0.0.1", 0),
            ("127.0.0.1", target.getsockname()[1]),
            client=TlsConfig(ca=str(tmp_path / "ca.pem")).client_context(),
        )
        code = (
            f"import socket; c = socket.create_connection(('127.0.0.1', {relay.port})); c.sendall(b'x'); "
            "print(len(c.recv(10)))"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert other.stdout.strip() in ("0", "")
        target.setblocking(False)
        with pytest.raises(BlockingIOError):
            received.append(target.accept()[0].recv(1))
        relay.close()
    assert not received


def test_a_key_that_others_may_read_is_refused(tmp_path: Path, authority: Any) -> None:
    """With the command that mends it."""
    path = tmp_path / "localhost.pem"
    path.chmod(0o644)
    with pytest.raises(FixEngineError, match=r"others may read this private key.*chmod 600"):
        TlsConfig(cert=str(path), key=str(path)).server_context()
