"""Framing: finds FIX messages in the lines of a log, with any prefix and any field separator.

A line may hold a message behind any prefix, several messages, or none. BodyLength (9) and CheckSum (10) are
verified over the message as it was on the wire, with SOH between its fields. If a log omits them there is
nothing to verify, and the framer counts the message. This is custom code rather than a parsing library; see
docs/dependencies.md.
"""

from __future__ import annotations

from typing import Final
from zlib import adler32

import msgspec

from holdover.audit.tags import (
    BODY_LENGTH,
    ENCODED_ALLOC_TEXT_LEN,
    ENCODED_HEADLINE_LEN,
    ENCODED_ISSUER_LEN,
    ENCODED_LIST_EXEC_INST_LEN,
    ENCODED_SECURITY_DESC_LEN,
    ENCODED_SUBJECT_LEN,
    ENCODED_TEXT_LEN,
    ENCODED_UNDERLYING_ISSUER_LEN,
    ENCODED_UNDERLYING_SECURITY_DESC_LEN,
    MSG_TYPE,
    RAW_DATA_LENGTH,
    SECURE_DATA_LEN,
    XML_DATA_LEN,
)
from holdover.state import Stateful

FieldMap = dict[bytes, bytes]
"""The fields of one message by tag, both as in the log."""

_SOH: Final = b"\x01"
_BEGIN: Final = b"8=FIX"
_USUAL_BEGINNINGS: Final = (b"8=FIX.4.4\x019=", b"8=FIX.4.2\x019=", b"8=FIXT.1.1\x019=")
_SEPARATORS: Final = (_SOH, b"|", b"^A", b"<SOH>", b"\\x01", b"\xe2\x90\x81", b";")
PLAIN_TEXT: Final = "no FIX message"
"""Begins the reason for a line of plain text, which an engine writes between its messages."""
_LENGTHS: Final = (
    SECURE_DATA_LEN,
    RAW_DATA_LENGTH,
    XML_DATA_LEN,
    ENCODED_ISSUER_LEN,
    ENCODED_SECURITY_DESC_LEN,
    ENCODED_LIST_EXEC_INST_LEN,
    ENCODED_TEXT_LEN,
    ENCODED_SUBJECT_LEN,
    ENCODED_HEADLINE_LEN,
    ENCODED_ALLOC_TEXT_LEN,
    ENCODED_UNDERLYING_ISSUER_LEN,
    ENCODED_UNDERLYING_SECURITY_DESC_LEN,
)
"""Tags that announce raw data, which may contain anything, including a field separator."""


class FixFramerState(msgspec.Struct):
    """The state of a framer."""

    unverified: int


class FixFramer(Stateful[FixFramerState]):
    """Extracts messages from lines. `unverified` counts messages without a CheckSum (10) or BodyLength (9)."""

    State = FixFramerState

    def __init__(self) -> None:
        self.unverified = 0

    def split_line(self, line: bytes) -> list[FieldMap | str]:
        """Return the messages of one line in order; for an unusable message, the reason in a sentence."""
        at = line.find(_BEGIN)
        if at < 0:
            return [] if not line.strip() else [_describe_non_message(line)]
        separator = _find_separator(line, at)
        if not separator:
            return ["the BeginString (8) is not followed by SOH, | or ^A and the next field"]
        text = line[at:] if at else line
        if separator != _SOH:
            text = text.replace(separator, _SOH)
        messages: list[FieldMap | str] = []
        position = end = 0
        while True:
            # Each search ends at the next message, so that a line of many messages is read in linear time.
            if end >= 0:
                end = text.find(b"\x0110=", position)
            begin = text.find(b"\x018=FIX", position + 5, end if end >= 0 else len(text))
            if begin >= 0:
                messages.append(self._parse_message(text[position : begin + 1], -1))
                position = begin + 1
                continue
            if end < 0:
                messages.append(self._parse_message(text[position:] if position else text, -1))
                return messages
            whole = text if not position and len(text) < end + 16 else text[position : end + 16]
            messages.append(self._parse_message(whole, end - position))
            position = text.find(_BEGIN, end + 5)
            if position < 0:
                return messages

    def _parse_message(self, text: bytes, end: int) -> FieldMap | str:
        if end < 0:
            body = text.rstrip(b"\r\n \x01") + _SOH
        else:
            body = text[: end + 1]
        try:
            fields: FieldMap = dict([field.split(b"=", 1) for field in body[:-1].split(_SOH)])
        except ValueError:
            fields = _parse_raw_data(body)
            if not fields:
                return "a field has no = between tag and value"
        length = fields.get(BODY_LENGTH)
        if length is not None:
            begin = body.find(b"\x019=") + len(length) + 4
            if length != b"%d" % (len(body) - begin) and not _length_matches(length, len(body) - begin):
                if end < 0:
                    return f"truncated: BodyLength (9) is {_excerpt(length)}, {len(body) - begin} bytes are there"
                return f"BodyLength (9) is {_excerpt(length)}, it should be {len(body) - begin}"
        if end < 0 or length is None:
            self.unverified += 1
        else:
            checksum = text[end + 4 : end + 7]
            summed = (adler32(body) - 1 if len(body) <= 256 else _byte_sum(body)) & 0xFF
            if checksum != b"%03d" % summed:
                return f"CheckSum (10) is {_excerpt(checksum)}, it should be {summed:03d}"
        if MSG_TYPE not in fields:
            return "there is no MsgType (35)"
        return fields


def _byte_sum(body: bytes) -> int:
    # The low half of Adler-32 is the sum of the bytes and does not wrap for up to 256 of them: a fast sum, in C.
    return sum((adler32(body[at : at + 256]) - 1) & 0xFFFF for at in range(0, len(body), 256))


def _length_matches(declared: bytes, length: int) -> bool:
    return declared.isdigit() and len(declared) < 10 and int(declared) == length


def _parse_raw_data(body: bytes) -> FieldMap:
    """Return the fields of a message with raw data; empty when it announces none."""
    pieces = [field.split(b"=", 1) for field in body[:-1].split(_SOH)]
    fields = {piece[0]: piece[1] for piece in pieces if len(piece) == 2}
    return fields if any(tag in fields for tag in _LENGTHS) else {}


def _find_separator(line: bytes, at: int) -> bytes:
    """Return the separator between the fields, which follows the value of BeginString."""
    if line.startswith(_USUAL_BEGINNINGS, at):
        return _SOH
    value = at + 2
    for separator in _SEPARATORS:
        cut = line.find(separator, value, value + 16)
        if cut > 0 and line[value:cut].replace(b".", b"").isalnum() and _is_digit_at(line, cut + len(separator)):
            return separator
    return b""


def _is_digit_at(line: bytes, at: int) -> bool:
    return line[at : at + 1].isdigit()


def _describe_non_message(line: bytes) -> str:
    text = line.strip()
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        return f"not UTF-8, and no FIX message: {_excerpt(text)}"
    return (
        f"{PLAIN_TEXT}: {_excerpt(text)}" if decoded.isprintable() else f"binary, and no FIX message: {_excerpt(text)}"
    )


def _excerpt(text: bytes, size_max: int = 40) -> str:
    excerpt = text[:size_max].decode("utf-8", "replace")
    excerpt = "".join(character if character.isprintable() else "?" for character in excerpt)
    return f"'{excerpt}{'...' if len(text) > size_max else ''}'"
