"""The command line: one module for each group of verbs.

Exit codes: 0 holds, 1 breach or gate not met, 2 usage or bad input, 3 could not tell.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from holdover import __version__
from holdover.cli.commands import make_parser
from holdover.cli.errors import flush_output, is_pipe_closed, print_problem, report_error
from holdover.cli.verbs import VERBS, list_modules


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code.

    Bad input prints a sentence for each problem and returns 2. A crash prints one sentence and returns 3.

    Args:
        argv: the words after the name of the program; default: those of the process.

    Raises:
        SystemExit: with 0 after `--help` and `--version`, with 2 for a word or option that does not exist.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except BrokenPipeError as problem:
        return 3 if is_pipe_closed() else report_error(problem)
    except KeyboardInterrupt:
        print_problem("stopped")
        return 3
    finally:
        flush_output()


def _run(words: list[str]) -> int:
    parser = make_parser(__version__)
    if not words:
        parser.print_help()
        return 0
    try:
        verbs = parser.add_subparsers(
            dest="verb", metavar="VERB", required=True, help=argparse.SUPPRESS, prog="holdover"
        )
        if words[0] in VERBS:
            importlib.import_module(f"holdover.cli.{VERBS[words[0]].module}").add_parser(verbs)
        elif not words[0].startswith("-"):
            for name in VERBS:
                verbs.add_parser(name)
    except Exception as problem:
        return report_error(problem)
    arguments = parser.parse_args(words)
    logging.basicConfig(level=logging.CRITICAL, format="%(message)s")
    try:
        return int(arguments.run(arguments))
    except BrokenPipeError:
        raise
    except (Exception, SystemExit) as problem:
        return report_error(problem)


__all__ = ["list_modules", "main", "report_error"]
