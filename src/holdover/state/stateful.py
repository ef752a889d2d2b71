"""One declaration of a class's state, from which checkpoint, rollback and encoding follow.

A field that is forgotten when state is copied by hand is the very defect that this product hunts, so no class here
copies its state by hand. Each declares, once, what every attribute is:

    class ClockState(msgspec.Struct):
        now_ns: int
        timers: list[Timer]

    class VirtualClock(Stateful):
        State = ClockState                               # in checkpoints and in bytes
        IN_PROCESS = {"_handlers": "functions of the running process"}       # in checkpoints only
        DERIVED = {"next_ns": "the first timer's time"}                      # in neither

`checkpoint` gives the state as it is now, for `rollback` in the same process. `to_bytes` gives it for another process,
where `restore_bytes` takes it up. A field `timers` of the struct is the attribute `timers` or `_timers`.
`undeclared_attributes` lists what a class assigns and does not declare; a test asks it of every stateful class.

**How a value is copied** follows from the field's type, in a function that is compiled once for each class:

- numbers, strings, enums, tuples and frozen structs are values, and are not copied;
- `list`, `dict`, `set` and `deque` are copied, one level for each level of the annotation, and rolled back *in place*:
  whoever holds the container still holds it afterwards;
- `Annotated[dict[K, S], Owned]` owns the mutable structs in it: their fields are saved and put back on the same
  objects. Objects with a `checkpoint` of their own are saved and rolled back by it. Without `Owned` a container of
  mutable structs holds references to objects that another field owns;
- `Annotated[dict[K, dict[...]], InPlace]` rolls the inner dicts back in place, too, for code that holds those;
- a field whose value is itself `Stateful` saves and rolls back itself.

**What is stored** has a `StoredFormat`: `encode_stored` writes its name and version beside the fields, `decode_stored`
refuses bytes of another format or version before it reads anything else of them.

Rejected: `copy.deepcopy` (breaks shared references, thirty times slower on a venue with a hundred orders), pickle (runs
code, and stores what nobody declared), and a state struct that the class reads through at every access (one more
attribute look-up on each mutation). A field that refers to another object by identity, such as the orders in a book, is
encoded by name in the class's own `_encode_field`.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import types
import typing
from collections import deque
from collections.abc import Callable, Mapping
from copy import copy
from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar, Union, get_args, get_origin

import msgspec

from holdover.state.decoding import DECODE_ERRORS
from holdover.state.encoding import decode_msgpack, encode_msgpack

StateT = TypeVar("StateT", bound=msgspec.Struct)
StructT = TypeVar("StructT", bound=msgspec.Struct)


class StateError(ValueError):
    """Stored state that cannot be taken up; the message says of which class and why."""


class _OwnedMarker:
    """The type of `Owned`."""

    def __repr__(self) -> str:
        return "Owned"


Owned: Final = _OwnedMarker()
"""Marks a container that owns the mutable structs in it: a checkpoint saves their fields, too."""


class _InPlaceMarker:
    """The type of `InPlace`."""

    def __repr__(self) -> str:
        return "InPlace"


InPlace: Final = _InPlaceMarker()
"""Marks a dict whose inner dicts other objects hold: a rollback empties an inner dict that is new, and keeps it."""


class StoredFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The name and version of a stored form, and what a user does with one that this build does not read."""

    name: str
    version: int
    next_step: str


class _StoredHeader(msgspec.Struct):
    """The part of a stored form that every version has."""

    format: str = ""
    version: int = 0


def encode_stored(stored_format: StoredFormat, state: msgspec.Struct) -> bytes:
    """Encode a state struct as MessagePack, with the name and version of its format."""
    header = {"format": stored_format.name, "version": stored_format.version}
    return encode_msgpack({**header, **_fields_of(state)})


def decode_stored(stored_format: StoredFormat, state: type[StructT], data: bytes) -> StructT:
    """Decode what `encode_stored` wrote.

    Raises `StateError` when the bytes are damaged, of another format, or of another version.
    """
    damaged = f"the {stored_format.name} is damaged"
    try:
        header = decode_msgpack(data, _StoredHeader)
    except DECODE_ERRORS as error:
        raise StateError(f"{damaged}: {error}; {stored_format.next_step}") from error
    if header.format != stored_format.name or header.version != stored_format.version:
        written = f"{header.format or 'no format name'}, version {header.version or 'none'}"
        raise StateError(
            f"the {stored_format.name} was written by another build ({written}); "
            f"this build reads version {stored_format.version} of it; {stored_format.next_step}"
        )
    try:
        return decode_msgpack(data, state, _decode_deque)
    except DECODE_ERRORS as error:
        raise StateError(f"{damaged}: {error}; {stored_format.next_step}") from error


class Stateful(Generic[StateT]):
    """A class whose state is declared once.

    `State` is a struct with one field for each attribute that belongs to the state. `IN_PROCESS` names attributes that
    a checkpoint holds by reference and that no encoding contains, `DERIVED` those that are configuration or follow from
    others; each with the reason.
    """

    State: ClassVar[type[msgspec.Struct]]
    IN_PROCESS: ClassVar[Mapping[str, str]] = {}
    DERIVED: ClassVar[Mapping[str, str]] = {}

    __slots__ = ()

    def checkpoint(self) -> Any:
        """Return the state as it is now, for `rollback` in the same process."""
        return _copiers_of(type(self)).save(self)

    def rollback(self, checkpoint: Any) -> None:
        """Make the state what it was when `checkpoint` was called, in place."""
        _copiers_of(type(self)).restore(self, checkpoint)
        self._after_restore()

    def to_state(self) -> StateT:
        """Return the state as one struct, whose containers are this object's own."""
        fields = {name: self._encode_field(name, getattr(self, a)) for name, a in _attributes(type(self))}
        return typing.cast(StateT, type(self).State(**fields))

    def take_state(self, state: StateT) -> None:
        """Take over a state that was decoded."""
        for name, attribute in _attributes(type(self)):
            setattr(self, attribute, self._decode_field(name, getattr(state, name)))
        self._after_restore()

    def to_bytes(self) -> bytes:
        """Return the state encoded as MessagePack, for `restore_bytes` in another process."""
        return encode_state(self.to_state())

    def restore_bytes(self, data: bytes) -> None:
        """Take up a state that `to_bytes` encoded. Raises `StateError` when it is damaged or of another version."""
        self.take_state(typing.cast(StateT, decode_state(type(self).State, data, type(self).__name__)))

    def _encode_field(self, name: str, value: Any) -> Any:
        """Return what is stored of one field; override it for fields that refer to other objects."""
        return value

    def _decode_field(self, name: str, value: Any) -> Any:
        """Return the attribute for a stored field, in the order of the state's fields; undoes `_encode_field`."""
        return value

    def _after_restore(self) -> None:
        """Compute what is derived from the state; called after `rollback` and `take_state`."""


def encode_state(state: msgspec.Struct) -> bytes:
    """Encode a state struct. Sets are written sorted, so that equal states have equal bytes in every process."""
    return encode_msgpack(_fields_of(state))


def _fields_of(state: msgspec.Struct) -> dict[str, Any]:
    return {name: _encodable(getattr(state, name)) for name in state.__struct_fields__}


def _encodable(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else list(value) if isinstance(value, deque) else value


def decode_state(state: type[msgspec.Struct], data: bytes, owner: str) -> msgspec.Struct:
    """Decode a state struct. Raises `StateError`, which names `owner`, when the bytes are none."""
    try:
        return decode_msgpack(data, state, _decode_deque)
    except DECODE_ERRORS as error:
        raise StateError(f"the stored state of {owner} is damaged: {error}") from error


def _decode_deque(hint: type, value: Any) -> Any:
    if (get_origin(hint) or hint) is deque:
        return deque(msgspec.convert(value, list[_item_hint(hint)]))  # type: ignore[misc]
    raise NotImplementedError(hint)


# -- what a class declares ------------------------------------------------------------------------------------------


def _attributes(cls: type[Stateful[Any]]) -> list[tuple[str, str]]:
    """The pairs (field of the state, attribute of the object) of a class."""
    return _copiers_of(cls).attributes


def assigned_attributes(cls: type) -> dict[str, str]:
    """Every attribute that the methods of a class and of its bases assign on `self`, with the class that does."""
    assigned: dict[str, str] = {}
    for base in cls.__mro__:
        if base in (object, Stateful, Generic) or not hasattr(sys.modules.get(base.__module__), "__file__"):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
                continue
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                assigned.setdefault(node.attr, base.__name__)
    properties = {name for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, property)}
    return {name: owner for name, owner in assigned.items() if name not in properties}


def undeclared_attributes(cls: type[Stateful[Any]]) -> list[str]:
    """The attributes that a stateful class assigns and declares neither as state nor as in-process nor as derived."""
    declared = {attribute for _, attribute in _attributes(cls)}
    for base in cls.__mro__:
        declared |= set(vars(base).get("IN_PROCESS", ())) | set(vars(base).get("DERIVED", ()))
    return sorted(name for name in assigned_attributes(cls) if name not in declared)


def stateful_classes() -> list[type[Stateful[Any]]]:
    """Every class known in this process that declares its state, in the order of their names."""
    classes: dict[str, type[Stateful[Any]]] = {}
    waiting: list[type[Stateful[Any]]] = list(Stateful.__subclasses__())
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        if "State" in dir(cls):
            classes[f"{cls.__module__}.{cls.__qualname__}"] = cls
    return [classes[name] for name in sorted(classes)]


# -- copying, written once for each class ----------------------------------------------------------------------------


class _Copiers(msgspec.Struct, frozen=True):
    """The two functions of a class, and the pairs (field, attribute) that they copy."""

    save: Callable[[Any], Any]
    restore: Callable[[Any, Any], None]
    attributes: list[tuple[str, str]]


_COPIERS: dict[type, _Copiers] = {}


def _copiers_of(cls: type[Stateful[Any]]) -> _Copiers:
    copiers = _COPIERS.get(cls)
    if copiers is None:
        copiers = _COPIERS[cls] = _write_copiers(cls)
    return copiers


def _write_copiers(cls: type[Stateful[Any]]) -> _Copiers:
    hints = typing.get_type_hints(cls.State, include_extras=True)
    assigned = assigned_attributes(cls)
    pairs: list[tuple[str, str]] = []
    for name in cls.State.__struct_fields__:
        attribute = name if name in assigned else f"_{name}"
        if attribute not in assigned:
            raise TypeError(
                f"{cls.__name__} assigns neither {name} nor _{name}, which {cls.State.__name__} declares as its state"
            )
        pairs.append((name, attribute))
    in_process: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        in_process.update(vars(base).get("IN_PROCESS", {}))
    names: dict[str, Any] = {
        "same": _same_dict,
        "save_owned": _save_owned,
        "restore_owned": _restore_owned,
        "restore_in_place": _restore_in_place,
    }
    saves: list[str] = []
    restores = ["def restore(self, saved):"]
    attributes = [(attribute, hints[name]) for name, attribute in pairs] + [(name, Any) for name in in_process]
    for number, (attribute, hint) in enumerate(attributes):
        save, restore = _copy_source(attribute, f"saved[{number}]", hint)
        saves.append(save)
        restores += [f"    {line}" for line in restore]
    source = "\n".join(["def save(self):", f"    return ({', '.join(saves)},)", *restores, "    return None", ""])
    exec(compile(source, f"<state of {cls.__name__}>", "exec"), names)
    return _Copiers(names["save"], names["restore"], pairs)


def _copy_source(attribute: str, saved: str, hint: Any) -> tuple[str, list[str]]:
    """Return the source of an expression that saves one attribute, and of the lines that put it back."""
    markers = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    hint = _bare(hint)
    value = f"self.{attribute}"
    if Owned in markers:
        return f"save_owned({value})", [f"restore_owned({value}, {saved})"]
    if InPlace in markers:
        return _copy_expression(value, hint), [f"restore_in_place({value}, {saved})"]
    if isinstance(hint, type) and issubclass(hint, Stateful):
        return f"{value}.checkpoint()", [f"{value}.rollback({saved})"]
    optional = _is_union(hint) and type(None) in get_args(hint)
    if optional:
        hint = _bare(next(part for part in get_args(hint) if part is not type(None)))
    if not _is_container(hint):
        return value, [f"{value} = {saved}"]
    copied, copied_again = _copy_expression(value, hint), _copy_expression(saved, hint)
    restore = _restore_lines(value, saved, hint)
    if optional:
        copied = f"(None if {value} is None else {copied})"
        restore = [
            f"if {saved} is None or {value} is None:",
            f"    {value} = None if {saved} is None else {copied_again}",
            "else:",
            *(f"    {line}" for line in restore),
        ]
    return copied, restore


def _restore_lines(value: str, saved: str, hint: Any) -> list[str]:
    """Return source that makes a container what was saved of it, in place, with inner containers of its own."""
    kind = get_origin(hint) or hint
    nested = _is_container(_item_hint(hint))
    fresh = _copy_expression(saved, hint) if nested else saved
    if kind is dict:
        return [
            f"if not same({value}, {saved}):",
            f"    content = {fresh}",
            f"    {value}.clear()",
            f"    {value}.update(content)",
        ]
    if kind is list:
        return [f"{value}[:] = {fresh}"]
    return [f"content = {fresh}", f"{value}.clear()", f"{value}.{'update' if kind is set else 'extend'}(content)"]


def _bare(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _is_container(hint: Any) -> bool:
    return (get_origin(_bare(hint)) or _bare(hint)) in (list, dict, set, deque)


def _item_hint(hint: Any) -> Any:
    parts = get_args(hint)
    return _bare(parts[-1]) if parts else Any


def _copy_expression(value: str, hint: Any, depth: int = 0) -> str:
    """Return source of a copy of a container, as deep as its annotation says."""
    hint = _bare(hint)
    kind, item = get_origin(hint) or hint, _item_hint(hint)
    if not _is_container(item):
        return f"{value}[:]" if kind is list else f"{value}.copy()"
    inner = _copy_expression(f"v{depth}", item, depth + 1)
    if kind is dict:
        return f"{{k{depth}: {inner} for k{depth}, v{depth} in {value}.items()}}"
    return f"[{inner} for v{depth} in {value}]"


def _same_dict(first: dict[Any, Any], second: dict[Any, Any]) -> bool:
    """Return whether two dicts hold equal items in the same order; the order is part of what a replay depends on."""
    return first == second and list(first) == list(second)


def _restore_in_place(container: dict[Any, Any], saved: dict[Any, Any]) -> None:
    """Make the inner dicts of a dict what was saved of them; one that was not there is emptied and stays.

    An inner dict with equal items is left alone: its order is for the class to restore, which knows what it removed.
    """
    for key, inner in container.items():
        before = saved.get(key)
        if before is None:
            inner.clear()
        elif inner != before:
            inner.clear()
            inner.update(before)
    for key, before in saved.items():
        if key not in container:
            container[key] = dict(before)


def _save_owned(container: Any) -> Any:
    """Return the keys of a container, and each object in it with a copy of its state."""
    keys = list(container) if isinstance(container, dict) else None
    return keys, [(item, _save_item(item)) for item in (container.values() if keys is not None else container)]


def _save_item(item: Any) -> Any:
    return copy(item) if isinstance(item, msgspec.Struct) else item.checkpoint()


def _restore_owned(container: Any, saved: Any) -> None:
    """Put the state of each object back on the same object, and the objects into the container."""
    keys, pairs = saved
    for item, saved_item in pairs:
        if not isinstance(item, msgspec.Struct):
            item.rollback(saved_item)
        elif item != saved_item:
            for name in item.__struct_fields__:
                setattr(item, name, getattr(saved_item, name))
    items = [item for item, _ in pairs]
    container.clear()
    if keys is None:
        container.extend(items)
    else:
        container.update(zip(keys, items, strict=True))
