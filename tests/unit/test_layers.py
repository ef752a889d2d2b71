"""Layers: imports point down, the desk depends on runtime and model only, production imports nothing heavy."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import holdover

PACKAGE_DIR = Path(holdover.__file__).parent
LAYERS = [
    {"__main__"},
    {"cli", "pytest_plugin"},
    {"console"},
    {"report", "shadow", "incidents"},
    {"pages"},
    {"explore", "coverage"},
    {"harness", "adapters", "watch"},
    {"desk", "world", "recording", "audit", "fix"},
    {"runtime"},
    {"catalogue"},
    {"model", "state"},
]


def subpackage_of(name: str) -> str:
    """Return the subpackage of a module."""
    return name.split(".")[1] if name.count(".") else ""


@functools.cache
def list_imports(path: Path) -> set[str]:
    """Every module of ours that a file imports, at whatever place but under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and any("TYPE_CHECKING" in vars(child).values() for child in ast.walk(node.test))
        for inner in ast.walk(node)
    }
    imports: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            imports |= {name.name for name in node.names if name.name.startswith("holdover.")}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("holdover."):
            imports.add(node.module)
    return imports


def layer_index(subpackage: str) -> int:
    """Return the layer of a subpackage; 0 is the top."""
    return next(number for number, rooms in enumerate(LAYERS) if subpackage in rooms)


def list_modules() -> list[tuple[str, Path]]:
    """Return the subpackage and the path of every module of the package."""
    module_paths = []
    for path in sorted(PACKAGE_DIR.rglob("*.py")):
        parts = path.relative_to(PACKAGE_DIR).with_suffix("").parts
        if parts != ("__init__",):
            module_paths.append((parts[0], path))
    return module_paths


def test_imports_point_down() -> None:
    """No module imports one of a floor above its own, nor of another room on its own floor."""
    wrong = [
        f"{path.relative_to(PACKAGE_DIR)} imports {name}"
        for room, path in list_modules()
        for name in list_imports(path)
        if subpackage_of(name) != room and layer_index(subpackage_of(name)) <= layer_index(room)
    ]
    assert wrong == []


def test_the_desk_knows_only_runtime_and_model() -> None:
    """The desk is written as any user's system: it could be lifted out as it stands."""
    wrong = {name for room, path in list_modules() if room == "desk" for name in list_imports(path)} - {
        name
        for room, path in list_modules()
        if room == "desk"
        for name in list_imports(path)
        if subpackage_of(name) in {"desk", "runtime", "model"}
    }
    assert wrong == set()


def test_a_wrong_import_is_seen(tmp_path: Path) -> None:
    """The test above can fail: an import upwards is found, one for the type checker is not."""
    file = tmp_path / "wrong.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import holdover.cli\nimport holdover.harness.cycle\n"
    )
    assert list_imports(file) == {"holdover.harness.cycle"}
    assert layer_index("harness") < layer_index("runtime")


@pytest.mark.parametrize("module", ["holdover.runtime", "holdover.desk"])
def test_production_loads_nothing_heavy(module: str) -> None:
    """Importing what production imports loads no data frame, no array library, no web framework, no test tool."""
    heavy = [
        "numpy",
        "pandas",
        "pyarrow",
        "starlette",
        "flask",
        "fastapi",
        "django",
        "pytest",
        "apprise",
        "tqdm",
        "jinja2",
    ]
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


IMPORT_SCRIPT = """
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


def import_alone(*names: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Import each module in a fork of a process that has imported nothing.

    A name with a leading `+` is imported in the process itself.
    """
    command = [sys.executable, "-W", "error", "-c", IMPORT_SCRIPT, *names]
    return subprocess.run(command, capture_output=True, text=True, cwd=path, check=False)


def test_each_module_imports_alone() -> None:
    """Every module can be the first one imported; other people's software that takes seconds is there before it."""
    names = [".".join(("holdover", *path.relative_to(PACKAGE_DIR).with_suffix("").parts)) for _, path in list_modules()]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    packages = sorted({name.rpartition(".")[0] or name for name in names if name.count(".") >= 1})
    last = [name for name in packages if "freqtrade" in name]
    result = import_alone(*[name for name in packages if name not in last], "+freqtrade.freqtradebot", *last)
    assert result.returncode == 0, result.stderr


def test_a_module_that_does_not_import_alone_is_seen(tmp_path: Path) -> None:
    """The test above can fail: of two modules that need each other one cannot be the first."""
    (tmp_path / "first_of_two.py").write_text("from second_of_two import b\na = 1\n")
    (tmp_path / "second_of_two.py").write_text("b = 1\nfrom first_of_two import a\n")
    result = import_alone("json", "first_of_two", path=tmp_path)
    assert result.returncode == 1
    assert "first_of_two cannot be the first one imported" in result.stderr
    assert "ImportError" in result.stderr
