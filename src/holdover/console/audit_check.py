"""Verifies the audit log from the head that was verified last, which is stored outside of the store.

The head is a file in the directory of the guard, so that a store that was set back or rewritten is noticed. Rows that
were verified before are only counted; a full verification hashes them again, on request and when there is no such file.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Final

import msgspec

from holdover.runtime import FreezeStore
from holdover.runtime.files import write_whole

log = logging.getLogger("holdover.console")

FILE_NAME: Final = "audit-verified.json"


class VerifiedHead(msgspec.Struct, frozen=True, kw_only=True):
    """The last verified head of the audit log: "number hash", and when the whole log was verified last (ns)."""

    head: str = "0 "
    whole_ns: int = 0


class AuditVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a verification: what is wrong (empty when nothing is), and what was verified when."""

    problem: str
    head: str
    whole_ns: int


class AuditVerifier:
    """Verifies the audit log of one store. Safe to share between threads."""

    def __init__(self, store: FreezeStore, directory: Path) -> None:
        self._store, self._path = store, directory / FILE_NAME
        self._lock = threading.Lock()
        self._verified = VerifiedHead()

    def verify(self, now_ns: int, *, whole: bool = False) -> AuditVerdict:
        """Verify what is new; with `whole`, and the very first time, the whole log. Raises `StoreError`."""
        with self._lock:
            before = self._verified if self._verified.whole_ns else self._read_file()
            head = self._store.audit_head()
            problem = self._store.verify_audit(before.head)
            if not problem and (whole or not before.whole_ns):
                problem = self._store.verify_audit()
                before = VerifiedHead(head=before.head, whole_ns=now_ns)
            if problem:
                return AuditVerdict(problem=problem, head=head, whole_ns=before.whole_ns)
            verified = VerifiedHead(head=head, whole_ns=before.whole_ns)
            if verified != self._verified:
                self._verified = verified
                self._write_file(verified)
            return AuditVerdict(problem="", head=head, whole_ns=verified.whole_ns)

    def _read_file(self) -> VerifiedHead:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=VerifiedHead)
        except FileNotFoundError:
            return VerifiedHead()
        except (OSError, msgspec.MsgspecError) as problem:
            log.warning("%s cannot be read, the whole log is verified: %s", self._path, problem)
            return VerifiedHead()

    def _write_file(self, verified: VerifiedHead) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, msgspec.json.encode(verified))
        except OSError as problem:
            log.warning("%s cannot be written: %s", self._path, problem)
