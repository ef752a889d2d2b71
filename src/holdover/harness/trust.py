"""Trust: which code a schedule from elsewhere would run, and the refusal to run it unasked.

A schedule names its subject. The built-in subjects are Holdover's own code, with settings that are data. Any other
subject is a Python module, and some settings of a built-in one name code as well; importing it runs whatever is in it.
So a file never decides that on its own: the user names the subject on the command line, or adds `--trust`.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Collection
from typing import Any, Final

from holdover.harness.schedule import Schedule
from holdover.harness.subject import BUILTIN_SUBJECTS

_DATA_SETTINGS: Final[dict[str, frozenset[str]]] = {
    "desk": frozenset(("desk", "limits", "strategies", "slices")),
    "nautilus": frozenset(("oms", "account", "orders")),
    "freqtrade": frozenset(),
}
"""The settings of each built-in subject that are data: they name neither code nor files."""


class UntrustedCodeError(ValueError):
    """A file names code, and nobody said that it may run; the message says what would run, and from where."""


def find_foreign_code(schedule: Schedule) -> list[str]:
    """Return what a schedule names besides Holdover's own code: its subject, or the settings that name code or files.

    The list has one phrase for each, and is empty for a schedule that is data only.
    """
    subject = schedule.subject
    short_names = {path: name for name, path in BUILTIN_SUBJECTS.items()}
    name = short_names.get(subject, subject)
    if name not in BUILTIN_SUBJECTS:
        return [f"the subject {subject}, {_describe_module(subject.partition(':')[0])}"]
    return [
        f"the setting {key} = {_shorten(value)} of the subject {name}, which names code or files"
        for key, value in schedule.settings.items()
        if key not in _DATA_SETTINGS[name]
    ]


def check_trust(
    schedule: Schedule, origin: str, *, is_trusted: bool = False, trusted_subjects: Collection[str] = ()
) -> None:
    """Raise `UntrustedCodeError` when a schedule names code that nobody has trusted.

    Args:
        schedule: the schedule.
        origin: the file that it is from, for the message.
        is_trusted: whether the user trusts the file (`--trust`).
        trusted_subjects: subjects that the user named on the command line.
    """
    if is_trusted or schedule.subject in trusted_subjects:
        return
    phrases = find_foreign_code(schedule)
    if phrases:
        raise UntrustedCodeError(
            f"{origin}: names {'; and '.join(phrases)}. A file does not decide what runs here. "
            f"If you trust it, run the same command with --trust"
        )


def _describe_module(name: str) -> str:
    """Return which file importing a module would run, without importing anything."""
    top_level = name.partition(".")[0]
    path = [*sys.path, *([] if "" in sys.path or os.getcwd() in sys.path else [os.getcwd()])]
    try:
        spec = importlib.machinery.PathFinder.find_spec(top_level, path)
    except (ImportError, ValueError, OSError):
        spec = None
    if spec is not None and spec.origin is not None:
        return f"whose module {_shorten(name)} would be imported from {spec.origin}"
    if top_level in sys.builtin_module_names:
        return f"whose module {_shorten(name)} is built into Python"
    return f"whose module {_shorten(name)} is not installed here"


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
