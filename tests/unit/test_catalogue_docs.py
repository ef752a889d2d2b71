"""`docs/invariants.md`: its example runs as it stands, and it speaks of everything that can be written."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from holdover import catalogue as package
from holdover.catalogue import Catalogue, Entry
from holdover.catalogue.entry import ALLOWS
from holdover.model import KINDS
from holdover.runtime import read_config

PAGE = Path(__file__).parents[2] / "docs" / "invariants.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def write_example_files(directory: Path) -> list[str]:
    """Write the blocks that begin with a file's name into that file; returns the Python of the others, in order."""
    rest = []
    for language, block in BLOCKS:
        named = re.match(r"# (\S+\.(?:toml|py))\n", block)
        if named:
            path = directory / named[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block, encoding="utf-8")
        elif language == "python":
            rest.append(block)
    return rest


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Entry and predicate load, the guard freezes and is thawed, and what is printed is what the page shows."""
    monkeypatch.chdir(tmp_path)
    for block in write_example_files(tmp_path):
        exec(compile(block, str(PAGE), "exec"), {"__name__": "docs_invariants"})
    shown = next(block for language, block in BLOCKS if language == "text")
    assert capsys.readouterr().out == shown


def test_the_example_stands_beside_the_built_in_catalogue(tmp_path: Path) -> None:
    """The configuration on the page names the folder, and both catalogues load as one."""
    write_example_files(tmp_path)
    config = read_config(tmp_path / "desk.toml")
    assert len(Catalogue.load(*config.catalogue)) == len(Catalogue.load()) + 1


def test_the_page_names_what_can_be_written() -> None:
    """Every field of an entry, every scope that can be frozen, all that a freeze can allow, and every annotation."""
    fields = {field.name for field in msgspec.structs.fields(Entry)} - {"name", "family", "tolerance", "evidence"}
    assert [name for name in sorted(fields) if not re.search(rf"\b{name}\b", TEXT)] == []
    assert [kind for kind in KINDS if kind != "subsystem" and f"`{kind}`" not in TEXT] == []
    assert [allowed for allowed in ALLOWS if f"`{allowed}`" not in TEXT] == []
    for name in ("Held", "Before", "Sum", "Via", "Boundary", "Frozen"):
        assert hasattr(package, name)
        assert f"{name}[" in TEXT or f"{name}(" in TEXT or f": {name}" in TEXT
