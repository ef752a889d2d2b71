"""One piece of a sweep in a process of its own: `python -m holdover.explore.piece`, told on standard input."""

from __future__ import annotations

import sys

import msgspec

from holdover.explore.pool import die_with
from holdover.explore.sweep import do_piece

if __name__ == "__main__":
    parent, *given = msgspec.msgpack.decode(sys.stdin.buffer.read())
    die_with(parent)
    sys.stdout.buffer.write(do_piece(*given))
