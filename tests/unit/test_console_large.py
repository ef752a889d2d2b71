"""The console at large stores: what a page reads does not grow with the store, and the audit log is verified once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.console.audit_check import FILE_NAME, AuditVerifier
from holdover.incidents import Incident, IncidentLedger
from holdover.runtime import Breach, FreezeStore
from holdover.runtime.breach import Page

from .console_bench import ConsoleBench

FREEZES, INCIDENTS = 1_000, 5_000
S = 1_000_000_000
LIST_PAGES = ("/", "/alerts", "/incidents", "/audit", "/health", "/catalogue", "/breach/1")
ROWS_A_PAGE = 3_500
"""A page may read the freezes in force, and besides them no more than it shows."""
STATEMENTS_A_PAGE = 400


def fill(store: FreezeStore, freezes: int, incidents: int) -> None:
    """Freezes with breach, alert and page, and incidents, half of them resolved, all of few invariants and classes."""
    for number in range(1, freezes + 1):
        scope = f"instrument:S{number}"
        breach = Breach(
            number=0, invariant="order-quantity-conserved", scope=scope, subsystem="orders", kind="Order",
            key=f"C{number}", time_ns=number * S, mutation=number, cause="report", explanation="it does not add up",
            severity="critical", digest="d",
        )  # fmt: skip
        page = Page(
            number=0, dedup_key=f"{breach.invariant}/{scope}", time_ns=breach.time_ns, severity="critical",
            invariant=breach.invariant, scope=scope, title=f"Breach of {scope}", explanation="e", statement="s",
            implication="i", steps=["Look. Done when: seen."], allows=[], next_command="c", digest="d",
        )  # fmt: skip
        store.record_breach(breach, [], page, ["desk"])
    ledger = IncidentLedger(store)
    ledger.import_breaches()
    rows = [
        Incident(
            number=0, name=f"I{number}", invariant=f"invariant-{number % 7}", cell_class=f"class {number % 11}",
            scope="system", severity="major", explanation="e", opened_ns=number * S,
            resolved_ns=(number + 5) * S if number % 2 else None, resolved_by="olga" if number % 2 else "",
        )
        for number in range(1, incidents + 1)
    ]  # fmt: skip
    ledger.add_incidents(rows, "test", 5)


class CountedReads:
    """Counts the statements and rows of a database's reads."""

    def __init__(self, read: Callable[..., list[Any]]) -> None:
        self._read = read
        self.statements = self.rows = 0

    def __call__(self, statement: str, *values: object) -> list[Any]:
        rows = self._read(statement, *values)
        self.statements += 1
        self.rows += len(rows)
        return rows


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a store with a thousand freezes and five thousand incidents."""
    directory = tmp_path_factory.mktemp("large")
    store = FreezeStore(directory / "guard.db")
    store.database.connection.execute("PRAGMA synchronous=OFF")  # type: ignore[attr-defined]
    fill(store, FREEZES, INCIDENTS)
    store.close()
    return directory


def test_a_page_reads_little_however_large_the_store(
    large: Path, time_ns: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in statements and rows, on the second visit, as an operator works."""
    bench = ConsoleBench(large, time_ns)
    browser = bench.browser("vera")
    for path in LIST_PAGES:
        assert browser.get(path).status_code == 200
    for path in LIST_PAGES:
        counted = CountedReads(bench.store.database.read)
        monkeypatch.setattr(bench.store.database, "read", counted)
        assert browser.get(path).status_code == 200
        monkeypatch.undo()
        assert counted.statements <= STATEMENTS_A_PAGE, path
        assert counted.rows <= ROWS_A_PAGE, path


def test_incidents_come_in_pages_that_miss_nothing(large: Path) -> None:
    """Every incident is on exactly one page, and the counts are those of the whole."""
    ledger = IncidentLedger(FreezeStore(large / "guard.db"))
    whole = ledger.list_incidents()
    for resolved in (False, True):
        pages: list[Incident] = []
        while part := ledger.incident_page(resolved=resolved, offset=len(pages), limit=50):
            pages += part
        expected = [incident for incident in whole if (incident.resolved_ns is not None) == resolved]
        assert pages == (expected[::-1] if resolved else expected)
        assert ledger.count_incidents(resolved=resolved) == len(expected)


def test_now_shows_the_latest_freezes_and_leads_to_the_others(tmp_path: Path, time_ns: Any) -> None:
    """The verdict counts all; each page has fifty; every freeze is on exactly one page, the system's on the first."""
    bench = ConsoleBench(tmp_path, time_ns)
    fill(bench.store, 120, 0)
    bench.store.freeze("system", [], "olga", "drill", 5)
    browser = bench.browser("vera")
    path, shown = "/", []
    while path:
        text = browser.get(path).text
        assert "121 freezes in force" in text
        shown.append(re.findall(r'<h2 id="freeze-(\d+)">', text))
        following = re.search(r'href="(/\?before=\d+)"', text)
        path = following[1] if following else ""
    assert [len(numbers) for numbers in shown] == [50, 50, 21]
    assert shown[0][0] == "121"
    assert len({number for numbers in shown for number in numbers}) == 121
    assert "120 alerts are open" in browser.get("/alerts").text


def test_the_picture_changes_with_whatever_a_page_shows(tmp_path: Path, time_ns: Any) -> None:
    """Freeze, thaw, step, acknowledgement, escalation and an alert that ends by itself; and not by itself."""
    bench = ConsoleBench(tmp_path, time_ns)
    store, take = bench.store, bench.console.take_picture
    fill(store, 2, 0)
    keys = [alert.page.dedup_key for alert in store.alerts()]
    actions: list[Callable[[], object]] = [
        lambda: store.freeze("account:A", [], "olga", "drill", 5),
        lambda: store.mark_step_done(1, 1, "olga", 5),
        lambda: store.escalate(store.alerts()[0], 1, ["desk"], 5),
        lambda: store.acknowledge(keys[0], "olga", 5),
        lambda: store.thaw("account:A", "olga", "r", "e", "", 6),
        lambda: store.resolve(keys[1], "itself", 7),
        lambda: store.mark_delivered(store.backlog()[0].number, 8),
    ]
    for action in actions:
        before = take()
        assert take().version == before.version
        action()
        assert take().version != before.version
    assert list(take().open_alerts) == keys[:1]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 9),
            st.none() | st.integers(1, 12),
            st.sampled_from(["", "a in b", "a in c", "a in b, x=1", "a in b, x=2"]),
            st.sampled_from(["i", "j"]),
        ),
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_recurrence_by_index_is_recurrence_by_the_whole_list(rows: list[tuple[int, int | None, str, str]]) -> None:
    """One incident that is read alone recurs on the same one as in the list of all."""
    ledger = IncidentLedger(FreezeStore.in_memory())
    incidents = [
        Incident(
            number=0, name="", invariant=invariant, cell_class=cell_class, scope="", severity="major", explanation="e",
            opened_ns=opened_ns, resolved_ns=max(opened_ns, resolved_ns) if resolved_ns is not None else None,
        )
        for opened_ns, resolved_ns, cell_class, invariant in rows
    ]  # fmt: skip
    ledger.add_incidents(incidents, "test", 5)
    for incident in ledger.list_incidents():
        assert ledger.get_incident(incident.number) == incident


# -- the audit log -------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> FreezeStore:
    """A store with three hundred audit rows."""
    audited = FreezeStore(tmp_path / "guard.db")
    for number in range(300):
        audited.log_action("test", f"action {number}", 5)
    return audited


def test_the_log_is_verified_from_the_last_verified_head(
    store: FreezeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were verified are not read again, also not by another console; new ones are."""
    assert AuditVerifier(store, tmp_path).verify(7).problem == ""
    store.log_action("test", "later", 5)
    counted = CountedReads(store.database.read)
    monkeypatch.setattr(store.database, "read", counted)
    verdict = AuditVerifier(store, tmp_path).verify(9)
    assert verdict.problem == ""
    assert verdict.whole_ns == 7
    assert counted.rows <= 8
    monkeypatch.undo()
    store.database.write(lambda run: run("UPDATE audit SET detail='no' WHERE number=301"))
    assert AuditVerifier(store, tmp_path).verify(9).problem == ""  # this row was verified a moment ago
    store.log_action("test", "last", 5)
    store.database.write(lambda run: run("UPDATE audit SET detail='no' WHERE number=302"))
    assert "audit row 302 was changed" in AuditVerifier(store, tmp_path).verify(9).problem


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM audit WHERE number=100", "1 of the audit rows up to 300 are missing"),
        ("DELETE FROM audit WHERE number>250", "audit row 300 is missing, which was there before"),
        ("UPDATE audit SET hash='0' WHERE number=300", "the log was rewritten"),
    ],
)
def test_a_log_that_lost_verified_rows_is_noticed(store: FreezeStore, tmp_path: Path, damage: str, words: str) -> None:
    """The head is kept outside of the store, so a store set back does not pass as whole."""
    assert AuditVerifier(store, tmp_path).verify(7).problem == ""
    head = store.database.read("SELECT hash FROM audit WHERE number=250")[0][0]
    store.database.write(lambda run: run(damage))
    if "250" in damage:
        store.database.write(lambda run: run("UPDATE meta SET value=? WHERE name='audit'", f"250 {head}"))
        assert store.verify_audit() == ""  # by itself the store is whole
    verifier = AuditVerifier(store, tmp_path)
    assert words in verifier.verify(9).problem
    assert words in verifier.verify(9, whole=True).problem


def test_a_whole_verification_finds_an_old_change(store: FreezeStore, tmp_path: Path) -> None:
    """On request every row is hashed again; without the file the first verification is a whole one."""
    verifier = AuditVerifier(store, tmp_path)
    assert verifier.verify(7).whole_ns == 7
    assert verifier.verify(8, whole=True).whole_ns == 8
    store.database.write(lambda run: run("UPDATE audit SET detail='no' WHERE number=3"))
    assert "audit row 3 was changed" in verifier.verify(9, whole=True).problem
    (tmp_path / FILE_NAME).write_bytes(b"{damaged")
    assert "audit row 3 was changed" in AuditVerifier(store, tmp_path).verify(9).problem
    assert msgspec.json.decode(b"{}") == {}


def test_a_log_that_grows_meanwhile_is_whole(store: FreezeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is written during the verification belongs to the next one."""
    read = store.database.read

    def read_and_write(statement: str, *values: object) -> list[Any]:
        rows = read(statement, *values)
        store.log_action("test", "meanwhile", 5)
        return rows

    monkeypatch.setattr(store.database, "read", read_and_write)
    assert store.verify_audit() == ""
    assert store.verify_audit(store.audit_head()) == ""
