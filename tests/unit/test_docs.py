"""What the docs show runs, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from holdover.recording import bundled_store

ROOT = Path(__file__).resolve().parents[2]
DOCS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def code_blocks(name: str, language: str) -> list[str]:
    """The fenced blocks of one language in a page."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


@pytest.mark.slow
def test_the_first_hour_runs_as_written(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block of docs/start.md in its order: files by the name before them, commands with the verdict behind them.

    What a text block shows is what the commands have printed.
    """
    from holdover.cli import main

    page = (ROOT / "docs/start.md").read_text()
    monkeypatch.syspath_prepend(str(pytester.path))
    printed, tests, verdicts = "", 0, []
    for before, language, block in re.findall(r"([^`]*(?:`[^`]+`[^`]*)*)```(\w+)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            (pytester.path / re.findall(r"`(\w+\.py)`", before)[-1]).write_text(block)
            if "def test_" in block:
                pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
                tests += 1
        elif language == "text":
            missing = [line for line in block.splitlines() if line.strip() and line not in printed]
            assert not missing
        else:
            for line in block.splitlines():
                command, _, expected = line.partition("#")
                if command.startswith("holdover"):
                    code = main(command.split()[1:])
                    shown = capsys.readouterr().out
                    printed += shown
                    assert shown.startswith(expected.strip()), shown
                    assert code == {"HOLDS": 0, "BREACH": 1}[expected.strip()]
                    verdicts.append(expected.strip())
    assert tests == 1
    assert verdicts == ["HOLDS", "BREACH", "HOLDS", "BREACH", "BREACH", "HOLDS"]


def test_an_unexpected_breach_fails_a_test(pytester: pytest.Pytester) -> None:
    """A test on a broken subject fails though it asserts nothing, and says which invariant."""
    pytester.makepyfile(
        """
        import pytest
        from holdover.harness import PartialFill, first

        @pytest.mark.state(instrument="ACME", faults=["forget-carried-partial"])
        def test_it(session):
            session.begin()
            assert session.run(first(PartialFill))
            session.restart(kill=True)
            session.run(0.5)
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    assert "order-quantity-conserved" in result.stdout.str()


def test_the_smallest_adapter_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/adapters.md survives a day with a restart."""
    from holdover.harness import Session, SessionConfig, resolve_factory

    (tmp_path / "smallest.py").write_text(code_blocks("docs/adapters.md", "python")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    factory = resolve_factory("smallest:Watcher")
    session = Session(factory, bundled_store(), ["BOLT"], tmp_path / "s", SessionConfig(days=["2024-11-27"]))
    session.begin()
    session.run(0.5)
    session.restart(kill=True)
    session.end()
    session.close()
    assert session.breaches == []


def _without_times(text: str) -> str:
    """A text with marks instead of times, durations and days."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} UTC", "TIME", text)
    return re.sub(r"\b\d+ (ms|s|min)\b", "LENGTH", text)


def test_the_page_about_observe_mode_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each block of docs/observe.md in its order: files by the name in them, commands with their exit codes, output."""
    import shlex

    from holdover.cli import main

    monkeypatch.chdir(tmp_path)
    printed, verbs = "", []
    for language, block in re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs/observe.md").read_text(), re.DOTALL):
        if language == "toml":
            (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
        elif language == "python":
            exec(block, {"__name__": "example"})
        elif language == "text":
            shown = _without_times(printed)
            assert [line for line in _without_times(block).splitlines() if line not in shown.splitlines()] == []
        else:
            for line in block.splitlines():
                expected = re.search(r"exit code (\d)", line)
                words = shlex.split(line, comments=True)[1:]
                code = main(words)
                printed += capsys.readouterr().out
                assert code == (int(expected[1]) if expected else 0), line
                verbs.append(" ".join(words[:2]))
    assert verbs == ["observe report", "observe clear", "observe report", "config check", "catalogue try"]


def test_the_steps_of_tasks_run_as_written(tmp_path: Path) -> None:
    """The examples of docs/asyncio-guard.md: silent when right, in threads and tasks; a forgotten record is found."""
    import asyncio

    from holdover.runtime import Guard

    names: dict[str, Any] = {}
    for block in code_blocks("docs/asyncio-guard.md", "python"):
        exec(block, names)
    guard = Guard(tmp_path, channels=[])
    asyncio.run(names["trade"](guard))
    guard.record("orders", names["make_order"]("A3"))
    names["on_fill"](guard, "A3", 10)
    assert guard.breaches == []
    guard.record("orders", names["make_order"]("A4"))
    guard.record("orders", names["make_fill"]("A4", 10))
    assert {breach.key for breach in guard.breaches} == {"A4"}
    guard.close()


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture is there."""
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


PATH_BASES = (
    ROOT,
    ROOT / "src/holdover",
    ROOT / "src/holdover/adapters/fix",
    ROOT / "src/holdover/catalogue/predicates",
    ROOT / "src/holdover/console/templates",
    ROOT / "src/holdover/desk/faults",
    ROOT / "src/holdover/recording",
    ROOT / "tests/real",
)
"""The directories to which a path in the docs may be relative."""


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_named_modules_exist(name: str) -> None:
    """Each file and directory in backticks exists; a path with a name in capitals is a placeholder."""
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(), flags=re.DOTALL)
    paths = set(re.findall(r"`([\w./-]+\.(?:py|toml|html|md)|[\w-]+(?:/[\w-]+)+)`", text))
    paths = {path for path in paths if not re.search(r"\b[A-Z]{4,}\b", path)}
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not any((base / path).exists() for base in PATH_BASES)] == []


def test_named_tests_and_classes_exist() -> None:
    """Each test function, class and method that CONTRIBUTING.md names is in the source or in the tests."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    sources = "".join(path.read_text() for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py"))
    names = set(re.findall(r"`@?(test_\w+|[A-Z_]+_KINDS|[A-Z][a-z]+[A-Z]\w+)(?:\(.*?\))?`", text))
    names |= {method for _, method in re.findall(r"`([A-Z]\w+)\.(\w+)`", text)}
    assert len(names) > 10
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", sources)] == []


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_verbs_in_the_docs_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every `holdover VERB` that a page shows is one that the command line knows."""
    from holdover.cli import main

    for verb in set(re.findall(r"^(?:.*\| )?holdover (\w+)", page.read_text(), re.MULTILINE)):
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0
        capsys.readouterr()


def test_the_axis_of_the_docs_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/coverage.md registers an axis that follows its records."""
    from holdover.model import Book
    from holdover.runtime import Guard

    monkeypatch.setattr("holdover.runtime.axes._REGISTERED", {})
    exec(code_blocks("docs/coverage.md", "python")[0], {"__name__": "example"})
    guard = Guard(tmp_path, channels=[])
    guard.record("gateway", Book(symbol="X", trading=False))
    halted = guard.cells.axes[-1]
    assert halted.words[halted.value] == "a book halted"
    guard.close()


def test_the_audit_of_the_docs_finds_its_breach(capsys: pytest.CaptureFixture[str]) -> None:
    """The example of docs/audit.md prints what the page says."""
    exec(code_blocks("docs/audit.md", "python")[0], {"__name__": "example"})
    output = capsys.readouterr().out.strip()
    assert f"prints `{output}`" in (ROOT / "docs/audit.md").read_text()


def test_every_option_of_state_coverage_is_in_the_docs(pytester: pytest.Pytester) -> None:
    """What the code names, the docs name: options, axes, parts of the verb."""
    from holdover.runtime.axes import BUILT_IN

    docs_text = "".join((ROOT / "docs" / name).read_text() for name in ("coverage.md", "ci.md"))
    helped = pytester.runpytest_inprocess("--help", "-p", "no:cacheprovider").stdout.str()
    assert set(re.findall(r"--state-cov[a-z-]*", helped)) <= set(re.findall(r"--state-cov[a-z-]*", docs_text))
    assert all(axis.words and axis.title for axis in BUILT_IN)


@pytest.mark.parametrize("name", ["docs/ci.md", "docs/coverage.md"])
def test_commands_of_state_coverage_in_the_docs_are_understood(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each `holdover coverage` and `holdover gate` line of the pages has options that exist."""
    import shlex

    from holdover.cli import coverage, gate, main

    for module, runs in (
        (coverage, [attribute for attribute in vars(coverage) if attribute.startswith("run_")]),
        (gate, ["run"]),
    ):
        for run in runs:
            monkeypatch.setattr(module, run, lambda arguments: 0)
    lines = re.findall(
        r"^\s*(?:- (?:run: )?)?holdover ((?:coverage|gate) .*)$", (ROOT / name).read_text(), re.MULTILINE
    )
    assert lines
    for line in lines:
        assert main(shlex.split(line, comments=True)) == 0, line


def test_the_schedule_of_the_docs_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The schedule of docs/exploration.md is one, the lines below it play it, and so does the verb."""
    from holdover.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.json").write_text(code_blocks("docs/exploration.md", "json")[0])
    exec(code_blocks("docs/exploration.md", "python")[0], {"__name__": "example"})
    assert main(["replay", "one.json"]) == 0
    assert "2 operations done" in capsys.readouterr().out


def test_the_strategy_of_the_docs_works(pytester: pytest.Pytester) -> None:
    """The example of docs/exploration.md with Hypothesis, copied into a file, passes."""
    pytester.makepyfile(code_blocks("docs/exploration.md", "python")[1])
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
