"""Redaction: what must not leave a machine is taken out before anything is written for others to read.

Two kinds of rule. A named *field* is replaced wherever it stands, in database columns and in encoded records alike, by
a mark made of its content: equal values stay equal, so that what is left can still be replayed, and nothing is
readable. A *pattern* is a regular expression; what it matches in any text is blanked out, or what its group `secret`
matches where it has one. The patterns that come with it know the usual looks of credentials; a deployment adds its own.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable
from typing import Any, Final

import msgspec

BLANK: Final = "[redacted]"
"""What stands where a pattern matched."""

PATTERNS: Final[tuple[str, ...]] = (
    r"(?i)\bbearer\s+(?P<secret>[A-Za-z0-9._~+/=-]{8,})",
    r"(?i)\bbasic\s+(?P<secret>[A-Za-z0-9+/]{8,}={0,2})",
    r"(?i)(?:password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key)\\*[\"']?\s*[:=]\s*\\*[\"']?"
    r"(?P<secret>[^\s\"'&;|,\x01\[\]{}]+)",
    r"://(?P<secret>[^/\s:@]+:[^/\s@]+)@",
    r"AKIA[0-9A-Z]{16}",
    r"gh[pousr]_[A-Za-z0-9]{20,}",
    r"xox[abprs]-[A-Za-z0-9-]{10,}",
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----",
    r"[\x01|](?:554|925)=(?P<secret>[^\x01|]+)",
)
"""The usual looks of credentials: assignments, bearer tokens, URLs with a user, keys of well-known services, PEM, FIX
Password (554) and NewPassword (925)."""

FIELDS: Final[tuple[str, ...]] = ("password", "passwd", "secret", "token", "api_key", "apikey", "private_key")
"""Fields that are never anything else."""


class BadRule(ValueError):
    """A pattern that is no regular expression; the message names it."""


class Rules:
    """What to take out: fields by name and patterns in any text.

    Raises `BadRule` for a pattern that cannot be compiled.
    """

    def __init__(self, fields: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        self.fields = frozenset(fields)
        self.patterns: list[re.Pattern[str]] = []
        for pattern in patterns:
            try:
                self.patterns.append(re.compile(pattern))
            except re.error as problem:
                raise BadRule(f"redaction pattern {pattern!r}: {problem}") from problem

    @classmethod
    def usual(cls, fields: Iterable[str] = (), patterns: Iterable[str] = ()) -> Rules:
        """The rules that come with Holdover, and these beside them."""
        return cls((*FIELDS, *fields), (*PATTERNS, *patterns))

    def text(self, said: str) -> str:
        """A text with what the patterns match blanked out."""
        for pattern in self.patterns:
            said = pattern.sub(_blanked, said)
        return said

    def value(self, value: Any) -> Any:
        """Plain data with the rules applied, however deep."""
        if isinstance(value, dict):
            return {
                self._key(key): mark(kept) if key in self.fields and kept is not None else self.value(kept)
                for key, kept in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.value(kept) for kept in value]
        return self._single(value)

    def redacted(self, content: bytes) -> bytes:
        """A file's content with the rules applied: a database, encoded records, or text."""
        if is_database(content):
            return self._database(content)
        found = self._encoded(content)
        if found is not None:
            return found
        try:
            said = content.decode("utf-8")
        except UnicodeDecodeError:
            return content
        new = self.text(said)
        return content if new == said else new.encode()

    # -- inside -------------------------------------------------------------------------------------------------

    def _key(self, key: Any) -> Any:
        return self.text(key) if isinstance(key, str) and self.patterns else key

    def _single(self, value: Any) -> Any:
        if isinstance(value, bytes):
            found = self._encoded(value)
            return value if found is None else found
        if isinstance(value, str):
            if value[:1] in ("{", "["):
                try:
                    decoded = msgspec.json.decode(value)
                except msgspec.MsgspecError:
                    return self.text(value)
                new = self.value(decoded)
                return value if new == decoded else msgspec.json.encode(new).decode()
            return self.text(value)
        return value

    def _encoded(self, content: bytes) -> bytes | None:
        """The content decoded, redacted and encoded again; None when it is no encoded data, or nothing changes."""
        for decode, encode in (
            (msgspec.msgpack.decode, msgspec.msgpack.encode),
            (msgspec.json.decode, msgspec.json.encode),
        ):
            try:
                decoded: Any = decode(content)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            new = self.value(decoded)
            return None if new == decoded else encode(new)
        return None

    def _database(self, content: bytes) -> bytes:
        memory = sqlite3.connect(":memory:")
        try:
            memory.deserialize(content[:18] + b"\x01\x01" + content[20:])
            tables = [row[0] for row in memory.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            for table in tables:
                columns = [row[1] for row in memory.execute(f'PRAGMA table_info("{table}")')]
                for column in columns:
                    values = [row[0] for row in memory.execute(f'SELECT DISTINCT "{column}" FROM "{table}"')]
                    for value in values:
                        named = column in self.fields and value is not None
                        new = mark(value) if named else self._single(value)
                        if new is not value and new != value:
                            memory.execute(f'UPDATE "{table}" SET "{column}"=? WHERE "{column}" IS ?', (new, value))
            memory.commit()
            memory.execute("VACUUM")  # what was replaced must not linger in free pages
            return memory.serialize()
        finally:
            memory.close()


def _blanked(match: re.Match[str]) -> str:
    if "secret" not in match.re.groupindex:
        return BLANK
    whole, (begin, end) = match.group(0), match.span("secret")
    return whole[: begin - match.start()] + BLANK + whole[end - match.start() :]


def is_database(content: bytes) -> bool:
    """Whether a content is that of an SQLite database."""
    return content[:16] == b"SQLite format 3\0"


def mark(value: Any) -> str:
    """What stands for a value: equal for equal values."""
    return f"redacted-{hashlib.sha256(repr(value).encode()).hexdigest()[:10]}"
