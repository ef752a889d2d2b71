"""The language of the code: names say what they name, every class name is unique, everything public is documented."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import holdover

SOURCE = Path(holdover.__file__).parent
ROOT = Path(__file__).parents[2]

_WORDS = (
    "one two three other others told said found kept held asked made given known left there here what who whom "
    "which word again mine ours theirs yours into was were came gone saying taken heard wanted done lives act so "
    "many him her it things thing more most this that these those now then went seen saw put took got way stuff "
    "back another each every none some both life living alone going begun brought called chosen sent spoken stood "
    "standing tried answered taking once same such whose like own up down out off away over under beside anew "
    "whatever somebody something nobody nothing everything everyone anybody anything lost gave goes comes does "
    "did being much few less enough else "
)
VAGUE = frozenset(_WORDS.split())
"""Pronouns, participles and adverbs: words that name no thing."""

ALLOWED = frozenset({"OTHER", "Held", "other"})
"""A FIX value, a type alias of the annotation language, and the argument of a comparison method."""

SHARE_MAX = {"src": 0.003, "tests": 0.004, "bench": 0.012}
"""The highest share of vague names among all bound names. These numbers may only be lowered."""


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every name that a module binds: definitions, parameters, assignments, targets and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name, node.lineno


def is_vague(name: str) -> bool:
    """Return whether a name consists of a vague word alone."""
    return name not in ALLOWED and not name.startswith("__") and name.strip("_").lower() in VAGUE


def vague_share(trees: dict[str, ast.AST]) -> tuple[float, Counter[str]]:
    """Return the share of vague names among all bound names, and the vague ones by name and file."""
    total = 0
    vague: Counter[str] = Counter()
    for path, tree in trees.items():
        for name, _ in bound_names(tree):
            total += 1
            if is_vague(name):
                vague[f"{path}: {name}"] += 1
    return vague.total() / total, vague


def trees_of(folder: Path) -> dict[str, ast.AST]:
    """Return the syntax tree of each module below a folder, by its path."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
        if "out" not in path.parts
    }


def public_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the public names of a module: its own, those of its public classes, and the parameters of both."""

    def members(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("_") and node.name != "__init__":
                    continue
                yield node.name, node.lineno
                arguments = node.args
                for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
                    if not argument.arg.startswith("_"):
                        yield argument.arg, argument.lineno
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, node.lineno
                yield from members(node.body)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name) and not target.id.startswith("_"):
                        yield target.id, target.lineno

    yield from members(tree.body)


def test_names_say_what_they_name() -> None:
    """The share of pronouns and participles among bound names stays below its limit, which only falls."""
    for folder, limit in SHARE_MAX.items():
        share, vague = vague_share(trees_of(ROOT / folder))
        assert share <= limit, f"{folder}: {share:.2%} vague names, at most {limit:.2%}: {vague.most_common(12)}"


def test_a_vague_name_is_counted() -> None:
    """The measure itself: of four bound names, `one` and `told` are vague."""
    share, vague = vague_share({"module": ast.parse("def load(one):\n    told = one\n    order = told\n")})
    assert share == 0.5
    assert vague == {"module: one": 1, "module: told": 1}


def test_no_vague_name_is_public() -> None:
    """No public class, function, attribute or parameter of the package is a pronoun or a participle."""
    vague = [
        f"{path}:{line}: {name}"
        for path, tree in trees_of(SOURCE).items()
        if isinstance(tree, ast.Module)
        for name, line in public_names(tree)
        if is_vague(name)
    ]
    assert vague == []


def test_class_names_are_unique() -> None:
    """A class name means one thing in the whole package."""
    places: dict[str, list[str]] = {}
    for path, tree in trees_of(SOURCE).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_exceptions_end_in_error() -> None:
    """Every exception class is called `...Error`."""
    exceptions = {"Exception", "BaseException"}
    wrong: list[str] = []
    classes = [node for tree in trees_of(SOURCE).values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in classes:
        bases = {ast.unparse(base).rsplit(".", 1)[-1] for base in node.bases}
        if any(base in exceptions or base.endswith(("Error", "Exception")) for base in bases):
            exceptions.add(node.name)
            if not node.name.endswith("Error"):
                wrong.append(node.name)
    assert wrong == []


def test_modules_are_named_after_what_they_hold() -> None:
    """No module or package is a drawer for anything."""
    drawers = {"utils", "util", "helpers", "common", "misc", "manager", "stuff", "again", "word", "alone", "night"}
    assert [path for path in trees_of(SOURCE) if Path(path).stem in drawers] == []


def public_definitions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yield the public classes and functions of a body, with the members of the classes; local ones are left out."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body)


def test_everything_public_is_documented() -> None:
    """Each public module, class and function has a docstring of more than one word."""
    missing: list[str] = []
    for path, tree in trees_of(SOURCE).items():
        assert isinstance(tree, ast.Module)
        if not ast.get_docstring(tree):
            missing.append(path)
        for node in public_definitions(tree.body):
            if any("overload" in ast.unparse(decorator) for decorator in node.decorator_list):
                continue
            if len((ast.get_docstring(node) or "").split()) < 2:
                missing.append(f"{path}:{node.lineno}: {node.name}")
    assert missing == []
