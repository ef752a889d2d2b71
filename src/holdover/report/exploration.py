"""What exploration found, as a screen of text and as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdover.explore.corpus import Corpus
from holdover.explore.faulted import Cell, Row
from holdover.explore.pairs import crossings
from holdover.explore.play import Played
from holdover.explore.search import Searched
from holdover.explore.sweep import Swept, points_of
from holdover.explore.trial import VERDICTS, Tried
from holdover.explore.walk import Ground
from holdover.explore.witness import Witnesses


def sweep_json(swept: Swept, out: str) -> dict[str, Any]:
    """One object."""
    return {
        "verdict": swept.verdict,
        "exhaustive": swept.exhaustive,
        "subject": swept.ground.subject,
        "instruments": swept.ground.symbols,
        "day": swept.ground.day,
        "faults": swept.ground.faults,
        "points": {"run": swept.points_run, "all": swept.points_all, **swept.points},
        "classes": {"run": swept.trials, "all": swept.classes_all},
        "trials": swept.trials,
        "by_kind": {kind: {one: swept.count(kind, one) for one in VERDICTS} for kind in swept.ground.kinds},
        "same_image": swept.shared,
        "run_to_the_close": swept.proved,
        "round_trips": swept.round_trips,
        "new_cells": len(swept.cells),
        "workers_died": swept.died,
        "problems": swept.problems,
        "breaches": [_tried(one) for one in swept.found if one.verdict == "breach"],
        "unknown": [_tried(one) for one in swept.found if one.verdict == "unknown"],
        "converged": [_tried(one) for one in swept.examples],
        "seconds": round(swept.seconds, 3),
        "out": out,
    }


def pairs_json(done: Sequence[Swept], ground: Ground, out: str) -> dict[str, Any]:
    """What a sweep of pairs came to, as one object."""
    found = [one for swept in done for one in swept.found]
    return {
        "verdict": _of_all(done),
        "whole": _whole(done, ground),
        "subject": ground.subject,
        "instruments": ground.symbols,
        "day": ground.day,
        "faults": ground.faults,
        "window": {"since": ground.since, "until": ground.until, "within_s": ground.within_ns / 1e9},
        "firsts": sum(swept.classes_all for swept in done),
        "pairs": sum(swept.trials for swept in done),
        "by_pair": {pair: dict(zip(VERDICTS, counts, strict=True)) for pair, counts in _by_pair(done).items()},
        "new_cells": len(set().union(*(swept.cells for swept in done))),
        "same_image": sum(swept.shared for swept in done),
        "run_to_the_close": sum(swept.proved for swept in done),
        "workers_died": sum(swept.died for swept in done),
        "problems": sorted({one for swept in done for one in swept.problems}),
        "breaches": [_tried(one) for one in found if one.verdict == "breach"],
        "unknown": [_tried(one) for one in found if one.verdict == "unknown"],
        "seconds": round(sum(swept.seconds for swept in done), 3),
        "out": out,
    }


def pairs_text(done: Sequence[Swept], ground: Ground, out: str) -> str:
    """One screen: the window, the histogram of verdicts by pair, what was found."""
    lines = [
        f"{_of_all(done).upper():<8}{ground.subject} on {', '.join(ground.symbols)}, {ground.day}"
        + (f", with {', '.join(ground.faults)}" if ground.faults else ""),
        "",
        f"{'first, then':<42}{'trials':>9}" + "".join(f"{one:>13}" for one in VERDICTS),
    ]
    for pair, counts in _by_pair(done).items():
        lines.append(f"{pair.replace('+', ', then '):<42}{sum(counts):>9,}" + "".join(f"{one:>13,}" for one in counts))
    pieces = f"{sum(swept.done for swept in done)} of {sum(swept.pieces for swept in done)} pieces"
    lines += [
        "",
        f"{'every pair' if _whole(done, ground) else f'some pairs ({pieces} of {len(done)} crossings)'} with the first "
        f"between {ground.since:.1%} and {ground.until:.1%} of the day and the second within "
        f"{ground.within_ns / 1e9:g} s of it, one for each class of points: "
        f"{sum(swept.trials for swept in done):,} trials after {sum(swept.classes_all for swept in done):,} firsts; "
        f"{sum(swept.seconds for swept in done):,.1f} s",
    ]
    lines += sorted({f"PROBLEM {one}" for swept in done for one in swept.problems})
    seen: set[tuple[str, str, str]] = set()
    for one in (one for swept in done for one in swept.found):
        mark = (one.named, one.oracle, one.invariant)
        if mark not in seen and len(seen) < 12:
            seen.add(mark)
            lines.append(f"{one.verdict.upper()} {_places(one)}: {one.explanation}")
    if seen:
        lines.append(f"the first of each is in {out}/found-*.json: holdover replay, shrink")
    return "\n".join(lines)


def _of_all(done: Sequence[Swept]) -> str:
    verdicts = {swept.verdict for swept in done}
    return next((one for one in ("breach", "unknown", "holds") if one in verdicts), "unknown")


def _whole(done: Sequence[Swept], ground: Ground) -> bool:
    """Whether every crossing was tried to its end."""
    return len(done) == len(crossings(ground)) and all(swept.done == swept.pieces for swept in done)


def _by_pair(done: Sequence[Swept]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for swept in done:
        for key, count in swept.counts.items():
            pair, _, verdict = key.partition("/")
            found.setdefault(pair, [0] * len(VERDICTS))[VERDICTS.index(verdict)] += count
    return dict(sorted(found.items()))


def _places(one: Tried) -> str:
    told = f"{one.kind} at {one.place} {one.n}"
    if one.then is not None:
        told += f", then {one.then.do} at {one.then.at} {one.then.n}" + (" of the next day" if one.then.day else "")
    return told


def _tried(one: Tried) -> dict[str, Any]:
    then = {"do": one.then.do, "place": one.then.at, "n": one.then.n, "day": one.then.day} if one.then else None
    return {
        **({"then": then} if then else {}),
        "kind": one.kind,
        "place": one.place,
        "n": one.n,
        "oracle": one.oracle,
        "invariant": one.invariant,
        "subsystem": one.subsystem,
        "time_ns": one.time_ns,
        "explanation": one.explanation,
    }


def sweep_text(swept: Swept, out: str) -> str:
    """One screen: what was swept, the histogram of verdicts by kind, what was found."""
    ground = swept.ground
    lines = [
        f"{swept.verdict.upper():<8}{ground.subject} on {', '.join(ground.symbols)}, {ground.day}"
        + (f", with {', '.join(ground.faults)}" if ground.faults else ""),
        "",
        f"{'kind':<22}{'points':>9}{'trials':>9}" + "".join(f"{one:>13}" for one in VERDICTS),
    ]
    for kind in ground.kinds:
        run = sum(swept.count(kind, one) for one in VERDICTS)
        lines.append(
            f"{kind:<22}{points_of(swept.points, kind):>9,}{run:>9,}"
            + "".join(f"{swept.count(kind, one):>13,}" for one in VERDICTS)
        )
    lines.append("")
    if swept.exhaustive:
        lines.append(
            f"exhaustive: every point, {swept.points_all:,} of them; where points stand in the very same state one trial "
            f"is all of theirs: {swept.classes_all:,} trials"
        )
    else:
        lines.append(
            f"representative: {swept.points_run:,} of {swept.points_all:,} points, "
            f"{swept.trials:,} of {swept.classes_all:,} classes"
        )
    lines.append(
        f"{swept.proved:,} that had rejoined were run to the close; the world's state made the round trip "
        f"{swept.round_trips} times; {len(swept.cells):,} new cells; {swept.seconds:,.1f} s"
    )
    if swept.died:
        lines.append(f"workers died: {swept.died}; their points were run again")
    lines += [f"PROBLEM {one}" for one in swept.problems]
    seen: set[tuple[str, str, str]] = set()
    for one in swept.found:
        mark = (one.kind, one.oracle, one.invariant)
        if mark not in seen and len(seen) < 12:
            seen.add(mark)
            lines.append(f"{one.verdict.upper()} {one.kind} at {one.place} {one.n}: {one.explanation}")
    if len(swept.found) > len(seen):
        lines.append(
            f"{len(swept.found):,} found in all; the first of each is in {out}/found-*.json: holdover replay, shrink"
        )
    return "\n".join(lines)


def played_text(played: Played) -> str:
    """What became of a schedule, on one screen."""
    lines = [f"{played.verdict.upper():<8}{played.schedule.name or 'schedule'}", ""]
    lines += [f"  {one}" for one in played.schedule.story()]
    lines += [
        "",
        f"{played.market_events:,} market events, {played.mutations:,} mutations, {played.done} operations done",
    ]
    for one in played.breaches[:8]:
        lines += [f"BREACH  {one.explanation}", *([f"        state: {one.state}"] if one.state else [])]
    if len(played.breaches) > 8:
        lines.append(f"        and {len(played.breaches) - 8} more")
    if played.crash:
        lines.append(f"CRASH   {played.crash}")
    if played.journal is not None:
        lines.append(f"journal {played.journal} sha256 {played.journal_digest()[:16]}")
    return "\n".join(lines)


def search_json(done: Searched, out: str) -> dict[str, Any]:
    """One object."""
    return {
        "verdict": done.verdict,
        "bursts": done.bursts,
        "operations": done.operations,
        "cells": done.cells,
        "transitions_in_cells": done.transitions,
        "archived": done.archived,
        "taken_up": done.taken_up,
        "new": done.new,
        "seconds": round(done.seconds, 3),
        "found": [
            {
                "mark": one.mark,
                "confirmed": one.confirmed,
                "explanation": one.explanation,
                "burst": one.burst,
                "seconds": round(one.seconds, 3),
                "operations": len(one.schedule.operations),
                "schedule": f"{out}/found-{number}.json",
            }
            for number, one in enumerate(done.found)
        ],
    }


def search_text(done: Searched, symbols: Sequence[str], days: Sequence[str], out: str) -> str:
    """One screen."""
    lines = [
        f"{done.verdict.upper():<8}{', '.join(symbols)}, {' to '.join(days)}",
        "",
        f"{done.bursts:,} bursts with {done.operations:,} operations in {done.seconds:,.1f} s",
        f"{done.cells:,} cells, {done.transitions:,} transitions in cells; {done.archived} states kept to go on from",
    ]
    if done.taken_up:
        lines.append(f"{done.taken_up} witnesses were played first; {done.new} cells are new beside theirs")
    for number, one in enumerate(done.found):
        told = "BREACH " if one.confirmed else "UNKNOWN"
        lines.append(f"{told} {one.explanation}")
        lines.append(f"        {len(one.schedule.operations)} operations, {out}/found-{number}.json: holdover shrink")
    return "\n".join(lines)


def corpus_json(corpus: Corpus, held: Witnesses) -> dict[str, Any]:
    """What a corpus holds, and what it has let go."""
    return {
        "listed": {name: one.why for name, one in corpus.listed.items()},
        "retired": {name: {"why": one.retired, "by": one.by} for name, one in corpus.retired.items()},
        "axes": held.head.axes,
        "witness_of": held.cells,
        "retired_cells": {name: {"why": one.why, "by": one.by} for name, one in corpus.retired_cells.items()},
    }


def corpus_text(corpus: Corpus, held: Witnesses, *, cells: bool) -> str:
    """A line a schedule and a witness, or (with `cells`) a line a cell; then what has been let go."""
    lines = [f"{name}\n    {one.why}" for name, one in corpus.listed.items()]
    if cells:
        lines += [f"{' '.join(held.head.axes)}"] * bool(held.lines)
        lines += [f"{witness}  {cell}" for cell, witness in sorted(held.cells.items())]
    else:
        lines += [
            f"witness {one.name}  {', '.join(one.on)}: {len(one.operations)} operations, {len(one.reaches)} cells"
            for one in held.lines
        ]
    lines += [f"retired {name}, by {one.by}: {one.retired}" for name, one in corpus.retired.items()]
    lines += [f"retired {name}, by {one.by}: {one.why}" for name, one in corpus.retired_cells.items()]
    return "\n".join(lines)


def _cell(cell: Cell | None) -> str:
    if cell is None or cell.found is None:
        return "-"
    if not cell.found:
        return f"no ({cell.runs} in {cell.seconds:.0f} s)"
    small = f", {cell.operations} ops" if cell.operations is not None else ""
    small += f", {cell.how}" if cell.how else ""
    return f"yes ({cell.runs} in {cell.seconds:.0f} s{small})"


def faults_text(rows: Sequence[Row], ways: Sequence[str]) -> str:
    """The table on a screen: fault by way; runs and seconds to find it, and the operations that are left."""
    lines = [f"{'fault':<34}" + "".join(f"{way:<28}" for way in ways)]
    lines += [f"{row.fault:<34}" + "".join(f"{_cell(row.cells.get(way)):<28}" for way in ways) for row in rows]
    lines.append("")
    for way in ways:
        told = [row.cells[way] for row in rows if way in row.cells and row.cells[way].found is not None]
        found = sum(1 for cell in told if cell.found)
        named = sum(1 for cell in told if cell.named)
        lines.append(f"{way:<10}found {found} of {len(told)}, {named} by the invariant named for it")
    return "\n".join(lines)


def faults_page(
    rows: Sequence[Row], ways: Sequence[str], asked: str, symbols: Sequence[str], days: Sequence[str]
) -> str:
    """The same as a page for the docs, with what was breached and the shortest story of each."""
    lines = [
        "# What finds which seeded fault",
        "",
        f"Made with `{asked} --markdown docs/findings/faults.md` on {', '.join(symbols)} of {' and '.join(days)}. The",
        "seconds are those of a machine of two cores that had other work to do, and are of no use for comparing machines.",
        "Sweep and search end with the first breach or when their budget is spent, so *no* means *not in that time*; what",
        f"they find is shrunk, and with more plays it may become shorter still. {_budgets(rows)}",
        "",
        *[f"- {_summary(rows, way)}" for way in ways],
        "",
        '"yes (1 in 2 s, 0 ops)" is: found after one run in two seconds, by a story without any operation, the days as',
        "they are. *named* are the invariants that the fault itself violates, the one that it is named for first; *breached*",
        "is what its shortest story breaches. `-` was not looked for.",
        "",
        "| fault | named | " + " | ".join(ways) + " | breached | story |",
        "|---|---|" + "---|" * len(ways) + "---|---|",
    ]
    for row in rows:
        deep = [row.cells[way] for way in reversed(ways) if way in row.cells and row.cells[way].by]
        by = next((one.by for one in sorted(deep, key=lambda one: not one.named)), "")
        story = " ".join(row.schedule.story()[1:]) or "the days as they are" if row.schedule is not None else ""
        cells = " | ".join(_cell(row.cells.get(way)) for way in ways)
        lines.append(f"| {row.fault} | {' or '.join(row.catches)} | {cells} | {by} | {story} |")
    return "\n".join(lines) + "\n"


def _budgets(rows: Sequence[Row]) -> str:
    given = sorted({cell.budget_s for row in rows for cell in row.cells.values() if cell.budget_s})
    told = f"{given[0]:g} s" if len(given) == 1 else f"between {given[0]:g} and {given[-1]:g} s" if given else "no time"
    return f"Each had {told} a fault."


def _summary(rows: Sequence[Row], way: str) -> str:
    told = [row.cells[way] for row in rows if way in row.cells and row.cells[way].found is not None]
    found = [cell for cell in told if cell.found]
    said = f"{way}: {len(found)} of {len(told)} found"
    if way not in ("fresh",):
        said += f", {sum(1 for cell in found if cell.named)} by an invariant named for it"
    operations = [cell.operations for cell in found if cell.operations is not None]
    return said + (f", in {max(operations)} operations or fewer" if operations else "")
