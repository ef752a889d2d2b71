"""Redaction: removes sensitive data before anything is written for others to read.

There are two kinds of rule. A *field* rule replaces a named field, in database columns and in encoded
records, with a pseudonym derived from its value: equal values stay equal, so the data can still be replayed,
but nothing is readable. A *pattern* rule is a regular expression; it blanks every match in any text, or only
the match's group `secret` if the pattern has one. The built-in patterns cover the usual forms of credentials;
a deployment adds its own.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from holdover.state import DECODE_ERRORS, decode_msgpack, encode_msgpack

BLANK: Final = "[redacted]"
"""The text that replaces a match of a pattern."""

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
"""The usual forms of credentials: assignments, bearer tokens, URLs with a user, keys of well-known services,
PEM, FIX Password (554) and NewPassword (925).
"""

FIELDS: Final[tuple[str, ...]] = ("password", "passwd", "secret", "token", "api_key", "apikey", "private_key")
"""Names of fields that always hold secrets."""


class RedactionRuleError(ValueError):
    """A pattern is not a valid regular expression; the message names it."""


class RedactionRules:
    """The redaction rules: fields by name and patterns in any text.

    Raises `RedactionRuleError` for a pattern that does not compile.
    """

    def __init__(self, fields: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        self.fields = frozenset(fields)
        self.patterns: list[re.Pattern[str]] = []
        for pattern in patterns:
            try:
                self.patterns.append(re.compile(pattern))
            except re.error as problem:
                raise RedactionRuleError(f"redaction pattern {pattern!r}: {problem}") from problem

    @classmethod
    def with_defaults(cls, fields: Iterable[str] = (), patterns: Iterable[str] = ()) -> RedactionRules:
        """Return Holdover's built-in rules plus these. Raises `RedactionRuleError`."""
        return cls((*FIELDS, *fields), (*PATTERNS, *patterns))

    def redact_text(self, text: str) -> str:
        """Blank every match of the patterns in a text."""
        for pattern in self.patterns:
            text = pattern.sub(_blank_match, text)
        return text

    def redact_value(self, value: Any) -> Any:
        """Apply the rules to plain data of any depth."""
        if isinstance(value, dict):
            return {
                self._redact_key(key): pseudonymize(item)
                if key in self.fields and item is not None
                else self.redact_value(item)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.redact_value(item) for item in value]
        return self._redact_single(value)

    def redact_content(self, content: bytes) -> bytes:
        """Apply the rules to a file's content: a database, encoded records, or text."""
        if is_database(content):
            return self._redact_database(content)
        encoded = self._redact_encoded(content)
        if encoded is not None:
            return encoded
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            return content
        redacted = self.redact_text(text)
        return content if redacted == text else redacted.encode()

    # -- inside -------------------------------------------------------------------------------------------------

    def _redact_key(self, key: Any) -> Any:
        return self.redact_text(key) if isinstance(key, str) and self.patterns else key

    def _redact_single(self, value: Any) -> Any:
        if isinstance(value, bytes):
            encoded = self._redact_encoded(value)
            return value if encoded is None else encoded
        if isinstance(value, str):
            if value[:1] in ("{", "["):
                try:
                    decoded = msgspec.json.decode(value)
                except DECODE_ERRORS:
                    return self.redact_text(value)
                redacted = self.redact_value(decoded)
                return value if redacted == decoded else msgspec.json.encode(redacted).decode()
            return self.redact_text(value)
        return value

    def _redact_encoded(self, content: bytes) -> bytes | None:
        """Decode, redact and encode the content; None when it is not encoded data or nothing changes."""
        for decode, encode in (
            (decode_msgpack, encode_msgpack),
            (msgspec.json.decode, msgspec.json.encode),
        ):
            try:
                decoded: Any = decode(content)
            except DECODE_ERRORS:
                continue
            redacted = self.redact_value(decoded)
            return None if redacted == decoded else encode(redacted)
        return None

    def _redact_database(self, content: bytes) -> bytes:
        memory = sqlite3.connect(":memory:")
        try:
            memory.deserialize(content[:18] + b"\x01\x01" + content[20:])
            memory.execute("PRAGMA trusted_schema=OFF")
            tables = [row[0] for row in memory.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            for table in tables:
                quoted_table = quote_name(table)
                columns = [row[1] for row in memory.execute(f"PRAGMA table_info({quoted_table})")]
                for column in columns:
                    quoted = quote_name(column)
                    values = [row[0] for row in memory.execute(f"SELECT DISTINCT {quoted} FROM {quoted_table}")]
                    for value in values:
                        is_named_field = column in self.fields and value is not None
                        redacted = pseudonymize(value) if is_named_field else self._redact_single(value)
                        if redacted is not value and redacted != value:
                            memory.execute(
                                f"UPDATE {quoted_table} SET {quoted}=? WHERE {quoted} IS ?",
                                (redacted, value),
                            )
            memory.commit()
            memory.execute("VACUUM")  # free pages must not keep what was replaced
            return memory.serialize()
        finally:
            memory.close()


def _blank_match(match: re.Match[str]) -> str:
    if "secret" not in match.re.groupindex:
        return BLANK
    whole, (begin, end) = match.group(0), match.span("secret")
    return whole[: begin - match.start()] + BLANK + whole[end - match.start() :]


def is_database(content: bytes) -> bool:
    """Whether the content is an SQLite database."""
    return content[:16] == b"SQLite format 3\0"


def quote_name(name: str) -> str:
    """Return the name of a table or column as SQL takes it, whatever is in it."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def pseudonymize(value: Any) -> str:
    """Return the pseudonym of a value; equal values get equal pseudonyms."""
    return f"redacted-{hashlib.sha256(repr(value).encode()).hexdigest()[:10]}"
