"""What a guard knows after a kill: the saved memory and the journal behind it, one owner, no bit misread."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdover.cli import main
from holdover.console import LoginThrottle
from holdover.runtime import Guard, StoreError, ThawRefusedError, ThawRequest
from holdover.runtime.guard_folder import read_lock
from holdover.runtime.memory_file import read_memory_file
from holdover.runtime.thaw_requests import find_guard_config, thaw
from holdover.state import StateError

from .orders import BAD, GOOD, request

_KILLED = """
import os, signal, sys
from holdover.runtime import Guard
from tests.unit.orders import BAD, GOOD
guard = Guard.open(sys.argv[1])
for act in sys.argv[2:]:
    if act == "save":
        guard.save_memory()
    elif act == "reconciled":
        guard.reconciled("2024-01-02")
    else:
        guard.record("orders", {"bad": BAD, "good": GOOD}[act])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A configuration."""
    return write_config(tmp_path)


def write_config(directory: Path, name: str = "desk", more: str = "") -> Path:
    """Write a configuration of a guard in the folder `guard`."""
    path = directory / f"{name}.toml"
    path.write_text(f'[guard]\ndirectory = "guard"\nname = "{name}"\n{more}\n[pages]\nlog = false\n')
    return path


def run_killed(config: Path, *acts: str) -> None:
    """Do the acts in another process, which then kills itself."""
    ended = run_other(config, *acts)
    assert ended.returncode == -9, ended.stderr


def run_other(config: Path, *acts: str) -> subprocess.CompletedProcess[str]:
    """Do the acts in another process."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    return subprocess.run(
        [sys.executable, "-c", _KILLED, str(config), *acts],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def make_request(**fields: str) -> ThawRequest:
    """A thaw of IBM."""
    values = {"scope": "instrument:IBM", "operator": "op", "reason": "why", "evidence": "what", **fields}
    return ThawRequest(number=0, **values)


@pytest.mark.parametrize("acts", [("bad",), ("good", "save", "bad"), ("good", "reconciled", "save", "good", "bad")])
def test_after_a_kill_the_freeze_is_judged_by_what_was_recorded(desk: Path, acts: tuple[str, ...]) -> None:
    """The dead process never saved what it broke; its journal has it. Also without a process to judge."""
    run_killed(desk, *acts)
    config = find_guard_config(desk)
    with pytest.raises(ThawRefusedError, match="still does not hold"):
        thaw(config, config.open_store(), make_request())
    breach_count = len(config.open_store().breaches())
    guard = Guard.open(desk)
    assert guard.memory_is_current
    assert len(guard.store.breaches()) == breach_count  # the replay reported nothing again
    with pytest.raises(ThawRefusedError, match="still does not hold"):
        guard.thaw("instrument:IBM", operator="op", reason="why", evidence="what")
    guard.record("orders", GOOD)
    guard.thaw("instrument:IBM", operator="op", reason="why", evidence="what")
    guard.close()


def test_a_repair_before_the_kill_is_known(desk: Path) -> None:
    """The twin: what was put right before the kill needs no second person."""
    run_killed(desk, "bad", "good")
    config = find_guard_config(desk)
    assert thaw(config, config.open_store(), make_request()).ended_count >= 1


def test_nothing_is_thawed_without_a_memory(desk: Path) -> None:
    """Memory and journal are gone: nobody knows, so nobody thaws alone, and the refusal says what would help."""
    run_killed(desk, "bad", "good", "save")
    for name in ("monitor.memory", "journal.jsonl"):
        (desk.parent / "guard" / name).unlink()
    config = find_guard_config(desk)
    with pytest.raises(ThawRefusedError, match=r"there is no saved memory .* reported `reconciled`"):
        thaw(config, config.open_store(), make_request())
    assert thaw(config, config.open_store(), make_request(forced_by="second")).ended_count >= 1


def test_a_memory_of_this_morning_is_not_believed(tmp_path: Path) -> None:
    """Without a journal nobody knows what came after it; `reconciled` makes the memory current again."""
    config = write_config(tmp_path, more="journal = false")
    run_killed(config, "good", "save", "bad")
    with pytest.raises(ThawRefusedError, match="recorded without a journal"):
        thaw(find_guard_config(config), find_guard_config(config).open_store(), make_request())
    guard = Guard.open(config)
    assert not guard.memory_is_current
    with guard.step("restart"):
        guard.restore("orders", [GOOD])
    with pytest.raises(ThawRefusedError, match="is unknown"):
        guard.thaw("instrument:IBM", operator="op", reason="why", evidence="what")
    guard.reconciled("2024-01-02")
    assert guard.memory_is_current
    assert guard.thaw("instrument:IBM", operator="op", reason="why", evidence="what") >= 1
    guard.close()


def test_a_memory_that_is_not_current_stays_so_over_a_close(tmp_path: Path) -> None:
    """Saving it again does not make it know more."""
    config = write_config(tmp_path, more="journal = false")
    run_killed(config, "good", "save", "bad")
    Guard.open(config).close()
    guard = Guard.open(config)
    assert "without a journal" in guard.memory_problem
    guard.close()


def test_close_saves_the_memory(desk: Path) -> None:
    """As it says."""
    guard = Guard.open(desk)
    guard.record("orders", BAD)
    guard.close()
    assert (desk.parent / "guard" / "monitor.memory").exists()
    config = find_guard_config(desk)
    with pytest.raises(ThawRefusedError, match="still does not hold"):
        thaw(config, config.open_store(), make_request())


def test_a_cut_off_last_line_costs_itself_only(desk: Path) -> None:
    """The step that a kill cut off was not finished; everything before it is known."""
    run_killed(desk, "bad")
    with open(desk.parent / "guard" / "journal.jsonl", "ab") as journal:
        journal.write(b'{"seq":9,"time_ns":1,"subsys')
    guard = Guard.open(desk)
    assert guard.memory_is_current
    assert guard.monitor.mutations >= 1
    guard.close()


def test_a_damaged_line_is_known_to_be_missing(desk: Path) -> None:
    """In the middle of what must be replayed: the rest is applied, and the memory is not current."""
    run_killed(desk, "good", "bad")
    path = desk.parent / "guard" / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    index = next(index for index, line in enumerate(lines) if b'"record"' in line)
    lines[index] = b"\x00" * (len(lines[index]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    guard = Guard.open(desk)
    assert guard.memory_problem == "1 lines of journal.jsonl are lost or damaged"
    guard.close()


def test_a_directory_has_one_owner(desk: Path) -> None:
    """A second process of that name is refused, and told which process runs; another name has files of its own."""
    guard = Guard.open(desk)
    refused = run_other(desk, "good")
    assert f"the guard desk runs already, in process {os.getpid()}: stop it" in refused.stderr
    other = Guard.open(write_config(desk.parent, "other"))
    other.record("orders", GOOD)
    other.close()
    guard.close()
    names = {path.name for path in (desk.parent / "guard").iterdir()}
    assert {"monitor.memory", "monitor-other.memory", "journal.jsonl", "journal-other.jsonl"} <= names
    record = read_lock(desk.parent / "guard" / "guard.lock")
    assert record is not None
    assert (record.name, record.is_closed) == ("desk", True)
    Guard.open(desk).close()  # a lock ends with its process


def test_a_silent_owner_is_not_talked_over(desk: Path) -> None:
    """The guard runs, but reports nothing: its memory is not read behind its back."""
    guard = Guard.open(desk)
    guard.record("orders", BAD)
    assert guard.services.heartbeat is not None
    guard.services.heartbeat.stop()  # the heartbeat says that the process has stopped, the lock that it has not
    root = Path(__file__).resolve().parents[2]
    verb = ["thaw", "instrument:IBM", "--guard", str(desk), "--operator", "op", "--reason", "r", "--evidence", "e"]
    ended = subprocess.run(
        [sys.executable, "-m", "holdover", *verb],
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, "runs already, in process" in ended.stderr) == (2, True), ended.stderr
    guard.close()


def test_a_guard_left_without_close_gives_way(desk: Path) -> None:
    """In one process, as after a kill: the new guard knows what the former one recorded, and has the files."""
    former = Guard.open(desk)
    former.record("orders", BAD)
    guard = Guard.open(desk)
    assert guard.memory_is_current
    assert guard.monitor.holds("order-quantity-conserved", "orders", "Order", "A1") is False
    former.close()
    assert not (desk.parent / "guard" / "monitor.memory").exists()
    guard.close()
    assert (desk.parent / "guard" / "monitor.memory").exists()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_is_misread(tmp_path: Path, data: st.DataObject) -> None:
    """In the saved memory: any one is noticed, and the message names the file and the next step."""
    path = tmp_path / "guard" / "monitor.memory"
    if not path.exists():
        guard = Guard.open(write_config(tmp_path))
        guard.record("orders", GOOD)
        guard.close()
        (tmp_path / "whole").write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    position = data.draw(st.integers(0, len(content) * 8 - 1))
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(bytes(content))
    with pytest.raises(StateError, match=r"monitor\.memory.*remove it"):
        read_memory_file(path)


def test_a_freeze_holds_before_it_can_be_written(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store fails: the operator is told so, nothing leaves, and the freeze is written when the store is back."""
    guard = Guard.open(desk)
    assert guard.services.freeze_watcher is not None
    guard.services.freeze_watcher.stop()
    with monkeypatch.context() as patch:
        patch.setattr(guard.store, "freeze", _fail)
        with pytest.raises(StoreError, match="no space"):
            guard.freeze("instrument:IBM", operator="op", reason="seen")
        assert not guard.permits(request())
    assert guard.store.active_freezes() == []
    guard.freezes.follow_store()
    assert [freeze.scope for freeze in guard.store.active_freezes()] == ["instrument:IBM"]
    assert guard.frozen_scopes() == ["instrument:IBM"]
    assert guard.thaw("instrument:IBM", operator="op", reason="why", evidence="what") == 1
    assert guard.permits(request())
    guard.close()


def _fail(*args: object) -> None:
    raise StoreError("no space left on the device")


def test_an_invalid_freeze_freezes_nothing(desk: Path) -> None:
    """The twin: what is refused for its content does not hold in memory either."""
    guard = Guard.open(desk)
    with pytest.raises(ValueError, match="cannot allow everything"):
        guard.freeze("instrument:IBM", operator="op", reason="seen", allows=("everything",))
    with pytest.raises(ValueError, match="printable"):
        guard.freeze("instrument:IBM", operator="op\n     9 thaw", reason="seen")
    assert guard.frozen_scopes() == []
    guard.close()


def test_a_refused_thaw_is_in_the_audit_log(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line, also for a wrong approver; the second person is authenticated and has the role."""
    run_killed(desk, "bad")
    verb = ["thaw", "instrument:IBM", "--guard", str(desk), "--operator", "op", "--reason", "r", "--evidence", "e"]
    passwords = {"ann": "correct horse battery", "bob": "quiet otters paint seven lamps"}
    for name, role in (("ann", "approver"), ("bob", "operator")):
        path = desk.parent / name
        path.write_text(passwords[name])
        path.chmod(0o600)
        user = ["users", "add", name, "--role", role, "--config", str(desk), "--password-file", str(path)]
        assert main(user) == 0
    secret = str(desk.parent / "ann")
    assert main(verb) == 2
    assert main([*verb, "--force-by", "bob", "--password-file", str(desk.parent / "bob")]) == 2
    assert "bob has the role operator" in capsys.readouterr().err
    assert main([*verb, "--force-by", "ann", "--password-file", str(desk.parent / "bob")]) == 2
    assert main([*verb, "--force-by", "op", "--password-file", secret]) == 2
    assert main([*verb, "--force-by", "an\x1b[2Kn", "--password-file", secret]) == 2
    rows = find_guard_config(desk).open_store().audit_rows()
    assert [action for _, _, action, _ in rows].count("thaw refused") == 4
    assert [action for _, _, action, _ in rows].count("approval failed") == 2
    assert main([*verb, "--force-by", "ann", "--password-file", secret]) == 0


def test_an_approver_is_locked_out_after_ten_tries(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over processes: the store counts. Wrong passwords at a console count apart."""
    run_killed(desk, "bad")
    verb = ["thaw", "instrument:IBM", "--guard", str(desk), "--operator", "op", "--reason", "r", "--evidence", "e"]
    path = desk.parent / "ann"
    path.write_text("correct horse battery")
    path.chmod(0o600)
    assert main(["users", "add", "ann", "--role", "approver", "--config", str(desk), "--password-file", str(path)]) == 0
    wrong = desk.parent / "wrong"
    wrong.write_text("not the password")
    wrong.chmod(0o600)
    store = find_guard_config(desk).open_store()
    throttle = LoginThrottle(store)
    for number in range(40):
        throttle.admit("ann", throttle.find_origin("ann", f"10.0.0.{number % 4}", "", time.time_ns()), time.time_ns())
    for _ in range(10):
        assert main([*verb, "--force-by", "ann", "--password-file", str(wrong)]) == 2
        assert "do not go together" in capsys.readouterr().err
    assert main([*verb, "--force-by", "ann", "--password-file", str(path)]) == 2
    assert "too many wrong passwords of ann" in capsys.readouterr().err
