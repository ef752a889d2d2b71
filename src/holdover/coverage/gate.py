"""The merge gate: checks state tests, coverage, carry gap, catalogue and corpus; one line for each reason to
fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from holdover.coverage.lock import CORPUS_THRESHOLDS
from holdover.coverage.numbers import CoverageNumbers
from holdover.coverage.results import StateTestResults


@dataclass
class GateCheck:
    """One check of the gate: its name, the reasons why it fails, and notes."""

    name: str
    title: str
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_met(self) -> bool:
        """Return whether the check passes."""
        return not self.reasons


@dataclass
class CorpusStatus:
    """The status of a corpus: its problems, notes, and sizes by threshold name."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class Gate:
    """The result of the gate."""

    checks: list[GateCheck]
    numbers: CoverageNumbers
    tests: int
    today: date

    @property
    def is_met(self) -> bool:
        """Return whether every check passes."""
        return all(check.is_met for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Return the reasons of all failing checks, one line each."""
        return [f"{check.name}: {reason}" for check in self.checks for reason in check.reasons]

    def as_json(self) -> dict[str, Any]:
        """Return the result as one JSON object."""
        return {
            "verdict": "met" if self.is_met else "not met",
            "reasons": self.reasons,
            "checks": [
                {"name": check.name, "met": check.is_met, "reasons": check.reasons, "notes": check.notes}
                for check in self.checks
            ],
            "state_tests": self.tests,
            "coverage": self.numbers.as_json(self.today),
        }


def judge_gate(
    numbers: CoverageNumbers,
    results: StateTestResults | None,
    today: date,
    *,
    corpus: CorpusStatus | None = None,
    fail_under: float | None = None,
) -> Gate:
    """Run every check. `corpus` is the status of the corpus, None when none was named."""
    checks = [
        _check_tests(results),
        _check_recorded_days(results),
        _check_corpus(corpus, numbers),
        _check_denominator(numbers),
        _check_coverage(numbers, fail_under),
        _check_gap(numbers, today),
        _check_catalogue(numbers, today),
        _check_digest(numbers, results),
    ]
    if numbers.base is not None:
        checks.insert(5, _check_base(numbers))
    return Gate(checks, numbers, len(results.tests) if results is not None else 0, today)


def _check_tests(results: StateTestResults | None) -> GateCheck:
    check = GateCheck("state-tests", "State tests ran and passed")
    tests = results.tests if results is not None else []
    ran = [test for test in tests if test.outcome != "skipped"]
    if results is None:
        check.reasons.append("no results of state tests are at hand; run `pytest --state-cov`")
    elif not ran:
        check.reasons.append("no state test ran; mark at least one with @pytest.mark.state")
    check.reasons += [f"{test.test} {test.outcome}" for test in tests if test.outcome not in ("passed", "skipped")]
    check.reasons += [f"{test} failed" for test in (results.failed_other_tests if results is not None else [])]
    if results is not None and results.lost_workers:
        check.reasons.append(f"workers of the test run died ({results.lost_workers}), and what they had seen is lost")
    skipped = len(tests) - len(ran)
    check.notes.append(f"{len(ran)} ran" + (f", {skipped} skipped" if skipped else ""))
    return check


def _check_recorded_days(results: StateTestResults | None) -> GateCheck:
    check = GateCheck("recorded-days", "Each replays a recorded day")
    for test in results.tests if results is not None else []:
        if not test.events_played and not test.is_logic and test.outcome != "skipped":
            check.reasons.append(
                f"{test.test} replayed no recording: run the session on a recorded day, "
                f"or mark the test @pytest.mark.state(logic=True)"
            )
    events_played = sum(test.events_played for test in results.tests) if results is not None else 0
    check.notes.append(f"{events_played:,} recorded market events played")
    return check


def _check_corpus(status: CorpusStatus | None, numbers: CoverageNumbers) -> GateCheck:
    check = GateCheck("corpus", "The corpus is intact")
    minimums = {
        name: int(numbers.lock.thresholds[name]) for name in CORPUS_THRESHOLDS if name in numbers.lock.thresholds
    }
    if status is None:
        check.notes.append("none named (--corpus)")
        return check
    check.reasons += status.problems
    check.reasons += [
        f"{name} are {status.counts.get(name, 0)}, should be at least {least}: the corpus has shrunk without a reason"
        for name, least in minimums.items()
        if status.counts.get(name, 0) < least
    ]
    check.notes += status.notes
    return check


def _check_denominator(numbers: CoverageNumbers) -> GateCheck:
    check = GateCheck("denominator", "Nothing infeasible was reached")
    check.reasons += [str(violation) for violation in numbers.rule_violations]
    check.notes.append(f"{len(numbers.lock.rule)} rules, {numbers.c1.total} places")
    return check


def _check_coverage(numbers: CoverageNumbers, fail_under: float | None) -> GateCheck:
    check = GateCheck("coverage", "State coverage is kept")
    check.reasons += numbers.unmet_thresholds()
    if fail_under is not None and numbers.c1.percent < fail_under:
        check.reasons.append(f"c1 is {numbers.c1.percent:.2f}%, should be at least {fail_under:g}%")
    check.notes.append(f"C1 {numbers.c1}, pairs {numbers.pairs}, C2 {numbers.c2}")
    return check


def _check_base(numbers: CoverageNumbers) -> GateCheck:
    check = GateCheck("base", "No cell of the base is lost")
    check.reasons += [f"this change loses {place}" for place in numbers.lost_places]
    return check


def _check_gap(numbers: CoverageNumbers, today: date) -> GateCheck:
    check = GateCheck("carry-gap", "What production has seen is covered")
    if numbers.profile is None:
        check.notes.append("no profile of production given (--gap)")
        return check
    open_, expired = numbers.unwaived_gaps(today)
    check.reasons += [f"production has seen and no test has: {gap.name} ({gap.words})" for gap in open_]
    check.reasons += expired
    if numbers.waived_gaps(today):
        check.notes.append(f"{len(numbers.waived_gaps(today))} waived")
    if numbers.profile.catalogue and numbers.profile.catalogue != numbers.data.catalogue:
        check.notes.append(f"production runs another catalogue, {numbers.profile.catalogue[:12]}")
    return check


def _check_catalogue(numbers: CoverageNumbers, today: date) -> GateCheck:
    check = GateCheck("catalogue", "Every invariant was exercised")
    waivers = {waiver.name: waiver for waiver in numbers.lock.waiver}
    waived = 0
    if not numbers.data.recorded_kinds and not numbers.data.invariants:
        check.reasons.append(f"nothing was recorded: all {len(numbers.activities)} invariants are UNKNOWN")
        return check
    for activity in numbers.activities:
        if activity.state == "ACTIVE":
            continue
        name = f"invariant {activity.invariant}"
        if name in waivers and waivers[name].last_day >= today:
            waived += 1
            continue
        explanation = (
            "its precondition never arose" if activity.state == "VACUOUS" else "what it is about was never recorded"
        )
        late = f"; its waiver ran out on {waivers[name].last_day}" if name in waivers else ""
        check.reasons.append(f"{activity.invariant} is {activity.state}: {explanation}{late}")
    check.notes.append(
        f"{sum(1 for activity in numbers.activities if activity.state == 'ACTIVE')} active, {waived} waived"
    )
    return check


def _check_digest(numbers: CoverageNumbers, results: StateTestResults | None) -> GateCheck:
    check = GateCheck("digest", "Measured with this catalogue")
    digest = numbers.catalogue.digest
    if numbers.data.catalogue != digest:
        check.reasons.append(
            f"the coverage was measured with catalogue {numbers.data.catalogue[:12]}, this one is {digest[:12]}"
        )
    if results is not None and results.catalogue and results.catalogue != digest:
        check.reasons.append(
            f"the tests ran with catalogue {results.catalogue[:12]}, this one is {digest[:12]}; run them again"
        )
    check.notes.append(f"catalogue {digest[:12]}")
    return check


__all__ = ["GateCheck", "Gate", "CorpusStatus", "judge_gate"]
