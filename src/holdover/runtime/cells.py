"""Cells: one value of every axis; and the counter of them that every guard has.

It says how often the system has been in each cell, and in which cell each lifecycle transition (a restart, a cut, a
night) found it. It is always on, so it has to cost next to nothing: the function that `layout` writes for a kind of
mutation compares the few expressions that the axes of that kind depend on, and calls them only when one of these has
changed; a kind that no axis reads pays nothing. Cells are numbers in mixed radix, so that a change of one axis is one
addition.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.model import Record
from holdover.runtime.axes import DIGITS, Axis, axes_in_use
from holdover.runtime.files import write_whole

log = logging.getLogger("holdover.cells")

TableKey = tuple[str, type[Record]]
Watch = Callable[["Record | None", "Record | None"], None]

RESTART_KINDS: Final = ("clean", "kill", "kill-unsynced", "torn", "stale", "kill-during-recovery", "upgrade")
"""How a subject can be restarted; what production cannot tell apart counts as `clean` or `kill`."""

TRANSITIONS: Final[dict[str, str]] = {
    "begin": "a session begins",
    "end": "the session ends",
    "overnight": "the night passes",
    "disconnect": "the link is cut",
    "reconnect": "the link may come back",
    "restart:clean": "stopped in good order and started again",
    "restart:kill": "killed and started again",
    "restart:kill-unsynced": "killed, the unsynced tail of its store lost",
    "restart:torn": "killed, its last write half there",
    "restart:stale": "killed, this morning's backup put back",
    "restart:kill-during-recovery": "killed again while it recovered",
    "restart:upgrade": "stopped, and another version started on its state",
}
"""Every lifecycle transition that is counted, and what it is in words."""

OPENED: Final[list[Callable[[Any], None]]] = []
"""Called with each guard as it is made: how a test run counts all of them without being told of any."""


class CellCounter:
    """How often a system was in each cell, and in which cell each transition found it.

    `visits` counts how often a cell was entered, `transitions` (label, cell) and `pairs` (label, label after it);
    `steps` is how many transitions led here. `on_change` is called with the cell that is about to be left,
    `on_transition` with a label and the cell in which it came, `on_put_back` when a trial has been undone. `explicit`
    is set where somebody says each transition with its kind, so that boundaries are not counted too. `played` counts
    recorded market events, told by whoever plays them; `left_out` says why a run is not to be counted; `broken` names
    the axes that have raised.
    """

    def __init__(self, axes: Sequence[type[Axis]] | None = None) -> None:
        self.axes = [kind() for kind in (axes if axes is not None else axes_in_use())]
        self._strides: list[int] = []
        stride = 1
        for one in self.axes:
            self._strides.append(stride)
            stride *= len(one.values)
        self.cell = 0
        self.visits: dict[int, int] = {0: 1}
        self.transitions: dict[tuple[str, int], int] = {}
        self.pairs: dict[tuple[str, str], int] = {}
        self.last = ""
        self.steps = 0
        self.explicit = False
        self.broken: list[str] = []
        self.played = 0
        self.left_out = ""
        self.on_change: Callable[[int], None] | None = None
        self.on_transition: Callable[[str, int], None] | None = None
        self.on_put_back: Callable[[], None] | None = None
        self._quiet = False
        self._shown: set[str] = set()
        self._watches: dict[TableKey, tuple[Watch | None, tuple[str, ...]]] = {}

    # -- what the layout and the guard call ---------------------------------------------------------------------

    def watch(self, table: TableKey) -> tuple[Watch | None, tuple[str, ...]]:
        """What to call when a record of a table changes, and the expressions on whose change alone it need be called.

        (None, ()) where no axis reads it; no expressions mean every change.
        """
        found = self._watches.get(table)
        if found is None:
            found = self._watches[table] = self._make_watch(table)
        return found

    def _make_watch(self, table: TableKey) -> tuple[Watch | None, tuple[str, ...]]:
        mine = [
            (one, stride)
            for one, stride in zip(self.axes, self._strides, strict=True)
            if any(subsystem in (None, table[0]) and issubclass(table[1], kind) for subsystem, kind in one.reads)
        ]
        if not mine:
            return None, ()
        names = [one.name for one, _ in mine]
        noted: set[str] | None = None

        def changed(before: Record | None, after: Record | None) -> None:
            nonlocal noted
            if noted is not self._shown:
                noted = self._shown
                noted.update(names)
            moved = 0
            for one, stride in mine:
                was = one.value
                try:
                    one.changed(before, after)
                except Exception as problem:
                    self._set_aside(one, problem)
                if one.value != was:
                    moved += (one.value - was) * stride
            if moved:
                self._enter(self.cell + moved)

        depends = [expression for one, _ in mine for expression in one.depends]
        return changed, tuple(dict.fromkeys(depends)) if all(one.depends for one, _ in mine) else ()

    def _set_aside(self, broken: Axis, problem: Exception) -> None:
        """An axis that raises stands still and is said to be broken: counting must never stop what is counted."""
        if broken.name not in self.broken:
            self.broken.append(broken.name)
            log.error("axis %s raised and is not to be believed any more: %r", broken.name, problem)

    def _enter(self, cell: int) -> None:
        if self.on_change is not None:
            self.on_change(self.cell)
        self.cell = cell
        if not self._quiet:
            self.visits[cell] = self.visits.get(cell, 0) + 1

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """While records are read back one by one the system is in no state at all: only where it ends up counts."""
        outer, self._quiet = self._quiet, True
        was = self.cell
        try:
            yield
        finally:
            self._quiet = outer
            if self.cell != was and not outer:
                self.visits[self.cell] = self.visits.get(self.cell, 0) + 1

    def tell(self, what: str, detail: str) -> None:
        """Something that no record says: a freeze's level, or a transition that has been counted."""
        for one in self.axes:
            one.told(what, detail)
        cell = sum(one.value * stride for one, stride in zip(self.axes, self._strides, strict=True))
        if cell != self.cell:
            self._enter(cell)

    def transition(self, what: str, detail: str = "") -> bool:
        """A lifecycle transition is about to come about: count the cell in which it finds the system.

        `detail` is the kind of a restart, and the trade date of a beginning. What is no lifecycle transition is left
        out, and False is returned; a restart of a kind that is not known counts as a kill.
        """
        label = f"restart:{detail if detail in RESTART_KINDS else 'kill'}" if what == "restart" else what
        if label not in TRANSITIONS:
            return False
        mark = (label, self.cell)
        self.transitions[mark] = self.transitions.get(mark, 0) + 1
        if self.last:
            pair = (self.last, label)
            self.pairs[pair] = self.pairs.get(pair, 0) + 1
        self.steps += 1
        if self.on_transition is not None:
            self.on_transition(label, self.cell)
        self.last = label
        forgotten = {one.name for one in self.axes if what in one.forgets}
        if forgotten:
            self._shown = self._shown - forgotten  # another set, so that each watch notes itself anew
        self.tell(what, detail)
        return True

    # -- cells as text ------------------------------------------------------------------------------------------

    def here(self) -> dict[str, str]:
        """The cell as it can be told just now: axis -> value, by name, whatever axes there are and in which order.

        Left out is what would be said without being known: an axis that has raised, one that reads records of which
        none has ever come up, one that waits for a transition that nobody has told; and all that read records while
        these are being read back.
        """
        return {one.name: one.values[one.value] for one in sorted(self.axes, key=lambda a: a.name) if self._known(one)}

    def _known(self, one: Axis) -> bool:
        if one.name in self.broken or not one.known():
            return False
        return not one.reads or (not self._quiet and one.name in self._shown)

    def code(self, cell: int) -> str:
        """A cell as one digit an axis."""
        digits = []
        for one in self.axes:
            cell, value = divmod(cell, len(one.values))
            digits.append(DIGITS[value])
        return "".join(digits)

    def cell_of(self, code: str) -> int:
        """The cell that a code says. Raises `ValueError` for one that these axes do not have."""
        if len(code) != len(self.axes):
            raise ValueError(f"cell {code!r} has {len(code)} axes, should have {len(self.axes)}")
        cell = 0
        for one, stride, digit in zip(self.axes, self._strides, code, strict=True):
            value = DIGITS.find(digit)
            if not 0 <= value < len(one.values):
                raise ValueError(f"cell {code!r}: axis {one.name} has no value {digit!r}")
            cell += value * stride
        return cell

    # -- memory -------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """What the axes must know beside the records, for the monitor's memory; the counts are not part of it."""
        axes = {one.name: one.dump() for one in self.axes}
        return {"last": self.last, "axes": axes, "shown": sorted(self._shown)}

    def load(self, held: dict[str, Any]) -> None:
        """Take up what `dump` gave; axes that it does not know stay as they are."""
        self.last = str(held.get("last", ""))
        if "shown" in held:  # not what has come up only because it was read back just now
            self._shown = {str(name) for name in held["shown"]}
        known = held.get("axes", {})
        for one in self.axes:
            if known.get(one.name) is not None:
                one.load(known[one.name])
        self.cell = sum(one.value * stride for one, stride in zip(self.axes, self._strides, strict=True))

    def keep(self) -> Any:
        """What the axes hold now, for `put_back` in the same process."""
        return (
            self.cell,
            self.last,
            self.steps,
            frozenset(self._shown),
            [{name: copy(held) for name, held in vars(a).items()} for a in self.axes],
        )

    def put_back(self, kept: Any) -> None:
        """Make the axes what they were when `keep` was called. What was counted since stays counted: it was seen."""
        if self.on_change is not None:
            self.on_change(self.cell)
        self.cell, self.last, self.steps, shown, axes = kept
        self._shown = set(shown)
        for one, held in zip(self.axes, axes, strict=True):
            vars(one).update({name: copy(value) for name, value in held.items()})

    def counts(self) -> dict[str, Any]:
        """The counts in plain values, in a fixed order: what is kept for `holdover coverage profile`."""
        return {
            "axes": [[one.name, list(one.values)] for one in self.axes],
            "visits": dict(sorted((self.code(cell), count) for cell, count in self.visits.items())),
            "transitions": sorted([label, self.code(cell), count] for (label, cell), count in self.transitions.items()),
            "pairs": sorted([one, other, count] for (one, other), count in self.pairs.items()),
        }

    def add(self, counts: dict[str, Any]) -> None:
        """Add counts kept by an earlier process. Raises `ValueError` when they were made with other axes."""
        if counts["axes"] != [[one.name, list(one.values)] for one in self.axes]:
            raise ValueError("the cells kept before were counted with other axes")
        for code, count in counts["visits"].items():
            cell = self.cell_of(code)
            self.visits[cell] = self.visits.get(cell, 0) + count
        for label, code, count in counts["transitions"]:
            mark = (label, self.cell_of(code))
            self.transitions[mark] = self.transitions.get(mark, 0) + count
        for one, other, count in counts["pairs"]:
            self.pairs[one, other] = self.pairs.get((one, other), 0) + count

    def __repr__(self) -> str:
        here = ", ".join(f"{one.name}={one.values[one.value]}" for one in self.axes)
        return f"<CellCounter {len(self.visits)} cells, in {here}>"


class KeptCells:
    """A counter's counts in `cells.json` of a directory, over the lives of a trading process.

    `restart_kind` is `clean` when the life before ended in good order, and `kill` otherwise. A file that cannot be read
    is set aside, one that cannot be written is only said: what counts must not stop what trades.
    """

    NAME: Final = "cells.json"
    VERSION: Final = 1

    def __init__(self, directory: Path, counter: CellCounter, catalogue: str) -> None:
        self.path = directory / self.NAME
        self.restart_kind = "kill"
        self._counter, self._catalogue = counter, catalogue
        try:
            kept = msgspec.json.decode(self.path.read_bytes()) if self.path.exists() else None
            if kept is not None:
                counter.add(kept)
                self.restart_kind = "kill" if kept["running"] else "clean"
        except (ValueError, KeyError, TypeError, OSError) as problem:
            log.warning("%s is set aside and cells are counted from nothing: %s", self.NAME, problem)
            os.replace(self.path, self.path.with_suffix(".aside"))

    def write(self, *, running: bool) -> None:
        """Write the counts whole, synced; `running` says that this life has not ended."""
        told = {"magic": "holdover-cells", "version": self.VERSION, "catalogue": self._catalogue, "running": running}
        try:
            write_whole(self.path, msgspec.json.encode({**told, **self._counter.counts()}))
        except OSError as problem:
            log.error("%s could not be written: %s", self.NAME, problem)
