"""The state map."""

from datetime import date

from holdover.coverage.numbers import Numbers


def coverage_page(numbers: Numbers, today: date) -> str:
    """The map."""
    return ""
