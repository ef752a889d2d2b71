"""The bridge to Hypothesis: schedules as a strategy, and a corpus as explicit examples.

    from hypothesis import given
    from holdover.explore.bridge import examples_of, schedules

    @examples_of("corpus")
    @given(schedule=schedules(store, ["IBM"], ["2013-10-07"]))
    def test_it(schedule, tmp_path_factory):
        assert play(schedule, ..., store=store).verdict == "holds"

A drawn schedule shrinks towards the simplest one: no operation, a plain kill, an early point of the first
day, small numbers. Both functions need the extra `hypothesis`; the module imports Hypothesis only when you
call one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdover.catalogue import Catalogue
from holdover.explore.corpus import Corpus
from holdover.harness.schedule import DRAWN_KINDS, KINDS, MESSAGE_OPERATIONS, Operation, Schedule, make_schedule
from holdover.recording import RecordingStore

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Test = TypeVar("Test", bound=Callable[..., Any])

_POINT_KINDS: Final = ("mutation", "delivered", "sent", "second", "instant")
_NEAR_MAX: Final = 60
_RANGES: Final = {
    "down_seconds": (0, 300),
    "seconds": (0, 120),
    "milliseconds": (0, 10_000),
    "recovery": (0, 2),
    "lose_out": (0, 1),
    "side": (0, 1),
    "mutations": (1, 40),
    "lots": (-2, 5),
    "ticks": (-3, 3),
}
_ORDINAL_RANGE: Final = (0, 8)


def schedules(
    store: RecordingStore,
    symbols: Sequence[str],
    days: Sequence[str],
    *,
    kinds: Sequence[str] = DRAWN_KINDS,
    max_operations: int = 4,
    position_max: int = 3000,
    catalogue: Catalogue | None = None,
    **fields: Any,
) -> SearchStrategy[Schedule]:
    """Return a strategy for schedules on recorded days; simple schedules come first.

    A schedule has up to `max_operations` operations of the given `kinds`. `position_max` is the largest `n` of an
    operation (mutation, message or second of its day). `fields` are fields of the schedule: `subject`, `seed`,
    `faults`. Raises `RecordingError` when a day is not recorded and `ValueError` for an unknown kind.
    """
    from hypothesis import strategies as st

    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"no operation is called {kind!r}; there are {', '.join(KINDS)}")
    bare = make_schedule(store, symbols, days, catalogue or Catalogue.load(), **fields)
    positions = st.one_of(st.integers(1, min(_NEAR_MAX, position_max)), st.integers(1, position_max))

    @st.composite
    def operation(draw: Any) -> Operation:
        do = draw(st.sampled_from(kinds))
        return Operation(
            day=draw(st.integers(0, len(days) - 1)),
            at=draw(st.sampled_from(("in", "out") if do in MESSAGE_OPERATIONS else _POINT_KINDS)),
            n=draw(positions),
            do=do,
            with_=[draw(st.integers(*_RANGES.get(name, _ORDINAL_RANGE))) for name, _ in KINDS[do].parameters],
        )

    operation_lists = st.lists(operation(), max_size=max_operations)
    return operation_lists.map(lambda operations: bare.replace(operations=operations))


def examples_of(corpus: Path | str, name: str = "schedule") -> Callable[[Test], Test]:
    """Return a decorator that makes Hypothesis try each schedule of a corpus first, as the argument `name`.

    Raises `CorpusError` or `ScheduleError` when the corpus cannot be read.
    """
    from hypothesis import example

    named_schedules = Corpus(Path(corpus)).schedules()

    def decorate(test: Test) -> Test:
        for schedule_name, schedule in reversed(named_schedules):
            test = example(**{name: schedule}).via(schedule_name)(test)
        return test

    return decorate
