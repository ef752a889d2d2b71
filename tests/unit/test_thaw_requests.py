"""Thaw requests: the running guard decides; when none is running, its saved state decides."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from holdover.cli import main
from holdover.runtime import FreezeStore, Guard, ThawRefusedError, ThawRequest
from holdover.runtime.heartbeat import Beat
from holdover.runtime.thaw_requests import find_guard_config, thaw

from .orders import BAD, GOOD


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A configuration."""
    path = tmp_path / "desk.toml"
    path.write_text('[guard]\ndirectory = "guard"\nname = "desk"\nobey_within_ms = 50\n[pages]\nlog = false\n')
    return path


@pytest.fixture
def running(desk: Path) -> Iterator[Guard]:
    """A guard that runs, with its threads."""
    guard = Guard.open(desk)
    yield guard
    guard.close()


def make_thaw_request(**fields: str) -> ThawRequest:
    """A thaw of IBM."""
    values = {"scope": "instrument:IBM", "operator": "op", "reason": "why", "evidence": "what", **fields}
    return ThawRequest(number=0, **values)


def test_the_running_guard_judges(desk: Path, running: Guard) -> None:
    """It refuses while the invariant fails, thaws when it holds, and lets messages out again without a restart."""
    config = find_guard_config(desk)
    store = config.open_store()
    running.record("orders", BAD)
    with pytest.raises(ThawRefusedError, match="still does not hold"):
        thaw(config, store, make_thaw_request())
    assert running.active_freezes
    running.record("orders", GOOD)
    outcome = thaw(config, store, make_thaw_request())
    assert (outcome.ended_count >= 1, outcome.judged_by) == (True, "desk")
    assert not running.active_freezes


def test_a_second_person_forces_the_running_guard(desk: Path, running: Guard) -> None:
    """Also there; and the audit log names both."""
    config = find_guard_config(desk)
    running.record("orders", BAD)
    thaw(config, config.open_store(), make_thaw_request(forced_by="other"))
    assert not running.active_freezes
    audit_entry = json.loads(next(detail for _, _, action, detail in running.store.audit_rows() if action == "thaw"))
    assert (audit_entry["operator"], audit_entry["forced_by"]) == ("op", "other")


def test_a_guard_that_does_not_answer_is_said_to(desk: Path) -> None:
    """Nothing is thawed, and the request is withdrawn: it will not be acted on later."""
    guard = Guard.open(desk)
    guard.record("orders", BAD)
    assert guard.services.freeze_watcher is not None
    guard.services.freeze_watcher.stop()
    config = find_guard_config(desk)
    store = config.open_store()
    with pytest.raises(ThawRefusedError, match=r"has not answered within 0\.1 s"):
        thaw(config, store, make_thaw_request(), wait_s=0.1)
    assert store.active_freezes()
    assert store.open_thaw_requests("desk", 0) == []
    guard.close()


def test_a_stopped_guard_leaves_its_memory_to_judge(desk: Path) -> None:
    """As after a restart: the memory says that the order is right again."""
    guard = Guard.open(desk)
    guard.record("orders", BAD)
    guard.save_memory()
    guard.close()
    config = find_guard_config(desk)
    with pytest.raises(ThawRefusedError, match="still does not hold"):
        thaw(config, config.open_store(), make_thaw_request())
    guard = Guard.open(desk)
    guard.record("orders", GOOD)
    guard.save_memory()
    guard.close()
    assert thaw(config, config.open_store(), make_thaw_request()).judged_by == ""
    assert config.open_store().active_freezes() == []


def test_nobody_judges_by_a_memory_that_is_not_his(desk: Path, running: Guard) -> None:
    """A scope that a guard elsewhere froze, which is gone, needs that guard or a second person."""
    config = find_guard_config(desk)
    other_store = FreezeStore(config.directory / "guard.db", "elsewhere")
    running.record("orders", BAD)
    breach = msgspec.structs.replace(running.breaches[0], scope="account:X", time_ns=5)
    page = msgspec.structs.replace(running.store.all_pages()[0], dedup_key="x/account:X")
    other_store.record_breach(breach, [], page, [])
    assert running.services.heartbeat is not None
    beat: Beat = msgspec.structs.replace(running.services.heartbeat.current_beat(), time_ns=1)
    other_store.write_heartbeat("elsewhere", 1, msgspec.json.encode(beat))
    with pytest.raises(ThawRefusedError, match="its memory is not here"):
        thaw(config, other_store, make_thaw_request(scope="account:X"))
    assert thaw(config, other_store, make_thaw_request(scope="account:X", forced_by="second")).ended_count == 1


def test_a_damaged_memory_judges_nothing(desk: Path) -> None:
    """It is refused in words, and a second person can still force it."""
    guard = Guard.open(desk)
    guard.record("orders", BAD)
    guard.close()
    config = find_guard_config(desk)
    (config.directory / "monitor.memory").write_bytes(b"\x00damaged")
    with pytest.raises(ThawRefusedError, match="cannot be read"):
        thaw(config, config.open_store(), make_thaw_request())
    assert thaw(config, config.open_store(), make_thaw_request(forced_by="second")).ended_count >= 1


def test_the_verbs_take_the_configuration(desk: Path, running: Guard, capsys: pytest.CaptureFixture[str]) -> None:
    """Freeze by hand, see it, acknowledge the page of a breach, read the log; all by desk.toml."""
    place = ["--guard", str(desk)]
    by = ["--operator", "op", "--reason", "test"]
    assert main(["freeze", "account:A", *place, *by]) == 0
    assert main(["freeze", "IBM", *place, *by]) == 2
    assert "is no scope" in capsys.readouterr().err
    assert main(["status", *place]) == 1
    running.record("orders", BAD)
    key = "order-quantity-conserved/instrument:IBM"
    capsys.readouterr()
    assert main(["pages", *place]) == 0
    assert f"nobody has acknowledged; key {key}" in capsys.readouterr().out
    assert main(["ack", key, *place, "--operator", "op"]) == 0
    assert main(["ack", key, *place, "--operator", "op"]) == 2
    assert main(["ack", "nothing", *place, "--operator", "op"]) == 2
    assert "no alert is open under nothing" in capsys.readouterr().err
    assert main(["audit-log", *place]) == 0
    output = capsys.readouterr().out
    assert "by hand: op" in output
    assert f"head: {running.store.audit_head()}" in output
    assert main(["thaw", "account:A", *place, *by, "--evidence", "e"]) == 0
    assert "account:A" not in running.frozen_scopes()


def test_health_by_its_exit_code(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 healthy, 1 frozen, 3 silent; a silent one is paged about once, and nobody knows anything before the first."""
    (desk.parent / "guard").mkdir()
    FreezeStore(desk.parent / "guard" / "guard.db").close()
    place = ["--guard", str(desk)]
    assert main(["health", *place]) == 3
    guard = Guard.open(desk)
    assert main(["health", *place]) == 0
    guard.record("orders", BAD)
    assert guard.services.heartbeat is not None
    guard.services.heartbeat.write_beat()
    assert main(["health", *place]) == 1
    guard.close()
    beat = msgspec.structs.replace(guard.services.heartbeat.current_beat(), time_ns=time.time_ns() - 60_000_000_000)
    store = find_guard_config(desk).open_store()
    store.write_heartbeat("desk", beat.time_ns, msgspec.json.encode(beat))
    for _ in range(2):
        assert main(["health", *place, "--page"]) == 3
    assert "SILENT" in capsys.readouterr().out
    pages = (desk.parent / "guard" / "pages.jsonl").read_text()
    assert pages.count('"heartbeat/desk"') == 1


def test_a_changed_log_is_told(desk: Path, running: Guard, capsys: pytest.CaptureFixture[str]) -> None:
    """audit-log ends with 1."""
    running.record("orders", BAD)
    running.store.database.write(lambda run: run("UPDATE audit SET detail='nothing' WHERE number=1"))
    assert main(["audit-log", "--guard", str(desk)]) == 1
    assert "audit row 1 was changed" in capsys.readouterr().out
