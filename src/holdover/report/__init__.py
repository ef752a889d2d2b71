"""Reports: text, JSON, and self-contained HTML that loads nothing, prints well, and has a light and a dark
style.
"""

from holdover.report.audit_text import audit_text
from holdover.report.carry_text import carry_text
from holdover.report.coverage_page import coverage_page
from holdover.report.coverage_text import coverage_text, gate_junit, gate_markdown, gate_text, occasions_text
from holdover.report.cycle_page import cycle_page, timeline_page
from holdover.report.exploration import (
    corpus_json,
    corpus_text,
    faults_page,
    faults_text,
    pairs_json,
    pairs_text,
    play_text,
    search_json,
    search_text,
    sweep_json,
    sweep_text,
)
from holdover.report.summary import cycle_json, cycle_text

__all__ = [
    "audit_text",
    "carry_text",
    "coverage_page",
    "coverage_text",
    "cycle_json",
    "cycle_page",
    "cycle_text",
    "gate_junit",
    "gate_markdown",
    "gate_text",
    "occasions_text",
    "pairs_json",
    "pairs_text",
    "play_text",
    "corpus_json",
    "corpus_text",
    "sweep_json",
    "search_json",
    "search_text",
    "sweep_text",
    "faults_page",
    "faults_text",
    "timeline_page",
]
