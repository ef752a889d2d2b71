"""The command line: one module for each group of verbs.

Exit codes: 0 holds, 1 breach or gate not met, 2 usage or bad input, 3 could not tell.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code.

    Bad input prints a sentence for each problem and returns 2. A crash prints one sentence and returns 3.

    Args:
        argv: the words after the name of the program; default: those of the process.

    Raises:
        SystemExit: with 0 after `--help` and `--version`, with 2 for a word or option that does not exist.
    """
    try:
        from holdover.cli.program import run_words
    except Exception as problem:  # a broken installation; Python would end with 1, the code of a breach
        print(f"holdover: the installation is broken: {type(problem).__name__}: {problem}", file=sys.stderr)
        return 3
    return run_words(list(sys.argv[1:] if argv is None else argv))


__all__ = ["main"]
