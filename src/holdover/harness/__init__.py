"""The harness: subject, session, snapshot, schedule and cycle."""

from holdover.harness.condition import Cancelled, Condition, Fill, PartialFill, Pending, first, nth
from holdover.harness.session import IllegalTransitionError, Session, SessionConfig, Transition
from holdover.harness.subject import Env, Plan, Subject, SubjectError, SubjectKilledError, resolve_factory

__all__ = [
    "SubjectError",
    "Cancelled",
    "Condition",
    "Env",
    "Fill",
    "IllegalTransitionError",
    "SubjectKilledError",
    "PartialFill",
    "Pending",
    "Plan",
    "Session",
    "SessionConfig",
    "Subject",
    "Transition",
    "resolve_factory",
    "first",
    "nth",
]
