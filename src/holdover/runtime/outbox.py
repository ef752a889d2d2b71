"""The outbox of a freeze store: pages on their way to their channels, and the alerts that they belong to.

A page stays until its channel has taken it, an alert until it is resolved; both survive whatever a process does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from holdover.runtime.auditlog import AuditLog
from holdover.runtime.breach import ACKNOWLEDGE, RESOLVE, TRIGGER, Page
from holdover.runtime.database import Run, next_number

_LEASE_NS: Final = 15_000_000_000


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A page that one channel has not delivered yet."""

    number: int
    channel: str
    page: Page
    attempts: int
    next_ns: int
    problem: str = ""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What on-call was paged with under one key, how far it went up, who acknowledged it; open until it is resolved."""

    page: Page
    opened_ns: int
    level: int
    escalated_ns: int
    acknowledged_ns: int | None
    acknowledged_by: str
    resolved_ns: int | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One page on its way to one channel, and how far it came. `delivered_ns` is None until it is there."""

    number: int
    page: Page
    time_ns: int
    channel: str
    attempts: int
    next_ns: int
    delivered_ns: int | None
    problem: str


class Outbox(AuditLog):
    """Pages and alerts in the tables `outbox` and `alert`. Raises `StoreProblem` when these cannot be used."""

    def undelivered(self, now_ns: int, channels: Sequence[str] | None = None) -> list[Pending]:
        """The pages that are due for a try, oldest first; of a channel and a key only the first."""
        found: dict[tuple[str, str], Pending] = {}
        for one in self.backlog():
            if channels is None or one.channel in channels:
                found.setdefault((one.channel, one.page.dedup_key), one)
        return [one for one in found.values() if one.next_ns <= now_ns]

    def backlog(self) -> list[Pending]:
        """Everything in the outbox that is not delivered, oldest first."""
        rows = self.database.read(
            "SELECT number, channel, body, attempts, next_ns, problem FROM outbox "
            "WHERE delivered_ns IS NULL ORDER BY number"
        )
        return [
            Pending(number=n, channel=c, page=msgspec.json.decode(b, type=Page), attempts=a, next_ns=at, problem=p)
            for n, c, b, a, at, p in rows
        ]

    def claim(self, number: int, now_ns: int) -> bool:
        """Take a page for a try, so that no other process tries at the same time; the claim ends by itself."""

        def work(run: Run) -> bool:
            return bool(
                run(
                    "UPDATE outbox SET next_ns=? WHERE number=? AND delivered_ns IS NULL AND next_ns<=? "
                    "RETURNING number",
                    now_ns + _LEASE_NS,
                    number,
                    now_ns,
                )
            )

        return self.database.write(work, durable=False)

    def outbox(self) -> list[Page]:
        """Every page ever put into the outbox, oldest first, once however many channels and repeats it has."""
        rows = self.database.read("SELECT body FROM outbox WHERE event='trigger' ORDER BY number")
        pages = [msgspec.json.decode(body, type=Page) for (body,) in rows]
        return list({(page.number, page.dedup_key): page for page in pages}.values())

    def deliveries_before(self, number: int, limit: int) -> list[Delivery]:
        """At most `limit` rows of the outbox before that number (0: from the last on), the latest first."""
        rows = self.database.read(
            "SELECT number, body, time_ns, channel, attempts, next_ns, delivered_ns, problem FROM outbox "
            "WHERE number<? ORDER BY number DESC LIMIT ?",
            number or 2**62,
            limit,
        )
        return [
            Delivery(
                number=n,
                page=msgspec.json.decode(body, type=Page),
                time_ns=at,
                channel=channel,
                attempts=attempts,
                next_ns=next_ns,
                delivered_ns=delivered,
                problem=problem,
            )
            for n, body, at, channel, attempts, next_ns, delivered, problem in rows
        ]

    def delivered(self, number: int, time_ns: int) -> None:
        """A channel has taken the page."""

        def work(run: Run) -> None:
            run("UPDATE outbox SET delivered_ns=?, attempts=attempts+1, problem='' WHERE number=?", time_ns, number)

        self.database.write(work)

    def failed(self, number: int, next_ns: int, problem: str) -> None:
        """A channel has not taken the page; try again from `next_ns` on."""

        def work(run: Run) -> None:
            run(
                "UPDATE outbox SET attempts=attempts+1, next_ns=?, problem=? WHERE number=?",
                next_ns,
                problem[:500],
                number,
            )

        self.database.write(work)

    def page(self, page: Page, channels: Sequence[str]) -> bool:
        """Page on-call with something that is no breach; False when the same key is open already."""

        def work(run: Run) -> bool:
            there = run("SELECT resolved_ns FROM alert WHERE dedup_key=?", page.dedup_key)
            if there and there[0][0] is None:
                return False
            self._audit(run, page.time_ns, "page", page.title)
            self._open_alert(run, page, channels)
            return True

        return self.database.write(work)

    def resolve(self, dedup_key: str, by: str, time_ns: int) -> bool:
        """What was paged under this key is over; False when nothing was open."""
        return self.database.write(lambda run: self._resolve(run, dedup_key, by, time_ns))

    def alerts(self, *, resolved: bool = False) -> list[Alert]:
        """The alerts that are open, oldest first; with `resolved` all there ever were, each as it was last."""
        rows = self.database.read(
            "SELECT body, opened_ns, level, escalated_ns, acknowledged_ns, acknowledged_by, resolved_ns FROM alert "
            + ("" if resolved else "WHERE resolved_ns IS NULL ")
            + "ORDER BY opened_ns, dedup_key"
        )
        return [
            Alert(
                page=msgspec.json.decode(body, type=Page),
                opened_ns=opened,
                level=level,
                escalated_ns=escalated,
                acknowledged_ns=acknowledged,
                acknowledged_by=by,
                resolved_ns=over,
            )
            for body, opened, level, escalated, acknowledged, by, over in rows
        ]

    def acknowledge(self, dedup_key: str, operator: str, time_ns: int) -> bool:
        """Somebody is on it: it goes no further up. False when nothing is open there, or somebody took it before."""

        def work(run: Run) -> bool:
            taken = run(
                "UPDATE alert SET acknowledged_ns=?, acknowledged_by=? "
                "WHERE dedup_key=? AND resolved_ns IS NULL AND acknowledged_ns IS NULL RETURNING body",
                time_ns,
                operator,
                dedup_key,
            )
            if taken:
                self._audit(run, time_ns, "acknowledge", f"{dedup_key} by {operator}")
                self._follow_up(run, msgspec.json.decode(taken[0][0], type=Page), ACKNOWLEDGE, operator, time_ns)
            return bool(taken)

        return self.database.write(work)

    def escalate(self, alert: Alert, level: int, channels: Sequence[str], time_ns: int) -> bool:
        """Nobody has acknowledged: page the channels of a level (again). False when another process just did."""

        def work(run: Run) -> bool:
            page = alert.page
            moved = run(
                "UPDATE alert SET level=?, escalated_ns=? WHERE dedup_key=? AND level=? AND escalated_ns=? "
                "AND acknowledged_ns IS NULL AND resolved_ns IS NULL RETURNING dedup_key",
                level,
                time_ns,
                page.dedup_key,
                alert.level,
                alert.escalated_ns,
            )
            if moved:
                self._audit(run, time_ns, "escalate", f"{page.dedup_key} to level {level + 1}")
                self._send(run, page, channels, time_ns)
            return bool(moved)

        return self.database.write(work)

    def _open_alert(self, run: Run, page: Page, channels: Sequence[str]) -> None:
        run(
            "INSERT INTO alert (dedup_key, body, opened_ns) VALUES (?,?,?) ON CONFLICT (dedup_key) DO UPDATE SET "
            "body=excluded.body, opened_ns=excluded.opened_ns, level=0, escalated_ns=0, acknowledged_ns=NULL, "
            "acknowledged_by='', resolved_ns=NULL",
            page.dedup_key,
            msgspec.json.encode(page),
            page.time_ns,
        )
        self._send(run, page, channels, page.time_ns)

    def _send(self, run: Run, page: Page, channels: Sequence[str], time_ns: int) -> None:
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

    def _resolve(self, run: Run, dedup_key: str, by: str, time_ns: int) -> bool:
        over = run(
            "UPDATE alert SET resolved_ns=? WHERE dedup_key=? AND resolved_ns IS NULL RETURNING body",
            time_ns,
            dedup_key,
        )
        if over:
            self._follow_up(run, msgspec.json.decode(over[0][0], type=Page), RESOLVE, by, time_ns)
        return bool(over)

    def _follow_up(self, run: Run, page: Page, event: str, by: str, time_ns: int) -> None:
        """Tell everybody who was paged under the key how it went on."""
        told = run(
            "SELECT DISTINCT channel FROM outbox WHERE dedup_key=? AND event=? AND time_ns>=? ORDER BY channel",
            page.dedup_key,
            TRIGGER,
            page.time_ns,
        )
        later = msgspec.structs.replace(page, event=event, by=by, time_ns=time_ns)
        self._send(run, later, [str(channel) for (channel,) in told], time_ns)
