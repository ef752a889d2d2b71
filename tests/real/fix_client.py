"""Somebody else's trading process, of QuickFIX alone: `python -m tests.real.fix_client PORT STORE PRICE [--forget]`.

It has one order that stays over the night and sends small ones for the day beside it, one after each few fills. What it
knows is in its store: SQLITE:FILE, POSTGRESQL:URL or REDIS:URL. With `--forget` it does not read back how many orders
it has named: the seeded fault of this process.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any, Protocol

import quickfix

FILLS_PER_ORDER = 3
"""So many fills of the order that stays bring one order of the day."""


class Store(Protocol):
    """What must survive: numbers by name."""

    def get(self, name: str) -> int:
        """0 where there is none."""

    def set(self, name: str, value: int) -> None:
        """Committed when it returns."""


class SqliteStore:
    """A table in a file."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS book (name TEXT PRIMARY KEY, value INTEGER)")
        self._db.execute("CREATE TABLE IF NOT EXISTS login (user TEXT, password TEXT)")

    def get(self, name: str) -> int:
        """From the table."""
        row = self._db.execute("SELECT value FROM book WHERE name=?", (name,)).fetchone()
        return row[0] if row else 0

    def set(self, name: str, value: int) -> None:
        """Into the table."""
        self._db.execute("INSERT OR REPLACE INTO book VALUES (?,?)", (name, value))


class PostgresStore:
    """A table of a database."""

    def __init__(self, address: str) -> None:
        import psycopg

        base, _, name = address.rpartition("|")
        with psycopg.connect(base, autocommit=True) as server:
            row = server.execute("SELECT 1 FROM pg_database WHERE datname=%s", (name,)).fetchone()
            if row is None:
                server.execute(f'CREATE DATABASE "{name}"')
        self._db = psycopg.connect(base, dbname=name, autocommit=True)
        self._db.execute("CREATE TABLE IF NOT EXISTS book (name text PRIMARY KEY, value bigint)")

    def get(self, name: str) -> int:
        """From the table."""
        row = self._db.execute("SELECT value FROM book WHERE name=%s", (name,)).fetchone()
        return row[0] if row else 0

    def set(self, name: str, value: int) -> None:
        """Into the table."""
        self._db.execute(
            "INSERT INTO book VALUES (%s,%s) ON CONFLICT (name) DO UPDATE SET value=excluded.value", (name, value)
        )


class RedisStore:
    """A hash."""

    def __init__(self, url: str) -> None:
        import redis

        self._client: Any = redis.Redis.from_url(url)

    def get(self, name: str) -> int:
        """From the hash."""
        return int(self._client.hget("client:book", name) or 0)

    def set(self, name: str, value: int) -> None:
        """Into the hash."""
        self._client.hset("client:book", name, value)


STORES: dict[str, Any] = {"SQLITE": SqliteStore, "POSTGRESQL": PostgresStore, "REDIS": RedisStore}


class Client(quickfix.Application):
    """Trades."""

    def __init__(self, store: Store, price: str, *, forget: bool) -> None:
        super().__init__()
        self.store, self.price = store, price
        self.number = 0 if forget else store.get("number")

    def onCreate(self, session: Any) -> None:
        """Nothing."""

    def onLogon(self, session: Any) -> None:
        """The order that stays is sent where the store knows none that is open."""
        print("logon", flush=True)
        if not self.store.get("open"):
            self.store.set("open", 1)
            self.send_order(session, 60_000, "1", self.price)
        elif self.store.get("number") != self.number:
            self.send_order(session, 10, "0", "")  # the day goes on, under a name that has been

    def onLogout(self, session: Any) -> None:
        """Nothing."""

    def toAdmin(self, message: Any, session: Any) -> None:
        """Nothing."""

    def toApp(self, message: Any, session: Any) -> None:
        """Nothing."""

    def fromAdmin(self, message: Any, session: Any) -> None:
        """Nothing."""

    def fromApp(self, message: Any, session: Any) -> None:
        """A fill is counted; every few bring an order."""
        if message.getHeader().getField(35) != "8" or message.getField(150) != "F":
            return
        if message.getField(11) == "F1":
            self.store.set("filled", int(message.getField(14)))
            count = self.store.get("fills") + 1
            self.store.set("fills", count)
            if count % FILLS_PER_ORDER == 0:
                self.send_order(session, 10, "0", "")

    def send_order(self, session: Any, quantity: int, tif: str, price: str) -> None:
        """A new order; its name is counted before it leaves."""
        self.number += 1
        self.store.set("number", max(self.number, self.store.get("number")))
        message = quickfix.Message()
        message.getHeader().setField(35, "D")
        terms = [(11, f"F{self.number}"), (1, "X1"), (55, "ACME"), (54, "1"), (38, quantity), (59, tif), (21, "1")]
        terms += (
            [(60, "20241127-14:30:00"), (40, "2"), (44, price)] if price else [(60, "20241127-14:30:00"), (40, "1")]
        )
        for tag, value in terms:
            message.setField(tag, str(value))
        quickfix.Session.sendToTarget(message, session)


def main(port: str, store_spec: str, price: str, *options: str) -> None:
    """Run until SIGTERM."""
    lines = [
        "[DEFAULT]",
        "ConnectionType=initiator",
        "ReconnectInterval=1",
        "HeartBtInt=2",
        "StartTime=00:00:00",
        "EndTime=00:00:00",
        "UseDataDictionary=N",
        "FileStorePath=session",
        "[SESSION]",
        "BeginString=FIX.4.4",
        "SenderCompID=CLIENT",
        "TargetCompID=VENUE",
        "SocketConnectHost=127.0.0.1",
        f"SocketConnectPort={port}",
        "",
    ]
    Path("session").mkdir(exist_ok=True)
    kind, _, address = store_spec.partition(":")
    settings = quickfix.SessionSettings()
    settings.setFromString("\n".join(lines))
    client, stores = (
        Client(STORES[kind](address), price, forget="--forget" in options),
        quickfix.FileStoreFactory(settings),
    )
    engine = quickfix.SocketInitiator(client, stores, settings)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *arguments: ended.set())
    engine.start()
    while not ended.wait(0.1):
        pass
    engine.stop()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
