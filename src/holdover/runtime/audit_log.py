"""The audit log of a freeze store: every action, in a hash chain that reveals changed or removed rows.

Each row's hash covers the row before it. The store keeps the head of the chain separately from the rows; a
copy of the head may be kept elsewhere.
"""

from __future__ import annotations

import hashlib
from typing import Final

from holdover.runtime.database import Database, RunStatement

_ROWS_AT_ONCE: Final = 10_000


class AuditLog:
    """Actions in the table `audit` of a database. Raises `StoreError` when it cannot be read or written."""

    database: Database

    def log_action(self, action: str, detail: str, time_ns: int) -> None:
        """Append an action that only the audit log records."""
        self.database.write(lambda run: self._append_audit_row(run, time_ns, action, detail))

    def log_action_in(self, run: RunStatement, action: str, detail: str, time_ns: int) -> None:
        """Append an action inside a transaction of `database.write`.

        The change and its audit row then commit together.
        """
        self._append_audit_row(run, time_ns, action, detail)

    def audit_rows(self) -> list[tuple[int, int, str, str]]:
        """Return (number, time in ns, action, detail) of every action, oldest first."""
        rows = self.database.read("SELECT number, time_ns, act, detail FROM audit ORDER BY number")
        return [(int(number), int(time_ns), str(action), str(detail)) for number, time_ns, action, detail in rows]

    def audit_rows_before(self, number: int, limit: int) -> list[tuple[int, int, str, str]]:
        """Return at most `limit` actions before a number (0: from the end), as `audit_rows` does but latest first."""
        if number < 0 or limit < 1:
            raise ValueError(f"{limit} audit rows before number {number}: at least 1, and 0 for the end")
        rows = self.database.read(
            "SELECT number, time_ns, act, detail FROM audit WHERE number<? ORDER BY number DESC LIMIT ?",
            number or 2**62,
            limit,
        )
        return [(int(n), int(time_ns), str(action), str(detail)) for n, time_ns, action, detail in rows]

    def audit_head(self) -> str:
        """Return the number and hash of the last action. A copy kept elsewhere makes a rewritten log detectable."""
        rows = self.database.read("SELECT value FROM meta WHERE name='audit'")
        return str(rows[0][0]) if rows else "0 "

    def verify_audit(self, verified_head: str = "0 ") -> str:
        """Return what is wrong with the hash chain, in a sentence; empty when it is intact.

        Args:
            verified_head: a head that `audit_head` returned and up to which the log has been verified before. Earlier
                rows must still be there and end with that hash; only later rows are hashed again.
        """
        text, _, before = verified_head.partition(" ")
        expected = int(text)
        if problem := self._find_missing_start(expected, before):
            return problem
        head, newest = self.database.read(
            "SELECT (SELECT value FROM meta WHERE name='audit'), (SELECT COALESCE(MAX(number), 0) FROM audit)"
        )[0]
        last_text, _, digest = str(head or "0 ").partition(" ")
        while rows := self.database.read(
            "SELECT number, time_ns, act, detail, hash FROM audit WHERE number>? AND number<=? ORDER BY number LIMIT ?",
            expected,
            newest,
            _ROWS_AT_ONCE,
        ):
            for number, time_ns, action, detail, stored_hash in rows:
                expected += 1
                if number != expected:
                    return f"audit row {expected} is missing"
                before = _chain_hash(before, number, time_ns, action, detail)
                if before != stored_hash:
                    return f"audit row {number} was changed: its hash does not follow from the row before"
        if (int(last_text), digest) != (expected, before):
            return (
                f"the audit log ends with row {expected}, but row {last_text} was written: rows are missing at its end"
            )
        return ""

    def _find_missing_start(self, number: int, digest: str) -> str:
        """Return whether rows up to a verified one are missing or end with another hash, in a sentence."""
        if not number:
            return ""
        count = int(self.database.read("SELECT COUNT(*) FROM audit WHERE number<=?", number)[0][0])
        rows = self.database.read("SELECT hash FROM audit WHERE number=?", number)
        if not rows:
            return (
                f"audit row {number} is missing, which was there before: the store was set back, or rows were deleted"
            )
        if count != number:
            return f"{number - count} of the audit rows up to {number} are missing"
        if rows[0][0] != digest:
            return f"audit row {number} has another hash than before: the log was rewritten"
        return ""

    def _append_audit_row(self, run: RunStatement, time_ns: int, action: str, detail: str) -> None:
        if not action:
            raise ValueError("an audit row needs an action")
        if time_ns < 0:
            raise ValueError(f"an audit row of {action} at {time_ns} ns, should be ns since the epoch")
        last = run("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
        number, before = (last[0][0] + 1, last[0][1]) if last else (1, "")
        digest = _chain_hash(before, number, time_ns, action, detail)
        run("INSERT INTO audit VALUES (?,?,?,?,?)", number, time_ns, action, detail, digest)
        run(
            "INSERT INTO meta VALUES ('audit', ?) ON CONFLICT (name) DO UPDATE SET value=excluded.value",
            f"{number} {digest}",
        )


def _chain_hash(before: str, number: int, time_ns: int, action: str, detail: str) -> str:
    return hashlib.sha256(f"{before}|{number}|{time_ns}|{action}|{detail}".encode()).hexdigest()
