"""The harness: subject, session, snapshot, schedule, cycle."""

from holdover.harness.condition import Cancelled, Condition, Fill, PartialFill, Pending, first, nth
from holdover.harness.session import IllegalTransition, Session, Transition
from holdover.harness.subject import BadSubject, Env, Killed, Plan, Subject, factory_named

__all__ = [
    "BadSubject",
    "Cancelled",
    "Condition",
    "Env",
    "Fill",
    "IllegalTransition",
    "Killed",
    "PartialFill",
    "Pending",
    "Plan",
    "Session",
    "Subject",
    "Transition",
    "factory_named",
    "first",
    "nth",
]
