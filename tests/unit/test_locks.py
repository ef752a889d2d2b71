"""The locked requirements: complete for pyproject.toml, with hashes, from no particular index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "requirements"
LOCKS = sorted(path.name for path in FOLDER.glob("*.lock"))
ENTRY = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)")


def read_lock(name: str) -> dict[str, list[Version]]:
    """The pinned versions of a lock file by package; there are several when they depend on the Python version."""
    pins: dict[str, list[Version]] = {}
    for line in (FOLDER / name).read_text().splitlines():
        if match := ENTRY.match(line):
            pins.setdefault(canonicalize_name(match["name"]), []).append(Version(match["version"]))
    return pins


def read_extras(variable: str) -> list[str]:
    """The extras that the Makefile names for a lock file."""
    match = re.search(rf"^{variable} := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert match
    return match[1].split(",")


def list_requirements(extras: list[str]) -> list[Requirement]:
    """What pyproject.toml requires with some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(("name", "variable"), [("test.lock", "TEST_EXTRAS"), ("run.lock", "RUN_EXTRAS")])
def test_a_lock_has_what_the_project_requires(name: str, variable: str) -> None:
    """Every requirement is pinned to a version that it allows: run `make lock` after a change of pyproject.toml."""
    pins = read_lock(name)
    build = [Requirement(line) for line in (FOLDER / "build.in").read_text().split()]
    for requirement in [*list_requirements(read_extras(variable)), *build]:
        versions = pins.get(canonicalize_name(requirement.name), [])
        assert versions, requirement
        assert all(version in requirement.specifier for version in versions), (requirement, versions)


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_has_hashes_and_no_place(name: str) -> None:
    """So pip refuses any other file, and takes these from whatever index it is set up with."""
    text = (FOLDER / name).read_text()
    assert not re.search(r"https?://|file:|--index|--extra-index|--find-links", text)
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 10
    for entry in entries:
        assert ENTRY.match(entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_the_container_gets_no_test_tools() -> None:
    """And nothing of a license that the project does not ship."""
    pins = read_lock("run.lock")
    assert not {"pytest", "hypothesis", "freqtrade", "nautilus-trader", "ruff", "mypy"} & pins.keys()


def test_what_both_pin_is_the_same() -> None:
    """What is tested is what runs."""
    tested, run = read_lock("test.lock"), read_lock("run.lock")
    assert {name: run[name] for name in run if name in tested} == {name: tested[name] for name in run if name in tested}
