"""Secrets: from the environment, or from a file that nobody else can read; never from the configuration itself."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class BadSecret(ValueError):
    """A secret that is not where it should be, or that others can read; the message never holds any of it."""


def from_environment(name: str) -> str:
    """The secret in an environment variable. Raises `BadSecret` when it is not set, or empty."""
    told = os.environ.get(name, "").strip()
    if not told:
        raise BadSecret(f"the environment does not set {name}")
    return told


def from_file(path: Path) -> str:
    """The secret in a file, without the white space around it.

    Raises `BadSecret` when it cannot be read, is empty, or may be read or written by anybody but its owner, who must be
    this process's user or root.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BadSecret(f"{path}: a secret is expected in a regular file")
        if found.st_mode & 0o077:
            raise BadSecret(
                f"{path}: others may read it, its mode is {stat.S_IMODE(found.st_mode):04o}; it should be 0600"
            )
        if found.st_uid not in (os.geteuid(), 0):
            raise BadSecret(f"{path}: belongs to another user; it should belong to the one that runs this process")
        told = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is not text"
        raise BadSecret(f"{path}: the secret cannot be read: {why}") from None
    if not told:
        raise BadSecret(f"{path}: the secret is empty")
    return told


def secret(variable: str, file: str, here: Path) -> str:
    """The secret that a configuration names by `..._env` or `..._file`; empty when it names none.

    A file's path may hold variables (`$CREDENTIALS_DIRECTORY/key`) and is relative to `here`. Raises `BadSecret`.
    """
    if variable and file:
        raise BadSecret(f"is told twice, by {variable} and by a file; one of them is enough")
    if variable:
        return from_environment(variable)
    return from_file(here / os.path.expandvars(file)) if file else ""
