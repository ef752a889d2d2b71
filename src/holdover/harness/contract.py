"""Checks a subject against the contract by running it through a short session on the bundled recordings."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
from holdover.harness.session import Session, SessionConfig
from holdover.harness.subject import Factory, Plan, SubjectError, resolve_factory
from holdover.model import Order, Position
from holdover.recording import bundled_store


def check_subject(name: str) -> list[str]:
    """Return every problem of a subject in words; an empty list when the subject keeps the contract."""
    try:
        factory = resolve_factory(name)
    except SubjectError as error:
        return [str(error)]
    store = bundled_store()
    symbol = store.symbols()[-1]
    days = store.days(symbol)
    plan = Plan(days=[store.get(symbol, day).meta for day in days])
    problems = _check_shape(factory, plan)
    if problems:
        return problems
    with tempfile.TemporaryDirectory() as directory:
        return _run_short_session(factory, store, symbol, days, Path(directory))


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


def _run_short_session(factory: Factory, store: Any, symbol: str, days: list[str], directory: Path) -> list[str]:
    problems: list[str] = []
    session = Session(factory, store, [symbol], directory, SessionConfig(days=days, catalogue=Catalogue.load()))
    try:
        try:
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
        except Exception as error:
            return [f"it raised {type(error).__name__} in phase {session.phase}: {error}"]
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
        problems += [f"breach of {breach.explanation}" for breach in session.breaches[:5]]
    finally:
        session.close()
    return problems
