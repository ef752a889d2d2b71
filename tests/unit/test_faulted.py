"""The table of faults: its rows outlive the process, and its stories are schedules."""

from __future__ import annotations

from pathlib import Path

from holdover.explore.faulted import Cell, Row, Rows, stories
from holdover.explore.schedule import KINDS
from holdover.report import faults_page


def row(**cells: Cell) -> Row:
    """A row of one fault."""
    return Row(fault="f", category="partition", catches=["a", "b"], cells=cells)


def test_a_row_is_gone_on_with(tmp_path: Path) -> None:
    """What was made on the same days with the same catalogue stands; other and damaged ones are made again."""
    Rows(tmp_path, "key").write(row(sweep=Cell(found=True, by="a", runs=3)))
    found = Rows(tmp_path, "key").read("f")
    assert found is not None
    assert found.cells["sweep"].runs == 3
    assert Rows(tmp_path, "another").read("f") is None
    assert Rows(tmp_path, "key").read("g") is None
    (tmp_path / "f.row.json").write_text("{half")
    assert Rows(tmp_path, "key").read("f") is None
    Rows(tmp_path, "key").forget("f")
    Rows(tmp_path, "key").forget("f")
    assert not (tmp_path / "f.row.json").exists()


def test_each_story_has_one_kind_of_act_on_every_day() -> None:
    """In the order of their times within each place, inside the session, and of kinds that there are."""
    told = stories([23_400, 12_600])
    assert len({title for title, _ in told}) == len(told)
    for _, operations in told:
        assert {one.day for one in operations} == {0, 1}
        assert all(one.do in KINDS and one.at == "second" and 0 < one.n < 23_400 for one in operations)
        assert all(len(one.with_) <= len(KINDS[one.do].takes) for one in operations)
        assert len({one.do for one in operations} - {"disconnect", "kill"}) in (1, 2)


def test_the_page_counts_what_it_shows() -> None:
    """Found, by which invariant, in how many operations; what was not looked for is no miss."""
    rows = [
        row(fresh=Cell(found=False, runs=1), sweep=Cell(found=True, by="a, c", runs=3, operations=2, named=True)),
        row(fresh=Cell(found=False, runs=1), sweep=Cell(found=False, runs=9)),
        row(fresh=Cell(found=False, runs=1)),
    ]
    page = faults_page(rows, ["fresh", "sweep"], "holdover faults", ["ACME"], ["2024-11-27"])
    assert "- fresh: 0 of 3 found\n" in page
    assert "- sweep: 1 of 2 found, 1 by an invariant named for it, in 2 operations or fewer\n" in page
    assert page.count("\n| f | a or b |") == 3
    assert "| - |" in page
