"""The sidecar: it finds what a guard finds, wherever it is killed; it follows, it acts, it says what is wrong."""

from __future__ import annotations

import http.server
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from holdover.adapters.desk import DeskSubject
from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.harness import Session, SessionConfig
from holdover.model import Order, OrdStatus, Side
from holdover.recording import bundled_store
from holdover.runtime import Breach, FreezeStore, Guard, Journal
from holdover.watch import FixJudge, Judge, MutationJudge, Offset, Tail, Watch
from holdover.watch import watch as watching
from tests.unit.fixlog import FixLogWriter, record_messages
from tests.unit.test_fix_scenarios import LEGAL
from tests.waits import make_wait

MakeGuard = Callable[..., Guard]
WRONG: list[tuple[int, dict[str, Any]]] = [(3, {"cum_qty": 4_000, "leaves_qty": 6_000}), (2, {"leaves_qty": 1})]

wait_until = make_wait(timeout_s=60.0, poll_s=0.01)


def make_stories() -> list[list[dict[str, Any]]]:
    """Every legal story under a name of its own, and two with something wrong in them."""
    all_stories = [[dict(report) for report in story] for story in LEGAL.values()]
    for index, fields in WRONG:
        story = [dict(report) for report in LEGAL["filled in three"]]
        story[index].update(fields)
        all_stories.insert(len(all_stories) // 2, story)
    for number, story in enumerate(all_stories):
        for report in story:
            for name in ("cl_ord_id", "orig_cl_ord_id", "exec_id", "exec_ref_id"):
                if name in report:
                    report[name] = f"{report[name]}/{number}"
    return all_stories


@pytest.fixture
def journal(make_guard: MakeGuard, tmp_path: Path) -> tuple[Path, list[Breach]]:
    """The journal of a guard that has read all stories, and its breaches but those of its own freezes."""
    path = tmp_path / "journal.jsonl"
    guard = make_guard(journal=Journal(path))
    record_messages(guard, [report for story in make_stories() for report in story])
    guard.close()
    return path, [breach for breach in guard.breaches if breach.invariant != "nothing-leaves-a-frozen-scope"]


@pytest.fixture
def fix_log(tmp_path: Path) -> Path:
    """The same stories as a FIX log."""
    writer = FixLogWriter(separator=b"|")
    for story in make_stories():
        for report in story:
            writer.write_order_message({**report, "day": 1} if report["msg_type"] != "8" else report)
    path = tmp_path / "fix.log"
    path.write_bytes(b"".join(writer.log()))
    return path


def watch_file(source: Path, state: Path | None, judge: Judge, catalogue: Catalogue, batch: int = 5000) -> Watch:
    """Watch a file to the end of what is there, `batch` lines at a time."""
    breaches: list[Breach] = []
    watch = Watch(str(source), judge, catalogue.digest, [], breaches.append, lambda warning: None, state)
    tail = Tail(source, watch.offset)
    lines = tail.read_lines(batch)
    while lines:
        watch.judge_lines(lines, tail.offset.line - len(lines) + 1)
        watch.save(tail.offset)
        lines = tail.read_lines(batch if watch.is_settled else 1)
    watch.save(tail.offset, force=True)
    tail.close()
    watch.close()
    return watch


def read_breaches(state: Path) -> list[Breach]:
    """The breaches that a state holds."""
    lines = (state / watching.BREACHES).read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Breach) for line in lines]


def test_a_journal_is_judged_as_its_guard_judged(
    journal: tuple[Path, list[Breach]], tmp_path: Path, catalogue: Catalogue
) -> None:
    """The same breaches, with the same explanations, after the same mutations."""
    path, breaches = journal
    judge = MutationJudge(catalogue)
    watch_file(path, tmp_path / "state", judge, catalogue)
    assert len(breaches) >= 2
    actual = [
        (breach.identity, breach.scope, breach.cell, breach.after) for breach in read_breaches(tmp_path / "state")
    ]
    cells = [{name: value for name, value in breach.cell.items() if name != "freeze"} for breach in breaches]
    assert all(cells)
    assert actual == [
        (breach.identity, breach.scope, cell, breach.after) for breach, cell in zip(breaches, cells, strict=True)
    ]
    assert judge.mutations == path.read_bytes().count(b'"record"')


def test_a_day_with_restarts_is_judged_as_its_guard_judged(tmp_path: Path, catalogue: Catalogue) -> None:
    """The desk's own journal, two days with kills and a night between them: as silent as the guard was."""
    session = Session(
        DeskSubject, bundled_store(), ["BOLT"], tmp_path / "s", SessionConfig(days=["2024-11-27", "2024-11-29"])
    )
    session.begin()
    session.run(0.3)
    session.restart(kill=True)
    session.run(0.6)
    session.disconnect()
    session.run(0.65)
    session.reconnect()
    session.end()
    session.overnight()
    session.begin()
    session.run(0.2)
    session.restart()
    session.run(0.4)
    mutations, cells = session.guard.monitor.mutations, session.guard.cells
    session.close()
    judge = MutationJudge(catalogue)
    watch = watch_file(tmp_path / "s" / "journal.jsonl", None, judge, catalogue)
    assert session.breaches == []
    assert (watch.breaches, watch.verdict) == (0, "holds")
    assert judge.mutations > 0.5 * mutations
    assert {**judge.monitor.cells.known_values(), "freeze": "nothing"} == cells.known_values()
    assert judge.monitor.cells.last_transition == cells.last_transition == "restart:clean"


def kill_at_event(event: int, make: Callable[[], Judge], run_watch: Callable[[Judge], object]) -> bool:
    """Watch in a process that is killed at its n-th event: a line judged, a file synced, a file put in place."""
    child = os.fork()
    if child == 0:
        remaining = [event]

        def count_events(function: Callable[..., Any]) -> Callable[..., Any]:
            def call_counted(*arguments: Any, **named: Any) -> Any:
                remaining[0] -= 1
                if remaining[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **named)

            return call_counted

        os.fsync, os.replace = count_events(os.fsync), count_events(os.replace)
        judge = make()
        judge.judge_line = count_events(judge.judge_line)  # type: ignore[method-assign]
        try:
            run_watch(judge)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("kind", ["journal", "fix"])
def test_a_kill_anywhere_changes_nothing(
    kind: str,
    journal: tuple[Path, list[Breach]],
    fix_log: Path,
    tmp_path: Path,
    catalogue: Catalogue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed, resumed, and killed again further on: breaches and mutations are those of an undisturbed watch."""
    source = journal[0] if kind == "journal" else fix_log

    def make() -> Judge:
        return MutationJudge(catalogue) if kind == "journal" else FixJudge(catalogue, "log")

    monkeypatch.setattr(watching, "_SAVE_EVERY_LINES", 5)
    calm = make()
    watch_file(source, tmp_path / "calm", calm, catalogue)
    expected = read_breaches(tmp_path / "calm")
    assert len(expected) >= 2
    kills = 0
    for event in range(2, 122, 4):
        state = tmp_path / f"state-{event}"
        run_watch = partial(watch_file, source, state, catalogue=catalogue, batch=7)
        while kill_at_event(event, make, run_watch):
            kills += 1
            if event != 50:
                break
        last = make()
        watch_file(source, state, last, catalogue)
        assert read_breaches(state) == expected, event
        assert last.mutations == calm.mutations, event
    assert kills >= 20


def test_rotation_and_truncation(tmp_path: Path) -> None:
    """Renamed, cut short, written anew: every whole line once, a half one when it is whole."""
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read_lines() == []
    path.write_bytes(b"1\n2\n3")
    assert tail.read_lines() == [b"1\n", b"2\n"]
    with open(path, "ab") as file:
        file.write(b"3\n4\n")
    path.rename(tmp_path / "log.1")
    path.write_bytes(b"5\n")
    assert tail.read_lines() == [b"33\n", b"4\n"]
    assert (tail.read_lines(), tail.offset.line) == ([b"5\n"], 1)
    saved_offset = msgspec.msgpack.decode(msgspec.msgpack.encode(tail.offset), type=Offset)
    with open(path, "ab") as file:
        file.write(b"6\n")
    path.rename(tmp_path / "log.2")
    path.write_bytes(b"7\n")
    reopened_tail = Tail(path, saved_offset)
    assert reopened_tail.read_lines() + reopened_tail.read_lines() == [b"6\n", b"7\n"]
    path.write_bytes(b"")
    assert reopened_tail.read_lines() == []
    with open(path, "ab") as file:
        file.write(b"8\n")
    assert reopened_tail.read_lines() == [b"8\n"]
    assert "cut short" in reopened_tail.notices[0]
    (tmp_path / "log.2").unlink()
    late_tail = Tail(path, saved_offset)
    assert "is gone" in late_tail.notices[0]
    assert late_tail.read_lines() == [b"8\n"]


def test_it_follows_what_is_written(journal: tuple[Path, list[Breach]], tmp_path: Path) -> None:
    """Started before there is a file, killed in the middle, started again; the lines come in halves."""
    whole = journal[0].read_bytes()
    half = whole.index(b'"settled":true', len(whole) // 2) + 30  # some bytes into the line after a step's last
    path, state = tmp_path / "live.jsonl", tmp_path / "live"
    command = [sys.executable, "-m", "holdover", "watch", str(path), "--state", str(state), "--json"]
    breaches = state / watching.BREACHES
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        path.write_bytes(whole[:half])
        wait_until(lambda: (state / watching.STATE).exists())
    finally:
        first.kill()
        first.wait()
    second = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with open(path, "ab") as file:
            file.write(whole[half:])
        wait_until(lambda: breaches.exists() and len(breaches.read_bytes().splitlines()) == len(journal[1]))
    finally:
        second.kill()
        second.wait()
    assert [breach.invariant for breach in read_breaches(state)] == [breach.invariant for breach in journal[1]]


class HookReceiver(http.server.BaseHTTPRequestHandler):
    """Takes a breach at the second attempt."""

    requests: ClassVar[list[tuple[str, str]]] = []

    def do_POST(self) -> None:
        """Refuse the first time."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append((self.headers["Idempotency-Key"], json.loads(body)["invariant"]))
        self.send_response(503 if len(self.requests) == 1 else 204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def test_it_acts(journal: tuple[Path, list[Breach]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The guard's store is frozen, the hook is called until it answers, the command gets the breach; all of it once."""
    HookReceiver.requests.clear()
    server = http.server.HTTPServer(("127.0.0.1", 0), HookReceiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    guard, out_path = tmp_path / "acted", tmp_path / "told.json"
    command = f"{sys.executable} -c \"import sys; open(r'{out_path}', 'a').write(sys.stdin.read())\""
    options = ["--state", str(tmp_path / "state"), "--guard", str(guard), "--hook-command", command]
    options += ["--hook-url", f"http://127.0.0.1:{server.server_port}/", "--once", "--json"]
    for _ in range(2):
        assert main(["watch", str(journal[0]), *options]) == 1
    server.shutdown()
    server.server_close()
    breaches = journal[1]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [breach["invariant"] for breach in lines] == [breach.invariant for breach in breaches]
    store = FreezeStore(guard / "guard.db")
    assert {breach.scope for breach in store.active_freezes()} == {breach.scope for breach in breaches}
    assert len(store.breaches()) == len(breaches)
    store.close()
    assert len(set(HookReceiver.requests)) == len(breaches)
    assert HookReceiver.requests[0] in HookReceiver.requests[1:]
    assert out_path.read_text().count('"invariant"') == len(breaches)
    assert main(["status", "--guard", str(guard)]) == 1


def test_lines_of_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """On standard input: a breach is found, rubbish is named, lines that were judged before are passed by."""
    order = Order(
        root_cl_ord_id="X",
        cl_ord_id="X",
        symbol="S",
        side=Side.BUY,
        order_qty=10,
        leaves_qty=10,
        ord_status=OrdStatus.NEW,
        strategy="s",
    )
    good = {"seq": 1, "subsystem": "orders", "kind": "Order", "record": order}
    wrong = {**good, "seq": 2, "record": msgspec.structs.replace(order, leaves_qty=9)}
    lines = [msgspec.json.encode(entry) for entry in (good, {"record": 1}, wrong)]

    def feed_lines(*input_lines: bytes) -> int:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(input_lines) + b"\n")))
        return main(["watch", "-", "--state", str(tmp_path / "state")])

    assert feed_lines(lines[0]) == 0
    assert feed_lines(*lines) == 1
    captured = capsys.readouterr()
    assert "BREACH order-quantity-conserved" in captured.out
    assert "line 3 is no mutation" in captured.err
    assert feed_lines(*lines) == 1
    assert capsys.readouterr().out == ""


def test_exit_codes_and_problems(
    fix_log: Path, journal: tuple[Path, list[Breach]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to judge is 3, no file is 2, another watch's state is 2, a damaged one too."""
    empty, state = tmp_path / "empty", tmp_path / "kept"
    empty.write_bytes(b"")
    assert main(["watch", str(empty), "--once"]) == 3
    assert main(["watch", str(tmp_path / "none"), "--once"]) == 2
    assert main(["watch", str(fix_log), "--once", "--state", str(state)]) == 1
    assert main(["watch", str(fix_log), "--once", "--state", str(state)]) == 1
    assert main(["watch", str(journal[0]), "--once", "--state", str(state)]) == 2
    assert "belongs to a watch of" in capsys.readouterr().err
    (state / watching.STATE).write_bytes(b"rubbish")
    assert main(["watch", str(fix_log), "--once", "--state", str(state)]) == 2
    assert "the state of a watch is damaged" in capsys.readouterr().err
