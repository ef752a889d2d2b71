"""MessagePack with integers of any length.

MessagePack ends at 64 bits, and a notional of 1,000 coins with eight decimals each in quantity and price needs more. A
longer integer is stored as an extension value, its decimal digits. Data without such an integer has the same bytes as
plain MessagePack, and only data with one pays for the conversion.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, ValuesView
from itertools import islice
from typing import Any, Final, TypeVar, overload

import msgspec

T = TypeVar("T")

LONG_INTEGER: Final = 1
"""The code of the extension type that holds the decimal digits of an integer beyond 64 bits."""

_DIGITS_MAX: Final = 4_000  # below the limit at which Python refuses to convert digits

_PIECE_ITEMS: Final = 100

_encode: Final = msgspec.msgpack.Encoder().encode


def encode_msgpack(value: Any) -> bytes:
    """Return a value encoded as MessagePack; it may contain integers of up to 4,000 digits."""
    try:
        return _encode(value)
    except OverflowError:
        return _encode(_mark_long_integers(value))


@overload
def decode_msgpack(data: bytes) -> Any: ...


@overload
def decode_msgpack(data: bytes, kind: type[T], dec_hook: Callable[[type, Any], Any] | None = None) -> T: ...


def decode_msgpack(data: bytes, kind: Any = Any, dec_hook: Callable[[type, Any], Any] | None = None) -> Any:
    """Return the value that `encode_msgpack` encoded, as `kind`. Raises `msgspec.MsgspecError` when it is damaged."""
    try:
        return msgspec.msgpack.decode(data, type=kind, dec_hook=dec_hook, ext_hook=_decode_extension)
    except msgspec.ValidationError as error:
        # A field of type int does not take an extension value: decode it first, and convert the result.
        try:
            value = msgspec.msgpack.decode(data, ext_hook=_decode_extension)
            return msgspec.convert(value, kind, dec_hook=dec_hook)
        except (TypeError, ValueError):
            raise error from None


def encode_in_pieces(
    value: Any, convert: Callable[[Any], Any] | None = None, give_way: Callable[[], None] = lambda: None
) -> Iterator[bytes]:
    """Yield a value encoded as `encode_msgpack` does, in pieces of bounded size.

    Args:
        value: lists, tuples and dicts are divided, also those in a list or an `array_like` struct of them.
        convert: replaces each part before it is encoded; it receives plain data or a struct.
        give_way: called between two parts, to let other threads run.
    """
    if isinstance(value, dict):
        yield encode_header(len(value), dict)
        items = iter(value.items())
        while chunk := dict(islice(items, _PIECE_ITEMS)):
            encoded = encode_msgpack(chunk if convert is None else convert(chunk))
            yield encoded[len(encode_header(len(chunk), dict)) :]
            give_way()
    elif isinstance(value, list | tuple) and value and _is_array(value[0]):
        yield encode_header(len(value), list)
        for item in value:
            yield encode_header(len(item.__struct_fields__), list)
            for name in item.__struct_fields__:
                yield from encode_in_pieces(getattr(item, name), convert, give_way)
    elif isinstance(value, list | tuple | ValuesView):
        yield encode_header(len(value), list)
        rest = iter(value)
        while part := list(islice(rest, _PIECE_ITEMS)):
            if convert is not None:
                converted = []
                for item in part:
                    converted.append(convert(item))
                    give_way()
                part = converted
            encoded = encode_msgpack(part)
            yield encoded[len(encode_header(len(part), list)) :]
            give_way()
    else:
        yield encode_msgpack(value if convert is None else convert(value))


def encode_header(count: int, kind: type) -> bytes:
    """Return the MessagePack header of a list or a dict with so many items."""
    small, medium, large = (0x80, 0xDE, 0xDF) if kind is dict else (0x90, 0xDC, 0xDD)
    if count < 16:
        return bytes([small + count])
    if count < 2**16:
        return bytes([medium]) + count.to_bytes(2, "big")
    return bytes([large]) + count.to_bytes(4, "big")


def _is_array(item: Any) -> bool:
    """Whether an item is a struct that contains lists or dicts of its own and is encoded as an array."""
    if not isinstance(item, msgspec.Struct) or not item.__struct_config__.array_like:
        return False
    return any(isinstance(getattr(item, name), list | tuple | dict | ValuesView) for name in item.__struct_fields__)


def _mark_long_integers(value: Any) -> Any:
    """Replace the integers beyond 64 bits in a value by extension values."""
    if isinstance(value, int):
        if -(2**63) <= value < 2**64:
            return value
        digits = str(value).encode()
        if len(digits) > _DIGITS_MAX:
            raise OverflowError(f"an integer of {len(digits)} digits cannot be stored; at most {_DIGITS_MAX}")
        return msgspec.msgpack.Ext(LONG_INTEGER, digits)
    if value is None or isinstance(value, str | float | bytes | bytearray):
        return value
    if isinstance(value, dict):
        return {_mark_long_integers(key): _mark_long_integers(item) for key, item in value.items()}
    if isinstance(value, tuple):  # a tuple may be a key
        return tuple(_mark_long_integers(item) for item in value)
    if isinstance(value, list | set | frozenset | deque):
        return [_mark_long_integers(item) for item in value]
    if isinstance(value, msgspec.msgpack.Ext | msgspec.Raw):
        return value
    builtins = msgspec.to_builtins(value, builtin_types=(bytes, bytearray), order=None)
    return value if builtins is value else _mark_long_integers(builtins)


def _decode_extension(code: int, data: memoryview) -> Any:
    if code != LONG_INTEGER:
        return msgspec.msgpack.Ext(code, bytes(data))
    if len(data) > _DIGITS_MAX:
        raise msgspec.ValidationError(f"an integer of {len(data)} digits; at most {_DIGITS_MAX}")
    try:
        return int(bytes(data))
    except ValueError as error:
        raise msgspec.ValidationError(f"an integer cannot be read: {error}") from None
