"""The catalogue as a whole: entries bound to predicates, with a digest. Gaps either way and it does not load."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType

import msgspec

from holdover.catalogue.entry import FAMILIES, BadCatalogue, Entry, read_entry
from holdover.catalogue.predicate import REGISTERED, BadPredicate, BoundPredicate


@dataclass(frozen=True)
class Invariant:
    """One entry with the predicates that decide it."""

    entry: Entry
    predicates: tuple[BoundPredicate, ...]

    @property
    def name(self) -> str:
        """The entry's name."""
        return self.entry.name


@dataclass(frozen=True)
class Catalogue:
    """All invariants, by name, in the order of family and name."""

    invariants: dict[str, Invariant] = field(default_factory=dict)

    @classmethod
    def load(cls, *sources: str | Path, builtin: bool = True) -> Catalogue:
        """The built-in catalogue and those of `sources`: folders or importable packages with entries and predicates.

        Raises `BadCatalogue` with every problem found: an entry without a predicate, a predicate without an entry,
        an entry without implication or response, one name twice, a source that is not there.
        """
        problems: list[str] = []
        entries: dict[str, Entry] = {}
        modules: set[str] = set()
        places = [Path(__file__).parent / "entries"] if builtin else []
        if builtin:
            modules |= _modules_of(importlib.import_module("holdover.catalogue.predicates"))
        for source in sources:
            try:
                place, names = _open(source)
            except (BadCatalogue, BadPredicate) as problem:
                problems.append(str(problem))
                continue
            places.append(place)
            modules |= names
        for place in places:
            _read_entries(place, entries, problems)
        bound = {
            name: tuple(one for one in found if one.function.__module__ in modules)
            for name, found in REGISTERED.items()
        }
        problems += [
            f"{name}: entry without a predicate; declare one with @predicate({name!r})"
            for name in entries
            if not bound.get(name)
        ]
        problems += [
            f"{name}: predicate {found[0].function.__qualname__} without an entry; write {name}.toml"
            for name, found in bound.items()
            if found and name not in entries
        ]
        if problems:
            raise BadCatalogue("\n".join(problems))
        return cls({entry.name: Invariant(entry, bound[entry.name]) for entry in _ordered(entries.values())})

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every entry and the source of every predicate, in hexadecimal."""
        summed = hashlib.sha256()
        for invariant in self:
            summed.update(msgspec.json.encode(invariant.entry))
            for bound in invariant.predicates:
                summed.update(_source(bound).encode())
        return summed.hexdigest()

    def without(self, *names: str) -> Catalogue:
        """The catalogue less some invariants; its digest differs. Raises `BadCatalogue` for a name it does not have."""
        for name in names:
            self[name]
        return Catalogue({name: one for name, one in self.invariants.items() if name not in names})

    def __getitem__(self, name: str) -> Invariant:
        try:
            return self.invariants[name]
        except KeyError:
            near = [known for known in self.invariants if name in known or known in name]
            raise BadCatalogue(
                f"no invariant is called {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "")
            ) from None

    def __iter__(self) -> Iterator[Invariant]:
        return iter(self.invariants.values())

    def __len__(self) -> int:
        return len(self.invariants)

    def __repr__(self) -> str:
        return f"<Catalogue {len(self)} invariants {self.digest[:12]}>"


def _ordered(entries: Iterable[Entry]) -> list[Entry]:
    def rank(entry: Entry) -> tuple[int, str, str]:
        known = entry.family in FAMILIES
        return (FAMILIES.index(entry.family) if known else len(FAMILIES), entry.family, entry.name)

    return sorted(entries, key=rank)


def _read_entries(place: Path, entries: dict[str, Entry], problems: list[str]) -> None:
    found = sorted(place.rglob("*.toml"))
    for path in found:
        try:
            entry = read_entry(path, path.read_text(encoding="utf-8"))
        except BadCatalogue as problem:
            problems.append(str(problem))
            continue
        except (OSError, UnicodeDecodeError) as problem:
            problems.append(f"{path.name}: cannot be read: {problem}")
            continue
        if entry.name in entries:
            problems.append(f"{path.name}: the name {entry.name!r} is taken by another entry")
            continue
        entries[entry.name] = entry
    if not found:
        problems.append(f"{place.name}: no catalogue entry (*.toml) in it")


def _open(source: str | Path) -> tuple[Path, set[str]]:
    """The folder of a source and the names of the modules with its predicates, imported."""
    folder = Path(source)
    if folder.is_dir():
        return folder, {_import_file(path) for path in sorted(folder.rglob("*.py"))}
    try:
        package = importlib.import_module(str(source))
    except ImportError as problem:
        raise BadCatalogue(f"{source}: neither a folder nor a package that imports: {problem}") from problem
    if not package.__file__:
        raise BadCatalogue(f"{source}: a package without files; name a folder")
    return Path(package.__file__).parent, _modules_of(package)


def _modules_of(package: ModuleType) -> set[str]:
    return {name for name in sys.modules if name == package.__name__ or name.startswith(package.__name__ + ".")}


def _import_file(path: Path) -> str:
    # The name is made of the place, so that two folders may each have a `predicates.py`.
    name = f"holdover_catalogue_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadCatalogue(f"{path.name}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BadPredicate:
        raise
    except Exception as problem:
        raise BadCatalogue(f"{path.name}: cannot be imported: {type(problem).__name__}: {problem}") from problem
    return name


def _source(bound: BoundPredicate) -> str:
    try:
        return inspect.getsource(bound.function)
    except (OSError, TypeError):
        return bound.function.__code__.co_code.hex()
