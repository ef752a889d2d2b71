"""The quality of a password: long enough, not built on the user's name, and not quickly guessed.

How quickly a password is guessed is estimated by zxcvbn, which knows the most common passwords, words, names, dates,
keyboard patterns and repetitions. Rules on classes of characters are not used: they accept `Summer2024!!`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

PASSWORD_MIN: Final = 12
PASSWORD_MAX: Final = 1024
_SCORE_MIN: Final = 4  # zxcvbn's best of 0 to 4: more than 10^10 guesses
_ESTIMATED_MAX: Final = 72  # zxcvbn is slow on longer texts; what follows can only make a password better
_NAME_PART_MIN: Final = 3
_ADVICE: Final = "take five unrelated words, or let a password manager choose"
_SERVICE_WORDS: Final = ("holdover", "console", "operator", "approver", "viewer")


class PasswordQualityError(ValueError):
    """A password that is not accepted. The message says what would be right and contains no part of the password."""


def normalize_password(password: str) -> str:
    """Returns the password in Unicode form NFC, so that every keyboard produces the same characters."""
    return unicodedata.normalize("NFC", password)


def check_quality(name: str, password: str) -> None:
    """Accept or refuse a normalized password for the user `name`.

    Raises:
        PasswordQualityError: the password is too short or too long, contains the name, or is guessed too quickly.
    """
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise PasswordQualityError(
            f"a password should have {PASSWORD_MIN} to {PASSWORD_MAX} characters, this one has {len(password)}"
        )
    folded = password.casefold()
    for part in _name_parts(name):
        if part in folded or part[::-1] in folded:
            raise PasswordQualityError(f"the password contains the user's name; {_ADVICE}")
    from zxcvbn import zxcvbn

    estimate = zxcvbn(password[:_ESTIMATED_MAX], user_inputs=[*_name_parts(name), *_SERVICE_WORDS])
    if estimate["score"] < _SCORE_MIN:
        warning = _without_quotes(estimate["feedback"]["warning"])
        reason = f" ({warning})" if warning else ""
        raise PasswordQualityError(f"the password is too easy to guess{reason}; {_ADVICE}")


def _name_parts(name: str) -> list[str]:
    """Returns the whole name and its words, without those that occur by accident."""
    folded = name.casefold()
    parts = [folded, *re.split(r"[._@-]+", folded)]
    return [part for part in dict.fromkeys(parts) if len(part) >= _NAME_PART_MIN]


def _without_quotes(warning: str) -> str:
    """Returns a warning of zxcvbn as a clause: its examples are fixed texts and reveal no part of the password."""
    return warning.rstrip(".").replace('"', "")
