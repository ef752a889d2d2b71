"""Checks a subject against the contract by running it through a short session on the bundled recordings."""

from __future__ import annotations

import contextlib
import inspect
import signal
import tempfile
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.harness.session import Session, SessionConfig
from holdover.harness.subject import Factory, Plan, SubjectError, resolve_factory
from holdover.model import SUBSYSTEMS, Order, Position, Record
from holdover.model.spelling import suggest_spelling
from holdover.recording import bundled_store
from holdover.runtime.reach import EntryReach, list_reach
from holdover.runtime.record_text import format_time

INSTANT_TIMERS_MAX: Final = 100_000
"""The number of timers at one instant from which a subject counts as livelocked."""

_STALL_S: Final = 60.0


class LivelockError(RuntimeError):
    """The subject does not let the time go on."""


class SubjectReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check: every problem in words, and which invariants can fire on what the subject records."""

    problems: list[str]
    reach: list[EntryReach] = []


def check_subject(name: str, *, stall_s: float = _STALL_S) -> SubjectReport:
    """Run a subject through two short days with a disconnect, a kill and a night.

    Args:
        name: the subject, as `--subject` takes it.
        stall_s: real time after which a call into the subject that does not return counts as a livelock.
    """
    try:
        factory = resolve_factory(name)
    except SubjectError as error:
        return SubjectReport(problems=[str(error)])
    store = bundled_store()
    symbol = store.symbols()[-1]
    days = store.days(symbol)
    plan = Plan(days=[store.get(symbol, day).meta for day in days])
    problems = _check_shape(factory, plan)
    if problems:
        return SubjectReport(problems=problems)
    with tempfile.TemporaryDirectory() as directory:
        return _run_short_session(factory, store, symbol, days, Path(directory), stall_s)


def _check_shape(factory: Factory, plan: Plan) -> list[str]:
    try:
        subject: Any = factory(plan)
    except Exception as error:
        return [f"making it from a plan raises {type(error).__name__}: {error}"]
    problems: list[str] = []
    accounts = getattr(subject, "accounts", None)
    if not accounts or isinstance(accounts, str) or not all(isinstance(account, str) for account in accounts):
        problems.append(f"accounts is {accounts!r}, should be the account names that it trades in")
    for method, arguments in (("start", 1), ("stop", 0)):
        function = getattr(subject, method, None)
        if not callable(function):
            problems.append(f"{method} is missing, should be a method")
            continue
        needed = [
            parameter
            for parameter in inspect.signature(function).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        if len(needed) != arguments:
            problems.append(
                f"{method} takes {len(needed)} arguments, should take {'one, the env' if arguments else 'none'}"
            )
    return problems


def _run_short_session(
    factory: Factory, store: Any, symbol: str, days: list[str], directory: Path, stall_s: float
) -> SubjectReport:
    session = Session(factory, store, [symbol], directory, SessionConfig(days=days, catalogue=Catalogue.load()))
    records = RecordChecks()
    session.host.on_record = records.check
    session.clock.before_timer = InstantCounter(session).count
    try:
        try:
            with limit_call_time(stall_s):
                _play_short_session(session, days)
        except LivelockError as error:
            return SubjectReport(problems=[*records.problems(), str(error)])
        except Exception as error:
            message = f"it raised {type(error).__name__} in phase {session.phase}: {error}"
            return SubjectReport(problems=[*records.problems(), message])
        problems = [*records.problems(), *_find_session_problems(session)]
        return SubjectReport(problems=problems, reach=list_reach(session.guard.monitor))
    finally:
        session.clock.before_timer = None
        session.close()


def _play_short_session(session: Session, days: list[str]) -> None:
    session.begin(days[0])
    session.run(0.3)
    session.disconnect()
    session.run(session.clock.now_ns + 60_000_000_000)
    session.reconnect()
    session.run(0.5)
    session.restart(kill=True)
    session.run()
    session.end()
    session.overnight()
    session.begin(days[1])
    session.run(0.2)


def _find_session_problems(session: Session) -> list[str]:
    problems: list[str] = []
    kinds = {table for table, records in session.guard.monitor.all_records().items() if records}
    for subsystem, kind in (("orders", Order), ("positions", Position)):
        if (subsystem, kind) not in kinds:
            problems.append(f"it never recorded a {kind.__name__} of {subsystem}: guard.record({subsystem!r}, ...)")
    if session.host.env is not None and "orders" not in session.host.env.guard.restored_subsystems:
        problems.append("it came up without saying what it read back: guard.restore('orders', [...])")
    if not session.link.sent_counts["out"]:
        problems.append("it sent nothing over env.link")
    if not any(session.disk.directory.iterdir()):
        problems.append("it kept nothing in env.directory, so nothing can survive a restart")
    return problems + [f"breach of {breach.explanation}" for breach in session.breaches[:5]]


class RecordChecks:
    """Checks the records of a subject: the types of their fields, and the names of their subsystems."""

    def __init__(self) -> None:
        self._problems: dict[str, None] = {}

    def check(self, subsystem: str, record: Record) -> None:
        """Check one record."""
        hint = "" if subsystem in SUBSYSTEMS else suggest_spelling(subsystem, SUBSYSTEMS)
        if hint:
            self._problems[f"it records in the subsystem {subsystem!r}, which no invariant reads{hint}"] = None
        kind = type(record)
        try:
            msgspec.convert(msgspec.to_builtins(record), kind)
        except (msgspec.ValidationError, TypeError) as error:
            problem = f"a {kind.__name__} of {subsystem} has a field of the wrong type: {error}"
            wrong = [name for name in kind.__struct_fields__ if isinstance(getattr(record, name), Decimal | float)]
            if wrong:
                problem += f"; convert {', '.join(wrong)} with Instrument.lots(), Instrument.ticks() or cash units"
            self._problems[problem] = None

    def problems(self) -> list[str]:
        """Return each problem once, in the order of appearance."""
        return list(self._problems)


class InstantCounter:
    """Counts the timers that run at one instant of the virtual clock."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._instant_ns = self._count = 0

    def count(self) -> None:
        """Count one timer. Raises `LivelockError` when the subject sets timers for now again and again."""
        now_ns = self._session.clock.now_ns
        self._count = self._count + 1 if now_ns == self._instant_ns else 1
        self._instant_ns = now_ns
        if self._count > INSTANT_TIMERS_MAX:
            raise LivelockError(
                f"it sets timers for the same instant again and again ({self._count:,} ran at {format_time(now_ns)}): "
                f"the time does not go on"
            )


@contextlib.contextmanager
def limit_call_time(seconds: float) -> Iterator[None]:
    """Raise `LivelockError` in the block when it takes longer, on the main thread of a system with timer signals."""
    can_signal = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not can_signal:
        yield
        return

    def raise_livelock(number: int, frame: object) -> None:
        raise LivelockError(f"it did not return within {seconds:g} s of real time: it waits or loops for ever")

    former = signal.signal(signal.SIGALRM, raise_livelock)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
