"""State coverage as text; the gate as text, Markdown and JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import date

from holdover.coverage.gate import Gate
from holdover.coverage.numbers import CoverageNumbers, CoverageRatio

_WIDTH = 34


def occasions_text(numbers: CoverageNumbers) -> str:
    """Return how often and in which cells each invariant was exercised; those never exercised come first."""
    lines: list[str] = []
    for activity in sorted(numbers.activities, key=lambda activity: (activity.count, activity.invariant)):
        cells = numbers.activity_cells(activity)
        lines.append(f"{activity.invariant:<{_WIDTH + 6}}{activity.state:<9}{activity.count:>9,} in {len(cells)} cells")
        lines += [f"    {count:>9,}  {name}" for name, count in cells.items()]
    return "\n".join(lines)


def coverage_text(numbers: CoverageNumbers, today: date, *, show_missing: bool = False) -> str:
    """Return the coverage table: transitions, least covered first, then the three numbers."""
    rule = "-" * (_WIDTH + 24)
    lines = [f"{'Transition':<{_WIDTH}}{'Cells':>8}{'Miss':>8}{'Cover':>8}", rule]
    for line in numbers.lines_worst_first():
        lines.append(_row(line.label, line.ratio))
        if show_missing:
            lines += [f"    {numbers.product.describe(cell)}" for cell in line.missing]
    lines += [rule, _row("C1 cell x transition", numbers.c1), _row("   pairs of transitions", numbers.pairs)]
    if show_missing:
        lines += [f"    {pair}" for pair in numbers.missing_pairs]
    lines.append(_row("C2 checked state (fields)", numbers.c2))
    if show_missing:
        lines += [f"    {field} is written and no exercised invariant reads it" for field in numbers.unchecked_fields]
    lines += _gap_lines(numbers, today, show_missing)
    lines += _notes(numbers)
    return "\n".join(lines)


def _row(name: str, ratio: CoverageRatio) -> str:
    return f"{name:<{_WIDTH}}{ratio.total:>8}{ratio.total - ratio.covered:>8}{ratio!s:>8}"


def _gap_lines(numbers: CoverageNumbers, today: date, show_missing: bool) -> list[str]:
    if numbers.profile is None:
        return [f"{'C3 carry gap':<{_WIDTH}}{'no profile of production given':>24}"]
    open_, expired = numbers.unwaived_gaps(today)
    waived = len(numbers.carry_gaps) - len(open_)
    lines = [f"{'C3 carry gap':<{_WIDTH}}{len(open_):>8}" + (f"   and {waived} waived" if waived else "")]
    lines += [f"    {gap.name}" + (f"\n      {gap.words}" if show_missing else "") for gap in open_]
    return lines + [f"    {message}" for message in expired]


def _notes(numbers: CoverageNumbers) -> list[str]:
    lines: list[str] = []
    quiet = [activity for activity in numbers.activities if activity.state != "ACTIVE"]
    if quiet:
        lines += [
            "",
            f"Never exercised: {', '.join(f'{activity.invariant} ({activity.state})' for activity in quiet)}",
        ]
    lines += [f"Left out: {count} guards of {reason}" for reason, count in sorted(numbers.data.excluded_guards.items())]
    if numbers.rule_violations:
        lines += ["", *(str(violation) for violation in numbers.rule_violations)]
    if not numbers.lock.rule:
        lines += ["", "No infeasibility rule is accepted: the denominator is the whole product of the axes."]
    if numbers.lost_places:
        lines += ["", "This change loses:", *(f"    {place}" for place in numbers.lost_places)]
    return lines


def gate_text(gate: Gate) -> str:
    """Return one line for each check and one for each reason."""
    lines = []
    for check in gate.checks:
        mark = "ok  " if check.is_met else "FAIL"
        notes = "; ".join(check.notes)
        lines.append(f"{mark}  {check.title:<36}{notes}".rstrip())
        lines += [f"        {reason}" for reason in check.reasons]
    count = len(gate.reasons)
    reason_count = "1 reason" if count == 1 else f"{count} reasons"
    lines += ["", "The gate is met." if gate.is_met else f"The gate is not met: {reason_count}."]
    return "\n".join(lines)


def gate_markdown(gate: Gate, *, reasons_max: int = 20) -> str:
    """Return the gate as Markdown for a pull request: verdict, checks, numbers, transitions."""
    numbers = gate.numbers
    lines = [
        f"## State coverage gate: {'met' if gate.is_met else 'not met'}",
        "",
        "| | check | |",
        "|---|---|---|",
        *(
            f"| {'✅' if check.is_met else '❌'} | {check.title} | {_cell('; '.join(check.notes))} |"
            for check in gate.checks
        ),
        "",
    ]
    if gate.reasons:
        lines += [*(f"- {_cell(reason)}" for reason in gate.reasons[:reasons_max])]
        if len(gate.reasons) > reasons_max:
            lines.append(f"- and {len(gate.reasons) - reasons_max} more")
        lines.append("")
    open_, _ = numbers.unwaived_gaps(gate.today)
    lines += [
        "| number | covered | of | |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {ratio.covered} | {ratio.total} | {ratio} |"
            for name, ratio in (
                ("C1 cell × transition", numbers.c1),
                ("pairs of transitions", numbers.pairs),
                ("C2 checked state", numbers.c2),
            )
        ),
        f"| C3 carry gap | {'no profile' if numbers.profile is None else f'{len(open_)} open'} | | |",
        "",
        "| transition | cells | missing | cover |",
        "|---|---:|---:|---:|",
        *(
            f"| {line.label} | {line.ratio.total} | {line.ratio.total - line.ratio.covered} | {line.ratio} |"
            for line in numbers.lines_worst_first()
        ),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def gate_junit(gate: Gate) -> str:
    """Return the gate as JUnit XML, one test case a check."""
    failed = sum(1 for check in gate.checks if not check.is_met)
    suite = ET.Element(
        "testsuite", name="holdover gate", tests=str(len(gate.checks)), failures=str(failed), errors="0", skipped="0"
    )
    for check in gate.checks:
        case = ET.SubElement(suite, "testcase", classname="holdover.gate", name=f"{check.name}: {check.title}")
        if not check.is_met:
            failure = ET.SubElement(case, "failure", message=check.reasons[0])
            failure.text = "\n".join(check.reasons)
        elif check.notes:
            ET.SubElement(case, "system-out").text = "\n".join(check.notes)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


__all__ = ["coverage_text", "gate_junit", "gate_markdown", "gate_text", "occasions_text"]
