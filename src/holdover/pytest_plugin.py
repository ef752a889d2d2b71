"""The pytest plugin: fixtures `session`, `recording`, `snapshot`, and the marker `state`.

    @pytest.mark.state(instrument="ACME")
    def test_a_partial_fill_survives_the_night(session):
        session.begin("2024-11-27")
        ...

`session` runs the desk, or the subject that the marker or `--holdover-subject` names, on the recordings that the
marker or `--holdover-recordings` names (without either the bundled simulated ones). A breach that the test has not
expected (`session.expected`) fails it. Nothing heavy is imported before a fixture is used.

`--state-cov` measures state coverage: every guard made during the run is counted, also over the workers of
pytest-xdist, and what was seen is written to `.state-coverage.json` and `.state-results.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from holdover.coverage.data import Data
    from holdover.coverage.numbers import Numbers
    from holdover.coverage.results import Results
    from holdover.harness.session import Session
    from holdover.harness.snapshot import Snapshot
    from holdover.recording import Recording, RecordingStore


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
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
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "state(instrument=..., subject=..., recordings=..., days=..., faults=..., recovery=..., logic=False): "
        "a state-persistent test on recorded days; logic=True where it replays none on purpose",
    )
    wanted = ("report", "fail_under", "gap", "base")
    if config.getoption("state_cov") or any(config.getoption(f"state_cov_{name}") for name in wanted):
        config.pluginmanager.register(StateCoverage(config), "holdover-state-coverage")


def _told(node: pytest.Item) -> dict[str, Any]:
    """What the `state` markers of a test say, the closest last."""
    told: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers("state"))):
        told.update(marker.kwargs)
    return told


def _store(request: pytest.FixtureRequest) -> RecordingStore:
    from holdover.recording import RecordingStore, bundled

    place = _told(request.node).get("recordings") or request.config.getoption("--holdover-recordings")
    return RecordingStore(place) if place else bundled()


@pytest.fixture
def recording(request: pytest.FixtureRequest) -> Callable[..., Recording]:
    """A recorded day by instrument and date: `recording("ACME", "2024-11-27")`."""
    store = _store(request)

    def get(symbol: str, trade_date: str) -> Recording:
        return store.get(symbol, trade_date)

    return get


@pytest.fixture
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    """A session of the subject over recorded days; a breach that `session.expected` does not name fails the test."""
    from holdover.harness.session import Session
    from holdover.harness.subject import factory_named
    from holdover.world import VenuePolicy

    told = _told(request.node)
    store = _store(request)
    instrument = told.get("instrument") or store.symbols()[0]
    symbols = instrument.split(",") if isinstance(instrument, str) else list(instrument)
    measuring: StateCoverage | None = request.config.pluginmanager.get_plugin("holdover-state-coverage")
    made = Session(
        factory_named(told.get("subject") or request.config.getoption("--holdover-subject")),
        store,
        symbols,
        tmp_path / "session",
        days=told.get("days") or store.days(symbols[0]),
        faults=told.get("faults", ()),
        policy=VenuePolicy(recovery=told.get("recovery", "replay")),
        catalogue=measuring.catalogue if measuring is not None else None,
    )
    try:
        yield made
    finally:
        made.close()
    unexpected = [one for one in made.breaches if one.invariant not in made.expected]
    if unexpected:
        pytest.fail("\n".join(one.explanation for one in unexpected[:5]), pytrace=False)


@pytest.fixture
def snapshot() -> Callable[..., Snapshot]:
    """Takes the full state of a session: `snapshot(session)`."""
    from holdover.harness.snapshot import take

    def taken(of: Session, *, redact: tuple[str, ...] = ()) -> Snapshot:
        return take(of, redact=redact)

    return taken


class StateCoverage:
    """Measures one run: in every worker by itself, joined by whoever controls them."""

    def __init__(self, config: pytest.Config) -> None:
        from holdover.catalogue import Catalogue
        from holdover.coverage import Collector, find_lock, read, read_lock

        self.config = config
        given = config.getoption("state_cov_lock")
        try:
            self.lock = read_lock(Path(given) if given else find_lock(config.rootpath))
            self.catalogue = Catalogue.load(*self.lock.catalogue)
            gap, base = (config.getoption(f"state_cov_{name}") for name in ("gap", "base"))
            self.profile = read(Path(gap)) if gap else None
            self.base = read(Path(base)) if base else None
            told = config.getoption("state_cov_today")
            self.today = date.fromisoformat(told) if told else date.today()
            self.reports = [_report(kind) for kind in config.getoption("state_cov_report")] or [("term", None)]
        except ValueError as problem:
            raise pytest.UsageError(str(problem)) from problem
        place = config.getoption("state_cov_file")
        self.file = Path(place) if place else config.rootpath / ".state-coverage.json"
        self.collector = Collector(self.catalogue).open()
        self.outcomes: dict[str, str] = {}
        self.marked: dict[str, bool] = {}
        self.played: dict[str, int] = {}
        self.parts: list[tuple[Data, Results]] = []
        self.lost_workers = 0
        self.numbers: Numbers | None = None
        self.reasons: list[str] = []

    # -- every test ---------------------------------------------------------------------------------------------

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, None]:
        """What the guards of a test have seen is counted under its name, once its fixtures are gone."""
        if item.get_closest_marker("state") is not None:
            self.marked[item.nodeid] = bool(_told(item).get("logic", False))
        yield
        self.played[item.nodeid] = self.collector.take(item.nodeid)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, None]:
        """Keep the worst that became of each test."""
        made = yield
        report: pytest.TestReport = made.get_result()
        if report.when == "call" or report.outcome != "passed":
            known = self.outcomes.get(item.nodeid, "passed")
            self.outcomes[item.nodeid] = known if known == "failed" else report.outcome

    # -- the end of the run -------------------------------------------------------------------------------------

    def _results(self) -> Results:
        from holdover.coverage.results import Results, StateTest

        tests = [
            StateTest(name, self.outcomes.get(name, "passed"), self.played.get(name, 0), logic)
            for name, logic in self.marked.items()
        ]
        others = [name for name, told in self.outcomes.items() if told == "failed" and name not in self.marked]
        return Results(catalogue=self.catalogue.digest, tests=sorted(tests), others_failed=sorted(others))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """A worker has ended: take what it has seen."""
        import msgspec

        from holdover.coverage import decode
        from holdover.coverage.results import Results

        told = getattr(node, "workeroutput", {}).get("holdover_state")
        if told is None:
            self.lost_workers += 1
            return
        data = decode(told["data"].encode(), "a worker")
        self.parts.append((data, msgspec.json.decode(told["results"], type=Results)))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Join, write, compare; a reason to fail makes the run fail."""
        import msgspec

        from holdover.coverage import Numbers, combine
        from holdover.coverage.results import join, results_beside

        self.collector.close()
        self.collector.take("(outside of any test)")
        mine = self._results()
        if hasattr(self.config, "workeroutput"):
            told = {"data": self.collector.data.encode().decode(), "results": msgspec.json.encode(mine).decode()}
            self.config.workeroutput["holdover_state"] = told
            return
        data = combine([self.collector.data, *(part for part, _ in self.parts)])
        results = join([mine, *(part for _, part in self.parts)], self.catalogue.digest)
        results.lost_workers = self.lost_workers
        data.write(self.file)
        results.write(results_beside(self.file))
        self.numbers = Numbers(data, self.lock, self.catalogue, profile=self.profile, base=self.base)
        self.reasons = self._reasons(self.numbers)
        self._write_reports(self.numbers)
        if self.reasons and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _reasons(self, numbers: Numbers) -> list[str]:
        wanted = self.config.getoption("state_cov_fail_under")
        found = [str(one) for one in numbers.wrong]
        if wanted is not None and numbers.c1.percent < wanted:
            found.append(f"C1 is {numbers.c1.percent:.2f}%, should be at least {wanted:g}%")
        open_, expired = numbers.unwaived(self.today)
        found += [f"production has seen and no test has: {gap.name}" for gap in open_]
        found += expired
        found += [f"this change loses {lost}" for lost in numbers.lost]
        if self.lost_workers:
            found.append(f"workers died ({self.lost_workers}), and what they had seen is lost")
        return found

    def _write_reports(self, numbers: Numbers) -> None:
        import json

        from holdover.report import coverage_page

        for kind, place in self.reports:
            if kind == "html":
                path = Path(place or self.config.rootpath / "out" / "state-coverage.html")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(coverage_page(numbers, self.today), encoding="utf-8")
            elif kind == "json":
                path = Path(place or self.config.rootpath / "out" / "state-coverage.json")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(numbers.as_json(self.today), indent=1) + "\n", encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The table, and the reasons to fail."""
        from holdover.report import coverage_text

        if self.numbers is None:
            return
        kinds = {kind for kind, _ in self.reports}
        if kinds & {"term", "term-missing"}:
            terminalreporter.section("state coverage")
            terminalreporter.write_line(coverage_text(self.numbers, self.today, show_missing="term-missing" in kinds))
        for reason in self.reasons:
            terminalreporter.write_line(f"FAIL state coverage: {reason}", red=True)


def _report(kind: str) -> tuple[str, str | None]:
    name, _, place = kind.partition(":")
    if name not in ("term", "term-missing", "html", "json", "none"):
        raise ValueError(
            f"--state-cov-report {kind}: no report is called so; there are term, term-missing, html, json, none"
        )
    return name, place or None
