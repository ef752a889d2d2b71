"""`holdover serve`, `holdover users`: the console and its users."""

from __future__ import annotations

import argparse
import getpass
import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from holdover.cli.commands import add_command, add_subcommands, add_verb
from holdover.cli.options import add_json_option
from holdover.runtime.secrets import secret_from_file
from holdover.runtime.thaw_requests import find_guard_config

if TYPE_CHECKING:
    from holdover.console import ConsoleUsers


def add_parser(verbs: Any) -> None:
    """Add the verbs."""
    serving = add_verb(
        verbs,
        "serve",
        "holdover serve --config guard.toml",
        {0: "stopped"},
        details="Operators see breaches, alerts and freezes in a browser, and acknowledge and thaw there.",
        run=run_serve,
    )
    _add_config_option(serving)
    serving.add_argument("--host", metavar="HOST", help="the address to listen at; beyond loopback it needs TLS")
    serving.add_argument("--port", type=int, metavar="PORT", help="the port; default: of the configuration, or 8321")
    serving.add_argument("--tls-cert", type=Path, metavar="FILE", help="the certificate chain, PEM")
    serving.add_argument("--tls-key", type=Path, metavar="FILE", help="the private key of the certificate, PEM")
    serving.add_argument(
        "--insecure-i-know",
        action="store_true",
        help="listen beyond loopback without TLS; others on the network can read the passwords",
    )
    _add_users(verbs)


def _add_users(verbs: Any) -> None:
    done = {0: "done"}
    people = add_verb(verbs, "users", "holdover users list --config guard.toml", done)
    commands = add_subcommands(people, "what")
    # Without abbreviations, so that --password is not read as --password-file with a password after it.
    adding = add_command(
        commands,
        "add",
        "Add a user; you are asked for the password.",
        "holdover users add ann --role operator --config guard.toml",
        done,
        run=run_add,
        allow_abbrev=False,
    )
    adding.add_argument(
        "--role",
        required=True,
        help="viewer (reads), operator (acts) or approver (overrides the refusal of another operator's thaw)",
    )
    listing = add_command(
        commands,
        "list",
        "List every user with the role.",
        "holdover users list --config guard.toml",
        done,
        run=run_list,
    )
    removing = add_command(
        commands,
        "remove",
        "Remove a user and end the user's sessions.",
        "holdover users remove ann --config guard.toml",
        done,
        run=run_remove,
    )
    changing = add_command(
        commands,
        "password",
        "Change a password and end the user's sessions.",
        "holdover users password ann --config guard.toml",
        done,
        run=run_password,
        allow_abbrev=False,
    )
    linking = add_command(
        commands,
        "device",
        "Print a link that lets a new browser log in while others try the user's password.",
        "holdover users device ann --config guard.toml",
        done,
        run=run_device,
    )
    for parser in (adding, removing, changing, linking):
        parser.add_argument("name", metavar="NAME", help="the name of the user")
    for parser in (adding, changing):
        parser.add_argument(
            "--password-file",
            type=Path,
            metavar="FILE",
            help="read the password from this file, which only its owner may read",
        )
    for parser in (adding, listing, removing, changing, linking):
        _add_config_option(parser)
        add_json_option(parser)


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
    from holdover.console import Console
    from holdover.console.server import check_address, serve

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
            "holdover: the console has no users yet. To add one, run: holdover users add "
            f"{shlex.quote(_login_name())} --role operator --config {shlex.quote(str(arguments.config))}",
            file=sys.stderr,
        )
    serve(console, host, port, cert, key)
    return 0


def _open_users(arguments: argparse.Namespace) -> ConsoleUsers:
    from holdover.console import ConsoleUsers

    return ConsoleUsers(find_guard_config(arguments.config, must_exist=False).open_store())


def _read_password(arguments: argparse.Namespace) -> str:
    if arguments.password_file is not None:
        return secret_from_file(arguments.password_file)
    if not sys.stdin.isatty():
        raise ValueError("no terminal to ask for the password; give --password-file FILE")
    password = getpass.getpass(f"Password of {arguments.name}: ")
    if getpass.getpass("Again: ") != password:
        raise ValueError("the two passwords differ; nothing was changed")
    return password


def _actor() -> str:
    name = _login_name()
    return f"{name} on the command line" if name != "NAME" else "the command line"


def _login_name() -> str:
    """Return the name of the user who is logged in; a placeholder when the system knows none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "NAME"


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
    return _print_result(arguments, f"removed {arguments.name}; the user's sessions have ended", name=arguments.name)


def run_password(arguments: argparse.Namespace) -> int:
    """Change a password; returns 0."""
    users = _open_users(arguments)
    users.set_password(arguments.name, _read_password(arguments), by=_actor(), time_ns=time.time_ns())
    return _print_result(
        arguments, f"changed the password of {arguments.name}; the user's sessions have ended", name=arguments.name
    )


def run_device(arguments: argparse.Namespace) -> int:
    """Print the link for a new browser of a user; returns 0. Raises `UserError` when there is no such user."""
    from holdover.console import LoginThrottle

    config = find_guard_config(arguments.config, must_exist=False)
    store = config.open_store()
    now_ns = time.time_ns()
    _open_users(arguments).require_user(arguments.name)
    store.log_action("device", f"{arguments.name} gets a link for a browser by {_actor()}", now_ns)
    token = LoginThrottle(store).remember_device(arguments.name, "", "", now_ns)
    path = f"/login?device={token}"
    message = (
        f"{arguments.name} opens this page of the console once in the new browser, then logs in as usual: {path}\n"
        "The link replaces no password. It only counts attempts from that browser apart from those of others."
    )
    return _print_result(arguments, message, name=arguments.name, path=path)
