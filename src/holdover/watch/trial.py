"""A trial of invariants over recorded history: what a guard in observe mode would have remembered.

It reads the journal of a guard, the rotated files first, with the judge of the sidecar. Each breach opens a freeze that
is only observed; it ends when a thaw would have been accepted; the requests in the journal that it forbids are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.catalogue.policy import OBSERVE
from holdover.model import Request
from holdover.runtime import Breach
from holdover.runtime.freeze_scope import reduces_position
from holdover.runtime.journal import JOURNAL_FILE, rotated_files
from holdover.runtime.observation import REVIEW_EVERY_NS, THAW_POSSIBLE
from holdover.runtime.observed_freezes import ObservedFreeze, ObservedFreezes, make_observed_freeze
from holdover.watch.judge import MutationJudge

_REQUEST_MARK: Final = b'"kind":"Request"'


class JournalError(ValueError):
    """A journal cannot be read; the message says which and why."""


class JournalTrial:
    """Judges journals by a catalogue as a guard that observes.

    `breaches` are the breaches, oldest first; each subject of an invariant counts once until its freeze ends. `skipped`
    lists in sentences the lines that cannot be used.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.breaches: list[Breach] = []
        self.skipped: list[str] = []
        self.first_ns, self.last_ns = 0, 0
        self._ended: list[ObservedFreeze] = []
        self._freezes = ObservedFreezes(self._reduces_position)
        self._breached: dict[tuple[str, str], set[str]] = {}
        self._next_review_ns = 0
        self._judge = MutationJudge(catalogue)
        self._judge.on_breach = self._handle_breach

    @property
    def mutations(self) -> int:
        """The number of mutations judged."""
        return self._judge.mutations

    def evaluation_counts(self) -> dict[str, int]:
        """Return how often each invariant was evaluated with its precondition met."""
        counts = self._judge.monitor.evaluation_counts()
        for breach in self.breaches:
            counts[breach.invariant] = counts.get(breach.invariant, 0) + 1
        return counts

    def freezes(self) -> list[ObservedFreeze]:
        """Return what would have been frozen, oldest first; what is still open has no end."""
        return sorted([*self._ended, *self._freezes.freezes()], key=lambda freeze: freeze.number)

    def read(self, path: Path) -> None:
        """Judge one journal with its rotated files.

        Args:
            path: the journal, or the folder of a guard that has one.

        Raises:
            JournalError: when there is none.
        """
        for file_path in list_journal_files(path):
            for number, line in enumerate(_whole_lines(file_path), 1):
                self._judge_line(line, number)
            self.skipped += [f"{file_path.name}: {problem}" for problem in self._judge.skipped]
            self._judge.skipped.clear()

    def end(self) -> None:
        """End the history: the last step is settled."""
        self._judge.end()
        self._review(self.last_ns)

    def _judge_line(self, line: bytes, number: int) -> None:
        if self._freezes.by_scope and _REQUEST_MARK in line:
            self._count_refusal(line)
        self._judge.judge_line(line, number)
        now_ns = self._judge.monitor.now_ns
        if now_ns:
            self.first_ns = self.first_ns or now_ns
            self.last_ns = max(self.last_ns, now_ns)
        if self._judge.is_settled and now_ns >= self._next_review_ns:
            self._next_review_ns = now_ns + REVIEW_EVERY_NS
            self._review(now_ns)

    def _count_refusal(self, line: bytes) -> None:
        try:
            self._freezes.count_refusal(msgspec.convert(msgspec.json.decode(line)["record"], Request))
        except (msgspec.MsgspecError, KeyError, TypeError):
            return  # the judge reports the line

    def _reduces_position(self, request: Request) -> bool:
        return reduces_position(self._judge.monitor, request)

    def _handle_breach(self, breach: Breach) -> None:
        place = (breach.scope, breach.invariant)
        subject = f"{breach.subsystem}/{breach.key}"
        subjects = self._breached.setdefault(place, set())
        if subject in subjects:
            return
        subjects.add(subject)
        breach = msgspec.structs.replace(breach, mode=OBSERVE, number=len(self.breaches) + 1)
        self.breaches.append(breach)
        freeze = self._freezes.find(*place)
        if freeze is None:
            allows = self.catalogue[breach.invariant].entry.allows
            number = len(self._ended) + len(self._freezes.freezes()) + 1
            self._freezes.set_freeze(make_observed_freeze(breach, allows, number, "journal"))
        else:
            self._freezes.set_freeze(msgspec.structs.replace(freeze, breaches=freeze.breaches + 1))

    def _review(self, now_ns: int) -> None:
        """End the freezes that a thaw would have ended."""
        for freeze in self._freezes.freezes():
            if (
                self._judge.monitor.holds(freeze.invariant, freeze.subsystem, freeze.kind, freeze.key) is not False
                and now_ns > freeze.time_ns
            ):
                self._freezes.remove(*freeze.mark)
                self._breached.pop(freeze.mark, None)
                self._ended.append(msgspec.structs.replace(freeze, ended_ns=now_ns, ended_by=THAW_POSSIBLE))


def list_journal_files(path: Path) -> list[Path]:
    """Return the files of a journal, oldest first: the rotated ones, then the one that is written.

    Raises `JournalError` when there is none.
    """
    journal = path / JOURNAL_FILE if path.is_dir() else path
    files = [*rotated_files(journal), *([journal] if journal.exists() else [])]
    if not files:
        raise JournalError(
            f"{path}: there is no {JOURNAL_FILE}; name a guard's directory, and set journal = true in its [guard] table"
        )
    return files


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file without a last one that a kill cut off."""
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line
