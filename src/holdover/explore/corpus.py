"""The corpus: a committed folder of schedules, played before anything else.

    corpus/
      corpus.json                 each schedule with its digest and why it is there, and what has been taken out
      regressions/*.json          what has failed once, and must hold
      witnesses/*.json            the shortest known way to a cell that is covered

The list says what the folder must hold. A schedule that is gone, changed, or in the folder and not on the list, is a
problem: a corpus may grow by itself, and shrinks only with a reason that is written down.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from holdover.explore.schedule import BadSchedule, Schedule, read_schedule

_LIST: Final = "corpus.json"


class Listed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One schedule of the corpus: its digest and why it is there; `retired` says why it was taken out."""

    digest: str
    why: str
    retired: str = ""
    by: str = ""


class _List(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    corpus: int = 1
    schedules: dict[str, Listed] = {}


class BadCorpus(ValueError):
    """A corpus that cannot be read, or an act on it that is refused; the message says why."""


class Corpus:
    """A folder of schedules and its list. Raises `BadCorpus` when the list cannot be read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        path = directory / _LIST
        self._list = _List()
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

    def check(self) -> list[str]:
        """What is wrong, in words; empty when it is whole: nothing emptied, taken away, changed or slipped in."""
        if not self.directory.is_dir():
            return [f"{self.directory}: there is no such folder; a corpus that was there must not go away"]
        found: list[str] = []
        if not self.listed:
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
            for name in at_hand
            if name not in self.listed
        ]
        return found

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

    def retire(self, name: str, why: str, by: str) -> None:
        """Take a schedule out, with the reason and who says so. Raises `BadCorpus` when one of them is missing."""
        if name not in self.listed:
            raise BadCorpus(f"{name}: is not in the corpus; there are {', '.join(self.listed) or 'none'}")
        if not why.strip() or not by.strip():
            raise BadCorpus(f"{name}: leaves only with a reason and a name")
        listed = self._list.schedules[name]
        self._list.schedules[name] = msgspec.structs.replace(listed, retired=why, by=by)
        self._save()
        (self.directory / name).unlink(missing_ok=True)

    def _save(self) -> None:
        self._list.schedules = dict(sorted(self._list.schedules.items()))
        self.directory.mkdir(parents=True, exist_ok=True)
        part = self.directory / f"{_LIST}.writing"
        with open(part, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(self._list), indent=1) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.directory / _LIST)
