"""Reads a configuration file: a TOML file as nested structs, with every problem listed at once.

A configuration is a struct whose fields are the tables of the file. Types, ranges (`msgspec.Meta`) and defaults come
from the struct. msgspec stops at the first problem, so the tables are checked key by key, and each problem is a
sentence with the file, the line and the key. A key that does not exist is answered with the nearest one that does.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, time
from enum import Enum
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from holdover.model.spelling import suggest_spelling
from holdover.runtime.size_limits import DOCUMENT_MAX, SizeLimitError, read_bounded

T = TypeVar("T", bound=msgspec.Struct)
V = TypeVar("V")

PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
NonNegativeFloat = Annotated[float, msgspec.Meta(ge=0)]
NonNegativeInt = Annotated[int, msgspec.Meta(ge=0)]
PositiveInt = Annotated[int, msgspec.Meta(gt=0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
PlainName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

PREFIX: Final = "HOLDOVER__"
"""The prefix of the environment variables that override values of a file."""

_NOUNS: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    date: "a date like 2024-11-27",
    time: "a time like 14:30:00",
    list: "a list",
    dict: "a table",
}
_PATTERNS: Final = {
    r"^[A-Za-z_][A-Za-z0-9_]*$": "a plain name of letters, digits and underscores",
    r"^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$": "a time like 14:30:00, in quotes",
}
_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(r"^\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=")


class ConfigFile:
    """The tables of one file, and its problems, each with the place it is about.

    A place is the path of a table or key, such as `store.timeout_s` or `pages.channel[0].url`.
    """

    def __init__(self, path: Path, text: str, tables: dict[str, Any]) -> None:
        self.path, self.tables = path, tables
        self._lines = find_lines(text)
        self._variables: dict[str, str] = {}
        self._problems: list[tuple[int, str]] = []

    @property
    def problem_count(self) -> int:
        """The number of problems so far."""
        return len(self._problems)

    def table(self, name: str, kind: type[T]) -> T | None:
        """Return a table of the file, or its defaults; None when it has a problem of its own."""
        try:
            return msgspec.convert(self.tables.get(name, {}), kind)
        except msgspec.ValidationError:
            return None

    def value(self, name: str, key: str, kind: type[V]) -> V | None:
        """Return one value of a table; None when it is not there or of another type."""
        values = self.tables.get(name, {})
        value = values.get(key) if isinstance(values, dict) else None
        return value if isinstance(value, kind) else None

    def rows(self, name: str, kind: type[T]) -> list[tuple[str, T]]:
        """Return the tables of a list of tables, each with its place; without those that have a problem."""
        rows: list[tuple[str, T]] = []
        entries = self.tables.get(name, [])
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            try:
                rows.append((f"{name}[{index}]", msgspec.convert(entry, kind)))
            except msgspec.ValidationError:
                continue
        return rows

    def add_duplicates(self, rows: Sequence[tuple[str, str]], label: str) -> None:
        """Add a problem for each name that occurs twice; rows are pairs of place and name."""
        names = [name for _, name in rows]
        for index, (place, name) in enumerate(rows):
            if name in names[:index] and name not in names[index + 1 :]:
                self.add(place, f"{label} {name}: there are two of that name")

    def add(self, place: str, message: str) -> None:
        """Add a problem: the place that it is about, and a sentence that names table and key."""
        if place in self._variables:
            self._problems.append((0, f"{self.path.name}: {self._variables[place]} in the environment: {message}"))
            return
        line = 0
        while place and not line:
            line = self._lines.get(place, 0)
            place = place[: max(place.rfind("["), place.rfind("."), 0)]  # what contains it
        prefix = f"{self.path.name}: line {line}: " if line else f"{self.path.name}: "
        self._problems.append((line, prefix + message))

    def override(self, environment: Mapping[str, str]) -> None:
        """Override values of the file with HOLDOVER__TABLE__KEY from the environment, read as TOML or else as text."""
        for variable in sorted(environment):
            if not variable.startswith(PREFIX):
                continue
            table, _, key = variable[len(PREFIX) :].lower().partition("__")
            if not key or "__" in key or isinstance(self.tables.get(table), list):
                self.add("", f"the environment's {variable} should read {PREFIX}TABLE__KEY")
                continue
            text = environment[variable]
            try:
                value = tomllib.loads(f"value = {text}")["value"]
            except tomllib.TOMLDecodeError:
                value = text
            values = self.tables.setdefault(table, {})
            if isinstance(values, dict):
                values[key] = value
                self._variables[f"{table}.{key}"] = variable

    def check_table(self, values: Any, kind: type[Any], place: str, label: str) -> None:
        """Check a table against its struct, key by key; `label` names it in the sentences."""
        if not isinstance(values, dict):
            self.add(place, f"{label} should be a table")
            return
        count = self.problem_count
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        suggestions: list[str] = []
        for key in values:
            if key not in fields:
                hint = suggest_spelling(key, fields) or f"; there are {', '.join(fields)}"
                suggestions.append(hint)
                self.add(f"{place}.{key}", f"{label} has no key {key}{hint}")
        for key, field in fields.items():
            if key in values:
                self.check_value(values[key], field.type, f"{place}.{key}".lstrip("."), label, key)
            elif field.required and f"; did you mean {key}?" not in suggestions:
                self.add(place, f"{label} needs {key}, {describe_type(field.type)}")
        if self.problem_count == count:
            try:
                msgspec.convert(values, kind)
            except msgspec.ValidationError as problem:  # of the struct as a whole
                self.add(place, f"{label} {str(problem).partition(' - at ')[0]}")

    def check_value(self, value: Any, annotation: Any, place: str, label: str, key: str) -> None:
        """Check the value of a key against its type."""
        item = _struct_of_items(annotation)
        kind = _struct_of(annotation)
        if item is not None and isinstance(value, list):
            for index, entry in enumerate(value):
                self.check_table(entry, item, f"{place}[{index}]", f"[[{_without_indices(place)}]] {index + 1}")
        elif kind is not None:
            self.check_table(value, kind, place, f"[{_without_indices(place)}]")
        else:
            try:
                msgspec.convert(value, annotation)
                is_valid = not isinstance(value, float) or isfinite(value)
            except msgspec.ValidationError:
                is_valid = False
            if not is_valid:
                expected = f"[[{key}]], once for each" if item is not None else describe_type(annotation)
                hint = _suggest_value(value, annotation)
                self.add(place, f"{label} {key} should be {expected}, not {_describe_value(value)}{hint}")

    def raise_problems(self, error_type: type[Exception]) -> None:
        """Raise `error_type` with every problem on a line of its own, in the order of the file; else do nothing."""
        if self._problems:
            ordered = sorted(self._problems, key=lambda problem: problem[0] or len(self._lines) + 1_000_000)
            raise error_type("\n".join(message for _, message in ordered))


def read_config_file(
    path: Path,
    kind: type[T],
    error_type: type[Exception],
    check: Callable[[ConfigFile], None],
    *,
    other_tables: Collection[str] | None = (),
    environment: Mapping[str, str] | None = None,
) -> T:
    """Read a configuration file as a struct of tables.

    Args:
        path: the TOML file.
        kind: the struct whose fields are the tables.
        error_type: the exception to raise.
        check: adds the problems that concern several keys or the world outside the file.
        other_tables: tables of the file that belong to another reader; None allows any.
        environment: variables that override values; none by default.

    Raises:
        The error type, with a sentence for each problem: file, line, table and key, and what would be right.
    """
    text, tables = _read_document(path, error_type)
    file = ConfigFile(path, text, tables)
    if environment is not None:
        file.override(environment)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name in tables:
        if name not in fields and other_tables is not None and name not in other_tables:
            hint = suggest_spelling(name, [*fields, *other_tables]) or f"; there are {', '.join(fields)}"
            file.add(name, f"[{name}] is not known here{hint}")
    for name, field in fields.items():
        if name in tables:
            file.check_value(tables[name], field.type, name, f"[{name}]", name)
        elif field.required:
            file.add("", f"[[{name}]] is missing" if _struct_of_items(field.type) else f"[{name}] is missing")
    check(file)
    file.raise_problems(error_type)
    return msgspec.convert({name: tables[name] for name in fields if name in tables}, kind)


def read_toml(path: Path, error_type: type[Exception]) -> dict[str, Any]:
    """Return the content of a TOML file. Raises `error_type` with a sentence when the file cannot be read or parsed."""
    return _read_document(path, error_type)[1]


def _read_document(path: Path, error_type: type[Exception]) -> tuple[str, dict[str, Any]]:
    try:
        text = read_bounded(path, DOCUMENT_MAX).decode("utf-8").replace("\r\n", "\n")
        return text, tomllib.loads(text)
    except OSError as problem:
        raise error_type(f"{path.name}: cannot be read: {problem.strerror}") from problem
    except SizeLimitError as problem:
        raise error_type(str(problem)) from problem
    except (ValueError, RecursionError) as problem:  # also for a number of more digits than Python converts
        raise error_type(f"{path.name}: not a TOML file: {problem}") from problem


def find_lines(text: str) -> dict[str, int]:
    """Return the line of each table and key of a TOML text, by its place; keys of inline tables are left out."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    prefix, quote = "", ""
    for number, line in enumerate(text.splitlines(), 1):
        if not quote:
            header, key = _HEADER.match(line), _KEY.match(line)
            if header is not None and key is None:
                prefix = _enter_table(header[2], header[1] == "[[", counts)
                lines.setdefault(prefix, number)
            elif key is not None:
                name = ".".join(part.strip().strip("\"'") for part in key[1].split("."))
                lines.setdefault(f"{prefix}.{name}".lstrip("."), number)
        for delimiter in ('"""', "'''"):
            if quote in ("", delimiter) and line.count(delimiter) % 2:
                quote = "" if quote else delimiter
    return lines


def _enter_table(name: str, is_item: bool, counts: dict[str, int]) -> str:
    """Return the place of a table header, with the index of each list of tables in it."""
    place = ""
    parts = [part.strip().strip("\"'") for part in name.split(".")]
    for number, part in enumerate(parts, 1):
        place = f"{place}.{part}".lstrip(".")
        if number == len(parts) and is_item:
            counts[place] = counts.get(place, -1) + 1
        if place in counts:
            place = f"{place}[{counts[place]}]"
    return place


def describe_type(annotation: Any) -> str:
    """Return in words what a value of a type is, with its range."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe_range(arguments[0], [entry for entry in arguments[1:] if isinstance(entry, msgspec.Meta)])
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin in (Union, UnionType):
        return " or ".join(describe_type(part) for part in arguments if part is not NoneType)
    if origin is list:
        return f"a list, each entry {describe_type(arguments[0])}"
    if origin is dict:
        return f"a table, each value {describe_type(arguments[1])}" if arguments[1] is not Any else "a table"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(f'"{member.value}" ({member.name})' for member in annotation)
    return _NOUNS.get(annotation, "a table")


def _describe_range(base: Any, metas: list[msgspec.Meta]) -> str:
    words = describe_type(base)
    for meta in metas:
        if meta.pattern is not None:
            words = _PATTERNS.get(meta.pattern, f"{words} that matches {meta.pattern}")
        if meta.min_length:
            words = f"{_NOUNS[list]} with at least one entry" if get_origin(base) is list else f"{words}, not empty"
        if meta.ge is not None and meta.le is not None:
            words += f" from {_format_bound(meta.ge)} to {_format_bound(meta.le)}"
            continue
        bounds = [
            f"{phrase} {_format_bound(bound)}"
            for phrase, bound in (
                ("above", meta.gt),
                ("not below", meta.ge),
                ("below", meta.lt),
                ("at most", meta.le),
            )
            if bound is not None
        ]
        words += f" {' and '.join(bounds)}" if bounds else ""
    return words


def _format_bound(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _describe_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return _NOUNS[type(value)] if value else f"an empty {_NOUNS[type(value)].removeprefix('a ')}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _suggest_value(value: Any, annotation: Any) -> str:
    choices = [choice for choice in get_args(annotation) if isinstance(choice, str)]
    return suggest_spelling(value, choices) if get_origin(annotation) is Literal and isinstance(value, str) else ""


def _struct_of(annotation: Any) -> type[Any] | None:
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((part for part in parts if isinstance(part, type) and issubclass(part, msgspec.Struct)), None)


def _struct_of_items(annotation: Any) -> type[Any] | None:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return _struct_of(get_args(annotation)[0]) if get_origin(annotation) is list else None


def _without_indices(place: str) -> str:
    return re.sub(r"\[\d+\]", "", place)
