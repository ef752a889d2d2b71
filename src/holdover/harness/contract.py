"""The contract of a subject, checked by running it through a short life on the bundled sessions."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import Any

from holdover.catalogue import Catalogue
from holdover.harness.session import Session
from holdover.harness.subject import BadSubject, Factory, Plan, factory_named
from holdover.model import Order, Position
from holdover.recording import bundled


def check_subject(name: str) -> list[str]:
    """Every problem found, in words; empty when the subject keeps the contract."""
    try:
        factory = factory_named(name)
    except BadSubject as problem:
        return [str(problem)]
    store = bundled()
    symbol = store.symbols()[-1]
    days = store.days(symbol)
    plan = Plan(days=[store.get(symbol, day).meta for day in days])
    problems = _shape(factory, plan)
    if problems:
        return problems
    with tempfile.TemporaryDirectory() as place:
        return _life(factory, store, symbol, days, Path(place))


def _shape(factory: Factory, plan: Plan) -> list[str]:
    try:
        subject: Any = factory(plan)
    except Exception as problem:
        return [f"making it from a plan raises {type(problem).__name__}: {problem}"]
    problems: list[str] = []
    accounts = getattr(subject, "accounts", None)
    if not accounts or isinstance(accounts, str) or not all(isinstance(one, str) for one in accounts):
        problems.append(f"accounts is {accounts!r}, should be the account names that it trades in")
    for method, arguments in (("start", 1), ("stop", 0)):
        found = getattr(subject, method, None)
        if not callable(found):
            problems.append(f"{method} is missing, should be a method")
            continue
        needed = [
            one
            for one in inspect.signature(found).parameters.values()
            if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        ]
        if len(needed) != arguments:
            problems.append(
                f"{method} takes {len(needed)} arguments, should take {'one, the env' if arguments else 'none'}"
            )
    return problems


def _life(factory: Factory, store: Any, symbol: str, days: list[str], place: Path) -> list[str]:
    problems: list[str] = []
    session = Session(factory, store, [symbol], place, days=days, catalogue=Catalogue.load())
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
        except Exception as problem:
            return [f"it raised {type(problem).__name__} in phase {session.phase}: {problem}"]
        kinds = {table for table, kept in session.guard.monitor.layout.tables.items() if kept}
        for subsystem, kind in (("orders", Order), ("positions", Position)):
            if (subsystem, kind) not in kinds:
                problems.append(f"it never recorded a {kind.__name__} of {subsystem}: guard.record({subsystem!r}, ...)")
        if session.env is not None and "orders" not in session.env.guard.restored:
            problems.append("it came up without saying what it read back: guard.restore('orders', [...])")
        if not session.link.sent["out"]:
            problems.append("it sent nothing over env.link")
        if not any(session.subject_directory.iterdir()):
            problems.append("it kept nothing in env.directory, so nothing can survive a restart")
        problems += [f"breach of {one.explanation}" for one in session.breaches[:5]]
    finally:
        session.close()
    return problems
