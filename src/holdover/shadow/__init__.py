"""Shadow runs and cutover: run a candidate next to the incumbent for days, then decide whether it may go live."""

from holdover.shadow.clock import ClockTotals, HealthyClock, healthy_time_text
from holdover.shadow.config import ShadowConfig, ShadowConfigError, read_shadow_config
from holdover.shadow.cutover import CutoverAnswer, CutoverCondition, check_cutover
from holdover.shadow.divergence import ComparisonError, compare_orders
from holdover.shadow.live_shadow import LiveShadow, run_live
from holdover.shadow.report import (
    comparison_text,
    cutover_text,
    inputs_text,
    shadow_json,
    shadow_markdown,
    shadow_page,
    uptime_text,
)
from holdover.shadow.runner import FollowedShadow, follow_candidate, run_recordings
from holdover.shadow.shadow_run import CandidateJournalReader, ComponentNote, ShadowRun
from holdover.shadow.state import OrderComparison, ShadowState, ShadowStateError, read_state
from holdover.shadow.workstreams import (
    Workstream,
    WorkstreamsError,
    find_contradictions,
    open_boundaries_text,
    read_workstreams,
    workstreams_text,
)

__all__ = [
    "CutoverAnswer",
    "ComparisonError",
    "ShadowConfigError",
    "ShadowStateError",
    "WorkstreamsError",
    "OrderComparison",
    "CutoverCondition",
    "ClockTotals",
    "FollowedShadow",
    "HealthyClock",
    "CandidateJournalReader",
    "ShadowRun",
    "LiveShadow",
    "ComponentNote",
    "ShadowConfig",
    "ShadowState",
    "Workstream",
    "check_cutover",
    "open_boundaries_text",
    "compare_orders",
    "comparison_text",
    "find_contradictions",
    "workstreams_text",
    "cutover_text",
    "follow_candidate",
    "inputs_text",
    "read_shadow_config",
    "read_state",
    "read_workstreams",
    "run_live",
    "run_recordings",
    "shadow_json",
    "shadow_markdown",
    "shadow_page",
    "healthy_time_text",
    "uptime_text",
]
