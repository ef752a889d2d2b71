"""The audit of existing FIX logs: framing, sessions, orders, and their evaluation by the catalogue."""

from holdover.audit.audit import Audit, AuditBreach, FixLogError, SkippedLine

__all__ = ["Audit", "FixLogError", "AuditBreach", "SkippedLine"]
