"""The nearest right word for a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest_spelling(text: str, choices: Iterable[str]) -> str:
    """Return a question that names the choice nearest to a mistyped word.

    Args:
        text: what was typed.
        choices: the words that exist.

    Returns:
        `; did you mean NAME?` to append to a message, or an empty text when no choice is similar.
    """
    by_lowercase = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(text.lower(), by_lowercase, n=1, cutoff=0.6)
    return f"; did you mean {by_lowercase[matches[0]]}?" if matches else ""
