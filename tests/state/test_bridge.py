"""Hypothesis with schedules: it finds what is wrong, and tells it shortly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from holdover.catalogue import Catalogue
from holdover.explore import Schedule, make_schedule, play
from holdover.explore.bridge import examples_of, schedules
from holdover.explore.corpus import Corpus
from holdover.harness.schedule import Operation, check_schedule
from holdover.recording import RecordingStore, bundled_store
from tests.days import write_short_days

DAY = "2024-11-27"
FAULT = "forget-carried-partial"
QUICK = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordingStore:
    """A very short day."""
    return write_short_days(tmp_path_factory.mktemp("days"), minutes=3)


def test_hypothesis_finds_a_seeded_fault_and_shrinks_it(
    store: RecordingStore, catalogue: Catalogue, tmp_path: Path
) -> None:
    """Down to one operation, a plain one."""
    verdicts: dict[str, bool] = {}

    def breaches(schedule: Schedule) -> bool:
        if schedule.digest not in verdicts:
            played = play(
                schedule,
                tmp_path / "played",
                store=store,
                catalogue=catalogue,
                journal=False,
                scratch=True,
                to_breach=True,
            )
            verdicts[schedule.digest] = played.verdict == "breach"
        return verdicts[schedule.digest]

    drawn = schedules(
        store,
        ["BOLT"],
        [DAY],
        kinds=("kill", "torn", "disconnect"),
        position_max=120,
        catalogue=catalogue,
        faults=[FAULT],
    )
    minimal_schedule = find(drawn, breaches, settings=QUICK)
    assert [operation.do for operation in minimal_schedule.operations] == ["kill"]
    assert minimal_schedule.operations[0].with_ == [0]
    assert len(verdicts) < 200


@settings(max_examples=60, deadline=None)
@given(schedule=schedules(bundled_store(), ["BOLT"], [DAY, "2024-11-29"]))
def test_whatever_is_drawn_is_a_schedule(schedule: Schedule) -> None:
    """It can be run, and stays within what was asked for."""
    assert check_schedule(schedule) == []
    assert len(schedule.operations) <= 4


def test_a_corpus_is_tried_first(store: RecordingStore, catalogue: Catalogue, tmp_path: Path) -> None:
    """Each of its schedules is an example, in the order of names."""
    corpus = Corpus(tmp_path)
    for number in (2, 1):
        kill = Operation(at="mutation", n=number, do="kill")
        corpus.add(
            make_schedule(store, ["BOLT"], [DAY], catalogue, operations=[kill]), f"regressions/{number}.json", "a test"
        )
    mutation_numbers: list[int] = []

    @examples_of(tmp_path)
    @settings(QUICK, phases=[Phase.explicit])
    @given(schedules(store, ["BOLT"], [DAY], catalogue=catalogue))
    def try_it(schedule: Schedule) -> None:
        mutation_numbers.append(schedule.operations[0].n)

    try_it()
    assert mutation_numbers == [1, 2]


def test_a_kind_that_there_is_not_is_refused(store: RecordingStore) -> None:
    """With what there is."""
    with pytest.raises(ValueError, match="no operation is called 'murder'; there are kill,"):
        schedules(store, ["BOLT"], [DAY], kinds=["murder"])


def test_exploration_does_without_hypothesis() -> None:
    """It is imported only when a strategy is asked for."""
    code = "import sys, holdover.explore.bridge, holdover.cli.explore; print('hypothesis' in sys.modules)"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "False"
