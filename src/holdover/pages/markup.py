"""Elements made in Python: the charts, and the few inline elements that a filter needs.

This is the only module that writes markup; a test holds it. Everything else is a template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup, escape

from holdover.pages.words import format_time

_CODE: Final = re.compile(r"`([^`]+)`")
_NO_LINKS: Final[Mapping[str, str]] = {}


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """Returns an element with everything escaped that is not `Markup`.

    Args:
        tag: The name of the element.
        children: Its content, in order.
        attributes: Its attributes; a trailing underscore is dropped, other underscores become hyphens
            (`class_`, `text_anchor`). An attribute that is None is left out; a float is written with one decimal.
    """
    pairs = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(f"{value:.1f}" if isinstance(value, float) else value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{pairs}>{Markup('').join(children)}</{tag}>")


def time_html(time_ns: int) -> Markup:
    """Returns a time in UTC as an element that people and programs can read."""
    try:
        time_utc = datetime.fromtimestamp(time_ns / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        return escape(f"{time_ns} ns")
    return element("time", format_time(time_ns), datetime=time_utc.isoformat())


def prose_html(text: str, links: Mapping[str, str] = _NO_LINKS) -> Markup:
    """Returns a text of the catalogue as HTML, with the text between back quotes as code.

    Args:
        text: The text.
        links: The addresses of the words in code that are linked.
    """
    parts: list[str] = []
    for index, part in enumerate(_CODE.split(text)):  # every second part was between back quotes
        code = element("code", part) if index % 2 else part
        parts.append(element("a", code, href=links[part]) if index % 2 and part in links else code)
    return Markup("").join(parts)
