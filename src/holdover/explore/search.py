"""The search: short bursts from an archive of states, each by the cell that it stands in, towards cells not seen yet.

A recorded day never cancels at the bad moment. So a burst takes a state from the archive, the one that has been tried
least, brings the subject up on it, and for some minutes of the recorded market does to it what a seeded choice says:
faults, acts of the venue, of the strategy and of the operator. A burst that came into a cell, or through a transition
in a cell, that no burst had come to before is kept as a new state to go on from. What is found is told as a schedule
from the fresh beginning, and is played once more from there before it is believed. Schedules that are known already
(`take_up`: a corpus's witnesses) are played first, so that what they reach need not be found again.

All bursts run in one process on one session: states are kept and put back as a trial's are, so that going on from any
of them costs a millisecond and not a day.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.explore.play import Player, marks_of, play, session_for
from holdover.explore.schedule import AT_MESSAGES, KINDS, Operation, Schedule, schedule_on
from holdover.explore.witness import Cells, cut_off
from holdover.harness import Session, disk
from holdover.recording import RecordingStore

SEARCHED: Final[tuple[str, ...]] = tuple(KINDS)
"""Every kind of operation; a search takes some of them for each stretch of bursts."""

_ARCHIVE_MAX: Final = 160
_SECOND_NS: Final = 1_000_000_000
_SPANS_S: Final = (40, 120, 300, 900)
_STRETCH: Final = 12
"""How many bursts keep one choice of kinds."""
LOSSY: Final = ("lose", "not-found", "reorder")
LOST_MAX: Final = 2
"""How many messages may be lost, or wait for the next heartbeat, close to one another: whoever asks again has to wait
first, and no patience gets through one loss after the other in the time that a reconciliation may take."""
_UNKNOWN_MAX: Final = 2
"""How often in a row a venue may say that it does not know an order that it has: what it says without end is for a
person, and no desk can tell it from the truth."""


class Found(msgspec.Struct, kw_only=True):
    """Something that a burst found: the schedule from the fresh beginning, and what it says when it is played there."""

    schedule: Schedule
    mark: str
    explanation: str
    confirmed: bool
    burst: int
    seconds: float


class Searched(msgspec.Struct, kw_only=True):
    """What a search has done."""

    bursts: int = 0
    operations: int = 0
    cells: int = 0
    transitions: int = 0
    archived: int = 0
    found: list[Found] = []
    seconds: float = 0.0
    taken_up: int = 0
    new: int = 0
    witnesses: list[Schedule] = []

    @property
    def breaches(self) -> int:
        """How many things were found that show from the beginning."""
        return sum(1 for one in self.found if one.confirmed)

    @property
    def verdict(self) -> str:
        """`breach` when something was found and confirmed, `unknown` when something was found and was not, `holds`."""
        if any(one.confirmed for one in self.found):
            return "breach"
        return "unknown" if self.found or not self.bursts else "holds"


class _Kept:
    """A state to go on from: everything that the session may change, the disk, and the operations that led here."""

    def __init__(
        self,
        state: Any,
        image: dict[str, bytes],
        backup: dict[str, bytes],
        path: list[Operation],
        place: dict[str, int],
    ) -> None:
        self.state, self.image, self.backup, self.path, self.place = state, image, backup, path, place
        self.tried = 0


class Search:
    """One search over some recorded days; `run` it for a while, or for a number of bursts.

    It stays in the first part `until` of each day. `axes` are those by which the cells of witnesses are told.
    """

    def __init__(
        self,
        store: RecordingStore,
        symbols: Sequence[str],
        days: Sequence[str],
        place: Path,
        *,
        subject: str = "desk",
        seed: int = 0,
        faults: Sequence[str] = (),
        catalogue: Catalogue | None = None,
        kinds: Sequence[str] = SEARCHED,
        axes: Sequence[str] = (),
        until: float = 1.0,
    ) -> None:
        self.catalogue = catalogue or Catalogue.load()
        self.store, self.place, self.kinds = store, place, list(kinds)
        self.base = schedule_on(
            store, symbols, days, self.catalogue, name="search", subject=subject, seed=seed, faults=list(faults)
        )
        self.until = until
        self.rng = random.Random(seed)
        self.done = Searched()
        self.seen: set[Any] = set()
        self.archive: list[_Kept] = []
        self._marks: set[str] = set()
        self._palette: list[str] = []
        self._folder = 0
        self.session: Session = session_for(
            self.base, store, place / "search", catalogue=self.catalogue, journal=False, scratch=True
        )
        self.session.guard.monitor.recomputes = False
        self._tells = Cells(self.session.guard.cells, axes)
        self.told: set[str] = set()
        self._counted = (0, 0)
        self._nothing: _Kept | None = None

    def run(
        self,
        *,
        budget_s: float = 0.0,
        bursts: int = 0,
        to_breach: bool = False,
        progress: Callable[[Searched], None] = lambda done: None,
    ) -> Searched:
        """Search until the time is spent, so many bursts are done, or (`to_breach`) something has been confirmed."""
        began = time.monotonic()
        if not self.archive:
            self._beginning()
        while True:
            self.done.seconds = time.monotonic() - began
            progress(self.done)
            if budget_s and self.done.seconds >= budget_s:
                break
            if bursts and self.done.bursts >= bursts:
                break
            if to_breach and any(one.confirmed for one in self.done.found):
                break
            self._burst()
        self.done.seconds = time.monotonic() - began
        return self.done

    def take_up(
        self, schedules: Sequence[Schedule], progress: Callable[[Schedule], None] = lambda schedule: None
    ) -> None:
        """Play schedules that are known, and begin from what they reach; those on other instruments or days are left.

        One that ends early is kept as it stands there, to go on from. Only before the first burst.
        """
        if not self.archive:
            self._beginning()
        assert self._nothing is not None
        for schedule in schedules:
            days = self.base.days[: len(schedule.days)]
            if (schedule.symbols, schedule.days, schedule.subject) != (self.base.symbols, days, self.base.subject):
                continue
            progress(schedule)
            self.done.taken_up += 1
            operations, (day, second) = list(schedule.operations), (len(days) - 1, 0)
            ends = operations[-1] if operations else None
            if ends is None or ends.do != "overnight" or ends.day != day or ends.at != "second":
                second = self._length_s(day)
            else:
                second = operations.pop().n
            self._put_back(self._nothing)
            player = self._player(operations, second, day)
            played = player.play()
            if played.mark:
                self._look(operations, played.crash)
                self._fresh()
            else:
                self._reached(operations, (day, second), player, witness=False)

    def close(self) -> None:
        """Let go of the session."""
        self.session.close()

    # -- states -----------------------------------------------------------------------------------------------------

    def _beginning(self) -> None:
        """The first states: the day as it stands at a few times, each taken as a kill would leave it."""
        path: list[Operation] = []
        places = dict.fromkeys(("mutation", "in", "out", "delivered", "sent", "instant"), 0)
        length_s = self._length_s(0)
        self._nothing = _Kept(self.session.keep(), {}, {}, [], dict(places))
        for number, share in enumerate((0.02, 0.15, 0.5, 0.9)):
            second = int(length_s * share)
            player = self._player([], second, 0)
            if number == 0:
                player.play()
            else:
                self._put_back(self.archive[-1])
                player.resume(self.archive[-1].place, self.archive[-1].path[-1])
            _, told = self._fresh()
            self._witness(path, (0, second), told)
            path = [*path, Operation(at="second", n=second, do="kill")]
            places = dict(player.counts)
            self._keep(path, places)

    def _length_s(self, day: int) -> int:
        """How many seconds of a day are searched."""
        meta = self.store.get(self.base.symbols[0], self.base.days[day]).meta
        return int((meta.close_ns - meta.open_ns) // _SECOND_NS * self.until)

    def _player(self, operations: list[Operation], second: int, day: int) -> Player:
        player = Player(
            self.base.replace(operations=operations), self.store, self.place, session=self.session, to_breach=True
        )
        player.until = (day, second)
        return player

    def _keep(self, path: list[Operation], places: dict[str, int]) -> None:
        """Bury the subject here, and keep the state."""
        session = self.session
        if session.subject is not None:
            session.bury()
        backup = session.directory / "backup"
        self.archive.append(
            _Kept(
                session.keep(),
                disk.image(session.subject_directory),
                disk.image(backup) if backup.exists() else {},
                path,
                places,
            )
        )
        self.done.archived = len(self.archive)
        if len(self.archive) > _ARCHIVE_MAX:
            worn = max(range(4, len(self.archive)), key=lambda number: (self.archive[number].tried, -number))
            del self.archive[worn]

    def _put_back(self, kept: _Kept) -> None:
        session = self.session
        if session.subject is not None:
            session.bury()
        session.put_back(kept.state)
        if session.trade_date:
            session.own_tape()
        self._folder += 1
        place = self.place / f"burst-{self._folder}"
        disk.remove(self.place / f"burst-{self._folder - 1}")
        disk.lay_down(kept.image, place)
        session.subject_directory = place
        disk.lay_down(kept.backup, session.directory / "backup")

    # -- a burst ----------------------------------------------------------------------------------------------------

    def _burst(self) -> None:
        if self.done.bursts % _STRETCH == 0:
            # Some kinds at a time: all of them together mostly undo one another.
            some = self.rng.randint(2, max(2, min(7, len(self.kinds))))
            self._palette = self.rng.sample(self.kinds, min(some, len(self.kinds)))
        self.done.bursts += 1
        fewest = min(one.tried for one in self.archive)
        kept = self.rng.choice([one for one in self.archive if one.tried <= fewest + 1])
        kept.tried += 1
        self._put_back(kept)
        session = self.session
        day = self.base.days.index(session.trade_date)
        open_ns, close_ns = session.hours()
        now_s = max((session.clock.now_ns - open_ns) // _SECOND_NS, 0)
        last_s = max(int((close_ns - open_ns) // _SECOND_NS * self.until), now_s + 2)
        end_s = min(now_s + self.rng.choice(_SPANS_S), last_s)
        # What is still to come of the path, and what is new; what has been is in the state.
        coming = [
            one for one in kept.path if one.day == day and one.at != "second" and one.n > kept.place.get(one.at, 0)
        ]
        added = self._choose(kept, coming, day, now_s, end_s)
        night = any(one.do.startswith("overnight") for one in added) and day + 1 < len(self.base.days)
        until = (day, end_s)
        if night:
            until = (day + 1, min(self.rng.choice((60, 600, 3600)), self._length_s(day + 1)))
        path = [*kept.path, *added]
        player = self._player([*coming, *added], until[1], until[0])
        crash = ""
        try:
            going = player.resume(kept.place, kept.path[-1])
            if night and going:
                player.day(day + 1, self.base.days[day + 1])
        except Exception as problem:
            crash = f"{type(problem).__name__}: {problem}"
        self.done.operations += len(added)
        if session.guard.breaches or crash:
            self._look(path, crash)
            self._fresh()  # what was reached on the way is no witness of anything
        else:
            self._reached(path, until, player)

    def _reached(self, path: list[Operation], until: tuple[int, int], player: Player, *, witness: bool = True) -> None:
        """Keep the state when it, or something on the way to it, is new; and the schedule, as a witness of that."""
        new, told = self._fresh()
        if witness:
            self._witness(path, until, told)
        if new and self.session.phase == "open" and until[1] < self._length_s(until[0]):
            self._keep([*path, Operation(day=until[0], at="second", n=until[1], do="kill")], dict(player.counts))

    def _witness(self, path: list[Operation], until: tuple[int, int], told: set[str]) -> None:
        if told:
            self.done.new += len(told)
            self.done.witnesses.append(cut_off(self.base.replace(operations=path, name="reaches"), until))

    def _fresh(self) -> tuple[bool, set[str]]:
        """Whether the system has come where it had not been, and the cells of the witnesses' axes that are new."""
        counter = self.session.guard.cells
        visits, transitions = self._counted
        # Both tell in the order of first mention.
        passed = list(islice(counter.transitions, transitions, None))
        been = list(islice(counter.visits, visits, None))
        self._counted = len(counter.visits), len(counter.transitions)
        here = ("cell", counter.cell)
        new = bool(passed) or here not in self.seen
        self.seen.update(passed, [here])
        self.done.transitions = len(counter.transitions)
        self.done.cells = len(self.seen) - self.done.transitions
        told = {self._tells(cell) for cell in been} | {self._tells(cell, label) for label, cell in passed}
        told -= self.told
        self.told |= told
        return new, told

    def _choose(self, kept: _Kept, coming: list[Operation], day: int, now_s: int, end_s: int) -> list[Operation]:
        added: list[Operation] = []
        for _ in range(self.rng.randint(1, 5)):
            kind = self.rng.choice(self._palette)
            at, number = "second", self.rng.randint(now_s + 1, max(end_s - 1, now_s + 1))
            near = self.rng.choice((3, 20, 120))
            if kind in AT_MESSAGES:
                lost = sum(1 for one in (*coming, *added) if one.do in LOSSY)
                unknown = sum(1 for one in (*coming, *added) if one.do == "not-found") + self.session.venue.not_found
                if (kind in LOSSY and lost >= LOST_MAX) or (kind == "not-found" and unknown >= _UNKNOWN_MAX):
                    continue
                at = self.rng.choice(("in", "in", "out"))
                number = kept.place[at] + self.rng.randint(1, near)
            elif kind.startswith("overnight"):
                if day + 1 >= len(self.base.days) or any(one.do.startswith("overnight") for one in added):
                    continue
                number = max(end_s - 1, now_s + 1)
            elif KINDS[kind].family in ("restart", "link") and self.rng.random() < 0.7:
                at = self.rng.choice(("mutation", "mutation", "delivered", "sent"))
                number = kept.place[at] + self.rng.randint(1, near if at == "sent" else near * 4)
            numbers = [self._number(name, default) for name, default in KINDS[kind].takes]
            added.append(Operation(day=day, at=at, n=number, do=kind, with_=numbers))  # type: ignore[arg-type]
        return added

    def _number(self, name: str, default: int) -> int:
        choices: dict[str, tuple[int, ...]] = {
            "down_seconds": (0, 0, 1, 30, 300),
            "mutations": (1, 2, 5, 9),
            "seconds": (1, 20, 90, 400),
            "recovery": (0, 1, 2),
            "lose_out": (0, 1),
            "milliseconds": (1, 700, 3000),
            "order": (0, 1, 2, 3),
            "account": (0, 1),
            "symbol": (0, 1),
            "side": (0, 1),
            "lots": (1, 100, 500),
            "trade": (0, 1, 5, 40),
            "ticks": (-5, -1, 1, 5),
            "strategy": (0, 1, 2),
            "freeze": (0,),
        }
        return self.rng.choice(choices.get(name, (default,)))

    # -- what was found -----------------------------------------------------------------------------------------------

    def _look(self, path: list[Operation], crash: str) -> None:
        """Play it from the fresh beginning: only what shows there, too, is told as found."""
        session = self.session
        mark = session.guard.breaches[0].mark if session.guard.breaches else f"crash/{crash.partition(':')[0]}"
        explanation = session.guard.breaches[0].explanation if session.guard.breaches else crash
        if mark in self._marks:
            return
        self._marks.add(mark)
        # On all the days: a subject may be sized by them, and on fewer of them it would be another one.
        schedule = self.base.replace(operations=path, name=f"search found {mark}")
        played = play(
            schedule,
            self.place / "confirm",
            store=self.store,
            catalogue=self.catalogue,
            journal=False,
            scratch=True,
            to_breach=True,
        )
        if played.mark and mark not in marks_of(played):
            mark = played.mark  # from the beginning something else shows first
        confirmed = bool(played.mark)
        self.done.found.append(
            Found(
                schedule=schedule.replace(expect=mark),
                mark=mark,
                explanation=explanation
                if confirmed
                else f"{explanation}; from the beginning: {played.mark or 'holds'}",
                confirmed=confirmed,
                burst=self.done.bursts,
                seconds=self.done.seconds,
            )
        )


__all__ = ["LOSSY", "LOST_MAX", "SEARCHED", "Found", "Search", "Searched", "marks_of"]
