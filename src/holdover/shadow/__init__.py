"""Shadow and cutover: a candidate beside the incumbent, for days, and the question whether it may go live."""

from holdover.shadow.clock import Counted, HealthyClock, since_text
from holdover.shadow.config import BadShadow, ShadowConfig, read_shadow
from holdover.shadow.cutover import Answer, Condition, ask
from holdover.shadow.divergence import BadComparison, compare
from holdover.shadow.life import Journalled, Life, Note
from holdover.shadow.live import Live, run_live
from holdover.shadow.page import (
    compared_text,
    cutover_text,
    inputs_text,
    shadow_json,
    shadow_markdown,
    shadow_page,
    uptime_text,
)
from holdover.shadow.run import Following, follow, run_recordings
from holdover.shadow.state import BadState, Compared, State, read_state
from holdover.shadow.workstreams import BadWorkstreams, Workstream, boundary, contradictions, counted, read_workstreams

__all__ = [
    "Answer",
    "BadComparison",
    "BadShadow",
    "BadState",
    "BadWorkstreams",
    "Compared",
    "Condition",
    "Counted",
    "Following",
    "HealthyClock",
    "Journalled",
    "Life",
    "Live",
    "Note",
    "ShadowConfig",
    "State",
    "Workstream",
    "ask",
    "boundary",
    "compare",
    "compared_text",
    "contradictions",
    "counted",
    "cutover_text",
    "follow",
    "inputs_text",
    "read_shadow",
    "read_state",
    "read_workstreams",
    "run_live",
    "run_recordings",
    "shadow_json",
    "shadow_markdown",
    "shadow_page",
    "since_text",
    "uptime_text",
]
