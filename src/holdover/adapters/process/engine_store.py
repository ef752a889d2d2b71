"""Removes the passwords from a QuickFIX session store so that the engine can still read it.

A `.body` file has the messages one after the other; a `.header` file has the offset and size of each. A Logon
in it contains the password, and removing it changes the offsets of all later messages.

Source: QuickFIX, FileStore.cpp: entries `number,offset,size` with a space after each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from holdover.runtime.redaction import RedactionRules

_ENTRY: Final = re.compile(rb"(\d+),(\d+),(\d+) ")
_LENGTH: Final = re.compile(rb"\A(8=[^\x01]+\x01)9=\d+\x01")


def redact_engine_store(parts: Mapping[str, bytes], rules: RedactionRules) -> dict[str, bytes]:
    """Return the redacted bodies and headers of the session stores among some files; other files are left out."""
    redacted_parts: dict[str, bytes] = {}
    for name, body in parts.items():
        header = name.removesuffix(".body") + ".header"
        if name.endswith(".body") and header in parts:
            redacted_parts[name], redacted_parts[header] = _redact_session(body, parts[header], rules)
    return redacted_parts


def _redact_session(body: bytes, header: bytes, rules: RedactionRules) -> tuple[bytes, bytes]:
    new, entries = b"", b""
    for number, offset, size in _ENTRY.findall(header):
        text = body[int(offset) : int(offset) + int(size)]
        message = redact_message(text, rules)
        entries += b"%d,%d,%d " % (int(number), len(new), len(message))
        new += message
    return new, entries


def redact_message(text: bytes, rules: RedactionRules) -> bytes:
    """Redact what matches the rules' patterns; the result is a valid message with the right length and checksum."""
    redacted = rules.redact_text(text.decode("latin-1")).encode("latin-1", "replace")
    return text if redacted == text else _rebuild_message(redacted)


def _rebuild_message(text: bytes) -> bytes:
    """Return a message with its BodyLength and CheckSum recomputed."""
    end = text.rfind(b"\x0110=") + 1
    begin = _LENGTH.match(text)
    if begin is None or not end:
        return text
    content = text[begin.end() : end]
    body = begin[1] + b"9=%d\x01" % len(content) + content
    return body + b"10=%03d\x01" % (sum(body) % 256)
