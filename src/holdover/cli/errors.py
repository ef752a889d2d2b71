"""What the command line prints and returns for an exception.

Bad input prints a sentence and returns 2. A crash of the tool or of an adapter prints a sentence with the place and
returns 3: it says nothing about the system under test, so it never returns 1, the code of a breach. An exception is
bad input when its class is one of ours, when our code raised it on purpose, or when the operating system or a parser of
files raised it, and no adapter let it through; everything else is a crash.
"""

from __future__ import annotations

import contextlib
import dis
import importlib.util
import json
import os
import select
import site
import sqlite3
import sys
import sysconfig
import tomllib
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

import holdover

TRACEBACK_VARIABLE: Final = "HOLDOVER_TRACEBACK"
"""The environment variable that prints the traceback of a crash."""

EXTRAS: Final[dict[str, str]] = {
    "apprise": "paging",
    "argon2": "console",
    "ccxt": "freqtrade",
    "databento_dbn": "dbn",
    "distributed": "dask",
    "dask": "dask",
    "exchange_calendars": "calendars",
    "freqtrade": "freqtrade",
    "greenlet": "freqtrade",
    "hypothesis": "hypothesis",
    "isal": "speed",
    "nats": "nats",
    "nautilus_trader": "nautilus",
    "numpy": "calendars",
    "opentelemetry": "otel",
    "pandas": "calendars",
    "prometheus_client": "metrics",
    "psycopg": "postgresql",
    "pytest": "test",
    "quickfix": "fix",
    "redis": "redis",
    "scipy": "statistics",
    "starlette": "console",
    "time_machine": "freqtrade",
    "uvicorn": "console",
    "websockets": "shadow",
}
"""The optional extra of `holdover` that installs each third-party package."""

_PACKAGE_DIR: Final = str(Path(holdover.__file__).parent)
_LIBRARY_DIRS: Final = tuple(
    {
        os.path.realpath(path)
        for path in (
            sysconfig.get_path("stdlib"),
            sysconfig.get_path("purelib"),
            sysconfig.get_path("platlib"),
            *site.getsitepackages(),
        )
    }
)
_OWN_RECURSION_MIN: Final = 100
"""Frames of ours in the traceback of a RecursionError that our own code caused."""
_PLAIN_TYPES: Final = (ValueError, LookupError, RuntimeError, KeyError, TypeError)
_INPUT_TYPES: Final = (
    OSError,
    sqlite3.Error,
    UnicodeError,
    json.JSONDecodeError,
    tomllib.TOMLDecodeError,
    msgspec.MsgspecError,
)


def report_error(problem: BaseException) -> int:
    """Print an exception on standard error and return the exit code: 2 for bad input, 3 for a crash."""
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(problem)
    extra = find_missing_extra(problem)
    if extra is not None:
        package, extra_name = extra
        print_problem(f"this needs {package}, which is not installed: pip install 'holdover[{extra_name}]'")
        return 2
    if is_bad_input(problem):
        message = str(problem) or type(problem).__name__
        if isinstance(problem, KeyError) and problem.args:
            message = str(problem.args[0])  # str() of a KeyError is the repr of its text
        if isinstance(problem, OSError) and problem.strerror:
            message = f"{problem.filename or ''}: {problem.strerror}".lstrip(": ")
        print_problem(message)
        return 2
    message = f"{type(problem).__name__}: {problem}".rstrip(": ").splitlines()[0]
    crashed, place = _place_of(problem.__traceback__)
    print_problem(
        f"{crashed} failed{place} with {message}. This says nothing about the system under test. "
        f"To see the traceback, set {TRACEBACK_VARIABLE}=1 and run the same command."
    )
    return 3


def print_problem(message: str) -> None:
    """Print each line of a message on standard error, with the name of the program."""
    for line in message.splitlines():
        print(f"holdover: {line}", file=sys.stderr)


def find_missing_extra(problem: BaseException | None) -> tuple[str, str] | None:
    """Return the package that is not installed and the extra that installs it, if that caused the exception."""
    while problem is not None:
        if isinstance(problem, ImportError) and problem.name:
            package = problem.name.partition(".")[0]
            if package in EXTRAS and not _is_installed(package):
                return package, EXTRAS[package]
        problem = problem.__cause__ or (None if problem.__suppress_context__ else problem.__context__)
    return None


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def is_bad_input(problem: BaseException) -> bool:
    """Return whether an exception is about what the user gave, and not a crash."""
    frames = list(_own_frames(problem.__traceback__))
    if not all(_is_ours(frame) for frame in frames):
        return False  # it went through an adapter, which did not handle it
    if type(problem).__module__.partition(".")[0] == "holdover":
        return isinstance(problem, Exception)
    if type(problem) in _PLAIN_TYPES:
        return bool(frames) and _raises_on_purpose(problem.__traceback__)
    if isinstance(problem, RecursionError):
        return len(frames) < _OWN_RECURSION_MIN  # raised inside a decoder, by a document that is nested too deeply
    return isinstance(problem, _INPUT_TYPES)


def _own_frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    """Yield the entries of a traceback that are neither of the standard library nor of an installed library."""
    while trace is not None:
        path = os.path.realpath(trace.tb_frame.f_code.co_filename)
        if path.startswith(_PACKAGE_DIR) or not path.startswith((*_LIBRARY_DIRS, "<")):
            yield trace
        trace = trace.tb_next


def _is_ours(trace: TracebackType) -> bool:
    return os.path.realpath(trace.tb_frame.f_code.co_filename).startswith(_PACKAGE_DIR)


def _raises_on_purpose(trace: TracebackType | None) -> bool:
    """Return whether our code raised the exception with a statement, and no operation in it or below it failed."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    opcode = trace.tb_frame.f_code.co_code[trace.tb_lasti]
    return _is_ours(trace) and dis.opname[opcode] == "RAISE_VARARGS"


def _place_of(trace: TracebackType | None) -> tuple[str, str]:
    """Return who failed, and where, as words."""
    frames = list(_own_frames(trace))
    if not frames:
        return "the tool", ""
    foreign = [frame for frame in frames if not _is_ours(frame)]
    frame = (foreign or frames)[-1]
    code = frame.tb_frame.f_code
    owner = "the tool" if not foreign and "/adapters/" not in code.co_filename else "the adapter"
    return owner, f" in {code.co_filename}, line {frame.tb_lineno},"


def is_pipe_closed() -> bool:
    """Return whether nobody reads standard output or standard error any more."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            if any(events & select.POLLERR for _, events in poll.poll(0)):
                return True
    return False


def flush_output() -> None:
    """Flush both streams. One that nobody reads any more is replaced, so that the interpreter ends in silence."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        except ValueError:
            pass  # the stream has been closed
