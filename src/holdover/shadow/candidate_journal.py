"""Counts the lines of the candidate's journal, each once, also over a kill of the shadow."""

from __future__ import annotations

import sys
from pathlib import Path

from holdover.shadow.shadow_run import CandidateJournalReader, DiscardedCounts, ShadowRun
from holdover.watch.tail import Tail


class CandidateJournal:
    """Follows the journal of the candidate's running day. The first `counted_lines` lines have been counted before."""

    def __init__(self, run: ShadowRun) -> None:
        self.shadow_run = run
        self.counted_lines = 0
        self._reader = CandidateJournalReader(run, nights=False)
        self._tail: Tail | None = None
        self._line_count = 0

    def open(self, path: Path) -> None:
        """Follow the journal of another day or another run of the day."""
        self.close()
        self._reader = CandidateJournalReader(self.shadow_run, nights=False)
        self._tail, self._line_count = Tail(path), 0

    def skip_counted(self, trade_date: str) -> None:
        """Skip the lines of a day that an earlier run of the shadow has counted."""
        state = self.shadow_run.state
        if state.counted_lines_date == trade_date:
            self.counted_lines = state.counted_lines
        elif state.counted_lines_date > trade_date:  # the day had ended and was counted to its end
            self.counted_lines = sys.maxsize

    def read(self, trade_date: str) -> None:
        """Count the new lines; lines that were counted before are skipped."""
        if self._tail is None:
            return
        while lines := self._tail.read_lines():
            for line in lines:
                is_counted = self._line_count < self.counted_lines
                self._reader.counts = DiscardedCounts() if is_counted else self.shadow_run
                self._line_count += 1
                self._reader.read_line(line)
        if self._line_count >= self.counted_lines:
            self.shadow_run.state.counted_lines = self._line_count
            self.shadow_run.state.counted_lines_date = trade_date

    def close(self) -> None:
        """Stop following."""
        if self._tail is not None:
            self._tail.close()
            self._tail = None
