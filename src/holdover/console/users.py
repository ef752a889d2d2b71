"""The users of the console: names, roles and password hashes, in the store that holds the freezes.

A viewer sees everything and changes nothing. An operator acknowledges, ticks off steps and thaws. An approver may also
override the refusal of another operator's thaw.
"""

from __future__ import annotations

import re
import threading
from typing import Final

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from holdover.console.password import PASSWORD_MAX, PasswordQualityError, check_quality, normalize_password
from holdover.console.throttle import SCHEMA as THROTTLE_SCHEMA
from holdover.runtime import FreezeStore
from holdover.runtime.database import RunStatement

ROLES: Final = ("viewer", "operator", "approver")
"""The roles, each with all permissions of the one before."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS console_user (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, hash TEXT NOT NULL, time_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS console_session (
    hash TEXT PRIMARY KEY, name TEXT NOT NULL, began_ns INTEGER NOT NULL, seen_ns INTEGER NOT NULL);
"""
HASHES_MAX: Final = 3
"""How many passwords one process hashes at the same time; each takes 64 MiB."""
_HASHES_AT_ONCE: Final = threading.BoundedSemaphore(HASHES_MAX)


class UserError(ValueError):
    """A user does not exist or cannot be created; the message says why."""


class ConsoleUser(msgspec.Struct, frozen=True, kw_only=True):
    """A person who may use the console, with the time of creation (ns)."""

    name: str
    role: str
    time_ns: int

    def has_role(self, role: str) -> bool:
        """Whether this user has the permissions of `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


class ConsoleUsers:
    """The users in a store. Every change is written to the audit log under the name `by`."""

    def __init__(self, store: FreezeStore, hasher: PasswordHasher | None = None) -> None:
        self._store = store
        self._hasher = hasher or PasswordHasher()
        self._dummy_hash = ""
        store.database.create(_SCHEMA)
        store.database.create(THROTTLE_SCHEMA)

    def add_user(self, name: str, role: str, password: str, *, by: str, time_ns: int) -> None:
        """Add a user.

        Raises `UserError` for a taken or invalid name, an unknown role or a weak password.
        """
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r} is no name for a user; it should be letters, digits, and . _ @ - between them")
        if role not in ROLES:
            raise UserError(f"{role!r} is no role; there are {', '.join(ROLES)}")
        if self.find(name) is not None:
            raise UserError(f"there is a user called {name} already")
        hashed = self._hash(name, password)
        self._store.log_action("user", f"{name} added as {role} by {by}", time_ns)

        def work(run: RunStatement) -> bool:
            values = (name, role, hashed, time_ns)
            return bool(run("INSERT INTO console_user VALUES (?,?,?,?) ON CONFLICT DO NOTHING RETURNING name", *values))

        if not self._store.database.write(work):
            raise UserError(f"there is a user called {name} already")

    def remove_user(self, name: str, *, by: str, time_ns: int) -> None:
        """Remove a user and end the user's sessions. Raises `UserError` when there is none."""
        self.require_user(name)
        self._store.log_action("user", f"{name} removed by {by}", time_ns)

        def work(run: RunStatement) -> None:
            run("DELETE FROM console_user WHERE name=?", name)
            run("DELETE FROM console_session WHERE name=?", name)
            run("DELETE FROM console_device WHERE name=?", name)

        self._store.database.write(work)

    def set_password(self, name: str, password: str, *, by: str, time_ns: int) -> None:
        """Set another password and end the user's sessions. Raises `UserError`."""
        self.require_user(name)
        hashed = self._hash(name, password)
        self._store.log_action("user", f"{name} has another password by {by}", time_ns)

        def work(run: RunStatement) -> None:
            run("UPDATE console_user SET hash=? WHERE name=?", hashed, name)
            run("DELETE FROM console_session WHERE name=?", name)

        self._store.database.write(work)

    def list_users(self) -> list[ConsoleUser]:
        """Returns every user, by name."""
        rows = self._store.database.read("SELECT name, role, time_ns FROM console_user ORDER BY name")
        return [ConsoleUser(name=name, role=role, time_ns=time_ns) for name, role, time_ns in rows]

    def find(self, name: str) -> ConsoleUser | None:
        """Returns the user with that name; None when there is none."""
        rows = self._store.database.read("SELECT name, role, time_ns FROM console_user WHERE name=?", name)
        return ConsoleUser(name=rows[0][0], role=rows[0][1], time_ns=rows[0][2]) if rows else None

    def check_password(self, name: str, password: str) -> ConsoleUser | None:
        """Returns the user if the password is right, else None. An unknown name takes equally long."""
        rows = self._store.database.read("SELECT hash, role, time_ns FROM console_user WHERE name=?", name)
        with _HASHES_AT_ONCE:
            if not self._dummy_hash:
                self._dummy_hash = self._hasher.hash("nobody's password")
            try:
                self._hasher.verify(
                    rows[0][0] if rows else self._dummy_hash, normalize_password(password)[:PASSWORD_MAX]
                )
            except (VerificationError, InvalidHashError):
                return None
        return ConsoleUser(name=name, role=rows[0][1], time_ns=rows[0][2]) if rows else None

    def require_user(self, name: str) -> None:
        """Raises `UserError`, with the names that exist, when no user has this name."""
        if self.find(name) is None:
            names = ", ".join(user.name for user in self.list_users()) or "nobody"
            raise UserError(f"no user is called {name!r}; there is: {names}")

    def _hash(self, name: str, password: str) -> str:
        normalized = normalize_password(password)
        try:
            check_quality(name, normalized)
        except PasswordQualityError as problem:
            raise UserError(str(problem)) from None
        with _HASHES_AT_ONCE:
            return self._hasher.hash(normalized)
