"""The corpus: a committed folder of schedules that every run plays first.

    corpus/
      corpus.json                 each schedule with its digest and its reason; also the retired schedules
      regressions/*.json          schedules that failed once and must hold now
      witnesses.jsonl             one short schedule a line; each reaches cells that no other line covers

`corpus.json` lists what the folder must hold. A listed schedule that is missing or changed is a problem, and
so is a schedule that is not listed. A corpus may grow without a reason; it shrinks only with a written one.
`replay_corpus` plays the regressions, then the other schedules, then the witnesses.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.explore.witness import Witnesses, measure_reach
from holdover.harness.player import failure_marks, play
from holdover.harness.schedule import Schedule, ScheduleError, read_schedule
from holdover.harness.trust import check_trust
from holdover.recording import RecordingError, RecordingStore, bundled_store
from holdover.runtime.files import PUBLIC_FILE, write_whole
from holdover.runtime.size_limits import DOCUMENT_MAX, SizeLimitError, find_name_problem, read_bounded
from holdover.state import DECODE_ERRORS

_INDEX_FILE: Final = "corpus.json"
VERSION: Final = 2
"""The version of the list; its digests are of schedules in version 2."""
WITNESSES_FILE: Final = "witnesses.jsonl"


class CorpusEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One schedule of the corpus: its digest and the reason why the corpus has it.

    `retired` is empty, or the reason why the schedule was removed; `by` is then the person who removed it.
    """

    digest: str
    reason: str
    retired: str = ""
    by: str = ""


class WitnessSummary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The witness file as `corpus.json` describes it: its SHA-256, its number of schedules and of cells."""

    sha256: str
    schedules: int
    cells: int

    def __post_init__(self) -> None:
        if not 0 <= self.schedules <= self.cells:
            raise ValueError(f"{self.schedules} witnesses of {self.cells} cells: each is the witness of at least one")


class RetiredCell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cell whose witness was removed: the reason, and the person who removed it."""

    reason: str
    by: str


class _CorpusIndex(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    corpus: int
    schedules: dict[str, CorpusEntry] = {}
    witnesses: WitnessSummary | None = None
    retired_cells: dict[str, RetiredCell] = {}


class CorpusError(ValueError):
    """A corpus that cannot be read, or a refused change to it; the message gives the reason."""


class Corpus:
    """A folder of schedules and its index. Raises `CorpusError` when the index cannot be read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        path = directory / _INDEX_FILE
        self._index = _CorpusIndex(corpus=VERSION)
        if path.exists():
            try:
                self._index = msgspec.json.decode(read_bounded(path, DOCUMENT_MAX), type=_CorpusIndex)
            except (*DECODE_ERRORS, OSError, SizeLimitError) as problem:
                raise CorpusError(f"{path}: not the list of a corpus: {problem}") from problem
            for name in self._index.schedules:
                if find_name_problem(name):
                    raise CorpusError(f"{path}: the schedule {name[:80]!r} {find_name_problem(name)}")
            if self._index.corpus != VERSION:
                raise CorpusError(
                    f"{path}: written in version {self._index.corpus}, this Holdover reads version {VERSION}"
                )

    @property
    def entries(self) -> dict[str, CorpusEntry]:
        """Return the schedules that the folder must hold, by name, without the retired ones."""
        return {name: entry for name, entry in sorted(self._index.schedules.items()) if not entry.retired}

    def files(self) -> list[str]:
        """Return the names of the schedule files, relative to the folder and sorted."""
        return sorted(
            path.relative_to(self.directory).as_posix()
            for path in self.directory.rglob("*.json")
            if path.name != _INDEX_FILE
        )

    def schedules(self) -> list[tuple[str, Schedule]]:
        """Return every listed schedule with its name, sorted by name.

        Raises `ScheduleError` when one cannot be read.
        """
        return [(name, read_schedule(self.directory / name)) for name in self.entries]

    def witnesses(self) -> Witnesses:
        """Return the witnesses; empty when there is no witness file. Raises `ScheduleError` when it cannot be read."""
        path = self.directory / WITNESSES_FILE
        return Witnesses.read(path) if path.exists() else Witnesses()

    @property
    def retired_cells(self) -> dict[str, RetiredCell]:
        """Return the retired cells by name, with their reasons."""
        return dict(self._index.retired_cells)

    @property
    def retired_entries(self) -> dict[str, CorpusEntry]:
        """Return the retired schedules by name, with their reasons."""
        return {name: entry for name, entry in sorted(self._index.schedules.items()) if entry.retired}

    def counts(self) -> dict[str, int]:
        """Return the size of the corpus by threshold name. Retired schedules and cells count as present."""
        witnessed = self._index.witnesses.cells if self._index.witnesses is not None else 0
        return {"regressions": len(self._index.schedules), "witnessed": witnessed + len(self._index.retired_cells)}

    def check(self) -> list[str]:
        """Return the problems of the corpus as sentences; empty when it is intact.

        Checks for an empty corpus, and for schedules that are missing, changed or not listed.
        """
        if not self.directory.is_dir():
            return [f"{self.directory}: there is no such folder; a corpus that was there must not go away"]
        problems: list[str] = []
        if not self.entries and self._index.witnesses is None:
            problems.append(f"{self.directory}: the corpus is empty; it should hold at least one schedule")
        at_hand = set(self.files())
        for name, listed in self.entries.items():
            if name not in at_hand:
                problems.append(f"{name}: is gone; a schedule leaves the corpus with a reason: holdover corpus retire")
                continue
            try:
                digest = read_schedule(self.directory / name).digest
            except ScheduleError as problem:
                problems.append(str(problem))
                continue
            if digest != listed.digest:
                problems.append(f"{name}: does something else than when it was added ({listed.digest[:12]})")
        problems += [
            f"{name}: is not on the list; add it with a reason: holdover corpus add"
            for name in sorted(at_hand)
            if name not in self.entries
        ]
        return problems + self._check_witnesses()

    def _check_witnesses(self) -> list[str]:
        listed = self._index.witnesses
        path = self.directory / WITNESSES_FILE
        if listed is None:
            return [f"{WITNESSES_FILE}: is not on the list; only holdover corpus and search write it"] * path.exists()
        if not path.exists():
            return [f"{WITNESSES_FILE}: is gone, with the witnesses of {listed.cells} cells"]
        if hashlib.sha256(read_bounded(path, DOCUMENT_MAX)).hexdigest() == listed.sha256:
            return []
        try:
            witnesses = self.witnesses()
        except ScheduleError as problem:
            return [str(problem)]
        return [
            f"{WITNESSES_FILE}: was changed by hand: {len(witnesses.lines)} witnesses of {len(witnesses.cells)} cells, "
            f"should be {listed.schedules} of {listed.cells}; a cell is let go with a reason: holdover corpus retire"
        ]

    def add(self, schedule: Schedule, name: str, reason: str) -> Path:
        """Add a schedule under a name relative to the folder and return the path of its file.

        Raises `CorpusError` without a reason, and when another listed schedule has the same digest.
        """
        if find_name_problem(name) or not name.endswith(".json"):
            raise CorpusError(f"{name}: should be a .json file inside {self.directory}")
        if not reason.strip():
            raise CorpusError(f"{name}: say why it is there")
        duplicate = next(
            (listed_name for listed_name, entry in self.entries.items() if entry.digest == schedule.digest), ""
        )
        if duplicate and duplicate != name:
            raise CorpusError(f"{name}: does the same as {duplicate}, which is there")
        path = schedule.save(self.directory / name)
        self._index.schedules[name] = CorpusEntry(digest=schedule.digest, reason=reason)
        self._save()
        return path

    def save_witnesses(self, witnesses: Witnesses) -> None:
        """Write the witnesses and update their entry in the index. A retired cell that has a witness again is no longer
        retired.
        """
        witnesses.save(self.directory / WITNESSES_FILE)
        self._index.witnesses = WitnessSummary(
            sha256=hashlib.sha256(witnesses.encode()).hexdigest(),
            schedules=len(witnesses.lines),
            cells=len(witnesses.cells),
        )
        restored_cells = self._index.retired_cells.keys() & witnesses.cells.keys()
        self._index.retired_cells = {
            cell: retirement
            for cell, retirement in sorted(self._index.retired_cells.items())
            if cell not in restored_cells
        }
        self._save()

    def retire(self, name: str, reason: str, by: str) -> None:
        """Remove a schedule, a witness or a cell, and record the reason and the person.

        Removing a witness also retires the cells that it covers. Raises `CorpusError` without a reason or a person,
        and for an unknown name.
        """
        if not reason.strip() or not by.strip():
            raise CorpusError(f"{name}: leaves only with a reason and a name")
        if name not in self.entries:
            self._retire_cells(name, reason, by)
            return
        listed = self._index.schedules[name]
        self._index.schedules[name] = msgspec.structs.replace(listed, retired=reason, by=by)
        self._save()
        (self.directory / name).unlink(missing_ok=True)

    def _retire_cells(self, name: str, reason: str, by: str) -> None:
        witnesses = self.witnesses()
        cells = [cell for cell, witness in witnesses.cells.items() if name in (cell, witness)]
        if not cells:
            raise CorpusError(
                f"{name}: is not in the corpus; there are {', '.join(self.entries) or 'no schedules'}, "
                f"and {len(witnesses.lines)} witnesses: holdover corpus list"
            )
        lines = [line.replace(reaches=[cell for cell in line.reaches if cell not in cells]) for line in witnesses.lines]
        witnesses.lines = [line for line in lines if line.reaches]
        self._index.retired_cells |= {cell: RetiredCell(reason=reason, by=by) for cell in cells}
        self.save_witnesses(witnesses)

    def _save(self) -> None:
        self._index.schedules = dict(sorted(self._index.schedules.items()))
        self.directory.mkdir(parents=True, exist_ok=True)
        write_whole(
            self.directory / _INDEX_FILE,
            msgspec.json.format(msgspec.json.encode(self._index), indent=1) + b"\n",
            PUBLIC_FILE,
        )


class CorpusReplay(msgspec.Struct, kw_only=True):
    """The result of playing a corpus.

    `failures` describes the schedules that did not end as expected, `lost_cells` the cells that their witness no
    longer reaches. `without_recordings` names the schedules whose recordings are missing. `unplayed_count` is the
    number of schedules that the time limit left out. `seconds` is processor time.
    """

    schedules: int = 0
    witnesses: int = 0
    failures: list[str] = []
    lost_cells: list[str] = []
    without_recordings: list[str] = []
    unplayed_count: int = 0
    seconds: float = 0.0

    @property
    def problems(self) -> list[str]:
        """Return every problem as a sentence."""
        late = (
            f"{self.unplayed_count} of them could not be played in {self.seconds:.0f} s, so that it could not be told"
        )
        return [*self.failures, *self.lost_cells, *([late] if self.unplayed_count else [])]


def replay_corpus(
    corpus: Corpus,
    directory: Path,
    *,
    catalogue: Catalogue,
    recordings: RecordingStore | None = None,
    witnesses: bool = True,
    time_limit_s: float = 0.0,
    trusted_subjects: Collection[str] | None = (),
    progress: Callable[[str], None] = lambda name: None,
) -> CorpusReplay:
    """Play the regressions of a corpus, then its other schedules, then (with `witnesses`) its witnesses.

    A schedule runs on `recordings`, or on the bundled recordings when its days are not there. `time_limit_s` is
    in processor time, so that other processes on the machine do not count; 0 means no limit. A schedule that has
    not started by then is counted and not played. Besides the built-in subjects only `trusted_subjects` run; None
    trusts every subject.

    Raises:
        ScheduleError: a schedule cannot be read.
        UntrustedCodeError: a schedule names code that is not trusted; nothing was played.
    """
    result = CorpusReplay()
    began = time.process_time()
    stores = [*([recordings] if recordings is not None else []), bundled_store()]
    named_schedules = corpus.schedules()
    corpus_witnesses = corpus.witnesses() if witnesses else Witnesses()
    named_schedules.sort(key=lambda pair: (not pair[0].startswith("regressions/"), pair[0]))
    items = [(name, schedule, None) for name, schedule in named_schedules]
    if trusted_subjects is not None:
        for name, schedule in [
            *named_schedules,
            *((f"witness {line.name}", corpus_witnesses.schedule(line)) for line in corpus_witnesses.lines),
        ]:
            check_trust(schedule, f"{corpus.directory}: {name}", trusted_subjects=trusted_subjects)
    for name, schedule, line in [
        *items,
        *((witness.name, corpus_witnesses.schedule(witness), witness) for witness in corpus_witnesses.lines),
    ]:
        result.seconds = time.process_time() - began
        if time_limit_s and result.seconds > time_limit_s:
            result.unplayed_count += 1
            continue
        progress(name)
        store = _find_store(schedule, stores)
        if store is None:
            result.without_recordings.append(name)
        elif line is None:
            result.schedules += 1
            play_result = play(
                schedule, directory / "replay", store=store, catalogue=catalogue, journal=False, scratch=True
            )
            marks = failure_marks(play_result)
            if (schedule.expect not in marks) if schedule.expect else marks:
                explanation = play_result.breaches[0].explanation if play_result.breaches else play_result.crash
                expectation = f"should breach {schedule.expect}" if schedule.expect else "should hold"
                result.failures.append(
                    f"{name}: {play_result.mark or 'holds'}, {expectation}: {explanation}".removesuffix(": ")
                )
        else:
            result.witnesses += 1
            reached = measure_reach(schedule, store, directory / "replay", corpus_witnesses.head.axes, catalogue)
            if reached.marks:
                result.failures.append(f"witness {name}: {reached.marks[0]}, should hold: {reached.explanation}")
            result.lost_cells += [
                f"{cell}: its witness {name} does not reach it any more; "
                f"find another (holdover search --corpus) or let it go (holdover corpus retire)"
                for cell in line.reaches
                if cell not in reached.cells
            ]
    result.seconds = time.process_time() - began
    return result


def _find_store(schedule: Schedule, stores: Iterable[RecordingStore]) -> RecordingStore | None:
    """Return the first store whose recordings have the digests that the schedule names, or None."""
    for store in stores:
        try:
            digests = [store.get(recording.symbol, recording.trade_date).digest for recording in schedule.recordings]
        except RecordingError:
            continue
        if all(
            recording.digest in ("", digest) for recording, digest in zip(schedule.recordings, digests, strict=True)
        ):
            return store
    return None
