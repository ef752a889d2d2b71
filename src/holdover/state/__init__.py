"""State as a value: one declaration for each stateful class, one checkpoint, one rollback, one encoding."""

from holdover.state.composite import Composite, split_parts
from holdover.state.decoding import DECODE_ERRORS
from holdover.state.encoding import decode_msgpack, encode_msgpack
from holdover.state.stateful import (
    InPlace,
    Owned,
    StateError,
    Stateful,
    StoredFormat,
    decode_stored,
    encode_stored,
    undeclared_attributes,
)

__all__ = [
    "DECODE_ERRORS",
    "Composite",
    "InPlace",
    "Owned",
    "StateError",
    "Stateful",
    "StoredFormat",
    "decode_msgpack",
    "decode_stored",
    "encode_msgpack",
    "encode_stored",
    "split_parts",
    "undeclared_attributes",
]
