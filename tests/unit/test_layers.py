"""The house: imports point down, the desk stands by itself, production pays only for what it uses."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import holdover

HOUSE = Path(holdover.__file__).parent
FLOORS = [
    {"__main__"},
    {"cli", "pytest_plugin"},
    {"console"},
    {"report", "shadow", "incidents"},
    {"explore", "coverage"},
    {"harness", "adapters", "watch"},
    {"desk", "world", "recording", "audit"},
    {"runtime"},
    {"catalogue"},
    {"model"},
]


def room_of(name: str) -> str:
    """The room that a module `holdover.ROOM...` lies in."""
    return name.split(".")[1] if name.count(".") else ""


@functools.cache
def imports_of(path: Path) -> set[str]:
    """Every module of ours that a file imports, at whatever place but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and any("TYPE_CHECKING" in vars(one).values() for one in ast.walk(node.test))
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("holdover.")}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("holdover."):
            found.add(node.module)
    return found


def floor(room: str) -> int:
    """0 is the top."""
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def modules() -> list[tuple[str, Path]]:
    """(room, file) of every module of the house."""
    found = []
    for path in sorted(HOUSE.rglob("*.py")):
        parts = path.relative_to(HOUSE).with_suffix("").parts
        if parts != ("__init__",):
            found.append((parts[0], path))
    return found


def test_imports_point_down() -> None:
    """No module imports one of a floor above its own, nor of another room on its own floor."""
    wrong = [
        f"{path.relative_to(HOUSE)} imports {name}"
        for room, path in modules()
        for name in imports_of(path)
        if room_of(name) != room and floor(room_of(name)) <= floor(room)
    ]
    assert wrong == []


def test_the_desk_knows_only_runtime_and_model() -> None:
    """The desk is written as any user's system: it could be lifted out as it stands."""
    wrong = {name for room, path in modules() if room == "desk" for name in imports_of(path)} - {
        name
        for room, path in modules()
        if room == "desk"
        for name in imports_of(path)
        if room_of(name) in {"desk", "runtime", "model"}
    }
    assert wrong == set()


def test_a_wrong_import_is_seen(tmp_path: Path) -> None:
    """The test above can fail: an import upwards is found, one for the type checker is not."""
    file = tmp_path / "wrong.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import holdover.cli\nimport holdover.harness.cycle\n"
    )
    assert imports_of(file) == {"holdover.harness.cycle"}
    assert floor("harness") < floor("runtime")


@pytest.mark.parametrize("module", ["holdover.runtime", "holdover.desk"])
def test_production_loads_nothing_heavy(module: str) -> None:
    """Importing what production imports loads no data frame, no array library, no web framework, no test tool."""
    heavy = ["numpy", "pandas", "pyarrow", "starlette", "flask", "fastapi", "django", "pytest", "apprise", "tqdm"]
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


ALONE = """
import importlib, os, sys
for name in sys.argv[1:]:
    if name.startswith("+"):
        importlib.import_module(name[1:])
        assert not any(one.startswith("holdover") for one in sys.modules)
        continue
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{name} cannot be the first one imported")
"""


def alone(*names: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Import each in a fork of a process that has imported nothing; with a `+` before it, in the process itself."""
    command = [sys.executable, "-W", "error", "-c", ALONE, *names]
    return subprocess.run(command, capture_output=True, text=True, cwd=path, check=False)


def test_each_module_imports_alone() -> None:
    """Every module can be the first one imported; other people's software that takes seconds is there before it."""
    names = [".".join(("holdover", *path.relative_to(HOUSE).with_suffix("").parts)) for _, path in modules()]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    rooms = sorted({name.rpartition(".")[0] or name for name in names if name.count(".") >= 1})
    last = [name for name in rooms if "freqtrade" in name]
    told = alone(*[name for name in rooms if name not in last], "+freqtrade.freqtradebot", *last)
    assert told.returncode == 0, told.stderr


def test_a_module_that_does_not_import_alone_is_seen(tmp_path: Path) -> None:
    """The test above can fail: of two modules that need each other one cannot be the first."""
    (tmp_path / "first_of_two.py").write_text("from second_of_two import b\na = 1\n")
    (tmp_path / "second_of_two.py").write_text("b = 1\nfrom first_of_two import a\n")
    told = alone("json", "first_of_two", path=tmp_path)
    assert told.returncode == 1
    assert "first_of_two cannot be the first one imported" in told.stderr
    assert "ImportError" in told.stderr
