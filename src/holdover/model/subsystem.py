"""The subsystems of a trading system, by the names under which the catalogue knows them."""

from __future__ import annotations

from typing import Final

SUBSYSTEMS: Final[dict[str, str]] = {
    "orders": "the order manager: orders, executions, parent orders, intents",
    "positions": "the position keeper: positions and their adjustments",
    "risk": "exposures, limits, margin, protection rules",
    "ledger": "balances, cash movements, realized profit and loss",
    "gateway": "requests, links and the status of instruments, as the system last received it",
    "reconciler": "the progress of each link's reconciliation",
    "session": "the trading session that the system believes it is in",
    "store": "what a start has read back from the system's store",
    "venue": "what the venue itself states: orders, positions, balances, adjustments, instruments",
    "guard": "results of the guard's own checks",
}
"""Each known subsystem with what it records. A system may record other subsystems; no built-in invariant reads them."""

SUBSYSTEM_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "orders": ("Order",),
    "positions": ("Position",),
    "risk": ("Exposure",),
    "ledger": ("Balance",),
    "gateway": ("Request",),
    "reconciler": ("Reconciliation",),
}
"""The kinds of record that a subsystem must have once it exists: a missing record of these counts as zero."""
