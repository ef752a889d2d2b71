"""Messages as fields: what is sent, what has been received, and the time stamps of both."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from holdover.model import fix_tags as tags

_HEADER_TAGS: Final = frozenset({tags.POSS_DUP_FLAG, tags.POSS_RESEND, tags.ORIG_SENDING_TIME})
SOH: Final = "\x01"
Field = tuple[int, Any]
"""A tag and its value: text, or a list of groups, each a list of fields."""


class FixMessageError(ValueError):
    """A message cannot be accepted. `tag` is the field at fault, 0 for the whole message."""

    def __init__(self, text: str, tag: int = 0) -> None:
        super().__init__(text)
        self.tag = tag


class FixMessage(msgspec.Struct, frozen=True):
    """One application message: MsgType (35) and fields."""

    kind: str
    fields: list[Field]

    def to_quickfix(self) -> Any:
        """Returns the message as a QuickFIX message."""
        import quickfix

        message = quickfix.Message()
        message.getHeader().setField(tags.MSG_TYPE, self.kind)
        for tag, value in self.fields:
            if not isinstance(value, list):
                (message.getHeader() if tag in _HEADER_TAGS else message).setField(tag, str(value))
                continue
            for entry in value:
                group = quickfix.Group(tag, entry[0][0])
                for inner, inner_value in entry:
                    group.setField(inner, str(inner_value))
                message.addGroup(group)
        return message


class ParsedMessage:
    """The fields of one received message, in their order."""

    def __init__(self, text: str) -> None:
        self.pairs: list[tuple[str, str]] = []
        self._first: dict[str, str] = {}
        for pair in text.split(SOH):
            tag, separator, value = pair.partition("=")
            if separator:
                self.pairs.append((tag, value))
                self._first.setdefault(tag, value)

    @property
    def kind(self) -> str:
        """MsgType (35)."""
        return self._first.get("35", "")

    def get(self, tag: int, default: str = "") -> str:
        """Returns the first field of a tag."""
        return self._first.get(str(tag), default)

    def require(self, tag: int) -> str:
        """Returns the first field of a tag. Raises `FixMessageError` when it is missing."""
        value = self._first.get(str(tag), "")
        if not value:
            raise FixMessageError(f"required tag missing: {tag}", tag)
        return value

    def values(self, tag: int) -> list[str]:
        """Returns every value of a tag."""
        return [value for name, value in self.pairs if name == str(tag)]

    def groups(self, count: int) -> list[dict[int, str]]:
        """Returns the entries of a repeating group: each begins with the tag that the first one begins with."""
        group_entries: list[dict[int, str]] = []
        inside, delimiter = False, ""
        for tag, value in self.pairs:
            if tag == str(count):
                inside = True
            elif inside:
                delimiter = delimiter or tag
                if tag == delimiter:
                    group_entries.append({})
                group_entries[-1][int(tag)] = value
        return group_entries[: int(self.get(count, "0") or 0)]


def format_utc_timestamp(time_ns: int) -> str:
    """Returns a time (ns) as UTCTimestamp with nanoseconds."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d-%H:%M:%S}.{rest:09d}"


def parse_utc_timestamp(text: str) -> int:
    """Returns a UTCTimestamp as ns since the epoch; 0 for an empty text. Raises `FixMessageError`."""
    if not text:
        return 0
    whole, _, part = text.partition(".")
    try:
        moment = datetime.strptime(whole, "%Y%m%d-%H:%M:%S").replace(tzinfo=UTC)
        return int(moment.timestamp()) * 1_000_000_000 + (int(part.ljust(9, "0")[:9]) if part else 0)
    except ValueError as problem:
        raise FixMessageError(f"{text!r} is no UTCTimestamp YYYYMMDD-HH:MM:SS[.sss]") from problem


def non_empty(*fields: Field) -> list[Field]:
    """Return the fields that have a value."""
    return [field for field in fields if field[1] != ""]
