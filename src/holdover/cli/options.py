"""Options that several verbs share, with the same name and help everywhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from holdover.runtime.size_limits import parse_size


def add_json_option(parser: argparse.ArgumentParser, text: str = "print one JSON object on standard output") -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help=text)


def add_catalogue_option(parser: argparse.ArgumentParser) -> None:
    """Add `--catalogue`, which may be repeated."""
    parser.add_argument(
        "--catalogue",
        action="append",
        default=[],
        metavar="SOURCE",
        help="a folder or package of your own invariants, in addition to the built-in ones; may be repeated",
    )


def add_recordings_option(parser: argparse.ArgumentParser) -> None:
    """Add `--recordings`."""
    parser.add_argument(
        "--recordings", type=Path, metavar="DIR", help="a folder of recordings; default: the bundled simulated ones"
    )


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add `--trust`."""
    parser.add_argument(
        "--trust", action="store_true", help="run the code that the file names; without it only built-in subjects run"
    )


def add_size_option(parser: argparse.ArgumentParser) -> None:
    """Add `--max-size`."""
    parser.add_argument(
        "--max-size",
        type=_parse_size_option,
        metavar="SIZE",
        help="the most that the file may expand to, such as 500M or 4G; default: 200 times its size, at most 1G",
    )


def _parse_size_option(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def add_instrument_option(parser: argparse.ArgumentParser) -> None:
    """Add `--instrument`, a list of symbols."""
    parser.add_argument(
        "--instrument", metavar="SYM[,SYM...]", help="the instruments, by symbol; default: the first one recorded"
    )


def add_subject_option(parser: argparse.ArgumentParser) -> None:
    """Add `--subject`."""
    parser.add_argument(
        "--subject",
        default="desk",
        metavar="NAME",
        help="the system under test: desk (default), nautilus, freqtrade, or MODULE:NAME of your own",
    )


def add_seed_option(parser: argparse.ArgumentParser) -> None:
    """Add `--seed`."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the seed of all random choices (default 0)")


def add_fault_option(parser: argparse.ArgumentParser) -> None:
    """Add `--fault`, which may be repeated."""
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME",
        help="enable a seeded fault of the reference desk; may be repeated",
    )


def add_out_option(parser: argparse.ArgumentParser, default: str, content: str) -> None:
    """Add `--out`, the directory that the verb writes to."""
    parser.add_argument(
        "--out", type=Path, default=Path(default), metavar="DIR", help=f"where to write {content} (default {default})"
    )


def add_guard_option(parser: argparse.ArgumentParser) -> None:
    """Add `--guard`, a guard's directory or configuration."""
    parser.add_argument(
        "--guard", type=Path, required=True, metavar="DIR|TOML", help="the guard's directory, or its configuration"
    )


def add_operator_option(parser: argparse.ArgumentParser) -> None:
    """Add `--operator`."""
    parser.add_argument("--operator", required=True, metavar="NAME", help="your name, for the audit log")
