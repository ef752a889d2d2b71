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
from holdover.harness.player import Player
from holdover.harness.schedule import (
    KINDS,
    MESSAGE_OPERATIONS,
    POINT_KINDS,
    TIME_POINT_KINDS,
    bind_schedule,
    check_schedule,
    open_store_for,
)
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
    return {"holdover": "schedule", "version": 2, "recordings": recorded, "operations": []} | fields


KILL = {"day": 0, "at": "mutation", "n": 12, "do": "kill", "with": [30]}

BAD: list[tuple[Any, str]] = [
    (b"{", "one.json: not a schedule: Input data was truncated"),
    (b"\xff\xfe", "one.json: not a schedule"),
    ([], "not a schedule: Expected `object`, got `array`"),
    (schedule_fields(holdover="snapshot"), "Invalid enum value 'snapshot'"),
    (schedule_fields(version=9), "written in version 9, this Holdover reads version 2"),
    (schedule_fields(version=1), "written in version 1, this Holdover reads version 2"),
    ({"name": "own", "every_day": [{"op": "begin"}]}, "written in version 1, this Holdover reads version 2"),
    ({"name": "own", "days": [[{"op": "begin"}]]}, "written in version 1, this Holdover reads version 2"),
    (
        schedule_fields(recordings=[], start="night.hsnap"),
        "starts from night.hsnap and names no recorded day; name at least one in recordings",
    ),
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
    (schedule_fields(operations=[KILL | {"after": 1.5}]), "after is 1.5, should be a fraction of the session"),
    (schedule_fields(operations=[KILL | {"after": 0.5, "limit": 0.2}]), "the limit 0.2 is before 0.5"),
    (schedule_fields(operations=[KILL | {"at": "second", "limit": 0.2}]), "happens at a second, which has no limit"),
    (schedule_fields(operations=[KILL | {"at": "second", "after": 0.2}]), "counts from the open and not from after"),
    (
        schedule_fields(operations=[KILL | {"at": "fraction", "n": 12}]),
        "at the fraction that after gives, and has no n",
    ),
    (
        schedule_fields(operations=[KILL | {"tif": "GTC"}]),
        "tif selects mutations at partial-fill and pending, not at m",
    ),
    (schedule_fields(operations=[KILL | {"at": "pending", "tif": "GTX"}]), "tif is 'GTX'; there are DAY,"),
    (schedule_fields(operations=[KILL | {"day": 1, "every_day": True}]), "is for every day and for day 1; give one"),
    (
        schedule_fields(operations=[{"at": "in", "limit": 0.5, "do": "lose"}]),
        "is done to a message, and has no limit: at that time there may be none",
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
    after = draw(st.sampled_from((0.0, 0.25, 0.5))) if at != "second" else 0.0
    has_limit = do not in MESSAGE_OPERATIONS and at not in TIME_POINT_KINDS
    every_day = draw(st.booleans())
    return Operation(
        day=0 if every_day else draw(st.integers(0, 1)),
        every_day=every_day,
        at=at,  # type: ignore[arg-type]
        n=1 if at == "fraction" else draw(st.integers(0, 130)),
        after=after,
        limit=draw(st.sampled_from((None, 0.5, 0.75, 1.0))) if has_limit else None,
        tif=draw(st.sampled_from(("", "GTC"))) if at in ("partial-fill", "pending") else "",
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
            assert played.operations_done <= len(reduced.expand().operations)
            assert played.mutations


def test_a_template_runs_on_the_days_that_it_is_given(store: RecordingStore) -> None:
    """Its operations of every day become one for each day; without days it takes the first consecutive ones."""
    kill = Operation(every_day=True, at="fraction", after=0.5, do="kill")
    template = Schedule(operations=[kill, Operation(day=1, at="second", n=7, do="clean")])
    bound = bind_schedule(template, store)
    assert (bound.symbols, bound.days) == (["BOLT"], DAYS)
    assert [(operation.day, operation.do) for operation in bound.operations] == [(0, "kill"), (1, "kill"), (1, "clean")]
    assert bind_schedule(bound, store) == bound
    assert template.describe()[0] == "Any recorded days, from a fresh state."
    with pytest.raises(ScheduleError, match=r"operation 1 \(clean\) is on day 1, counted from 0; the run has 1"):
        bind_schedule(template, store, ["BOLT"], DAYS[:1])


def test_points_of_a_kind_count_from_a_fraction_and_have_a_limit(
    store: RecordingStore, catalogue: Catalogue, tmp_path: Path
) -> None:
    """The mutation of that kind comes first, or the limit; the resolved schedule gives the same journal."""
    operations = [
        Operation(at="pending", n=2, after=0.25, limit=0.9, do="kill"),
        Operation(at="cancelled", n=9_000, limit=0.5, do="clean"),
        Operation(at="cancelled", n=9_000, do="kill"),
        Operation(day=1, at="fraction", after=1.0, do="kill"),
    ]
    player = Player(make_schedule(store, ["BOLT"], DAYS, catalogue, operations=operations), store, tmp_path / "one")
    result = player.play()
    player.close()
    open_ns = store.get("BOLT", DAYS[0]).meta.open_ns
    resolved = player.resolved_schedule()
    assert [operation.do for operation in resolved.operations] == ["kill", "clean", "kill"]
    assert [operation.at for operation in resolved.operations] == ["mutation", "second", "second"]
    assert resolved.operations[1].n == 60
    kill = next(transition for transition in result.transitions if transition.kind == "kill")
    assert kill.time_ns > open_ns + 30_000_000_000
    assert result.operations_done == 3
    again = play(resolved.replace(operations=resolved.operations[:2]), tmp_path / "other", store=store)
    first_day = [transition for transition in result.transitions if transition.trade_date == DAYS[0]]
    assert [t for t in again.transitions if t.trade_date == DAYS[0]] == first_day


def test_a_split_happens_in_the_night_when_it_divides_exactly(
    store: RecordingStore, catalogue: Catalogue, tmp_path: Path
) -> None:
    """Two for one always does; one for a huge number does not, and nothing happens."""
    for ratio, version in (([0, 2, 1], "2"), ([0, 1, 999_999_937], "")):
        split = Operation(at="second", n=90, do="split", with_=ratio)
        player = Player(make_schedule(store, ["BOLT"], DAYS, catalogue, operations=[split]), store, tmp_path / "one")
        player.play()
        player.close()
        assert player.session.venue.books["BOLT"].reference_version in (version, "1" * (not version))
