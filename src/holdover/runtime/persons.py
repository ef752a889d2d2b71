"""Names of persons in acts, and text of others on a terminal."""

from __future__ import annotations

from typing import Final

_NAME_MAX: Final = 128


def check_person(name: str, role: str = "operator") -> str:
    """Return the name of a person unchanged.

    Raises `ValueError` for an empty or long name, and for one with a line break, an escape code or any other
    unprintable character: in a listing, it could pass for lines that nobody wrote.
    """
    if not name.strip():
        raise ValueError(f"the {role} has no name")
    if len(name) > _NAME_MAX or not name.isprintable():
        raise ValueError(
            f"{name[:_NAME_MAX]!r} is no name of the {role}: it should be at most {_NAME_MAX} printable characters in "
            f"one line"
        )
    return name


def escape_unprintable(text: str) -> str:
    """Return a text with every unprintable character escaped, for one line of a listing."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
