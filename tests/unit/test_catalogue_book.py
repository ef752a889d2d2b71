"""The operator's book: complete, well formed, and whole in one file."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from holdover import __version__
from holdover.catalogue import Catalogue
from holdover.report.book import render_book

BUILTIN = Catalogue.load()
HTML = render_book(BUILTIN, form="html")
MARKDOWN = render_book(BUILTIN, form="markdown")
_VOID = {"meta", "br", "hr", "img", "link", "input"}
_CODE = re.compile(r"`([^`]+)`")


class BookParser(HTMLParser):
    """Parse a page: unclosed elements, ids, attributes, headings and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.errors: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.headings: list[int] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join("".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        if tag not in _VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        """An element ends, which must be the last one begun."""
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        """Text; styles are none."""
        if "style" not in self.open:
            self.texts.append(data)


PAGE = BookParser(HTML)


def test_the_page_is_well_formed() -> None:
    """Every element is closed where it was opened, and no id is given twice."""
    assert PAGE.errors == []
    assert PAGE.open == []
    assert len(PAGE.ids) == len(set(PAGE.ids))


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """Nothing is loaded: no script, no style sheet, no image, no address."""
    tags = {tag for tag, _, _ in PAGE.attributes}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert "<script" not in HTML
    assert re.search(r"https?:|//[a-z]|@import|url\(", HTML) is None
    assert all(name != "src" for _, name, _ in PAGE.attributes)


def test_every_link_leads_somewhere() -> None:
    """Links stay on the page and each has its anchor."""
    targets = [value for tag, name, value in PAGE.attributes if (tag, name) == ("a", "href")]
    assert targets
    assert {target.removeprefix("#") for target in targets} <= set(PAGE.ids)
    labels = [value for _, name, value in PAGE.attributes if name == "aria-labelledby"]
    assert set(labels) <= set(PAGE.ids)


def test_headings_go_down_one_level_at_a_time() -> None:
    """A screen reader finds one title, families under it, and invariants under their family."""
    assert PAGE.headings[0] == 1
    assert PAGE.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(PAGE.headings, PAGE.headings[1:], strict=False))
    assert PAGE.headings.count(3) == len(BUILTIN)


def test_the_page_is_for_light_dark_and_paper() -> None:
    """The style follows the reader's preference and knows how to be printed, each family on a page of its own."""
    assert "@media (prefers-color-scheme: dark)" in HTML
    assert "@media print" in HTML
    assert "break-before: page" in HTML
    assert '<html lang="en">' in HTML


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_every_word_of_every_entry_is_in_the_book(form: str) -> None:
    """Names, texts, steps, categories, evidence, source: nothing that an entry says is left out."""
    text = PAGE.text if form == "html" else " ".join(MARKDOWN.split())
    for invariant in BUILTIN:
        entry = invariant.entry
        expected_texts = [
            entry.name,
            entry.statement,
            entry.description,
            entry.implication,
            entry.severity,
            entry.source,
        ]
        expected_texts += [part for step in entry.response for part in (step.step, step.done_when)]
        expected_texts += entry.evidence.seeded_faults + [bound.function.__name__ for bound in invariant.predicates]
        for words in expected_texts:
            assert (_CODE.sub(r"\1", words) if form == "html" else words) in text


@pytest.mark.parametrize("text", [HTML, MARKDOWN], ids=["html", "markdown"])
def test_the_book_says_which_catalogue_it_is(text: str) -> None:
    """Digest, count and version are in the head."""
    head = text[: text.index("When you have been paged")]
    assert BUILTIN.digest in head
    assert f"{len(BUILTIN)} in 9 families" in head
    assert f"Holdover {__version__}" in head


def test_an_invariant_has_its_anchor() -> None:
    """`#order-quantity-conserved` leads to that invariant, in both forms."""
    assert '<article id="order-quantity-conserved"' in HTML
    assert "\n### order-quantity-conserved\n" in MARKDOWN
    assert "(#order-quantity-conserved)" in MARKDOWN


def test_the_same_catalogue_gives_the_same_book() -> None:
    """There is no date and no chance in it."""
    assert render_book(Catalogue.load(), form="html") == HTML


def test_another_form_is_refused() -> None:
    """A form that there is not is told with those that there are."""
    with pytest.raises(ValueError, match="form is 'pdf', should be html or markdown"):
        render_book(BUILTIN, form="pdf")  # type: ignore[arg-type]


def test_a_users_words_are_text_and_never_markup(tmp_path: Path) -> None:
    """What a user writes into an entry is shown as it was written."""
    (tmp_path / "odd-lots.toml").write_text(
        'name="odd-lots"\nfamily="house-rules"\nstatement="a < b & <script>c</script>"\n'
        'description="d"\nimplication="i"\nasserted="at-boundary"\nscope="order"\nseverity="warning"\n'
        '[[response]]\nstep="s"\ndone_when="w"\n',
        encoding="utf-8",
    )
    (tmp_path / "predicates.py").write_text(
        "from holdover.catalogue import predicate\nfrom holdover.model import Order\n"
        '@predicate("odd-lots")\ndef odd_lots(order: Order) -> bool:\n    return True\n',
        encoding="utf-8",
    )
    page = render_book(Catalogue.load(tmp_path, builtin=False), form="html")
    assert "a &lt; b &amp; &lt;script&gt;c&lt;/script&gt;" in page
    assert "<script" not in page
    assert "House rules" in page
    assert "1 in 1 family" in page
    assert "at every boundary" in page
    assert BookParser(page).errors == []
