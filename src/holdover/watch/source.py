"""Sources: where a watch reads lines from. A source knows its offset and reports what was lost."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Offset(msgspec.Struct, kw_only=True):
    """The position of a reader in its source.

    In a file: its inode, a digest of its first bytes, the offset after the last whole line. In a stream: its
    creation time, the sequence number and digest of the last message, how many messages were lost unread
    (`lost_count`), and how often the number of lost messages is unknown (`break_count`). In a spool: the file's
    number in `sequence`, and the offset in that file.
    """

    inode: int = 0
    head_digest: str = ""
    head_size: int = 0
    byte_offset: int = 0
    line: int = 0
    created: str = ""
    sequence: int = 0
    lost_count: int = 0
    break_count: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether everything that the source held was returned."""
        return not self.lost_count and not self.break_count


class SourceError(ValueError):
    """A source cannot be read; the message says which, why and what would be right."""


class Source(Protocol):
    """Returns lines; `notices` lists problems in sentences."""

    notices: list[str]

    @property
    def offset(self) -> Offset:
        """The position after the last line that `read_lines` returned."""

    @property
    def is_exhausted(self) -> bool:
        """Whether everything present at the start was returned; valid after `read_lines` returned nothing."""

    def read_lines(self, count_max: int = 5000) -> list[bytes]:
        """Return about `count_max` new whole lines at most; empty when there are none now."""

    def wait(self, seconds: float) -> None:
        """Wait up to `seconds` for more lines."""

    def forget(self, saved: Offset) -> None:
        """Delete what only the source itself stores and a reader that continues at `saved` no longer needs."""

    def close(self) -> None:
        """Close the source."""
