"""The audit of FIX logs that are there already: framing, sessions, orders, and the catalogue's judgement of them."""

from holdover.audit.audit import Audit, BadLog, Found, Skipped

__all__ = ["Audit", "BadLog", "Found", "Skipped"]
