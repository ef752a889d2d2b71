"""Cells, one value of every axis, and the counter that every guard has.

The counter records how often the system was in each cell, and in which cell each lifecycle transition (a
restart, a disconnect, a night) found it. It is always on, so it must cost almost nothing: the function that
`check_compiler` generates for a kind of mutation compares the few expressions that the axes of that kind depend on
and calls an axis only when one of them changed. A kind that no axis reads costs nothing. Cells are numbers in
mixed radix, so a change of one axis is one addition.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import msgspec

from holdover.model import Record
from holdover.runtime.axes import DIGITS, Axis, CountingAxis, axes_in_use, is_classified_by_depends
from holdover.runtime.files import write_whole
from holdover.state import Owned, Stateful

log = logging.getLogger("holdover.cells")

TableKey = tuple[str, type[Record]]
RecordObserver = Callable[["Record | None", "Record | None"], None]

RESTART_KINDS: Final = ("clean", "kill", "kill-unsynced", "torn", "stale", "kill-during-recovery", "upgrade")
"""The kinds of restart; production can distinguish only `clean` and `kill`."""

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
"""Every counted lifecycle transition, with its description."""

GUARD_CREATED_HOOKS: Final[list[Callable[[Any], None]]] = []
"""Functions called with each new guard, so that a test run can count all of them."""


class StoredAxes(msgspec.Struct, kw_only=True):
    """The state of the axes that no record carries, with the names of the axes that were observed."""

    last_transition: str = ""
    observed_axes: list[str] = []
    axes: dict[str, dict[str, Any]] = {}


class CellCounterState(msgspec.Struct):
    """The state of a counter: where the system is, not how often it was where."""

    cell: int
    last_transition: str
    transition_count: int
    observed_axes: frozenset[str]
    axes: Annotated[list[Axis], Owned]


def _make_classifier(
    axes: Sequence[CountingAxis], disable: Callable[[Axis, Exception], None]
) -> Callable[[Record | None], tuple[int, ...]]:
    """Return a function that gives the class of a record on each axis.

    The classes follow from the expressions in `depends`, so they are computed once for each combination of values.
    """
    expressions = list(dict.fromkeys(expression for axis in axes for expression in axis.depends))
    signature = eval(f"lambda r: ({', '.join(expressions)},)") if expressions else lambda record: ()
    known: dict[tuple[object, ...], tuple[int, ...]] = {}
    nothing = (0,) * len(axes)

    def classify(record: Record | None) -> tuple[int, ...]:
        if record is None:
            return nothing
        mark = signature(record)
        classes = known.get(mark)
        if classes is None:
            classes = known[mark] = tuple(_class_on(axis, record, disable) for axis in axes)
        return classes

    return classify


def _class_on(axis: CountingAxis, record: Record, disable: Callable[[Axis, Exception], None]) -> int:
    try:
        return axis.of(record)
    except Exception as problem:
        disable(axis, problem)
        return 0


class CellCounter(Stateful[CellCounterState]):
    """How often a system was in each cell, and in which cell each transition found it.

    `visits` counts entries into each cell, `transitions` counts (label, cell) and `pairs` (label, next label).
    `transition_count` is the number of transitions so far. `on_change` receives the cell that the system leaves,
    `on_transition` a label and its cell; `on_rollback` is called after a trial is rolled back.
    `has_explicit_transitions` is set when a harness reports each transition with its kind, so that boundaries do
    not count as well. `market_events` counts replayed market events; the replaying code updates it.
    `exclusion_reason` says why a run must not count; `failed_axes` names the axes that raised.
    """

    State = CellCounterState
    DERIVED: ClassVar = {
        "visits": "counts, which a rollback keeps: the system did visit those cells",
        "transitions": "counts, which a rollback keeps",
        "pairs": "counts, which a rollback keeps",
        "market_events": "a count, which a rollback keeps",
        "failed_axes": "findings about the axes, which a rollback keeps",
        "exclusion_reason": "a finding about the run, which a rollback keeps",
        "has_explicit_transitions": "configuration by the harness",
        "on_change": "a function of whoever measures coverage",
        "on_transition": "a function of whoever measures coverage",
        "on_rollback": "a function of whoever measures coverage",
        "_strides": "the sizes of the axes",
        "_is_suspended": "true only inside a restore, where nothing is saved",
        "_observers": "functions made from the axes",
    }

    def __init__(self, axes: Sequence[type[Axis]] | None = None) -> None:
        self.axes: list[Axis] = [kind() for kind in (axes if axes is not None else axes_in_use())]
        self._strides: list[int] = []
        stride = 1
        for axis in self.axes:
            self._strides.append(stride)
            stride *= len(axis.values)
        self.cell = 0
        self.visits: dict[int, int] = {0: 1}
        self.transitions: dict[tuple[str, int], int] = {}
        self.pairs: dict[tuple[str, str], int] = {}
        self.last_transition = ""
        self.transition_count = 0
        self.has_explicit_transitions = False
        self.failed_axes: list[str] = []
        self.market_events = 0
        self.exclusion_reason = ""
        self.on_change: Callable[[int], None] | None = None
        self.on_transition: Callable[[str, int], None] | None = None
        self.on_rollback: Callable[[], None] | None = None
        self._is_suspended = False
        self._observed_axes: frozenset[str] = frozenset()
        self._observers: dict[TableKey, tuple[RecordObserver | None, tuple[str, ...]]] = {}

    # -- what the generated functions call ---------------------------------------------------------------------

    def observer_of(self, table: TableKey) -> tuple[RecordObserver | None, tuple[str, ...]]:
        """Return the function to call when a record of a table changes, and the expressions whose change requires the
        call.

        Returns (None, ()) when no axis reads the table; no expressions mean every change.
        """
        observer = self._observers.get(table)
        if observer is None:
            observer = self._observers[table] = self._make_observer(table)
        return observer

    def _make_observer(self, table: TableKey) -> tuple[RecordObserver | None, tuple[str, ...]]:
        table_axes = [
            (axis, stride)
            for axis, stride in zip(self.axes, self._strides, strict=True)
            if any(subsystem in (None, table[0]) and issubclass(table[1], kind) for subsystem, kind in axis.reads)
        ]
        if not table_axes:
            return None, ()
        names = frozenset(axis.name for axis, _ in table_axes)
        observed_axes: frozenset[str] | None = None
        counting = [(axis, stride) for axis, stride in table_axes if is_classified_by_depends(axis)]
        other_axes = [(axis, stride) for axis, stride in table_axes if not is_classified_by_depends(axis)]
        classify = _make_classifier([axis for axis, _ in counting], self._disable_axis)

        def changed(before: Record | None, after: Record | None) -> None:
            nonlocal observed_axes
            if observed_axes is not self._observed_axes:
                if not names <= self._observed_axes:
                    self._observed_axes |= names
                observed_axes = self._observed_axes
            cell_delta = 0
            if counting:
                old_classes, new_classes = classify(before), classify(after)
                if old_classes != new_classes:
                    for (axis, stride), old_class, new_class in zip(counting, old_classes, new_classes, strict=True):
                        if old_class != new_class:
                            old_value = axis.value
                            axis.move(old_class, new_class)
                            cell_delta += (axis.value - old_value) * stride
            for other_axis, stride in other_axes:
                old_value = other_axis.value
                try:
                    other_axis.on_record_change(before, after)
                except Exception as problem:
                    self._disable_axis(other_axis, problem)
                if other_axis.value != old_value:
                    cell_delta += (other_axis.value - old_value) * stride
            if cell_delta:
                self._enter_cell(self.cell + cell_delta)

        depends = [expression for axis, _ in table_axes for expression in axis.depends]
        return changed, tuple(dict.fromkeys(depends)) if all(axis.depends for axis, _ in table_axes) else ()

    def _disable_axis(self, axis: Axis, problem: Exception) -> None:
        """Stop updating an axis that raised: counting must never stop the system that it counts."""
        if axis.name not in self.failed_axes:
            self.failed_axes.append(axis.name)
            log.error("axis %s raised and is not to be believed any more: %r", axis.name, problem)

    def _enter_cell(self, cell: int) -> None:
        if self.on_change is not None:
            self.on_change(self.cell)
        self.cell = cell
        if not self._is_suspended:
            self.visits[cell] = self.visits.get(cell, 0) + 1

    @contextmanager
    def suspend_counting(self) -> Iterator[None]:
        """Count only the final cell of a restore.

        While records are read back one by one, the system is in no real state.
        """
        outer, self._is_suspended = self._is_suspended, True
        old_cell = self.cell
        try:
            yield
        finally:
            self._is_suspended = outer
            if self.cell != old_cell and not outer:
                self.visits[self.cell] = self.visits.get(self.cell, 0) + 1

    def notify(self, event: str, detail: str) -> None:
        """Pass an event to the axes that no record carries: a freeze level, or a counted transition."""
        for axis in self.axes:
            axis.on_event(event, detail)
        cell = self._compute_cell()
        if cell != self.cell:
            self._enter_cell(cell)

    def count_transition(self, transition: str, detail: str = "") -> bool:
        """Count the cell in which a lifecycle transition finds the system. Call it before the transition.

        `detail` is the kind of a restart, or the trade date of a begin. Returns False, without counting, for a name
        that is no lifecycle transition. A restart of an unknown kind counts as a kill.
        """
        label = f"restart:{detail if detail in RESTART_KINDS else 'kill'}" if transition == "restart" else transition
        if label not in TRANSITIONS:
            return False
        mark = (label, self.cell)
        self.transitions[mark] = self.transitions.get(mark, 0) + 1
        if self.last_transition:
            pair = (self.last_transition, label)
            self.pairs[pair] = self.pairs.get(pair, 0) + 1
        self.transition_count += 1
        if self.on_transition is not None:
            self.on_transition(label, self.cell)
        self.last_transition = label
        # A new set, so that each observer registers itself again.
        self._observed_axes -= {axis.name for axis in self.axes if transition in axis.forgets}
        self.notify(transition, detail)
        return True

    # -- cells as text ------------------------------------------------------------------------------------------

    def known_values(self) -> dict[str, str]:
        """Return the known part of the current cell as axis -> value, by name.

        Omits an axis that raised, an axis whose records never appeared, an axis that waits for a transition that was
        never reported, and, during a restore, every axis that reads records.
        """
        return {
            axis.name: axis.values[axis.value]
            for axis in sorted(self.axes, key=lambda a: a.name)
            if self._is_known(axis)
        }

    def _is_known(self, axis: Axis) -> bool:
        if axis.name in self.failed_axes or not axis.is_known():
            return False
        return not axis.reads or (not self._is_suspended and axis.name in self._observed_axes)

    def encode_cell(self, cell: int) -> str:
        """Encode a cell as one digit per axis. Raises `ValueError` for a number that no cell has."""
        number = cell
        if cell < 0:
            raise ValueError(f"no cell has the number {number}; cells count from 0")
        digits = []
        for axis in self.axes:
            cell, value = divmod(cell, len(axis.values))
            digits.append(DIGITS[value])
        if cell:
            raise ValueError(f"no cell has the number {number}: the axes have fewer")
        return "".join(digits)

    def decode_cell(self, code: str) -> int:
        """Decode a cell. Raises `ValueError` for a code that does not fit these axes."""
        if len(code) != len(self.axes):
            raise ValueError(f"cell {code!r} has {len(code)} axes, should have {len(self.axes)}")
        cell = 0
        for axis, stride, digit in zip(self.axes, self._strides, code, strict=True):
            value = DIGITS.find(digit)
            if not 0 <= value < len(axis.values):
                raise ValueError(f"cell {code!r}: axis {axis.name} has no value {digit!r}")
            cell += value * stride
        return cell

    # -- state --------------------------------------------------------------------------------------------------

    def export_state(self) -> StoredAxes:
        """Return the axes' state for the monitor's memory; the counts are not part of it."""
        return StoredAxes(
            last_transition=self.last_transition,
            observed_axes=sorted(self._observed_axes),
            axes={axis.name: state for axis in self.axes if (state := axis.export_state())},
        )

    def restore_state(self, state: StoredAxes) -> None:
        """Restore what `export_state` returned; axes that it does not contain stay as they are."""
        self.last_transition = state.last_transition
        self._observed_axes = frozenset(state.observed_axes)  # without those that only this restore observed
        for axis in self.axes:
            if axis.name in state.axes:
                axis.restore_state(state.axes[axis.name])
        self.cell = self._compute_cell()

    def rollback(self, checkpoint: Any) -> None:
        """Restore the axes to a checkpoint. Counts made since then stay, because the system did visit those cells."""
        if self._is_suspended:
            raise RuntimeError("cells cannot be rolled back while records are restored")
        if self.on_change is not None:
            self.on_change(self.cell)
        super().rollback(checkpoint)

    def _compute_cell(self) -> int:
        return sum(axis.value * stride for axis, stride in zip(self.axes, self._strides, strict=True))

    def export_counts(self) -> dict[str, Any]:
        """Return the counts as plain values in a fixed order, for `holdover coverage profile`."""
        return {
            "axes": [[axis.name, list(axis.values)] for axis in self.axes],
            "visits": dict(sorted((self.encode_cell(cell), count) for cell, count in self.visits.items())),
            "transitions": sorted(
                [label, self.encode_cell(cell), count] for (label, cell), count in self.transitions.items()
            ),
            "pairs": sorted(
                [first_label, second_label, count] for (first_label, second_label), count in self.pairs.items()
            ),
        }

    def add_counts(self, counts: dict[str, Any]) -> None:
        """Add the counts of an earlier process. Raises `ValueError` when they belong to other axes."""
        if counts["axes"] != [[axis.name, list(axis.values)] for axis in self.axes]:
            raise ValueError("the cells kept before were counted with other axes")
        if any(count < 1 for count in counts["visits"].values()):
            raise ValueError("a cell was counted less than once")
        for code, count in counts["visits"].items():
            cell = self.decode_cell(code)
            self.visits[cell] = self.visits.get(cell, 0) + count
        for label, code, count in counts["transitions"]:
            mark = (label, self.decode_cell(code))
            self.transitions[mark] = self.transitions.get(mark, 0) + count
        for first_label, second_label, count in counts["pairs"]:
            self.pairs[first_label, second_label] = self.pairs.get((first_label, second_label), 0) + count

    def __repr__(self) -> str:
        values = ", ".join(f"{axis.name}={axis.values[axis.value]}" for axis in self.axes)
        return f"<CellCounter {len(self.visits)} cells, in {values}>"


class CellCountFile:
    """A counter's counts in `cells.json` of a directory, over the processes of a trading system.

    `restart_kind` is `clean` when the previous process ended in good order, else `kill`. An unreadable file is
    renamed; a failed write is only logged, because counting must not stop trading.
    """

    NAME: Final = "cells.json"
    VERSION: Final = 1

    def __init__(self, directory: Path, counter: CellCounter, catalogue: str) -> None:
        self.path = directory / self.NAME
        self.restart_kind = "kill"
        self._counter, self._catalogue = counter, catalogue
        try:
            counts = msgspec.json.decode(self.path.read_bytes()) if self.path.exists() else None
            if counts is not None:
                if (counts["magic"], counts["version"]) != ("holdover-cells", self.VERSION):
                    raise ValueError(f"version {counts['version']}; this build reads version {self.VERSION}")
                counter.add_counts(counts)
                self.restart_kind = "kill" if counts["running"] else "clean"
        except (ValueError, KeyError, TypeError, OSError) as problem:
            log.warning("%s is set aside and cells are counted from nothing: %s", self.NAME, problem)
            os.replace(self.path, self.path.with_suffix(".aside"))

    def encode(self, *, running: bool) -> bytes:
        """Return the content of the file now. `running` states that this process has not ended."""
        header = {"magic": "holdover-cells", "version": self.VERSION, "catalogue": self._catalogue, "running": running}
        return msgspec.json.encode({**header, **self._counter.export_counts()})

    def write(self, content: bytes) -> None:
        """Write what `encode` returned, atomically and synced."""
        try:
            write_whole(self.path, content)
        except OSError as problem:
            log.error("%s could not be written: %s", self.NAME, problem)
