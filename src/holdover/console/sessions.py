"""Console sessions, kept on the server: the browser has a random token, the store only a hash of it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

import msgspec

from holdover.console.users import ConsoleUser
from holdover.runtime import FreezeStore
from holdover.runtime.database import RunStatement

_LAST_USE_INTERVAL_NS: Final = 30_000_000_000  # how precisely the store records when a session was last used
_TOKEN_MAX: Final = 128


class ConsoleSession(msgspec.Struct, frozen=True, kw_only=True):
    """A logged-in user, and the token that every form of the user must carry."""

    user: ConsoleUser
    key: str
    csrf: str


class ConsoleSessions:
    """The sessions of a store. A session ends after `idle_s` without use, and after `day_s` in any case."""

    def __init__(self, store: FreezeStore, idle_s: float, day_s: float) -> None:
        self._store = store
        self._idle_ns, self._day_ns = round(idle_s * 1e9), round(day_s * 1e9)

    def begin(self, user: ConsoleUser, now_ns: int) -> str:
        """Start a session and delete expired ones. Returns the token for the browser."""
        token = secrets.token_urlsafe(32)

        def work(run: RunStatement) -> None:
            run(
                "DELETE FROM console_session WHERE seen_ns<? OR began_ns<?",
                now_ns - self._idle_ns,
                now_ns - self._day_ns,
            )
            run("INSERT INTO console_session VALUES (?,?,?,?)", _key(token), user.name, now_ns, now_ns)

        self._store.database.write(work)
        return token

    def find(self, token: str, now_ns: int, *, marks_use: bool = True) -> ConsoleSession | None:
        """Returns the session of a token, or None when it has ended. With `marks_use` this counts as use."""
        if not token or len(token) > _TOKEN_MAX:
            return None
        key = _key(token)
        rows = self._store.database.read(
            "SELECT u.name, u.role, u.time_ns, s.began_ns, s.seen_ns FROM console_session s "
            "JOIN console_user u ON u.name = s.name WHERE s.hash=?",
            key,
        )
        if not rows:
            return None
        name, role, time_ns, began_ns, seen_ns = rows[0]
        if now_ns - seen_ns > self._idle_ns or now_ns - began_ns > self._day_ns:
            self.end(key)
            return None
        if marks_use and now_ns - seen_ns > min(_LAST_USE_INTERVAL_NS, self._idle_ns // 4):
            self._store.database.write(
                lambda run: run("UPDATE console_session SET seen_ns=? WHERE hash=?", now_ns, key), durable=False
            )
        return ConsoleSession(user=ConsoleUser(name=name, role=role, time_ns=time_ns), key=key, csrf=_csrf(token))

    def end(self, key: str) -> None:
        """End a session."""
        self._store.database.write(lambda run: run("DELETE FROM console_session WHERE hash=?", key))


def tokens_match(token: str, expected: str) -> bool:
    """Whether two tokens are equal, in a time that does not depend on where they differ."""
    return bool(expected) and hmac.compare_digest(token.encode(), expected.encode())


def _key(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _csrf(token: str) -> str:
    return hmac.new(token.encode(), b"holdover console form", hashlib.sha256).hexdigest()
