"""Commands in steps and alerts, with the real scope and the guard's real place, so that an operator can paste them.

The catalogue's steps name a command with placeholders (`holdover thaw account:ACCOUNT --guard DIR`), because an entry
knows neither the breach nor the guard. Whatever shows a step of a breach fills both in. The operator's name, the reason
and the evidence remain placeholders: only the operator knows them.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

_SCOPE_PLACE: Final = re.compile(r"(?<=\bholdover thaw )(?:[^\s`<]+)")
_GUARD_PLACE: Final = re.compile(r"(?<=--guard )DIR\b")


def fill_commands(text: str, scope: str, guard: Path | None) -> str:
    """Return a step with the real scope and the real guard in its commands, quoted for a shell.

    Args:
        text: the text of a catalogue entry's step.
        scope: the scope of the breach; empty leaves the placeholder.
        guard: the guard's configuration file or directory; None leaves the placeholder.
    """
    if scope:
        text = _SCOPE_PLACE.sub(lambda match: shlex.quote(scope), text)
    if guard is not None:
        text = _GUARD_PLACE.sub(lambda match: shlex.quote(str(guard)), text)
    return text


def thaw_command(scope: str, guard: Path) -> str:
    """Return the command that thaws a scope, complete but for the operator's name, reason and evidence.

    Raises `ValueError` without a scope.
    """
    if not scope:
        raise ValueError("a command that thaws needs a scope")
    return (
        f"holdover thaw {shlex.quote(scope)} --guard {shlex.quote(str(guard))} "
        f"--operator NAME --reason ... --evidence ..."
    )


def guard_command(verb: str, guard: Path | None) -> str:
    """Return a command on a guard, such as `holdover status --guard desk.toml`; without `--guard` when that is None."""
    return f"holdover {verb}" + (f" --guard {shlex.quote(str(guard))}" if guard is not None else "")
