"""The policy of a guard: what is refused, what changes the digest, and what an expired policy does."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdover.catalogue import Catalogue, CatalogueError, Policy
from holdover.cli import main
from holdover.runtime import Guard, GuardConfigError, read_config
from holdover.runtime.observation import describe_policy, describe_policy_difference

CATALOGUE = Catalogue.load()
NAMES = sorted(CATALOGUE.invariants)
TIMED = "acknowledged-within"
LAST_DAY = date(2999, 1, 31)

POLICY = Policy(invariant=TIMED, mode="observe", reason="the link is slow", expires=LAST_DAY)
CHANGES: list[dict[str, Any]] = [
    {"invariant": "books-agree-with-venue"},
    {"mode": "off"},
    {"reason": "the venue is slow"},
    {"expires": date(2999, 2, 1)},
    {"within": "90s"},
    {"tolerance": {"USD": "0.01"}},
]


def digest_of(*policies: Policy, mode: Any = "enforce") -> str:
    """The digest of the built-in catalogue under a policy."""
    return CATALOGUE.with_policy(policies, mode).digest


# -- the digest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_every_field_changes_the_digest(change: dict[str, Any]) -> None:
    """Another value of any field of a policy is another catalogue."""
    assert set(Policy.__struct_fields__) == {name for fields in CHANGES for name in fields} | {"limit"}
    assert len({CATALOGUE.digest, digest_of(POLICY), digest_of(replace(POLICY, **change))}) == 3


def test_a_limit_changes_the_digest() -> None:
    """An entry that counts something has a limit, and the policy's limit is the one in force."""
    counting = Catalogue(
        {
            name: replace_entry(invariant, limit=5) if name == TIMED else invariant
            for name, invariant in CATALOGUE.invariants.items()
        }
    )
    limited = counting.with_policy([Policy(invariant=TIMED, limit=9)])
    assert counting[TIMED].policy.limit == 5
    assert limited[TIMED].policy.limit == limited[TIMED].entry.limit == 9
    assert limited.digest != counting.digest


def replace_entry(invariant: Any, **fields: Any) -> Any:
    """The invariant with other fields of its entry."""
    return type(invariant)(replace(invariant.entry, **fields), invariant.predicates)


def test_the_mode_of_the_guard_changes_the_digest() -> None:
    """A guard that observes as a whole has another digest than one that enforces."""
    assert digest_of(mode="observe") != CATALOGUE.digest
    assert digest_of(mode="enforce") == CATALOGUE.digest


@given(st.sets(st.sampled_from(NAMES), max_size=3))
def test_a_smaller_catalogue_keeps_its_policy(names: set[str]) -> None:
    """What is left of a catalogue under a policy has the same modes."""
    smaller = CATALOGUE.with_policy([POLICY], "observe").without(*names)
    assert smaller.policies == {TIMED: POLICY}
    assert smaller.mode == "observe"
    assert smaller.digest != CATALOGUE.without(*names).digest


@given(st.permutations([Policy(invariant=name, mode="off", reason="r", expires=LAST_DAY) for name in NAMES[:4]]))
def test_the_order_of_the_policies_does_not_matter(policies: list[Policy]) -> None:
    """The same policies in another order are the same catalogue."""
    assert digest_of(*policies) == digest_of(*sorted(policies, key=lambda policy: policy.invariant))


@given(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_what_is_off_is_not_evaluated(off: set[str], observed: set[str]) -> None:
    """An entry that is off leaves the catalogue, every other entry stays, and each has the mode of its policy."""
    observed -= off
    policies = [Policy(invariant=name, mode="off", reason="r", expires=LAST_DAY) for name in off]
    policies += [Policy(invariant=name, mode="observe", reason="r", expires=LAST_DAY) for name in observed]
    catalogue = CATALOGUE.with_policy(policies)
    assert set(catalogue.invariants) == set(NAMES) - off
    assert {name for name in NAMES if catalogue.mode_of(name) == "observe"} == observed
    assert {policy.invariant for policy in catalogue.exceptions()} == off | observed
    assert (catalogue.digest == CATALOGUE.digest) == (not off and not observed)


def test_thresholds_are_read_from_the_invariant() -> None:
    """The time of an entry is the policy's; a tolerance is an amount, 0 where the policy names no currency."""
    policy = Policy(invariant=TIMED, within="90s", tolerance={"USD": "0.01"})
    invariant = CATALOGUE.with_policy([policy])[TIMED]
    assert invariant.entry.within_ns == 90_000_000_000
    assert invariant.policy.within == "90s"
    assert CATALOGUE[TIMED].policy.within == CATALOGUE[TIMED].entry.within != "90s"
    assert invariant.policy.tolerance_of("USD") == Decimal("0.01")
    assert invariant.policy.tolerance_of("EUR") == 0


def test_the_difference_of_two_policies_in_words() -> None:
    """Each entry that differs is named with its policy on the side that has it."""
    first = describe_policy(CATALOGUE.with_policy([POLICY], "observe"))
    second = describe_policy(CATALOGUE.with_policy([replace(POLICY, within="9s")]))
    assert describe_policy_difference(first, first) == ""
    assert describe_policy_difference(first, second) == (
        "only here: the whole guard observes: a breach freezes nothing; "
        f"only here: {TIMED}: observe until {LAST_DAY}: the link is slow; "
        f"only there: {TIMED}: observe until {LAST_DAY} with within 9s: the link is slow"
    )


# -- what is refused ------------------------------------------------------------------------------------------------

WRONG = """
[guard]
directory = "guard"
mode = "watch"

[[policy]]
invariant = "acknowledged-withn"
mode = "observe"

[[policy]]
invariant = "order-quantity-conserved"
mode = "off"
reason = "it is wrong about fees"
expires = "2020-01-31"
within = "30s"

[[policy]]
invariant = "acknowledged-within"
within = "soon"
limit = -1

[[policy]]
invariant = "books-agree-with-venue"
expires = "2999-01-01"
tolerance = { USD = "a cent" }
limit = 3

[[policy]]
invariant = "books-agree-with-venue"
"""


def test_every_problem_is_listed_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`holdover config check` names line and table of each problem, and the nearest right name."""
    path = tmp_path / "guard.toml"
    path.write_text(WRONG)
    assert main(["config", "check", str(path)]) == 2
    output = capsys.readouterr().out
    for expected in (
        "line 4: [guard] mode should be 'enforce' or 'observe', not \"watch\"",
        "line 7: [[policy]] 1 (acknowledged-withn): no invariant is called 'acknowledged-withn'; did you mean "
        "acknowledged-within?",
        "(acknowledged-withn): mode 'observe' needs reason",
        "(acknowledged-withn): mode 'observe' needs expires",
        "line 14: [[policy]] 2 (order-quantity-conserved): mode 'off' expired on 2020-01-31; remove this table",
        "line 15: [[policy]] 2 (order-quantity-conserved): within is given, but order-quantity-conserved has no time",
        "[[policy]] 3 limit should be a whole number not below 0, not -1",
        "(books-agree-with-venue): expires is given, but an entry with mode 'enforce' does not expire",
        "(books-agree-with-venue): tolerance of 'USD' is 'a cent', should be an amount",
        "(books-agree-with-venue): limit is given, but books-agree-with-venue counts nothing",
        "there are two policies of books-agree-with-venue",
    ):
        assert expected in output, output


def test_a_policy_without_a_problem_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The legal twin: the file loads, and the guard's catalogue has the policy."""
    path = tmp_path / "guard.toml"
    path.write_text(
        '[guard]\ndirectory = "guard"\n[[policy]]\ninvariant = "acknowledged-within"\nmode = "observe"\n'
        'reason = "the link is slow"\nexpires = 2999-01-31\nwithin = "90s"\ntolerance = { USD = "0.01" }\n'
    )
    assert main(["config", "check", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []
    catalogue = read_config(path).load_catalogue()
    assert catalogue.mode_of(TIMED) == "observe"
    assert catalogue[TIMED].entry.within == "90s"


@given(st.dates(date(2020, 1, 1), date(2030, 1, 1)), st.dates(date(2020, 1, 1), date(2030, 1, 1)))
def test_a_policy_is_valid_up_to_its_last_day(expires: date, today: date) -> None:
    """The last day is included."""
    policy = replace(POLICY, expires=expires)
    if today <= expires:
        CATALOGUE.with_policy([policy], today=today)
    else:
        with pytest.raises(CatalogueError, match=f"expired on {expires}; remove this table"):
            CATALOGUE.with_policy([policy], today=today)
    CATALOGUE.with_policy([policy])  # an operator can thaw under an expired policy


def test_a_guard_does_not_start_with_an_expired_policy(tmp_path: Path) -> None:
    """The problem names the line; nothing of the guard's directory is made."""
    path = tmp_path / "guard.toml"
    path.write_text(
        '[guard]\ndirectory = "guard"\n[[policy]]\ninvariant = "acknowledged-within"\nmode = "observe"\n'
        'reason = "the link is slow"\nexpires = "2020-01-31"\n'
    )
    with pytest.raises(GuardConfigError, match=r"line 7: .* expired on 2020-01-31"):
        Guard.open(path)
    assert not (tmp_path / "guard").exists()
    assert read_config(path).load_catalogue().mode_of(TIMED) == "observe"


def test_a_second_policy_is_refused() -> None:
    """A policy is applied to the catalogue without one: an entry that is off would be unknown."""
    with pytest.raises(CatalogueError, match="has a policy"):
        CATALOGUE.with_policy([POLICY]).with_policy([POLICY])
    with pytest.raises(ValueError, match="should be one of enforce, observe, off"):
        Policy(invariant=TIMED, mode="observed")  # type: ignore[arg-type]
