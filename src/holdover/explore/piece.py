"""Runs one piece of a sweep in its own process: `python -m holdover.explore.piece` with its input on standard
input.
"""

from __future__ import annotations

import sys

import msgspec

from holdover.explore.pool import exit_with_parent
from holdover.explore.sweep import run_piece

if __name__ == "__main__":
    parent, *arguments = msgspec.msgpack.decode(sys.stdin.buffer.read())
    exit_with_parent(parent)
    sys.stdout.buffer.write(run_piece(*arguments))
