"""The language of the code: names say what they name, every class name is unique, everything public is documented."""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import holdover
from holdover.catalogue import Catalogue, Invariant
from holdover.cli import main

SOURCE = Path(holdover.__file__).parent
ROOT = Path(__file__).parents[2]

_WORDS = (
    "one two three other others told said found kept held asked made given known left there here what who whom "
    "which word again mine ours theirs yours into was were came gone saying taken heard wanted done lives act so "
    "many him her it things thing more most this that these those now then went seen saw put took got way stuff "
    "back another each every none some both life living alone going begun brought called chosen sent spoken stood "
    "standing tried answered taking once same such whose like own up down out off away over under beside anew "
    "whatever somebody something nobody nothing everything everyone anybody anything lost gave goes comes does "
    "did being much few less enough else "
)
VAGUE = frozenset(_WORDS.split())
"""Pronouns, participles and adverbs: words that name no thing."""

ALLOWED = frozenset({"OTHER", "Held", "other"})
"""A FIX value, a type alias of the annotation language, and the argument of a comparison method."""

SHARE_MAX = {"src": 0.003, "tests": 0.004, "bench": 0.012}
"""The highest share of vague names among all bound names. These numbers may only be lowered."""


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every name that a module binds: definitions, parameters, assignments, targets and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name, node.lineno


def is_vague(name: str) -> bool:
    """Return whether a name consists of a vague word alone."""
    return name not in ALLOWED and not name.startswith("__") and name.strip("_").lower() in VAGUE


def vague_share(trees: dict[str, ast.AST]) -> tuple[float, Counter[str]]:
    """Return the share of vague names among all bound names, and the vague ones by name and file."""
    total = 0
    vague: Counter[str] = Counter()
    for path, tree in trees.items():
        for name, _ in bound_names(tree):
            total += 1
            if is_vague(name):
                vague[f"{path}: {name}"] += 1
    return vague.total() / total, vague


def trees_of(folder: Path) -> dict[str, ast.AST]:
    """Return the syntax tree of each module below a folder, by its path."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
        if "out" not in path.parts
    }


def public_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the public names of a module: its own, those of its public classes, and the parameters of both."""

    def members(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("_") and node.name != "__init__":
                    continue
                yield node.name, node.lineno
                arguments = node.args
                for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
                    if not argument.arg.startswith("_"):
                        yield argument.arg, argument.lineno
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, node.lineno
                yield from members(node.body)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name) and not target.id.startswith("_"):
                        yield target.id, target.lineno

    yield from members(tree.body)


def test_names_say_what_they_name() -> None:
    """The share of pronouns and participles among bound names stays below its limit, which only falls."""
    for folder, limit in SHARE_MAX.items():
        share, vague = vague_share(trees_of(ROOT / folder))
        assert share <= limit, f"{folder}: {share:.2%} vague names, at most {limit:.2%}: {vague.most_common(12)}"


def test_a_vague_name_is_counted() -> None:
    """The measure itself: of four bound names, `one` and `told` are vague."""
    share, vague = vague_share({"module": ast.parse("def load(one):\n    told = one\n    order = told\n")})
    assert share == 0.5
    assert vague == {"module: one": 1, "module: told": 1}


def test_no_vague_name_is_public() -> None:
    """No public class, function, attribute or parameter of the package is a pronoun or a participle."""
    vague = [
        f"{path}:{line}: {name}"
        for path, tree in trees_of(SOURCE).items()
        if isinstance(tree, ast.Module)
        for name, line in public_names(tree)
        if is_vague(name)
    ]
    assert vague == []


def test_class_names_are_unique() -> None:
    """A class name means one thing in the whole package."""
    places: dict[str, list[str]] = {}
    for path, tree in trees_of(SOURCE).items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_exceptions_end_in_error() -> None:
    """Every exception class is called `...Error`."""
    exceptions = {"Exception", "BaseException"}
    wrong: list[str] = []
    classes = [node for tree in trees_of(SOURCE).values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in classes:
        bases = {ast.unparse(base).rsplit(".", 1)[-1] for base in node.bases}
        if any(base in exceptions or base.endswith(("Error", "Exception")) for base in bases):
            exceptions.add(node.name)
            if not node.name.endswith("Error"):
                wrong.append(node.name)
    assert wrong == []


def test_modules_are_named_after_what_they_hold() -> None:
    """No module or package is a drawer for anything."""
    drawers = {"utils", "util", "helpers", "common", "misc", "manager", "stuff", "again", "word", "alone", "night"}
    assert [path for path in trees_of(SOURCE) if Path(path).stem in drawers] == []


def public_definitions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Yield the public classes and functions of a body, with the members of the classes; local ones are left out."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body)


def test_everything_public_is_documented() -> None:
    """Each public module, class and function has a docstring of more than one word."""
    missing: list[str] = []
    for path, tree in trees_of(SOURCE).items():
        assert isinstance(tree, ast.Module)
        if not ast.get_docstring(tree):
            missing.append(path)
        for node in public_definitions(tree.body):
            if any("overload" in ast.unparse(decorator) for decorator in node.decorator_list):
                continue
            if len((ast.get_docstring(node) or "").split()) < 2:
                missing.append(f"{path}:{node.lineno}: {node.name}")
    assert missing == []


# -- docs, catalogue entries and help texts ---------------------------------------------------------------------------

PLAIN_WORDS = re.compile(
    r"(?<![-\w])(?:beside|anew|occasions?|stands?|lives|life|whatever|somebody|houses?|rooms?|word|(?<!in )words"
    r"|ways?|grounds?|hands?|(?:is|are|was|were|be|been|being) (?:told|said|asked))\b",
    re.IGNORECASE,
)
"""Metaphors, and verbs without an agent: a text says more plainly what it means."""

PHRASES = (
    "no capital ever runs on",
    "Where the two first part",
    "is neither recorded nor on the disk",
    "for what there was no occasion",
    "its last memory is asked",
    "and joined by none",
    "does not finish what it began",
    "takes upon himself",
    "nothing of nothing",
    "what it did not expect is its answer too",
    "Where a click goes",
    "One room, one noun",
)
"""Sentences that read like a translation; none of them may return."""

FORMER_NAMES = re.compile(
    r"\b(?:put_back|again\.py|word\.py|VenueWord|alone\.py|night\.py|hand\.py|ground\.py|thawing\.py|outside\.py"
    r"|trade_by_hand|fill_late|Latches|auditlog\.py|desk/books\.py|core\.py|mirror\.py)\b"
)

PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG")),
    ]
)

HELP_COUNT_MAX = 0
"""The highest number of hits in help texts. This number may only be lowered."""


def prose_of(page: Path) -> str:
    """Return the prose of a page: without code, link targets, comments, and tables that a tool makes."""
    text = re.sub(r"<!-- made by .*?<!-- end .*?-->|<!-- bench .*?<!-- end -->", "", page.read_text(), flags=re.DOTALL)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`]+`|\]\([^)]*\)|<!--.*?-->", "", text)
    if page.parent.name == "findings":
        text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    return text


def find_wording(text: str) -> list[str]:
    """Return each word and phrase of a text that the language rules exclude."""
    flat = " ".join(text.split())
    return [*PLAIN_WORDS.findall(flat), *(phrase for phrase in PHRASES if phrase.lower() in flat.lower())]


def entry_texts(invariant: Invariant) -> Iterator[str]:
    """Yield every text of an entry that an operator reads."""
    entry = invariant.entry
    yield from (entry.statement, entry.description, entry.implication)
    for step in entry.response:
        yield from (step.step, step.done_when)


class ParserCapturedError(Exception):
    """Ends `main` once its parser is complete."""


def parser_for(verb: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """Return the parser that the command line makes for a verb; an unknown verb gives all verbs."""
    captured: list[argparse.ArgumentParser] = []

    def capture(parser: argparse.ArgumentParser, *arguments: object) -> None:
        captured.append(parser)
        raise ParserCapturedError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", capture)
        with pytest.raises(ParserCapturedError):
            main([verb])
    return captured[0]


def verb_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of a parser's subcommands by name."""
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: subparser for action in subparsers for name, subparser in action.choices.items()}


def help_texts(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, str]]:
    """Yield every help text of a command and its subcommands, with the command line that shows it."""
    yield from ((path, text) for text in (parser.description, parser.epilog) if text)
    for action in parser._actions:
        if action.help and action.help != argparse.SUPPRESS:
            yield f"{path} {'/'.join(action.option_strings) or action.dest}", action.help
        if isinstance(action, argparse._SubParsersAction):
            yield from ((f"{path} {choice.dest}", choice.help) for choice in action._choices_actions if choice.help)
    for name, subparser in verb_parsers(parser).items():
        yield from help_texts(subparser, f"{path} {name}")


def count_wording(texts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the excluded wording of labelled texts, without the labels whose texts are plain."""
    return {label: hits for label, text in texts if (hits := find_wording(re.sub(r"`[^`]+`", "", text)))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_docs_are_in_plain_language(page: Path) -> None:
    """No page uses a metaphor, a verb without an agent, or a former name."""
    assert find_wording(prose_of(page)) == []
    assert FORMER_NAMES.findall(page.read_text()) == []


def test_entries_are_in_plain_language() -> None:
    """No text of a catalogue entry uses a metaphor or a verb without an agent."""
    texts = ((invariant.name, text) for invariant in Catalogue.load() for text in entry_texts(invariant))
    assert count_wording(texts) == {}


def test_help_is_in_plain_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of help texts with such wording stays below its limit, which only falls."""
    texts: dict[str, str] = {}
    for verb in verb_parsers(parser_for("no-such-verb", monkeypatch)):
        texts |= dict(help_texts(parser_for(verb, monkeypatch), "holdover"))
    hits = count_wording(texts.items())
    assert len(texts) > 200
    assert len(hits) <= HELP_COUNT_MAX, hits


def test_wording_is_found() -> None:
    """The measure itself: whole words in any case, phrases over line ends; no part of another word."""
    assert find_wording("It stands beside what is\ntold; a password understands houses.") == [
        "stands",
        "beside",
        "is told",
        "houses",
    ]
    assert find_wording("a system that no capital\never runs on") == ["no capital ever runs on"]
