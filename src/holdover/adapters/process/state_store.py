"""State stores: the protocol of one store, and all stores of a process together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from holdover.adapters.process.config import ProcessConfig, StateTable, fill_template
from holdover.runtime.redaction import RedactionRules
from holdover.runtime.secrets import read_secret

PREFIX = "subject"
"""The prefix of the snapshot parts that belong to the subject."""


class StateStoreError(RuntimeError):
    """A state store cannot be captured or restored. The message says which, why, and what would be right."""


class StateStore(Protocol):
    """One state store. Its state is parts by name; equal states have equal parts in any process and on any machine."""

    name: str

    def capture(self, rules: RedactionRules | None) -> dict[str, bytes]:
        """Return the current state, redacted by the rules if there are any. Raises `StateStoreError`."""

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Replace the state completely; it is on the disk when this returns. Raises `StateStoreError`."""

    def clear(self) -> None:
        """Empty the store. Raises `StateStoreError`."""


class StateStores:
    """Every state store of a process, for one run.

    `directory` is the working directory of the process, and `values` fills its templates. With `owns_folder` the
    run's folder belongs to this run: stores below it may be emptied, others only when the config calls them
    disposable.
    """

    def __init__(self, config: ProcessConfig, directory: Path, values: Mapping[str, str], *, owns_folder: bool) -> None:
        self._stores = [open_state_store(table, config, directory, values) for table in config.state]
        self._protected_names = [
            table.name
            for table in config.state
            if not table.disposable
            and not (owns_folder and table.path and not Path(fill_template(table.path, values)).is_absolute())
        ]

    def capture(self, rules: RedactionRules | None = None) -> dict[str, bytes]:
        """Return every part of every store, by name. Raises `StateStoreError`."""
        parts: dict[str, bytes] = {}
        for store in self._stores:
            for name, content in store.capture(rules).items():
                parts[f"{PREFIX}/{store.name}/{name}"] = content
        return parts

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Restore every store. Raises `StateStoreError`, before any change when a store must not be emptied."""
        self.check()
        store_parts = {place.name: _parts_of(place, parts) for place in self._stores}
        unknown_names = sorted(
            {name.split("/")[1] for name in parts if name.startswith(f"{PREFIX}/")} - set(store_parts)
        )
        if unknown_names:
            raise StateStoreError(
                f"the snapshot has a state {', '.join(unknown_names)}, for which the file has no [[state]]"
            )
        for store in self._stores:
            if store_parts[store.name]:
                store.restore(store_parts[store.name])
            else:
                store.clear()

    def clear(self) -> None:
        """Empty every store. Raises `StateStoreError`, before any change when a store must not be emptied."""
        self.check()
        for store in self._stores:
            store.clear()

    def check(self) -> None:
        """Check that this run may empty every store. Raises `StateStoreError` when it may not."""
        if self._protected_names:
            raise StateStoreError(
                f"[[state]] {', '.join(self._protected_names)}: would be emptied and put back; say disposable = true "
                "where nothing else is kept there, or give a path below the run's folder"
            )


def _parts_of(store: StateStore, parts: Mapping[str, bytes]) -> dict[str, bytes]:
    prefix = f"{PREFIX}/{store.name}/"
    return {name.removeprefix(prefix): content for name, content in parts.items() if name.startswith(prefix)}


def open_state_store(
    table: StateTable, config: ProcessConfig, directory: Path, values: Mapping[str, str]
) -> StateStore:
    """Open the store that a table describes. Raises `StateStoreError` when a package that it needs is missing."""
    from holdover.adapters.process.directory import DirectoryStore
    from holdover.adapters.process.postgresql import PostgresStore
    from holdover.adapters.process.redis import RedisStore
    from holdover.adapters.process.sqlite import SqliteStore

    if table.kind == "directory":
        return DirectoryStore(table.name, directory / fill_template(table.path, values), table.exclude)
    if table.kind == "sqlite":
        return SqliteStore(table.name, directory / fill_template(table.path, values))
    url = fill_template(table.url, values) or read_secret(table.url_env, table.url_file, config.config_directory)
    if table.kind == "postgresql":
        database, template = fill_template(table.database, values), table.capture == "template"
        return PostgresStore(table.name, url, database, template=template, pg_dump=table.pg_dump)
    return RedisStore(table.name, url, table.keys)


def redact_files(parts: Mapping[str, bytes], rules: RedactionRules | None) -> dict[str, bytes]:
    """Apply the rules to files. None of them may be a database with a log of its own."""
    return {name: content if rules is None else rules.redact_content(content) for name, content in parts.items()}


def require_parts(parts: Mapping[str, bytes], names: Iterable[str], store: Any) -> None:
    """Check that the parts are exactly of these names. Raises `StateStoreError` for any other part."""
    unknown_names = sorted(set(parts) - set(names))
    if unknown_names:
        raise StateStoreError(f"{store.name}: {', '.join(unknown_names)} is no part of such a state")
