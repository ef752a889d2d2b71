"""What a watch reads from: a source gives lines, knows where it stands in them, and says what was lost on the way."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Place(msgspec.Struct, kw_only=True):
    """Where a reader stands.

    In a file: its inode, a digest of its first bytes, the offset after the last whole line. In a stream: when it was
    made, the sequence number of the last message and a digest of that, how many messages were `lost` unread and, in
    `breaks`, how often nobody can say how many. In a spool: the number of its file in `sequence`, and the offset.
    """

    inode: int = 0
    head: str = ""
    head_size: int = 0
    offset: int = 0
    line: int = 0
    made: str = ""
    sequence: int = 0
    lost: int = 0
    breaks: int = 0

    @property
    def whole(self) -> bool:
        """Whether everything that the source held has been given."""
        return not self.lost and not self.breaks


class BadSource(ValueError):
    """A source that cannot be read; the message says which, why and what would be right."""


class Source(Protocol):
    """Gives lines; `told` says, in sentences, what went wrong on the way."""

    told: list[str]

    @property
    def place(self) -> Place:
        """After the last line that `lines` gave."""

    @property
    def ended(self) -> bool:
        """Whether what was there at the start has been given, once `lines` has given nothing."""

    def lines(self, most: int = 5000) -> list[bytes]:
        """Whole lines that have not been given yet, about so many at most; empty when there are none now."""

    def wait(self, seconds: float) -> None:
        """Wait so long for more to come."""

    def close(self) -> None:
        """Let go of it."""
