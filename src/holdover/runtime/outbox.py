"""The outbox of a freeze store: pages to deliver to channels, and their alerts.

A page stays until its channel has accepted it, an alert until it is resolved; both survive the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from holdover.runtime.audit_log import AuditLog
from holdover.runtime.breach import ACKNOWLEDGE, RESOLVE, TRIGGER, UPDATE, Page
from holdover.runtime.database import RunStatement, next_number
from holdover.runtime.persons import check_person

_LEASE_NS: Final = 15_000_000_000
RETRY_NS_MAX: Final = 300_000_000_000
"""The longest delay between two attempts to deliver a page."""


class PendingPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page that one channel has not accepted yet."""

    number: int
    channel: str
    page: Page
    attempts: int
    next_ns: int
    problem: str = ""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert: its page, its escalation level, who acknowledged it; open until it is resolved."""

    page: Page
    opened_ns: int
    level: int
    escalated_ns: int
    acknowledged_ns: int | None
    acknowledged_by: str
    resolved_ns: int | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One page to one channel, and the state of its delivery. `delivered_ns` is None until it is delivered."""

    number: int
    page: Page
    time_ns: int
    channel: str
    attempts: int
    next_ns: int
    delivered_ns: int | None
    problem: str


class Outbox(AuditLog):
    """Pages and alerts in the tables `outbox` and `alert`. Raises `StoreError` when these cannot be used."""

    def due_pages(self, now_ns: int, channels: Sequence[str] | None = None) -> list[PendingPage]:
        """Return the pages that are due for an attempt, oldest first; only the first of each channel and key."""
        pending_by_key: dict[tuple[str, str], PendingPage] = {}
        for pending in self.backlog():
            if channels is None or pending.channel in channels:
                pending_by_key.setdefault((pending.channel, pending.page.dedup_key), pending)
        # A time beyond any delay was written before the clock was set back.
        latest_ns = now_ns + RETRY_NS_MAX
        return [p for p in pending_by_key.values() if not now_ns < p.next_ns <= latest_ns]

    def backlog(self) -> list[PendingPage]:
        """Return every undelivered page, oldest first."""
        rows = self.database.read(
            "SELECT number, channel, dedup_key, body, attempts, next_ns, problem FROM outbox "
            "WHERE delivered_ns IS NULL ORDER BY number"
        )
        return [
            PendingPage(number=n, channel=c, page=read_page(key, b), attempts=a, next_ns=at, problem=p)
            for n, c, key, b, a, at, p in rows
        ]

    def claim(self, number: int, now_ns: int) -> bool:
        """Claim a page for an attempt, so that no other process delivers it at the same time. The claim expires."""

        def work(run: RunStatement) -> bool:
            return bool(
                run(
                    "UPDATE outbox SET next_ns=? WHERE number=? AND delivered_ns IS NULL AND "
                    "(next_ns<=? OR next_ns>?) RETURNING number",
                    now_ns + _LEASE_NS,
                    number,
                    now_ns,
                    now_ns + RETRY_NS_MAX,
                )
            )

        return self.database.write(work, durable=False)

    def all_pages(self) -> list[Page]:
        """Return every page ever sent, oldest first, once regardless of channels and repeats."""
        rows = self.database.read("SELECT dedup_key, body FROM outbox WHERE event='trigger' ORDER BY number")
        pages = [read_page(key, body) for key, body in rows]
        return list({(page.number, page.dedup_key): page for page in pages}.values())

    def deliveries_before(self, number: int, limit: int) -> list[Delivery]:
        """Return at most `limit` deliveries before a number (0: from the end), latest first."""
        if number < 0 or limit < 1:
            raise ValueError(f"{limit} deliveries before number {number}: at least 1, and 0 for the end")
        rows = self.database.read(
            "SELECT number, dedup_key, body, time_ns, channel, attempts, next_ns, delivered_ns, problem FROM outbox "
            "WHERE number<? ORDER BY number DESC LIMIT ?",
            number or 2**62,
            limit,
        )
        return [
            Delivery(
                number=n,
                page=read_page(key, body),
                time_ns=at,
                channel=channel,
                attempts=attempts,
                next_ns=next_ns,
                delivered_ns=delivered,
                problem=problem,
            )
            for n, key, body, at, channel, attempts, next_ns, delivered, problem in rows
        ]

    def mark_delivered(self, number: int, time_ns: int) -> None:
        """Mark a page as delivered."""

        if number < 1 or time_ns < 0:
            raise ValueError(f"page {number} delivered at {time_ns} ns: pages count from 1, times from 0")

        def work(run: RunStatement) -> None:
            run("UPDATE outbox SET delivered_ns=?, attempts=attempts+1, problem='' WHERE number=?", time_ns, number)

        self.database.write(work)

    def mark_failed(self, number: int, next_ns: int, problem: str) -> None:
        """Mark an attempt as failed; retry from `next_ns` on."""

        if next_ns < 0 or not problem:
            raise ValueError(f"attempt to deliver page {number}: a failure needs a reason and a time")

        def work(run: RunStatement) -> None:
            run(
                "UPDATE outbox SET attempts=attempts+1, next_ns=?, problem=? WHERE number=?",
                next_ns,
                problem[:500],
                number,
            )

        self.database.write(work)

    def send_page(self, page: Page, channels: Sequence[str]) -> bool:
        """Page on-call about something other than a breach. Returns False when an alert with the same key is open."""

        def work(run: RunStatement) -> bool:
            rows = run("SELECT resolved_ns FROM alert WHERE dedup_key=?", page.dedup_key)
            if rows and rows[0][0] is None:
                return False
            self._append_audit_row(run, page.time_ns, "page", page.title)
            self._open_alert(run, page, channels)
            return True

        return self.database.write(work)

    def resolve(self, dedup_key: str, by: str, time_ns: int) -> bool:
        """Resolve the alert with a key. Returns False when none was open. Raises `ValueError` without a person."""
        if not by.strip():
            raise ValueError(f"alert {dedup_key} needs somebody or something that resolves it")
        return self.database.write(lambda run: self._resolve(run, dedup_key, by, time_ns))

    def alerts(self, *, resolved: bool = False) -> list[Alert]:
        """Return the open alerts, oldest first; with `resolved`, all alerts in their last state."""
        rows = self.database.read(
            "SELECT dedup_key, body, opened_ns, level, escalated_ns, acknowledged_ns, acknowledged_by, resolved_ns "
            "FROM alert " + ("" if resolved else "WHERE resolved_ns IS NULL ") + "ORDER BY opened_ns, dedup_key"
        )
        return [
            Alert(
                page=read_page(key, body),
                opened_ns=opened,
                level=level,
                escalated_ns=escalated,
                acknowledged_ns=acknowledged,
                acknowledged_by=by,
                resolved_ns=resolved_ns,
            )
            for key, body, opened, level, escalated, acknowledged, by, resolved_ns in rows
        ]

    def acknowledge(self, dedup_key: str, operator: str, time_ns: int) -> bool:
        """Acknowledge an alert, which ends its escalation.

        Returns False when none is open or it is already acknowledged. Raises `ValueError` without an operator.
        """
        if not operator.strip():
            raise ValueError(f"alert {dedup_key} needs an operator who acknowledges it")
        check_person(operator)

        def work(run: RunStatement) -> bool:
            rows = run(
                "UPDATE alert SET acknowledged_ns=?, acknowledged_by=? "
                "WHERE dedup_key=? AND resolved_ns IS NULL AND acknowledged_ns IS NULL RETURNING body",
                time_ns,
                operator,
                dedup_key,
            )
            if rows:
                self._append_audit_row(run, time_ns, "acknowledge", f"{dedup_key} by {operator}")
                self._enqueue_follow_up(run, read_page(dedup_key, rows[0][0]), ACKNOWLEDGE, operator, time_ns)
            return bool(rows)

        return self.database.write(work)

    def escalate(self, alert: Alert, level: int, channels: Sequence[str], time_ns: int) -> bool:
        """Page the channels of a level about an unacknowledged alert. Returns False when another process just did."""

        if level < alert.level:
            raise ValueError(f"{alert.page.dedup_key} is at level {alert.level}: it cannot go back to {level}")

        def work(run: RunStatement) -> bool:
            page = alert.page
            rows = run(
                "UPDATE alert SET level=?, escalated_ns=? WHERE dedup_key=? AND level=? AND escalated_ns=? "
                "AND acknowledged_ns IS NULL AND resolved_ns IS NULL RETURNING dedup_key",
                level,
                time_ns,
                page.dedup_key,
                alert.level,
                alert.escalated_ns,
            )
            if rows:
                self._append_audit_row(run, time_ns, "escalate", f"{page.dedup_key} to level {level + 1}")
                self._enqueue(run, page, channels, time_ns)
            return bool(rows)

        return self.database.write(work)

    def _open_alert(self, run: RunStatement, page: Page, channels: Sequence[str]) -> None:
        if not page.dedup_key or page.event != TRIGGER:
            raise ValueError(f"an alert opens with a page that has a key, not with {page.event} of {page.dedup_key!r}")
        run(
            "INSERT INTO alert (dedup_key, body, opened_ns, breach) VALUES (?,?,?,?) ON CONFLICT (dedup_key) DO UPDATE "
            "SET body=excluded.body, opened_ns=excluded.opened_ns, breach=excluded.breach, level=0, escalated_ns=0, "
            "acknowledged_ns=NULL, acknowledged_by='', resolved_ns=NULL",
            page.dedup_key,
            msgspec.json.encode(page),
            page.time_ns,
            page.number,
        )
        self._enqueue(run, page, channels, page.time_ns)

    def _free_key(self, run: RunStatement, page: Page, subject: str) -> Page:
        """Return the page with a key that no open alert about another breach has."""
        if not page.dedup_key:
            raise ValueError(f"the page about {page.invariant} in {page.scope} has no key")
        for key in (page.dedup_key, f"{page.dedup_key}/{subject}", f"{page.dedup_key}/{subject}/{page.number}"):
            rows = run("SELECT breach FROM alert WHERE dedup_key=? AND resolved_ns IS NULL", key)
            if not rows or rows[0][0] == page.number:
                break
        return msgspec.structs.replace(page, dedup_key=key)

    def _add_consequence(self, run: RunStatement, cause: int, line: str, time_ns: int) -> None:
        """Add a line to the alert of a cause.

        Pages that still wait get the line, too. When the first page has been delivered, one update follows it.
        """
        if cause < 1:
            raise ValueError(f"{line!r} follows from breach {cause}: breaches count from 1")
        rows = run("SELECT dedup_key, body, opened_ns FROM alert WHERE breach=? AND resolved_ns IS NULL", cause)
        for key, body, opened_ns in rows:
            page = msgspec.json.decode(body, type=Page).with_consequences([line])
            run("UPDATE alert SET body=? WHERE dedup_key=?", msgspec.json.encode(page), key)
            for event in (TRIGGER, UPDATE):
                run(
                    "UPDATE outbox SET body=? WHERE dedup_key=? AND event=? AND time_ns>=? AND delivered_ns IS NULL",
                    msgspec.json.encode(msgspec.structs.replace(page, event=event)),
                    key,
                    event,
                    opened_ns,
                )
            sent = "SELECT COUNT(*) FROM outbox WHERE dedup_key=? AND event=? AND time_ns>=?"
            has_delivered = run(f"{sent} AND delivered_ns IS NOT NULL", key, TRIGGER, opened_ns)[0][0]
            if has_delivered and not run(sent, key, UPDATE, opened_ns)[0][0]:
                self._enqueue_follow_up(run, page, UPDATE, "", time_ns)

    def _withdraw_alerts(self, run: RunStatement, breaches: Sequence[int]) -> bool:
        """Remove the open alerts of breaches, if no channel has delivered any of them. Returns whether it did."""
        if not breaches or min(breaches) < 1:
            raise ValueError(f"alerts of the breaches {list(breaches)}: at least one, and they count from 1")
        keys = [
            (str(key), int(opened_ns))
            for number in breaches
            for key, opened_ns in run(
                "SELECT dedup_key, opened_ns FROM alert WHERE breach=? AND resolved_ns IS NULL", number
            )
        ]
        pages = "FROM outbox WHERE dedup_key=? AND time_ns>=?"
        if any(run(f"SELECT COUNT(*) {pages} AND (delivered_ns IS NOT NULL OR next_ns>0)", *key)[0][0] for key in keys):
            return False
        for key in keys:
            run(f"DELETE {pages}", *key)
            run("DELETE FROM alert WHERE dedup_key=?", key[0])
        return True

    def _enqueue(self, run: RunStatement, page: Page, channels: Sequence[str], time_ns: int) -> None:
        body = msgspec.json.encode(page)
        number = next_number(run, "outbox")
        for channel in channels:
            run(
                "INSERT INTO outbox (number, dedup_key, body, time_ns, channel, event) VALUES (?,?,?,?,?,?)",
                number,
                page.dedup_key,
                body,
                time_ns,
                channel,
                page.event,
            )
            number += 1

    def _resolve(self, run: RunStatement, dedup_key: str, by: str, time_ns: int) -> bool:
        rows = run(
            "UPDATE alert SET resolved_ns=? WHERE dedup_key=? AND resolved_ns IS NULL RETURNING body",
            time_ns,
            dedup_key,
        )
        if rows:
            self._enqueue_follow_up(run, read_page(dedup_key, rows[0][0]), RESOLVE, by, time_ns)
        return bool(rows)

    def _enqueue_follow_up(self, run: RunStatement, page: Page, event: str, by: str, time_ns: int) -> None:
        """Send an event of an alert to every channel that was paged for it."""
        rows = run(
            "SELECT DISTINCT channel FROM outbox WHERE dedup_key=? AND event=? AND time_ns>=? ORDER BY channel",
            page.dedup_key,
            TRIGGER,
            page.time_ns,
        )
        follow_up = msgspec.structs.replace(page, event=event, by=by, time_ns=time_ns)
        self._enqueue(run, follow_up, [str(channel) for (channel,) in rows], time_ns)


def read_page(dedup_key: str, body: bytes) -> Page:
    """Return the page of a row; for one that cannot be read, a page that says so, because it was to alert somebody."""
    try:
        return msgspec.json.decode(body, type=Page)
    except (msgspec.MsgspecError, TypeError) as problem:
        return Page(
            number=0,
            dedup_key=str(dedup_key),
            time_ns=0,
            severity="critical",
            invariant="alert",
            scope="",
            title=f"A damaged alert: {dedup_key}",
            explanation=f"The alert {dedup_key} cannot be read: {problem}.",
            statement="Every alert can be read.",
            implication="The store of the guard was damaged, and what the alert said is in the audit log.",
            steps=["Read the audit log and the frozen scopes. Done when: you know what was reported."],
            allows=[],
            next_command="holdover audit-log",
            digest="",
        )
