"""A place where a process keeps its state: what each kind of place can do, and all of them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from holdover.adapters.process.config import ProcessConfig, StateTable, filled
from holdover.runtime.redaction import Rules
from holdover.runtime.secrets import secret

PREFIX = "subject"
"""What the parts of a snapshot begin with that are the subject's own."""


class BadPlace(RuntimeError):
    """A place whose state cannot be taken or put back; the message says which, why, and what would be right."""


class Place(Protocol):
    """One place. Its state is parts by name; the same state has the same parts, in any process and on any machine."""

    name: str

    def capture(self, rules: Rules | None) -> dict[str, bytes]:
        """The state as it is now, with the rules applied where there are any. Raises `BadPlace`."""

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Make it that state, whole, and on the disk when this returns. Raises `BadPlace`."""

    def clear(self) -> None:
        """Make it a place where nothing has ever been. Raises `BadPlace`."""


class Places:
    """Every place of a process, for one run of it.

    `directory` is where the process runs, `values` what is filled in. With `ours` the run's folder is this run's own:
    what lies below it may be emptied, and all else only where the file calls it disposable.
    """

    def __init__(self, config: ProcessConfig, directory: Path, values: Mapping[str, str], *, ours: bool) -> None:
        self._all = [place_of(one, config, directory, values) for one in config.states]
        self._kept = [
            one.name
            for one in config.states
            if not one.disposable and not (ours and one.path and not Path(filled(one.path, values)).is_absolute())
        ]

    def capture(self, rules: Rules | None = None) -> dict[str, bytes]:
        """Every part of every place, by name. Raises `BadPlace`."""
        found: dict[str, bytes] = {}
        for place in self._all:
            for name, content in place.capture(rules).items():
                found[f"{PREFIX}/{place.name}/{name}"] = content
        return found

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Put every place's state back. Raises `BadPlace`, before anything is touched where one may not be."""
        self.check()
        held = {place.name: _of(place, parts) for place in self._all}
        strange = sorted({name.split("/")[1] for name in parts if name.startswith(f"{PREFIX}/")} - set(held))
        if strange:
            raise BadPlace(f"the snapshot has a state {', '.join(strange)}, for which the file has no [[state]]")
        for place in self._all:
            if held[place.name]:
                place.restore(held[place.name])
            else:
                place.clear()

    def clear(self) -> None:
        """Empty every place. Raises `BadPlace`, before anything is touched where one may not be."""
        self.check()
        for place in self._all:
            place.clear()

    def check(self) -> None:
        """Raises `BadPlace` where a place is not this run's to empty."""
        if self._kept:
            raise BadPlace(
                f"[[state]] {', '.join(self._kept)}: would be emptied and put back; say disposable = true where "
                "nothing else is kept there, or give a path below the run's folder"
            )


def _of(place: Place, parts: Mapping[str, bytes]) -> dict[str, bytes]:
    prefix = f"{PREFIX}/{place.name}/"
    return {name.removeprefix(prefix): content for name, content in parts.items() if name.startswith(prefix)}


def place_of(table: StateTable, config: ProcessConfig, directory: Path, values: Mapping[str, str]) -> Place:
    """The place that a table describes. Raises `BadPlace` where what it needs is not installed."""
    from holdover.adapters.process.directory import Directory
    from holdover.adapters.process.postgresql import PostgresPlace
    from holdover.adapters.process.redis import RedisPlace
    from holdover.adapters.process.sqlite import SqlitePlace

    if table.kind == "directory":
        return Directory(table.name, directory / filled(table.path, values), table.exclude)
    if table.kind == "sqlite":
        return SqlitePlace(table.name, directory / filled(table.path, values))
    url = filled(table.url, values) or secret(table.url_env, table.url_file, config.here)
    if table.kind == "postgresql":
        database, template = filled(table.database, values), table.capture == "template"
        return PostgresPlace(table.name, url, database, template=template, pg_dump=table.pg_dump)
    return RedisPlace(table.name, url, table.keys)


def redacted(parts: Mapping[str, bytes], rules: Rules | None) -> dict[str, bytes]:
    """Files with the rules applied; none of them may be a database whose log lies beside it."""
    return {name: content if rules is None else rules.redacted(content) for name, content in parts.items()}


def only(parts: Mapping[str, bytes], names: Iterable[str], place: Any) -> None:
    """Raises `BadPlace` where a state has parts that are none of these."""
    strange = sorted(set(parts) - set(names))
    if strange:
        raise BadPlace(f"{place.name}: {', '.join(strange)} is no part of such a state")
