"""The results of exploration as screens of text and as JSON objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdover.explore.corpus import Corpus
from holdover.explore.fault_table import FaultCell, FaultRow
from holdover.explore.judge import VERDICTS, TrialResult
from holdover.explore.pairs import split_crossings
from holdover.explore.search import SearchResult
from holdover.explore.sweep import SweepResult, count_points
from holdover.explore.walk import SweepSpec
from holdover.explore.witness import Witnesses
from holdover.harness.player import PlayResult


def sweep_json(result: SweepResult, output_directory: str) -> dict[str, Any]:
    """Return the result of a sweep as one object."""
    return {
        "verdict": result.verdict,
        "exhaustive": result.is_exhaustive,
        "subject": result.spec.subject,
        "instruments": result.spec.symbols,
        "day": result.spec.day,
        "faults": result.spec.faults,
        "points": {"run": result.points_run, "all": result.points_all, **result.points},
        "classes": {"run": result.trials, "all": result.classes_all},
        "trials": result.trials,
        "by_kind": {kind: {verdict: result.count(kind, verdict) for verdict in VERDICTS} for kind in result.spec.kinds},
        "same_image": result.shared,
        "run_to_the_close": result.proved,
        "round_trips": result.round_trips,
        "new_cells": len(result.cells),
        "workers_died": result.worker_deaths,
        "problems": result.problems,
        "breaches": [_trial_json(trial) for trial in result.findings if trial.verdict == "breach"],
        "unknown": [_trial_json(trial) for trial in result.findings if trial.verdict == "unknown"],
        "converged": [_trial_json(trial) for trial in result.examples],
        "seconds": round(result.seconds, 3),
        "out": output_directory,
    }


def pairs_json(results: Sequence[SweepResult], spec: SweepSpec, output_directory: str) -> dict[str, Any]:
    """Return the results of a sweep of pairs as one object."""
    findings = [trial for result in results for trial in result.findings]
    return {
        "verdict": _overall_verdict(results),
        "whole": _is_complete(results, spec),
        "subject": spec.subject,
        "instruments": spec.symbols,
        "day": spec.day,
        "faults": spec.faults,
        "window": {"since": spec.begin_fraction, "until": spec.end_fraction, "within_s": spec.pair_window_ns / 1e9},
        "firsts": sum(swept.classes_all for swept in results),
        "pairs": sum(swept.trials for swept in results),
        "by_pair": {pair: dict(zip(VERDICTS, counts, strict=True)) for pair, counts in _count_by_pair(results).items()},
        "new_cells": len(set().union(*(swept.cells for swept in results))),
        "same_image": sum(swept.shared for swept in results),
        "run_to_the_close": sum(swept.proved for swept in results),
        "workers_died": sum(swept.worker_deaths for swept in results),
        "problems": sorted({problem for swept in results for problem in swept.problems}),
        "breaches": [_trial_json(trial) for trial in findings if trial.verdict == "breach"],
        "unknown": [_trial_json(trial) for trial in findings if trial.verdict == "unknown"],
        "seconds": round(sum(swept.seconds for swept in results), 3),
        "out": output_directory,
    }


def pairs_text(results: Sequence[SweepResult], spec: SweepSpec, output_directory: str) -> str:
    """Return one screen: the window, the verdicts by pair, the findings."""
    lines = [
        f"{_overall_verdict(results).upper():<8}{spec.subject} on {', '.join(spec.symbols)}, {spec.day}"
        + (f", with {', '.join(spec.faults)}" if spec.faults else ""),
        "",
        f"{'first, then':<42}{'trials':>9}" + "".join(f"{verdict:>13}" for verdict in VERDICTS),
    ]
    for pair, counts in _count_by_pair(results).items():
        lines.append(
            f"{pair.replace('+', ', then '):<42}{sum(counts):>9,}" + "".join(f"{count:>13,}" for count in counts)
        )
    pieces = f"{sum(result.pieces_done for result in results)} of {sum(swept.pieces for swept in results)} pieces"
    extent = "every pair" if _is_complete(results, spec) else f"some pairs ({pieces} of {len(results)} crossings)"
    lines += [
        "",
        f"{extent} with the first "
        f"between {spec.begin_fraction:.1%} and {spec.end_fraction:.1%} of the day and the second within "
        f"{spec.pair_window_ns / 1e9:g} s of it, one for each class of points: "
        f"{sum(swept.trials for swept in results):,} trials after "
        f"{sum(swept.classes_all for swept in results):,} firsts; "
        f"{sum(swept.seconds for swept in results):,.1f} s",
    ]
    lines += sorted({f"PROBLEM {problem}" for swept in results for problem in swept.problems})
    shown_marks: set[tuple[str, str, str]] = set()
    for trial in (trial for swept in results for trial in swept.findings):
        mark = (trial.kind_name, trial.oracle, trial.invariant)
        if mark not in shown_marks and len(shown_marks) < 12:
            shown_marks.add(mark)
            lines.append(f"{trial.verdict.upper()} {_describe_trial(trial)}: {trial.explanation}")
    if shown_marks:
        lines.append(f"the first of each is in {output_directory}/found-*.json: holdover replay, shrink")
    return "\n".join(lines)


def _overall_verdict(results: Sequence[SweepResult]) -> str:
    verdicts = {result.verdict for result in results}
    return next((verdict for verdict in ("breach", "unknown", "holds") if verdict in verdicts), "unknown")


def _is_complete(results: Sequence[SweepResult], spec: SweepSpec) -> bool:
    """Return whether every crossing was tried completely."""
    return len(results) == len(split_crossings(spec)) and all(result.pieces_done == result.pieces for result in results)


def _count_by_pair(results: Sequence[SweepResult]) -> dict[str, list[int]]:
    counts_by_pair: dict[str, list[int]] = {}
    for result in results:
        for key, count in result.counts.items():
            pair, _, verdict = key.partition("/")
            counts_by_pair.setdefault(pair, [0] * len(VERDICTS))[VERDICTS.index(verdict)] += count
    return dict(sorted(counts_by_pair.items()))


def _describe_trial(trial: TrialResult) -> str:
    text = f"{trial.kind} at {trial.at} {trial.n}"
    if trial.second is not None:
        text += f", then {trial.second.do} at {trial.second.at} {trial.second.n}" + (
            " of the next day" if trial.second.day else ""
        )
    return text


def _trial_json(trial: TrialResult) -> dict[str, Any]:
    second = (
        {"do": trial.second.do, "place": trial.second.at, "n": trial.second.n, "day": trial.second.day}
        if trial.second
        else None
    )
    return {
        **({"then": second} if second else {}),
        "kind": trial.kind,
        "place": trial.at,
        "n": trial.n,
        "oracle": trial.oracle,
        "invariant": trial.invariant,
        "subsystem": trial.subsystem,
        "time_ns": trial.time_ns,
        "explanation": trial.explanation,
    }


def sweep_text(result: SweepResult, output_directory: str) -> str:
    """Return one screen: the swept day, the verdicts by kind, the findings."""
    spec = result.spec
    lines = [
        f"{result.verdict.upper():<8}{spec.subject} on {', '.join(spec.symbols)}, {spec.day}"
        + (f", with {', '.join(spec.faults)}" if spec.faults else ""),
        "",
        f"{'kind':<22}{'points':>9}{'trials':>9}" + "".join(f"{verdict:>13}" for verdict in VERDICTS),
    ]
    for kind in spec.kinds:
        run = sum(result.count(kind, verdict) for verdict in VERDICTS)
        lines.append(
            f"{kind:<22}{count_points(result.points, kind):>9,}{run:>9,}"
            + "".join(f"{result.count(kind, verdict):>13,}" for verdict in VERDICTS)
        )
    lines.append("")
    if result.is_exhaustive:
        lines.append(
            f"exhaustive: every point, {result.points_all:,} of them; where points stand in the very same "
            "state one trial "
            f"is all of theirs: {result.classes_all:,} trials"
        )
    else:
        lines.append(
            f"representative: {result.points_run:,} of {result.points_all:,} points, "
            f"{result.trials:,} of {result.classes_all:,} classes"
        )
    lines.append(
        f"{result.proved:,} that had rejoined were run to the close; the world's state made the round trip "
        f"{result.round_trips} times; {len(result.cells):,} new cells; {result.seconds:,.1f} s"
    )
    if result.worker_deaths:
        lines.append(f"workers died: {result.worker_deaths}; their points were run again")
    lines += [f"PROBLEM {problem}" for problem in result.problems]
    shown_marks: set[tuple[str, str, str]] = set()
    for trial in result.findings:
        mark = (trial.kind, trial.oracle, trial.invariant)
        if mark not in shown_marks and len(shown_marks) < 12:
            shown_marks.add(mark)
            lines.append(f"{trial.verdict.upper()} {trial.kind} at {trial.at} {trial.n}: {trial.explanation}")
    if len(result.findings) > len(shown_marks):
        lines.append(
            f"{len(result.findings):,} found in all; the first of each is in {output_directory}/found-*.json: "
            "holdover replay, shrink"
        )
    return "\n".join(lines)


def play_text(play_result: PlayResult) -> str:
    """Return the result of playing a schedule as one screen."""
    lines = [f"{play_result.verdict.upper():<8}{play_result.schedule.name or 'schedule'}", ""]
    lines += [f"  {sentence}" for sentence in play_result.schedule.describe()]
    lines += [
        "",
        f"{play_result.market_events:,} market events, {play_result.mutations:,} mutations, "
        f"{play_result.operations_done} operations done",
    ]
    for breach in play_result.breaches[:8]:
        lines += [f"BREACH  {breach.explanation}", *([f"        state: {breach.state}"] if breach.state else [])]
    if len(play_result.breaches) > 8:
        lines.append(f"        and {len(play_result.breaches) - 8} more")
    if play_result.crash:
        lines.append(f"CRASH   {play_result.crash}")
    if play_result.journal is not None:
        lines.append(f"journal {play_result.journal} sha256 {play_result.journal_digest()[:16]}")
    return "\n".join(lines)


def search_json(result: SearchResult, output_directory: str) -> dict[str, Any]:
    """Return the result of a search as one object."""
    return {
        "verdict": result.verdict,
        "bursts": result.bursts,
        "operations": result.operations,
        "cells": result.cells,
        "transitions_in_cells": result.transitions,
        "archived": result.archived,
        "taken_up": result.schedules_replayed,
        "new": result.new_cells,
        "seconds": round(result.seconds, 3),
        "found": [
            {
                "mark": finding.mark,
                "confirmed": finding.confirmed,
                "explanation": finding.explanation,
                "burst": finding.burst,
                "seconds": round(finding.seconds, 3),
                "operations": len(finding.schedule.operations),
                "schedule": f"{output_directory}/found-{number}.json",
            }
            for number, finding in enumerate(result.findings)
        ],
    }


def search_text(result: SearchResult, symbols: Sequence[str], days: Sequence[str], output_directory: str) -> str:
    """Return the result of a search as one screen."""
    lines = [
        f"{result.verdict.upper():<8}{', '.join(symbols)}, {' to '.join(days)}",
        "",
        f"{result.bursts:,} bursts with {result.operations:,} operations in {result.seconds:,.1f} s",
        f"{result.cells:,} cells, {result.transitions:,} transitions in cells; {result.archived} states kept "
        "to go on from",
    ]
    if result.schedules_replayed:
        lines.append(
            f"{result.schedules_replayed} witnesses were played first; {result.new_cells} cells are new beside theirs"
        )
    for number, finding in enumerate(result.findings):
        verdict = "BREACH " if finding.confirmed else "UNKNOWN"
        lines.append(f"{verdict} {finding.explanation}")
        lines.append(
            f"        {len(finding.schedule.operations)} operations, {output_directory}/found-{number}.json: "
            "holdover shrink"
        )
    return "\n".join(lines)


def corpus_json(corpus: Corpus, witnesses: Witnesses) -> dict[str, Any]:
    """Return the schedules, witnesses and retired entries of a corpus as one object."""
    return {
        "listed": {name: entry.reason for name, entry in corpus.entries.items()},
        "retired": {name: {"why": entry.retired, "by": entry.by} for name, entry in corpus.retired_entries.items()},
        "axes": witnesses.head.axes,
        "witness_of": witnesses.cells,
        "retired_cells": {
            name: {"why": retired_cell.reason, "by": retired_cell.by}
            for name, retired_cell in corpus.retired_cells.items()
        },
    }


def corpus_text(corpus: Corpus, witnesses: Witnesses, *, cells: bool) -> str:
    """Return one line for each schedule and witness, or (with `cells`) for each cell; then the retired entries."""
    lines = [f"{name}\n    {entry.reason}" for name, entry in corpus.entries.items()]
    if cells:
        lines += [f"{' '.join(witnesses.head.axes)}"] * bool(witnesses.lines)
        lines += [f"{witness}  {cell}" for cell, witness in sorted(witnesses.cells.items())]
    else:
        lines += [
            f"witness {witness.name}  {', '.join(witness.recordings)}: {len(witness.operations)} operations, "
            f"{len(witness.reaches)} cells"
            for witness in witnesses.lines
        ]
    lines += [f"retired {name}, by {entry.by}: {entry.retired}" for name, entry in corpus.retired_entries.items()]
    lines += [
        f"retired {name}, by {retired_cell.by}: {retired_cell.reason}"
        for name, retired_cell in corpus.retired_cells.items()
    ]
    return "\n".join(lines)


def _cell(cell: FaultCell | None) -> str:
    if cell is None or cell.is_found is None:
        return "-"
    if not cell.is_found:
        return f"no ({cell.runs} in {cell.seconds:.0f} s)"
    small = f", {cell.operations} ops" if cell.operations is not None else ""
    small += f", {cell.trigger}" if cell.trigger else ""
    return f"yes ({cell.runs} in {cell.seconds:.0f} s{small})"


def faults_text(rows: Sequence[FaultRow], methods: Sequence[str]) -> str:
    """Return the fault table: for each fault and method, the runs and seconds it took, and the operations that
    remain.
    """
    lines = [f"{'fault':<34}" + "".join(f"{method:<28}" for method in methods)]
    lines += [f"{row.fault:<34}" + "".join(f"{_cell(row.cells.get(method)):<28}" for method in methods) for row in rows]
    lines.append("")
    for method in methods:
        cells = [row.cells[method] for row in rows if method in row.cells and row.cells[method].is_found is not None]
        found_count = sum(1 for cell in cells if cell.is_found)
        named = sum(1 for cell in cells if cell.is_named)
        lines.append(f"{method:<10}found {found_count} of {len(cells)}, {named} by the invariant named for it")
    return "\n".join(lines)


def faults_page(
    rows: Sequence[FaultRow], methods: Sequence[str], command: str, symbols: Sequence[str], days: Sequence[str]
) -> str:
    """Return the fault table as Markdown for the docs, with the breached invariant and the shortest story of each
    fault.
    """
    lines = [
        "# Which method finds which seeded fault",
        "",
        f"Made with `{command} --markdown docs/findings/faults.md` on {', '.join(symbols)} of "
        f"{' and '.join(days)}. The",
        "seconds are those of a busy machine with two cores; do not compare machines by them.",
        "Sweep and search end with the first breach or when their budget is spent, so *no* means *not in "
        "that time*. Each",
        f"finding is shrunk; with more plays it may become shorter. {_budgets(rows)}",
        "",
        *[f"- {_summary(rows, method)}" for method in methods],
        "",
        '"yes (1 in 2 s, 0 ops)" means: found after one run in two seconds, by a story without any operation (the',
        "unchanged days). *named* lists the invariants that the fault itself violates, the main one first; *breached*",
        "is the invariant that its shortest story breaches. `-` means that this method was not tried.",
        "",
        "| fault | named | " + " | ".join(methods) + " | breached | story |",
        "|---|---|" + "---|" * len(methods) + "---|---|",
    ]
    for row in rows:
        deep = [row.cells[method] for method in reversed(methods) if method in row.cells and row.cells[method].found_by]
        by = next((cell.found_by for cell in sorted(deep, key=lambda cell: not cell.is_named)), "")
        story = " ".join(row.schedule.describe()[1:]) or "the unchanged days" if row.schedule is not None else ""
        cells = " | ".join(_cell(row.cells.get(method)) for method in methods)
        lines.append(f"| {row.fault} | {' or '.join(row.catches)} | {cells} | {by} | {story} |")
    return "\n".join(lines) + "\n"


def _budgets(rows: Sequence[FaultRow]) -> str:
    budgets = sorted({cell.budget_s for row in rows for cell in row.cells.values() if cell.budget_s})
    text = (
        f"{budgets[0]:g} s"
        if len(budgets) == 1
        else f"between {budgets[0]:g} and {budgets[-1]:g} s"
        if budgets
        else "no time"
    )
    return f"Each had {text} a fault."


def _summary(rows: Sequence[FaultRow], method: str) -> str:
    cells = [row.cells[method] for row in rows if method in row.cells and row.cells[method].is_found is not None]
    found_cells = [cell for cell in cells if cell.is_found]
    text = f"{method}: {len(found_cells)} of {len(cells)} found"
    if method not in ("fresh",):
        text += f", {sum(1 for cell in found_cells if cell.is_named)} by an invariant named for it"
    operations = [cell.operations for cell in found_cells if cell.operations is not None]
    return text + (f", in {max(operations)} operations or fewer" if operations else "")
