"""The pytest plugin: fixtures `session`, `recording`, `snapshot`, `play_schedule`, and the marker `state`.

    @pytest.mark.state(instrument="ACME")
    def test_a_partial_fill_survives_the_night(session):
        session.begin("2024-11-27")
        ...

`session` runs the desk, or the subject that the marker or `--holdover-subject` names, on the recordings that
the marker or `--holdover-recordings` names (the default is the bundled simulated recordings). A breach that
`session.expected` does not name fails the test. `play_schedule` plays a schedule file, as `holdover replay` does, and
fails the test when it does not end as the schedule expects. The plugin imports nothing heavy before a fixture is used.

`--state-cov` measures state coverage: it counts every guard of the run, also over the workers of
pytest-xdist, and writes the result to `.state-coverage.json` and `.state-results.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from holdover.coverage.data import CoverageData
    from holdover.coverage.numbers import CoverageNumbers
    from holdover.coverage.results import StateTestResults
    from holdover.harness.player import PlayResult
    from holdover.harness.schedule import Schedule
    from holdover.harness.session import Session
    from holdover.harness.snapshot import Snapshot
    from holdover.recording import Recording, RecordingStore


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command-line options."""
    group = parser.getgroup("holdover")
    group.addoption("--holdover-subject", default="desk", help="the subject of `session`: desk, or MODULE:NAME")
    group.addoption("--holdover-recordings", default=None, help="a folder of recordings for `session`")
    cov = parser.getgroup("state coverage")
    cov.addoption("--state-cov", action="store_true", help="measure state coverage")
    cov.addoption(
        "--state-cov-report",
        action="append",
        default=[],
        metavar="KIND",
        help="term (the default), term-missing, html[:FILE], json[:FILE], none; may be given more than once",
    )
    cov.addoption("--state-cov-fail-under", type=float, metavar="N", help="fail when C1 is under N percent")
    cov.addoption("--state-cov-gap", metavar="FILE", help="a profile of production: fail on what it alone has seen")
    cov.addoption("--state-cov-base", metavar="FILE", help="a coverage file: fail on the cells that this run loses")
    cov.addoption("--state-cov-file", metavar="FILE", help="where to write, without it .state-coverage.json")
    cov.addoption("--state-cov-lock", metavar="FILE", help="the lock file, without it state-coverage.toml")
    cov.addoption("--state-cov-today", metavar="DATE", help="the day by which waivers are judged, without it today")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker and start the coverage measurement if an option requests it."""
    config.addinivalue_line(
        "markers",
        "state(instrument=..., subject=..., recordings=..., days=..., faults=..., recovery=..., logic=False): "
        "a state-persistent test on recorded days; logic=True where it replays none on purpose",
    )
    option_names = ("report", "fail_under", "gap", "base")
    if config.getoption("state_cov") or any(config.getoption(f"state_cov_{name}") for name in option_names):
        config.pluginmanager.register(StateCoverage(config), "holdover-state-coverage")


def _marker_arguments(node: pytest.Item) -> dict[str, Any]:
    """Return the arguments of a test's `state` markers; the closest marker wins."""
    arguments: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers("state"))):
        arguments.update(marker.kwargs)
    return arguments


def _open_store(request: pytest.FixtureRequest) -> RecordingStore:
    from holdover.recording import RecordingStore, bundled_store

    directory = _marker_arguments(request.node).get("recordings") or request.config.getoption("--holdover-recordings")
    return RecordingStore(directory) if directory else bundled_store()


@pytest.fixture
def recording(request: pytest.FixtureRequest) -> Callable[..., Recording]:
    """Return a recorded day by instrument and date: `recording("ACME", "2024-11-27")`."""
    store = _open_store(request)

    def get(symbol: str, trade_date: str) -> Recording:
        return store.get(symbol, trade_date)

    return get


@pytest.fixture
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    """A session of the subject over recorded days. A breach that `session.expected` does not name fails the test."""
    from holdover.harness.session import Session, SessionConfig
    from holdover.harness.subject import resolve_factory
    from holdover.world import VenuePolicy

    arguments = _marker_arguments(request.node)
    store = _open_store(request)
    instrument = arguments.get("instrument") or store.symbols()[0]
    symbols = instrument.split(",") if isinstance(instrument, str) else list(instrument)
    measuring: StateCoverage | None = request.config.pluginmanager.get_plugin("holdover-state-coverage")
    test_session = Session(
        resolve_factory(arguments.get("subject") or request.config.getoption("--holdover-subject")),
        store,
        symbols,
        tmp_path / "session",
        SessionConfig(
            days=arguments.get("days") or store.days(symbols[0]),
            faults=arguments.get("faults", ()),
            policy=VenuePolicy(recovery=arguments.get("recovery", "replay")),
            catalogue=measuring.catalogue if measuring is not None else None,
        ),
    )
    try:
        yield test_session
    finally:
        test_session.close()
    unexpected = [breach for breach in test_session.breaches if breach.invariant not in test_session.expected]
    if unexpected:
        pytest.fail("\n".join(breach.explanation for breach in unexpected[:5]), pytrace=False)


@pytest.fixture
def snapshot() -> Callable[..., Snapshot]:
    """Take the full state of a session: `snapshot(session)`."""
    from holdover.harness.snapshot import take_snapshot

    return take_snapshot


@pytest.fixture
def play_schedule(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path | str | Schedule], PlayResult]:
    """Play a schedule, or the one in a file: `play_schedule("corpus/regressions/one.json")`.

    A breach that the schedule does not expect fails the test, and so does an expected one that is missing. The
    played schedule is in `schedule.json` of the test's `tmp_path`, for `holdover replay` and `shrink`.
    """
    from holdover.harness.player import failure_marks, play
    from holdover.harness.schedule import Schedule, open_store_for, read_schedule
    from holdover.harness.snapshot import Snapshot

    arguments = _marker_arguments(request.node)
    recordings = arguments.get("recordings") or request.config.getoption("--holdover-recordings")
    measuring: StateCoverage | None = request.config.pluginmanager.get_plugin("holdover-state-coverage")

    def play_one(source: Path | str | Schedule) -> PlayResult:
        schedule = source if isinstance(source, Schedule) else read_schedule(Path(source))
        snapshot = None
        if schedule.start != "fresh" and not isinstance(source, Schedule):
            snapshot = Snapshot.open(Path(source).parent / schedule.start)
        result = play(
            schedule,
            tmp_path / "played",
            store=open_store_for(schedule, Path(recordings) if recordings else None),
            catalogue=measuring.catalogue if measuring is not None else None,
            snapshot=snapshot,
        )
        path = result.schedule.save(tmp_path / "schedule.json")
        marks = failure_marks(result)
        if (schedule.expect not in marks) if schedule.expect else marks:
            expectation = f"should breach {schedule.expect}" if schedule.expect else "should hold"
            explanations = [breach.explanation for breach in result.breaches[:5]] or [result.crash or "it holds"]
            pytest.fail("\n".join([f"{path}: {expectation}", *explanations]), pytrace=False)
        return result

    return play_one


class StateCoverage:
    """Measures one run: each worker measures itself, and the controller joins the results."""

    def __init__(self, config: pytest.Config) -> None:
        from holdover.catalogue import Catalogue
        from holdover.coverage import CoverageCollector, find_lock, read_coverage, read_lock

        self.config = config
        lock_path = config.getoption("state_cov_lock")
        try:
            self.lock = read_lock(Path(lock_path) if lock_path else find_lock(config.rootpath))
            self.catalogue = Catalogue.load(*self.lock.catalogue)
            gap, base = (config.getoption(f"state_cov_{name}") for name in ("gap", "base"))
            self.profile = read_coverage(Path(gap)) if gap else None
            self.base = read_coverage(Path(base)) if base else None
            today_text = config.getoption("state_cov_today")
            self.today = date.fromisoformat(today_text) if today_text else date.today()
            self.reports = [_parse_report(kind) for kind in config.getoption("state_cov_report")] or [("term", None)]
        except ValueError as problem:
            raise pytest.UsageError(str(problem)) from problem
        file_name = config.getoption("state_cov_file")
        self.file = Path(file_name) if file_name else config.rootpath / ".state-coverage.json"
        self.collector = CoverageCollector(self.catalogue).open()
        self.outcomes: dict[str, str] = {}
        self.marked: dict[str, bool] = {}
        self.event_counts: dict[str, int] = {}
        self.parts: list[tuple[CoverageData, StateTestResults]] = []
        self.lost_workers = 0
        self.numbers: CoverageNumbers | None = None
        self.reasons: list[str] = []

    # -- every test ---------------------------------------------------------------------------------------------

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, None]:
        """Count the guards of a test under its name after its fixtures are torn down."""
        if item.get_closest_marker("state") is not None:
            self.marked[item.nodeid] = bool(_marker_arguments(item).get("logic", False))
        yield
        self.event_counts[item.nodeid] = self.collector.collect(item.nodeid)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, None]:
        """Keep the worst outcome of each test."""
        outcome = yield
        report: pytest.TestReport = outcome.get_result()
        if report.when == "call" or report.outcome != "passed":
            previous = self.outcomes.get(item.nodeid, "passed")
            self.outcomes[item.nodeid] = previous if previous == "failed" else report.outcome

    # -- the end of the run -------------------------------------------------------------------------------------

    def _make_results(self) -> StateTestResults:
        from holdover.coverage.results import StateTest, StateTestResults

        tests = [
            StateTest(name, self.outcomes.get(name, "passed"), self.event_counts.get(name, 0), logic)
            for name, logic in self.marked.items()
        ]
        unmarked_failures = [
            name for name, outcome in self.outcomes.items() if outcome == "failed" and name not in self.marked
        ]
        return StateTestResults(
            catalogue=self.catalogue.digest, tests=sorted(tests), failed_other_tests=sorted(unmarked_failures)
        )

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take the results of a worker that has ended."""
        import msgspec

        from holdover.coverage import decode_coverage
        from holdover.coverage.results import StateTestResults

        output = getattr(node, "workeroutput", {}).get("holdover_state")
        if output is None:
            self.lost_workers += 1
            return
        data = decode_coverage(output["data"].encode(), "a worker")
        self.parts.append((data, msgspec.json.decode(output["results"], type=StateTestResults)))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Join, write and compare the results; fail the run if there is a reason to."""
        import msgspec

        from holdover.coverage import CoverageNumbers, combine_coverage
        from holdover.coverage.results import join_results, results_path

        self.collector.close()
        self.collector.collect("(outside of any test)")
        own_results = self._make_results()
        if hasattr(self.config, "workeroutput"):
            output = {
                "data": self.collector.data.encode().decode(),
                "results": msgspec.json.encode(own_results).decode(),
            }
            self.config.workeroutput["holdover_state"] = output
            return
        data = combine_coverage([self.collector.data, *(part for part, _ in self.parts)])
        results = join_results([own_results, *(part for _, part in self.parts)], self.catalogue.digest)
        results.lost_workers = self.lost_workers
        data.write(self.file)
        results.write(results_path(self.file))
        self.numbers = CoverageNumbers(data, self.lock, self.catalogue, profile=self.profile, base=self.base)
        self.reasons = self._find_reasons(self.numbers)
        self._write_reports(self.numbers)
        if self.reasons and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _find_reasons(self, numbers: CoverageNumbers) -> list[str]:
        percent_min = self.config.getoption("state_cov_fail_under")
        reasons = [str(problem) for problem in numbers.rule_violations]
        if percent_min is not None and numbers.c1.percent < percent_min:
            reasons.append(f"C1 is {numbers.c1.percent:.2f}%, should be at least {percent_min:g}%")
        open_, expired = numbers.unwaived_gaps(self.today)
        reasons += [f"production has seen and no test has: {gap.name}" for gap in open_]
        reasons += expired
        reasons += [f"this change loses {lost_cell}" for lost_cell in numbers.lost_places]
        if self.lost_workers:
            reasons.append(f"workers died ({self.lost_workers}), and what they had seen is lost")
        return reasons

    def _write_reports(self, numbers: CoverageNumbers) -> None:
        import json

        from holdover.report import coverage_page

        for kind, file_name in self.reports:
            if kind == "html":
                path = Path(file_name or self.config.rootpath / "out" / "state-coverage.html")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(coverage_page(numbers, self.today), encoding="utf-8")
            elif kind == "json":
                path = Path(file_name or self.config.rootpath / "out" / "state-coverage.json")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(numbers.as_json(self.today), indent=1) + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table and the reasons to fail."""
        from holdover.report import coverage_text

        if self.numbers is None:
            return
        kinds = {kind for kind, _ in self.reports}
        if kinds & {"term", "term-missing"}:
            terminalreporter.section("state coverage")
            terminalreporter.write_line(coverage_text(self.numbers, self.today, show_missing="term-missing" in kinds))
        for reason in self.reasons:
            terminalreporter.write_line(f"FAIL state coverage: {reason}", red=True)


def _parse_report(kind: str) -> tuple[str, str | None]:
    name, _, file_name = kind.partition(":")
    if name not in ("term", "term-missing", "html", "json", "none"):
        raise ValueError(
            f"--state-cov-report {kind}: no report is called so; there are term, term-missing, html, json, none"
        )
    return name, file_name or None
