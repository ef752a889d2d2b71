"""The table of faults: its rows outlive the process, and its stories are schedules."""

from __future__ import annotations

from pathlib import Path

from holdover.explore.fault_table import FaultCell, FaultRow, FaultRowStore, build_stories
from holdover.harness.schedule import KINDS
from holdover.report import faults_page


def make_row(**cells: FaultCell) -> FaultRow:
    """A row of one fault."""
    return FaultRow(fault="f", category="partition", catches=["a", "b"], cells=cells)


def test_a_row_is_gone_on_with(tmp_path: Path) -> None:
    """What was made on the same days with the same catalogue stands; other and damaged ones are made again."""
    FaultRowStore(tmp_path, "key").write(make_row(sweep=FaultCell(is_found=True, found_by="a", runs=3)))
    restored_row = FaultRowStore(tmp_path, "key").read("f")
    assert restored_row is not None
    assert restored_row.cells["sweep"].runs == 3
    assert FaultRowStore(tmp_path, "another").read("f") is None
    assert FaultRowStore(tmp_path, "key").read("g") is None
    (tmp_path / "f.row.json").write_text("{half")
    assert FaultRowStore(tmp_path, "key").read("f") is None
    FaultRowStore(tmp_path, "key").delete("f")
    FaultRowStore(tmp_path, "key").delete("f")
    assert not (tmp_path / "f.row.json").exists()


def test_each_story_has_one_kind_of_act_on_every_day() -> None:
    """In the order of their times within each place, inside the session, and of kinds that there are."""
    generated_stories = build_stories([23_400, 12_600])
    assert len({title for title, _ in generated_stories}) == len(generated_stories)
    for _, operations in generated_stories:
        assert {operation.day for operation in operations} == {0, 1}
        assert all(
            operation.do in KINDS and operation.at == "second" and 0 < operation.n < 23_400 for operation in operations
        )
        assert all(len(operation.with_) <= len(KINDS[operation.do].parameters) for operation in operations)
        assert len({operation.do for operation in operations} - {"disconnect", "kill"}) in (1, 2)


def test_the_page_counts_what_it_shows() -> None:
    """Found, by which invariant, in how many operations; what was not looked for is no miss."""
    rows = [
        make_row(
            fresh=FaultCell(is_found=False, runs=1),
            sweep=FaultCell(is_found=True, found_by="a, c", runs=3, operations=2, is_named=True),
        ),
        make_row(fresh=FaultCell(is_found=False, runs=1), sweep=FaultCell(is_found=False, runs=9)),
        make_row(fresh=FaultCell(is_found=False, runs=1)),
    ]
    page = faults_page(rows, ["fresh", "sweep"], "holdover faults", ["ACME"], ["2024-11-27"])
    assert "- fresh: 0 of 3 found\n" in page
    assert "- sweep: 1 of 2 found, 1 by an invariant named for it, in 2 operations or fewer\n" in page
    assert page.count("\n| f | a or b |") == 3
    assert "| - |" in page
