"""`holdover catalogue`: list, show, book, check."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue, CatalogueError
from holdover.cli import catalogue as verb

BUILTIN = Catalogue.load()


def run(*words: str) -> int:
    """The verb as the command line runs it."""
    parser = argparse.ArgumentParser(prog="holdover")
    verb.add_parser(parser.add_subparsers(required=True))
    arguments = parser.parse_args(["catalogue", *words])
    return int(arguments.run(arguments))


@pytest.fixture
def user_catalogue(tmp_path: Path) -> Path:
    """A user's folder with one invariant."""
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "odd-lots.toml").write_text(
        'name="odd-lots"\nfamily="house-rules"\nstatement="No odd lots."\n'
        'description="d"\nimplication="i"\nasserted="on-mutation"\nscope="order"\nseverity="warning"\n'
        '[[response]]\nstep="s"\ndone_when="w"\n',
        encoding="utf-8",
    )
    (directory / "predicates.py").write_text(
        "from holdover.catalogue import predicate\nfrom holdover.model import Order\n"
        '@predicate("odd-lots")\ndef odd_lots(order: Order) -> bool:\n    return order.order_qty % 100 == 0\n',
        encoding="utf-8",
    )
    return directory


def test_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    """A head, a line an invariant in columns, and a last line with count and digest."""
    assert run("list") == 0
    head, *lines, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "family", "asserted", "freezes", "severity"]
    assert [line.split()[0] for line in lines] == [invariant.name for invariant in BUILTIN]
    assert "acknowledged-within  " in "\n".join(lines)
    assert any("within 30s" in line for line in lines)
    assert last == f"{len(BUILTIN)} invariants, digest {BUILTIN.digest[:12]}"


def test_list_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json every entry comes whole, with the names of its predicates."""
    assert run("list", "--json") == 0
    entries = json.loads(capsys.readouterr().out)
    assert [invariant["name"] for invariant in entries] == [one.name for one in BUILTIN]
    assert all(entry["response"] and entry["predicates"] for entry in entries)


def test_show_has_all_that_an_operator_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every text of the entry, wrapped to the terminal."""
    monkeypatch.setenv("COLUMNS", "60")
    assert run("show", "clock-monotone") == 0
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines()) <= 60
    flowing = " ".join(shown.split())
    entry = BUILTIN["clock-monotone"].entry
    for words in (entry.statement, entry.description, entry.implication, *(step.step for step in entry.response)):
        assert words in flowing
    assert "Freezes the whole system; still allowed: cancels, orders that reduce a position" in flowing


def test_show_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the entry comes as it stands in its file."""
    assert run("show", "clock-monotone", "--json") == 0
    assert json.loads(capsys.readouterr().out)["statement"] == BUILTIN["clock-monotone"].entry.statement


def test_show_of_what_is_not_there() -> None:
    """A name that there is not is told with one that is like it."""
    with pytest.raises(CatalogueError, match="no invariant is called 'clock'; did you mean clock-monotone"):
        run("show", "clock")


@pytest.mark.parametrize(("name", "begins"), [("book.html", "<!doctype html>"), ("book.md", "# Invariant catalogue")])
def test_book_is_written_by_its_suffix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, begins: str
) -> None:
    """`.html` is HTML and `.md` Markdown, into a folder that need not be there yet; no part of a file is left."""
    path = tmp_path / "docs" / name
    assert run("book", "--out", str(path)) == 0
    assert path.read_text(encoding="utf-8").startswith(begins)
    assert os.listdir(path.parent) == [name]
    assert capsys.readouterr().out == f"{len(BUILTIN)} invariants written to {path}\n"


def test_book_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Another suffix is refused in a sentence, and nothing is written."""
    with pytest.raises(CatalogueError, match=r"book.pdf: the book is written as .html or .md"):
        run("book", "--out", str(tmp_path / "book.pdf"))
    assert os.listdir(tmp_path) == []


def test_book_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails half-way, the old book is there and nothing else."""
    path = tmp_path / "book.md"
    path.write_text("the old one", encoding="utf-8")

    def refuse(source: object, target: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("holdover.cli.catalogue.os.replace", refuse)
    with pytest.raises(OSError, match="no space"):
        run("book", "--out", str(path))
    assert path.read_text(encoding="utf-8") == "the old one"
    assert os.listdir(tmp_path) == ["book.md"]


def test_check_of_a_whole_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    """Count and digest, and 0."""
    assert run("check") == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{len(BUILTIN)} invariants")
    assert BUILTIN.digest in output


def test_check_of_a_broken_catalogue(user_catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every problem on a line of its own on standard error, and 2."""
    (user_catalogue / "no-law.toml").write_text("law = 1\n", encoding="utf-8")
    (user_catalogue / "not-toml.toml").write_text("=\n", encoding="utf-8")
    assert run("check", "--catalogue", str(user_catalogue)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("holdover: ") for line in lines)
    assert "no-law.toml" in lines[0]
    assert "not-toml.toml" in lines[1]


def test_check_for_a_program(user_catalogue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json count, digest and problems, and the same exit codes."""
    assert run("check", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "invariants": len(BUILTIN),
        "digest": BUILTIN.digest,
        "problems": [],
    }
    (user_catalogue / "odd-lots.toml").unlink()
    assert run("check", "--json", "--catalogue", str(user_catalogue)) == 2
    assert json.loads(capsys.readouterr().out)["problems"]


def test_every_part_takes_a_users_catalogue(
    user_catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--catalogue` brings a folder of one's own into list, show, book and check."""
    source = ("--catalogue", str(user_catalogue))
    assert run("list", *source) == 0
    assert run("show", "odd-lots", *source) == 0
    assert run("check", *source) == 0
    assert run("book", "--out", str(tmp_path / "book.md"), *source) == 0
    output = capsys.readouterr().out
    assert output.count("odd-lots") >= 2
    assert output.count(f"{len(BUILTIN) + 1} invariants") == 3
    assert "### odd-lots" in (tmp_path / "book.md").read_text(encoding="utf-8")
