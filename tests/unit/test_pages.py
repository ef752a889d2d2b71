"""Pages: one way to make HTML. Markup is in templates, everything printed is escaped, and nothing is undefined."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import nodes
from markupsafe import Markup

import holdover
from holdover.pages import (
    breach_headline,
    element,
    format_clock,
    format_count,
    format_duration,
    make_environment,
    prose_html,
    strip_invariant,
    time_html,
)
from holdover.runtime import Breach

from .test_language import is_vague

SOURCE = Path(holdover.__file__).parent
ROOT = SOURCE.parents[1]
MARKUP_MODULE = SOURCE / "pages" / "markup.py"
"""The one module that may write elements: the charts are drawn with it."""

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
TEMPLATE_DIRECTORIES = sorted(path.parent for path in SOURCE.rglob("templates"))


class PageParser(HTMLParser):
    """Parse HTML: elements with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data


def markup_in(source: str) -> Iterator[str]:
    """Yield every string of a module, docstrings aside, that contains an element, and every import of an escape."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            if re.search(r"</|<(div|p|td|th|tr|table|span|section|svg|rect|line|text|html|style)\b[^|]", node.value):
                yield f"{node.lineno}: {node.value[:60]}"
        elif isinstance(node, ast.ImportFrom) and node.module in ("html", "markupsafe"):
            yield from (f"{node.lineno}: {name.name}" for name in node.names if name.name == "escape")


def test_markup_is_in_templates_only() -> None:
    """No module but the one for elements writes markup or escapes by hand."""
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != MARKUP_MODULE
        for line in markup_in(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_markup_in_a_module_is_seen() -> None:
    """The test above can fail: on an element, in an f-string too, and on an import."""
    assert list(markup_in("x = '<div class=\"a\">'"))
    assert list(markup_in("x = f'<b>{y}</b>'"))
    assert list(markup_in("from html import escape"))
    assert list(markup_in('"""In a docstring <p>stays</p>."""\nx = "a < b"')) == []


def test_every_template_is_in_the_package() -> None:
    """The wheel carries every template and style sheet."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["holdover"]
    packaged = {path for pattern in patterns for path in SOURCE.glob(pattern)}
    templates = {path for directory in TEMPLATE_DIRECTORIES for path in (directory / "templates").iterdir()}
    assert len(TEMPLATE_DIRECTORIES) == 5
    assert templates <= packaged


@pytest.mark.parametrize("directory", TEMPLATE_DIRECTORIES, ids=lambda path: path.name)
def test_templates_compile_and_bind_plain_names(directory: Path) -> None:
    """Every template compiles, and a name that it binds says what it names."""
    environment = make_environment(directory)
    names = environment.list_templates(filter_func=lambda name: name.endswith((".html", ".css")))
    assert {path.name for path in (directory / "templates").iterdir()} <= set(names)
    for name in names:
        environment.get_template(name)
        assert environment.loader is not None
        tree = environment.parse(environment.loader.get_source(environment, name)[0])
        bound = {node.name for node in tree.find_all(nodes.Name) if node.ctx in ("store", "param")}
        assert [variable for variable in sorted(bound) if is_vague(variable)] == [], name


def test_an_undefined_name_is_an_error() -> None:
    """A template fails on a name that it was not given, instead of printing nothing."""
    template = make_environment(SOURCE / "report").from_string("{{ nothing_of_the_kind }}")
    with pytest.raises(jinja2.UndefinedError):
        template.render()


def test_values_are_escaped() -> None:
    """What a template prints is text."""
    assert make_environment(SOURCE / "report").from_string("{{ text }}").render(text="<b>") == "&lt;b&gt;"


@given(TEXT, TEXT)
def test_an_element_gives_back_its_text_and_attributes(text: str, value: str) -> None:
    """Whatever is put into an element comes out of a parser as it was."""
    page = PageParser(element("b", text, title=value, text_anchor="end", class_="c", hidden=None))
    assert page.elements == [("b", {"title": value, "text-anchor": "end", "class": "c"})]
    assert page.text == text


def test_an_element_takes_elements_as_they_are() -> None:
    """Markup is nested, text is escaped, a float has one decimal."""
    assert element("g", element("i", x=1.25), "<") == Markup('<g><i x="1.2"></i>&lt;</g>')


@given(TEXT)
def test_prose_gives_back_its_text(text: str) -> None:
    """Only the back quotes around code are left out."""
    assert PageParser(prose_html(text)).text == re.sub(r"`([^`]+)`", r"\1", text)


def test_prose_marks_code_and_links_names() -> None:
    """Code is code, and a name that has an address is linked."""
    assert prose_html("a `b` `c`", {"c": "#c"}) == ('a <code>b</code> <a href="#c"><code>c</code></a>')


def test_times_and_numbers_are_as_people_write_them() -> None:
    """UTC, separators, the largest whole unit; a time beyond the calendar is still shown."""
    time_ns = 1_700_000_000_123_000_000
    assert time_html(time_ns).endswith(">2023-11-14 22:13:20 UTC</time>")
    assert time_html(10**30) == f"{10**30} ns"
    assert format_clock(time_ns) == "22:13:20.123 UTC"
    assert format_count(1234567) == "1,234,567"
    assert [format_duration(seconds) for seconds in (1, 120, 7200, 100_000)] == [
        "1 second",
        "2 minutes",
        "2 hours",
        "1 day",
    ]


def make_breach(explanation: str) -> Breach:
    """Return a breach with an explanation."""
    return Breach(
        number=1, invariant="a-b", scope="system", subsystem="orders", kind="Order", key="A1", time_ns=1, mutation=1,
        cause="c", explanation=explanation, severity="critical", digest="d",
    )  # fmt: skip


def test_a_headline_has_no_representation() -> None:
    """The invariant and the brackets of records are left out, however deep."""
    assert breach_headline(make_breach("a-b: Order A1 (BUY 60 IBM): the open quantity is 60")) == (
        "Order A1 (BUY 60 IBM): the open quantity is 60"
    )
    nested = breach_headline(make_breach("a-b: <Restored db first <ParentOrder P 1/2>>: differing is 1"))
    assert nested == "Restored db first Parent order P 1/2: differing is 1"


@given(TEXT)
def test_a_headline_of_any_text_ends(text: str) -> None:
    """Text without records stays as it is, and brackets never make it loop."""
    assert strip_invariant(f"a-b: {text}", "a-b") == strip_invariant(text, "")
    assert "<Order>" not in strip_invariant(f"<<Order>{text}", "a-b")
