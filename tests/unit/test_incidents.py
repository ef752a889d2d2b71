"""The ledger of incidents: what opens one, what joins it, what recurs, what a file may add, and the figures."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.incidents import (
    Incident,
    IncidentError,
    IncidentImportError,
    IncidentLedger,
    cell_class,
    compare_rates,
    compute_figures,
    figures_page,
    read_csv,
    to_csv,
)
from holdover.incidents.classes import is_same_class
from holdover.incidents.figures import FORTNIGHT_NS
from holdover.incidents.interchange import format_time, parse_time
from holdover.model import OrdStatus, TimeInForce
from holdover.runtime import Breach, FreezeStore
from holdover.runtime.axes import BUILT_IN
from holdover.runtime.breach import BreachRecord, Page, make_page
from holdover.runtime.cells import RESTART_KINDS, TRANSITIONS

from .console_bench import ConsoleBench
from .test_model import order

S = 1_000_000_000


def make_breach(at_s: int, **overrides: Any) -> Breach:
    """A breach as a guard writes it."""
    fields: dict[str, Any] = {
        "number": 0,
        "invariant": "order-quantity-conserved",
        "scope": "instrument:IBM",
        "subsystem": "orders",
        "kind": "Order",
        "key": "C-1",
        "time_ns": at_s * S,
        "mutation": at_s,
        "cause": "execution-report",
        "explanation": f"it does not add up at {at_s}",
        "severity": "critical",
        "digest": "d",
        "records": [BreachRecord("order", "Order", "<Order C-1>", {"ord_status": "1", "cl_ord_id": "C-1"})],
    }
    return Breach(**{**fields, **overrides})


def make_breach_page(breach: Breach) -> Page:
    """A page about it."""
    return Page(
        number=1, dedup_key=f"{breach.invariant}/{breach.scope}", time_ns=breach.time_ns, severity="critical",
        invariant=breach.invariant, scope=breach.scope, title="t", explanation="e", statement="s", implication="i",
        steps=[], allows=[], next_command="", digest="d",
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> FreezeStore:
    """A store in a file."""
    return FreezeStore(tmp_path / "guard.db", "desk")


@pytest.fixture
def ledger(store: FreezeStore) -> IncidentLedger:
    """Its ledger."""
    return IncidentLedger(store)


def resolve_incident(ledger: IncidentLedger, number: int, at_s: int) -> None:
    """Diagnose and resolve an incident."""
    ledger.diagnose(number, "olga", "lost-fill", "It forgot a fill.", at_s * S)
    ledger.resolve(number, "olga", at_s * S)


# -- classes ------------------------------------------------------------------------------------------------------


def test_the_class_is_read_off_the_breach() -> None:
    """Scope kind, record kind, an order's status, boundary or cause; nothing that tells one order from another."""
    assert cell_class(make_breach(1)) == "instrument/Order/PARTIALLY_FILLED/during execution-report"
    assert (
        cell_class(make_breach(2, key="C-2", boundary="overnight")) == "instrument/Order/PARTIALLY_FILLED/at overnight"
    )
    account_breach = make_breach(1, scope="account:A1/instrument:IBM", kind="Position", records=[], cause="cancel C-17")
    assert cell_class(account_breach) == "account+instrument/Position/during cancel"
    assert cell_class(make_breach(1, scope="system", records=[], cause="")) == "system/Order/during nothing named"


def make_cell(**values: str) -> dict[str, str]:
    """A cell as a breach tells it, by name."""
    return {"carried-partial": "yes", "link": "up", "reconciliation": "done", **values}


def test_the_class_has_the_carried_state() -> None:
    """The breach's own order as carried partial, link, reconciliation; a transition where that has brought it there."""
    base = "instrument/Order/PARTIALLY_FILLED/during execution-report"
    fields = msgspec.to_builtins(order(ord_status=OrdStatus.PARTIALLY_FILLED, cum_qty=1, time_in_force=TimeInForce.GTC))
    carried = [BreachRecord("order", "Order", "", fields)]
    quiet = make_breach(1, records=carried, cell=make_cell(), after="restart:kill")
    assert cell_class(quiet) == f"{base}/carried-partial=yes,link=up,reconciliation=done,after=none"
    of_the_day = [BreachRecord("order", "Order", "", {**fields, "time_in_force": "0"})]
    assert cell_class(make_breach(1, records=of_the_day, cell=make_cell())) == (
        f"{base}/carried-partial=no,link=up,reconciliation=done"
    )
    asking = make_breach(1, records=[], cell=make_cell(reconciliation="pending"), after="restart:torn")
    assert cell_class(asking).endswith("/link=up,reconciliation=pending,after=restart")
    night = make_breach(1, records=[], boundary="overnight", cell={"orders": "both"}, after="overnight")
    assert cell_class(night) == "instrument/Order/at overnight/after=overnight"
    restored_breach = make_breach(1, kind="Restored", scope="system", records=[], cause="record", after="begin")
    assert cell_class(restored_breach) == "system/Restored/during record/after=begin"
    hidden = [BreachRecord("order", "Order", "", {**fields, "order_qty": "***"})]
    assert cell_class(make_breach(1, records=hidden, cell={"link": "up"})) == f"{base}/link=up"


@given(st.data())
def test_what_differs_by_chance_is_no_part_of_it(data: st.DataObject) -> None:
    """Whatever the other axes say, and however the system was killed: the class is that of the defect."""
    chance = [axis for axis in BUILT_IN if axis.name not in ("link", "reconciliation")]
    cells = [{axis.name: data.draw(st.sampled_from(axis.values)) for axis in chance} for _ in range(2)]
    kinds = [data.draw(st.sampled_from(RESTART_KINDS)) for _ in range(2)]
    first_class, second_class = (
        cell_class(
            make_breach(1, key=key, cell={**cell, "link": "up", "reconciliation": "pending"}, after=f"restart:{kind}")
        )
        for key, cell, kind in zip("ab", cells, kinds, strict=True)
    )
    assert first_class == second_class


_CELLS = st.fixed_dictionaries(
    {},
    optional={
        "carried-partial": st.sampled_from(("no", "yes")),
        "link": st.sampled_from(("up", "down")),
        "after": st.sampled_from(("none", "begin", "restart")),
    },
)
_BEFORE = st.sampled_from(("x", "instrument/Order/NEW/at end", "a=b", "x/a=b", "x/link="))


@given(_BEFORE, _BEFORE, _CELLS, _CELLS)
def test_sameness_of_classes(
    first_parts: str, second_parts: str, first_cell: dict[str, str], second_cell: dict[str, str]
) -> None:
    """The same before the cell, and at odds about nothing that both tell; either way round."""

    def class_text(parts: str, axes: dict[str, str]) -> str:
        return "/".join([parts, *([",".join(f"{name}={value}" for name, value in axes.items())] if axes else [])])

    first_class, second_class = class_text(first_parts, first_cell), class_text(second_parts, second_cell)
    at_odds = [name for name in first_cell if name in second_cell and first_cell[name] != second_cell[name]]
    assert is_same_class(first_class, second_class) == (first_parts == second_parts and not at_odds)
    assert is_same_class(second_class, first_class) == is_same_class(first_class, second_class)
    assert is_same_class(first_class, first_class)


def test_a_class_is_compared_by_the_parts_that_both_have() -> None:
    """One from before breaches told their cell is the same as each of its parts; what both tell must agree."""
    old = cell_class(make_breach(1))
    up_class = cell_class(make_breach(1, cell={"link": "up"}))
    down_class = cell_class(make_breach(1, cell={"link": "down"}))
    assert is_same_class(old, up_class)
    assert is_same_class(old, down_class)
    assert not is_same_class(up_class, down_class)
    assert is_same_class(up_class, cell_class(make_breach(1, cell={"reconciliation": "done"})))
    assert not is_same_class(up_class, cell_class(make_breach(1, boundary="end", cell={"link": "up"})))
    assert not is_same_class("x/a=1", "x/b=2")  # people's own words are no cell


_BREACHES = st.builds(
    lambda cell, after, cause, shown: make_breach(1, cell=cell, after=after, cause=cause, records=shown),
    st.dictionaries(st.sampled_from([axis.name for axis in BUILT_IN]), st.text(max_size=8), max_size=4),
    st.sampled_from(("", *TRANSITIONS)),
    st.text(max_size=8),
    st.lists(
        st.builds(BreachRecord, st.text(), st.text(), st.text(), st.dictionaries(st.text(), st.integers())), max_size=2
    ),
)


@given(_BREACHES)
def test_a_breach_of_before_is_read(written_breach: Breach) -> None:
    """What is written is read; without the new fields it is the same breach, and tells no state."""
    body = msgspec.json.encode(written_breach)
    assert msgspec.json.decode(body, type=Breach) == written_breach
    old = msgspec.json.decode(body)
    del old["cell"], old["after"]
    read = msgspec.json.decode(msgspec.json.encode(old), type=Breach)
    assert read == replace(written_breach, cell={}, after="")
    assert read.identity == written_breach.identity
    assert read.state == ""


@given(
    st.fixed_dictionaries({}, optional={axis.name: st.sampled_from(axis.values) for axis in BUILT_IN}),
    st.sampled_from(("", *TRANSITIONS)),
    st.sampled_from(("", "overnight", "reconciled")),
    st.sampled_from(("restore", "execution-report")),
)
def test_a_class_of_before_is_that_of_now(cell: dict[str, str], after: str, boundary: str, cause: str) -> None:
    """Whatever the state: the breach as an earlier version wrote it is in the same class."""
    current_breach = make_breach(1, cell=cell, after=after, boundary=boundary, cause=cause)
    assert is_same_class(cell_class(replace(current_breach, cell={}, after="")), cell_class(current_breach))


def test_the_page_says_the_state_and_older_pages_are_read(catalogue: Catalogue) -> None:
    """In the axes' own words, and nothing where nothing is told."""
    entry = catalogue["order-quantity-conserved"].entry
    alert = make_page(make_breach(1, cell=make_cell(link="down"), after="restart:kill"), entry, 1)
    state = "a partial fill to carry over the night, link down, reconciled; after restart:kill"
    assert f"\nState: {state}\n" in alert.text()
    old = msgspec.to_builtins(make_page(make_breach(1), entry, 1))
    del old["state"]
    assert "State:" not in msgspec.convert(old, Page).text()
    foreign = make_breach(1, cell={"link": "flapping", "halted": "yes"})
    assert foreign.state == "link flapping"


# -- opening and joining ------------------------------------------------------------------------------------------


def test_a_breach_opens_or_joins(store: FreezeStore, ledger: IncidentLedger) -> None:
    """One incident an invariant and class; taking again changes nothing."""
    for noted_breach in (
        make_breach(1),
        make_breach(2, key="C-2"),
        make_breach(3, cause="restore"),
        make_breach(4, invariant="other"),
    ):
        store.record_repeated_breach(noted_breach)
    assert ledger.import_breaches() == 4
    incidents = ledger.list_incidents()
    assert [incident.breaches for incident in incidents] == [[1, 2], [3], [4]]
    before = store.audit_rows()
    assert ledger.import_breaches() == 0
    assert (ledger.list_incidents(), store.audit_rows()) == (incidents, before)
    assert store.verify_audit() == ""


def test_acknowledged_as_its_page_is(store: FreezeStore, ledger: IncidentLedger) -> None:
    """An alert's acknowledgement is its incident's, with its time, also when nobody looked for a while."""
    first_breach = make_breach(10)
    store.record_breach(first_breach, [], make_breach_page(first_breach), ["log"])
    second_breach = make_breach(11, invariant="other", scope="instrument:IBM-2")
    store.record_breach(second_breach, [], make_breach_page(second_breach), ["log"])
    store.acknowledge("order-quantity-conserved/instrument:IBM", "amir by night", 25 * S)
    ledger.import_breaches()
    first, second = ledger.list_incidents()
    assert (first.state, first.acknowledged_ns, first.acknowledged_by) == ("acknowledged", 25 * S, "amir by night")
    assert second.state == "opened"
    store.acknowledge("other/instrument:IBM-2", "olga", 30 * S)
    assert ledger.import_breaches() == 0
    assert ledger.get_incident(2).acknowledged_ns == 30 * S


def test_acknowledging_an_incident_acknowledges_its_pages(store: FreezeStore, ledger: IncidentLedger) -> None:
    """What is acknowledged in the ledger goes no further up."""
    first_breach = make_breach(10)
    store.record_breach(first_breach, [], make_breach_page(first_breach), ["log"])
    ledger.import_breaches()
    ledger.acknowledge(1, "olga", 20 * S)
    assert [alert.acknowledged_by for alert in store.alerts()] == ["olga"]
    assert ledger.get_incident(1).acknowledged_ns == 20 * S
    with pytest.raises(IncidentError, match="acknowledged already, by olga"):
        ledger.acknowledge(1, "amir", 21 * S)


def test_an_old_acknowledgement_is_not_a_new_incidents(store: FreezeStore, ledger: IncidentLedger) -> None:
    """The page was acknowledged before this breach came: nobody has acknowledged this one."""
    first_breach = make_breach(10)
    store.record_breach(first_breach, [], make_breach_page(first_breach), ["log"])
    store.acknowledge("order-quantity-conserved/instrument:IBM", "olga", 15 * S)
    ledger.import_breaches()
    resolve_incident(ledger, 1, 20)
    store.record_repeated_breach(make_breach(30))
    ledger.import_breaches()
    assert ledger.get_incident(2).state == "opened"


def test_the_life_in_its_order(store: FreezeStore, ledger: IncidentLedger) -> None:
    """Not resolved without a diagnosis, not diagnosed without a word, and each act in the audit log."""
    store.record_repeated_breach(make_breach(1))
    ledger.import_breaches()
    with pytest.raises(IncidentError, match="no diagnosis yet"):
        ledger.resolve(1, "olga", 5 * S)
    with pytest.raises(IncidentError, match="no cause tag"):
        ledger.diagnose(1, "olga", "Lost Fill!", "x", 5 * S)
    with pytest.raises(IncidentError, match="needs a sentence"):
        ledger.diagnose(1, "olga", "lost-fill", "  ", 5 * S)
    with pytest.raises(IncidentError, match="say who"):
        ledger.resolve(1, " ", 5 * S)
    assert ledger.get_incident(1).state == "opened"
    resolve_incident(ledger, 1, 9)
    incident = ledger.get_incident(1)
    assert (incident.state, incident.acknowledged_by, incident.cause) == ("resolved", "olga", "lost-fill")
    with pytest.raises(IncidentError, match="resolved already"):
        ledger.resolve(1, "olga", 10 * S)
    with pytest.raises(IncidentError, match="there is no incident 7"):
        ledger.resolve(7, "olga", 10 * S)
    details = [detail for _, detail in ledger.list_actions(1)]
    assert [words.split()[0] for words in details] == ["opened", "acknowledged", "diagnosed", "resolved"]
    assert store.verify_audit() == ""


def test_recurrence_is_mechanical(store: FreezeStore, ledger: IncidentLedger) -> None:
    """Recurrent is what was resolved before in the same class; another class or invariant is novel."""
    store.record_repeated_breach(make_breach(1))
    ledger.import_breaches()
    resolve_incident(ledger, 1, 5)
    for noted_breach in (make_breach(10), make_breach(11, cause="restore"), make_breach(12, invariant="other")):
        store.record_repeated_breach(noted_breach)
    ledger.import_breaches()
    assert [(incident.number, incident.recurrence, incident.recurs) for incident in ledger.list_incidents()] == [
        (1, "novel", 0),
        (2, "recurrent", 1),
        (3, "novel", 0),
        (4, "novel", 0),
    ]


@pytest.mark.parametrize("resolved", [True, False])
def test_a_breach_of_before_recurs_and_is_joined(store: FreezeStore, ledger: IncidentLedger, resolved: bool) -> None:
    """A baseline that tells no cell: its incident is joined while it is open, and repeated when it was resolved."""
    old = msgspec.to_builtins(make_breach(1, number=1))
    del old["cell"], old["after"]

    def before(run: Any) -> None:  # as an earlier version wrote it
        run(
            "INSERT INTO breach (number, time_ns, body, cause, scope) VALUES (1, ?, ?, 1, ?)",
            1 * S,
            msgspec.json.encode(old),
            old["scope"],
        )

    store.database.write(before)
    assert ledger.import_breaches() == 1
    assert ledger.get_incident(1).carried_state_text == ""
    if resolved:
        resolve_incident(ledger, 1, 5)
    store.record_repeated_breach(make_breach(10, cell=make_cell(), after="begin"))
    store.record_repeated_breach(make_breach(11, cell=make_cell(link="down"), after="begin"))
    assert ledger.import_breaches() == 2
    if resolved:
        assert [(incident.recurs, incident.breaches) for incident in ledger.list_incidents()] == [
            (0, [1]),
            (1, [2]),
            (1, [3]),
        ]
    else:
        assert [(incident.recurs, incident.breaches) for incident in ledger.list_incidents()] == [(0, [1, 2, 3])]


def test_a_breach_of_now_recurs_in_its_own_state_only(store: FreezeStore, ledger: IncidentLedger) -> None:
    """The same state again is the same incident again, another is novel; one that tells no state repeats the last."""
    up_cell, down_cell = make_cell(), make_cell(link="down")
    cells: list[dict[str, str]] = [up_cell, down_cell, up_cell, {}]
    for number, cell in enumerate(cells, 1):
        store.record_repeated_breach(make_breach(number * 10, cell=cell, after="begin" if cell else ""))
        ledger.import_breaches()
        resolve_incident(ledger, number, number * 10 + 5)
    assert [incident.recurs for incident in ledger.list_incidents()] == [0, 0, 1, 3]
    assert (
        ledger.get_incident(2).carried_state_text
        == "a partial fill to carry over the night, link down, reconciled; after begin"
    )


def test_its_very_own_class_is_joined_first(store: FreezeStore, ledger: IncidentLedger) -> None:
    """Of two that it could join, a breach joins the one that tells the same state, though the other is older."""
    coming = make_breach(4, cell=make_cell(), after="begin")
    fields: dict[str, Any] = {"invariant": coming.invariant, "scope": "", "severity": "", "explanation": ""}
    old = Incident(number=0, name="A", cell_class=cell_class(make_breach(1)), opened_ns=1 * S, **fields)
    exact_match = Incident(number=0, name="B", cell_class=cell_class(coming), opened_ns=2 * S, **fields)
    ledger.add_incidents([old, exact_match], "olga", 3 * S)
    store.record_repeated_breach(coming)
    store.record_repeated_breach(make_breach(5, cell=make_cell(link="down"), after="begin"))
    ledger.import_breaches()
    assert [incident.breaches for incident in ledger.list_incidents()] == [[2], [1]]


@pytest.mark.parametrize(
    ("known_as", "recurs"),
    [
        ("", True),
        ("instrument/Order/PARTIALLY_FILLED/during execution-report", True),
        ("instrument/Order/PARTIALLY_FILLED/during execution-report/link=up", True),
        ("instrument/Order/PARTIALLY_FILLED/during execution-report/link=down", False),
        ("instrument/Order/NEW/during execution-report", False),
        ("lost fill", False),
    ],
)
@pytest.mark.parametrize("still_open", [False, True])
def test_an_imported_baseline_counts_by_what_it_tells(
    store: FreezeStore, ledger: IncidentLedger, known_as: str, recurs: bool, still_open: bool
) -> None:
    """Whatever an import says of its class must agree; one without any is repeated by its invariant, never joined."""
    fields: dict[str, Any] = {"invariant": "order-quantity-conserved", "scope": "", "severity": "", "explanation": ""}
    resolved_ns = None if still_open else 5 * S
    past = Incident(number=0, name="A-1", cell_class=known_as, opened_ns=1 * S, resolved_ns=resolved_ns, **fields)
    ledger.add_incidents([past], "olga", 6 * S)
    store.record_repeated_breach(make_breach(10, cell=make_cell(), after="begin"))
    ledger.import_breaches()
    if still_open:
        assert [incident.breaches for incident in ledger.list_incidents()] == (
            [[1]] if recurs and known_as else [[], [1]]
        )
    else:
        assert [incident.recurs for incident in ledger.list_incidents()] == [0, int(recurs)]


# -- files --------------------------------------------------------------------------------------------------------

OLD = """name,invariant,cell_class,opened,acknowledged,diagnosed,cause,resolved
A-1,position-agrees,x,2024-10-01T14:00:00Z,2024-10-01T14:05:00.25Z,2024-10-01T15:00:00Z,lost-fill,2024-10-02T00:00:00Z
A-2,position-agrees,x,2024-10-05T16:00:00+02:00,,,,
"""


def test_import_and_export_are_each_others_reverse(tmp_path: Path, ledger: IncidentLedger, store: FreezeStore) -> None:
    """What is imported comes out as it went in, recurrence told by the same rule; the export is taken elsewhere."""
    (tmp_path / "old.csv").write_text(OLD)
    assert ledger.add_incidents(read_csv(tmp_path / "old.csv"), "olga", S) == 2
    assert [incident.recurs for incident in ledger.list_incidents()] == [0, 1]
    (tmp_path / "out.csv").write_text(to_csv(ledger.list_incidents()))
    elsewhere = IncidentLedger(FreezeStore(tmp_path / "other" / "guard.db"))
    elsewhere.add_incidents(read_csv(tmp_path / "out.csv"), "olga", S)
    assert elsewhere.list_incidents() == ledger.list_incidents()
    with pytest.raises(IncidentError, match=r"A-1 is in the ledger already\nan incident A-2"):
        ledger.add_incidents(read_csv(tmp_path / "old.csv"), "olga", S)


def test_a_bad_file_names_every_line_and_adds_nothing(
    tmp_path: Path, store: FreezeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Good lines beside bad ones are not taken."""
    (tmp_path / "bad.csv").write_text(
        "name,invariant,opened,resolved,resolved_by\n"
        "A-1,x,2024-10-01T14:00:00Z,,\n"
        "A-2,,2024-10-01,,\n"
        "A-3,x,2024-10-01T14:00:00Z,2024-09-01T14:00:00Z,olga\n"
        "A-1,x,2024-10-01T14:00:00Z,,\n"
        "A-5,x,2024-10-01T14:00:00Z,,olga\n"
        "A-6,x\n"
    )
    code = main(["incidents", "import", str(tmp_path / "bad.csv"), "--guard", str(tmp_path), "--operator", "olga"])
    error_text = capsys.readouterr().err
    assert code == 2
    for words in (
        "line 3: invariant is empty",
        "line 3: opened '2024-10-01' has no offset",
        "line 4: resolved is before opened",
        "line 5: name A-1 stands on line 2 already",
        "line 6: resolved_by is said, but not when",
        "line 7: has fewer fields",
    ):
        assert words in error_text
    assert "line 2" not in error_text.replace("on line 2", "")
    assert IncidentLedger(store).list_incidents() == []
    for text, words in (("", "is empty"), ("name,what\n", "no column invariant"), ("name,name\n", "twice")):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(IncidentImportError, match=words):
            read_csv(tmp_path / "bad.csv")


@given(st.integers(0, 4_000_000_000 * S))
def test_a_time_survives_its_text(time_ns: int) -> None:
    """To the ns."""
    assert parse_time(format_time(time_ns)) == time_ns


# -- figures ------------------------------------------------------------------------------------------------------


def _share_bounds(k: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson by bisection of the binomial's tails, summed here."""

    def tail(share: float, least: int) -> float:
        return math.fsum(math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(least, n + 1))

    def solve(target: float, least: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if tail(middle, least) < target else (low, middle)
        return (low + high) / 2

    return (solve(0.025, k) if k else 0.0), (solve(0.975, k + 1) if k < n else 1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.floats(0.5, 40), st.floats(0.5, 40))
def test_the_rate_ratio_against_a_calculation_of_its_own(before: int, after: int, t1: float, t2: float) -> None:
    """The interval is that of the binomial share, found here by bisection, turned into a ratio."""
    ratio_estimate = compare_rates(before, t1, after, t2)
    if not before + after:
        assert (ratio_estimate.ratio, ratio_estimate.low, ratio_estimate.high) == (None, 0.0, None)
        return
    low, high = _share_bounds(after, before + after)
    assert ratio_estimate.low == pytest.approx(low / (1 - low) * t1 / t2, rel=1e-6, abs=1e-9)
    if before:
        assert ratio_estimate.ratio == pytest.approx((after / t2) / (before / t1))
        assert ratio_estimate.high == pytest.approx(high / (1 - high) * t1 / t2, rel=1e-6)
    else:
        assert (ratio_estimate.ratio, ratio_estimate.high) == (None, None)


def test_the_figures_of_a_known_ledger() -> None:
    """Twenty before and five after over equal times; Garwood's interval as in the tables (5: 1.623 to 11.668)."""
    incidents = [
        Incident(
            number=n,
            name="",
            invariant="x",
            cell_class="c",
            scope="",
            severity="",
            explanation="",
            opened_ns=at,
            acknowledged_ns=at + (n + 1) * 60 * S,
        )
        for n, at in enumerate(
            [*(i * FORTNIGHT_NS // 2 for i in range(20)), *((10 + 2 * i) * FORTNIGHT_NS for i in range(5))]
        )
    ]
    summary = compute_figures(incidents, 0, 20 * FORTNIGHT_NS, 10 * FORTNIGHT_NS)
    assert summary.before is not None
    assert summary.after is not None
    assert summary.ratio is not None
    assert (summary.before.count, summary.after.count, summary.before.rate, summary.after.rate) == (20, 5, 2.0, 0.5)
    assert summary.after.low * 10 == pytest.approx(1.6235, abs=1e-3)
    assert summary.after.high * 10 == pytest.approx(11.6683, abs=1e-3)
    assert summary.ratio.ratio == pytest.approx(0.25)
    assert summary.ratio.high is not None
    assert summary.ratio.high < 1
    assert summary.ratio.p == pytest.approx(float(scipy.stats.binomtest(5, 25, 0.5).pvalue))
    lasted = summary.lasted["acknowledge"]
    assert (lasted.observed_count, lasted.median, lasted.low, lasted.high) == (25, 780.0, 480.0, 1080.0)
    assert summary.lasted["resolve"].median is None
    shown = figures_page(summary)
    assert "Incidents are rarer since then." in shown
    assert "<script" not in shown
    with pytest.raises(ValueError, match="inside the period"):
        compute_figures(incidents, 0, FORTNIGHT_NS, 2 * FORTNIGHT_NS)


# -- by command line and console ----------------------------------------------------------------------------------


def test_the_whole_life_by_command_line(store: FreezeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """List, show, acknowledge, diagnose, resolve, report; exit codes."""
    store.record_repeated_breach(make_breach(1_700_000_000, cell={"link": "up"}, after="restart:kill"))
    guard = ["--guard", str(tmp_path)]
    operator_options = ["--operator", "olga"]
    assert main(["incidents", "list", *guard]) == 1
    assert main(["incidents", "acknowledge", "1", *operator_options, *guard]) == 0
    assert main(["incidents", "resolve", "1", *operator_options, *guard]) == 2
    diagnosis_options = ["--cause", "lost-fill", "--diagnosis", "It forgot a fill."]
    assert main(["incidents", "diagnose", "1", *diagnosis_options, *operator_options, *guard]) == 0
    assert main(["incidents", "resolve", "1", *operator_options, *guard]) == 0
    assert main(["incidents", "list", *guard]) == 0
    capsys.readouterr()
    assert main(["incidents", "show", "1", "--json", *guard]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["cell"], shown["after"]) == ("resolved", {"link": "up"}, "restart:kill")
    assert main(["incidents", "show", "1", *guard]) == 0
    assert "state: link up; after restart:kill\n" in capsys.readouterr().out
    assert main(["incidents", "list", "--csv", str(tmp_path / "all.csv"), *guard]) == 0
    row = next(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    assert (row["cell"], row["after"]) == ("link=up", "restart:kill")
    assert row["cell_class"].endswith("/link=up")
    capsys.readouterr()
    page = tmp_path / "report.html"
    assert main(["incidents", "report", "--html", str(page), "--json", *guard]) == 0
    assert json.loads(capsys.readouterr().out)["whole"]["count"] == 1
    assert "lost-fill" in page.read_text()
    empty_directory = tmp_path / "other"
    FreezeStore(empty_directory / "guard.db").close()
    assert main(["incidents", "report", "--guard", str(empty_directory)]) == 3


def test_the_whole_life_on_the_console(store: FreezeStore, tmp_path: Path, time_ns: Callable[[], int]) -> None:
    """A viewer sees it, an operator brings it to its end, what is wrong is said on the page."""
    store.record_repeated_breach(make_breach(1, cell={"link": "up", "position": "short"}, after="restart:kill"))
    bench = ConsoleBench(tmp_path, time_ns)
    viewer, operator = bench.browser("vera"), bench.browser("olga")
    assert "order-quantity-conserved" in viewer.get("/incidents").text
    assert "<dd>link up; after restart:kill</dd>" in viewer.get("/incident/1").text
    card = viewer.get("/breach/1").text
    assert "State: link up; after restart:kill." in card
    assert "<dt>Net positions</dt><dd>short</dd>" in card
    assert "restart:kill: killed and started again" in card
    assert viewer.submit("/incident/1/acknowledge").status_code == 403
    assert operator.submit("/incident/1/resolve").status_code == 422
    assert "no diagnosis yet" in operator.submit("/incident/1/resolve").text
    assert operator.submit("/incident/1/acknowledge").status_code == 303
    assert operator.submit("/incident/1/diagnose", cause="no tag", diagnosis="x").status_code == 422
    assert operator.submit("/incident/1/diagnose", cause="lost-fill", diagnosis="<b>it</b>").status_code == 303
    assert "&lt;b&gt;it&lt;/b&gt;" in viewer.get("/incident/1").text
    assert operator.submit("/incident/1/resolve").status_code == 303
    assert IncidentLedger(bench.store).get_incident(1).resolved_by == "olga"
    assert viewer.get("/incident/2").status_code == 404
    assert bench.store.verify_audit() == ""
