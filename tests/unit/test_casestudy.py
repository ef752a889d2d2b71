"""The case study's composition: what ships, what is found and when, what recurs, the intervals, the reel, the model."""

from __future__ import annotations

import importlib
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from holdover.harness.schedule import KINDS
from holdover.recording import bundled_store

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
figures = importlib.import_module("casestudy.figures")
fault_runs = importlib.import_module("casestudy.life")
model = importlib.import_module("casestudy.model")
page = importlib.import_module("casestudy.page")
reel = importlib.import_module("casestudy.reel")
year = importlib.import_module("casestudy.year")

SEEN_EARLY, SEEN_LATE, SILENT, QUIET = (
    "forget-carried-partial",
    "double-count-restated",
    "lost-unsent-order",
    "cancel-assumed",
)


def make_detection(day: int, by: str, records: int = 2) -> Any:
    """Return a detection of a fault."""
    return fault_runs.Detection(day=day, second=60, by=by, explanation=by, cell_class="account/Order", records=records)


def make_fault_run(fault: str, breach: Any = None, detection: Any = None, sent_after: int = 0) -> Any:
    """Return the run of a fault: six days, or the days until its detection."""
    days = 6 if detection is None else detection.day + 1
    fields = {"fault": fault, "number": 0, "seed": "", "first": "", "sources": [], "operations": 0, "days": days}
    return fault_runs.FaultRun(**fields, breach=breach, discovery=detection, sent_after=sent_after)


def make_bank(**caught: set[str]) -> Any:
    """Return a bank of four faults.

    Guard and people detect the first at once; people detect the second days later; only the guard detects
    the third; nobody detects the fourth.
    """
    bank = {
        SEEN_EARLY: [make_fault_run(SEEN_EARLY, make_detection(0, "a"), make_detection(0, "position", 500), 40)],
        SEEN_LATE: [make_fault_run(SEEN_LATE, make_detection(1, "b"), make_detection(4, "position", 700), 90)],
        SILENT: [make_fault_run(SILENT, make_detection(2, "c"))],
        QUIET: [make_fault_run(QUIET)],
    }
    gates = {"fresh": set(), "holdover": set(), "no-recorded": set(), "no-restarts": set(), "no-overnight": set()}
    return year.FaultRuns(bank, {name: frozenset(faults) for name, faults in {**gates, **caught}.items()})


def make_change(day: int, fault: str, template: str = "") -> Any:
    """A faulty change."""
    return year.Change(day, fault, template or fault, f"{day} {fault}")


def test_without_a_guard_people_find_it_later_or_never() -> None:
    """The same lives, told twice: the guard's day and records, or those of people."""
    changes = [make_change(10, SEEN_LATE), make_change(20, SILENT), make_change(30, QUIET)]
    before = year.simulate_half(changes, make_bank(), year.BEFORE)
    after = year.simulate_half(changes, make_bank(), year.HOLDOVER)
    assert [
        (incident.opened, incident.records, incident.sent_after, incident.waited) for incident in before.incidents
    ] == [(14, 700, 90, 4)]
    assert [(incident.opened, incident.records, incident.sent_after) for incident in after.incidents] == [
        (11, 2, 0),
        (22, 2, 0),
    ]
    assert [entry.fault for entry in before.latent] == [SILENT, QUIET]
    # What people found is classified by what the catalogue says of the same life.
    assert before.incidents[0].mark == after.incidents[0].mark == ("b", "account/Order")


def test_what_the_gate_finds_never_ships() -> None:
    """It is counted as caught, and makes no incident."""
    half = year.simulate_half(
        [make_change(10, SEEN_EARLY), make_change(20, SEEN_LATE)], make_bank(holdover={SEEN_EARLY}), year.HOLDOVER
    )
    assert (half.changes, half.caught, half.shipped) == (2, 1, 1)
    assert [incident.fault for incident in half.incidents] == [SEEN_LATE]


def test_a_fault_at_work_ships_once_and_a_regression_not_again() -> None:
    """While it is at work nothing ships; when it is fixed it may come back, unless its bundle is played by the gate."""
    days = [10, 12, 60]
    before = year.simulate_half([make_change(day, SEEN_EARLY) for day in days], make_bank(), year.BEFORE)
    after = year.simulate_half([make_change(day, SEEN_EARLY) for day in days], make_bank(), year.HOLDOVER)
    invariants_only = year.simulate_half([make_change(day, SEEN_EARLY) for day in days], make_bank(), year.ARMS[-1])
    assert [incident.opened for incident in before.incidents] == [10, 60]
    assert [incident.opened for incident in after.incidents] == [10]
    assert after.caught == 1
    assert [incident.opened for incident in invariants_only.incidents] == [10, 60]  # without a gate nothing plays it


def test_what_cannot_be_seen_is_seen_by_people_only() -> None:
    """It lives like the fault that it is like, is never caught, and has a class of its own."""
    half = year.simulate_half([make_change(10, "unseen-3", SEEN_LATE)], make_bank(holdover={SEEN_LATE}), year.HOLDOVER)
    assert half.caught == 0
    assert [(entry.opened, entry.mark) for entry in half.incidents] == [(14, ("unseen-3", "outside the catalogue"))]


def test_nothing_is_found_after_the_half_is_over() -> None:
    """A life that goes on beyond it is latent at its end."""
    half = year.simulate_half([make_change(year.DAYS_A_HALF - 2, SEEN_LATE)], make_bank(), year.BEFORE)
    assert half.incidents == []
    assert len(half.latent) == 1


def test_recurrence_is_the_ledgers_rule() -> None:
    """Recurrent: the same mark had been resolved; joined: it was still open; another class is another thing."""

    def incident(opened: int, mark: tuple[str, str]) -> Any:
        return year.Incident(opened, opened + 5, "f", mark, "by", 1, 0, 0)

    incidents = [incident(1, ("a", "x")), incident(3, ("a", "x")), incident(6, ("a", "x")), incident(7, ("a", "y"))]
    year.mark_recurrence(incidents[::-1])
    assert [entry.is_joined for entry in incidents] == [False, True, False, False]
    assert [entry.is_recurrent for entry in incidents] == [False, False, True, False]


def test_a_year_is_its_seeds() -> None:
    """The same seed gives the same year, another one another; every arm has the very same changes."""
    bank = make_bank(holdover={SEEN_EARLY, SILENT})
    first_year, repeated_year, different_year = (year.simulate_year(bank, 0.4, 0.1, seed) for seed in ("1", "1", "2"))
    assert first_year == repeated_year
    assert first_year != different_year
    carried = {half.changes for half in [*first_year.second.values(), first_year.unchanged]}
    assert len(carried) == 1
    assert len(first_year.second["Holdover"].counted) <= len(
        first_year.second["invariants in production alone"].counted
    )


def test_calibration_sets_the_first_half_and_nothing_else() -> None:
    """The mean of the first half is what was published; a bank in which people find nothing is refused."""
    bank = make_bank(holdover={SEEN_EARLY})
    a_day = year.calibrate(bank, 0.1, "0", years=60)
    counts = [len(year.simulate_year(bank, a_day, 0.1, f"{number}").first.counted) for number in range(60)]
    assert 0.8 * year.TARGET < sum(counts) / 60 < 1.2 * year.TARGET
    silent = year.FaultRuns({SILENT: [make_fault_run(SILENT, make_detection(0, "c"))]}, bank.caught)
    with pytest.raises(ValueError, match="people find too few"):
        year.calibrate(silent, 0.0, "0", years=5)


def test_weights_are_those_of_the_field() -> None:
    """Each category has its share, alike inside it."""
    from holdover.desk.faults import FAULTS

    total: Counter[str] = Counter()
    for name, weight in zip(FAULTS, year.fault_weights(list(FAULTS)), strict=True):
        total[FAULTS[name].category] += weight
    assert {name: round(weight, 6) for name, weight in total.items()} == model.CATEGORY_WEIGHTS
    assert sum(model.CATEGORY_WEIGHTS.values()) == 103


def test_intervals_are_nearest_ranks() -> None:
    """Of a hundred values, the third from either end; of none, nothing."""
    assert year.interval(list(range(101))) == (50, 2, 98)
    assert year.interval([]) == (None, None, None)
    halves = [year.Half(incidents=[object()] * 0), year.Half()]
    assert year.ratios(halves, halves) == []


def test_the_model_draws_what_it_states() -> None:
    """Over many days each group comes as often as it says, and every operation is one that there is."""
    rng = random.Random(1)
    days = [model.draw_day_operations(rng, 2, 23_400) for _ in range(3_000)]
    counts = Counter(operation.do for day in days for operation in day)
    for rate in model.RATES:
        mean_count = sum(counts[kind] for kind in rate.kinds) / len(days)
        assert mean_count == pytest.approx(rate.a_day, rel=0.2), rate.name
        assert rate.source
    for operation in (operation for day in days for operation in day):
        assert operation.day == 2
        assert len(operation.with_) <= len(KINDS[operation.do].parameters)
    assert model.draw_day_operations(random.Random(7), 0, 12_600) == model.draw_day_operations(
        random.Random(7), 0, 12_600
    )


def test_a_reel_lays_recorded_days_on_the_calendar() -> None:
    """The events are the recording's, the dates and the hours the calendar's: daylight saving begins on a Sunday."""
    pytest.importorskip("exchange_calendars")
    store = bundled_store()
    laid = reel.Reel(store, ["ACME"], "2025-03-07", ["2024-11-29", "2024-11-27", "2024-11-29"])
    assert laid.days("ACME") == ["2025-03-07", "2025-03-10", "2025-03-11"]
    friday, monday = (laid.get("ACME", day) for day in laid.days("ACME")[:2])
    assert friday.meta.next_session == "2025-03-10"
    assert (monday.meta.open_ns - friday.meta.open_ns) / 3.6e12 == 3 * 24 - 1
    source = store.get("ACME", "2024-11-27")
    assert len(monday) == len(source)
    shift = monday.meta.open_ns - source.meta.open_ns
    assert [event[0] - shift for event in monday.events()] == [one[0] for one in source.events()]
    assert [event[1:] for event in monday.events()] == [one[1:] for one in source.events()]
    assert monday.meta.close_ns - monday.meta.open_ns == source.meta.close_ns - source.meta.open_ns


def test_the_mock_market_is_a_recording_without_moods(tmp_path: Path) -> None:
    """It proves itself, and has nothing of what a recorded day is chosen for."""
    pytest.importorskip("exchange_calendars")
    instrument = bundled_store().get("ACME", "2024-11-27").meta.instrument
    store = reel.write_mock_store(tmp_path, instrument)
    for day in store.days("ACME"):
        recording = store.get("ACME", day)
        assert recording.verify() == []
        assert recording.meta.statuses == 1
        assert {event[6] for event in recording.events() if event[2] == 2} == {100}


@pytest.fixture(scope="module")
def study_figures() -> Any:
    """The figures of a few years of the bank of four."""
    bank = make_bank(fresh=set(), holdover={SEEN_EARLY, SILENT})
    return figures.figures(bank, frozenset({SEEN_EARLY, SEEN_LATE, SILENT}), "0", 30)


def test_the_figures_hang_together(study_figures: Any) -> None:
    """The gate's share, the ratio of the means, the exact interval of one firm."""
    rows = {row.name: row for row in study_figures.rows}
    holdover, before = rows["Holdover"], rows["unit tests and line coverage"]
    assert (holdover.finds, holdover.of, before.finds) == (2, 3, 0)
    assert holdover.pooled == pytest.approx(holdover.mean / before.mean)
    assert holdover.mean < before.mean
    assert before.records.median > holdover.records.median
    first, second, ratio, low, high = study_figures.single
    assert ratio == pytest.approx(second / first)
    assert low < ratio < high
    assert [words for words, *_ in study_figures.sensitivity][:2] == ["0% unseen", "11% unseen"]


def test_the_bound_takes_each_life_that_shows_nothing_for_one_that_does() -> None:
    """Only the last life of what nobody has ever found is changed, and on its last day."""
    bank = make_bank()
    bound = figures.worst_case(bank)
    assert {name: bound.runs_by_fault[name] for name in (SEEN_EARLY, SEEN_LATE, SILENT)} == {
        name: bank.runs_by_fault[name] for name in (SEEN_EARLY, SEEN_LATE, SILENT)
    }
    assert bound.runs_by_fault[QUIET][-1].breach.day == bound.runs_by_fault[QUIET][-1].discovery.day == 5


def test_tables_and_plots_say_the_same(study_figures: Any, tmp_path: Path) -> None:
    """Both plots are whole SVG with a line for each row; the page keeps what stands around the tables."""
    for plot in (page.ratio_plot(study_figures), page.novel_plot(study_figures)):
        words = "".join(ElementTree.fromstring(plot).itertext())
        assert all(row.name in words for row in study_figures.rows[2:])
        assert "published" in words
    screen = page.text(study_figures)
    assert "Compared with the published case" in screen
    assert all(row.name in screen for row in study_figures.rows)
    path = tmp_path / "page.md"
    path.write_text(f"before\n{page.BEGIN}\nstale words\n{page.END}\nafter\n")
    page.write_into_page(path, page.markdown(study_figures))
    assert path.read_text().startswith("before\n")
    assert path.read_text().endswith("\nafter\n")
    assert "stale words" not in path.read_text()
    path.write_text("no place here")
    with pytest.raises(ValueError, match="no place"):
        page.write_into_page(path, "x")
