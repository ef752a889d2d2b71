"""State coverage on a screen and in a pull request; the gate as text, Markdown and JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import date

from holdover.coverage.gate import Gate
from holdover.coverage.numbers import Numbers, Ratio

_WIDTH = 34


def occasions_text(numbers: Numbers) -> str:
    """Each invariant, how often its precondition arose and in which cells; those without occasion first."""
    lines: list[str] = []
    for one in sorted(numbers.occasions, key=lambda one: (one.count, one.invariant)):
        cells = numbers.cells_of(one)
        lines.append(f"{one.invariant:<{_WIDTH + 6}}{one.state:<9}{one.count:>9,} in {len(cells)} cells")
        lines += [f"    {count:>9,}  {name}" for name, count in cells.items()]
    return "\n".join(lines)


def coverage_text(numbers: Numbers, today: date, *, show_missing: bool = False) -> str:
    """The table: transitions worst first, then the numbers, which are never averaged."""
    rule = "-" * (_WIDTH + 24)
    lines = [f"{'Transition':<{_WIDTH}}{'Cells':>8}{'Miss':>8}{'Cover':>8}", rule]
    for line in numbers.worst_first():
        lines.append(_row(line.label, line.ratio))
        if show_missing:
            lines += [f"    {numbers.product.words(cell)}" for cell in line.missing]
    lines += [rule, _row("C1 cell x transition", numbers.c1), _row("   pairs of transitions", numbers.pairs)]
    if show_missing:
        lines += [f"    {pair}" for pair in numbers.missing_pairs]
    lines.append(_row("C2 checked state (fields)", numbers.c2))
    if show_missing:
        lines += [
            f"    {field} is written and no invariant with occasion reads it" for field in numbers.unchecked_fields
        ]
    lines += _gap_lines(numbers, today, show_missing)
    lines += _notes(numbers)
    return "\n".join(lines)


def _row(name: str, ratio: Ratio) -> str:
    return f"{name:<{_WIDTH}}{ratio.of:>8}{ratio.of - ratio.done:>8}{ratio!s:>8}"


def _gap_lines(numbers: Numbers, today: date, show_missing: bool) -> list[str]:
    if numbers.profile is None:
        return [f"{'C3 carry gap':<{_WIDTH}}{'no profile of production given':>24}"]
    open_, expired = numbers.unwaived(today)
    waived = len(numbers.gap) - len(open_)
    lines = [f"{'C3 carry gap':<{_WIDTH}}{len(open_):>8}" + (f"   and {waived} waived" if waived else "")]
    lines += [f"    {gap.name}" + (f"\n      {gap.words}" if show_missing else "") for gap in open_]
    return lines + [f"    {one}" for one in expired]


def _notes(numbers: Numbers) -> list[str]:
    lines: list[str] = []
    quiet = [one for one in numbers.occasions if one.state != "ACTIVE"]
    if quiet:
        lines += ["", f"Without occasion: {', '.join(f'{one.invariant} ({one.state})' for one in quiet)}"]
    lines += [f"Left out: {count} guards of {why}" for why, count in sorted(numbers.data.left_out.items())]
    if numbers.wrong:
        lines += ["", *(str(one) for one in numbers.wrong)]
    if not numbers.lock.rule:
        lines += ["", "No infeasibility rule is accepted: the denominator is the whole product of the axes."]
    if numbers.lost:
        lines += ["", "This change loses:", *(f"    {one}" for one in numbers.lost)]
    return lines


def gate_text(gate: Gate) -> str:
    """One line a check, one line a reason."""
    lines = []
    for check in gate.checks:
        mark = "ok  " if check.met else "FAIL"
        said = "; ".join(check.notes)
        lines.append(f"{mark}  {check.title:<36}{said}".rstrip())
        lines += [f"        {reason}" for reason in check.reasons]
    count = len(gate.reasons)
    why = "1 reason" if count == 1 else f"{count} reasons"
    lines += ["", "The gate is met." if gate.met else f"The gate is not met: {why}."]
    return "\n".join(lines)


def gate_markdown(gate: Gate, *, most: int = 20) -> str:
    """For a pull request: the verdict, the checks, the numbers, what is missing most."""
    numbers = gate.numbers
    lines = [
        f"## State coverage gate: {'met' if gate.met else 'not met'}",
        "",
        "| | check | |",
        "|---|---|---|",
        *(
            f"| {'✅' if check.met else '❌'} | {check.title} | {_cell('; '.join(check.notes))} |"
            for check in gate.checks
        ),
        "",
    ]
    if gate.reasons:
        lines += [*(f"- {_cell(reason)}" for reason in gate.reasons[:most])]
        if len(gate.reasons) > most:
            lines.append(f"- and {len(gate.reasons) - most} more")
        lines.append("")
    open_, _ = numbers.unwaived(gate.today)
    lines += [
        "| number | covered | of | |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {ratio.done} | {ratio.of} | {ratio} |"
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
            f"| {line.label} | {line.ratio.of} | {line.ratio.of - line.ratio.done} | {line.ratio} |"
            for line in numbers.worst_first()
        ),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def gate_junit(gate: Gate) -> str:
    """One test case a check, as CI systems read it."""
    failed = sum(1 for check in gate.checks if not check.met)
    suite = ET.Element(
        "testsuite", name="holdover gate", tests=str(len(gate.checks)), failures=str(failed), errors="0", skipped="0"
    )
    for check in gate.checks:
        case = ET.SubElement(suite, "testcase", classname="holdover.gate", name=f"{check.name}: {check.title}")
        if not check.met:
            failure = ET.SubElement(case, "failure", message=check.reasons[0])
            failure.text = "\n".join(check.reasons)
        elif check.notes:
            ET.SubElement(case, "system-out").text = "\n".join(check.notes)
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


__all__ = ["coverage_text", "gate_junit", "gate_markdown", "gate_text", "occasions_text"]
