"""Redaction: removes sensitive data before anything is written for others to read.

There are two kinds of rule. A *field* rule replaces a named field, in database columns and in encoded
records, with a mark derived from its value and the installation's secret salt: equal values have equal marks, so
the data can still be replayed, but nobody without the salt can find a value by trying. The values that field rules
have replaced, or that were learned from records, are replaced in texts, too. A *pattern* rule is a regular
expression; it blanks every match in any text, or only the match's group `secret` if the pattern has one. The built-in
patterns cover the usual forms of credentials; a deployment adds its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from holdover.runtime.files import make_private_directory, write_whole
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


SALT_FILE: Final = "redaction.salt"
"""The file in a guard's directory, and in the user's state directory, that holds the salt of the marks."""
_SALT_BYTES: Final = 32
_MARK: Final = re.compile(r"redacted-[0-9a-f]{16}")
_WORD: Final = re.compile(r"[A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*")
_LEARNED_MIN: Final = 4
"""Characters of the shortest value that is replaced in texts: a shorter one is part of many words."""
_LEARNED_MAX: Final = 10_000
_PROCESS_SALT: Final = secrets.token_bytes(_SALT_BYTES)
StructT = TypeVar("StructT", bound=msgspec.Struct)


def load_salt(directory: Path) -> bytes:
    """Return the salt of an installation, which is created at the first use, for its owner only.

    Where the file cannot be read or written, the marks are those of this process: equal only within it.
    """
    path = directory / SALT_FILE
    try:
        if not path.exists():
            write_whole(path, secrets.token_bytes(_SALT_BYTES))
        salt = path.read_bytes()
    except OSError:
        return _PROCESS_SALT
    return salt if len(salt) == _SALT_BYTES else _PROCESS_SALT


def load_user_salt() -> bytes:
    """Return the salt of this user, for files that belong to no guard: bundles and snapshots of the command line."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    directory = Path(base) / "holdover"
    try:
        make_private_directory(directory)
    except OSError:
        return _PROCESS_SALT
    return load_salt(directory)


class RedactionRuleError(ValueError):
    """A pattern is not a valid regular expression; the message names it."""


class RedactionRules:
    """The redaction rules: fields by name and patterns in any text.

    `salt` makes the marks those of one installation; without it they are those of this process. `list_records`
    yields the records whose values are learned before the first text is redacted. Raises `RedactionRuleError` for a
    pattern that does not compile.
    """

    def __init__(self, fields: Iterable[str] = (), patterns: Iterable[str] = (), salt: bytes = b"") -> None:
        self.fields = frozenset(fields)
        self.list_records: Callable[[], Iterable[object]] | None = None
        self._salt = salt or _PROCESS_SALT
        self._marks: dict[str, str] = {}
        self.patterns: list[re.Pattern[str]] = []
        for pattern in patterns:
            try:
                self.patterns.append(re.compile(pattern))
            except re.error as problem:
                raise RedactionRuleError(f"redaction pattern {pattern!r}: {problem}") from problem

    @classmethod
    def with_defaults(
        cls, fields: Iterable[str] = (), patterns: Iterable[str] = (), salt: bytes = b""
    ) -> RedactionRules:
        """Return Holdover's built-in rules plus these. Raises `RedactionRuleError`."""
        return cls((*FIELDS, *fields), (*PATTERNS, *patterns), salt)

    def learn(self, record: object) -> None:
        """Remember the values of a record's redacted fields, so that texts about it are redacted, too."""
        for name in self.fields.intersection(getattr(record, "__struct_fields__", ())):
            value = getattr(record, name)
            if value not in (None, ""):
                self.pseudonymize(value)

    def learn_scope(self, scope: str) -> None:
        """Remember the names in a scope whose kind is a redacted field, such as `account:12345678`."""
        for part in scope.split("/"):
            kind, _, name = part.partition(":")
            if name and kind in self.fields:
                self.pseudonymize(name)

    def redact_scope(self, scope: str) -> str:
        """Return a scope as alerts show it."""
        self.learn_scope(scope)
        return self.redact_text(scope)

    def learn_records(self) -> None:
        """Learn from every record of `list_records`, once."""
        list_records, self.list_records = self.list_records, None
        if list_records is not None and self.fields - set(FIELDS):
            for record in list_records():
                self.learn(record)

    def pseudonymize(self, value: Any) -> str:
        """Return the mark of a value; equal values get equal marks within one installation."""
        if isinstance(value, str) and _MARK.fullmatch(value):
            return value
        text = value if isinstance(value, str) else repr(value)
        mark = self._marks.get(text)
        if mark is None:
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._salt, digest_size=8).hexdigest()
            mark = f"redacted-{digest}"
            if len(self._marks) >= _LEARNED_MAX:
                self._marks.pop(next(iter(self._marks)))
            self._marks[text] = mark
        return mark

    def redact_text(self, text: str) -> str:
        """Blank every match of the patterns in a text, and replace the values that are known of redacted fields."""
        for pattern in self.patterns:
            text = pattern.sub(_blank_match, text)
        if self._marks:
            text = _WORD.sub(self._replace_word, text)
            for value, mark in list(self._marks.items()):
                if len(value) >= _LEARNED_MIN and not _WORD.fullmatch(value) and value in text:
                    text = text.replace(value, mark)
        return text

    def _replace_word(self, match: re.Match[str]) -> str:
        word = match.group(0)
        return self._marks.get(word, word) if len(word) >= _LEARNED_MIN else word

    def redact_struct(self, struct: StructT) -> StructT:
        """Return a struct for others, such as a breach or a page, with its texts redacted."""
        self.learn_records()
        self.learn_scope(str(getattr(struct, "scope", "")))
        changes = {
            name: self.redact_value(value)
            for name in struct.__struct_fields__
            if isinstance(value := getattr(struct, name), (str, list, dict))
        }
        return msgspec.structs.replace(struct, **changes)

    def redact_value(self, value: Any) -> Any:
        """Apply the rules to plain data of any depth."""
        if isinstance(value, dict):
            return {
                self._redact_key(key): self.pseudonymize(item)
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
                        redacted = self.pseudonymize(value) if is_named_field else self._redact_single(value)
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
