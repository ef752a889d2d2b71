"""The templates of the reports."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from holdover.pages import make_environment


@cache
def _environment() -> jinja2.Environment:
    return make_environment(Path(__file__).parent)


def render_template(name: str, **context: Any) -> str:
    """Return a template of this package as HTML."""
    return _environment().get_template(name).render(context)
