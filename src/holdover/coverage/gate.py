"""What a merge needs, asked of what a run has left: state tests, coverage, gap, catalogue, corpus. A line a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any

from holdover.coverage.lock import KEPT
from holdover.coverage.numbers import Numbers
from holdover.coverage.results import Results


@dataclass
class Check:
    """One thing that the gate asks for: its name, the reasons why it is not met, and what is worth saying anyway."""

    name: str
    title: str
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def met(self) -> bool:
        """Whether it is met."""
        return not self.reasons


@dataclass
class Kept:
    """What is said of a corpus: what is wrong with it, what is worth saying anyway, and how much it holds by name."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class Gate:
    """What the gate found."""

    checks: list[Check]
    numbers: Numbers
    tests: int
    today: date

    @property
    def met(self) -> bool:
        """Whether everything is met."""
        return all(check.met for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Why not, one line each."""
        return [f"{check.name}: {reason}" for check in self.checks for reason in check.reasons]

    def as_json(self) -> dict[str, Any]:
        """Everything as one object."""
        return {
            "verdict": "met" if self.met else "not met",
            "reasons": self.reasons,
            "checks": [
                {"name": one.name, "met": one.met, "reasons": one.reasons, "notes": one.notes} for one in self.checks
            ],
            "state_tests": self.tests,
            "coverage": self.numbers.as_json(self.today),
        }


def judge(
    numbers: Numbers,
    results: Results | None,
    today: date,
    *,
    corpus: Kept | None = None,
    fail_under: float | None = None,
) -> Gate:
    """Ask for everything. `corpus` is what is said of the corpus, None where none was named."""
    checks = [
        _tests(results),
        _recorded(results),
        _corpus(corpus, numbers),
        _denominator(numbers),
        _coverage(numbers, fail_under),
        _gap(numbers, today),
        _catalogue(numbers, today),
        _digest(numbers, results),
    ]
    if numbers.base is not None:
        checks.insert(5, _base(numbers))
    return Gate(checks, numbers, len(results.tests) if results is not None else 0, today)


def _tests(results: Results | None) -> Check:
    check = Check("state-tests", "State tests ran and passed")
    tests = results.tests if results is not None else []
    ran = [one for one in tests if one.outcome != "skipped"]
    if results is None:
        check.reasons.append("no results of state tests are at hand; run `pytest --state-cov`")
    elif not ran:
        check.reasons.append("no state test ran; mark at least one with @pytest.mark.state")
    check.reasons += [f"{one.test} {one.outcome}" for one in tests if one.outcome not in ("passed", "skipped")]
    check.reasons += [f"{test} failed" for test in (results.others_failed if results is not None else [])]
    if results is not None and results.lost_workers:
        check.reasons.append(f"workers of the test run died ({results.lost_workers}), and what they had seen is lost")
    skipped = len(tests) - len(ran)
    check.notes.append(f"{len(ran)} ran" + (f", {skipped} skipped" if skipped else ""))
    return check


def _recorded(results: Results | None) -> Check:
    check = Check("recorded-days", "Each replays a recorded day")
    for one in results.tests if results is not None else []:
        if not one.played and not one.logic and one.outcome != "skipped":
            check.reasons.append(
                f"{one.test} replayed no recording: run the session on a recorded day, "
                f"or mark the test @pytest.mark.state(logic=True)"
            )
    played = sum(one.played for one in results.tests) if results is not None else 0
    check.notes.append(f"{played:,} recorded market events played")
    return check


def _corpus(kept: Kept | None, numbers: Numbers) -> Check:
    check = Check("corpus", "The corpus is intact")
    wanted = {name: int(numbers.lock.thresholds[name]) for name in KEPT if name in numbers.lock.thresholds}
    if kept is None:
        check.notes.append("none named (--corpus)")
        return check
    check.reasons += kept.problems
    check.reasons += [
        f"{name} are {kept.counts.get(name, 0)}, should be at least {least}: the corpus has shrunk without a reason"
        for name, least in wanted.items()
        if kept.counts.get(name, 0) < least
    ]
    check.notes += kept.notes
    return check


def _denominator(numbers: Numbers) -> Check:
    check = Check("denominator", "Nothing infeasible was reached")
    check.reasons += [str(one) for one in numbers.wrong]
    check.notes.append(f"{len(numbers.lock.rule)} rules, {numbers.c1.of} places")
    return check


def _coverage(numbers: Numbers, fail_under: float | None) -> Check:
    check = Check("coverage", "State coverage is kept")
    check.reasons += numbers.short()
    if fail_under is not None and numbers.c1.percent < fail_under:
        check.reasons.append(f"c1 is {numbers.c1.percent:.2f}%, should be at least {fail_under:g}%")
    check.notes.append(f"C1 {numbers.c1}, pairs {numbers.pairs}, C2 {numbers.c2}")
    return check


def _base(numbers: Numbers) -> Check:
    check = Check("base", "No cell of the base is lost")
    check.reasons += [f"this change loses {lost}" for lost in numbers.lost]
    return check


def _gap(numbers: Numbers, today: date) -> Check:
    check = Check("carry-gap", "What production has seen is covered")
    if numbers.profile is None:
        check.notes.append("no profile of production given (--gap)")
        return check
    open_, expired = numbers.unwaived(today)
    check.reasons += [f"production has seen and no test has: {gap.name} ({gap.words})" for gap in open_]
    check.reasons += expired
    if numbers.waived(today):
        check.notes.append(f"{len(numbers.waived(today))} waived")
    if numbers.profile.catalogue and numbers.profile.catalogue != numbers.data.catalogue:
        check.notes.append(f"production runs another catalogue, {numbers.profile.catalogue[:12]}")
    return check


def _catalogue(numbers: Numbers, today: date) -> Check:
    check = Check("catalogue", "Every invariant had occasion")
    waivers = {one.name: one for one in numbers.lock.waiver}
    waived = 0
    if not numbers.data.recorded and not numbers.data.invariants:
        check.reasons.append(f"nothing was recorded: all {len(numbers.occasions)} invariants are UNKNOWN")
        return check
    for one in numbers.occasions:
        if one.state == "ACTIVE":
            continue
        name = f"invariant {one.invariant}"
        if name in waivers and waivers[name].until >= today:
            waived += 1
            continue
        why = "its precondition never arose" if one.state == "VACUOUS" else "what it is about was never recorded"
        late = f"; its waiver ran out on {waivers[name].until}" if name in waivers else ""
        check.reasons.append(f"{one.invariant} is {one.state}: {why}{late}")
    check.notes.append(f"{sum(1 for one in numbers.occasions if one.state == 'ACTIVE')} active, {waived} waived")
    return check


def _digest(numbers: Numbers, results: Results | None) -> Check:
    check = Check("digest", "Measured with this catalogue")
    wanted = numbers.catalogue.digest
    if numbers.data.catalogue != wanted:
        check.reasons.append(
            f"the coverage was measured with catalogue {numbers.data.catalogue[:12]}, this one is {wanted[:12]}"
        )
    if results is not None and results.catalogue and results.catalogue != wanted:
        check.reasons.append(
            f"the tests ran with catalogue {results.catalogue[:12]}, this one is {wanted[:12]}; run them again"
        )
    check.notes.append(f"catalogue {wanted[:12]}")
    return check


__all__ = ["Check", "Gate", "Kept", "judge"]
