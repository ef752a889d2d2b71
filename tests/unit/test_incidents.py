"""The ledger of incidents: what opens one, what joins it, what recurs, what a file may add, and the figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.cli import main
from holdover.incidents import (
    BadImport,
    BadIncident,
    Incident,
    Ledger,
    cell_class,
    figures,
    figures_page,
    from_csv,
    rate_ratio,
    to_csv,
)
from holdover.incidents.exchange import time_of, time_text
from holdover.incidents.figures import FORTNIGHT_NS
from holdover.runtime import Breach, FreezeStore
from holdover.runtime.breach import Page, Shown

from .console_bench import Bench

S = 1_000_000_000


def breach(at_s: int, **told: Any) -> Breach:
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
        "records": [Shown("order", "Order", "<Order C-1>", {"ord_status": "1", "cl_ord_id": "C-1"})],
    }
    return Breach(**{**fields, **told})


def page(one: Breach) -> Page:
    """A page about it."""
    return Page(
        number=1, dedup_key=f"{one.invariant}/{one.scope}", time_ns=one.time_ns, severity="critical",
        invariant=one.invariant, scope=one.scope, title="t", explanation="e", statement="s", implication="i",
        steps=[], allows=[], next_command="", digest="d",
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> FreezeStore:
    """A store in a file."""
    return FreezeStore(tmp_path / "guard.db", "desk")


@pytest.fixture
def ledger(store: FreezeStore) -> Ledger:
    """Its ledger."""
    return Ledger(store)


def finish(ledger: Ledger, number: int, at_s: int) -> None:
    """Diagnose and resolve an incident."""
    ledger.diagnose(number, "olga", "lost-fill", "It forgot a fill.", at_s * S)
    ledger.resolve(number, "olga", at_s * S)


# -- classes ------------------------------------------------------------------------------------------------------


def test_the_class_is_read_off_the_breach() -> None:
    """Scope kind, record kind, an order's status, boundary or cause; nothing that tells one order from another."""
    assert cell_class(breach(1)) == "instrument/Order/PARTIALLY_FILLED/during execution-report"
    assert cell_class(breach(2, key="C-2", boundary="overnight")) == "instrument/Order/PARTIALLY_FILLED/at overnight"
    told = breach(1, scope="account:A1/instrument:IBM", kind="Position", records=[], cause="cancel C-17")
    assert cell_class(told) == "account+instrument/Position/during cancel"
    assert cell_class(breach(1, scope="system", records=[], cause="")) == "system/Order/during nothing named"


# -- opening and joining ------------------------------------------------------------------------------------------


def test_a_breach_opens_or_joins(store: FreezeStore, ledger: Ledger) -> None:
    """One incident an invariant and class; taking again changes nothing."""
    for one in (breach(1), breach(2, key="C-2"), breach(3, cause="restore"), breach(4, invariant="other")):
        store.note(one)
    assert ledger.take() == 4
    told = ledger.all()
    assert [one.breaches for one in told] == [[1, 2], [3], [4]]
    before = store.audit()
    assert ledger.take() == 0
    assert (ledger.all(), store.audit()) == (told, before)
    assert store.verify_audit() == ""


def test_acknowledged_as_its_page_is(store: FreezeStore, ledger: Ledger) -> None:
    """An alert's acknowledgement is its incident's, with its time, also when nobody looked for a while."""
    one = breach(10)
    store.record(one, [], page(one), ["log"])
    other = breach(11, invariant="other", scope="instrument:IBM-2")
    store.record(other, [], page(other), ["log"])
    store.acknowledge("order-quantity-conserved/instrument:IBM", "amir by night", 25 * S)
    ledger.take()
    first, second = ledger.all()
    assert (first.state, first.acknowledged_ns, first.acknowledged_by) == ("acknowledged", 25 * S, "amir by night")
    assert second.state == "opened"
    store.acknowledge("other/instrument:IBM-2", "olga", 30 * S)
    assert ledger.take() == 0
    assert ledger.get(2).acknowledged_ns == 30 * S


def test_acknowledging_an_incident_acknowledges_its_pages(store: FreezeStore, ledger: Ledger) -> None:
    """What is acknowledged in the ledger goes no further up."""
    one = breach(10)
    store.record(one, [], page(one), ["log"])
    ledger.take()
    ledger.acknowledge(1, "olga", 20 * S)
    assert [alert.acknowledged_by for alert in store.alerts()] == ["olga"]
    assert ledger.get(1).acknowledged_ns == 20 * S
    with pytest.raises(BadIncident, match="acknowledged already, by olga"):
        ledger.acknowledge(1, "amir", 21 * S)


def test_an_old_acknowledgement_is_not_a_new_incidents(store: FreezeStore, ledger: Ledger) -> None:
    """The page was acknowledged before this breach came: nobody has acknowledged this one."""
    one = breach(10)
    store.record(one, [], page(one), ["log"])
    store.acknowledge("order-quantity-conserved/instrument:IBM", "olga", 15 * S)
    ledger.take()
    finish(ledger, 1, 20)
    store.note(breach(30))
    ledger.take()
    assert ledger.get(2).state == "opened"


def test_the_life_in_its_order(store: FreezeStore, ledger: Ledger) -> None:
    """Not resolved without a diagnosis, not diagnosed without a word, and each act in the audit log."""
    store.note(breach(1))
    ledger.take()
    with pytest.raises(BadIncident, match="no diagnosis yet"):
        ledger.resolve(1, "olga", 5 * S)
    with pytest.raises(BadIncident, match="no cause tag"):
        ledger.diagnose(1, "olga", "Lost Fill!", "x", 5 * S)
    with pytest.raises(BadIncident, match="needs a sentence"):
        ledger.diagnose(1, "olga", "lost-fill", "  ", 5 * S)
    with pytest.raises(BadIncident, match="say who"):
        ledger.resolve(1, " ", 5 * S)
    assert ledger.get(1).state == "opened"
    finish(ledger, 1, 9)
    one = ledger.get(1)
    assert (one.state, one.acknowledged_by, one.cause) == ("resolved", "olga", "lost-fill")
    with pytest.raises(BadIncident, match="resolved already"):
        ledger.resolve(1, "olga", 10 * S)
    with pytest.raises(BadIncident, match="there is no incident 7"):
        ledger.resolve(7, "olga", 10 * S)
    said = [told for _, told in ledger.acts(1)]
    assert [words.split()[0] for words in said] == ["opened", "acknowledged", "diagnosed", "resolved"]
    assert store.verify_audit() == ""


def test_recurrence_is_mechanical(store: FreezeStore, ledger: Ledger) -> None:
    """Recurrent is what was resolved before in the same class; another class or invariant is novel."""
    store.note(breach(1))
    ledger.take()
    finish(ledger, 1, 5)
    for one in (breach(10), breach(11, cause="restore"), breach(12, invariant="other")):
        store.note(one)
    ledger.take()
    assert [(one.number, one.recurrence, one.recurs) for one in ledger.all()] == [
        (1, "novel", 0),
        (2, "recurrent", 1),
        (3, "novel", 0),
        (4, "novel", 0),
    ]


# -- files --------------------------------------------------------------------------------------------------------

OLD = """name,invariant,cell_class,opened,acknowledged,diagnosed,cause,resolved
A-1,position-agrees,x,2024-10-01T14:00:00Z,2024-10-01T14:05:00.25Z,2024-10-01T15:00:00Z,lost-fill,2024-10-02T00:00:00Z
A-2,position-agrees,x,2024-10-05T16:00:00+02:00,,,,
"""


def test_import_and_export_are_each_others_reverse(tmp_path: Path, ledger: Ledger, store: FreezeStore) -> None:
    """What is imported comes out as it went in, recurrence told by the same rule; the export is taken elsewhere."""
    (tmp_path / "old.csv").write_text(OLD)
    assert ledger.add(from_csv(tmp_path / "old.csv"), "olga", S) == 2
    assert [one.recurs for one in ledger.all()] == [0, 1]
    (tmp_path / "out.csv").write_text(to_csv(ledger.all()))
    elsewhere = Ledger(FreezeStore(tmp_path / "other" / "guard.db"))
    elsewhere.add(from_csv(tmp_path / "out.csv"), "olga", S)
    assert elsewhere.all() == ledger.all()
    with pytest.raises(BadIncident, match=r"A-1 is in the ledger already\nan incident A-2"):
        ledger.add(from_csv(tmp_path / "old.csv"), "olga", S)


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
    told = capsys.readouterr().err
    assert code == 2
    for words in (
        "line 3: invariant is empty",
        "line 3: opened '2024-10-01' has no offset",
        "line 4: resolved is before opened",
        "line 5: name A-1 stands on line 2 already",
        "line 6: resolved_by is said, but not when",
        "line 7: has fewer fields",
    ):
        assert words in told
    assert "line 2" not in told.replace("on line 2", "")
    assert Ledger(store).all() == []
    for text, words in (("", "is empty"), ("name,what\n", "no column invariant"), ("name,name\n", "twice")):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(BadImport, match=words):
            from_csv(tmp_path / "bad.csv")


@given(st.integers(0, 4_000_000_000 * S))
def test_a_time_survives_its_text(time_ns: int) -> None:
    """To the ns."""
    assert time_of(time_text(time_ns)) == time_ns


# -- figures ------------------------------------------------------------------------------------------------------


def _share_bounds(k: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson by bisection of the binomial's tails, summed here."""

    def tail(share: float, least: int) -> float:
        return math.fsum(math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(least, n + 1))

    def solve(wanted: float, least: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if tail(middle, least) < wanted else (low, middle)
        return (low + high) / 2

    return (solve(0.025, k) if k else 0.0), (solve(0.975, k + 1) if k < n else 1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.floats(0.5, 40), st.floats(0.5, 40))
def test_the_rate_ratio_against_a_calculation_of_its_own(before: int, after: int, t1: float, t2: float) -> None:
    """The interval is that of the binomial share, found here by bisection, turned into a ratio."""
    told = rate_ratio(before, t1, after, t2)
    if not before + after:
        assert (told.ratio, told.low, told.high) == (None, 0.0, None)
        return
    low, high = _share_bounds(after, before + after)
    assert told.low == pytest.approx(low / (1 - low) * t1 / t2, rel=1e-6, abs=1e-9)
    if before:
        assert told.ratio == pytest.approx((after / t2) / (before / t1))
        assert told.high == pytest.approx(high / (1 - high) * t1 / t2, rel=1e-6)
    else:
        assert (told.ratio, told.high) == (None, None)


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
            told="",
            opened_ns=at,
            acknowledged_ns=at + (n + 1) * 60 * S,
        )
        for n, at in enumerate(
            [*(i * FORTNIGHT_NS // 2 for i in range(20)), *((10 + 2 * i) * FORTNIGHT_NS for i in range(5))]
        )
    ]
    told = figures(incidents, 0, 20 * FORTNIGHT_NS, 10 * FORTNIGHT_NS)
    assert told.before is not None
    assert told.after is not None
    assert told.ratio is not None
    assert (told.before.count, told.after.count, told.before.rate, told.after.rate) == (20, 5, 2.0, 0.5)
    assert told.after.low * 10 == pytest.approx(1.6235, abs=1e-3)
    assert told.after.high * 10 == pytest.approx(11.6683, abs=1e-3)
    assert told.ratio.ratio == pytest.approx(0.25)
    assert told.ratio.high is not None
    assert told.ratio.high < 1
    assert told.ratio.p == pytest.approx(float(scipy.stats.binomtest(5, 25, 0.5).pvalue))
    lasted = told.lasted["acknowledge"]
    assert (lasted.came, lasted.median, lasted.low, lasted.high) == (25, 780.0, 480.0, 1080.0)
    assert told.lasted["resolve"].median is None
    shown = figures_page(told, "")
    assert "Incidents are rarer since then." in shown
    assert "<script" not in shown
    with pytest.raises(ValueError, match="inside the period"):
        figures(incidents, 0, FORTNIGHT_NS, 2 * FORTNIGHT_NS)


# -- by command line and console ----------------------------------------------------------------------------------


def test_the_whole_life_by_command_line(store: FreezeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """List, show, acknowledge, diagnose, resolve, report; exit codes."""
    store.note(breach(1_700_000_000))
    guard = ["--guard", str(tmp_path)]
    who = ["--operator", "olga"]
    assert main(["incidents", "list", *guard]) == 1
    assert main(["incidents", "acknowledge", "1", *who, *guard]) == 0
    assert main(["incidents", "resolve", "1", *who, *guard]) == 2
    told = ["--cause", "lost-fill", "--diagnosis", "It forgot a fill."]
    assert main(["incidents", "diagnose", "1", *told, *who, *guard]) == 0
    assert main(["incidents", "resolve", "1", *who, *guard]) == 0
    assert main(["incidents", "list", *guard]) == 0
    capsys.readouterr()
    assert main(["incidents", "show", "1", "--json", *guard]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "resolved"
    page = tmp_path / "report.html"
    assert main(["incidents", "report", "--html", str(page), "--json", *guard]) == 0
    assert json.loads(capsys.readouterr().out)["whole"]["count"] == 1
    assert "lost-fill" in page.read_text()
    other = tmp_path / "other"
    FreezeStore(other / "guard.db").close()
    assert main(["incidents", "report", "--guard", str(other)]) == 3


def test_the_whole_life_on_the_console(store: FreezeStore, tmp_path: Path, time_ns: Callable[[], int]) -> None:
    """A viewer sees it, an operator brings it to its end, what is wrong is said on the page."""
    store.note(breach(1))
    bench = Bench(tmp_path, time_ns)
    viewer, operator = bench.browser("vera"), bench.browser("olga")
    assert "order-quantity-conserved" in viewer.get("/incidents").text
    assert viewer.submit("/incident/1/acknowledge").status_code == 403
    assert operator.submit("/incident/1/resolve").status_code == 422
    assert "no diagnosis yet" in operator.submit("/incident/1/resolve").text
    assert operator.submit("/incident/1/acknowledge").status_code == 303
    assert operator.submit("/incident/1/diagnose", cause="no tag", diagnosis="x").status_code == 422
    assert operator.submit("/incident/1/diagnose", cause="lost-fill", diagnosis="<b>it</b>").status_code == 303
    assert "&lt;b&gt;it&lt;/b&gt;" in viewer.get("/incident/1").text
    assert operator.submit("/incident/1/resolve").status_code == 303
    assert Ledger(bench.store).get(1).resolved_by == "olga"
    assert viewer.get("/incident/2").status_code == 404
    assert bench.store.verify_audit() == ""
