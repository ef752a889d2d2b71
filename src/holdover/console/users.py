"""Who may use the console: names, roles and hashes of passwords, in the store that holds the freezes.

A viewer sees everything and changes nothing. An operator acknowledges, ticks off steps and thaws. An approver may,
beside that, be the second person who forces a thaw of somebody else.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from typing import Final

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from holdover.runtime import FreezeStore
from holdover.runtime.database import Run

ROLES: Final = ("viewer", "operator", "approver")
"""The roles, each with all that the one before may do."""

PASSWORD_MIN: Final = 12
_PASSWORD_MAX: Final = 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS console_user (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, hash TEXT NOT NULL, time_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS console_session (
    hash TEXT PRIMARY KEY, name TEXT NOT NULL, began_ns INTEGER NOT NULL, seen_ns INTEGER NOT NULL);
"""
_AT_ONCE: Final = threading.BoundedSemaphore(2)  # a password's hash takes 64 MiB


class BadUser(ValueError):
    """A user that is not there, or cannot be made; the message says why."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A person who may use the console, since when (ns)."""

    name: str
    role: str
    time_ns: int

    def may(self, role: str) -> bool:
        """Whether this user may do what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Users:
    """The users in a store. Every change is in the audit log under the name of `by`."""

    def __init__(self, store: FreezeStore, hasher: PasswordHasher | None = None) -> None:
        self._store = store
        self._hasher = hasher or PasswordHasher()
        self._nobody = ""
        store.database.create(_SCHEMA)

    def add(self, name: str, role: str, password: str, *, by: str, time_ns: int) -> None:
        """A new user. Raises `BadUser` for a name that is taken or none, an unknown role, a short password."""
        if not _NAME.fullmatch(name):
            raise BadUser(f"{name!r} is no name for a user; it should be letters, digits, and . _ @ - between them")
        if role not in ROLES:
            raise BadUser(f"{role!r} is no role; there are {', '.join(ROLES)}")
        if self.find(name) is not None:
            raise BadUser(f"there is a user called {name} already")
        hashed = self._hash(password)
        self._store.say("user", f"{name} added as {role} by {by}", time_ns)

        def work(run: Run) -> bool:
            values = (name, role, hashed, time_ns)
            return bool(run("INSERT INTO console_user VALUES (?,?,?,?) ON CONFLICT DO NOTHING RETURNING name", *values))

        if not self._store.database.write(work):
            raise BadUser(f"there is a user called {name} already")

    def remove(self, name: str, *, by: str, time_ns: int) -> None:
        """Take a user away, and with him his sessions. Raises `BadUser` when there is none."""
        self._known(name)
        self._store.say("user", f"{name} removed by {by}", time_ns)

        def work(run: Run) -> None:
            run("DELETE FROM console_user WHERE name=?", name)
            run("DELETE FROM console_session WHERE name=?", name)

        self._store.database.write(work)

    def set_password(self, name: str, password: str, *, by: str, time_ns: int) -> None:
        """Another password, and all sessions of the user end. Raises `BadUser`."""
        self._known(name)
        hashed = self._hash(password)
        self._store.say("user", f"{name} has another password by {by}", time_ns)

        def work(run: Run) -> None:
            run("UPDATE console_user SET hash=? WHERE name=?", hashed, name)
            run("DELETE FROM console_session WHERE name=?", name)

        self._store.database.write(work)

    def all(self) -> list[User]:
        """Every user, by name."""
        rows = self._store.database.read("SELECT name, role, time_ns FROM console_user ORDER BY name")
        return [User(name=name, role=role, time_ns=time_ns) for name, role, time_ns in rows]

    def find(self, name: str) -> User | None:
        """The user of that name."""
        rows = self._store.database.read("SELECT name, role, time_ns FROM console_user WHERE name=?", name)
        return User(name=rows[0][0], role=rows[0][1], time_ns=rows[0][2]) if rows else None

    def check(self, name: str, password: str) -> User | None:
        """The user, if the password is his. Takes as long for a name that there is not."""
        rows = self._store.database.read("SELECT hash, role, time_ns FROM console_user WHERE name=?", name)
        with _AT_ONCE:
            if not self._nobody:
                self._nobody = self._hasher.hash("nobody's password")
            try:
                self._hasher.verify(rows[0][0] if rows else self._nobody, _normal(password)[:_PASSWORD_MAX])
            except (VerificationError, InvalidHashError):
                return None
        return User(name=name, role=rows[0][1], time_ns=rows[0][2]) if rows else None

    def _known(self, name: str) -> None:
        if self.find(name) is None:
            there = ", ".join(user.name for user in self.all()) or "nobody"
            raise BadUser(f"no user is called {name!r}; there is: {there}")

    def _hash(self, password: str) -> str:
        told = _normal(password)
        if not PASSWORD_MIN <= len(told) <= _PASSWORD_MAX:
            raise BadUser(
                f"a password should have {PASSWORD_MIN} to {_PASSWORD_MAX} characters, this one has {len(told)}"
            )
        return self._hasher.hash(told)


def _normal(password: str) -> str:
    return unicodedata.normalize("NFC", password)
