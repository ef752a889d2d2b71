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
from holdover.watch import MutationJudge, SourceError, Stream, StreamAddress, Watch
from holdover.watch import watch as watching

from ..state.test_watch import journal, kill_at_event, read_breaches, wait_until  # noqa: F401 - a fixture


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
            return bool(self.call_client(ask))
        except (OSError, nats.errors.Error):
            return False

    def stop(self, stop_signal: signal.Signals = signal.SIGKILL) -> None:
        """End it."""
        assert self.process is not None
        self.process.send_signal(stop_signal)
        self.process.wait()

    def call_client(self, action: Callable[[Any], Any]) -> Any:
        """Do something with a connection."""

        async def run_action() -> Any:
            client = await nats.connect(
                f"nats://127.0.0.1:{self.port}",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=_silent,
            )
            try:
                return await action(client)
            finally:
                await client.close()

        return asyncio.run(run_action())

    def make_stream(self, name: str = "JOURNAL", subjects: Sequence[str] = ("journal.>",), **options: Any) -> None:
        """Make a stream."""
        config = StreamConfig(name=name, subjects=list(subjects), **options)
        self.call_client(lambda client: client.jetstream().add_stream(config))

    def publish(self, messages: Sequence[bytes], subject: str = "journal.desk") -> None:
        """Publish; when this returns the server has all of it."""

        async def publish_all(client: Any) -> None:
            stream = client.jetstream()
            for message in messages:
                await stream.publish(subject, message)

        self.call_client(publish_all)

    def purge(self, **criteria: Any) -> None:
        """Take messages out of the stream."""
        self.call_client(lambda client: client.jetstream().purge_stream("JOURNAL", **criteria))

    def url(self, rest: str = "JOURNAL") -> str:
        """A source."""
        return f"nats://127.0.0.1:{self.port}/{rest}"


async def _silent(problem: Exception) -> None:
    """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that is gone after the test."""
    new_server = Server(tmp_path / "nats")
    yield new_server
    new_server.stop()


def messages_of(path: Path, lines_max: int = 3) -> list[bytes]:
    """A journal as messages of one, two, three lines, and so on again: most of them end inside a step."""
    lines = path.read_bytes().splitlines(keepends=True)
    messages, size = [], 1
    while lines:
        messages.append(b"".join(lines[:size]))
        lines, size = lines[size:], size % lines_max + 1
    return messages


def balance_messages(count: int) -> list[bytes]:
    """Steps of one mutation that hold whatever was or was not before them."""
    balance = {"account": "A", "currency": "USD", "cash": 0, "trade_date": "2024-01-02"}
    mutation = {"subsystem": "ledger", "kind": "Balance", "record": balance, "settled": True}
    return [msgspec.json.encode({"seq": number, "time_ns": number, **mutation}) for number in range(1, count + 1)]


def watch_to_end(
    url: str, state: Path | None, judge: MutationJudge, digest: str, lines_max: int = 5000
) -> tuple[Watch, Stream]:
    """Watch a stream to its end."""
    watch = Watch(url, judge, digest, [], lambda breach: None, lambda warning: None, state)
    stream = Stream(StreamAddress.parse(url), watch.offset, single_pass=True)
    lines = stream.read_lines(lines_max)
    while lines:
        watch.judge_lines(lines, 1)
        watch.save(stream.offset)
        lines = stream.read_lines(lines_max if watch.is_settled else 1)
    watch.save(stream.offset, force=True)
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
    monkeypatch.setattr(watching, "_SAVE_EVERY_LINES", 5)
    server.make_stream()
    server.publish(messages_of(journal[0]))
    calm = MutationJudge(catalogue, skip_repeats=True)
    watch, stream = watch_to_end(server.url(), tmp_path / "calm", calm, catalogue.digest)
    expected = read_breaches(tmp_path / "calm")
    assert [(breach.invariant, breach.key, breach.mutation) for breach in expected] == [
        (breach.invariant, breach.key, breach.mutation) for breach in journal[1]
    ]
    assert (stream.is_exhausted, stream.offset.is_complete, watch.verdict) == (True, True, "breach")
    kills = 0
    for event in range(2, 122, 9):
        state = tmp_path / f"state-{event}"
        run_watch = partial(watch_to_end, server.url(), state, digest=catalogue.digest, lines_max=3)
        while kill_at_event(event, partial(MutationJudge, catalogue, skip_repeats=True), run_watch):
            kills += 1
            if event != 47:
                break
        last = MutationJudge(catalogue, skip_repeats=True)
        watch_to_end(server.url(), state, last, catalogue.digest)
        assert read_breaches(state) == expected, event
        assert last.mutations == calm.mutations, event
    assert kills >= 10


def test_what_is_published_twice_is_judged_once(
    server: Server,
    journal: tuple[Path, list[Breach]],  # noqa: F811
    tmp_path: Path,
    catalogue: Catalogue,
) -> None:
    """Every message twice, and some of them again later: as many mutations, the same breaches."""
    server.make_stream()
    messages = messages_of(journal[0], lines_max=1)
    twice = [copy for message in messages for copy in (message, message)]
    server.publish(twice[:60] + twice[20:])
    judge = MutationJudge(catalogue, skip_repeats=True)
    watch_to_end(server.url(), tmp_path / "state", judge, catalogue.digest)
    assert judge.mutations == journal[0].read_bytes().count(b'"record"')
    assert [breach.mutation for breach in read_breaches(tmp_path / "state")] == [
        breach.mutation for breach in journal[1]
    ]


def test_a_guard_that_begins_its_numbers_anew_is_still_judged(catalogue: Catalogue) -> None:
    """Lower numbers at a later time are another guard's, not old lines again; a boundary is taken once, too."""
    judge = MutationJudge(catalogue, skip_repeats=True)
    balance = {"account": "A", "currency": "USD", "cash": 0, "trade_date": "2024-01-02"}

    def encode_line(seq: int, time_ns: int, **fields: Any) -> bytes:
        mutation = {"subsystem": "ledger", "kind": "Balance", "record": balance, "settled": True}
        return msgspec.json.encode({"seq": seq, "time_ns": time_ns, **(fields or mutation)})

    def judge_lines(*lines: bytes) -> int:
        before = judge.mutations
        for journal_line in lines:
            judge.judge_line(journal_line, 1)
        return judge.mutations - before

    begin = encode_line(2, 21, what="begin", detail="2024-01-02")
    assert judge_lines(encode_line(1, 10), encode_line(2, 20)) == 2
    boundary_mutations = judge_lines(begin)
    assert boundary_mutations > 0
    assert judge_lines(encode_line(1, 10), encode_line(2, 20), begin) == 0
    assert judge_lines(encode_line(1, 30), encode_line(1, 30)) == 1
    second_judge = MutationJudge(catalogue, skip_repeats=True)
    second_judge.restore_bytes(judge.to_bytes())
    judge = second_judge
    assert judge_lines(encode_line(1, 30)) == 0
    assert judge_lines(encode_line(2, 31)) == 1


def test_followed_through_kills_and_a_server_that_restarts(
    server: Server,
    journal: tuple[Path, list[Breach]],  # noqa: F811
    tmp_path: Path,
) -> None:
    """The program itself, killed with -9 in the middle; the server too; the hooks act once a breach."""
    server.make_stream()
    messages = messages_of(journal[0])
    state, guard, errors = tmp_path / "live", tmp_path / "acted", tmp_path / "errors"
    command = [sys.executable, "-m", "holdover", "watch", server.url(), "--state", str(state), "--json"]
    command += ["--guard", str(guard)]
    ends = [number for number, message in enumerate(messages, 1) if message.endswith(b'"settled":true}\n')]
    first_end, second_end = ends[len(ends) // 3], ends[2 * len(ends) // 3]

    def read_to(sequence: int) -> bool:
        path = state / watching.STATE
        watch_state = msgspec.msgpack.decode(path.read_bytes(), type=watching.WatchState) if path.exists() else None
        return watch_state is not None and watch_state.offset.sequence >= sequence

    def has_logged(fragment: bytes) -> bool:
        return errors.exists() and fragment in errors.read_bytes()

    server.publish(messages[:first_end])
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: read_to(first_end))
    finally:
        first.kill()
        first.wait()
    server.publish(messages[first_end:second_end])
    with open(errors, "wb") as error_file:
        second = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=error_file)
    try:
        wait_until(lambda: read_to(second_end))
        server.stop()
        wait_until(lambda: has_logged(b"cannot be read now"))
        server.start()
        wait_until(lambda: has_logged(b"can be read again"))
        server.publish(messages[second_end:])
        breaches = state / watching.BREACHES
        wait_until(lambda: breaches.exists() and len(breaches.read_bytes().splitlines()) == len(journal[1]))
        store = FreezeStore(guard / "guard.db")
        wait_until(lambda: len(store.breaches()) == len(journal[1]))
    finally:
        second.kill()
        second.wait()
    assert [breach.mutation for breach in read_breaches(state)] == [breach.mutation for breach in journal[1]]
    assert {breach.scope for breach in store.active_freezes()} == {breach.scope for breach in journal[1]}
    store.close()
    assert len(errors.read_bytes().splitlines()) == 2, errors.read_bytes()
    assert b"Traceback" not in errors.read_bytes()


def test_what_the_stream_has_lost_is_said_and_counted(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Purged past the place, with a hole after it, made anew: no silence, and no claim that all of it holds."""
    server.make_stream(allow_direct=True)
    lines = balance_messages(9)
    options = ["--once", "--state", str(tmp_path / "state")]
    server.publish(lines[:3])
    assert main(["watch", server.url(), *options]) == 0
    server.publish(lines[3:6])
    server.purge(seq=6)
    assert main(["watch", server.url(), *options]) == 3
    assert "2 messages were lost before they could be judged, after message 3" in capsys.readouterr().err
    server.publish(lines[6:])
    server.call_client(lambda client: client.jetstream().delete_msg("JOURNAL", 8))
    assert main(["watch", server.url(), *options]) == 3
    assert "1 messages were lost before they could be judged, after message 7" in capsys.readouterr().err
    assert main(["watch", server.url(), *options]) == 3
    assert capsys.readouterr().err == ""
    server.call_client(lambda client: client.jetstream().delete_stream("JOURNAL"))
    server.make_stream()
    server.publish(lines[:3])
    assert main(["watch", server.url(), *options]) == 3
    assert "was made anew; what it held after message 9 is not known" in capsys.readouterr().err


def test_one_subject_of_a_stream(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages of other subjects are neither judged nor missed; what is gone may have been of this one."""
    server.make_stream()
    lines = balance_messages(8)
    for number in range(0, 6, 2):
        server.publish(lines[number : number + 2])
        server.publish([b"no journal at all"], "journal.other")
    options = ["--once", "--state", str(tmp_path / "state")]
    assert main(["watch", server.url("JOURNAL/journal.desk"), *options]) == 0
    assert capsys.readouterr().err == ""
    assert main(["watch", server.url("JOURNAL/journal.*"), "--once"]) == 3  # a third of it could not be used
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
    server.make_stream()
    assert main(["watch", server.url(), "--once"]) == 3
    server.publish(messages_of(journal[0]))
    assert main(["watch", server.url(), "--once", "--json"]) == 1
    invariants = [json.loads(line)["invariant"] for line in capsys.readouterr().out.splitlines()]
    assert invariants == [breach.invariant for breach in journal[1]]
    server.make_stream("QUEUE", ["queue"], retention="workqueue")
    for url, reason in (
        (server.url("NONE"), "there is no stream NONE"),
        (server.url("QUEUE"), "needs the retention limits"),
        (server.url(""), "names no stream"),
        ("nats://user:word@127.0.0.1:x/S", "it should be nats://HOST:PORT/STREAM"),
    ):
        assert main(["watch", url, "--once"]) == 2
        stderr = capsys.readouterr().err
        assert reason in stderr
        assert (stderr.count("\n"), "word" in stderr) == (1, False)
    server.stop()
    assert main(["watch", server.url(), "--once"]) == 2
    assert "cannot be read" in capsys.readouterr().err
    server.start()


def test_a_place_without_its_message_is_noticed(server: Server, tmp_path: Path) -> None:
    """A server put back to an earlier state has other messages under the same numbers."""
    server.make_stream()
    server.publish([b"1", b"2", b"3"])
    stream = Stream(StreamAddress.parse(server.url()), single_pass=True)
    assert stream.read_lines() == [b"1\n", b"2\n", b"3\n"]
    stream.close()
    behind = msgspec.structs.replace(stream.offset, sequence=9)
    altered_offset = msgspec.structs.replace(stream.offset, head_digest="0" * 64)
    for offset in (behind, altered_offset):
        reopened_stream = Stream(StreamAddress.parse(server.url()), offset, single_pass=True)
        assert reopened_stream.read_lines() == [b"1\n", b"2\n", b"3\n"]
        assert "is not what it was at message" in reopened_stream.notices[0]
        assert reopened_stream.offset.break_count == 1
        reopened_stream.close()
    with pytest.raises(SourceError):
        StreamAddress.parse("nats://127.0.0.1/A B")
