"""The command line as a whole: help, mistyped words, closed pipes, missing extras, and the exit codes of crashes."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdover import __version__
from holdover.cli import commands, errors, main
from holdover.cli.commands import CommandParser, make_parser
from holdover.cli.guard import suggest_scope
from holdover.cli.verbs import GROUPS, VERBS, list_modules
from holdover.model.spelling import suggest_spelling
from holdover.runtime import Guard


def build_parser() -> CommandParser:
    """Return the parser with every verb."""
    parser = make_parser(__version__)
    verbs = parser.add_subparsers(dest="verb", prog="holdover")
    for module in list_modules():
        importlib.import_module(f"holdover.cli.{module}").add_parser(verbs)
    return parser


def walk_commands(parser: argparse.ArgumentParser) -> Iterator[CommandParser]:
    """Yield the parser of every verb and subcommand."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield child
                yield from walk_commands(child)


PARSER = build_parser()
COMMANDS = list(walk_commands(PARSER))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.prog)
def test_every_command_has_help(command: CommandParser) -> None:
    """A sentence, an example that can be pasted, the meaning of its exit codes, and help for each option."""
    assert command.description is not None
    assert re.match(r"[A-Z].*\.", command.description), command.description
    assert set(command.exits) >= {2, 3}
    assert set(command.exits) <= {0, 1, 2, 3}
    assert command.epilog is not None
    for code, meaning in command.exits.items():
        assert f"\n  {code}  {meaning}" in command.epilog
    for action in command._actions:
        if not isinstance(action, argparse._SubParsersAction):
            assert action.help, f"{command.prog}: {action.option_strings or action.dest} has no help"
    (example,) = command.examples
    assert f"\n  {example}\n" in command.epilog
    words = shlex.split(example.partition(" <")[0])
    assert words[: len(command.prog.split())] == command.prog.split()
    PARSER.parse_args(words[1:])


def test_every_option_is_shown_by_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The help of a command is printed with exit code 0."""
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([*command.prog.split()[1:], "--help"])
        assert ended.value.code == 0
        output = capsys.readouterr().out
        options = [option for action in command._actions for option in action.option_strings if option[:2] == "--"]
        assert all(option in output for option in options)


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_the_overview_groups_the_verbs_by_task(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a verb the help is printed, and the exit code is 0."""
    if words:
        with pytest.raises(SystemExit, match="0"):
            main(words)
    else:
        assert main(words) == 0
    output = capsys.readouterr().out
    for title, verbs in GROUPS.items():
        assert f"\n{title}:\n" in output
        for name, verb in verbs.items():
            assert re.search(rf"\n  {name} +{re.escape(verb.sentence)}", output), name
    assert all(meaning in output for meaning in commands.EXIT_CODES.values())


def test_the_overview_imports_no_verb() -> None:
    """The help of the program needs the table of verbs alone."""
    code = "import sys, holdover.cli; holdover.cli.main([]); print('holdover.catalogue' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"


# -- mistyped words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["cylce"], "did you mean cycle?"),
        (["freze", "instrument:IBM"], "did you mean freeze?"),
        (["recording", "lst"], "did you mean list?"),
        (["cycle", "--intrument", "ACME"], "--intrument; did you mean --instrument?"),
        (["freeze", "instrument:IBM", "--opertor", "ann"], "--opertor; did you mean --operator?"),
        (["cycle", "--arm", "carrried"], "did you mean carried?"),
    ],
)
def test_a_mistyped_verb_or_option(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The nearest right word is named, and the exit code is 2."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["cycle", "--instrument", "ACNE"], "no recording of ACNE"),
        (["recording", "show", "--instrument", "ACNE", "--day", "2024-11-29"], "did you mean ACME?"),
        (["snapshot", "take", "--instrument", "BLOT"], "did you mean BOLT?"),
        (["catalogue", "show", "order-quantity-conservd"], "did you mean order-quantity-conserved?"),
        (["sweep", "--kinds", "kil"], "did you mean kill?"),
        (["faults", "--fault", "forget-carried-partail"], "did you mean forget-carried-partial?"),
    ],
)
def test_a_mistyped_name(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Instruments, invariants, kinds and faults."""
    assert main(words) == 2
    message = capsys.readouterr().err
    assert hint in message
    assert "did you mean" in message


def test_a_mistyped_scope(make_guard: Callable[..., Guard], capsys: pytest.CaptureFixture[str]) -> None:
    """The kind of a scope is refused with the right one; an unknown subsystem is frozen, and the right one named."""
    guard = make_guard()
    guard.close()
    options = ["--guard", str(guard.directory), "--operator", "ann", "--reason", "drill"]
    assert main(["freeze", "instrumnt:IBM", *options]) == 2
    assert "did you mean instrument?" in capsys.readouterr().err
    assert main(["freeze", "subsystem:ordrs", *options]) == 0
    assert "did you mean subsystem:orders?" in capsys.readouterr().err
    assert main(["freeze", "subsystem:orders", *options]) == 0
    assert capsys.readouterr().err == ""


def test_the_scope_that_was_meant() -> None:
    """Only an unknown name that is similar to a known one gets a hint."""
    assert suggest_scope("account:A1/instrument:IBN", ["IBM"]) == "; did you mean account:A1/instrument:IBM?"
    assert suggest_scope("instrument:IBM", ["IBM"]) == ""
    assert suggest_scope("instrument:IBN", []) == ""
    assert suggest_scope("subsystem:clearing", ["IBM"]) == ""
    assert suggest_scope("system", ["IBM"]) == ""


@given(st.sets(st.from_regex(r"[a-z]{4,12}", fullmatch=True), min_size=1), st.data())
def test_the_nearest_word_is_one_that_exists(words: set[str], data: st.DataObject) -> None:
    """A word that exists is its own nearest; whatever is suggested exists."""
    word = data.draw(st.sampled_from(sorted(words)))
    assert suggest_spelling(word.upper(), words) == f"; did you mean {word}?"
    suggestion = suggest_spelling(data.draw(st.text(max_size=8)), words)
    assert suggestion == "" or suggestion.removeprefix("; did you mean ").removesuffix("?") in words


# -- closed pipes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["--help", "catalogue list", "catalogue book --help", "recording show"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_silent(arguments: str, unbuffered: str) -> None:
    """A reader that stops reading gets no traceback and no message, whatever the buffering."""
    process = subprocess.Popen(
        [sys.executable, "-m", "holdover", *arguments.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONUNBUFFERED": unbuffered, "PATH": ""},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() in (0, 3)


# -- missing extras -------------------------------------------------------------------------------------------------

CORE_INSTALL = """
import contextlib, importlib.abc, io, json, sys
from holdover.cli.errors import EXTRAS

class CoreInstall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

for name in [name for name in sys.modules if name.partition(".")[0] in EXTRAS]:
    del sys.modules[name]
sys.meta_path.insert(0, CoreInstall())
from holdover.cli import main
outcomes = []
for words in json.load(sys.stdin):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code
    outcomes.append([code, errors.getvalue()])
print(json.dumps(outcomes))
"""

GUARD_TOML = """
[guard]
directory = "guard"
[store]
url_env = "STORE"
[[instrument]]
symbol = "ACME"
"""

DESK_TOML = """
[guard]
directory = "guard"
[[instrument]]
symbol = "ACME"
[desk]
directory = "desk"
open = 14:30:00
close = 21:00:00
[fix]
host = "127.0.0.1"
port = 1
sender = "DESK"
target = "VENUE"
"""


@pytest.fixture
def core_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[list[str]]], list[tuple[int, str]]]:
    """Return a function that runs commands where no optional extra is installed."""
    monkeypatch.setenv("STORE", "postgresql://nobody@127.0.0.1:1/none")

    def run(word_lists: list[list[str]]) -> list[tuple[int, str]]:
        result = subprocess.run(
            [sys.executable, "-c", CORE_INSTALL],
            input=json.dumps(word_lists),
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        return [(code, message) for code, message in json.loads(result.stdout)]

    return run


def test_a_missing_extra_names_its_pip_command(
    tmp_path: Path, core_install: Callable[[list[list[str]]], list[tuple[int, str]]]
) -> None:
    """On a core install each verb that needs more says so in one sentence."""
    (tmp_path / "guard.toml").write_text(GUARD_TOML)
    (tmp_path / "desk.toml").write_text(DESK_TOML)
    (tmp_path / "lean" / "equity" / "usa" / "minute" / "acme").mkdir(parents=True)
    (tmp_path / "lean" / "equity" / "usa" / "minute" / "acme" / "20241129_trade.zip").write_bytes(b"PK")
    (tmp_path / "instrument.toml").write_text('symbol = "ACME"\n')
    (tmp_path / "days.dbn").write_bytes(b"DBN")
    store = ["--guard", "guard.toml"]
    dbn_options = ["--instrument", "instrument.toml", "--day", "2024-11-29"]
    wanted = {
        "calendars": [["recording", "import", "lean", "lean", "--into", "out"]],
        "dbn": [["recording", "import", "dbn", "days.dbn", *dbn_options, "--into", "out"]],
        "nautilus": [["cycle", "--subject", "nautilus"], ["subject", "check", "nautilus"]],
        "freqtrade": [["cycle", "--subject", "freqtrade"], ["sweep", "--subject", "freqtrade"]],
        "dask": [["sweep", "--executor", "dask", "--scheduler", "127.0.0.1:1", "--budget", "1"]],
        "postgresql": [["status", *store], ["pages", *store], ["health", *store], ["incidents", "list", *store]],
        "console": [["serve", "--config", "desk.toml"], ["users", "list", "--config", "desk.toml"]],
        "fix": [
            ["venue", "serve", "--instrument", "ACME", "--day", "2024-11-29"],
            ["desk", "run", "--config", "desk.toml"],
            ["watch", "fix://127.0.0.1:1", "--sender", "A", "--target", "B", "--state", "state"],
        ],
        "nats": [["watch", "nats://127.0.0.1:1/STREAM"]],
    }
    cases = [(extra, words) for extra, word_lists in wanted.items() for words in word_lists]
    outcomes = core_install([words for _, words in cases])
    for (extra, words), (code, message) in zip(cases, outcomes, strict=True):
        assert f"pip install 'holdover[{extra}]'" in message, (words, code, message)
        assert (code, message.count("\n")) == (2, 1), (words, message)
        assert message.startswith("holdover: "), message


def test_the_core_install_runs_without_extras(core_install: Callable[[list[list[str]]], list[tuple[int, str]]]) -> None:
    """What needs no extra works on a core install."""
    outcomes = core_install([["catalogue", "check"], ["recording", "list"], ["subject", "check", "desk"], ["--help"]])
    assert [code for code, _ in outcomes] == [0, 0, 0, 0], outcomes


def test_every_extra_is_one_of_the_package() -> None:
    """A pip command that is printed can be pasted."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    section = text.partition("[project.optional-dependencies]")[2].partition("[project.scripts]")[0]
    assert set(errors.EXTRAS.values()) <= set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))


# -- crashes --------------------------------------------------------------------------------------------------------


def crash_with(problem: BaseException) -> Callable[..., int]:
    """Return a command that raises."""

    def run(arguments: argparse.Namespace) -> int:
        raise problem

    return run


@pytest.mark.parametrize(
    "problem",
    [KeyError("x"), ValueError("x"), ZeroDivisionError(), AssertionError("x"), RecursionError(), OSError(5, "x")],
    ids=lambda problem: type(problem).__name__,
)
def test_no_crash_exits_with_1(
    problem: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exception of code that is not ours is a crash: one sentence with the place, and 3."""
    monkeypatch.setattr("holdover.cli.catalogue.run_list", crash_with(problem))
    assert main(["catalogue", "list"]) == 3
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{__file__}, line " in message
    assert "HOLDOVER_TRACEBACK=1" in message
    assert "Traceback" not in message


def test_a_crash_can_show_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the variable set the traceback is printed too, and the exit code is the same."""
    monkeypatch.setattr("holdover.cli.catalogue.run_list", crash_with(KeyError("x")))
    monkeypatch.setenv("HOLDOVER_TRACEBACK", "1")
    assert main(["catalogue", "list"]) == 3
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_exit_inside_a_verb_is_a_crash(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An adapter that ends the process with 1 does not report a breach by that."""
    monkeypatch.setattr("holdover.cli.catalogue.run_list", crash_with(SystemExit(1)))
    assert main(["catalogue", "list"]) == 3
    assert "SystemExit" in capsys.readouterr().err


def test_a_module_of_a_verb_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken installation is a crash of the tool."""
    monkeypatch.setitem(sys.modules, "holdover.cli.catalogue", None)
    assert main(["catalogue", "list"]) == 3
    assert "ModuleNotFoundError" in capsys.readouterr().err


def test_a_broken_installation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even the command line itself can be imported: 3, and one sentence."""
    monkeypatch.setitem(sys.modules, "holdover.cli.program", None)
    assert main(["catalogue", "list"]) == 3
    assert capsys.readouterr().err.startswith("holdover: the installation is broken: ModuleNotFoundError")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_reports_a_crash(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one place that runs a verb handles all of them."""
    command = next(command for command in COMMANDS if command.prog == f"holdover {verb}")
    leaf = next((child for child in walk_commands(command)), command)
    arguments = PARSER.parse_args(shlex.split(leaf.examples[0].partition(" <")[0])[1:])
    module = sys.modules[arguments.run.__module__]
    monkeypatch.setattr(module, arguments.run.__name__, crash_with(TypeError("x")))
    assert main(shlex.split(leaf.examples[0].partition(" <")[0])[1:]) == 3


def test_bad_input_is_told_from_a_bug_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence that we raise is bad input; the same exception from an operation of ours is a bug."""
    assert main(["freeze", "IBM", "--guard", str(tmp_path), "--operator", "a", "--reason", "b"]) == 2
    monkeypatch.setattr("holdover.cli.catalogue.Catalogue.load", lambda *sources: {}[1])
    assert main(["catalogue", "list"]) == 3
    monkeypatch.setattr("holdover.cli.guard._SCOPE", None)
    assert main(["freeze", "IBM", "--guard", str(tmp_path), "--operator", "a", "--reason", "b"]) == 3


def test_an_adapter_that_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A subject that raises while it is made is a crash of the adapter, and 3."""
    (tmp_path / "broken_adapter.py").write_text("def make(plan):\n    return {}['missing']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["cycle", "--subject", "broken_adapter:make", "--out", str(tmp_path / "out")]) == 3
    message = capsys.readouterr().err
    assert "the adapter failed in" in message
    assert "broken_adapter.py, line 2" in message


def test_our_exception_through_an_adapter_is_its_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What an adapter provokes and does not handle is no bad input: 3, and the place is the adapter's."""
    (tmp_path / "careless_adapter.py").write_text(
        "from holdover.world import LinkDownError\n\ndef make(plan):\n    raise LinkDownError('the link is down')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["cycle", "--subject", "careless_adapter:make", "--out", str(tmp_path / "out")]) == 3
    message = capsys.readouterr().err
    assert message.startswith("holdover: the adapter failed in ")
    assert "careless_adapter.py, line 4" in message


def test_examples_name_kinds_and_faults_that_exist() -> None:
    """An example of the help can be pasted: the kinds of operations and the seeded faults in it exist."""
    from holdover.desk.faults import FAULTS
    from holdover.harness.schedule import KINDS

    known = {"--kinds": set(KINDS), "--pairs": set(KINDS), "--fault": set(FAULTS)}
    checked = 0
    for command in COMMANDS:
        for leaf in (command, *walk_commands(command)):
            for example in getattr(leaf, "examples", ()):
                words = shlex.split(example.partition(" <")[0])
                if words[:2] == ["holdover", "shadow"]:
                    continue  # the faults of a component are named by whoever notes them
                for option, value in itertools.pairwise(words):
                    if option in known:
                        checked += 1
                        assert set(value.split(",")) <= known[option], example
    assert checked >= 2
