"""Trials: at a point of the walked day, what becomes of the subject if this were to happen now.

A kill is tried in the process itself: the old life is put aside in the middle of its call, a new one comes up on a copy
of the disk as it was at that instant, in the world as it was, and is followed; then everything is put back and the walk
goes on. What the old life would have to live through (a cut link, a lost message, a stop in good order) is tried in a
fork of the process, which goes on from inside that very call; the disk is put back when the fork has ended. A subject
that is not `isolated` (two lives of it cannot be in one process) is tried in forks only.

A trial ends when its state is the undisturbed day's again (*transparent*), when an invariant or an oracle has failed
(*breach*), or at the horizon (*converged*: it agrees with the venue, and what differs is told).
"""

from __future__ import annotations

import contextvars
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.explore.pool import die_with
from holdover.explore.schedule import Operation
from holdover.explore.walk import AFTERWARDS, KILLS, MESSAGES, Ground, Map, Mark, Walk, mark
from holdover.harness import disk, factory_named
from holdover.harness.snapshot import Snapshot
from holdover.model import Order, Position

VERDICTS: Final = ("transparent", "converged", "breach", "unknown")
_IDEMPOTENT_EVERY: Final = 20


class Tried(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One trial: at which point, what was done, what became of it.

    `number` is the point's, `place` and `n` say it as a schedule does. `oracle` names what failed: `catalogue`,
    `convergence`, `idempotence`, `crash`, `rejoin`. `same_as` says that an equal image had been tried as another kind.
    `then` is the second fault of a pair, its day counted from the swept one.
    """

    number: int
    kind: str
    place: str
    n: int
    time_ns: int
    verdict: str
    oracle: str = ""
    invariant: str = ""
    subsystem: str = ""
    explanation: str = ""
    rejoined_ns: int = 0
    proved: bool = False
    same_as: str = ""
    then: Operation | None = None

    @property
    def named(self) -> str:
        """Its kind; of a pair both, in their order."""
        return self.kind if self.then is None else f"{self.kind}+{self.then.do}"

    def operations(self, day: int) -> list[Operation]:
        """The operations of a schedule that do the same."""
        first = Operation(day=day, at=self.place, n=self.n, do=self.kind)  # type: ignore[arg-type]
        return [first] if self.then is None else [first, msgspec.structs.replace(self.then, day=day + self.then.day)]


class Told(msgspec.Struct, array_like=True):
    """What a fork answers: its trials, and the transitions that it has seen in cells."""

    tried: list[Tried]
    cells: list[tuple[str, int]]


class Trials(Walk):
    """Walks the day again and tries what the ground asks for at the points from `low` up to, not including, `high`."""

    def __init__(self, ground: Ground, place: Path, snapshot: Snapshot | None, found: Map, low: int, high: int) -> None:
        super().__init__(ground, place, snapshot)
        self.found, self.low, self.high = found, low, high
        self.marks = {one.time_ns: one for one in found.marks}
        self.times = [one.time_ns for one in found.marks]
        self.tried: list[Tried] = []
        self.cells: set[tuple[str, int]] = set()
        self.standing = {group: {n for n in numbers if low <= n < high} for group, numbers in found.classes.items()}
        self.cuts: dict[int, list[tuple[int, int]]] = {}
        for ran, mutation, number in found.cuts:
            if low <= number < high and "disconnect" in ground.kinds:
                self.cuts.setdefault(ran, []).append((mutation, number))
        self.kills = [kind for kind in KILLS if kind in ground.kinds]
        self.afterwards = [kind for kind in (*AFTERWARDS, "disconnect") if kind in ground.kinds and self.possible(kind)]
        self.messages = [kind for kind in MESSAGES if kind in ground.kinds]
        self.isolated = False
        self.child: tuple[Operation, int, int] | None = None
        self._cut_at, self._due = 0, False
        self._image: tuple[Any, dict[str, bytes]] = (None, {})
        self._folders: dict[str, int] = {}
        self.level, self.levels = 0, 1
        self.trials_place = "trial"

    def possible(self, kind: str) -> bool:
        return not kind.startswith("overnight") or self.ground.days.index(self.ground.day) + 1 < len(self.ground.days)

    def go(self) -> None:
        """Walk, and try. A fork never comes back from here: what it did not expect is its answer too."""
        try:
            super().go()
        except BaseException as problem:
            if self.child is None:
                raise
            operation, number, pipe = self.child
            self._answer(pipe, [self._crashed(operation, number, problem)])
        if self.child is not None:
            os._exit(1)

    # -- on the way -------------------------------------------------------------------------------------------------

    def hook(self) -> None:
        """Hear of everything, and of each timer before it runs."""
        super().hook()
        if self.session.subject is not None:
            self.isolated = bool(getattr(self.session.subject, "isolated", False))
        self.session.clock.before = self._before

    def over(self) -> bool:
        """No point of ours comes any more."""
        return self.number >= self.high

    def classes_here(self, place: str) -> dict[str, bool]:
        """The survey has told already which points stand for a class."""
        return {}

    def at_point(self, place: str, classes: dict[str, bool]) -> None:
        """Try what belongs here."""
        if self.child is not None and place == "mutation" and self._cut_at == self.counts["mutation"]:
            self._cut_at = 0
            self.hand.cut(self.child[0])
            self.session.stop()
        elif self.level == 0:
            self._at_ours(place)

    def _at_ours(self, place: str) -> None:
        number = self.number
        if number in self.standing["message"] and place in ("in", "out"):
            self.fork(self.messages, place, number)
        if place not in ("in", "out"):
            kinds = [kind for kind in self.kills if number in self.standing["stale" if kind == "stale" else "kill"]]
            self.try_either_way(kinds, place, number)
        if number in self.standing["after"] and place == "instant":
            self.try_afterwards(self.afterwards, number)

    def came_back(self) -> None:
        """A fork goes on from here: it follows its trial, and ends."""
        if self.child is not None and self._due:
            operation, number, pipe = self.child
            self._answer(pipe, self.lived(operation, number))

    def _before(self) -> None:
        """A timer is about to run in which the link is to be cut at a mutation: a fork runs it and is cut there."""
        if self.level == 0:
            for mutation, number in self.cuts.get(self.session.clock.ran, ()):
                if self.level:
                    return  # in a fork: the rest are the walk's
                self.fork(["disconnect"], "mutation", number, n=mutation, cut_at=mutation)

    def try_either_way(self, kinds: Sequence[str], place: str, number: int) -> None:
        """Try kills in the process where the subject can live beside itself, in forks where it cannot."""
        if kinds and self.isolated:
            self.try_kills(kinds, place, number)
        else:
            self.fork(kinds, place, number)

    def try_afterwards(self, kinds: Sequence[str], number: int) -> None:
        """Try at the end of an instant what comes when the subject has done what it was doing."""
        again = "clean" in kinds and "upgrade" in kinds and not self.ground.upgrade
        buried = [kind for kind in kinds if kind == "overnight-down" and self.isolated]
        began = len(self.tried)
        self.fork(
            [kind for kind in kinds if kind not in buried and not (again and kind == "upgrade")], "instant", number
        )
        if again:  # what comes up is the same version
            self.tried += [self.as_kind(one, "upgrade") for one in self.tried[began:] if one.kind == "clean"]
        if buried:
            self.try_kills(buried, "instant", number)

    # -- kills in the process ---------------------------------------------------------------------------------------

    def try_kills(self, kinds: Sequence[str], place: str, number: int) -> None:
        session = self.session
        before, image = self._image
        now = disk.signature(session.subject_directory)
        if now != before:
            image = disk.image(session.subject_directory)
            self._image = (now, image)
        kept, level, directory = session.keep(), self.level, session.directory
        alike: dict[str, list[Tried]] = {}
        recomputes = session.guard.monitor.recomputes
        self.unhook()
        session.guard.monitor.recomputes = False
        for kind in kinds:
            same = next((one for other, one in alike.items() if self._same_image(kind, other)), None)
            if same is not None:
                self.tried += [self.as_kind(one, kind) for one in same]
                continue
            operation = Operation(day=0, at=place, n=self.counts[place], do=kind)  # type: ignore[arg-type]
            tried = contextvars.Context().run(self.killed, operation, number, image)
            session.put_back(kept)
            session.on_record = None
            self.level, session.directory = level, directory
            alike[kind] = tried
            self.tried += tried
        session.guard.monitor.recomputes = recomputes
        self.hook()

    def as_kind(self, one: Tried, kind: str) -> Tried:
        """A trial told again for a kind that leaves the very same disk."""
        return msgspec.structs.replace(one, kind=kind, same_as=one.kind)

    def _same_image(self, kind: str, other: str) -> bool:
        """Whether two kinds of kill leave the same disk here: then one trial is both."""
        return kind == "kill-unsynced" and other == "kill" and self._unsynced_is_whole

    def killed(self, operation: Operation, number: int, image: dict[str, bytes]) -> list[Tried]:
        session = self.session
        # A folder of its own: when an earlier life's database connection is collected at last, it takes its log's name
        # away, and that must not be this one's.
        number_here = self._folders[self.trials_place] = self._folders.get(self.trials_place, 0) + 1
        place = self.place / f"{self.trials_place}-{number_here}"
        disk.remove(self.place / f"{self.trials_place}-{number_here - 1}")
        try:
            session.own_tape()
            session.crash(place, image)
            if operation.do == "kill" and "kill-unsynced" in self.kills:
                probe = self.place / "probe"
                disk.lay_down(image, probe)
                disk.lose_unsynced(probe, session.synced)
                self._unsynced_is_whole = _bare(disk.image(probe)) == _bare(image)
            self.branched(operation, number)
            if operation.do == "overnight-down":
                session.directory = self._own_directory("night")
                self._over_the_night(operation)
            else:
                session.restart(operation.do, during=5)
            return self.after(operation, number)
        except Exception as problem:
            return [self._crashed(operation, number, problem)]

    def branched(self, operation: Operation, number: int) -> None:
        """The fault is being done: from here on it is another day."""
        self.level += 1

    def after(self, operation: Operation, number: int) -> list[Tried]:
        """The fault has been done: follow what becomes of it."""
        return [self.follow(operation, number)]

    # -- trials in a fork -------------------------------------------------------------------------------------------

    def fork(self, kinds: Sequence[str], place: str, number: int, *, n: int = 0, cut_at: int = 0) -> None:
        held = disk.Held(self.session.subject_directory, self.place / f"held-{self.level}") if kinds else None
        for kind in kinds:
            operation = Operation(day=0, at=place, n=n or self.counts[place], do=kind)  # type: ignore[arg-type]
            read, write = os.pipe()
            parent = os.getpid()
            child = os.fork()
            if child == 0:
                os.close(read)
                die_with(parent)
                self._in_the_fork(operation, number, write, cut_at)
                return  # the walk goes on from here, to `came_back`
            os.close(write)
            with os.fdopen(read, "rb") as answers:
                told = answers.read()
            os.waitpid(child, 0)
            if held is not None:
                held.give_back()
            if told:
                answer = msgspec.msgpack.decode(told, type=Told)
                self.tried += answer.tried
                self.cells.update(answer.cells)
            else:
                self.tried.append(self.say(operation, number, "unknown", oracle="crash", explanation="the fork died"))

    def _in_the_fork(self, operation: Operation, number: int, pipe: int, cut_at: int) -> None:
        session = self.session
        self.child = (operation, number, pipe)
        self.tried = []
        session.guard.monitor.recomputes = False
        self.branched(operation, number)
        self._due = True
        if cut_at:
            self._cut_at = cut_at
            return
        if operation.do in MESSAGES:
            self.hand.to_the_message(operation, operation.at)
            session.stop()
            return
        self._answer(pipe, contextvars.Context().run(self.lived, operation, number))

    def _answer(self, pipe: int, tried: list[Tried]) -> None:
        cells = sorted({*self.session.guard.cells.transitions, *self.cells})
        with os.fdopen(pipe, "wb") as answers:
            answers.write(msgspec.msgpack.encode(Told(tried, cells)))
        os._exit(0)

    def lived(self, operation: Operation, number: int) -> list[Tried]:
        """In a fork: do what is done between two events, if it has not been done yet, and follow."""
        session = self.session
        self._due = False
        if self.level == self.levels:
            self.unhook()
        elif operation.at != "instant":
            self.counts["instant"] += 1  # the one in which it was done
        session.directory = self._own_directory("fork")
        try:
            if operation.do in KILLS:
                shutil.copytree(self.place / "walk" / "backup", session.directory / "backup")
                session.own_tape()
                session.crash(session.directory / "trial")
                session.restart(operation.do, during=5)
            elif operation.do in ("clean", "upgrade"):
                factory = (
                    factory_named(self.ground.upgrade) if operation.do == "upgrade" and self.ground.upgrade else None
                )
                session.restart(operation.do, factory=factory)
            elif operation.do in ("overnight", "overnight-down"):
                self._over_the_night(operation)
            elif operation.do == "disconnect" and operation.at == "instant":
                self.hand.cut(operation)
            return self.after(operation, number)
        except Exception as problem:
            return [self._crashed(operation, number, problem)]

    def _own_directory(self, name: str) -> Path:
        """An empty folder for what a session writes while it is tried: the walk's own backup must stay as it is."""
        place = self.place / f"{name}-{self.level}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def _over_the_night(self, operation: Operation) -> None:
        session = self.session
        self.unhook()
        if operation.do == "overnight-down" and session.subject is not None:
            session.bury()
        session.end(now=True)
        session.overnight()
        session.begin()
        if self.level < self.levels:
            self.counts = dict.fromkeys(self.counts, 0)
            self.hook()

    # -- following --------------------------------------------------------------------------------------------------

    def follow(self, operation: Operation, number: int) -> Tried:
        """Run on until it has rejoined, failed, or been followed long enough."""
        session = self.session
        if session.trade_date != self.ground.day:
            session.play(max(session.hours()[0], session.clock.now_ns) + self.ground.bound_ns)
            return self.judged(operation, number, "converged", f"the next day began on what {self.ground.day} left")
        began_ns = session.clock.now_ns
        horizon_ns = began_ns + self.ground.horizon_ns
        quiet = False
        differs = "the day was over before it could rejoin"
        for time_ns in [one for one in self.times if one > began_ns]:
            session.play(time_ns)
            if session.guard.breaches:
                return self.judged(operation, number, "breach", "")
            base = self.marks[time_ns]
            if base.state and self.sums.of(session) == base.state:
                return self._rejoined(operation, number, time_ns)
            if session.link.quiet and not quiet:
                quiet = True
                differs = self._difference(base)
            if not quiet and time_ns > began_ns + self.ground.bound_ns:
                return self.say(
                    operation,
                    number,
                    "breach",
                    oracle="convergence",
                    explanation=f"not quiet {self.ground.bound_ns // 1_000_000_000} s after it",
                )
            if time_ns >= horizon_ns:
                break
        if _chosen(number, operation.do, self.ground.prove_every):
            session.play(self.times[-1])
        return self.judged(operation, number, "converged", differs)

    def _rejoined(self, operation: Operation, number: int, time_ns: int) -> Tried:
        session = self.session
        if operation.do in KILLS and _chosen(number, f"{operation.do} again", _IDEMPOTENT_EVERY):
            after = [one for one in self.times if one > time_ns][:1]
            if after:
                session.restart("kill" if operation.do == "kill" else "clean")
                session.play(after[0])
                if self.sums.of(session) != self.marks[after[0]].state:
                    return self.say(
                        operation,
                        number,
                        "breach",
                        oracle="idempotence",
                        explanation="restarted once more, it is not what it was after the first restart",
                    )
        proved = False
        if _chosen(number, operation.do, self.ground.prove_every):
            proved = True
            session.play(self.times[-1])
            if session.guard.breaches:
                return self.judged(operation, number, "breach", "")
            if self.sums.of(session) != (self.found.marks[-1].state or None):
                return self.say(
                    operation,
                    number,
                    "unknown",
                    oracle="rejoin",
                    explanation="it had rejoined, and at the close its state is another: the sum misses something",
                )
        return self.say(operation, number, "transparent", rejoined_ns=time_ns, proved=proved)

    def judged(self, operation: Operation, number: int, verdict: str, why: str) -> Tried:
        """A verdict that the catalogue, or the venue, may still turn into a breach."""
        session = self.session
        if session.guard.breaches:
            first = session.guard.breaches[0]
            return self.say(
                operation,
                number,
                "breach",
                oracle="catalogue",
                invariant=first.invariant,
                subsystem=first.subsystem,
                explanation=first.explanation,
            )
        differs = self._disagreement()
        if differs:
            return self.say(operation, number, "breach", oracle="convergence", explanation=differs)
        return self.say(operation, number, verdict, explanation=why)

    def _disagreement(self) -> str:
        """Where subject and venue differ though nothing is in flight; no invariant is asked."""
        session = self.session
        if not session.link.quiet:
            return ""
        tables = session.guard.monitor.layout.tables
        ours = tables.get(("orders", Order), {})
        for root, theirs in tables.get(("venue", Order), {}).items():
            mine = ours.get(root)
            if isinstance(theirs, Order) and theirs.is_open and isinstance(mine, Order):
                if (mine.cum_qty, mine.leaves_qty) != (theirs.cum_qty, theirs.leaves_qty):
                    return f"the venue has {theirs!r}, the subject {mine!r}"
            elif isinstance(theirs, Order) and theirs.is_open:
                return f"the venue works {theirs!r}, of which the subject knows nothing"
        held = tables.get(("positions", Position), {})
        for key, position in session.venue.positions.items():
            own = held.get(key)
            if position.net_qty != (own.net_qty if isinstance(own, Position) else 0):
                return f"the venue holds {position!r}, the subject {own!r}"
        return ""

    def _difference(self, base: Mark) -> str:
        """What is other than on the undisturbed day, in words."""
        now = mark(self.session, self.sums, base.time_ns)
        told = [
            f"{abs(mine - theirs)} {'more' if mine > theirs else 'fewer'} {name}"
            for name, mine, theirs in (
                ("orders entered", now.orders, base.orders),
                ("trades", now.trades, base.trades),
                ("orders open", now.open_orders, base.open_orders),
            )
            if mine != theirs
        ]
        return ", ".join(told) or "the same orders and trades, otherwise known or priced"

    def _crashed(self, operation: Operation, number: int, problem: BaseException) -> Tried:
        return self.say(
            operation,
            number,
            "breach",
            oracle="crash",
            explanation=f"the subject raised {type(problem).__name__}: {problem}",
        )

    def say(self, operation: Operation, number: int, verdict: str, **fields: Any) -> Tried:
        return Tried(
            number=number,
            kind=operation.do,
            place=operation.at,
            n=operation.n,
            time_ns=self.session.clock.now_ns,
            verdict=verdict,
            **fields,
        )

    _unsynced_is_whole = False


def _bare(image: dict[str, bytes]) -> dict[str, bytes]:
    """An image without the indexes of write-ahead logs, which are made anew at every start."""
    return {name: part for name, part in image.items() if not name.endswith("-shm")}


def _chosen(number: int, kind: str, every: int) -> bool:
    """One in `every` trials, chosen by its point and kind and nothing else."""
    mixed = (number * 2_654_435_761 + sum(kind.encode()) * 40_503) & 0xFFFFFFFF
    return every > 0 and (mixed >> 8) % every == 0


def run_trials(
    ground: Ground,
    place: Path,
    snapshot: Snapshot | None,
    found: Map,
    low: int,
    high: int,
    kind: type[Trials] = Trials,
) -> tuple[list[Tried], list[tuple[str, str]]]:
    """Everything that the ground asks for at the points from `low` up to but not including `high`.

    Also which transitions came in which cells, as codes, that the undisturbed day had not seen.
    """
    trials = kind(ground, place, snapshot, found, low, high)
    try:
        trials.go()
        cells = trials.session.guard.cells
        seen = {*cells.transitions, *trials.cells} - set(found.cells)
        return trials.tried, sorted((label, cells.code(cell)) for label, cell in seen)
    finally:
        trials.session.close()
