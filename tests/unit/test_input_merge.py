"""Inputs of a live shadow are merged by time: none is lost, none runs ahead; former files are refused."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdover.recording import bundled_store
from holdover.runtime import StoreError
from holdover.shadow.input_merge import InputMerge
from holdover.shadow.input_store import InputItem, InputStore
from holdover.shadow.state import ShadowState, ShadowStateError, read_state

ACME = bundled_store().get("ACME", bundled_store().days("ACME")[0]).meta.instrument
T0 = 1_732_717_800_000_000_000


class ListFeed:
    """A feed of prepared items, some at each read."""

    def __init__(self, reads: list[list[InputItem]]) -> None:
        self.reads, self.is_behind, self.read_count = reads, False, 0

    @property
    def offset(self) -> bytes:
        """How many reads there were."""
        return str(self.read_count).encode()

    def read(self) -> list[InputItem]:
        """Return the items of the next read; more is available until the last one."""
        self.read_count += 1
        items = self.reads.pop(0) if self.reads else []
        self.is_behind = bool(self.reads)
        return items

    def skip(self) -> None:
        """Skip everything."""
        self.reads.clear()

    def drain_losses(self) -> list[str]:
        """Return nothing."""
        return []

    def close(self) -> None:
        """Do nothing."""


def make_item(kind: str, second: int) -> InputItem:
    """Return a heartbeat of the market data, or a line of the incumbent's journal."""
    key = "ts_event" if kind == "m" else "time_ns"
    return InputItem(kind, 0, json.dumps({key: T0 + second * 1_000_000_000}, separators=(",", ":")).encode())


seconds = st.lists(st.integers(0, 200), max_size=12).map(sorted)


@given(seconds, seconds, st.integers(1, 4), st.integers(1, 4))
def test_nothing_is_lost_and_nothing_runs_ahead(
    market: list[int], reports: list[int], market_size: int, report_size: int
) -> None:
    """Whatever the feeds return at a read, the due items come out in the order of their times, each once."""
    reads = {
        "market data": [
            [make_item("m", second) for second in market[i : i + market_size]]
            for i in range(0, len(market), market_size)
        ],
        "incumbent": [
            [make_item("r", second) for second in reports[i : i + report_size]]
            for i in range(0, len(reports), report_size)
        ],
    }
    merge = InputMerge({name: ListFeed(list(items)) for name, items in reads.items()}, [ACME], [])
    due: list[InputItem] = []
    for _ in range(60):
        merge.collect(T0, is_day_known=True)
        items = merge.due_items()
        merge.drop(len(items))
        due += items
    assert merge.waiting == []
    times = [next(iter(json.loads(item.data).values())) for item in due]
    assert times == sorted(times)
    assert sorted(due) == sorted(
        [make_item("m", second) for second in market] + [make_item("r", second) for second in reports]
    )


def test_no_more_is_dropped_than_waits() -> None:
    """A count that cannot be is refused."""
    with pytest.raises(ValueError, match="3 items are to be dropped, and 0 wait"):
        InputMerge({}, [ACME], []).drop(3)


def test_stored_inputs_of_a_former_version_are_refused(tmp_path: Path) -> None:
    """With a sentence; those of this version are opened again."""
    for _ in range(2):
        store = InputStore(tmp_path / "inputs.db")
        store.close()
    database = sqlite3.connect(tmp_path / "former.db")
    database.execute("CREATE TABLE place (source TEXT PRIMARY KEY, body BLOB NOT NULL)")
    database.commit()
    database.close()
    with pytest.raises(StoreError, match="stored in version 1, this Holdover reads version 2; take another"):
        InputStore(tmp_path / "former.db")


def test_the_state_of_a_former_version_is_refused(tmp_path: Path) -> None:
    """Also when its keys are not those of this version."""
    path = tmp_path / "shadow.json"
    ShadowState().save(path)
    assert read_state(path) == ShadowState()
    path.write_text('{"magic": "holdover-shadow", "version": 1, "clock": 3}')
    with pytest.raises(ShadowStateError, match="is holdover-shadow version 1, this Holdover reads version 2"):
        read_state(path)
    path.write_text("[]")
    with pytest.raises(ShadowStateError, match="cannot be read"):
        read_state(path)
