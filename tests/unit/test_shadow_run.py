"""Errors before a candidate runs: one sentence, exit code 2, no traceback; one shadow per directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from holdover.cli import main
from holdover.harness.session import Session, SessionConfig
from holdover.harness.snapshot import take_snapshot
from holdover.harness.subject import resolve_factory
from holdover.recording import bundled_store
from holdover.shadow import ShadowRun, ShadowStateError, read_shadow_config, read_state
from holdover.shadow.input_store import InputItem, InputStore, ShadowDayStart
from holdover.shadow.shadow_run import lock_directory
from holdover.watch.source import Offset
from tests.incumbent_desk import feed_line, instrument_toml

LIVE = {
    "candidate": {"subject": '"desk"'},
    "input": {"market": '"feed.jsonl"', "reports": '"journal.jsonl"', "instruments": '["acme.toml"]'},
}
Run = Callable[..., str]


def config_text(tables: dict[str, dict[str, str]]) -> str:
    """A configuration's text."""
    return "\n".join(
        f"[{name}]\n" + "\n".join(f"{key} = {value}" for key, value in table.items()) for name, table in tables.items()
    )


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a live shadow that says a sentence and ends with 2; values of `**changes` change [input] and others."""
    for symbol in ("ACME", "BOLT"):
        instrument = bundled_store().get(symbol, bundled_store().days(symbol)[0]).meta.instrument
        (tmp_path / f"{symbol.lower()}.toml").write_text(instrument_toml(instrument))

    def run(changes: dict[str, dict[str, str]], *, code: int = 2, lines: int = 1) -> str:
        tables = {name: {**LIVE.get(name, {}), **changes.get(name, {})} for name in {**LIVE, **changes}}
        (tmp_path / "shadow.toml").write_text(config_text(tables))
        capsys.readouterr()
        assert main(["shadow", "run", "--config", str(tmp_path / "shadow.toml"), "--seconds", "0.001"]) == code
        error_text = capsys.readouterr().err
        assert error_text.count("\n") == lines, error_text
        assert "Traceback" not in error_text
        return error_text

    return run


INPUT = "[input] "
DESK = {"subject": '"desk"'}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": {"market": '""'}}, "should say market, and instruments"),
        ({"input": {"instruments": "[]"}}, "should say market, and instruments"),
        ({"input": {"begin": '"later"'}}, "begin should be 'now' or 'start'"),
        ({"input": {"markets": '"x"'}}, "has no key markets; did you mean market?"),
        ({"input": {"patience_ms": "0"}}, "patience_ms should be a number above 0"),
        ({"input": {"patience_ms": "nan"}}, "patience_ms should be a number above 0"),
        ({"input": {"patience_ms": "inf"}}, "patience_ms should be a number above 0"),
        ({"input": {"after_close_s": "-1"}}, "after_close_s"),
        ({"input": {"after_close_s": "1e300"}}, "after_close_s"),
        ({"input": {"keep_days": "-1"}}, "keep_days"),
        ({"clock": {"deadline_s": "inf"}}, "deadline_s should be a number above 0, not inf"),
        ({"clock": {"skew_ms": "inf"}}, "skew_ms"),
        ({"divergence": {"copy": "true", "noise": '"x"'}}, "noise or copy, not both"),
        ({"candidate": {"subject": '""', "journal": '"x"', "guard": '"x"'}}, "should say subject"),
        ({"candidate": {"subject": '"nobody"'}}, "'nobody' is no subject"),
        ({"candidate": {"faults": '["no-such-fault"]'}}, "no-such-fault"),
        ({"candidate": {"recordings": '"nowhere"'}}, "there is no such folder of recordings"),
        ({"candidate": {"snapshot": '"nowhere.hsnap"'}}, "nowhere.hsnap: cannot be read"),
        ({"input": {"instruments": '["nowhere.toml"]'}}, "nowhere.toml: cannot be read"),
        ({"input": {"instruments": '["shadow.toml"]'}}, "shadow.toml: not an instrument"),
        ({"input": {"instruments": '["acme.toml", "acme.toml"]'}}, "each should be there once"),
        ({"input": {"market": '"nats://127.0.0.1/"'}}, "names no stream"),
        ({"input": {"reports": '"nats://127.0.0.1:x/S"'}}, "nats://HOST:PORT/STREAM"),
    ],
)
def test_what_is_wrong_is_one_sentence(run: Run, changes: dict[str, dict[str, str]], words: str) -> None:
    """Said before anything begins."""
    assert words in run(changes)


def test_input_is_for_a_candidate_that_is_run_here(run: Run, tmp_path: Path) -> None:
    """Two things are wrong, and both are said; what is for a live candidate is not for another."""
    error_text = run({"input": {"market": '""'}, "candidate": {"subject": '""', "journal": '"j"'}}, lines=3)
    assert "[candidate] with a journal should say guard" in error_text
    assert "should say subject" in error_text
    (tmp_path / "shadow.toml").write_text('[candidate]\nsubject = "desk"\nsnapshot = "x"\n')
    assert main(["shadow", "run", "--config", str(tmp_path / "shadow.toml")]) == 2


@pytest.mark.parametrize(("changed", "words"), [("calendar", "no exchange calendar"), ("lot_size", "lot_size 'x'")])
def test_an_instrument_that_is_none(run: Run, tmp_path: Path, changed: str, words: str) -> None:
    """Its calendar, its units."""
    path = tmp_path / "acme.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith(changed)]
    path.write_text("\n".join([*lines, f'{changed} = "x"']))
    assert words in run({})


def test_instruments_of_two_calendars(run: Run, tmp_path: Path) -> None:
    """A session has one."""
    path = tmp_path / "bolt.toml"
    path.write_text(path.read_text().replace("XNYS", "XLON"))
    assert "XLON and XNYS" in run({"input": {"instruments": '["acme.toml", "bolt.toml"]'}})


def test_a_snapshot_that_does_not_fit(run: Run, tmp_path: Path) -> None:
    """Damaged, taken in the middle of a day, of other instruments, of a day that is not before the first."""
    (tmp_path / "bad.hsnap").write_bytes(b"HSNP nothing")
    assert "bad.hsnap" in run({"candidate": {"snapshot": '"bad.hsnap"'}})
    days = bundled_store().days("ACME")[:2]
    session = Session(
        resolve_factory("desk"), bundled_store(), ["ACME"], tmp_path / "session", SessionConfig(days=days)
    )
    session.begin()
    session.run(0.01, kill=False)
    session.end(immediately=True)
    ended = take_snapshot(session).save(tmp_path)
    session.overnight()
    night = take_snapshot(session).save(tmp_path)
    session.close()
    assert "taken when its session was ended" in run({"candidate": {"snapshot": f'"{ended.name}"'}})
    instrument_files = '["acme.toml", "bolt.toml"]'
    snapshot = {"snapshot": f'"{night.name}"'}
    assert "is of ACME, [input] instruments are ACME, BOLT" in run(
        {"candidate": snapshot, "input": {"instruments": instrument_files}}
    )
    meta = bundled_store().get("ACME", days[0]).meta
    event = next(bundled_store().get("ACME", days[0]).events(meta.open_ns, meta.close_ns))
    (tmp_path / "feed.jsonl").write_bytes(feed_line(event, meta.instrument))
    error_text = run({"candidate": snapshot, "input": {"begin": '"start"'}})
    assert f"what comes in is of {days[0]}, which should be a later day" in error_text


def test_damaged_inputs(run: Run, tmp_path: Path) -> None:
    """No database, and a database with something else in it."""
    place = tmp_path / "shadow" / "inputs.db"
    place.parent.mkdir()
    place.write_bytes(b"nothing that anybody can read, at length" * 100)
    assert "inputs.db: what has come in cannot be used" in run({})
    place.unlink()
    inputs = InputStore(place)
    inputs.begin_day("2024-11-27", ShadowDayStart(), 5)
    inputs.add_batch(
        "2024-11-27",
        5,
        [InputItem("m", 0, b"{}")],
        {"market data": msgspec.msgpack.encode(Offset())},
        [(1, InputItem("m", 0, b"{}"))],
    )
    for table_name, column in (("feed_offset", "body"), ("waiting", "body"), ("batch", "body"), ("day", "began")):
        inputs._database.write(
            lambda execute, table_name=table_name, column=column: execute(
                f"UPDATE {table_name} SET {column} = ?", b"\xc1"
            )
        )
        error_text = run({})
        assert (
            "where a source" if table_name == "feed_offset" else "inputs.db: what has come in is damaged"
        ) in error_text
        inputs._database.write(
            lambda execute, table_name=table_name: execute(
                f"DELETE FROM {table_name}"
            )  # the next thing that is damaged is found
        )
    inputs.close()


def test_a_state_of_another_kind_or_other_instruments(run: Run, tmp_path: Path) -> None:
    """Nothing is added up that does not belong together."""
    assert main(["shadow", "run", "--config", str(tmp_path / "none.toml")]) == 2
    run({}, code=0, lines=0)
    state = read_state(tmp_path / "shadow" / "shadow.json")
    assert (state.kind, state.instruments) == ("run live", ["ACME"])
    error_text = run({"input": {"instruments": '["acme.toml", "bolt.toml"]'}})
    assert "was counted on ACME, and [input] says ACME, BOLT" in error_text
    (tmp_path / "shadow.toml").write_text('[candidate]\njournal = "j"\nguard = "g"\n')
    config = read_shadow_config(tmp_path / "shadow.toml")
    with pytest.raises(ShadowStateError, match="was run live, this one is followed"):
        ShadowRun(config, kind="followed")
    assert main(["shadow", "run", "--config", str(tmp_path / "shadow.toml"), "--seconds", "0.001"]) == 2
    (tmp_path / "shadow.toml").write_text('[candidate]\nsubject = "desk"\n')
    assert main(["shadow", "run", "--config", str(tmp_path / "shadow.toml"), "--hours", "0.001"]) == 2


HOLD = """
import sys
from pathlib import Path
from holdover.shadow.shadow_run import lock_directory
with lock_directory(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["live", "followed", "over recordings"])
def test_a_second_shadow_on_the_same_directory_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """As long as the first one lives, and no longer: a kill lets go of it."""
    run({"input": {"instruments": '["nowhere.toml"]'}})  # what could not begin holds nothing
    if kind != "live":
        journal = 'journal = "j.jsonl"\nguard = "guard"' if kind == "followed" else 'subject = "desk"'
        (tmp_path / "shadow.toml").write_text(f"[candidate]\n{journal}\n")
    else:
        (tmp_path / "shadow.toml").write_text(config_text(LIVE))
    arguments = ["shadow", "run", "--config", str(tmp_path / "shadow.toml"), "--seconds", "0.001", "--hours", "0.0001"]
    command = [sys.executable, "-c", HOLD, str(tmp_path / "shadow")]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        capsys.readouterr()
        assert main(arguments) == 2
        error_text = capsys.readouterr().err
        assert (error_text.count("\n"), "another shadow runs on this directory" in error_text) == (1, True)
    finally:
        first.kill()
        first.communicate()
    with lock_directory(tmp_path / "shadow"):
        pass
