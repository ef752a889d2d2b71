"""A PostgreSQL database as a state store: dumped in one transaction, or kept on its server as a template.

A dump is the schema from pg_dump and every row as text by column, so it can be redacted, compared and
restored on another server. A template is a copy on the server (CREATE DATABASE ... TEMPLATE), named after its
content: fast for large databases, but it never leaves the server and cannot be redacted.

A restore loads the state into a temporary database and renames it when it is complete. Templates stay on the
server for every holder of the snapshot; their names are holdover_ and 24 digits.
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

from holdover.adapters.process.state_store import StateStoreError, require_parts
from holdover.runtime.redaction import FIELDS, PATTERNS, RedactionRules

_BEFORE, _AFTER, _ROWS, _TEMPLATE = "before.sql", "after.sql", "rows", "template"
"""Part names: the schema before the rows; the keys, indexes and triggers after them; the rows; the template."""

_MARK: Final = "holdover snapshot"
_DUMP_S: Final = 600
_TEXT_SETTINGS: Final = ("datestyle = ISO", "intervalstyle = postgres", "timezone = UTC", "extra_float_digits = 1")

_TABLES: Final = """
SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 2, 3"""
_COLUMNS: Final = """
SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum"""
_PRIMARY_KEY: Final = """
SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
WHERE i.indrelid = %s AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)"""
_SEQUENCES: Final = "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"


class PostgresStore:
    """One database of a server. Needs `holdover[postgresql]`, and pg_dump for a dump."""

    def __init__(self, name: str, url: str, database: str = "", *, template: bool = False, pg_dump: str = "") -> None:
        try:
            import psycopg
        except ImportError as problem:
            raise StateStoreError(f"{name}: PostgreSQL needs psycopg: pip install 'holdover[postgresql]'") from problem
        self.name = name
        self._psycopg = psycopg
        self._template, self._pg_dump = template, pg_dump
        try:
            parameters = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as problem:
            raise StateStoreError(f"{name}: the URL is none of PostgreSQL's") from problem
        self.database = database or str(parameters.get("dbname") or "")
        if not self.database:
            raise StateStoreError(f"{name}: neither the URL nor `database` names a database")
        self._parameters = parameters

    # -- taking -------------------------------------------------------------------------------------------------

    def capture(self, rules: RedactionRules | None) -> dict[str, bytes]:
        """Capture the database.

        Raises `StateStoreError`; a database with large objects is refused, because they would be lost.
        """
        if self._template:
            if rules is not None and (rules.fields - set(FIELDS) or len(rules.patterns) > len(PATTERNS)):
                raise StateStoreError(
                    f'{self.name}: a template stays on its server and is not redacted; say capture = "dump"'
                )
            return self._keep_template()
        rows = self._read_rows()
        before, after = self._dump_schema(rows.pop("snapshot"))
        if rules is not None:
            rows = {"tables": rules.redact_value(rows["tables"]), "sequences": rows["sequences"]}
            before, after = rules.redact_text(before), rules.redact_text(after)
        return {_BEFORE: before.encode(), _AFTER: after.encode(), _ROWS: msgspec.msgpack.encode(rows)}

    def _read_rows(self) -> dict[str, Any]:
        """Return every row of every table at one instant; `snapshot` names it while the connection is open."""
        self._snapshot_connection = self._connect(self.database)
        with self._snapshot_connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for setting in _TEXT_SETTINGS:
                cursor.execute(f"SET LOCAL {setting}")
            cursor.execute("SELECT count(*) FROM pg_largeobject_metadata")
            if cursor.fetchone()[0]:
                raise StateStoreError(f"{self.name}: {self.database} has large objects, which are not taken")
            cursor.execute("SELECT pg_export_snapshot()")
            content: dict[str, Any] = {"snapshot": cursor.fetchone()[0], "tables": {}, "sequences": {}}
            cursor.execute(_TABLES)
            for oid, schema, table in cursor.fetchall():
                content["tables"][f"{schema}.{table}"] = self._read_table(
                    cursor, oid, f"{_quote(schema)}.{_quote(table)}"
                )
            cursor.execute(_SEQUENCES)
            content["sequences"] = {f"{schema}.{name}": last for schema, name, last in cursor.fetchall()}
        return content

    def _read_table(self, cursor: Any, oid: int, table: str) -> list[dict[str, str | None]]:
        cursor.execute(_COLUMNS, (oid,))
        columns = [row[0] for row in cursor.fetchall()]
        if not columns:
            return []
        cursor.execute(_PRIMARY_KEY, (oid,))
        order_columns = [row[0] for row in cursor.fetchall()] or [f"{column}" for column in columns]
        texts = ", ".join(f"{_quote(column)}::text" for column in columns)
        by = ", ".join(f'{_quote(column)}::text COLLATE "C"' for column in order_columns)
        cursor.execute(f"SELECT {texts} FROM ONLY {table} ORDER BY {by}")
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]

    def _dump_schema(self, snapshot: str) -> tuple[str, str]:
        """Return the schema at that instant from pg_dump, and close the connection."""
        try:
            return self._dump_section("pre-data", snapshot), self._dump_section("post-data", snapshot)
        finally:
            self._snapshot_connection.close()

    def _dump_section(self, section: str, snapshot: str) -> str:
        parameters = {**self._parameters, "dbname": self.database}
        password = str(parameters.pop("password", ""))
        connection_string = self._psycopg.conninfo.make_conninfo("", **parameters)
        command = [
            self._find_pg_dump(),
            f"--section={section}",
            "--no-owner",
            "--no-privileges",
            f"--snapshot={snapshot}",
            connection_string,
        ]
        environment = {**os.environ, **({"PGPASSWORD": password} if password else {})}
        try:
            completed = subprocess.run(command, capture_output=True, timeout=_DUMP_S, env=environment)
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise StateStoreError(f"{self.name}: pg_dump: {problem}") from problem
        if completed.returncode:
            raise StateStoreError(f"{self.name}: pg_dump: {completed.stderr.decode('utf-8', 'replace').strip()}")
        # psql meta-commands and the version of pg_dump are not part of the state.
        lines = completed.stdout.decode().splitlines()
        return "\n".join(line for line in lines if not line.startswith(("\\", "-- Dumped "))) + "\n"

    def _find_pg_dump(self) -> str:
        """Return a pg_dump that supports the server's version; an older one refuses. Raises `StateStoreError`."""
        needed = self._snapshot_connection.info.server_version // 10_000
        programs = [self._pg_dump] if self._pg_dump else _find_pg_dumps()
        versions = {program: _version_of(program) for program in programs}
        for program, version in versions.items():
            if version >= needed:
                return program
        available = ", ".join(f"{program} of {version}" for program, version in versions.items()) or "none"
        raise StateStoreError(
            f"{self.name}: the server is of version {needed} and needs a pg_dump of it; at hand: {available}"
        )

    def _keep_template(self) -> dict[str, bytes]:
        """Keep a copy on the server, named after its content."""
        rows = self._read_rows()
        digest = _digest(*self._dump_schema(rows.pop("snapshot")), rows)
        self._ensure_template(digest, lambda name: self._copy_database(self.database, name))
        return {_TEMPLATE: msgspec.msgpack.encode({"database": _template_name(digest), "content": digest})}

    # -- putting back -------------------------------------------------------------------------------------------

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Drop the database and restore it. Raises `StateStoreError`, also when others are connected to it."""
        if _TEMPLATE in parts:
            require_parts(parts, [_TEMPLATE], self)
            digest = str(msgspec.msgpack.decode(parts[_TEMPLATE])["content"])

            def raise_missing(name: str) -> None:
                raise StateStoreError(
                    f"{self.name}: the server has no template {_template_name(digest)}: it was taken on another one"
                )

            self._ensure_template(digest, raise_missing)
            self.clear()
            self._copy_database(_template_name(digest), self.database)
            return
        require_parts(parts, [_BEFORE, _AFTER, _ROWS], self)
        part = f"{self.database}_part"
        self._drop_database(part)
        rows = msgspec.msgpack.decode(parts[_ROWS])
        self._load_dump(part, parts[_BEFORE].decode(), parts[_AFTER].decode(), rows)
        self.clear()
        with self._server_cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {_quote(part)} RENAME TO {_quote(self.database)}")

    def clear(self) -> None:
        """Drop the database."""
        self._drop_database(self.database)

    def _drop_database(self, database: str) -> None:
        with self._server_cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {_quote(database)} WITH (FORCE)")

    def create_empty(self) -> None:
        """Create the database, empty."""
        self.clear()
        with self._server_cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {_quote(self.database)}")

    def _ensure_template(self, digest: str, make: Any) -> None:
        """Ensure that the template of a content exists; it gets its name and mark only when it is complete."""
        name, part = _template_name(digest), f"{_template_name(digest)}_part"
        with self._server_cursor() as cursor:
            cursor.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (name,))
            row = cursor.fetchone()
            if row is not None and row[0] == f"{_MARK} {digest}":
                return
            if row is not None:
                raise StateStoreError(f"{self.name}: the server has a database {name} that is none of ours")
            cursor.execute(f"DROP DATABASE IF EXISTS {_quote(part)} WITH (FORCE)")
            make(part)
            cursor.execute(f"COMMENT ON DATABASE {_quote(part)} IS '{_MARK} {digest}'")
            cursor.execute(f"ALTER DATABASE {_quote(part)} RENAME TO {_quote(name)}")

    def _copy_database(self, source: str, target: str) -> None:
        with self._server_cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {_quote(target)} TEMPLATE {_quote(source)}")

    def _load_dump(self, name: str, before: str, after: str, rows: dict[str, Any]) -> None:
        with self._server_cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {_quote(name)} TEMPLATE template0")
        with self._connection(name) as connection, connection.cursor() as cursor:
            cursor.execute(before)
            cursor.execute("SET session_replication_role = replica")
            for setting in _TEXT_SETTINGS:
                cursor.execute(f"SET {setting}")
            for table, table_rows in rows["tables"].items():
                if table_rows:
                    self._fill_table(cursor, table, table_rows)
            cursor.execute("SET session_replication_role = origin")
            cursor.execute(after)
            for sequence, last in rows["sequences"].items():
                if last is not None:
                    cursor.execute("SELECT setval(%s::regclass, %s)", (_qualified(sequence), last))
            cursor.execute("SELECT schemaname, matviewname FROM pg_matviews ORDER BY 1, 2")
            for view in cursor.fetchall():
                cursor.execute(f"REFRESH MATERIALIZED VIEW {_quote(view[0])}.{_quote(view[1])}")

    def _fill_table(self, cursor: Any, table: str, rows: list[dict[str, str | None]]) -> None:
        columns = ", ".join(map(_quote, rows[0]))
        with cursor.copy(f"COPY {_qualified(table)} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(list(row.values()))

    # -- connections --------------------------------------------------------------------------------------------

    def _connect(self, database: str) -> Any:
        try:
            return self._psycopg.connect(
                self._psycopg.conninfo.make_conninfo("", **{**self._parameters, "dbname": database}), autocommit=True
            )
        except self._psycopg.Error as problem:
            raise StateStoreError(f"{self.name}: {database}: {_first_line(problem)}") from problem

    @contextmanager
    def _connection(self, database: str) -> Iterator[Any]:
        connection = self._connect(database)
        try:
            yield connection
        except self._psycopg.Error as problem:
            raise StateStoreError(f"{self.name}: {database}: {_first_line(problem)}") from problem
        finally:
            connection.close()

    @contextmanager
    def _server_cursor(self) -> Iterator[Any]:
        with self._connection("postgres") as connection, connection.cursor() as cursor:
            yield cursor


def _digest(before: str, after: str, rows: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.msgpack.encode([before, after, rows])).hexdigest()


def _template_name(digest: str) -> str:
    return f"holdover_{digest[:24]}"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _qualified(name: str) -> str:
    schema, _, rest = name.partition(".")
    return f"{_quote(schema)}.{_quote(rest)}"


def _find_pg_dumps() -> list[str]:
    """Return every available pg_dump: the one on the path, and the one of a server installed as a wheel."""
    programs = [shutil.which("pg_dump")]
    with contextlib.suppress(ImportError):
        import pgserver

        programs.append(str(Path(pgserver.__file__).parent / "pginstall" / "bin" / "pg_dump"))
    return [program for program in programs if program and os.access(program, os.X_OK)]


def _version_of(program: str) -> int:
    """Return the major version of a pg_dump; 0 when it cannot be determined."""
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_DUMP_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r" (\d+)", output)
    return int(match[1]) if match else 0


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]
