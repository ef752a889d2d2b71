"""The parser of the command line: help with an example and exit codes, and the nearest word for a mistyped one."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from holdover.cli.verbs import GROUPS, VERBS
from holdover.model.spelling import suggest_spelling

Run = Callable[[argparse.Namespace], int]
"""What a command does: takes the parsed options and returns the exit code."""

EXIT_CODES: Final[Mapping[int, str]] = {
    0: "holds",
    1: "breach, or gate not met",
    2: "usage error or bad input",
    3: "could not tell: stopped, failed, or nothing to judge",
}
"""The exit codes of every verb; a verb states its own meaning of 0, 1 and 3."""


class HelpFormatter(argparse.HelpFormatter):
    """Wraps a text of one line and keeps the lines of a text that has several."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "\n".join(indent + line for line in text.splitlines())
        return super()._fill_text(text, width, indent)

    def _split_lines(self, text: str, width: int) -> list[str]:
        # Not at hyphens: the name of a file or an option that is broken there cannot be copied.
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)


class CommandParser(argparse.ArgumentParser):
    """A parser that names the nearest right word for a mistyped verb or option."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        settings.setdefault("formatter_class", HelpFormatter)
        super().__init__(*arguments, **settings)
        self.examples: list[str] = []
        self.exits: dict[int, str] = {}
        self._words: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments. An option that does not exist is an error that names the nearest one."""
        self._words = list(args) if args is not None else []
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """Print the usage, the problem and the nearest right words; exits with 2."""
        hints = "".join(f"\n{self.prog}: no option is called {name}{hint}" for name, hint in self._mistyped_options())
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}{hints}\nTo see the help, run: {self.prog} --help\n")

    def _mistyped_options(self) -> list[tuple[str, str]]:
        options = [option for option in self._option_string_actions if option.startswith("--")]
        words = self._words[: self._words.index("--")] if "--" in self._words else self._words
        names = [word.partition("=")[0] for word in words if word.startswith("--")]
        return [
            (name, suggest_spelling(name, options))
            for name in names
            if suggest_spelling(name, options) and not any(option.startswith(name) for option in options)
        ]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices if str(choice)]
            hint = suggest_spelling(str(value), choices) or f"; there are {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"{str(value)!r} does not exist{hint}")


def make_parser(version: str) -> CommandParser:
    """Return the parser of `holdover` without its verbs; its help lists them by task."""
    parser = CommandParser(
        prog="holdover",
        usage="holdover [--help] [--version] VERB ...",
        description="State-persistent testing and runtime invariants for live execution systems.",
        epilog=_overview(),
    )
    parser.add_argument("--version", action="version", version=f"holdover {version}", help="print the version and exit")
    return parser


def _overview() -> str:
    width = max(map(len, VERBS))
    lines: list[str] = []
    for title, verbs in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:<{width}}  {verb.sentence}" for name, verb in verbs.items()), ""]
    lines += ["exit codes:", *(f"  {code}  {meaning}" for code, meaning in EXIT_CODES.items()), ""]
    return "\n".join([*lines, "To see the options, an example and the exit codes of a verb, run: holdover VERB --help"])


def add_verb(verbs: Any, name: str, example: str, exits: Mapping[int, str], **settings: Any) -> CommandParser:
    """Add a verb with the sentence of the table; see `add_command`."""
    return add_command(verbs, name, VERBS[name].sentence, example, exits, **settings)


def add_command(
    commands: Any,
    name: str,
    sentence: str,
    example: str,
    exits: Mapping[int, str],
    *,
    details: str = "",
    run: Run | None = None,
    **settings: Any,
) -> CommandParser:
    """Add a verb or a subcommand.

    Args:
        commands: what `add_subparsers` returned.
        name: the word on the command line.
        sentence: what it does, in one sentence.
        example: a command that can be pasted.
        exits: the meaning of the exit codes of this command; 2 and 3 have a default.
        details: further sentences for the help of the command.
        run: the function to call.
        settings: further arguments of the parser.
    """
    exits = {2: EXIT_CODES[2], 3: EXIT_CODES[3], **exits}
    lines = [f"  {code}  {exits[code]}" for code in sorted(exits)]
    parser: CommandParser = commands.add_parser(
        name,
        help=sentence,
        description=f"{sentence} {details}".strip(),
        epilog="\n".join(["example:", f"  {example}", "", "exit codes:", *lines]),
        **settings,
    )
    parser.examples, parser.exits = [example], dict(exits)
    if run is not None:
        parser.set_defaults(run=run)
    return parser


def add_subcommands(parser: CommandParser, dest: str) -> Any:
    """Return the action to which the subcommands of a verb are added; one of them is required."""
    return parser.add_subparsers(dest=dest, metavar="COMMAND", required=True, title="commands")
