"""Decodes a DBN file in a process of its own: `python -m holdover.recording.dbn_decoder FILE`.

The decoder is native code, and some damaged files end its process. So a child process decodes, within a bound of
memory, and writes one MessagePack list of records on standard output. The parent takes any other end for a file that
cannot be decoded.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

MEMORY_MAX: Final = 8 << 30
"""Bytes of address space of the child: a busy day of one instrument takes 2 GB."""
TIMEOUT_S: Final = 600.0
_NO_DECODER: Final = 4
_BAD_FILE: Final = 5


class DbnRecord(msgspec.Struct, frozen=True, array_like=True):
    """What a recording takes of one DBN record; prices in units of 10^-9. `status` is empty for other records."""

    ts_event: int
    price: int | None = None
    size: int | None = None
    is_trade: bool = False
    top: tuple[int, int, int, int] | None = None
    status: str = ""


class DbnDecodingError(ValueError):
    """A file cannot be decoded; the message gives the reason."""


def decode_dbn(path: Path) -> list[DbnRecord]:
    """Return the records of a DBN file in its order.

    Raises `DbnDecodingError` for a file that cannot be decoded, and `ImportError` when the decoder is not installed.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-m", "holdover.recording.dbn_decoder", str(path.resolve())],
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as problem:
        raise DbnDecodingError(f"decoding took longer than {TIMEOUT_S:.0f} s") from problem
    if child.returncode == _NO_DECODER:
        raise ImportError("databento_dbn is not installed", name="databento_dbn")
    lines = child.stderr.decode("utf-8", "replace").strip().splitlines()
    if child.returncode == _BAD_FILE:
        raise DbnDecodingError(lines[-1] if lines else "the decoder gave no reason")
    if child.returncode:
        raise DbnDecodingError(f"the decoder ended with {child.returncode}")
    return msgspec.msgpack.decode(child.stdout, type=list[DbnRecord])


def _take_record(record: Any) -> DbnRecord:
    levels = getattr(record, "levels", None)
    price = getattr(record, "price", None)
    ts_event = int(record.ts_event)
    if levels:
        top = levels[0]
        is_trade = str(getattr(record, "action", "")) in ("T", "Action.TRADE", "Trade")
        return DbnRecord(
            ts_event,
            int(price) if is_trade and price is not None else None,
            int(record.size) if is_trade else None,
            is_trade,
            (int(top.bid_px), int(top.bid_sz), int(top.ask_px), int(top.ask_sz)),
        )
    if price is not None and hasattr(record, "size"):
        return DbnRecord(ts_event, int(price), int(record.size), True)
    if hasattr(record, "is_trading"):
        return DbnRecord(ts_event, status="trading" if str(record.is_trading) in ("Y", "True") else "halt")
    return DbnRecord(ts_event)


def main(path: str) -> int:
    """Decode one file; return the exit code of the process."""
    try:
        import databento_dbn
    except ImportError:
        return _NO_DECODER
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        decoder = databento_dbn.DBNDecoder()
        decoder.write(Path(path).read_bytes())
        records = [_take_record(record) for record in decoder.decode() if hasattr(record, "ts_event")]
    except (Exception, MemoryError) as problem:
        print(f"{type(problem).__name__}: {problem}".splitlines()[0][:300], file=sys.stderr)
        return _BAD_FILE
    sys.stdout.buffer.write(msgspec.msgpack.encode(records))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
