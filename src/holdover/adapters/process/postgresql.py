"""A PostgreSQL database as a place of state: dumped whole in one transaction, or kept on its server as a template.

A dump is the schema as pg_dump says it and every row as text, by column, so that it can be redacted, compared and put
back on another server. A template is a copy that stays on the server (CREATE DATABASE ... TEMPLATE), named after its
content: quick for what is large, nothing that leaves the machine, and nothing that can be redacted.

What is put back is loaded beside its place and gets its name when it is whole. A template is left on the server, for
whoever has its snapshot; holdover_ and 24 digits are its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.adapters.process.place import BadPlace, only
from holdover.runtime.redaction import FIELDS, PATTERNS, Rules

_BEFORE, _AFTER, _ROWS, _TEMPLATE = "before.sql", "after.sql", "rows", "template"
"""The schema up to where rows can be put in, and what comes after them: keys, indexes, triggers."""

_MARK: Final = "holdover snapshot"
_DUMP_S: Final = 600
_SAME: Final = ("datestyle = ISO", "intervalstyle = postgres", "timezone = UTC", "extra_float_digits = 1")

_TABLES: Final = """
SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 2, 3"""
_COLUMNS: Final = """
SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum"""
_KEY: Final = """
SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
WHERE i.indrelid = %s AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)"""
_SEQUENCES: Final = "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"


class PostgresPlace:
    """One database of a server. Needs `holdover[postgresql]`, and pg_dump where it is dumped."""

    def __init__(self, name: str, url: str, database: str = "", *, template: bool = False, pg_dump: str = "") -> None:
        try:
            import psycopg
        except ImportError as problem:
            raise BadPlace(f"{name}: PostgreSQL needs psycopg: pip install 'holdover[postgresql]'") from problem
        self.name = name
        self._psycopg = psycopg
        self._template, self._pg_dump = template, pg_dump
        try:
            told = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as problem:
            raise BadPlace(f"{name}: the URL is none of PostgreSQL's") from problem
        self.database = database or str(told.get("dbname") or "")
        if not self.database:
            raise BadPlace(f"{name}: neither the URL nor `database` names a database")
        self._told = told

    # -- taking -------------------------------------------------------------------------------------------------

    def capture(self, rules: Rules | None) -> dict[str, bytes]:
        """Raises `BadPlace`; a database with large objects is refused, for they would be left out."""
        if self._template:
            if rules is not None and (rules.fields - set(FIELDS) or len(rules.patterns) > len(PATTERNS)):
                raise BadPlace(f'{self.name}: a template stays on its server and is not redacted; say capture = "dump"')
            return self._keep()
        rows = self._rows()
        before, after = self._schema(rows.pop("snapshot"))
        if rules is not None:
            rows = {"tables": rules.value(rows["tables"]), "sequences": rows["sequences"]}
            before, after = rules.text(before), rules.text(after)
        return {_BEFORE: before.encode(), _AFTER: after.encode(), _ROWS: msgspec.msgpack.encode(rows)}

    def _rows(self) -> dict[str, Any]:
        """Every row of every table at one instant; `snapshot` names that instant, while the connection is held."""
        self._held = self._connect(self.database)
        with self._held.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for said in _SAME:
                cursor.execute(f"SET LOCAL {said}")
            cursor.execute("SELECT count(*) FROM pg_largeobject_metadata")
            if cursor.fetchone()[0]:
                raise BadPlace(f"{self.name}: {self.database} has large objects, which are not taken")
            cursor.execute("SELECT pg_export_snapshot()")
            found: dict[str, Any] = {"snapshot": cursor.fetchone()[0], "tables": {}, "sequences": {}}
            cursor.execute(_TABLES)
            for oid, schema, table in cursor.fetchall():
                found["tables"][f"{schema}.{table}"] = self._table(cursor, oid, f"{_q(schema)}.{_q(table)}")
            cursor.execute(_SEQUENCES)
            found["sequences"] = {f"{schema}.{name}": last for schema, name, last in cursor.fetchall()}
        return found

    def _table(self, cursor: Any, oid: int, table: str) -> list[dict[str, str | None]]:
        cursor.execute(_COLUMNS, (oid,))
        columns = [row[0] for row in cursor.fetchall()]
        if not columns:
            return []
        cursor.execute(_KEY, (oid,))
        order = [row[0] for row in cursor.fetchall()] or [f"{one}" for one in columns]
        texts = ", ".join(f"{_q(one)}::text" for one in columns)
        by = ", ".join(f'{_q(one)}::text COLLATE "C"' for one in order)
        cursor.execute(f"SELECT {texts} FROM ONLY {table} ORDER BY {by}")
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]

    def _schema(self, snapshot: str) -> tuple[str, str]:
        """What pg_dump says of the schema at that instant; the instant is let go of."""
        try:
            return self._section("pre-data", snapshot), self._section("post-data", snapshot)
        finally:
            self._held.close()

    def _section(self, section: str, snapshot: str) -> str:
        told = {**self._told, "dbname": self.database}
        password = str(told.pop("password", ""))
        where = self._psycopg.conninfo.make_conninfo("", **told)
        command = [
            self._program(),
            f"--section={section}",
            "--no-owner",
            "--no-privileges",
            f"--snapshot={snapshot}",
            where,
        ]
        environment = {**os.environ, **({"PGPASSWORD": password} if password else {})}
        try:
            done = subprocess.run(command, capture_output=True, timeout=_DUMP_S, env=environment)
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise BadPlace(f"{self.name}: pg_dump: {problem}") from problem
        if done.returncode:
            raise BadPlace(f"{self.name}: pg_dump: {done.stderr.decode('utf-8', 'replace').strip()}")
        # What speaks to psql, and which program has written it, is no part of the state.
        lines = done.stdout.decode().splitlines()
        return "\n".join(line for line in lines if not line.startswith(("\\", "-- Dumped "))) + "\n"

    def _program(self) -> str:
        """A pg_dump that knows the server's version: an older one refuses. Raises `BadPlace`."""
        needed = self._held.info.server_version // 10_000
        tried = [self._pg_dump] if self._pg_dump else _pg_dumps()
        known = {one: _version_of(one) for one in tried}
        for one, version in known.items():
            if version >= needed:
                return one
        at_hand = ", ".join(f"{one} of {version}" for one, version in known.items()) or "none"
        raise BadPlace(f"{self.name}: the server is of version {needed} and needs a pg_dump of it; at hand: {at_hand}")

    def _keep(self) -> dict[str, bytes]:
        """Leave a copy on the server, named after what it holds."""
        rows = self._rows()
        digest = _digest(*self._schema(rows.pop("snapshot")), rows)
        self._template_of(digest, lambda name: self._copy(self.database, name))
        return {_TEMPLATE: msgspec.msgpack.encode({"database": _named(digest), "content": digest})}

    # -- putting back -------------------------------------------------------------------------------------------

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """The database is dropped and there again whole. Raises `BadPlace`, also where others are connected to it."""
        if _TEMPLATE in parts:
            only(parts, [_TEMPLATE], self)
            digest = str(msgspec.msgpack.decode(parts[_TEMPLATE])["content"])

            def absent(name: str) -> None:
                raise BadPlace(f"{self.name}: the server has no template {_named(digest)}: it was taken on another one")

            self._template_of(digest, absent)
            self.clear()
            self._copy(_named(digest), self.database)
            return
        only(parts, [_BEFORE, _AFTER, _ROWS], self)
        part = f"{self.database}_part"
        self._drop(part)
        rows = msgspec.msgpack.decode(parts[_ROWS])
        self._load(part, parts[_BEFORE].decode(), parts[_AFTER].decode(), rows)
        self.clear()
        with self._server() as cursor:
            cursor.execute(f"ALTER DATABASE {_q(part)} RENAME TO {_q(self.database)}")

    def clear(self) -> None:
        """The database is gone."""
        self._drop(self.database)

    def _drop(self, database: str) -> None:
        with self._server() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {_q(database)} WITH (FORCE)")

    def empty(self) -> None:
        """The database is there and has nothing in it."""
        self.clear()
        with self._server() as cursor:
            cursor.execute(f"CREATE DATABASE {_q(self.database)}")

    def _template_of(self, digest: str, make: Any) -> None:
        """Have the template of a content; it has its name and its mark only when it is whole."""
        name, part = _named(digest), f"{_named(digest)}_part"
        with self._server() as cursor:
            cursor.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (name,))
            row = cursor.fetchone()
            if row is not None and row[0] == f"{_MARK} {digest}":
                return
            if row is not None:
                raise BadPlace(f"{self.name}: the server has a database {name} that is none of ours")
            cursor.execute(f"DROP DATABASE IF EXISTS {_q(part)} WITH (FORCE)")
            make(part)
            cursor.execute(f"COMMENT ON DATABASE {_q(part)} IS '{_MARK} {digest}'")
            cursor.execute(f"ALTER DATABASE {_q(part)} RENAME TO {_q(name)}")

    def _copy(self, source: str, to: str) -> None:
        with self._server() as cursor:
            cursor.execute(f"CREATE DATABASE {_q(to)} TEMPLATE {_q(source)}")

    def _load(self, name: str, before: str, after: str, rows: dict[str, Any]) -> None:
        with self._server() as cursor:
            cursor.execute(f"CREATE DATABASE {_q(name)} TEMPLATE template0")
        with self._connected(name) as connection, connection.cursor() as cursor:
            cursor.execute(before)
            cursor.execute("SET session_replication_role = replica")
            for said in _SAME:
                cursor.execute(f"SET {said}")
            for table, kept in rows["tables"].items():
                if kept:
                    self._fill(cursor, table, kept)
            cursor.execute("SET session_replication_role = origin")
            cursor.execute(after)
            for sequence, last in rows["sequences"].items():
                if last is not None:
                    cursor.execute("SELECT setval(%s::regclass, %s)", (_qualified(sequence), last))
            cursor.execute("SELECT schemaname, matviewname FROM pg_matviews ORDER BY 1, 2")
            for view in cursor.fetchall():
                cursor.execute(f"REFRESH MATERIALIZED VIEW {_q(view[0])}.{_q(view[1])}")

    def _fill(self, cursor: Any, table: str, rows: list[dict[str, str | None]]) -> None:
        columns = ", ".join(map(_q, rows[0]))
        with cursor.copy(f"COPY {_qualified(table)} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(list(row.values()))

    # -- connections --------------------------------------------------------------------------------------------

    def _connect(self, database: str) -> Any:
        try:
            return self._psycopg.connect(
                self._psycopg.conninfo.make_conninfo("", **{**self._told, "dbname": database}), autocommit=True
            )
        except self._psycopg.Error as problem:
            raise BadPlace(f"{self.name}: {database}: {_first_line(problem)}") from problem

    @contextmanager
    def _connected(self, database: str) -> Iterator[Any]:
        connection = self._connect(database)
        try:
            yield connection
        except self._psycopg.Error as problem:
            raise BadPlace(f"{self.name}: {database}: {_first_line(problem)}") from problem
        finally:
            connection.close()

    @contextmanager
    def _server(self) -> Iterator[Any]:
        with self._connected("postgres") as connection, connection.cursor() as cursor:
            yield cursor


def _digest(before: str, after: str, rows: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.msgpack.encode([before, after, rows])).hexdigest()


def _named(digest: str) -> str:
    return f"holdover_{digest[:24]}"


def _q(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _qualified(name: str) -> str:
    schema, _, rest = name.partition(".")
    return f"{_q(schema)}.{_q(rest)}"


def _pg_dumps() -> list[str]:
    """Every pg_dump at hand: that on the path, and that of a server which came as a wheel."""
    found = [shutil.which("pg_dump")]
    with contextlib.suppress(ImportError):
        import pgserver

        found.append(str(Path(pgserver.__file__).parent / "pginstall" / "bin" / "pg_dump"))
    return [one for one in found if one and os.access(one, os.X_OK)]


def _version_of(program: str) -> int:
    """The major version of a pg_dump; 0 where it does not say."""
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_DUMP_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r" (\d+)", told)
    return int(found[1]) if found else 0


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]
