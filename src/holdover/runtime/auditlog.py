"""The audit log of a freeze store: every act, in a chain of hashes that shows whether one was changed or taken out.

Each row's hash covers the row before, and the head of the chain is kept beside the rows, and may be kept elsewhere.
"""

from __future__ import annotations

import hashlib

from holdover.runtime.database import Database, Run


class AuditLog:
    """Acts in the table `audit` of a database. Raises `StoreProblem` when it cannot be read or written."""

    database: Database

    def say(self, act: str, detail: str, time_ns: int) -> None:
        """An act that only the audit log keeps."""
        self.database.write(lambda run: self._audit(run, time_ns, act, detail))

    def say_within(self, run: Run, act: str, detail: str, time_ns: int) -> None:
        """The same inside a transaction of `database.write`: what is done and that it was done, or neither."""
        self._audit(run, time_ns, act, detail)

    def audit(self) -> list[tuple[int, int, str, str]]:
        """(number, time in ns, act, detail) of every act, oldest first."""
        rows = self.database.read("SELECT number, time_ns, act, detail FROM audit ORDER BY number")
        return [(int(number), int(time_ns), str(act), str(detail)) for number, time_ns, act, detail in rows]

    def audit_before(self, number: int, limit: int) -> list[tuple[int, int, str, str]]:
        """At most `limit` acts before that number (0: from the last on) as `audit` gives them, the latest first."""
        rows = self.database.read(
            "SELECT number, time_ns, act, detail FROM audit WHERE number<? ORDER BY number DESC LIMIT ?",
            number or 2**62,
            limit,
        )
        return [(int(n), int(time_ns), str(act), str(detail)) for n, time_ns, act, detail in rows]

    def audit_head(self) -> str:
        """Number and hash of the last act, to be kept elsewhere: nobody can then write the log anew unnoticed."""
        rows = self.database.read("SELECT value FROM meta WHERE name='audit'")
        return str(rows[0][0]) if rows else "0 "

    def verify_audit(self) -> str:
        """What is wrong with the audit log's hash chain, in a sentence; empty when it is whole."""
        rows = self.database.read("SELECT number, time_ns, act, detail, hash FROM audit ORDER BY number")
        before = ""
        for expected, (number, time_ns, act, detail, kept) in enumerate(rows, 1):
            if number != expected:
                return f"audit row {expected} is missing"
            before = _chain(before, number, time_ns, act, detail)
            if before != kept:
                return f"audit row {number} was changed: its hash does not follow from the row before"
        last, _, digest = self.audit_head().partition(" ")
        if not digest and rows and last == "0":
            return ""  # written before the head was kept
        if (int(last), digest) != (len(rows), before):
            return f"the audit log ends with row {len(rows)}, but row {last} was written: rows are missing at its end"
        return ""

    def _audit(self, run: Run, time_ns: int, act: str, detail: str) -> None:
        last = run("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
        number, before = (last[0][0] + 1, last[0][1]) if last else (1, "")
        digest = _chain(before, number, time_ns, act, detail)
        run("INSERT INTO audit VALUES (?,?,?,?,?)", number, time_ns, act, detail, digest)
        run(
            "INSERT INTO meta VALUES ('audit', ?) ON CONFLICT (name) DO UPDATE SET value=excluded.value",
            f"{number} {digest}",
        )


def _chain(before: str, number: int, time_ns: int, act: str, detail: str) -> str:
    return hashlib.sha256(f"{before}|{number}|{time_ns}|{act}|{detail}".encode()).hexdigest()
