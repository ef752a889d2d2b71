"""The bridge to Hypothesis: schedules as a strategy, and a corpus as examples.

    from hypothesis import given
    from holdover.explore.bridge import examples_of, schedules

    @examples_of("corpus")
    @given(schedule=schedules(store, ["IBM"], ["2013-10-07"]))
    def test_it(schedule, tmp_path_factory):
        assert play(schedule, ..., store=store).verdict == "holds"

What is drawn shrinks towards a story that is easy to tell: no operation at all, a plain kill, the first places of the
first day, small numbers. Hypothesis (the extra `hypothesis`) is imported only when one of the two is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdover.catalogue import Catalogue
from holdover.explore.corpus import Corpus
from holdover.explore.schedule import AT_MESSAGES, KINDS, Operation, Schedule, schedule_on
from holdover.recording import RecordingStore

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Test = TypeVar("Test", bound=Callable[..., Any])

_PLACES: Final = ("mutation", "delivered", "sent", "second", "instant")
_NEAR: Final = 60
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
_ORDINAL: Final = (0, 8)


def schedules(
    store: RecordingStore,
    symbols: Sequence[str],
    days: Sequence[str],
    *,
    kinds: Sequence[str] = tuple(KINDS),
    max_operations: int = 4,
    furthest: int = 3000,
    catalogue: Catalogue | None = None,
    **fields: Any,
) -> SearchStrategy[Schedule]:
    """Schedules on recorded days, with up to `max_operations` operations of some `kinds`, plainest first.

    `furthest` is the last position at which one is put (the mutation, message or second of its day); `fields` are the
    schedule's own: `subject`, `seed`, `faults`. Raises `BadRecording` when a day is not at hand and `ValueError` for a
    kind that there is not.
    """
    from hypothesis import strategies as st

    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"no operation is called {kind!r}; there are {', '.join(KINDS)}")
    bare = schedule_on(store, symbols, days, catalogue or Catalogue.load(), **fields)
    positions = st.one_of(st.integers(1, min(_NEAR, furthest)), st.integers(1, furthest))

    @st.composite
    def operation(draw: Any) -> Operation:
        do = draw(st.sampled_from(kinds))
        return Operation(
            day=draw(st.integers(0, len(days) - 1)),
            at=draw(st.sampled_from(("in", "out") if do in AT_MESSAGES else _PLACES)),
            n=draw(positions),
            do=do,
            with_=[draw(st.integers(*_RANGES.get(name, _ORDINAL))) for name, _ in KINDS[do].takes],
        )

    several = st.lists(operation(), max_size=max_operations)
    return several.map(lambda operations: bare.replace(operations=operations))


def examples_of(corpus: Path | str, name: str = "schedule") -> Callable[[Test], Test]:
    """A decorator that has Hypothesis try each schedule of a corpus first, as the argument `name`.

    Raises `BadCorpus` or `BadSchedule` when the corpus cannot be read.
    """
    from hypothesis import example

    several = Corpus(Path(corpus)).schedules()

    def decorate(test: Test) -> Test:
        for said, schedule in reversed(several):
            test = example(**{name: schedule}).via(said)(test)
        return test

    return decorate
