"""Function and class sources as normalised text: equal code gives equal text, however it is formatted.

Bytecode differs between Python versions, and so does `ast.dump`. This module therefore writes the syntax tree itself:
without positions, docstrings, comments, annotations and fields that are empty or that only some versions have.
"""

from __future__ import annotations

import ast
import linecache
import symtable
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, Final

import msgspec

_SKIPPED_FIELDS: Final = frozenset(("ctx", "kind", "type_comment", "type_ignores", "type_params"))
_ANNOTATION_FIELDS: Final = frozenset(("annotation", "returns"))
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


class SourceTree(msgspec.Struct, frozen=True):
    """The normalised source of one function or class.

    `names` are the global and builtin names that it reads, `attributes` all attribute names that it reads, `paths` the
    dotted paths that begin with a name (`module.part.function`), `imports` the pairs (module, name) that it imports
    itself. All are sorted.
    """

    text: str
    names: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    imports: tuple[tuple[str, str], ...] = ()


class _ModuleSource:
    """The functions and classes of one source file."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        try:
            tree = ast.parse("".join(lines))
        except SyntaxError:
            tree = ast.Module([], [])
        self.classes = list(_list_classes(tree, ""))
        self.functions: dict[tuple[int, str], list[ast.AST]] = {}
        for node in ast.walk(tree):
            # A code object counts its lines from the first decorator on.
            if isinstance(node, _FUNCTIONS):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                self.functions.setdefault((first, node.name), []).append(node)
            elif isinstance(node, ast.Lambda):
                self.functions.setdefault((node.lineno, "<lambda>"), []).append(node)
        self.trees: dict[object, SourceTree] = {}


_MODULE_SOURCES: Final[dict[str, _ModuleSource]] = {}


def read_function(function: FunctionType, ignored_decorator: str = "") -> SourceTree:
    """Return the normalised source of a function or lambda, without the decorator `ignored_decorator`.

    A function without source, such as one made by `exec`, is described by its bytecode.
    """
    code = function.__code__
    module = _read_module(code.co_filename)
    tree = module.trees.get(code)
    if tree is None:
        nodes = module.functions.get((code.co_firstlineno, code.co_name), [])
        tree = _make_tree(nodes, ignored_decorator) if nodes else _describe_code(code)
        module.trees[code] = tree
    return tree


def read_class(cls: type) -> SourceTree | None:
    """Return the normalised source of a class; None when it has no source or its name is not unique in the module."""
    module = _read_module(getattr(sys.modules.get(cls.__module__), "__file__", None) or "")
    name = cls.__qualname__.replace("<locals>.", "")
    tree = module.trees.get(name)
    if tree is None:
        nodes = [node for qualified_name, node in module.classes if qualified_name == name]
        if len(nodes) != 1:
            return None
        tree = module.trees[name] = _make_tree(nodes)
    return tree


def _read_module(filename: str) -> _ModuleSource:
    linecache.checkcache(filename)
    lines = linecache.getlines(filename)
    module = _MODULE_SOURCES.get(filename)
    if module is None or module.lines != lines:
        module = _MODULE_SOURCES[filename] = _ModuleSource(lines)
    return module


def _describe_code(code: CodeType) -> SourceTree:
    codes = [code]
    for inner in codes:
        codes += [constant for constant in inner.co_consts if isinstance(constant, CodeType)]
    constants = [
        repr(constant) for inner in codes for constant in inner.co_consts if not isinstance(constant, CodeType)
    ]
    names = tuple(sorted({name for inner in codes for name in inner.co_names}))
    instructions = " ".join(inner.co_code.hex() for inner in codes)
    return SourceTree(f"bytecode {instructions} {' '.join(constants)}", names, names)


def _list_classes(parent: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield the classes in a syntax tree with their qualified names."""
    for node in ast.iter_child_nodes(parent):
        inner = prefix
        if isinstance(node, (ast.ClassDef, *_FUNCTIONS)):
            inner = f"{prefix}{node.name}."
        if isinstance(node, ast.ClassDef):
            yield inner[:-1], node
        yield from _list_classes(node, inner)


def _make_tree(nodes: list[ast.AST], ignored_decorator: str = "") -> SourceTree:
    names: set[str] = set()
    attributes: set[str] = set()
    paths: set[str] = set()
    imports: set[tuple[str, str]] = set()
    texts: list[str] = []
    for node in nodes:
        bare = _Bare(ignored_decorator).visit(ast.parse(ast.unparse(node)))
        texts.append(write_node(bare))
        names |= _global_names(symtable.symtable(ast.unparse(bare), "<source>", "exec"))
        for inner in ast.walk(bare):
            if isinstance(inner, ast.Attribute):
                attributes.add(inner.attr)
                paths.add(_dotted_path(inner))
            elif isinstance(inner, ast.ImportFrom):
                imports |= {("." * inner.level + (inner.module or ""), alias.name) for alias in inner.names}
            elif isinstance(inner, ast.Import):
                imports |= {(alias.name, "") for alias in inner.names}
    return SourceTree(
        "\n".join(texts),
        tuple(sorted(names)),
        tuple(sorted(attributes)),
        tuple(sorted(paths - {""})),
        tuple(sorted(imports)),
    )


class _Bare(ast.NodeTransformer):
    """Removes what does not affect what code does: docstrings, annotations, one decorator."""

    def __init__(self, ignored_decorator: str) -> None:
        self._ignored_decorator = ignored_decorator

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Visit the node's children, then remove its docstring, annotations and decorator."""
        super().generic_visit(node)
        for name in _ANNOTATION_FIELDS & set(node._fields):
            if not isinstance(node, ast.AnnAssign):
                setattr(node, name, None)
        if isinstance(node, (ast.ClassDef, *_FUNCTIONS)):
            node.decorator_list = [item for item in node.decorator_list if not self._is_ignored(item)]
            node.body = [item for item in node.body if not _is_text(item)] or [ast.Pass()]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Replace the annotation by a constant; the assigned value stays."""
        self.generic_visit(node)
        node.annotation = ast.Constant(None)
        return node

    def _is_ignored(self, decorator: ast.expr) -> bool:
        function = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        return bool(self._ignored_decorator) and name == self._ignored_decorator


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is only a string: a docstring of a function, a class or an attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _global_names(table: symtable.SymbolTable) -> set[str]:
    # At the top level the function's own name is the only local one; what it reads there (its decorators, its
    # defaults) is global.
    names = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module")
    }
    for child in table.get_children():
        names |= _global_names(child)
    return names


def _dotted_path(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted_path(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def write_node(node: Any) -> str:
    """Write a syntax tree as text that is the same in every supported version of Python."""
    if isinstance(node, ast.AST):
        fields = [
            f"{name}={write_node(value)}"
            for name, value in sorted(ast.iter_fields(node))
            if name not in _SKIPPED_FIELDS and value is not None and value != []
        ]
        value = f"value={type(node.value).__name__}:{node.value!r}" if isinstance(node, ast.Constant) else ""
        return f"{type(node).__name__}({value or ','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(write_node(item) for item in node)}]"
    return repr(node)
