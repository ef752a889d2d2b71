"""A store that several processes share: on PostgreSQL, and in a file."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdover.catalogue import Catalogue
from holdover.model import SYSTEM
from holdover.runtime import Breach, FreezeStore, Guard, StoreError, read_config
from holdover.runtime.breach import Page, make_page
from holdover.runtime.database import PostgresDatabase

from ..servers import PostgresServer
from ..unit.orders import BAD, GOOD, request

WaitUntil = Callable[..., None]
INVARIANT = "order-quantity-conserved"


def breach(number: int = 1, key: str = "A1", scope: str = "instrument:IBM") -> Breach:
    """A breach as a guard would write it."""
    return Breach(
        number=number,
        invariant=INVARIANT,
        scope=scope,
        subsystem="orders",
        kind="Order",
        key=key,
        time_ns=number * 1_000,
        mutation=number,
        cause="test",
        explanation=f"{key} does not add up",
        severity="critical",
        digest="d",
    )


@pytest.fixture(params=["file", "postgresql"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path, schema: str) -> Iterator[Callable[[str], FreezeStore]]:
    """Opens one and the same store again and again, each time as another process would."""
    opened: list[FreezeStore] = []

    def open_as(name: str = "one") -> FreezeStore:
        if request.param == "file":
            store = FreezeStore(tmp_path / "guard.db", name)
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            store = FreezeStore(PostgresDatabase(server.url, schema, timeout_s=20.0), name)
        opened.append(store)
        return store

    yield open_as
    for store in opened:
        store.close()


OpenStore = Callable[..., FreezeStore]


@pytest.fixture
def page(catalogue: Catalogue) -> Page:
    """A page for `breach()`."""
    return make_page(breach(), catalogue.invariants[INVARIANT].entry, 1)


def test_what_one_writes_the_other_reads(open_store: OpenStore, page: Page) -> None:
    """Breach, freeze, page, audit: all there for the other; its thaw resolves what was paged."""
    first_store, second_store = open_store("one"), open_store("other")
    freeze = first_store.record_breach(breach(), ["cancel"], page, ["desk", "log"])
    assert second_store.active_freezes() == [freeze]
    assert freeze.holder == "one"
    assert [stored_breach.explanation for stored_breach in second_store.breaches()] == ["A1 does not add up"]
    assert [pending.channel for pending in second_store.due_pages(0)] == ["desk", "log"]
    assert second_store.thaw("instrument:IBM", "ann", "mended", "ticket 7", "", 9_000) == 1
    assert first_store.active_freezes() == []
    assert first_store.is_thawed(freeze)
    assert [alert.resolved_ns for alert in first_store.alerts(resolved=True)] == [9_000]
    events = [(pending.channel, pending.page.event, pending.page.by) for pending in first_store.backlog()]
    assert events == [
        ("desk", "trigger", ""),
        ("log", "trigger", ""),
        ("desk", "resolve", "ann"),
        ("log", "resolve", "ann"),
    ]
    assert first_store.verify_audit() == ""
    assert [action for _, _, action, _ in first_store.audit_rows()] == ["breach", "freeze", "thaw"]


def test_a_breach_written_twice_is_there_once(open_store: OpenStore, page: Page) -> None:
    """An answer that never came is asked for again: the same freeze comes back."""
    store = open_store()
    first = store.record_breach(breach(3, "A3"), [], page, ["log"])
    second = store.record_breach(replace(breach(3, "A3"), number=99), [], page, ["log"])
    assert first == second
    assert len([stored_breach for stored_breach in store.breaches() if stored_breach.key == "A3"]) == 1


def test_many_at_once_get_numbers_of_their_own(open_store: OpenStore, page: Page) -> None:
    """Four writers with connections of their own: no number twice, the hash chain whole."""
    stores = [open_store(f"n{number}") for number in range(4)]
    problems: list[BaseException] = []

    def write(store: FreezeStore, base: int) -> None:
        try:
            for number in range(12):
                store.record_breach(breach(base + number, f"K{base + number}"), [], page, ["log"])
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=write, args=(store, 1 + 100 * place)) for place, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [stored_breach.number for stored_breach in stores[0].breaches()] == list(range(1, 49))
    assert [freeze.number for freeze in stores[0].active_freezes()] == list(range(1, 49))
    assert stores[0].verify_audit() == ""


def test_a_page_goes_to_one_of_two_pagers(open_store: OpenStore, page: Page) -> None:
    """What one process has claimed the other leaves alone, until the claim has run out."""
    first_store, second_store = open_store("one"), open_store("other")
    first_store.record_breach(breach(), [], page, ["log"])
    (pending,) = first_store.due_pages(5_000)
    assert first_store.claim(pending.number, 5_000)
    assert not second_store.claim(pending.number, 5_000)
    assert second_store.due_pages(5_000) == []
    later_ns = 5_000 + 60_000_000_000
    assert [undelivered_alert.number for undelivered_alert in second_store.due_pages(later_ns)] == [pending.number]
    assert second_store.claim(pending.number, later_ns)


def test_a_tampered_audit_is_found(open_store: OpenStore, page: Page) -> None:
    """A row changed, a row taken out of the middle, the last rows cut off: each is told from the others."""
    store = open_store()
    for number in range(1, 5):
        store.record_breach(breach(number, f"K{number}"), [], page, ["log"])
    assert store.verify_audit() == ""

    def tamper(statement: str) -> str:
        class RollbackError(Exception):
            pass

        row_count = ""
        try:

            def work(run: Callable[..., list[tuple[object, ...]]]) -> None:
                nonlocal row_count
                run(statement)
                rows = run("SELECT number, time_ns, act, detail, hash FROM audit ORDER BY number")
                row_count = str(len(rows))
                raise RollbackError

            store.database.write(work)
        except RollbackError:
            pass
        assert row_count
        store.database.write(lambda run: run(statement))
        return store.verify_audit()

    assert "row 8 was written: rows are missing at its end" in tamper("DELETE FROM audit WHERE number=8")
    assert "row 3 is missing" in tamper("DELETE FROM audit WHERE number=3")
    assert "row 2 was changed" in tamper("UPDATE audit SET detail='nothing' WHERE number=2")


def test_steps_and_signs_of_life(open_store: OpenStore) -> None:
    """A step is ticked once, by who was first; a sign of life takes the place of the one before."""
    first_store, second_store = open_store("one"), open_store("other")
    assert first_store.mark_step_done(1, 1, "ann", 5)
    assert not second_store.mark_step_done(1, 1, "bob", 6)
    assert second_store.done_steps(1) == {1: ("ann", 5)}
    first_store.write_heartbeat("desk", 1, b"a")
    first_store.write_heartbeat("desk", 2, b"b")
    second_store.write_heartbeat("watch", 3, b"c")
    assert first_store.heartbeats() == [("desk", 2, b"b"), ("watch", 3, b"c")]


# -- processes -------------------------------------------------------------------------------------------------------

PROBE_SCRIPT = """
import json, sys, time
sys.path.insert(0, {root!r})
from holdover.runtime import Guard
from tests.unit.orders import request
guard = Guard.open({config!r})
print("up", flush=True)
order_request, permitted = request(), 0
while True:
    at = time.monotonic_ns()
    if guard.permits(order_request):
        permitted = at
    else:
        print(json.dumps([permitted, at, guard.services.freeze_watcher.problem]), flush=True)
        while not guard.permits(order_request):
            time.sleep(0.001)
        print(json.dumps([time.monotonic_ns()]), flush=True)
"""


def write_config(directory: Path, url: str, schema: str, name: str = "asks", within_ms: float = 200.0) -> Path:
    """A guard's configuration, on PostgreSQL where a URL is told."""
    folder = directory / name
    folder.mkdir(exist_ok=True)
    store = ""
    if url:
        secret = folder / "store.url"
        secret.write_text(url)
        secret.chmod(0o600)
        store = f'[store]\nurl_file = "store.url"\nschema = "{schema}"\ntimeout_s = 1.0\n'
    (folder / "desk.toml").write_text(
        f'[guard]\ndirectory = "{"g" if url else "../shared"}"\nname = "{name}"\nobey_within_ms = {within_ms}\n'
        f"journal = false\nbundles = false\n[pages]\nlog = false\n[heartbeat]\nevery_s = 0.2\n{store}"
    )
    return folder / "desk.toml"


class PermissionProbe:
    """Another process that asks its guard again and again whether an order may leave."""

    def __init__(self, config_path: Path) -> None:
        root = str(Path(__file__).parents[2])
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROBE_SCRIPT.format(root=root, config=str(config_path))], stdout=subprocess.PIPE
        )
        assert self.read_line() == "up"

    def read_line(self) -> str:
        """Its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def read_answer(self) -> list[object]:
        """Its next line, decoded."""
        answer: list[object] = json.loads(self.read_line())
        return answer

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


@pytest.mark.parametrize(
    ("store_kind", "within_ms"), [("file", 200), ("postgresql", 200), ("file", 0), ("postgresql", 0)]
)
def test_a_freeze_is_obeyed_by_all_within_the_bound(
    store_kind: str, within_ms: int, request: pytest.FixtureRequest, tmp_path: Path, schema: str
) -> None:
    """No message leaves another process later than the bound after the freeze was on the disk; a thaw acts as well."""
    url = request.getfixturevalue("postgres").url if store_kind == "postgresql" else ""
    probe = PermissionProbe(write_config(tmp_path, url, schema, within_ms=within_ms))
    store = read_config(write_config(tmp_path, url, schema, name="writes")).open_store()
    try:
        for number in range(5):
            store.freeze("instrument:IBM", [], "ann", "to see", number)
            frozen_ns = time.monotonic_ns()
            permitted_ns, _, problem = probe.read_answer()
            assert problem == ""
            assert isinstance(permitted_ns, int)
            assert permitted_ns - frozen_ns <= within_ms * 1_000_000
            store.thaw("instrument:IBM", "ann", "seen", "this test", "", number)
            probe.read_answer()
    finally:
        probe.end()
        store.close()


def test_a_process_that_loses_the_database_lets_nothing_out(
    postgres: PostgresServer, tmp_path: Path, schema: str
) -> None:
    """Gone, and held still so that connections stay open: both fail closed within bound and timeout, and end."""
    probe = PermissionProbe(write_config(tmp_path, postgres.url, schema))
    try:
        for take_away, give_back in ((postgres.suspend, postgres.resume), (postgres.stop, postgres.start)):
            take_away()
            gone_ns = time.monotonic_ns()
            permitted_ns, _, _ = probe.read_answer()
            assert isinstance(permitted_ns, int)
            # A look under way may still be answered by what was in the socket; then the bound runs.
            assert permitted_ns - gone_ns <= 300_000_000
            give_back()
            probe.read_answer()
    finally:
        probe.end()
        postgres.resume()


def test_a_breach_without_the_database_freezes_in_memory_and_then_for_good(
    postgres: PostgresServer, tmp_path: Path, schema: str, wait_until: WaitUntil
) -> None:
    """`record` comes back in bounded time with everything frozen; the freeze is written when it can be, once."""
    guard = Guard.open(write_config(tmp_path, postgres.url, schema))
    try:
        guard.record("orders", GOOD)
        postgres.suspend()
        began = time.monotonic()
        guard.record("orders", BAD)
        assert time.monotonic() - began < 120.0  # a few statements of one second each, and not for ever
        assert not guard.permits(request())
        assert SYSTEM in guard.frozen_scopes()
        postgres.resume()
        store = read_config(write_config(tmp_path, postgres.url, schema, name="reads")).open_store()
        wait_until(lambda: SYSTEM in [freeze.scope for freeze in store.active_freezes()])
        wait_until(lambda: not guard.freezes.unwritten_breaches)
        keys = [(stored_breach.invariant, stored_breach.key) for stored_breach in store.breaches()]
        assert len(keys) == len(set(keys))
        assert INVARIANT in [freeze.invariant for freeze in store.active_freezes()]
        assert store.verify_audit() == ""
        store.close()
    finally:
        postgres.resume()
        guard.close()


RECORD_SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from msgspec.structs import replace
from holdover.runtime import Guard
from tests.unit.orders import BAD
guard = Guard.open({config!r})
for number in range({first}, 10**6):
    key = f"C{{number}}"
    guard.record("orders", replace(BAD, cl_ord_id=key, root_cl_ord_id=key, symbol=f"S{{number}}"))
    print(number, flush=True)
"""


@pytest.mark.parametrize("store_kind", ["file", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_killed_at_random_moments_no_freeze_and_no_page_is_lost(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path, schema: str
) -> None:
    """What the guard had returned from before the kill is frozen and in the outbox; the store is whole every time."""
    url = request.getfixturevalue("postgres").url if store_kind == "postgresql" else ""
    config_path, root = write_config(tmp_path, url, schema), str(Path(__file__).parents[2])
    store = read_config(write_config(tmp_path, url, schema, name="reads")).open_store()
    first, numbers = 0, set()
    for kill in range(int(os.environ.get("HOLDOVER_KILLS", "6"))):
        code = RECORD_SCRIPT.format(root=root, config=str(config_path), first=first)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for line in itertools.islice(process.stdout, 1 + kill * 7 % 11):
            numbers.add(int(line))
        process.send_signal(signal.SIGKILL)
        numbers |= {int(line) for line in process.stdout if line.endswith(b"\n")}
        process.wait()
        first = max(numbers) + 1
        frozen = {freeze.scope for freeze in store.active_freezes()}
        paged = {page.scope for page in store.all_pages()}
        for number in numbers:
            assert f"instrument:S{number}" in frozen
            assert f"instrument:S{number}" in paged
        assert store.verify_audit() == ""
    store.close()


def test_the_url_is_never_said(postgres: PostgresServer) -> None:
    """A password in the URL is in no message, whatever goes wrong."""
    database = PostgresDatabase("postgresql://holdover:hunter2@127.0.0.1:1/nowhere", timeout_s=2.0)
    with pytest.raises(StoreError) as excinfo:
        database.read("SELECT 1")
    assert "hunter2" not in str(excinfo.value)
    assert "127.0.0.1" in str(excinfo.value)
    with pytest.raises(ValueError, match="no plain name"):
        PostgresDatabase(postgres.url, "a; DROP TABLE audit")
