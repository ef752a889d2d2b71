"""The whole catalogue: entries bound to predicates, with a digest.

An entry without a predicate, or a predicate without an entry, stops the catalogue from loading.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from types import ModuleType

import msgspec

from holdover.catalogue.definition import describe_invariant
from holdover.catalogue.entry import FAMILIES, CatalogueError, Entry, read_entry
from holdover.catalogue.policy import ENFORCE, OBSERVE, SWITCHED_OFF, GuardMode, Mode, Policy, find_policy_problems
from holdover.catalogue.predicate import REGISTERED_PREDICATES, BoundPredicate, PredicateError
from holdover.model.spelling import suggest_spelling


@dataclass(frozen=True)
class Invariant:
    """One entry with its predicates.

    `entry` has the time and the limit that the policy sets. `declared_policy` is the policy of the configuration.
    """

    entry: Entry
    predicates: tuple[BoundPredicate, ...]
    declared_policy: Policy | None = None

    @cached_property
    def policy(self) -> Policy:
        """The policy in force, with the thresholds of the entry where it sets none."""
        policy = self.declared_policy or Policy(invariant=self.name)
        return msgspec.structs.replace(policy, within=self.entry.within, limit=self.entry.limit)

    @property
    def name(self) -> str:
        """The entry's name."""
        return self.entry.name


@dataclass(frozen=True)
class Catalogue:
    """All invariants by name, ordered by family and name.

    `policies` are those that `with_policy` applied, by name; those of entries that are off, too. `mode` is the mode of
    the whole guard.
    """

    invariants: dict[str, Invariant] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    mode: GuardMode = ENFORCE

    @classmethod
    def load(cls, *sources: str | Path, builtin: bool = True) -> Catalogue:
        """Load the built-in catalogue and those of `sources`.

        A source is a folder or an importable package with entries and predicates.

        Raises `CatalogueError` with every problem found: an entry without a predicate, a predicate without an entry,
        an entry without implication or response, a duplicate name, a source that does not exist.
        """
        problems: list[str] = []
        entries: dict[str, Entry] = {}
        modules: set[str] = set()
        directories = [Path(__file__).parent / "entries"] if builtin else []
        if builtin:
            modules |= _module_names_of(importlib.import_module("holdover.catalogue.predicates"))
        for source in sources:
            try:
                directory, names = _open_source(source)
            except (CatalogueError, PredicateError) as problem:
                problems.append(str(problem))
                continue
            directories.append(directory)
            modules |= names
        for directory in directories:
            _read_entries(directory, entries, problems)
        bound = {
            name: tuple(predicate for predicate in predicates if predicate.function.__module__ in modules)
            for name, predicates in REGISTERED_PREDICATES.items()
        }
        problems += [
            f"{name}: entry without a predicate; declare one with @predicate({name!r})"
            for name in entries
            if not bound.get(name)
        ]
        problems += [
            f"{name}: predicate {predicates[0].function.__qualname__} without an entry; write {name}.toml"
            for name, predicates in bound.items()
            if predicates and name not in entries
        ]
        if problems:
            raise CatalogueError("\n".join(problems))
        return cls({entry.name: Invariant(entry, bound[entry.name]) for entry in _sort_entries(entries.values())})

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, over every entry and everything that the verdict of its predicates depends on.

        That includes helper functions, constants, sums and the members of records that the predicates read; see
        `definition`. Comments, formatting and unrelated code do not change it. The policy does.
        """
        digest = hashlib.sha256()
        for invariant in self:
            digest.update(describe_invariant(invariant.entry, invariant.predicates).encode("utf-8", "surrogatepass"))
            digest.update(b"\0")
        for name in sorted(self.policies):
            digest.update(b"policy " + self.policies[name].encode() + b"\0")
        if self.mode != ENFORCE:
            digest.update(f"mode {self.mode}".encode())
        return digest.hexdigest()

    def with_policy(
        self, policies: Iterable[Policy], mode: GuardMode = ENFORCE, *, today: date | None = None
    ) -> Catalogue:
        """Return the catalogue under a policy; its digest differs.

        Args:
            policies: one policy for each entry that is not simply enforced. An entry that is off is not evaluated.
            mode: the mode of the whole guard.
            today: the day for which the policies must be valid; None does not check expiry.

        Raises:
            CatalogueError: with every problem of the policies, one per line.
        """
        if self.policies or self.mode != ENFORCE:
            raise CatalogueError("the catalogue has a policy; apply another one to the catalogue without a policy")
        policies = list(policies)
        problems = [
            f"[[policy]] {index + 1} ({policies[index].invariant}): {problem}"
            for index, _, problem in find_policy_problems(policies, self, today)
        ]
        if problems:
            raise CatalogueError("\n".join(problems))
        by_name = {policy.invariant: policy for policy in policies}
        invariants = {
            name: _apply_policy(invariant, by_name[name]) if name in by_name else invariant
            for name, invariant in self.invariants.items()
            if name not in by_name or by_name[name].mode != SWITCHED_OFF
        }
        return Catalogue(invariants, by_name, mode)

    def with_source(self, source: str | Path) -> tuple[Catalogue, list[str]]:
        """Return the catalogue with the entries of a source, and their names, for a trial of new or changed entries.

        An entry whose name exists replaces that entry; without a predicate of its own it keeps the former one.

        Raises `CatalogueError` with every problem found.
        """
        directory, modules = _open_source(source)
        problems: list[str] = []
        entries: dict[str, Entry] = {}
        _read_entries(directory, entries, problems)
        invariants = dict(self.invariants)
        for entry in entries.values():
            own = [bound for bound in REGISTERED_PREDICATES.get(entry.name, ()) if bound.function.__module__ in modules]
            former = self.invariants[entry.name].predicates if entry.name in self.invariants else ()
            if not own and not former:
                problems.append(f"{entry.name}: entry without a predicate; declare one with @predicate({entry.name!r})")
            invariants[entry.name] = Invariant(entry, tuple(own) or former)
        if problems:
            raise CatalogueError("\n".join(problems))
        ordered = _sort_entries(invariant.entry for invariant in invariants.values())
        catalogue = Catalogue({entry.name: invariants[entry.name] for entry in ordered}, self.policies, self.mode)
        return catalogue, list(entries)

    def mode_of(self, name: str) -> Mode:
        """Return the mode of an entry under the policy: the guard's, where the entry has none of its own."""
        policy = self.policies.get(name)
        if policy is not None and policy.mode != ENFORCE:
            return policy.mode
        return OBSERVE if self.mode == OBSERVE else ENFORCE

    def exceptions(self) -> list[Policy]:
        """Return the policies of the entries that are observed or off, by name."""
        return [policy for _, policy in sorted(self.policies.items()) if policy.mode != ENFORCE]

    def without(self, *names: str) -> Catalogue:
        """Return the catalogue without the named invariants; its digest differs.

        Raises `CatalogueError` for an unknown name.
        """
        for name in names:
            self[name]
        invariants = {name: invariant for name, invariant in self.invariants.items() if name not in names}
        return Catalogue(invariants, self.policies, self.mode)

    def __getitem__(self, name: str) -> Invariant:
        try:
            return self.invariants[name]
        except KeyError:
            candidates = [candidate for candidate in self.invariants if name in candidate or candidate in name]
            hint = f"; did you mean {', '.join(candidates)}?" if candidates else suggest_spelling(name, self.invariants)
            raise CatalogueError(f"no invariant is called {name!r}{hint}") from None

    def __iter__(self) -> Iterator[Invariant]:
        return iter(self.invariants.values())

    def __len__(self) -> int:
        return len(self.invariants)

    def __repr__(self) -> str:
        return f"<Catalogue {len(self)} invariants {self.digest[:12]}>"


def _apply_policy(invariant: Invariant, policy: Policy) -> Invariant:
    entry = msgspec.structs.replace(
        invariant.entry,
        within=policy.within or invariant.entry.within,
        limit=invariant.entry.limit if policy.limit is None else policy.limit,
    )
    return Invariant(entry, invariant.predicates, policy)


def _sort_entries(entries: Iterable[Entry]) -> list[Entry]:
    def rank(entry: Entry) -> tuple[int, str, str]:
        is_built_in = entry.family in FAMILIES
        return (FAMILIES.index(entry.family) if is_built_in else len(FAMILIES), entry.family, entry.name)

    return sorted(entries, key=rank)


def _read_entries(directory: Path, entries: dict[str, Entry], problems: list[str]) -> None:
    paths = sorted(directory.rglob("*.toml"))
    for path in paths:
        try:
            entry = read_entry(path, path.read_text(encoding="utf-8"))
        except CatalogueError as problem:
            problems.append(str(problem))
            continue
        except (OSError, UnicodeDecodeError) as problem:
            problems.append(f"{path.name}: cannot be read: {problem}")
            continue
        if entry.name in entries:
            problems.append(f"{path.name}: the name {entry.name!r} is taken by another entry")
            continue
        entries[entry.name] = entry
    if not paths:
        problems.append(f"{directory.name}: no catalogue entry (*.toml) in it")


def _open_source(source: str | Path) -> tuple[Path, set[str]]:
    """Return the folder of a source and the names of its predicate modules, after importing them."""
    folder = Path(source)
    if folder.is_dir():
        return folder, {_import_predicate_file(path) for path in sorted(folder.rglob("*.py"))}
    try:
        package = importlib.import_module(str(source))
    except ImportError as problem:
        raise CatalogueError(f"{source}: neither a folder nor a package that imports: {problem}") from problem
    if not package.__file__:
        raise CatalogueError(f"{source}: a package without files; name a folder")
    return Path(package.__file__).parent, _module_names_of(package)


def _module_names_of(package: ModuleType) -> set[str]:
    return {name for name in sys.modules if name == package.__name__ or name.startswith(package.__name__ + ".")}


def _import_predicate_file(path: Path) -> str:
    # The name includes the path, so that two folders may each have a `predicates.py`.
    name = f"holdover_catalogue_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CatalogueError(f"{path.name}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except PredicateError:
        raise
    except Exception as problem:
        raise CatalogueError(f"{path.name}: cannot be imported: {type(problem).__name__}: {problem}") from problem
    return name
