"""The incident figures as text, as one JSON object, and as one self-contained page with SVG plots."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from holdover.incidents.charts import durations_chart, fortnight_chart, rates_chart
from holdover.incidents.figures import METHOD, IncidentFigures
from holdover.incidents.words import (
    STEP_WORDS,
    date_text,
    duration_stats_text,
    rate_text,
    ratio_sentence,
    ratio_text,
)
from holdover.pages import make_environment


def figures_text(figures: IncidentFigures) -> str:
    """Returns the figures as text."""
    lines = [
        f"{figures.whole.count} incident{'' if figures.whole.count == 1 else 's'} from {date_text(figures.since_ns)} "
        f"to {date_text(figures.until_ns)}, {figures.open} not resolved",
        f"  {'rate':<14}{rate_text(figures.whole)}",
        f"  {'recurrent':<14}{figures.recurrent}, novel {figures.novel}",
        *(f"  {STEP_WORDS[name]:<14}{duration_stats_text(stats)}" for name, stats in figures.lasted.items()),
    ]
    if (
        figures.at_ns is not None
        and figures.before is not None
        and figures.after is not None
        and figures.ratio is not None
    ):
        lines += [
            f"before and after {date_text(figures.at_ns)}",
            f"  {'before':<14}{figures.before.count}: {rate_text(figures.before)}",
            f"  {'after':<14}{figures.after.count}: {rate_text(figures.after)}",
            f"  {'rate ratio':<14}{ratio_text(figures.ratio)}",
            f"  {ratio_sentence(figures.ratio)}",
            *(
                f"  {STEP_WORDS[name]:<14}before: {duration_stats_text(figures.lasted_before[name])}; "
                f"after: {duration_stats_text(stats)}"
                for name, stats in figures.lasted_after.items()
            ),
        ]
    return "\n".join([*lines, METHOD])


def figures_json(figures: IncidentFigures) -> dict[str, Any]:
    """Returns the figures as one JSON object: times in ns, durations in s, incidents by number."""
    document: dict[str, Any] = msgspec.to_builtins(figures)
    for group in (document["lasted"], document["lasted_before"], document["lasted_after"]):
        for stats in group.values():
            del stats["values_s"]
    document["incidents"] = [incident.number for incident in figures.incidents]
    return {**document, "per": "two weeks", "confidence": 0.95, "method": METHOD}


def figures_page(figures: IncidentFigures) -> str:
    """Returns the page as HTML."""
    comparison = None
    if figures.before is not None and figures.after is not None and figures.ratio is not None:
        comparison = {
            "sentence": ratio_sentence(figures.ratio),
            "ratio": ratio_text(figures.ratio),
            "chart": rates_chart(figures.before, figures.after),
            "rates": {"before": figures.before, "after": figures.after},
        }
    return (
        _environment()
        .get_template("figures.html")
        .render(
            figures=figures,
            comparison=comparison,
            fortnights=fortnight_chart(figures),
            durations=durations_chart(figures),
            step_words=STEP_WORDS,
            method=METHOD,
            incidents=figures.incidents[::-1],
        )
    )


@cache
def _environment() -> jinja2.Environment:
    return make_environment(
        Path(__file__).parent, date_text=date_text, duration_stats_text=duration_stats_text, rate_text=rate_text
    )
