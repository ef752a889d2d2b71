"""What all HTML pages share: the template environment, the components, the style sheet and the words.

A package with pages keeps its own templates in its `templates` directory and renders them with
`make_environment`; the shared ones (`report.html`, `components.html`, `base.css`) are in this package. The
templates escape what they print. Charts are drawn with `element`, which escapes too; no other module writes markup.
"""

from holdover.pages.environment import make_environment, read_base_style
from holdover.pages.markup import element, prose_html, time_html
from holdover.pages.words import (
    breach_headline,
    format_clock,
    format_count,
    format_duration,
    format_time,
    strip_invariant,
)

__all__ = [
    "breach_headline",
    "element",
    "format_clock",
    "format_count",
    "format_duration",
    "format_time",
    "make_environment",
    "prose_html",
    "read_base_style",
    "strip_invariant",
    "time_html",
]
