"""The command line: one module for each group of verbs.

Exit codes: 0 holds, 1 breach or gate not met, 2 bad input, 3 undecided.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from holdover import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code. Bad input prints one sentence a problem on standard error, without a
    traceback.
    """
    parser = argparse.ArgumentParser(
        prog="holdover", description="State-persistent testing and runtime invariants for live execution systems."
    )
    parser.add_argument("--version", action="version", version=f"holdover {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in _load_modules(list(sys.argv[1:] if argv is None else argv)):
        module.add_parser(verbs)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.CRITICAL, format="%(message)s")
    try:
        return int(arguments.run(arguments))
    except (ValueError, LookupError, OSError, RuntimeError, sqlite3.Error) as problem:
        if os.environ.get("HOLDOVER_DEBUG"):
            raise
        return report_error(problem)
    except KeyboardInterrupt:
        print("holdover: stopped", file=sys.stderr)
        return 3


_VERBS = {
    "cycle": ("cycle",),
    "carry": ("carry",),
    "explore": ("sweep", "replay"),
    "find": ("search", "shrink", "corpus", "faults"),
    "recording": ("recording",),
    "catalogue": ("catalogue",),
    "snapshot": ("snapshot",),
    "subject": ("subject",),
    "guard": ("status", "thaw", "freeze", "pages", "ack", "health", "audit-log"),
    "incidents": ("incidents",),
    "shadow": ("shadow",),
    "cutover": ("cutover",),
    "serve": ("serve", "users"),
    "config": ("config",),
    "bundle": ("bundle", "reproduce"),
    "audit": ("audit",),
    "watch": ("watch",),
    "venue": ("venue",),
    "desk": ("desk",),
    "coverage": ("coverage",),
    "gate": ("gate",),
}
"""The verbs of each module, in the order of the help."""


def _load_modules(argv: list[str]) -> Iterator[Any]:
    """Yield the module of the verb, or all modules when no verb is named, so that a verb imports only what it needs."""
    verb_arguments = argv[:1]
    named = [module for module, verbs in _VERBS.items() if verb_arguments and verb_arguments[0] in verbs]
    for module in named or _VERBS:
        yield importlib.import_module(f"holdover.cli.{module}")


def report_error(problem: BaseException) -> int:
    """Print an error on standard error; returns the exit code for bad input."""
    message = str(problem) or type(problem).__name__
    if isinstance(problem, OSError) and problem.strerror:
        message = f"{problem.filename or ''}: {problem.strerror}".lstrip(": ")
    for line in message.splitlines():
        print(f"holdover: {line}", file=sys.stderr)
    return 2


__all__ = ["report_error", "main"]
