"""What a decoder raises for bytes from elsewhere."""

from __future__ import annotations

from typing import Final

import msgspec

DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError)
"""What msgspec raises for bytes that it cannot decode: damaged, of other types, not UTF-8, or nested too deeply."""
