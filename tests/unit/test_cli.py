"""The verbs apart from `cycle`: output and exit codes."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdover import cli
from holdover.cli import main
from holdover.cli.verbs import VERBS, list_modules
from holdover.recording import bundled_store
from holdover.runtime import Guard

from .orders import BAD, GOOD


def run_verb(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and standard output."""
    code = main(list(arguments))
    return code, capsys.readouterr().out


def test_status_pages_and_thaw(make_guard: Callable[..., Guard], capsys: pytest.CaptureFixture[str]) -> None:
    """What is frozen is told, the page has the steps, a thaw needs what a thaw needs."""
    guard = make_guard()
    place = str(guard.directory)
    assert run_verb(capsys, "status", "--guard", place)[0] == 0
    guard.record("orders", BAD)
    guard.save_memory()
    guard.close()
    code, output = run_verb(capsys, "status", "--guard", place, "--json")
    assert (code, json.loads(output)["frozen"][0]["scope"]) == (1, "instrument:IBM")
    thaw = ["thaw", "instrument:IBM", "--guard", place, "--operator", "op", "--reason", "why", "--evidence", "what"]
    assert main(thaw) == 2
    assert "still does not hold" in capsys.readouterr().err
    assert main([*thaw, "--force-by", "other"]) == 2
    assert "no approver: to add one, run `holdover users add other" in capsys.readouterr().err
    password = guard.directory / "password"
    password.write_text("correct horse battery")
    password.chmod(0o600)
    user = ["users", "add", "other", "--role", "approver", "--config", place, "--password-file", str(password)]
    assert main(user) == 0
    assert main([*thaw, "--force-by", "other", "--password-file", str(password)]) == 0
    assert run_verb(capsys, "status", "--guard", place)[0] == 0
    assert main(["status", "--guard", "/nonexistent"]) == 2


def test_a_thaw_after_the_repair_needs_no_second_person(make_guard: Callable[..., Guard]) -> None:
    """The guard's memory knows that the order is right again."""
    guard = make_guard()
    guard.record("orders", BAD)
    guard.record("orders", GOOD)
    guard.save_memory()
    guard.close()
    place = str(guard.directory)
    arguments = ["--guard", place, "--operator", "op", "--reason", "why", "--evidence", "what", "--force-by", ""]
    assert main(["thaw", "instrument:IBM", *arguments]) == 0


def test_snapshots_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Take, list, show, diff, restore."""
    store, work = str(tmp_path / "store"), str(tmp_path / "work")
    code, output = run_verb(
        capsys, "snapshot", "take", "--instrument", "BOLT", "--store", store, "--work", work, "--json"
    )
    name = json.loads(output)["name"]
    assert code == 0
    assert name in run_verb(capsys, "snapshot", "list", "--store", store)[1]
    assert "subject/desk.db" in run_verb(capsys, "snapshot", "show", name[:6], "--store", store)[1]
    assert run_verb(capsys, "snapshot", "diff", name, name, "--store", store)[0] == 0
    assert run_verb(capsys, "snapshot", "restore", name, "--into", str(tmp_path / "back"), "--store", store)[0] == 0
    assert (tmp_path / "back" / "desk.db").stat().st_size > 0
    assert main(["snapshot", "show", "ffffff", "--store", store]) == 2
    assert "no snapshot is called ffffff" in capsys.readouterr().err


def test_the_desk_keeps_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    """And a thing that is no subject has all its problems listed at once."""
    assert run_verb(capsys, "subject", "check", "desk")[0] == 0
    code, output = run_verb(capsys, "subject", "check", "types:SimpleNamespace", "--json")
    assert code == 1
    assert json.loads(output)["problems"]


def test_a_hollow_subject_is_seen_through(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that records nothing and keeps nothing is told so, point by point."""
    (tmp_path / "hollow.py").write_text(
        "class Hollow:\n    accounts = ['A']\n    def __init__(self, plan): pass\n    def start(self, env): pass\n"
        "    def stop(self): pass\n"
        "class Wrong:\n    accounts = 'A'\n    def __init__(self, plan): pass\n    def start(self): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, output = run_verb(capsys, "subject", "check", "hollow:Hollow")
    assert code == 1
    assert "never recorded a Order" in output
    assert "kept nothing in env.directory" in output
    code, output = run_verb(capsys, "subject", "check", "hollow:Wrong")
    assert output.count("\n- ") + output.startswith("- ") == 3
    sys.modules.pop("hollow", None)


@pytest.mark.parametrize("verb", ["list", "show", "choose"])
def test_the_bundled_recordings_are_told(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """Without a folder the bundled ones are meant."""
    options = ["--days", "2"] if verb == "choose" else []
    code, output = run_verb(capsys, "recording", verb, *options)
    assert code == 0
    assert "2024-11-27" in output


def test_verify_says_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit code 1, the file named, the reason said."""

    data = bytearray(bundled_store().get("BOLT", "2024-11-29").path.read_bytes())
    data[-50] ^= 1
    (tmp_path / "x.hrec").write_bytes(data)
    code, output = run_verb(capsys, "recording", "verify", str(tmp_path))
    assert code == 1
    assert "x.hrec" in output
    assert main(["cycle", "--recordings", str(tmp_path), "--out", str(tmp_path / "o")]) == 2


@pytest.mark.parametrize("module", list_modules())
def test_a_verb_is_had_from_its_module_alone(module: str) -> None:
    """Each module adds the verbs under which it is found, and no others: a module that none names would be lost."""
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers()
    importlib.import_module(f"holdover.cli.{module}").add_parser(verbs)
    assert set(verbs.choices) == {name for name, verb in VERBS.items() if verb.module == module}


def test_every_module_of_verbs_is_listed() -> None:
    """One that is not in the table would have no verb."""
    verb_modules = {
        path.stem for path in Path(cli.__file__).parent.glob("*.py") if "\ndef add_parser(" in path.read_text()
    }
    assert verb_modules == set(list_modules())
