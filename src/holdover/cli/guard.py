"""`holdover status`, `pages`, `ack`, `freeze`, `thaw`, `health`, `audit-log`: the operator's commands.

Each takes the guard's directory or configuration. They have the same effect as the console: the same store
and audit log, and the same guard decides a thaw.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from holdover.cli.approval import check_approver
from holdover.cli.catalogue import reach_lines
from holdover.cli.commands import CommandParser, Run, add_verb
from holdover.cli.options import add_guard_option, add_json_option, add_operator_option
from holdover.model import SYSTEM
from holdover.model.spelling import suggest_spelling
from holdover.runtime import Breach, Freeze, FreezeStore, Pager, StoreError, ThawRefusedError, ThawRequest
from holdover.runtime.config import GuardConfig
from holdover.runtime.heartbeat import Health, ProcessHealth, page_unhealthy_process, read_health
from holdover.runtime.pasted_commands import thaw_command
from holdover.runtime.persons import check_person, escape_unprintable
from holdover.runtime.thaw_requests import find_guard_config, thaw

_SCOPE: Final = re.compile(
    r"system|(subsystem|account|strategy|instrument|order|link):[^\s/]+|account:[^\s/]+/instrument:\S+"
)

_SCOPE_KINDS: Final = (SYSTEM, "subsystem", "account", "strategy", "instrument", "order", "link")
_SUBSYSTEMS: Final = ("orders", "positions", "ledger", "risk", "gateway", "venue")


def add_parser(verbs: Any) -> None:
    """Add the verbs."""

    def verb(name: str, run: Run, example: str, exits: dict[int, str], details: str = "") -> CommandParser:
        parser = add_verb(verbs, name, f"holdover {example}", exits, details=details, run=run)
        add_guard_option(parser)
        add_json_option(parser)
        return parser

    verb(
        "status",
        run_status,
        "status --guard guard.toml",
        {0: "nothing is frozen, and the audit log is intact", 1: "a scope is frozen, or the audit log was changed"},
    )
    _add_freeze_and_thaw(verb)
    _add_alerts(verb)


def _add_freeze_and_thaw(verb: Callable[..., CommandParser]) -> None:
    freezing = verb(
        "freeze",
        run_freeze,
        'freeze instrument:IBM --guard guard.toml --operator ann --reason "positions differ"',
        {0: "frozen"},
        "The freeze and its reason are written to the audit log. A running guard applies it within milliseconds.",
    )
    freezing.add_argument(
        "scope",
        metavar="SCOPE",
        help="system, subsystem:orders, account:A1, strategy:TWAP, instrument:IBM, account:A1/instrument:IBM, "
        "order:C-17 or link:VENUE",
    )
    add_operator_option(freezing)
    freezing.add_argument("--reason", required=True, help="why, for the audit log")
    freezing.add_argument(
        "--allow",
        action="append",
        choices=("cancel", "reduce", "query"),
        help="what stays allowed; may be repeated (default cancel and query)",
    )
    thawing = verb(
        "thaw",
        run_thaw,
        'thaw instrument:IBM --guard guard.toml --operator ann --reason repaired --evidence "ticket 1234"',
        {0: "thawed", 2: "usage error, bad input, or refused: the invariant still does not hold"},
        "A running guard decides. If none is running, its saved state decides.",
    )
    thawing.add_argument("scope", metavar="SCOPE", help="the frozen scope, as `holdover status` shows it")
    add_operator_option(thawing)
    thawing.add_argument("--reason", required=True, help="why the freeze may end, for the audit log")
    thawing.add_argument("--evidence", required=True, help="what shows that it may end, for the audit log")
    thawing.add_argument(
        "--force-by",
        default="",
        metavar="NAME",
        help="the approver who overrides the refusal, a user of the console and not the operator; asked for the "
        "password",
    )
    thawing.add_argument(
        "--password-file", type=Path, metavar="FILE", help="read the approver's password from this file (mode 0600)"
    )
    thawing.add_argument(
        "--password-env", default="", metavar="VARIABLE", help="read the approver's password from this variable"
    )
    thawing.add_argument(
        "--wait",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long to wait for the running guard (default 5)",
    )


def _add_alerts(verb: Callable[..., CommandParser]) -> None:
    verb("pages", run_pages, "pages --guard guard.toml", {0: "done"})
    ack_parser = verb("ack", run_ack, "ack 7c1f --guard guard.toml --operator ann", {0: "acknowledged"})
    ack_parser.add_argument("key", metavar="KEY", help="the key of the alert, as `holdover pages` shows it")
    add_operator_option(ack_parser)
    health = verb(
        "health",
        run_health,
        "health --guard guard.toml",
        {
            0: "every process is HEALTHY or STOPPED",
            1: "a process is FROZEN",
            3: "a process is WEDGED or SILENT, or none has ever reported",
        },
    )
    health.add_argument(
        "--page", action="store_true", help="alert on-call about wedged and silent processes, and deliver alerts"
    )
    health.add_argument(
        "--invariants",
        action="store_true",
        help="list the invariants that can fire, and why others cannot",
    )
    health.add_argument("--follow", action="store_true", help="run until stopped, and print each change")
    health.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="with --follow: time between two checks (default 5)"
    )
    log = verb(
        "audit-log",
        run_audit_log,
        "audit-log --guard guard.toml --last 10",
        {0: "the log is intact", 1: "the log was changed"},
    )
    log.add_argument("--last", type=int, default=50, metavar="N", help="show the last N entries (default 50), 0: all")


def _open_store(arguments: argparse.Namespace) -> FreezeStore:
    return find_guard_config(arguments.guard).open_store()


def _format_time(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def run_status(arguments: argparse.Namespace) -> int:
    """Print the freezes in force; returns 0 when there is none and the audit log is intact, else 1."""
    config = find_guard_config(arguments.guard)
    store = config.open_store()
    frozen = store.active_freezes()
    observed = store.observed_freezes(open_only=True)
    audit = store.verify_audit()
    breaches = {freeze.breach: store.find_breach(freeze.breach) for freeze in frozen if freeze.breach}
    if arguments.json:
        freezes = [
            {
                "scope": freeze.scope,
                "invariant": freeze.invariant,
                "allows": freeze.allows,
                "breach": freeze.breach,
                "cause": breach.cause_number if (breach := breaches.get(freeze.breach)) is not None else 0,
                "thaw": thaw_command(freeze.scope, config.location),
            }
            for freeze in frozen
        ]
        would_be = [{"scope": freeze.scope, "invariant": freeze.invariant} for freeze in observed]
        print(json.dumps({"frozen": freezes, "observed": would_be, "audit": audit or "whole"}))
    else:
        lines = _status_lines(store, frozen, breaches)
        lines += [f"to thaw: {thaw_command(scope, config.location)}" for scope in _scopes_of(frozen)]
        lines += [f"OBSERVED {freeze.scope} by {freeze.invariant}; nothing is frozen for it" for freeze in observed]
        lines.append("nothing is frozen" if not frozen else f"{_count(len(frozen), 'freeze')} in force")
        lines.append(f"audit log: {audit or 'whole'}")
        print("\n".join(escape_unprintable(line) for line in lines))
    return 1 if frozen or audit else 0


def _status_lines(store: FreezeStore, frozen: Sequence[Freeze], breaches: Mapping[int, Breach | None]) -> list[str]:
    """Return a line for each freeze, below each cause what followed from it."""
    causes = {
        freeze.number: breach.cause_number if (breach := breaches.get(freeze.breach)) is not None else -freeze.number
        for freeze in frozen
    }
    lines = []
    for cause in dict.fromkeys(causes.values()):
        freezes = [freeze for freeze in frozen if causes[freeze.number] == cause]
        freezes.sort(key=lambda freeze: freeze.breach != cause)
        for freeze in freezes:
            # A manual freeze has the operator in this field.
            by = f"by {freeze.invariant}" if freeze.breach else freeze.invariant
            follows = f", which follows from breach {cause}" if freeze.breach and freeze.breach != cause else ""
            indent = "  " if follows else ""
            allowed = ", ".join(freeze.allows) or "nothing"
            lines.append(f"{indent}FROZEN {freeze.scope} {by}{follows}; still allowed: {allowed}")
        unfrozen = len(store.breaches_by_cause(cause)) - len(freezes) if cause > 0 else 0
        if unfrozen > 0:
            lines.append(f"  {_count(unfrozen, 'further breach', 'further breaches')} in these scopes")
    return lines


def _scopes_of(frozen: Sequence[Freeze]) -> list[str]:
    return list(dict.fromkeys(freeze.scope for freeze in frozen))


def _count(count: int, noun: str, plural: str = "") -> str:
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def run_thaw(arguments: argparse.Namespace) -> int:
    """Thaw a scope; returns 0. A refusal raises `ThawRefusedError` (exit code 2)."""
    config = find_guard_config(arguments.guard)
    store = config.open_store()
    check_person(arguments.operator)
    arguments.scope = find_marked_scope(config, arguments.scope, [freeze.scope for freeze in store.active_freezes()])
    try:
        if arguments.force_by:
            check_approver(store, arguments)
        request = ThawRequest(
            number=0,
            scope=arguments.scope,
            operator=arguments.operator,
            reason=arguments.reason,
            evidence=arguments.evidence,
            forced_by=arguments.force_by,
        )
        result = thaw(config, store, request, wait_s=arguments.wait)
    except ThawRefusedError as refusal:
        store.log_action("thaw refused", f"{arguments.scope} by {arguments.operator}: {refusal}", time.time_ns())
        raise
    if arguments.json:
        print(json.dumps({"thawed": result.ended_count, "judged_by": result.judged_by}))
    else:
        judged = f", judged by the running guard {result.judged_by}" if result.judged_by else ""
        print(f"thawed {arguments.scope}: {result.ended_count} freezes ended{judged}")
    return 0


def find_marked_scope(config: GuardConfig, scope: str, frozen_scopes: Sequence[str]) -> str:
    """Return the frozen scope that an alert shows as `scope`; alerts show a mark instead of a redacted name."""
    if "redacted-" not in scope:
        return scope
    rules = config.redaction_rules()
    return next((frozen for frozen in frozen_scopes if rules.redact_scope(frozen) == scope), scope)


def check_scope(scope: str) -> str:
    """Return a valid scope unchanged. Raises `ValueError` with examples for an invalid one."""
    if not _SCOPE.fullmatch(scope):
        kind, _, name = scope.partition(":")
        hint = suggest_spelling(kind, _SCOPE_KINDS) if name or kind not in _SCOPE_KINDS else ""
        raise ValueError(
            f"{scope!r} is no scope{hint}; it should be {SYSTEM}, or like instrument:IBM, account:A1, strategy:TWAP, "
            f"account:A1/instrument:IBM, link:VENUE, order:C-17, subsystem:orders"
        )
    return scope


def suggest_scope(scope: str, symbols: Sequence[str]) -> str:
    """Return a question with the scope that was probably meant; empty when the scope is not mistyped.

    Args:
        scope: a valid scope.
        symbols: the instruments of the guard's configuration; empty when it names none.

    Returns:
        `; did you mean SCOPE?`, when the subsystem or instrument is unknown and similar to a known one. A system may
        have subsystems of its own, so an unknown one can be frozen.
    """
    kind, _, name = scope.rpartition("/")[2].partition(":")
    choices = _SUBSYSTEMS if kind == "subsystem" else symbols if kind == "instrument" else ()
    if name in choices:
        return ""
    prefix = scope[: len(scope) - len(name)]
    return suggest_spelling(name, choices).replace("mean ", f"mean {prefix}", 1)


def run_freeze(arguments: argparse.Namespace) -> int:
    """Freeze a scope durably; returns 0. A running guard applies it within its configured time."""
    for name in ("operator", "reason"):
        if not getattr(arguments, name).strip():
            raise ValueError(f"a manual freeze needs --{name}")
    allows = arguments.allow if arguments.allow is not None else ["cancel", "query"]
    scope = check_scope(arguments.scope)
    config = find_guard_config(arguments.guard)
    hint = suggest_scope(scope, [instrument.symbol for instrument in config.instruments])
    if hint:
        print(f"holdover: {scope} is frozen, but a guard knows no such scope{hint}", file=sys.stderr)
    freeze = config.open_store().freeze(scope, allows, arguments.operator, arguments.reason, time.time_ns())
    if arguments.json:
        print(json.dumps({"number": freeze.number, "scope": freeze.scope, "allows": freeze.allows}))
    else:
        print(f"frozen {freeze.scope}; still allowed: {', '.join(freeze.allows) or 'nothing'}")
    return 0


def run_pages(arguments: argparse.Namespace) -> int:
    """Print the outbox; always returns 0."""
    store = _open_store(arguments)
    pages = store.all_pages()
    if arguments.json:
        print(json.dumps([{"key": page.dedup_key, "title": page.title, "steps": page.steps} for page in pages]))
        return 0
    alerts = {alert.page.dedup_key: alert for alert in store.alerts()}
    for page in pages:
        alert = alerts.get(page.dedup_key)
        state = "over" if alert is None or alert.page.time_ns != page.time_ns else "open, nobody has acknowledged"
        if alert is not None and state != "over" and alert.acknowledged_ns is not None:
            state = f"open, acknowledged by {alert.acknowledged_by} at {_format_time(alert.acknowledged_ns)}"
        shown = page if state == "over" or alert is None else alert.page  # it has what followed since the page was sent
        print(f"{page.title}\n{_format_time(page.time_ns)}, {state}; key {page.dedup_key}\n{shown.text()}")
    for delivery in store.backlog():
        problem = f": {delivery.problem}" if delivery.problem else ""
        print(f"not delivered yet by {delivery.channel}, {delivery.attempts} tries: {delivery.page.title}{problem}")
    print(f"{len(pages)} pages")
    return 0


def run_ack(arguments: argparse.Namespace) -> int:
    """Acknowledge an alert; returns 0. Raises `ValueError` when it is not open or was acknowledged before."""
    store = _open_store(arguments)
    if not arguments.operator.strip():
        raise ValueError("an acknowledgement needs --operator")
    is_acknowledged = store.acknowledge(arguments.key, arguments.operator, time.time_ns())
    if not is_acknowledged:
        operators = {alert.page.dedup_key: alert.acknowledged_by for alert in store.alerts()}
        if arguments.key in operators:
            raise ValueError(f"{arguments.key} was acknowledged before, by {operators[arguments.key]}")
        raise ValueError(f"no alert is open under {arguments.key}; open are: {', '.join(operators) or 'none'}")
    message = f"acknowledged {arguments.key} by {arguments.operator}"
    print(json.dumps({"acknowledged": arguments.key}) if arguments.json else message)
    return 0


def run_health(arguments: argparse.Namespace) -> int:
    """Print the health of each guarded process.

    Returns 0 for HEALTHY or STOPPED, 1 for FROZEN, 3 for WEDGED, SILENT or no known process.
    """
    if arguments.every <= 0:
        raise ValueError(f"--every {arguments.every:g}: it should be above 0 seconds")
    config = find_guard_config(arguments.guard)
    store = config.open_store()
    pager = None
    if arguments.page:
        pager = Pager(store, config.make_channels(), time.time_ns, config.pages.level, config.pages.repeat_s)
        pager.redact = config.redaction_rules().redact_struct
    last_states: list[tuple[str, str]] | None = None
    while True:
        try:
            processes = _check_processes(store, pager, config.location)
        except StoreError as problem:
            if not arguments.follow:
                raise
            print(f"holdover: {problem}", flush=True)
            last_states = None
        else:
            states = [(process.name, str(process.health)) for process in processes]
            if states != last_states:
                _print_health(processes, as_json=arguments.json, with_invariants=arguments.invariants)
            last_states = states
            if not arguments.follow:
                worst = {process.health for process in processes}
                if not worst or any(not health.is_known for health in worst):
                    return 3
                return 1 if Health.FROZEN in worst else 0
        threading.Event().wait(arguments.every)


def _check_processes(store: FreezeStore, pager: Pager | None, guard: Path) -> list[ProcessHealth]:
    now_ns = time.time_ns()
    processes = read_health(store, now_ns)
    if pager is not None:
        for process in processes:
            page_unhealthy_process(store, process, pager.channel_names(), now_ns, guard)
        pager.deliver_due()
    return processes


def _print_health(processes: list[ProcessHealth], *, as_json: bool, with_invariants: bool = False) -> None:
    if as_json:
        rows: list[dict[str, Any]] = [
            {"name": s.name, "health": s.health, "why": s.reason, "age_s": round(s.age_s, 1)} for s in processes
        ]
        if with_invariants:
            for row, process in zip(rows, processes, strict=True):
                row["invariants"] = [
                    {"name": entry.name, "reach": entry.reach, "reason": entry.reason}
                    for entry in process.beat.invariants
                ]
        print(json.dumps(rows), flush=True)
        return
    for process in processes:
        print(
            f"{process.health:8} {process.name}: {process.reason} (process {process.beat.pid} on {process.beat.host})",
            flush=True,
        )
        if with_invariants:
            print("\n".join(reach_lines(process.beat.invariants)), flush=True)
    if not processes:
        print("no guarded process has reported yet", flush=True)


def run_audit_log(arguments: argparse.Namespace) -> int:
    """Print the audit log; returns 0 when it is intact, else 1."""
    store = _open_store(arguments)
    if arguments.last < 0:
        raise ValueError(f"--last {arguments.last}: it should be 0 (all entries) or more")
    rows = store.audit_rows()
    rows = rows[-arguments.last :] if arguments.last else rows
    head, wrong = store.audit_head(), store.verify_audit()
    if arguments.json:
        entries = [{"number": n, "time_ns": t, "act": action, "detail": detail} for n, t, action, detail in rows]
        print(json.dumps({"acts": entries, "head": head, "audit": wrong or "whole"}))
    else:
        for number, time_ns, action, detail in rows:
            print(escape_unprintable(f"{number:6} {_format_time(time_ns)} {action:12} {detail}"))
        print(f"head: {head.strip()}")
        print(f"audit log: {wrong or 'whole'}")
    return 1 if wrong else 0
