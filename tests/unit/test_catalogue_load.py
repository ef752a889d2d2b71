"""Loading a catalogue: what is not whole is refused, by the file's name, with all that is wrong at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from holdover.catalogue import Catalogue, CatalogueError, PredicateError

ENTRY = {
    "name": '"few-cancels"',
    "family": '"conduct"',
    "statement": '"An order is cancelled at most once."',
    "description": '"Looks at each cancel."',
    "implication": '"The venue charges for messages."',
    "asserted": '"on-mutation"',
    "scope": '"strategy"',
    "severity": '"warning"',
}
RESPONSE = '[[response]]\nstep = "Stop the strategy."\ndone_when = "It is stopped."\n'
PREDICATE = """
from holdover.catalogue import predicate
from holdover.model import Order

@predicate("few-cancels")
def few_cancels(order: Order) -> bool:
    return order.order_qty > 0
"""


def entry(response: str = RESPONSE, **changed: str | None) -> str:
    """A whole entry as TOML, with some fields changed or, where None, left out."""
    fields = {**ENTRY, **changed}
    return "".join(f"{name} = {value}\n" for name, value in fields.items() if value is not None) + response


def write_folder(directory: Path, *, predicates: str = PREDICATE, **entries: str) -> Path:
    """A user's folder: `few_cancels=...` becomes `few-cancels.toml`; no predicates where the text is empty."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in entries.items():
        (directory / f"{name.replace('_', '-')}.toml").write_text(text, encoding="utf-8")
    if predicates:
        (directory / "predicates.py").write_text(predicates, encoding="utf-8")
    return directory


def load_problems(*sources: str | Path) -> list[str]:
    """The lines of the refusal of a user's sources by themselves."""
    with pytest.raises(CatalogueError) as refused:
        Catalogue.load(*sources, builtin=False)
    return str(refused.value).splitlines()


def test_a_folder_of_ones_own_loads(tmp_path: Path) -> None:
    """A folder with an entry and its predicate is a catalogue, and adds to the built-in one."""
    place = write_folder(tmp_path / "mine", few_cancels=entry())
    assert [invariant.name for invariant in Catalogue.load(place, builtin=False)] == ["few-cancels"]
    combined = Catalogue.load(str(place))
    assert len(combined) == len(Catalogue.load()) + 1
    assert [invariant.name for invariant in combined][-1] == "few-cancels"
    assert combined.digest != Catalogue.load().digest


def test_a_folder_can_have_folders(tmp_path: Path) -> None:
    """Entries and predicates are found at any depth."""
    write_folder(tmp_path / "mine" / "conduct", predicates="", few_cancels=entry())
    write_folder(tmp_path / "mine" / "code")
    assert len(Catalogue.load(tmp_path / "mine", builtin=False)) == 1


def test_a_package_of_ones_own_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that imports its predicates and holds its entries is a source by its name."""
    place = write_folder(tmp_path / "desk_invariants_for_test", predicates=PREDICATE, few_cancels=entry())
    (place / "__init__.py").write_text("from desk_invariants_for_test import predicates\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        loaded = Catalogue.load("desk_invariants_for_test", builtin=False)
        assert loaded["few-cancels"].predicates[0].function.__module__ == "desk_invariants_for_test.predicates"
    finally:
        for name in [name for name in sys.modules if name.startswith("desk_invariants_for_test")]:
            del sys.modules[name]


def test_two_folders_may_each_have_a_predicates_file(tmp_path: Path) -> None:
    """Files of the same name in two folders do not get in each other's way."""
    first = write_folder(tmp_path / "first", few_cancels=entry())
    second_entry = entry(name='"few-orders"')
    second = write_folder(
        tmp_path / "second", predicates=PREDICATE.replace("few-cancels", "few-orders"), few_orders=second_entry
    )
    assert {invariant.name for invariant in Catalogue.load(first, second, builtin=False)} == {
        "few-cancels",
        "few-orders",
    }


def test_the_digest_covers_the_predicates(tmp_path: Path) -> None:
    """Changing what is computed, with every word of the entry the same, is another catalogue."""
    strict = write_folder(tmp_path / "strict", few_cancels=entry())
    loose = write_folder(tmp_path / "loose", predicates=PREDICATE.replace("> 0", ">= 0"), few_cancels=entry())
    assert Catalogue.load(strict, builtin=False).digest != Catalogue.load(loose, builtin=False).digest


def test_an_entry_without_a_predicate_is_refused(tmp_path: Path) -> None:
    """An entry that nothing decides is refused, with what would decide it."""
    place = write_folder(tmp_path / "mine", predicates="", few_cancels=entry())
    assert load_problems(place) == [
        "few-cancels: entry without a predicate; declare one with @predicate('few-cancels')"
    ]


def test_a_predicate_without_an_entry_is_refused(tmp_path: Path) -> None:
    """A predicate that no operator can read about is refused, with the function's name and the file to write."""
    place = write_folder(
        tmp_path / "mine", predicates=PREDICATE.replace("few-cancels", "few-orders"), few_cancels=entry()
    )
    assert "few-orders: predicate few_cancels without an entry; write few-orders.toml" in load_problems(place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (entry(response=""), "Object missing required field `response`"),
        (entry(response="response = []\n"), "response has no step"),
        (entry(RESPONSE.replace("It is stopped.", " ")), "response step 1 is empty"),
        (entry(implication=None), "Object missing required field `implication`"),
        (entry(implication='""'), "implication is empty"),
        (entry(statement='"  "'), "statement is empty"),
        (entry(scope='"planet"'), "scope is 'planet', should be one of system, subsystem, account"),
        (entry(severity='"grave"'), "Invalid enum value 'grave'"),
        (entry(asserted='"sometimes"'), "Invalid enum value 'sometimes'"),
        (entry(asserted='"within"'), "within is '', should be a time such as 500ms, 30s, 5m"),
        (entry(within='"30s"'), "within is given, but asserted is 'on-mutation'"),
        (entry(at='["noon"]'), "at 'noon', should be among begin, end"),
        (entry(allows='["hope"]'), "allows 'hope', should be among cancel, reduce, query"),
        (entry(categories='["luck"]'), "category 'luck', should be among carried-partial-fill"),
        (entry(tolerance='"1"'), "tolerance is '1', should be '0': amounts are exact integers"),
        (entry(colour='"red"'), "Object contains unknown field `colour`"),
        (entry(name='"many-cancels"'), "name is 'many-cancels', should be the file's own: 'few-cancels'"),
        ("name = few-cancels\n", "not a TOML file"),
    ],
    ids=lambda value: value[:40] if not value.startswith("name") else "",
)
def test_what_is_wrong_in_an_entry_is_told_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    """An entry that is not whole is refused by its file's name, with what was found and what was expected."""
    problems = load_problems(write_folder(tmp_path / "mine", few_cancels=text))
    assert any(line.startswith(f"few-cancels.toml: {message}") for line in problems), problems


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Every problem of every file and source is in the one refusal."""
    place = write_folder(
        tmp_path / "mine",
        few_cancels=entry(scope='"planet"', tolerance='"1"', implication='""'),
        few_orders="= broken",
    )
    problems_text = "\n".join(load_problems(place, tmp_path / "nowhere"))
    for message in ("few-cancels.toml: scope", "few-cancels.toml: tolerance", "few-cancels.toml: implication"):
        assert message in problems_text
    assert "few-orders.toml: not a TOML file" in problems_text
    assert "nowhere: neither a folder nor a package that imports" in problems_text


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    """A user's entry cannot stand in for a built-in one."""
    entry_text = entry(name='"clock-monotone"')
    place = write_folder(tmp_path / "mine", predicates="", clock_monotone=entry_text)
    with pytest.raises(
        CatalogueError, match=r"clock-monotone\.toml: the name 'clock-monotone' is taken by another entry"
    ):
        Catalogue.load(place)


def test_a_folder_without_entries_is_refused(tmp_path: Path) -> None:
    """A source that adds nothing is a mistake in its name."""
    (tmp_path / "mine").mkdir()
    assert load_problems(tmp_path / "mine") == ["mine: no catalogue entry (*.toml) in it"]


def test_predicates_that_do_not_import_are_refused(tmp_path: Path) -> None:
    """A predicate file that raises is told by its name, with what it raised."""
    place = write_folder(tmp_path / "mine", predicates="import no_such_module_at_all\n", few_cancels=entry())
    assert any(
        line.startswith("predicates.py: cannot be imported: ModuleNotFoundError") for line in load_problems(place)
    )


def test_a_signature_that_cannot_be_served_is_refused(tmp_path: Path) -> None:
    """A predicate whose first parameter is no record is refused, with the function's name."""
    bad = PREDICATE.replace("order: Order", "order: int").replace("order.order_qty", "order")
    problems = load_problems(write_folder(tmp_path / "mine", predicates=bad, few_cancels=entry()))
    assert any("few_cancels: parameter order says nothing that can be read" in line for line in problems)
    assert issubclass(PredicateError, ValueError)
