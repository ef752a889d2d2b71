"""Secrets from the environment or from a file that only its owner can read, never from the configuration itself."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class SecretError(ValueError):
    """A secret is missing, or others can read it; the message never contains any part of it."""


def secret_from_environment(name: str) -> str:
    """Return the secret in an environment variable. Raises `SecretError` when it is unset or empty."""
    value = os.environ.get(name, "").strip()
    if not value:
        raise SecretError(f"the environment does not set {name}")
    return value


def secret_from_file(path: Path) -> str:
    """Return the secret in a file, without surrounding white space.

    Raises `SecretError` when the file cannot be read, is empty, is accessible to anybody but its owner, or is
    owned by anybody but this process's user or root.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SecretError(f"{path}: a secret is expected in a regular file")
        if status.st_mode & 0o077:
            raise SecretError(
                f"{path}: others may read it, its mode is {stat.S_IMODE(status.st_mode):04o}; it should be 0600"
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise SecretError(f"{path}: belongs to another user; it should belong to the one that runs this process")
        value = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        raise SecretError(f"{path}: the secret cannot be read: {reason}") from None
    if not value:
        raise SecretError(f"{path}: the secret is empty")
    return value


def check_private_key(path: Path) -> None:
    """Require that only its owner, this process's user or root, can read a private key. Raises `SecretError`."""
    try:
        status = path.stat()
    except OSError as problem:
        raise SecretError(f"{path}: the private key cannot be read: {problem.strerror}") from None
    if status.st_mode & 0o077:
        raise SecretError(
            f"{path}: others may read this private key, its mode is {stat.S_IMODE(status.st_mode):04o}; "
            f"it should be 0600: chmod 600 {path}"
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise SecretError(f"{path}: this private key belongs to another user; it should belong to this process's user")


def read_secret(variable: str, file: str, base_directory: Path) -> str:
    """Return the secret that a configuration names by `..._env` or `..._file`; empty when it names none.

    The file's path may contain variables (`$CREDENTIALS_DIRECTORY/key`) and is relative to `base_directory`.
    Raises `SecretError`.
    """
    if variable and file:
        raise SecretError(f"is told twice, by {variable} and by a file; one of them is enough")
    if variable:
        return secret_from_environment(variable)
    return secret_from_file(base_directory / os.path.expandvars(file)) if file else ""
