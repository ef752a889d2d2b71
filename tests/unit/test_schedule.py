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
from holdover.explore import BadSchedule, Operation, Recorded, Schedule, play, read_schedule, schedule_on
from holdover.explore.play import store_for
from holdover.explore.schedule import AT_MESSAGES, KINDS, PLACES, check
from holdover.recording import RecordingStore
from tests.days import short_days

DAYS = ["2024-11-27", "2024-11-29"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RecordingStore:
    """Two very short days."""
    return short_days(tmp_path_factory.mktemp("days"), minutes=2)


def whole(**fields: Any) -> dict[str, Any]:
    """A schedule as a person would write it."""
    recorded = [{"symbol": "BOLT", "trade_date": day, "digest": ""} for day in DAYS]
    return {"holdover": "schedule", "version": 1, "recordings": recorded, "operations": []} | fields


KILL = {"day": 0, "at": "mutation", "n": 12, "do": "kill", "with": [30]}

BAD: list[tuple[Any, str]] = [
    (b"{", "one.json: not a schedule: Input data was truncated"),
    (b"\xff\xfe", "one.json: not a schedule"),
    ([], "not a schedule: Expected `object`, got `array`"),
    (whole(holdover="snapshot"), "Invalid enum value 'snapshot'"),
    (whole(version=9), "written in version 9, this Holdover reads version 1"),
    (whole(recordings=[]), "no recorded day in it; name at least one in recordings"),
    (whole(recordings=[{"symbol": "BOLT"}]), "missing required field `trade_date`"),
    (whole(recordings=whole()["recordings"][::-1]), "the days are 2024-11-29, 2024-11-27, should go forward"),
    (
        whole(recordings=[*whole()["recordings"], {"symbol": "ACME", "trade_date": DAYS[0], "digest": ""}]),
        "ACME is recorded on some of the days and not on 2024-11-29",
    ),
    (whole(operatoins=[]), "unknown field `operatoins`"),
    (whole(operations=[KILL | {"do": "murder"}]), "operation 0: no operation is called 'murder'; there are kill,"),
    (whole(operations=[KILL | {"at": "noon"}]), "Invalid enum value 'noon'"),
    (whole(operations=[KILL | {"n": -1}]), r"operation 0 \(kill\): day and n count from 0, this is day 0, n -1"),
    (whole(operations=[KILL | {"n": "12"}]), "Expected `int`, got `str`"),
    (whole(operations=[KILL, KILL | {"with": [1, 2]}]), "operation 1 .kill.: takes down_seconds, 2 integers are given"),
    (whole(operations=[KILL | {"do": "clean"}]), "operation 0 .clean.: takes no integer, 1 integers are given"),
    (whole(operations=[KILL | {"do": "lose", "with": []}]), "is done to a message; say at in or out, not mutation"),
]


@pytest.mark.parametrize(("content", "said"), BAD, ids=[said[-30:] for _, said in BAD])
def test_bad_input_is_refused_with_a_sentence(tmp_path: Path, content: Any, said: str) -> None:
    """Each kind of it: what is wrong, where, and what would be right."""
    path = tmp_path / "one.json"
    path.write_bytes(content if isinstance(content, bytes) else msgspec.json.encode(content))
    with pytest.raises(BadSchedule, match=said):
        read_schedule(path)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    """A line a problem; and a file that is not there is one too."""
    path = tmp_path / "one.json"
    path.write_bytes(msgspec.json.encode(whole(operations=[KILL | {"do": "murder"}, KILL | {"n": -1}])))
    with pytest.raises(BadSchedule) as told:
        read_schedule(path)
    assert len(str(told.value).splitlines()) == 2
    with pytest.raises(BadSchedule, match="cannot be read: No such file"):
        read_schedule(tmp_path / "none.json")


def test_another_recording_than_the_one_it_was_found_on_is_refused(store: RecordingStore, catalogue: Catalogue) -> None:
    """The digest says that it is this very day."""
    schedule = schedule_on(store, ["BOLT"], DAYS, catalogue)
    other = schedule.replace(
        recordings=[msgspec.structs.replace(one, digest="00" * 32) for one in schedule.recordings], name="mine"
    )
    assert store_for(schedule, store.directory).days("BOLT") == DAYS
    with pytest.raises(BadSchedule, match=r"mine: BOLT on 2024-11-27 is another recording .* should be 000000000000"):
        store_for(other, store.directory)


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    """Any operation that can be asked for on two days."""
    do = draw(st.sampled_from(sorted(KINDS)))
    at = draw(st.sampled_from(("in", "out") if do in AT_MESSAGES else PLACES))
    return Operation(
        day=draw(st.integers(0, 1)),
        at=at,  # type: ignore[arg-type]
        n=draw(st.integers(0, 130)),
        do=do,
        with_=draw(st.lists(st.integers(-3, 40), max_size=len(KINDS[do].takes))),
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(operations(), max_size=5), st.text(max_size=8), st.integers(0, 2**40))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, several: Any, name: str, seed: int) -> None:
    """Whatever stands in it; and its digest does not depend on the name."""
    recorded = [Recorded(symbol="BOLT", trade_date=day, digest="ab") for day in DAYS]
    schedule = Schedule(recordings=recorded, operations=several, name=name, seed=seed)
    path = schedule.save(tmp_path_factory.getbasetemp() / "written.json")
    assert read_schedule(path) == schedule
    assert schedule.replace(name="other").digest == schedule.digest
    assert len(schedule.story()) == 1 + len(several)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(several=st.lists(operations(), min_size=1, max_size=3))
def test_whatever_is_taken_out_it_is_a_schedule_still(
    store: RecordingStore, catalogue: Catalogue, tmp_path: Path, several: list[Operation]
) -> None:
    """Any one operation or more: what is left is valid, plays to the end, and does no more than it says."""
    schedule = schedule_on(store, ["BOLT"], DAYS, catalogue, operations=several)
    for count in range(len(several) + 1):
        for left in itertools.islice(itertools.combinations(several, count), 2):
            less = schedule.replace(operations=list(left))
            assert check(less) == []
            played = play(less, tmp_path / "played", store=store, catalogue=catalogue, journal=False, scratch=True)
            assert played.crash == ""
            assert played.done <= len(left)
            assert played.mutations
