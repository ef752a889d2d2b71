"""`holdover status`, `pages`, `ack`, `freeze`, `thaw`, `health`, `audit-log`: what an operator asks and does.

Each takes the guard's directory or its configuration. What is done here is done as on the console: the same store, the
same audit log, and a thaw is judged by the same guard.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from holdover.model import SYSTEM
from holdover.runtime import FreezeStore, Pager, StoreProblem, ThawRequest
from holdover.runtime.heartbeat import Health, Seen, look, page_silence
from holdover.runtime.thawing import guard_at, thaw

_SCOPE: Final = re.compile(
    r"system|(subsystem|account|strategy|instrument|order|link):[^\s/]+|account:[^\s/]+/instrument:\S+"
)


def add_parser(verbs: Any) -> None:
    """Add the verbs."""

    def verb(name: str, run: Callable[[argparse.Namespace], int], told: str, more: str = "") -> Any:
        parser = verbs.add_parser(name, help=told, description=more or None)
        parser.add_argument(
            "--guard", type=Path, required=True, metavar="DIR|TOML", help="the guard's directory, or its configuration"
        )
        parser.add_argument("--json", action="store_true")
        parser.set_defaults(run=run)
        return parser

    verb("status", run_status, "what is frozen, and why")
    thawing = verb("thaw", run_thaw, "end the freezes of a scope: a named operator's audited act")
    thawing.add_argument("scope")
    thawing.add_argument("--operator", required=True)
    thawing.add_argument("--reason", required=True)
    thawing.add_argument("--evidence", required=True)
    thawing.add_argument("--force-by", default="", help="the second person who takes upon himself what is refused")
    thawing.add_argument("--wait", type=float, default=5.0, metavar="S", help="for the running guard's answer (5)")
    freezing = verb("freeze", run_freeze, "freeze a scope by hand: a named operator's audited act")
    freezing.add_argument(
        "scope", help="system, instrument:IBM, account:A1, account:A1/instrument:IBM, link:VENUE, ..."
    )
    freezing.add_argument("--operator", required=True)
    freezing.add_argument("--reason", required=True)
    freezing.add_argument("--allow", action="append", choices=("cancel", "reduce", "query"), help="(cancel, query)")
    verb("pages", run_pages, "the outbox: every page, with the operator's steps")
    taking = verb("ack", run_ack, "acknowledge a page: somebody is on it, and it goes no further up")
    taking.add_argument("key", metavar="KEY", help="as `holdover pages` shows it")
    taking.add_argument("--operator", required=True)
    health = verb(
        "health",
        run_health,
        "how each guarded process stands",
        "Exit codes: 0 HEALTHY or STOPPED, 1 FROZEN, 3 WEDGED or SILENT, or no process that has ever said anything.",
    )
    health.add_argument("--page", action="store_true", help="page on-call about what is wedged or silent, and deliver")
    health.add_argument("--follow", action="store_true", help="go on until stopped, and say what changes")
    health.add_argument("--every", type=float, default=5.0, metavar="S", help="with --follow: between two looks (5)")
    log = verb("audit-log", run_audit_log, "who did what, the log's head, and whether it is whole")
    log.add_argument("--last", type=int, default=50, metavar="N", help="only the last N acts; 0 for all (50)")


def _store(arguments: argparse.Namespace) -> FreezeStore:
    return guard_at(arguments.guard).open_store()


def _moment(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def run_status(arguments: argparse.Namespace) -> int:
    """0 when nothing is frozen, 1 when something is."""
    store = _store(arguments)
    frozen = store.in_force()
    audit = store.verify_audit()
    if arguments.json:
        told = [{"scope": one.scope, "invariant": one.invariant, "allows": one.allows} for one in frozen]
        print(json.dumps({"frozen": told, "audit": audit or "whole"}))
    else:
        for one in frozen:
            by = f"by {one.invariant}" if one.breach else one.invariant  # which says that it was by hand, and whose
            print(f"FROZEN {one.scope} {by}; still allowed: {', '.join(one.allows) or 'nothing'}")
        print("nothing is frozen" if not frozen else f"{len(frozen)} freezes in force")
        print(f"audit log: {audit or 'whole'}")
    return 1 if frozen or audit else 0


def run_thaw(arguments: argparse.Namespace) -> int:
    """0 when thawed; a refusal is told and exits with 2."""
    config = guard_at(arguments.guard)
    request = ThawRequest(
        number=0,
        scope=arguments.scope,
        operator=arguments.operator,
        reason=arguments.reason,
        evidence=arguments.evidence,
        forced_by=arguments.force_by,
    )
    done = thaw(config, config.open_store(), request, wait_s=arguments.wait)
    if arguments.json:
        print(json.dumps({"thawed": done.ended, "judged_by": done.judged_by}))
    else:
        judged = f", judged by the running guard {done.judged_by}" if done.judged_by else ""
        print(f"thawed {arguments.scope}: {done.ended} freezes ended{judged}")
    return 0


def check_scope(scope: str) -> str:
    """The scope, if a message can lie inside it. Raises `ValueError` with what one looks like."""
    if not _SCOPE.fullmatch(scope):
        raise ValueError(
            f"{scope!r} is no scope; it should be {SYSTEM}, or like instrument:IBM, account:A1, strategy:TWAP, "
            f"account:A1/instrument:IBM, link:VENUE, order:C-17, subsystem:orders"
        )
    return scope


def run_freeze(arguments: argparse.Namespace) -> int:
    """0: it is on the disk, and a running guard obeys it within the time it is configured to."""
    for what in ("operator", "reason"):
        if not getattr(arguments, what).strip():
            raise ValueError(f"a freeze by hand needs {what}: say who and why")
    allows = arguments.allow if arguments.allow is not None else ["cancel", "query"]
    scope = check_scope(arguments.scope)
    freeze = _store(arguments).freeze(scope, allows, arguments.operator, arguments.reason, time.time_ns())
    if arguments.json:
        print(json.dumps({"number": freeze.number, "scope": freeze.scope, "allows": freeze.allows}))
    else:
        print(f"frozen {freeze.scope}; still allowed: {', '.join(freeze.allows) or 'nothing'}")
    return 0


def run_pages(arguments: argparse.Namespace) -> int:
    """Always 0."""
    store = _store(arguments)
    pages = store.outbox()
    if arguments.json:
        print(json.dumps([{"key": page.dedup_key, "title": page.title, "steps": page.steps} for page in pages]))
        return 0
    alerts = {alert.page.dedup_key: alert for alert in store.alerts()}
    for page in pages:
        alert = alerts.get(page.dedup_key)
        stands = "over" if alert is None or alert.page.time_ns != page.time_ns else "open, nobody has acknowledged"
        if alert is not None and stands != "over" and alert.acknowledged_ns is not None:
            stands = f"open, acknowledged by {alert.acknowledged_by} at {_moment(alert.acknowledged_ns)}"
        print(f"{page.title}\n{_moment(page.time_ns)}, {stands}; key {page.dedup_key}\n{page.text()}")
    for one in store.backlog():
        problem = f": {one.problem}" if one.problem else ""
        print(f"not delivered yet by {one.channel}, {one.attempts} tries: {one.page.title}{problem}")
    print(f"{len(pages)} pages")
    return 0


def run_ack(arguments: argparse.Namespace) -> int:
    """0 when it is this operator's now. Raises `LookupError` when there is nothing to acknowledge."""
    store = _store(arguments)
    if not arguments.operator.strip():
        raise ValueError("an acknowledgement needs operator: say who")
    done = store.acknowledge(arguments.key, arguments.operator, time.time_ns())
    if not done:
        taken = {alert.page.dedup_key: alert.acknowledged_by for alert in store.alerts()}
        if arguments.key in taken:
            raise ValueError(f"{arguments.key} was acknowledged before, by {taken[arguments.key]}")
        raise ValueError(f"no page is open under {arguments.key}; open are: {', '.join(taken) or 'none'}")
    told = f"acknowledged {arguments.key} by {arguments.operator}"
    print(json.dumps({"acknowledged": arguments.key}) if arguments.json else told)
    return 0


def run_health(arguments: argparse.Namespace) -> int:
    """0 HEALTHY or STOPPED, 1 FROZEN, 3 WEDGED, SILENT or nothing known."""
    if arguments.every <= 0:
        raise ValueError(f"--every {arguments.every:g}: it should be above 0 seconds")
    config = guard_at(arguments.guard)
    store = config.open_store()
    pager = None
    if arguments.page:
        pager = Pager(store, config.channels(), time.time_ns, config.levels, config.repeat_s)
    told: list[tuple[str, str]] | None = None
    while True:
        try:
            seen = _looked(store, pager)
        except StoreProblem as problem:
            if not arguments.follow:
                raise
            print(f"holdover: {problem}", flush=True)
            told = None
        else:
            stands = [(one.name, str(one.health)) for one in seen]
            if stands != told:
                _say_health(seen, as_json=arguments.json)
            told = stands
            if not arguments.follow:
                worst = {one.health for one in seen}
                if not worst or any(not one.is_known for one in worst):
                    return 3
                return 1 if Health.FROZEN in worst else 0
        threading.Event().wait(arguments.every)


def _looked(store: FreezeStore, pager: Pager | None) -> list[Seen]:
    now_ns = time.time_ns()
    seen = look(store, now_ns)
    if pager is not None:
        for one in seen:
            page_silence(store, one, pager.names(), now_ns)
        pager.deliver_due()
    return seen


def _say_health(seen: list[Seen], *, as_json: bool) -> None:
    if as_json:
        told = [{"name": s.name, "health": s.health, "why": s.why, "age_s": round(s.age_s, 1)} for s in seen]
        print(json.dumps(told), flush=True)
        return
    for one in seen:
        print(f"{one.health:8} {one.name}: {one.why} (process {one.beat.pid} on {one.beat.host})", flush=True)
    if not seen:
        print("no guarded process has ever said that it lives", flush=True)


def run_audit_log(arguments: argparse.Namespace) -> int:
    """0 when the log is whole, 1 when it is not."""
    store = _store(arguments)
    if arguments.last < 0:
        raise ValueError(f"--last {arguments.last}: it should be 0 for all, or above")
    rows = store.audit()
    rows = rows[-arguments.last :] if arguments.last else rows
    head, wrong = store.audit_head(), store.verify_audit()
    if arguments.json:
        told = [{"number": n, "time_ns": t, "act": act, "detail": detail} for n, t, act, detail in rows]
        print(json.dumps({"acts": told, "head": head, "audit": wrong or "whole"}))
    else:
        for number, time_ns, act, detail in rows:
            print(f"{number:6} {_moment(time_ns)} {act:12} {detail}")
        print(f"head: {head.strip()}")
        print(f"audit log: {wrong or 'whole'}")
    return 1 if wrong else 0
