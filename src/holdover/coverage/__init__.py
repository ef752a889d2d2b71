"""State coverage: in which states the system was ever restarted, cut off or carried over a night."""

from holdover.coverage.collect import Collector
from holdover.coverage.data import BadCoverage, Data, Seen, Witness, combine, decode, read
from holdover.coverage.lock import BadLock, Lock, Rule, Waiver, find_lock, read_lock
from holdover.coverage.numbers import Gap, Line, Numbers, Product, Ratio, Wrong
from holdover.coverage.profile import profile
from holdover.coverage.propose import Proposal, proposal_named, propose

__all__ = [
    "BadCoverage",
    "BadLock",
    "Collector",
    "Data",
    "Gap",
    "Line",
    "Lock",
    "Numbers",
    "Product",
    "Proposal",
    "Ratio",
    "Rule",
    "Seen",
    "Waiver",
    "Witness",
    "Wrong",
    "combine",
    "decode",
    "find_lock",
    "profile",
    "proposal_named",
    "propose",
    "read",
    "read_lock",
]
