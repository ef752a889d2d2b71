"""A schedule: read, written, refused with a sentence, and a schedule still whatever is taken out of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdover.catalogue import Catalogue
from holdover.explore import Operation, RecordedDay, Schedule, ScheduleError, make_schedule, play, read_schedule
from holdover.explore.player import open_store_for
from holdover.explore.schedule import KINDS, MESSAGE_OPERATIONS, POINT_KINDS, check_schedule
from holdover.recording import RecordingStore
from tests.days import write_short_days

DAYS = ["2024-11-27", "2024-11-29"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordingStore:
    """Two very short days."""
    return write_short_days(tmp_path_factory.mktemp("days"), minutes=2)


def schedule_fields(**fields: Any) -> dict[str, Any]:
    """A schedule as a person would write it."""
    recorded = [{"symbol": "BOLT", "trade_date": day, "digest": ""} for day in DAYS]
    return {"holdover": "schedule", "version": 1, "recordings": recorded, "operations": []} | fields


KILL = {"day": 0, "at": "mutation", "n": 12, "do": "kill", "with": [30]}

BAD: list[tuple[Any, str]] = [
    (b"{", "one.json: not a schedule: Input data was truncated"),
    (b"\xff\xfe", "one.json: not a schedule"),
    ([], "not a schedule: Expected `object`, got `array`"),
    (schedule_fields(holdover="snapshot"), "Invalid enum value 'snapshot'"),
    (schedule_fields(version=9), "written in version 9, this Holdover reads version 1"),
    (schedule_fields(recordings=[]), "no recorded day in it; name at least one in recordings"),
    (schedule_fields(recordings=[{"symbol": "BOLT"}]), "missing required field `trade_date`"),
    (
        schedule_fields(recordings=schedule_fields()["recordings"][::-1]),
        "the days are 2024-11-29, 2024-11-27, should go forward",
    ),
    (
        schedule_fields(
            recordings=[*schedule_fields()["recordings"], {"symbol": "ACME", "trade_date": DAYS[0], "digest": ""}]
        ),
        "ACME is recorded on some of the days and not on 2024-11-29",
    ),
    (schedule_fields(operatoins=[]), "unknown field `operatoins`"),
    (
        schedule_fields(operations=[KILL | {"do": "murder"}]),
        "operation 0: no operation is called 'murder'; there are kill,",
    ),
    (schedule_fields(operations=[KILL | {"at": "noon"}]), "Invalid enum value 'noon'"),
    (
        schedule_fields(operations=[KILL | {"n": -1}]),
        r"operation 0 \(kill\): day and n count from 0, this is day 0, n -1",
    ),
    (schedule_fields(operations=[KILL | {"n": "12"}]), "Expected `int`, got `str`"),
    (
        schedule_fields(operations=[KILL, KILL | {"with": [1, 2]}]),
        "operation 1 .kill.: takes down_seconds, 2 integers are given",
    ),
    (
        schedule_fields(operations=[KILL | {"do": "clean"}]),
        "operation 0 .clean.: takes no integer, 1 integers are given",
    ),
    (
        schedule_fields(operations=[KILL | {"do": "lose", "with": []}]),
        "is done to a message; say at in or out, not mutation",
    ),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=[message[-30:] for _, message in BAD])
def test_bad_input_is_refused_with_a_sentence(tmp_path: Path, content: Any, message: str) -> None:
    """Each kind of it: what is wrong, where, and what would be right."""
    path = tmp_path / "one.json"
    path.write_bytes(content if isinstance(content, bytes) else msgspec.json.encode(content))
    with pytest.raises(ScheduleError, match=message):
        read_schedule(path)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """A line a problem; and a file that is not there is one too."""
    path = tmp_path / "one.json"
    path.write_bytes(msgspec.json.encode(schedule_fields(operations=[KILL | {"do": "murder"}, KILL | {"n": -1}])))
    with pytest.raises(ScheduleError) as error:
        read_schedule(path)
    assert len(str(error.value).splitlines()) == 2
    with pytest.raises(ScheduleError, match="cannot be read: No such file"):
        read_schedule(tmp_path / "none.json")


def test_another_recording_than_the_one_it_was_found_on_is_refused(store: RecordingStore, catalogue: Catalogue) -> None:
    """The digest says that it is this very day."""
    schedule = make_schedule(store, ["BOLT"], DAYS, catalogue)
    changed_schedule = schedule.replace(
        recordings=[msgspec.structs.replace(recording, digest="00" * 32) for recording in schedule.recordings],
        name="mine",
    )
    assert open_store_for(schedule, store.directory).days("BOLT") == DAYS
    with pytest.raises(ScheduleError, match=r"mine: BOLT on 2024-11-27 is another recording .* should be 000000000000"):
        open_store_for(changed_schedule, store.directory)


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    """Any operation that can be asked for on two days."""
    do = draw(st.sampled_from(sorted(KINDS)))
    at = draw(st.sampled_from(("in", "out") if do in MESSAGE_OPERATIONS else POINT_KINDS))
    return Operation(
        day=draw(st.integers(0, 1)),
        at=at,  # type: ignore[arg-type]
        n=draw(st.integers(0, 130)),
        do=do,
        with_=draw(st.lists(st.integers(-3, 40), max_size=len(KINDS[do].parameters))),
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(operations(), max_size=5), st.text(max_size=8), st.integers(0, 2**40))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, several: Any, name: str, seed: int) -> None:
    """Whatever stands in it; and its digest does not depend on the name."""
    recorded = [RecordedDay(symbol="BOLT", trade_date=day, digest="ab") for day in DAYS]
    schedule = Schedule(recordings=recorded, operations=several, name=name, seed=seed)
    path = schedule.save(tmp_path_factory.getbasetemp() / "written.json")
    assert read_schedule(path) == schedule
    assert schedule.replace(name="other").digest == schedule.digest
    assert len(schedule.describe()) == 1 + len(several)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(several=st.lists(operations(), min_size=1, max_size=3))
def test_whatever_is_taken_out_it_is_a_schedule_still(
    store: RecordingStore, catalogue: Catalogue, tmp_path: Path, several: list[Operation]
) -> None:
    """Any one operation or more: what is left is valid, plays to the end, and does no more than it says."""
    schedule = make_schedule(store, ["BOLT"], DAYS, catalogue, operations=several)
    for count in range(len(several) + 1):
        for subset in itertools.islice(itertools.combinations(several, count), 2):
            reduced = schedule.replace(operations=list(subset))
            assert check_schedule(reduced) == []
            played = play(reduced, tmp_path / "played", store=store, catalogue=catalogue, journal=False, scratch=True)
            assert played.crash == ""
            assert played.operations_done <= len(subset)
            assert played.mutations
