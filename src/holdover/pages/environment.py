"""The template environment: the directory of a package first, then the shared one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import jinja2

from holdover import __version__
from holdover.pages.markup import prose_html, time_html
from holdover.pages.words import breach_headline, format_clock, format_count, format_duration, strip_invariant

_SHARED_DIRECTORY: Final = Path(__file__).parent / "templates"


def make_environment(package_directory: Path, **global_names: Any) -> jinja2.Environment:
    """Returns an environment for the templates of one package.

    A template extends `report.html` or the package's own layout, imports the macros of `components.html`, and
    fails on a name that it was not given.

    Args:
        package_directory: The directory of the package; its templates are in `templates`.
        global_names: Further names that every template of the package may use.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([package_directory / "templates", _SHARED_DIRECTORY]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        clock=format_clock,
        number=format_count,
        duration=format_duration,
        headline=breach_headline,
        prose=prose_html,
        time=time_html,
        without_invariant=strip_invariant,
    )
    environment.globals.update(version=__version__, **global_names)
    return environment


def read_base_style() -> bytes:
    """Returns the shared style sheet, for pages that link it instead of carrying it."""
    return (_SHARED_DIRECTORY / "base.css").read_bytes()
