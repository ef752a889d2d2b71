"""The corpus: every schedule that once showed something is played, and must hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdover.catalogue import Catalogue
from holdover.explore import play
from holdover.explore.corpus import Corpus
from holdover.explore.schedule import Schedule
from holdover.recording import BadRecording, bundled

CORPUS = Corpus(Path(__file__).resolve().parents[2] / "corpus")


def _is_bundled(schedule: Schedule) -> bool:
    try:
        return all(bundled().get(one.symbol, one.trade_date).digest == one.digest for one in schedule.recordings)
    except BadRecording:
        return False


PLAYED = {name: schedule for name, schedule in CORPUS.schedules() if _is_bundled(schedule)}


def test_the_corpus_is_whole() -> None:
    """Nothing in it has been emptied, taken away, changed or slipped in."""
    assert CORPUS.check() == []


@pytest.mark.parametrize("name", PLAYED)
def test_every_schedule_of_the_corpus_holds(tmp_path: Path, catalogue: Catalogue, name: str) -> None:
    """What has failed once does not fail again."""
    played = play(PLAYED[name], tmp_path / "run", catalogue=catalogue, journal=False, scratch=True)
    assert [one.explanation for one in played.breaches] == []
    assert played.crash == ""
    assert played.verdict == "holds"
