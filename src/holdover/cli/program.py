"""Runs one verb of the command line: parses the words, calls the verb, turns exceptions into exit codes."""

from __future__ import annotations

import argparse
import importlib
import logging

from holdover import __version__
from holdover.cli.commands import make_parser
from holdover.cli.errors import flush_output, is_pipe_closed, print_problem, report_error
from holdover.cli.verbs import VERBS


def run_words(words: list[str]) -> int:
    """Run one verb and return its exit code; see `holdover.cli.main`."""
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
