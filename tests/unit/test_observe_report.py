"""The reports on what was observed, over a guard's store and over its journal, and the trial of an entry."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from holdover.catalogue import Catalogue, CatalogueError
from holdover.cli import main
from holdover.model import OrdStatus
from holdover.runtime import Guard, Journal, read_config
from holdover.runtime.freeze_store import FreezeStore
from holdover.watch.trial import JournalTrial

from .orders import BAD, GOOD, request
from .test_observe import INVARIANT, STREAMS, UNFROZEN, Stream, first_times, observing, play_into

MakeGuard = Callable[..., Guard]
SECOND_NS = 1_000_000_000


# -- the law --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(STREAMS)
def test_a_journal_shows_what_the_guard_observed(stream: Stream) -> None:
    """A trial over the journal of a guard finds the freezes that the guard observed, from the same times."""
    with tempfile.TemporaryDirectory() as name:
        journal = Path(name) / "journal.jsonl"
        guard = play_into(observing(UNFROZEN), stream, Journal(journal))
        trial = JournalTrial(UNFROZEN)
        trial.read(journal)
        trial.end()
        # The judge evaluates when a line comes; a guard also at its ticks, which a journal does not hold.
        timed = {invariant.name for invariant in UNFROZEN if invariant.entry.asserted in ("within", "when-reconciled")}
        expected, found = first_times(guard.store.observed_freezes()), first_times(trial.freezes())
        assert {k: v for k, v in found.items() if k[1] not in timed} == {
            k: v for k, v in expected.items() if k[1] not in timed
        }
        assert trial.skipped == []
        guard.close()


# -- a guard's report -----------------------------------------------------------------------------------------------

CONFIG = """
[guard]
directory = "guard"
mode = "observe"

[[policy]]
invariant = "acknowledged-within"
mode = "observe"
reason = "the link is slow"
expires = "2999-01-31"

[[policy]]
invariant = "reconciled-within"
mode = "observe"
reason = "the drop copy is late"
expires = "2999-01-31"
within = "90s"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of a guard that observes as a whole."""
    path = tmp_path / "guard.toml"
    path.write_text(CONFIG)
    return path


def observe(config: Path, *, breach: bool) -> None:
    """Let a guard observe: a whole order, and with `breach` an order that does not add up, and two requests."""
    guard = Guard.open(config)
    guard.record("orders", GOOD)
    if breach:
        guard.record("orders", replace(BAD, root_cl_ord_id="B7"))
        for name in ("C1", "C2"):
            assert guard.permits(request(cl_ord_id=name))
    guard.close()


def test_the_report_of_a_guard(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What, when, for how long, on what evidence, how many requests; and the lines that enforce the rest."""
    observe(config, breach=True)
    assert main(["observe", "report", "--guard", str(config)]) == 1
    output = capsys.readouterr().out
    for expected in (
        f"{INVARIANT}: 1 freeze, ",
        "instrument:IBM, still open after ",
        "; 2 requests refused",
        "the open quantity is 60, but the order quantity less the filled quantity is 20",
        "of orders Order B7",
        f"holdover reproduce {config.parent / 'guard' / 'bundles'}/breach-",
        'guard.toml, line 4: set mode = "enforce" in [guard]',
        "guard.toml, line 8: remove the [[policy]] table of acknowledged-within",
        'guard.toml, line 14: set mode = "enforce" and remove expires of reconciled-within',
        f'  [[policy]]\n  invariant = "{INVARIANT}"\n  mode = "observe"\n  reason = "WHY"\n  expires = "20',
    ):
        assert expected in output, output
    holding = output.partition("no breach, can be enforced")[2]
    assert "books-agree-with-venue" in holding
    assert INVARIANT not in holding.partition("to enforce:")[0]
    assert main(["observe", "report", "--guard", str(config), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    freeze = next(row for row in document["freezes"] if row["invariant"] == INVARIANT)
    assert (freeze["scope"], freeze["key"], freeze["refused"], freeze["is_open"]) == ("instrument:IBM", "B7", 2, True)
    assert freeze["duration_s"] >= 0


def test_a_report_without_a_breach(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The legal twin: everything can be enforced, and the exit code is 0."""
    observe(config, breach=False)
    assert main(["observe", "report", "--guard", str(config)]) == 0
    output = capsys.readouterr().out
    assert "nothing would have been frozen" in output
    assert INVARIANT in output
    assert "[[policy]]\n" not in output


def test_a_period_without_a_record(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a time before the guard began nor a guard that enforces has a record; a wrong period is refused."""
    observe(config, breach=True)
    assert main(["observe", "report", "--guard", str(config), "--until", "2001-01-01"]) == 3
    assert "nothing was recorded in this period" in capsys.readouterr().out
    assert main(["observe", "report", "--guard", str(config), "--since", "2998-01-01"]) == 3
    words = ["--since", "2026-01-02", "--until", "2026-01-01"]
    assert main(["observe", "report", "--guard", str(config), *words]) == 2
    assert "--until 2026-01-01 is not after --since 2026-01-02" in capsys.readouterr().err


def test_a_guard_that_enforces_has_no_report(make_guard: MakeGuard, capsys: pytest.CaptureFixture[str]) -> None:
    """It has observed nothing: the exit code says so."""
    guard = make_guard()
    guard.record("orders", BAD)
    guard.close()
    assert main(["observe", "report", "--guard", str(guard.directory)]) == 3
    assert "nothing was recorded" in capsys.readouterr().out


def test_an_operator_clears_a_scope(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The freeze ends, the audit log has the name, the next guard counts a new breach; a mistake is explained."""
    observe(config, breach=True)
    words = ["--guard", str(config), "--operator", "ann"]
    assert main(["observe", "clear", "instrument:BAC", *words]) == 2
    assert "no observed freeze of instrument:BAC is open; open is: " in capsys.readouterr().err
    assert main(["observe", "clear", "instrument:IBM", *words]) == 0
    assert "ended " in capsys.readouterr().out
    store = read_config(config).open_store()
    assert [freeze for freeze in store.observed_freezes(open_only=True) if freeze.scope == "instrument:IBM"] == []
    assert any(action == "observe" and "ended by ann" in detail for _, _, action, detail in store.audit_rows())
    assert store.verify_audit() == ""
    before = len(store.observed_freezes())
    store.close()
    observe(config, breach=True)
    assert len(FreezeStore(config.parent / "guard" / "guard.db").observed_freezes()) > before


def test_a_running_guard_takes_up_a_clear(make_guard: MakeGuard, time_ns: Any) -> None:
    """Within a minute the guard drops what an operator has cleared, and opens it again for the next breach."""
    guard = make_guard(catalogue=observing())
    guard.record("orders", BAD)
    guard.tick()
    other = FreezeStore(guard.directory / "guard.db")
    (freeze,) = other.observed_freezes()
    other.end_observed_freezes([freeze.number], "ann", 5)
    time_ns.now_ns += 61 * SECOND_NS
    guard.tick()
    assert guard.observed_freezes() == []
    guard.record("orders", BAD)
    assert len(guard.observed_freezes()) == 1


# -- over a journal -------------------------------------------------------------------------------------------------


@pytest.fixture
def journal(make_guard: MakeGuard, time_ns: Any, tmp_path: Path) -> Path:
    """The directory of a guard whose journal, rotated many times, has a breach of a few minutes."""
    time_ns.now_ns = 1_700_000_000 * SECOND_NS
    directory = tmp_path / "recorded"
    directory.mkdir()
    guard = make_guard(journal=Journal(directory / "journal.jsonl", 400, 99), catalogue=observing())
    for number in range(6):
        time_ns.now_ns += 90 * SECOND_NS
        guard.record("orders", replace(GOOD, root_cl_ord_id=f"G{number}", cl_ord_id=f"G{number}"))
        guard.record("orders", replace(GOOD, root_cl_ord_id="B7") if number != 2 else replace(BAD, root_cl_ord_id="B7"))
        guard.record("gateway", request(cl_ord_id=f"C{number}"))
    guard.close()
    assert len(list(directory.iterdir())) > 3
    return directory


def test_the_report_over_a_journal(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It reads the rotated files, and says how long, how many requests, and which entries have no evidence.

    The review once a minute ends the freeze after the second request.
    """
    assert main(["observe", "report", "--journal", str(journal), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    (freeze,) = [row for row in document["freezes"] if row["invariant"] == INVARIANT]
    assert (freeze["key"], freeze["refused"], freeze["is_open"]) == ("B7", 2, False)
    assert 60 <= freeze["duration_s"] <= 180
    assert document["evaluations"][INVARIANT] == 12
    assert "restored-equals-persisted" in document["unevaluated"]
    assert INVARIANT not in document["holding"] + document["unevaluated"]
    assert main(["observe", "report", "--journal", str(journal / "journal.jsonl"), "--until", "2001-01-01"]) == 3


def test_a_folder_without_a_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says what to name and what to set."""
    assert main(["observe", "report", "--journal", str(tmp_path)]) == 2
    assert "there is no journal.jsonl; name a guard's directory, and set journal = true" in capsys.readouterr().err


# -- the trial of an entry ------------------------------------------------------------------------------------------

PREDICATE = """
from holdover.catalogue import predicate
from holdover.model import Order

@predicate("few-orders-of-a-day")
def few(order: Order) -> bool:
    return order.order_qty < 50
"""

ENTRY = """
name = "{name}"
family = "ours"
statement = "s"
description = "d"
implication = "i"
asserted = "{asserted}"
scope = "instrument"
severity = "error"
{more}
[[response]]
step = "look"
done_when = "seen"
"""


def test_the_trial_of_an_entry_by_name(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Time, key and explanation of each breach; 0 for one that holds, 3 for one that nothing exercised."""
    assert main(["catalogue", "try", INVARIANT, "--journal", str(journal)]) == 1
    output = capsys.readouterr().out
    assert f"BREACH  {INVARIANT}: 12 evaluations, 1 breaches" in output
    assert "instrument:IBM, orders Order B7" in output
    assert "the open quantity is 60, but" in output
    assert main(["catalogue", "try", "quantities-in-range", "--journal", str(journal), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert (entry["verdict"], entry["breaches"]) == ("HOLDS", [])
    assert main(["catalogue", "try", "restored-equals-persisted", "--journal", str(journal)]) == 3
    assert "NEVER EVALUATED" in capsys.readouterr().out
    assert main(["catalogue", "try", "quantities-in-rnge", "--journal", str(journal)]) == 2
    assert "did you mean quantities-in-range?" in capsys.readouterr().err


def test_the_trial_of_a_new_entry(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with entries and predicates of one's own is judged alone."""
    folder = tmp_path / "ours"
    folder.mkdir()
    (folder / "ours.py").write_text(PREDICATE)
    (folder / "few-orders-of-a-day.toml").write_text(
        ENTRY.format(name="few-orders-of-a-day", asserted="on-mutation", more="")
    )
    assert main(["catalogue", "try", str(folder), "--journal", str(journal), "--json"]) == 1
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert entry["name"] == "few-orders-of-a-day"
    assert entry["evaluations"] == len(entry["breaches"]) == 7


def test_the_trial_of_a_changed_entry(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An entry of a known name without a predicate keeps the former one; an unknown one needs its own."""
    folder = tmp_path / "ours"
    folder.mkdir()
    (folder / f"{INVARIANT}.toml").write_text(ENTRY.format(name=INVARIANT, asserted="when-settled", more=""))
    assert main(["catalogue", "try", str(folder), "--journal", str(journal)]) == 1
    assert f"BREACH  {INVARIANT}" in capsys.readouterr().out
    (folder / "unknown.toml").write_text(ENTRY.format(name="unknown", asserted="when-settled", more="limit = -1"))
    with pytest.raises(CatalogueError, match="limit is -1, should be 0 or above"):
        Catalogue.load().with_source(folder)
    (folder / "unknown.toml").write_text(ENTRY.format(name="unknown", asserted="when-settled", more="limit = 3"))
    assert main(["catalogue", "try", str(folder), "--journal", str(journal)]) == 2
    assert "unknown: entry without a predicate" in capsys.readouterr().err


def test_a_trial_uses_the_thresholds_of_a_configuration(
    journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mode of the policy does not matter for a trial, its thresholds do."""
    path = tmp_path / "guard.toml"
    policy = '[[policy]]\ninvariant = "acknowledged-within"\nmode = "off"\nreason = "r"\nexpires = "2020-01-01"\n'
    counts = []
    for threshold in ("1h", "1ms"):
        path.write_text(f'[guard]\ndirectory = "guard"\n{policy}within = "{threshold}"\n')
        words = ["catalogue", "try", "acknowledged-within", "--journal", str(journal), "--config", str(path), "--json"]
        main(words)
        counts.append(len(json.loads(capsys.readouterr().out)["entries"][0]["breaches"]))
    assert counts[0] == 0
    assert OrdStatus.NEW in OrdStatus
