"""The store of a QuickFIX session with its passwords taken out, so that the engine reads it as before.

A `.body` is message after message, a `.header` says where each begins and how long it is. A Logon in it carries the
password; blanked out it would move all that comes after it.

Source: QuickFIX, FileStore.cpp: entries `number,offset,size` with a space after each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from holdover.runtime.redaction import Rules

_ENTRY: Final = re.compile(rb"(\d+),(\d+),(\d+) ")
_LENGTH: Final = re.compile(rb"\A(8=[^\x01]+\x01)9=\d+\x01")


def redacted_store(parts: Mapping[str, bytes], rules: Rules) -> dict[str, bytes]:
    """The bodies and headers of such stores among some files, redacted; what is none of a store is not in it."""
    found: dict[str, bytes] = {}
    for name, body in parts.items():
        header = name.removesuffix(".body") + ".header"
        if name.endswith(".body") and header in parts:
            found[name], found[header] = _redacted(body, parts[header], rules)
    return found


def _redacted(body: bytes, header: bytes, rules: Rules) -> tuple[bytes, bytes]:
    new, entries = b"", b""
    for number, offset, size in _ENTRY.findall(header):
        text = body[int(offset) : int(offset) + int(size)]
        message = redacted_message(text, rules)
        entries += b"%d,%d,%d " % (int(number), len(new), len(message))
        new += message
    return new, entries


def redacted_message(text: bytes, rules: Rules) -> bytes:
    """A message with what the rules' patterns match blanked out; it stays one, with its length and its sum."""
    said = rules.text(text.decode("latin-1")).encode("latin-1", "replace")
    return text if said == text else _whole(said)


def _whole(text: bytes) -> bytes:
    """A message with the BodyLength and the CheckSum of what stands in it now."""
    end = text.rfind(b"\x0110=") + 1
    begin = _LENGTH.match(text)
    if begin is None or not end:
        return text
    said = text[begin.end() : end]
    body = begin[1] + b"9=%d\x01" % len(said) + said
    return body + b"10=%03d\x01" % (sum(body) % 256)
