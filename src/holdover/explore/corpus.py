"""The corpus: a committed folder of schedules, played before anything else.

    corpus/
      corpus.json                 each schedule with its digest and why it is there, and what has been taken out
      regressions/*.json          what has failed once, and must hold
      witnesses.jsonl             for each cell that is covered a short schedule that reaches it, a line each

The list says what the folder must hold. A schedule that is gone, changed, or in the folder and not on the list, is a
problem: a corpus may grow by itself, and shrinks only with a reason that is written down. `replay` plays it:
regressions first, then the witnesses, each of which must still reach its cells.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.explore.play import marks_of, play
from holdover.explore.schedule import BadSchedule, Schedule, read_schedule
from holdover.explore.witness import Witnesses, reach
from holdover.recording import BadRecording, RecordingStore, bundled
from holdover.runtime.files import write_whole

_LIST: Final = "corpus.json"
WITNESSES: Final = "witnesses.jsonl"


class Listed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One schedule of the corpus: its digest and why it is there; `retired` says why it was taken out."""

    digest: str
    why: str
    retired: str = ""
    by: str = ""


class ListedWitnesses(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the list says of the witnesses: the file's SHA-256, how many there are, for how many cells."""

    sha256: str
    schedules: int
    cells: int


class Retired(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cell that has no witness any more: why, and who says so."""

    why: str
    by: str


class _List(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    corpus: int
    schedules: dict[str, Listed] = {}
    witnesses: ListedWitnesses | None = None
    retired_cells: dict[str, Retired] = {}


class BadCorpus(ValueError):
    """A corpus that cannot be read, or an act on it that is refused; the message says why."""


class Corpus:
    """A folder of schedules and its list. Raises `BadCorpus` when the list cannot be read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        path = directory / _LIST
        self._list = _List(corpus=1)
        if path.exists():
            try:
                self._list = msgspec.json.decode(path.read_bytes(), type=_List)
            except (msgspec.MsgspecError, OSError) as problem:
                raise BadCorpus(f"{path}: not the list of a corpus: {problem}") from problem
            if self._list.corpus != 1:
                raise BadCorpus(f"{path}: written in version {self._list.corpus}, this Holdover reads version 1")

    @property
    def listed(self) -> dict[str, Listed]:
        """What the folder must hold, by name; what has been retired is left out."""
        return {name: one for name, one in sorted(self._list.schedules.items()) if not one.retired}

    def files(self) -> list[str]:
        """The schedules in the folder, by name relative to it, sorted."""
        return sorted(
            path.relative_to(self.directory).as_posix() for path in self.directory.rglob("*.json") if path.name != _LIST
        )

    def schedules(self) -> list[tuple[str, Schedule]]:
        """Every schedule of the list, in the order of names. Raises `BadSchedule` for one that cannot be read."""
        return [(name, read_schedule(self.directory / name)) for name in self.listed]

    def witnesses(self) -> Witnesses:
        """The witnesses; none where there is no file of them. Raises `BadSchedule` when it cannot be read."""
        path = self.directory / WITNESSES
        return Witnesses.read(path) if path.exists() else Witnesses()

    @property
    def retired_cells(self) -> dict[str, Retired]:
        """The cells that were let go, with the reason."""
        return dict(self._list.retired_cells)

    @property
    def retired(self) -> dict[str, Listed]:
        """The schedules that were taken out, with the reason."""
        return {name: one for name, one in sorted(self._list.schedules.items()) if one.retired}

    def counts(self) -> dict[str, int]:
        """How much it holds, for a threshold: what was let go with a reason counts as held."""
        witnessed = self._list.witnesses.cells if self._list.witnesses is not None else 0
        return {"regressions": len(self._list.schedules), "witnessed": witnessed + len(self._list.retired_cells)}

    def check(self) -> list[str]:
        """What is wrong, in words; empty when it is whole: nothing emptied, taken away, changed or slipped in."""
        if not self.directory.is_dir():
            return [f"{self.directory}: there is no such folder; a corpus that was there must not go away"]
        found: list[str] = []
        if not self.listed and self._list.witnesses is None:
            found.append(f"{self.directory}: the corpus is empty; it should hold at least one schedule")
        at_hand = set(self.files())
        for name, listed in self.listed.items():
            if name not in at_hand:
                found.append(f"{name}: is gone; a schedule leaves the corpus with a reason: holdover corpus retire")
                continue
            try:
                digest = read_schedule(self.directory / name).digest
            except BadSchedule as problem:
                found.append(str(problem))
                continue
            if digest != listed.digest:
                found.append(f"{name}: does something else than when it was added ({listed.digest[:12]})")
        found += [
            f"{name}: is not on the list; add it with a reason: holdover corpus add"
            for name in sorted(at_hand)
            if name not in self.listed
        ]
        return found + self._check_witnesses()

    def _check_witnesses(self) -> list[str]:
        listed = self._list.witnesses
        path = self.directory / WITNESSES
        if listed is None:
            return [f"{WITNESSES}: is not on the list; only holdover corpus and search write it"] * path.exists()
        if not path.exists():
            return [f"{WITNESSES}: is gone, with the witnesses of {listed.cells} cells"]
        if hashlib.sha256(path.read_bytes()).hexdigest() == listed.sha256:
            return []
        try:
            there = self.witnesses()
        except BadSchedule as problem:
            return [str(problem)]
        return [
            f"{WITNESSES}: was changed by hand: {len(there.lines)} witnesses of {len(there.cells)} cells, "
            f"should be {listed.schedules} of {listed.cells}; a cell is let go with a reason: holdover corpus retire"
        ]

    def add(self, schedule: Schedule, name: str, why: str) -> Path:
        """Add a schedule under a name below the folder; returns the file. Raises `BadCorpus` without a reason."""
        if not why.strip():
            raise BadCorpus(f"{name}: say why it is there")
        same = next((known for known, one in self.listed.items() if one.digest == schedule.digest), "")
        if same and same != name:
            raise BadCorpus(f"{name}: does the same as {same}, which is there")
        path = schedule.save(self.directory / name)
        self._list.schedules[name] = Listed(digest=schedule.digest, why=why)
        self._save()
        return path

    def keep(self, witnesses: Witnesses) -> None:
        """Write the witnesses, and what the list says of them. A cell that was let go and has one again is held."""
        witnesses.save(self.directory / WITNESSES)
        self._list.witnesses = ListedWitnesses(
            sha256=hashlib.sha256(witnesses.encode()).hexdigest(),
            schedules=len(witnesses.lines),
            cells=len(witnesses.cells),
        )
        back = self._list.retired_cells.keys() & witnesses.cells.keys()
        self._list.retired_cells = {
            cell: one for cell, one in sorted(self._list.retired_cells.items()) if cell not in back
        }
        self._save()

    def retire(self, name: str, why: str, by: str) -> None:
        """Take a schedule, a witness or a cell out, with the reason and who says so.

        With a witness go the cells that are its own. Raises `BadCorpus` when the reason or the name is missing.
        """
        if not why.strip() or not by.strip():
            raise BadCorpus(f"{name}: leaves only with a reason and a name")
        if name not in self.listed:
            self._let_go(name, why, by)
            return
        listed = self._list.schedules[name]
        self._list.schedules[name] = msgspec.structs.replace(listed, retired=why, by=by)
        self._save()
        (self.directory / name).unlink(missing_ok=True)

    def _let_go(self, name: str, why: str, by: str) -> None:
        held = self.witnesses()
        gone = [cell for cell, witness in held.cells.items() if name in (cell, witness)]
        if not gone:
            raise BadCorpus(
                f"{name}: is not in the corpus; there are {', '.join(self.listed) or 'no schedules'}, "
                f"and {len(held.lines)} witnesses: holdover corpus list"
            )
        left = [one.replace(reaches=[cell for cell in one.reaches if cell not in gone]) for one in held.lines]
        held.lines = [one for one in left if one.reaches]
        self._list.retired_cells |= {cell: Retired(why=why, by=by) for cell in gone}
        self.keep(held)

    def _save(self) -> None:
        self._list.schedules = dict(sorted(self._list.schedules.items()))
        self.directory.mkdir(parents=True, exist_ok=True)
        write_whole(self.directory / _LIST, msgspec.json.format(msgspec.json.encode(self._list), indent=1) + b"\n")


class Replayed(msgspec.Struct, kw_only=True):
    """What playing a corpus has shown.

    `problems` says everything that is wrong. `breached` says which schedules did not end as they should; `lost` are
    cells that their witness does not reach any more; `not_at_hand` are schedules whose recordings are not there.
    `seconds` is processor time.
    """

    schedules: int = 0
    witnesses: int = 0
    breached: list[str] = []
    lost: list[str] = []
    not_at_hand: list[str] = []
    left: int = 0
    seconds: float = 0.0

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, in words."""
        late = f"{self.left} of them could not be played in {self.seconds:.0f} s, so that it could not be told"
        return [*self.breached, *self.lost, *([late] if self.left else [])]


def replay(
    corpus: Corpus,
    place: Path,
    *,
    catalogue: Catalogue,
    recordings: RecordingStore | None = None,
    witnesses: bool = True,
    bound_s: float = 0.0,
    progress: Callable[[str], None] = lambda name: None,
) -> Replayed:
    """Play a corpus: the regressions, the other schedules, then (with `witnesses`) the witnesses.

    A schedule is played on `recordings` or, where its days are not there, on the bundled ones. With `bound_s`, in
    processor time so that neighbours on the machine do not count, what has not begun by then is left, and counted.
    Raises `BadSchedule` when something cannot be read.
    """
    done = Replayed()
    began = time.process_time()
    stores = [*([recordings] if recordings is not None else []), bundled()]
    kept = corpus.schedules()
    held = corpus.witnesses() if witnesses else Witnesses()
    kept.sort(key=lambda pair: (not pair[0].startswith("regressions/"), pair[0]))
    several = [(name, schedule, None) for name, schedule in kept]
    for name, schedule, line in [*several, *((one.name, held.schedule(one), one) for one in held.lines)]:
        done.seconds = time.process_time() - began
        if bound_s and done.seconds > bound_s:
            done.left += 1
            continue
        progress(name)
        store = _with(schedule, stores)
        if store is None:
            done.not_at_hand.append(name)
        elif line is None:
            done.schedules += 1
            played = play(schedule, place / "replay", store=store, catalogue=catalogue, journal=False, scratch=True)
            found = marks_of(played)
            if (schedule.expect not in found) if schedule.expect else found:
                told = played.breaches[0].explanation if played.breaches else played.crash
                wanted = f"should breach {schedule.expect}" if schedule.expect else "should hold"
                done.breached.append(f"{name}: {played.mark or 'holds'}, {wanted}: {told}".removesuffix(": "))
        else:
            done.witnesses += 1
            reached = reach(schedule, store, place / "replay", held.head.axes, catalogue)
            if reached.marks:
                done.breached.append(f"witness {name}: {reached.marks[0]}, should hold: {reached.explanation}")
            done.lost += [
                f"{cell}: its witness {name} does not reach it any more; "
                f"find another (holdover search --corpus) or let it go (holdover corpus retire)"
                for cell in line.reaches
                if cell not in reached.cells
            ]
    done.seconds = time.process_time() - began
    return done


def _with(schedule: Schedule, stores: Iterable[RecordingStore]) -> RecordingStore | None:
    """The first store that has a schedule's very days."""
    for store in stores:
        try:
            there = [store.get(one.symbol, one.trade_date).digest for one in schedule.recordings]
        except BadRecording:
            continue
        if all(one.digest in ("", digest) for one, digest in zip(schedule.recordings, there, strict=True)):
            return store
    return None
