"""A stateful object that consists of parts: each part declares its own state, and the whole saves them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from holdover.state.decoding import DECODE_ERRORS
from holdover.state.stateful import StateError, Stateful, StateT

OWN_PART = "own"
"""The name of the part that holds the object's own state."""


class Composite(Stateful[StateT]):
    """A `Stateful` with parts that are `Stateful` too. A subclass names them in `parts`."""

    __slots__ = ()

    def parts(self) -> Mapping[str, Stateful[Any]]:
        """Return the parts by name, in the order in which they are restored."""
        raise NotImplementedError

    def checkpoint(self) -> Any:
        """Return the state of the object and of its parts as it is now, for `rollback` in the same process."""
        return super().checkpoint(), [part.checkpoint() for part in self.parts().values()]

    def rollback(self, checkpoint: Any) -> None:
        """Make the state of the object and of its parts what it was when `checkpoint` was called, in place."""
        own, parts = checkpoint
        super().rollback(own)
        for part, saved in zip(self.parts().values(), parts, strict=True):
            part.rollback(saved)
        self._after_parts()

    def to_bytes(self) -> bytes:
        """Return the state of the object and of its parts, encoded as one MessagePack map."""
        content = {OWN_PART: msgspec.Raw(super().to_bytes())}
        content |= {name: msgspec.Raw(part.to_bytes()) for name, part in self.parts().items()}
        return msgspec.msgpack.encode(content)

    def restore_bytes(self, data: bytes) -> None:
        """Take up a state that `to_bytes` encoded.

        Raises `StateError` when it is damaged, or when a part is missing or unknown.
        """
        self._restore_parts(split_parts(data, type(self).__name__))

    def _restore_parts(self, content: dict[str, bytes]) -> None:
        parts = self.parts()
        if content.keys() != {OWN_PART, *parts}:
            differing = ", ".join(sorted(content.keys() ^ {OWN_PART, *parts}))
            raise StateError(f"the stored state of {type(self).__name__} has other parts than expected: {differing}")
        super().restore_bytes(content[OWN_PART])
        for name, part in parts.items():
            part.restore_bytes(content[name])
        self._after_parts()

    def _after_parts(self) -> None:
        """Compute what follows from several parts; called after all of them are restored."""


def split_parts(data: bytes, owner: str) -> dict[str, bytes]:
    """Return the encoded parts of a composite state by name.

    Raises `StateError`, which names `owner`, when the bytes are none.
    """
    try:
        return {name: bytes(part) for name, part in msgspec.msgpack.decode(data, type=dict[str, msgspec.Raw]).items()}
    except DECODE_ERRORS as error:
        raise StateError(f"the stored state of {owner} is damaged: {error}") from error
