"""The second person of a forced thaw on the command line: authenticated as on the console."""

from __future__ import annotations

import argparse
import getpass
import shlex
import sys
import time
from typing import Final

from holdover.runtime import FreezeStore, ThawRefusedError
from holdover.runtime.persons import check_person
from holdover.runtime.secrets import secret_from_environment, secret_from_file

_FAILED: Final = "approval failed"


def check_approver(store: FreezeStore, arguments: argparse.Namespace) -> None:
    """Check the password and the role of the approver that `--force-by` names.

    The audit log records each failure; the store counts the attempts. Raises `ThawRefusedError`.
    """
    from holdover.console import ConsoleUsers, LoginThrottle
    from holdover.console.throttle import operator_origin

    name, operator = arguments.force_by, arguments.operator
    check_person(name, "second person")
    if name.strip() == operator.strip():
        raise ThawRefusedError("a forced thaw needs the name of a second person")
    users = ConsoleUsers(store)
    if not any(user.has_role("approver") for user in users.list_users()):
        config = shlex.quote(str(arguments.guard))
        raise ThawRefusedError(
            f"nobody can force a thaw, because the store has no approver: to add one, run "
            f"`holdover users add {shlex.quote(name)} --role approver --config {config}`"
        )
    now_ns = time.time_ns()
    # Counted apart from the console: who guesses a name there must not close the command line.
    throttle, origin = LoginThrottle(store), operator_origin("the command line")
    if wait_s := throttle.admit(name, origin, now_ns):
        raise ThawRefusedError(f"too many wrong passwords of {name}: wait {-(-wait_s // 60)} minutes")
    user = users.check_password(name, _read_password(arguments))
    if user is None:
        store.log_action(_FAILED, f"{name!r} for {operator} on the command line", now_ns)
        raise ThawRefusedError(f"the name {name} and the password do not go together")
    throttle.record_success(name, origin)
    if not user.has_role("approver"):
        store.log_action(_FAILED, f"{name!r} for {operator}: has the role {user.role}", now_ns)
        raise ThawRefusedError(f"{name} has the role {user.role}; only an approver can force a thaw")


def _read_password(arguments: argparse.Namespace) -> str:
    if arguments.password_file is not None and arguments.password_env:
        raise ValueError("--password-file and --password-env: give only one of them")
    if arguments.password_file is not None:
        return secret_from_file(arguments.password_file)
    if arguments.password_env:
        return secret_from_environment(arguments.password_env)
    if not sys.stdin.isatty():
        raise ValueError("no terminal to ask for the approver's password; give --password-file FILE")
    return getpass.getpass(f"Password of {arguments.force_by}: ")
