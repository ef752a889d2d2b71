"""State coverage: the states in which the system was restarted, disconnected or carried over a night."""

from holdover.coverage.collector import CoverageCollector
from holdover.coverage.data import (
    CellWitness,
    CoverageData,
    CoverageError,
    WitnessedCount,
    combine_coverage,
    decode_coverage,
    read_coverage,
)
from holdover.coverage.lock import CoverageLock, LockError, Rule, Waiver, find_lock, read_lock
from holdover.coverage.numbers import (
    AxisProduct,
    CarryGap,
    CoverageNumbers,
    CoverageRatio,
    RuleViolation,
    TransitionCoverage,
)
from holdover.coverage.profile import build_profile
from holdover.coverage.proposal import Proposal, find_proposal, propose_rules

__all__ = [
    "CoverageError",
    "LockError",
    "CoverageCollector",
    "CoverageData",
    "CarryGap",
    "TransitionCoverage",
    "CoverageLock",
    "CoverageNumbers",
    "AxisProduct",
    "Proposal",
    "CoverageRatio",
    "Rule",
    "WitnessedCount",
    "Waiver",
    "CellWitness",
    "RuleViolation",
    "combine_coverage",
    "decode_coverage",
    "find_lock",
    "build_profile",
    "find_proposal",
    "propose_rules",
    "read_coverage",
    "read_lock",
]
