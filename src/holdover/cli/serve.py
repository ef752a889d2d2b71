"""`holdover serve`, `holdover users`: the console, and who may use it."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from holdover.runtime.secrets import from_file
from holdover.runtime.thawing import guard_at

if TYPE_CHECKING:
    from holdover.console import Users

_NEEDS = "the console needs more than the core: pip install 'holdover[console]'"


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    serving = verbs.add_parser("serve", help="the console: what an operator who was paged sees and does, in a browser")
    _add_place(serving)
    serving.add_argument("--host", help="where to listen (127.0.0.1); anything but loopback needs TLS")
    serving.add_argument("--port", type=int, help="(8321)")
    serving.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    serving.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    serving.add_argument(
        "--insecure-i-know", action="store_true", help="listen elsewhere without TLS: passwords can be read on the way"
    )
    serving.set_defaults(run=run_serve)
    people = verbs.add_parser("users", help="who may use the console: add, list, remove, password")
    what = people.add_subparsers(dest="what", metavar="WHAT", required=True)
    # Without abbreviations: --password is not to be taken for --password-file, with a password after it.
    adding = what.add_parser("add", allow_abbrev=False, help="a new user; the password is asked for")
    adding.add_argument("name", metavar="NAME")
    adding.add_argument("--role", required=True, help="viewer, operator (acts), approver (forces a thaw of another)")
    listing = what.add_parser("list", help="every user and his role")
    removing = what.add_parser("remove", help="take a user away; his sessions end")
    removing.add_argument("name", metavar="NAME")
    changing = what.add_parser("password", allow_abbrev=False, help="another password; the sessions end")
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
        _add_place(parser)
        parser.add_argument("--json", action="store_true")
        parser.set_defaults(run=run)


def _add_place(parser: argparse.ArgumentParser) -> None:
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
    """0 when stopped."""
    try:
        from holdover.console import Console
        from holdover.console.server import check_address, serve
    except ImportError as problem:
        raise ValueError(_NEEDS) from problem
    config = guard_at(arguments.config, must_exist=False)
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
    if not console.users.all():
        print(
            f"holdover: nobody can log in yet: holdover users add NAME --role operator --config {arguments.config}",
            file=sys.stderr,
        )
    serve(console, host, port, cert, key)
    return 0


def _users(arguments: argparse.Namespace) -> Users:
    try:
        from holdover.console import Users
    except ImportError as problem:
        raise ValueError(_NEEDS) from problem
    return Users(guard_at(arguments.config, must_exist=False).open_store())


def _password(arguments: argparse.Namespace) -> str:
    if arguments.password_file is not None:
        return from_file(arguments.password_file)
    if not sys.stdin.isatty():
        raise ValueError("there is nobody to ask for a password here: give --password-file")
    told = getpass.getpass(f"Password of {arguments.name}: ")
    if getpass.getpass("Again: ") != told:
        raise ValueError("the two passwords differ; nothing was changed")
    return told


def _by() -> str:
    try:
        return f"{getpass.getuser()} on the command line"
    except (KeyError, OSError):
        return "the command line"


def _tell(arguments: argparse.Namespace, said: str, **told: str) -> int:
    print(json.dumps(told) if arguments.json else said)
    return 0


def run_add(arguments: argparse.Namespace) -> int:
    """0 when added. Raises `ValueError` for what is wrong with name, role or password."""
    users = _users(arguments)
    users.add(arguments.name, arguments.role, _password(arguments), by=_by(), time_ns=time.time_ns())
    return _tell(arguments, f"added {arguments.name}, {arguments.role}", name=arguments.name, role=arguments.role)


def run_list(arguments: argparse.Namespace) -> int:
    """Always 0."""
    users = _users(arguments).all()
    if arguments.json:
        print(json.dumps([{"name": user.name, "role": user.role} for user in users]))
        return 0
    for user in users:
        print(f"{user.name:24} {user.role}")
    print(f"{len(users)} users")
    return 0


def run_remove(arguments: argparse.Namespace) -> int:
    """0 when removed."""
    _users(arguments).remove(arguments.name, by=_by(), time_ns=time.time_ns())
    return _tell(arguments, f"removed {arguments.name}; his sessions have ended", name=arguments.name)


def run_password(arguments: argparse.Namespace) -> int:
    """0 when changed."""
    users = _users(arguments)
    users.set_password(arguments.name, _password(arguments), by=_by(), time_ns=time.time_ns())
    return _tell(arguments, f"changed the password of {arguments.name}; his sessions have ended", name=arguments.name)
