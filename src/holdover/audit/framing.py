"""FIX messages in the lines of a log: whatever stands before them, whatever stands between their fields.

One line may hold a message behind any prefix, several messages, or none. BodyLength (9) and CheckSum (10) are proved
over the message as it went over the wire, with SOH between its fields; where a log has left them out there is nothing
to prove, and that is counted. A loop of its own rather than a parsing library: see docs/dependencies.md.
"""

from __future__ import annotations

from typing import Final
from zlib import adler32

Fields = dict[bytes, bytes]
"""The fields of one message by tag, both as they stand in the log."""

_SOH: Final = b"\x01"
_BEGIN: Final = b"8=FIX"
_USUAL: Final = (b"8=FIX.4.4\x019=", b"8=FIX.4.2\x019=", b"8=FIXT.1.1\x019=")
_SEPARATORS: Final = (_SOH, b"|", b"^A", b"<SOH>", b"\\x01", b"\xe2\x90\x81", b";")
_LENGTHS: Final = (b"90", b"95", b"212", b"348", b"350", b"352", b"354", b"356", b"358", b"360", b"362", b"364")
"""Tags that announce data in which anything may stand, a field separator too."""


class Framing:
    """Takes messages out of lines, one line at a time. `unproved` counts messages that came without a CheckSum (10)."""

    def __init__(self) -> None:
        self.unproved = 0

    def take(self, line: bytes) -> list[Fields | str]:
        """The messages of one line in order; in place of one that cannot be used, the reason in a sentence."""
        at = line.find(_BEGIN)
        if at < 0:
            return [] if not line.strip() else [_no_message(line)]
        separator = _separator(line, at)
        if not separator:
            return ["the BeginString (8) is not followed by SOH, | or ^A and the next field"]
        text = line[at:] if at else line
        if separator != _SOH:
            text = text.replace(separator, _SOH)
        found: list[Fields | str] = []
        while True:
            end = text.find(b"\x0110=")
            other = text.find(b"\x018=FIX", 5)
            if other >= 0 and (end < 0 or other < end):
                found.append(self._message(text[: other + 1], -1))
                text = text[other + 1 :]
                continue
            found.append(self._message(text, end))
            next_one = text.find(_BEGIN, end + 5) if end >= 0 else -1
            if next_one < 0:
                return found
            text = text[next_one:]

    def _message(self, text: bytes, end: int) -> Fields | str:
        if end < 0:
            body = text.rstrip(b"\r\n \x01") + _SOH
        else:
            body = text[: end + 1]
        try:
            fields: Fields = dict([field.split(b"=", 1) for field in body[:-1].split(_SOH)])
        except ValueError:
            fields = _with_data(body)
            if not fields:
                return "a field has no = between tag and value"
        length = fields.get(b"9")
        if length is not None:
            begin = body.find(b"\x019=") + len(length) + 4
            if length != b"%d" % (len(body) - begin) and not _same(length, len(body) - begin):
                if end < 0:
                    return f"truncated: BodyLength (9) is {_shown(length)}, {len(body) - begin} bytes are there"
                return f"BodyLength (9) is {_shown(length)}, it should be {len(body) - begin}"
        if end < 0 or length is None:
            self.unproved += 1
        else:
            told = text[end + 4 : end + 7]
            summed = (adler32(body) - 1 if len(body) <= 256 else _sum(body)) & 0xFF
            if told != b"%03d" % summed:
                return f"CheckSum (10) is {_shown(told)}, it should be {summed:03d}"
        if b"35" not in fields:
            return "there is no MsgType (35)"
        return fields


def _sum(body: bytes) -> int:
    # Adler's low half is the sum of the bytes, and does not wrap for up to 256 of them: a fast sum, in C.
    return sum((adler32(body[at : at + 256]) - 1) & 0xFFFF for at in range(0, len(body), 256))


def _same(told: bytes, length: int) -> bool:
    return told.isdigit() and len(told) < 10 and int(told) == length


def _with_data(body: bytes) -> Fields:
    """The fields of a message that carries raw data; nothing when it announces none."""
    pieces = [field.split(b"=", 1) for field in body[:-1].split(_SOH)]
    fields = {piece[0]: piece[1] for piece in pieces if len(piece) == 2}
    return fields if any(tag in fields for tag in _LENGTHS) else {}


def _separator(line: bytes, at: int) -> bytes:
    """What stands between the fields: what follows the BeginString's value."""
    if line.startswith(_USUAL, at):
        return _SOH
    value = at + 2
    for separator in _SEPARATORS:
        cut = line.find(separator, value, value + 16)
        if cut > 0 and line[value:cut].replace(b".", b"").isalnum() and _digit(line, cut + len(separator)):
            return separator
    return b""


def _digit(line: bytes, at: int) -> bool:
    return line[at : at + 1].isdigit()


def _no_message(line: bytes) -> str:
    text = line.strip()
    try:
        told = text.decode("utf-8")
    except UnicodeDecodeError:
        return f"no FIX message, and not UTF-8: {_shown(text)}"
    return f"no FIX message: {_shown(text)}" if told.isprintable() else f"no FIX message, binary: {_shown(text)}"


def _shown(text: bytes, most: int = 40) -> str:
    told = text[:most].decode("utf-8", "replace")
    told = "".join(one if one.isprintable() else "?" for one in told)
    return f"'{told}{'...' if len(text) > most else ''}'"
