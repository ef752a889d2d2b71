"""What a guard and its companions write is for its owner only, and what leaves them is redacted."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdover.cli import main
from holdover.harness import Session, SessionConfig, resolve_factory
from holdover.recording import bundled_store
from holdover.runtime import Guard
from holdover.runtime.channels import PagerDutyChannel, WebhookChannel
from holdover.runtime.config import read_config
from holdover.runtime.files import make_private, make_private_directory, open_private, write_whole
from holdover.runtime.redaction import SALT_FILE, RedactionRules, load_salt
from holdover.runtime.traces import trace_guard
from holdover.watch import FixJudge, Offset, Spool, Watch

from .orders import order

ACCOUNT = "DE4471900211"
PASSWORD = "correct-horse-battery"
API_KEY = "sk4f0d9a7713bb"


@pytest.fixture(params=[0o000, 0o022])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """A umask that would let others read and write."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def list_open_to_others(directory: Path) -> list[str]:
    """Return what somebody else could read, write or enter below a directory, with it."""
    return [
        f"{path.relative_to(directory.parent)} {stat.S_IMODE(path.lstat().st_mode):04o}"
        for path in [directory, *directory.rglob("*")]
        if not path.is_symlink() and path.lstat().st_mode & 0o077
    ]


def guard_config(directory: Path, text: str = "") -> Path:
    """Write the configuration of a guard in `guard`, and return its path."""
    path = directory / "guard.toml"
    path.write_text(f'[guard]\ndirectory = "guard"\njournal_max_mb = 0.001\n[redact]\nfields = ["account"]\n{text}')
    return path


def breach_once(guard: Guard) -> None:
    """Record an order that cannot be, with secrets in its record, its text and its scope."""
    good = order(account=ACCOUNT, strategy="S")
    with guard.step(f"new password={PASSWORD}"):
        guard.record("orders", good)
    for number in range(20):
        with guard.step("new"):
            guard.record("orders", replace(good, root_cl_ord_id=f"R{number}", cl_ord_id=f"R{number}"))
    with guard.step(f"report api_key={API_KEY}"):
        guard.record("orders", replace(good, leaves_qty=good.leaves_qty + 7))


# -- permissions ------------------------------------------------------------------------------------------------------


def test_a_guard_writes_for_its_owner_only(tmp_path: Path, umask: int) -> None:
    """From the first byte: the modes are checked while the guard runs, and after it."""
    guard = Guard.open(guard_config(tmp_path))
    try:
        breach_once(guard)
        guard.pager.deliver_due()
        assert guard.breaches
        assert list_open_to_others(tmp_path / "guard") == []
        names = {path.name for path in (tmp_path / "guard").rglob("*")}
        assert {"guard.db", "guard.db-wal", "guard.db-shm", "pages.jsonl", SALT_FILE} <= names
    finally:
        guard.close()
    assert list((tmp_path / "guard" / "bundles").glob("*.hbundle"))
    assert list_open_to_others(tmp_path / "guard") == []


def test_a_day_of_the_desk_is_for_its_owner_only(tmp_path: Path, umask: int) -> None:
    session = Session(
        resolve_factory("desk"), bundled_store(), ["BOLT"], tmp_path / "s", SessionConfig(days=["2024-11-27"])
    )
    session.close()
    for path in (tmp_path / "s").rglob("guard*"):
        assert list_open_to_others(path) == []


def test_files_of_an_earlier_release_become_private(tmp_path: Path) -> None:
    guard = Guard.open(guard_config(tmp_path))
    guard.close()
    for path in (tmp_path / "guard").iterdir():
        path.chmod(0o644)
    guard = Guard.open(guard_config(tmp_path))
    breach_once(guard)
    guard.close()
    still_open = {line.split()[0].rpartition("/")[2] for line in list_open_to_others(tmp_path / "guard")}
    assert still_open & {"guard.db", "guard.db-wal", "pages.jsonl"} == set()


def test_a_sidecar_writes_for_its_owner_only(tmp_path: Path, umask: int) -> None:
    watch = Watch("s", FixJudge(Guard(tmp_path / "g").catalogue, "s"), "d", [], print, print, tmp_path / "state")
    watch.judge_lines([b"8=FIX.4.4|35=0|\n"], 1)
    watch.save(Offset(line=1), force=True)
    watch.close()
    spool = Spool(tmp_path / "spool", size_max=10)
    spool.append(b"message")
    spool.close()
    assert list_open_to_others(tmp_path / "state") + list_open_to_others(tmp_path / "spool") == []


@given(mode=st.integers(0, 0o777), umask_value=st.sampled_from([0, 0o022, 0o077, 0o777]))
@settings(max_examples=30, deadline=None)
def test_a_private_file_is_private(tmp_path_factory: pytest.TempPathFactory, mode: int, umask_value: int) -> None:
    """Law: whatever the umask, and whatever permissions a file of that name had."""
    directory = tmp_path_factory.mktemp("private")
    before = os.umask(umask_value)
    try:
        (directory / "old").touch()
        (directory / "old").chmod(mode | 0o600)
        open_private(directory / "old").close()
        open_private(directory / "new").close()
        make_private(directory / "made")
        make_private(directory / "old")
        write_whole(directory / "whole", b"x")
        make_private_directory(directory / "a" / "b")
    finally:
        os.umask(before)
    for name in ("old", "new", "made", "whole", "a", "a/b"):
        assert not (directory / name).stat().st_mode & 0o077


def test_an_existing_directory_keeps_its_permissions(tmp_path: Path) -> None:
    """A guard may be made in the working directory, which is not ours to close."""
    (tmp_path / "shared").mkdir(mode=0o755)
    make_private_directory(tmp_path / "shared")
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o755


# -- redaction --------------------------------------------------------------------------------------------------------


class _Receiver:
    """An HTTP server on loopback that keeps what is posted to it."""

    def __init__(self) -> None:
        bodies = self.bodies = []  # type: list[bytes]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(str(self.headers).encode() + self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Write nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[_Receiver]:
    receiver = _Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


class _Tracer:
    """A tracer that keeps every attribute."""

    def __init__(self) -> None:
        self.attributes: list[Any] = []

    def get_tracer(self, name: str) -> _Tracer:
        return self

    def start_as_current_span(self, name: str, attributes: Any) -> Any:
        import contextlib

        self.attributes.append(attributes)
        return contextlib.nullcontext(self)

    def add_event(self, name: str, attributes: Any) -> None:
        self.attributes.append(attributes)


def test_planted_secrets_leave_in_no_output(
    tmp_path: Path, receiver: _Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """An account number, a password and an API key, hunted in alerts, pages, bundles, logs, traces and metrics."""
    caplog.set_level(logging.DEBUG)
    for name in ("holdover", "holdover.guard", "holdover.pager"):
        caplog.set_level(logging.DEBUG, name)
    config = guard_config(tmp_path, f'[[pages.channel]]\nname = "hook"\nkind = "webhook"\nurl = "{receiver.url}"\n')
    guard = Guard.open(config)
    guard.pager.channels["pd"] = PagerDutyChannel("key", "pd", receiver.url)
    guard.pager.channels["web"] = WebhookChannel(receiver.url, "web")
    tracer = _Tracer()
    pytest.importorskip("opentelemetry")
    trace_guard(guard, tracer)
    breach_once(guard)
    guard.freeze(f"account:{ACCOUNT}", operator="ann", reason=f"password={PASSWORD}")
    guard.pager.deliver_due()
    for alert in guard.store.alerts():
        assert ACCOUNT in repr(alert.page), "the store has the page as it is, so that the guard can work with it"
        for name in ("pd", "web"):
            guard.pager.channels[name].deliver(guard.pager.redact(alert.page))
    from holdover.runtime.metrics import make_guard_reader

    metrics = repr(make_guard_reader(guard)().freezes)
    guard.close()
    outputs = {
        "alerts": b"\n".join(receiver.bodies).decode(),
        "pages": (tmp_path / "guard" / "pages.jsonl").read_text(),
        "logs": caplog.text,
        "traces": repr(tracer.attributes),
        "metrics": metrics,
    }
    for path in (tmp_path / "guard" / "bundles").glob("*.hbundle"):
        with zipfile.ZipFile(path) as archive:
            outputs["bundle"] = "".join(archive.read(name).decode("latin-1") for name in archive.namelist())
    assert {"bundle", "alerts", "traces"} <= outputs.keys()
    assert len(receiver.bodies) >= 3
    mark = RedactionRules(["account"], salt=load_salt(tmp_path / "guard")).pseudonymize(ACCOUNT)
    for name, text in outputs.items():
        assert text, name
        for secret in (ACCOUNT, PASSWORD, API_KEY):
            assert secret not in text, (name, secret)
    assert mark in outputs["bundle"]
    assert mark in outputs["metrics"]


def test_a_scope_of_an_alert_can_be_thawed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The alert shows a mark in place of the account; the command that it prints takes the mark."""
    config = guard_config(tmp_path)
    Guard.open(config).close()
    words = ["--guard", str(config), "--operator", "ann", "--reason", "checked"]
    assert main(["freeze", f"account:{ACCOUNT}", *words]) == 0
    mark = read_config(config).redaction_rules().redact_scope(f"account:{ACCOUNT}")
    assert ACCOUNT not in mark
    assert main(["thaw", mark, *words, "--evidence", "statement"]) in (0, 2)
    output = capsys.readouterr()
    assert "is not frozen" not in output.out + output.err
    assert "nothing is frozen" not in output.out + output.err


def test_a_mark_says_nothing_without_the_salt(tmp_path: Path) -> None:
    """Two installations give one account two marks; one gives it the same mark every time."""
    rules = [RedactionRules(["account"], salt=load_salt(tmp_path / name)) for name in ("a", "a", "b")]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    rules = [RedactionRules(["account"], salt=load_salt(tmp_path / name)) for name in ("a", "a", "b")]
    first, second, other = (rule.redact_value({"account": ACCOUNT})["account"] for rule in rules)
    assert first == second != other
    assert stat.S_IMODE((tmp_path / "a" / SALT_FILE).stat().st_mode) == 0o600


@given(value=st.text(min_size=4, max_size=20), before=st.text(max_size=10), after=st.text(max_size=10))
@settings(max_examples=200)
def test_a_learned_value_is_in_no_text(value: str, before: str, after: str) -> None:
    """Law: between separators the value is always found, and redacting twice changes nothing."""
    rules = RedactionRules(["account"])
    assert value not in rules.redact_value({"account": value})["account"]
    text = rules.redact_text(f"{before} {value} {after}")
    assert f" {value} " not in text or value in rules.pseudonymize(value)
    assert rules.redact_value(rules.redact_value({"account": value})) == rules.redact_value({"account": value})


def test_the_json_of_a_page_is_json(tmp_path: Path) -> None:
    guard = Guard.open(guard_config(tmp_path))
    breach_once(guard)
    guard.pager.deliver_due()
    guard.close()
    lines = (tmp_path / "guard" / "pages.jsonl").read_text().splitlines()
    assert all(json.loads(line)["dedup_key"] for line in lines)
