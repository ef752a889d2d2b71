"""`holdover serve`, `holdover users`: the console and its users."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from holdover.runtime.secrets import secret_from_file
from holdover.runtime.thaw_requests import find_guard_config

if TYPE_CHECKING:
    from holdover.console import ConsoleUsers

_MISSING_EXTRA = "the console needs more than the core: pip install 'holdover[console]'"


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    serving = verbs.add_parser("serve", help="the console: what an operator who was paged sees and does, in a browser")
    _add_config_option(serving)
    serving.add_argument("--host", help="where to listen (127.0.0.1); anything but loopback needs TLS")
    serving.add_argument("--port", type=int, help="(8321)")
    serving.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    serving.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    serving.add_argument(
        "--insecure-i-know", action="store_true", help="listen elsewhere without TLS: passwords can be read on the way"
    )
    serving.set_defaults(run=run_serve)
    people = verbs.add_parser("users", help="who may use the console: add, list, remove, password")
    subparsers = people.add_subparsers(dest="what", metavar="WHAT", required=True)
    # Without abbreviations, so that --password is not read as --password-file with a password after it.
    adding = subparsers.add_parser("add", allow_abbrev=False, help="a new user; the password is asked for")
    adding.add_argument("name", metavar="NAME")
    adding.add_argument("--role", required=True, help="viewer, operator (acts), approver (forces a thaw of another)")
    listing = subparsers.add_parser("list", help="every user and his role")
    removing = subparsers.add_parser("remove", help="take a user away; his sessions end")
    removing.add_argument("name", metavar="NAME")
    changing = subparsers.add_parser("password", allow_abbrev=False, help="another password; the sessions end")
    changing.add_argument("name", metavar="NAME")
    for parser in (adding, changing):
        parser.add_argument(
            "--password-file", type=Path, metavar="FILE", help="take it from a file that nobody else may read"
        )
    for parser, run in (
        (adding, run_add),
        (listing, run_list),
        (removing, run_remove),
        (changing, run_password),
    ):
        _add_config_option(parser)
        parser.add_argument("--json", action="store_true")
        parser.set_defaults(run=run)


def _add_config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        "--guard",
        dest="config",
        type=Path,
        required=True,
        metavar="TOML|DIR",
        help="the guard's configuration, or its directory",
    )


def run_serve(arguments: argparse.Namespace) -> int:
    """Serve the console until it is stopped; returns 0. Raises `ValueError` for invalid options."""
    try:
        from holdover.console import Console
        from holdover.console.server import check_address, serve
    except ImportError as problem:
        raise ValueError(_MISSING_EXTRA) from problem
    config = find_guard_config(arguments.config, must_exist=False)
    host = arguments.host or config.console.host
    port = arguments.port if arguments.port is not None else config.console.port
    cert, key = arguments.tls_cert, arguments.tls_key
    if (cert is None) != (key is None):
        raise ValueError("--tls-cert and --tls-key belong together: give both")
    if not 0 < port < 65536:
        raise ValueError(f"--port {port}: it should be 1 to 65535")
    check_address(host, tls=cert is not None, insecure=arguments.insecure_i_know)
    table = msgspec.structs.replace(config.console, host=host, port=port)
    console = Console(msgspec.structs.replace(config, console=table), secure=cert is not None)
    if not console.users.list_users():
        print(
            f"holdover: nobody can log in yet: holdover users add NAME --role operator --config {arguments.config}",
            file=sys.stderr,
        )
    serve(console, host, port, cert, key)
    return 0


def _open_users(arguments: argparse.Namespace) -> ConsoleUsers:
    try:
        from holdover.console import ConsoleUsers
    except ImportError as problem:
        raise ValueError(_MISSING_EXTRA) from problem
    return ConsoleUsers(find_guard_config(arguments.config, must_exist=False).open_store())


def _read_password(arguments: argparse.Namespace) -> str:
    if arguments.password_file is not None:
        return secret_from_file(arguments.password_file)
    if not sys.stdin.isatty():
        raise ValueError("there is nobody to ask for a password here: give --password-file")
    password = getpass.getpass(f"Password of {arguments.name}: ")
    if getpass.getpass("Again: ") != password:
        raise ValueError("the two passwords differ; nothing was changed")
    return password


def _actor() -> str:
    try:
        return f"{getpass.getuser()} on the command line"
    except (KeyError, OSError):
        return "the command line"


def _print_result(arguments: argparse.Namespace, message: str, **fields: str) -> int:
    print(json.dumps(fields) if arguments.json else message)
    return 0


def run_add(arguments: argparse.Namespace) -> int:
    """Add a user; returns 0. Raises `ValueError` for an invalid name, role or password."""
    users = _open_users(arguments)
    users.add_user(arguments.name, arguments.role, _read_password(arguments), by=_actor(), time_ns=time.time_ns())
    return _print_result(
        arguments, f"added {arguments.name}, {arguments.role}", name=arguments.name, role=arguments.role
    )


def run_list(arguments: argparse.Namespace) -> int:
    """Print the users; always returns 0."""
    users = _open_users(arguments).list_users()
    if arguments.json:
        print(json.dumps([{"name": user.name, "role": user.role} for user in users]))
        return 0
    for user in users:
        print(f"{user.name:24} {user.role}")
    print(f"{len(users)} users")
    return 0


def run_remove(arguments: argparse.Namespace) -> int:
    """Remove a user; returns 0."""
    _open_users(arguments).remove_user(arguments.name, by=_actor(), time_ns=time.time_ns())
    return _print_result(arguments, f"removed {arguments.name}; his sessions have ended", name=arguments.name)


def run_password(arguments: argparse.Namespace) -> int:
    """Change a password; returns 0."""
    users = _open_users(arguments)
    users.set_password(arguments.name, _read_password(arguments), by=_actor(), time_ns=time.time_ns())
    return _print_result(
        arguments, f"changed the password of {arguments.name}; his sessions have ended", name=arguments.name
    )
