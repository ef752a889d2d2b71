"""`holdover status`, `thaw`, `pages`: what a guard's directory holds, and the operator's one act on it."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from holdover.runtime import FreezeStore, Guard, StoreProblem


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    status = verbs.add_parser("status", help="what is frozen, and why")
    status.set_defaults(run=run_status)
    thaw = verbs.add_parser("thaw", help="end the freezes of a scope: a named operator's audited act")
    thaw.add_argument("scope")
    thaw.add_argument("--operator", required=True)
    thaw.add_argument("--reason", required=True)
    thaw.add_argument("--evidence", required=True)
    thaw.add_argument("--force-by", default="", help="the second person who takes a thaw upon himself that is refused")
    thaw.set_defaults(run=run_thaw)
    pages = verbs.add_parser("pages", help="the outbox: every page, with the operator's steps")
    pages.set_defaults(run=run_pages)
    for parser in (status, thaw, pages):
        parser.add_argument("--guard", type=Path, required=True, help="the guard's directory")
        parser.add_argument("--json", action="store_true")


def _store(directory: Path) -> FreezeStore:
    if not (directory / "guard.db").exists():
        raise StoreProblem(f"{directory}: no guard has ever run here (guard.db is missing)")
    return FreezeStore(directory / "guard.db")


def run_status(arguments: argparse.Namespace) -> int:
    """0 when nothing is frozen, 1 when something is."""
    store = _store(arguments.guard)
    frozen = store.in_force()
    audit = store.verify_audit()
    if arguments.json:
        told = [{"scope": one.scope, "invariant": one.invariant, "allows": one.allows} for one in frozen]
        print(json.dumps({"frozen": told, "audit": audit or "whole"}))
    else:
        for one in frozen:
            print(f"FROZEN {one.scope} by {one.invariant}; still allowed: {', '.join(one.allows) or 'nothing'}")
        print("nothing is frozen" if not frozen else f"{len(frozen)} freezes in force")
        print(f"audit log: {audit or 'whole'}")
    return 1 if frozen or audit else 0


def run_thaw(arguments: argparse.Namespace) -> int:
    """0 when thawed; a refusal is told and exits with 2."""
    _store(arguments.guard).close()
    guard = Guard(arguments.guard, clock=time.time_ns, channels=[])
    guard.recall()
    done = guard.thaw(
        arguments.scope,
        operator=arguments.operator,
        reason=arguments.reason,
        evidence=arguments.evidence,
        forced_by=arguments.force_by,
    )
    guard.close()
    print(json.dumps({"thawed": done}) if arguments.json else f"thawed {arguments.scope}: {done} freezes ended")
    return 0


def run_pages(arguments: argparse.Namespace) -> int:
    """Always 0."""
    pages = _store(arguments.guard).outbox()
    if arguments.json:
        print(json.dumps([{"key": page.dedup_key, "title": page.title, "steps": page.steps} for page in pages]))
    else:
        for page in pages:
            print(f"{page.title}\n{page.text()}")
        print(f"{len(pages)} pages")
    return 0
