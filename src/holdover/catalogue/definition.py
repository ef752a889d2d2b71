"""The definition of an invariant: everything that its verdict depends on, as text that the digest is taken of.

A predicate reads more than its own source: helper functions, module constants, properties of records, running sums.
Two catalogues that differ in any of those may judge differently, so the digest must differ, too. It must stay the same
when only comments, formatting or unrelated code change, in every process and every supported version of Python.

The walk begins at the predicate. Each global name in its source is resolved to its value: a function is walked in the
same way, a constant is described by its value, a class by its source, an enum by its members. A record kind is
described by those of its members whose names occur anywhere in the code walked so far. Attribute names are matched
instead of types because predicates pass records to helpers whose parameters need no annotation; the price is that a
member which only another kind's reader needs may be included.

What is not followed: the standard library, and installed packages other than the predicate's own and Holdover. They are
described by their names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import functools
import importlib
import inspect
import re
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from numbers import Number
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

import msgspec

from holdover.catalogue.entry import Entry
from holdover.catalogue.predicate import BoundPredicate, Read
from holdover.catalogue.source_tree import SourceTree, read_class, read_function
from holdover.model import Record

_ALWAYS_READ: Final = ("key", "durable", "derived", "per_connection", "provenance_fields")
"""The members of a record that the monitor reads of every kind."""
_SCALARS: Final = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
_PRINTED: Final = (Number, datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, PurePath, range)
"""Values of the standard library whose `repr` is their content."""
_MISSING: Final = object()


def describe_invariant(entry: Entry, predicates: Iterable[BoundPredicate]) -> str:
    """Return the definition of one invariant: its entry and everything reachable from its predicates."""
    parts = [msgspec.json.encode(entry).decode()]
    parts += [_describe_predicate(bound) for bound in predicates]
    return "\n".join(parts)


def _describe_predicate(bound: BoundPredicate) -> str:
    walk = _DefinitionWalk(bound.function.__module__)
    reads = [walk.describe_read(read) for read in bound.reads]
    walk.add_function(bound.function)
    terms = f"predicate asserted={bound.asserted!r} needs={list(bound.needs)!r} at_restore={bound.at_restore}"
    return "\n".join([terms, *reads, *walk.definitions()])


class _DefinitionWalk:
    """Collects the definitions that are reachable from one predicate."""

    def __init__(self, module_name: str) -> None:
        self._own_package = module_name.partition(".")[0]
        self._definitions: set[str] = set()
        self._visited: set[int] = set()
        self._alive: list[object] = []  # keeps the visited objects, so that no id is used again
        self._kinds: dict[type, None] = {}
        self._attributes: set[str] = set(_ALWAYS_READ)
        self._described_members: set[tuple[type, str]] = set()

    def definitions(self) -> list[str]:
        """Return all definitions, sorted, after adding the members of the record kinds."""
        while True:
            members = [
                (kind, name)
                for kind in list(self._kinds)
                for name in sorted(self._attributes)
                if (kind, name) not in self._described_members
            ]
            if not members:
                return sorted(self._definitions)
            for kind, name in members:
                self._described_members.add((kind, name))
                self._add_member(kind, name)

    def describe_read(self, read: Read) -> str:
        """Describe one parameter of the predicate."""
        parts = [read.parameter, read.source, str(read.subsystem), str(read.optional), str(read.required)]
        if read.kind is not None:
            parts.append(self.describe(read.kind))
        if read.via is not None:
            parts.append(f"by {read.via.by}")
            self._attributes.add(read.via.by)
        if read.total is not None:
            summed = read.total.sum
            parts.append(f"sum of {summed.of} by {summed.by} at {read.total.key} touches {read.total.touches}")
            self._attributes |= {read.total.key, read.total.touches, summed.of, summed.by}
            if summed.alternatives:
                parts.append(f"alternatives {summed.alternatives} by {summed.alternatives_field}")
                self._attributes.add(summed.alternatives)
        if read.recent is not None:
            parts.append(f"by {read.recent.by} within {read.recent.within} where {read.recent.where}")
            self._attributes |= {read.recent.by, read.recent.where} - {""}
        if read.used is not None:
            parts.append(f"used {' '.join(read.used.fields)}")
            self._attributes |= set(read.used.fields)
        if read.reference is not None:
            parts.append(f"by {read.reference.by}")
            self._attributes.add(read.reference.by)
        return f"read {' '.join(parts)}"

    def add_function(self, function: Callable[..., Any]) -> None:
        """Add a function, and everything that it reads."""
        function = inspect.unwrap(function)
        if not isinstance(function, FunctionType) or not self._visit(function):
            return
        tree = read_function(function, "predicate")
        defaults = self.describe([function.__defaults__, function.__kwdefaults__])
        self._definitions.add(f"function {function.__qualname__} {defaults} {tree.text}")
        enclosing: dict[str, Any] = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # assigned later, such as the function itself
                enclosing[name] = cell.cell_contents
        self._add_tree(function.__qualname__, tree, ChainMap(enclosing, function.__globals__))

    def _add_tree(self, owner: str, tree: SourceTree, scope: Mapping[str, Any]) -> None:
        self._attributes |= set(tree.attributes)
        for name in tree.names:
            value = scope.get(name, _MISSING)
            if value is not _MISSING and not isinstance(value, ModuleType):
                self._definitions.add(f"{owner} reads {name} {self.describe(value)}")
        for path in tree.paths:
            self._add_path(owner, path, scope)
        for module_name, name in tree.imports:
            module = _import(module_name, scope)
            if module is not None and name:
                self._definitions.add(f"{owner} reads {name} {self.describe(getattr(module, name, None))}")

    def _add_path(self, owner: str, path: str, scope: Mapping[str, Any]) -> None:
        """Add what `module.part.name` refers to; the members of other objects belong to the objects' classes."""
        first, *names = path.split(".")
        value = scope.get(first)
        for name in names:
            if not isinstance(value, ModuleType):
                return
            value = getattr(value, name, None)
        if value is not None and not isinstance(value, ModuleType):
            self._definitions.add(f"{owner} reads {path} {self.describe(value)}")

    def _add_member(self, kind: type, name: str) -> None:
        own_bases = [base for base in kind.__mro__ if self._is_followed(base.__module__)]
        member = next((vars(base)[name] for base in own_bases if name in vars(base)), _MISSING)
        if member is _MISSING:
            return
        if isinstance(member, property):
            description = self.describe(member.fget)
        elif isinstance(member, functools.cached_property | staticmethod | classmethod):
            description = self.describe(getattr(member, "func", getattr(member, "__func__", None)))
        elif issubclass(kind, msgspec.Struct) and name in kind.__struct_fields__:
            description = f"field {self._default_of(kind, name)}"
        else:
            description = self.describe(member)
        self._definitions.add(f"{kind.__qualname__} has {name} {description}")

    def _default_of(self, kind: type[msgspec.Struct], name: str) -> str:
        defaults = kind.__struct_defaults__
        index = kind.__struct_fields__.index(name) - len(kind.__struct_fields__) + len(defaults)
        return "required" if index < 0 or defaults[index] is msgspec.NODEFAULT else self.describe(defaults[index])

    # -- values -------------------------------------------------------------------------------------------------

    def describe(self, value: Any) -> str:
        """Describe a value; add the definitions of the functions and classes in it."""
        if isinstance(value, enum.Enum):
            self._add_class(type(value))
            return f"{type(value).__qualname__}.{value.name}={value.value!r}"
        if type(value) in _SCALARS:
            return f"{type(value).__name__}:{value!r}"
        if isinstance(value, dict):
            items = sorted(f"{self.describe(key)}:{self.describe(item)}" for key, item in value.items())
            return f"dict{{{','.join(items)}}}"
        if isinstance(value, set | frozenset):
            return f"set{{{','.join(sorted(self.describe(item) for item in value))}}}"
        if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            return f"{type(value).__name__}[{','.join(self.describe(item) for item in value)}]"
        if isinstance(value, re.Pattern):
            return f"pattern:{value.pattern!r}:{value.flags}"
        if isinstance(value, type):
            self._add_class(value)
            return f"class {value.__qualname__}"
        return self._describe_object(value)

    def _describe_object(self, value: Any) -> str:
        function = inspect.unwrap(value) if callable(value) else value
        if isinstance(function, MethodType):
            return f"{self.describe(function.__func__)} of {self.describe(function.__self__)}"
        if isinstance(function, functools.partial):
            return f"partial {self.describe([function.func, function.args, function.keywords])}"
        if isinstance(function, FunctionType):
            if self._is_followed(function.__module__):
                self.add_function(function)
            return f"function {function.__qualname__}"
        if isinstance(function, BuiltinFunctionType):
            return f"builtin {function.__qualname__}"
        kind = type(value)
        if not self._visit(value):
            return f"object {kind.__qualname__}"
        self._add_class(kind)
        if not self._is_followed(kind.__module__):
            return (
                f"object {kind.__qualname__} {value!r}"
                if isinstance(value, _PRINTED)
                else f"object {kind.__qualname__}"
            )
        return f"object {kind.__qualname__} {self.describe(_attributes_of(value))}"

    def _add_class(self, cls: type) -> None:
        if not self._is_followed(cls.__module__) or not self._visit(cls):
            return
        if issubclass(cls, Record):
            self._kinds[cls] = None
            return
        if issubclass(cls, enum.Enum):
            members = ",".join(f"{name}={member.value!r}" for name, member in cls.__members__.items())
            self._definitions.add(f"enum {cls.__qualname__} {members}")
            self._kinds[cls] = None
            return
        for base in cls.__bases__:
            self.describe(base)
        tree = read_class(cls)
        if tree is None:
            self._definitions.add(f"class {cls.__qualname__} {self.describe(dict(vars(cls)))}")
            return
        self._definitions.add(f"class {cls.__qualname__} {tree.text}")
        self._add_tree(cls.__qualname__, tree, vars(sys.modules[cls.__module__]))

    def _is_followed(self, module_name: str | None) -> bool:
        package = (module_name or "").partition(".")[0]
        if package in (self._own_package, "holdover"):
            return True
        if not package or package in sys.stdlib_module_names:
            return False
        path = getattr(sys.modules.get(module_name or ""), "__file__", None) or ""
        return bool(path) and "site-packages" not in path and "dist-packages" not in path

    def _visit(self, value: object) -> bool:
        """Return whether a function, class or object is met for the first time."""
        if id(value) in self._visited:
            return False
        self._visited.add(id(value))
        self._alive.append(value)
        return True


def _attributes_of(value: Any) -> dict[str, Any]:
    """Return the attributes of an object by name."""
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return {str(index): item for index, item in enumerate(value)}
    slots = [name for base in type(value).__mro__ for name in vars(base).get("__slots__", ())]
    return {**{name: getattr(value, name) for name in slots if hasattr(value, name)}, **getattr(value, "__dict__", {})}


def _import(name: str, scope: Mapping[str, Any]) -> ModuleType | None:
    try:
        return importlib.import_module(name, scope.get("__package__"))
    except ImportError:
        return None
