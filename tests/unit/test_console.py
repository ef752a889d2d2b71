"""The console: what it shows, who may do what, and what it refuses."""

from __future__ import annotations

import asyncio
import html
import re
import socket
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from starlette.routing import Route

from holdover.cli import main
from holdover.console.application import routes
from holdover.console.live_updates import LiveUpdates, describe_changes
from holdover.console.request_filter import BODY_MAX
from holdover.console.server import DeadlineProtocol, ListenAddressError, check_address, make_server
from holdover.incidents import IncidentLedger
from holdover.pages import format_duration
from holdover.runtime import Breach, Guard, StoreError
from holdover.runtime.breach import BreachRecord, make_page
from holdover.runtime.heartbeat import Beat, HeartbeatLimits
from holdover.runtime.pasted_commands import fill_commands

from .console_bench import PASSWORD, PUBLIC_PATHS, Browser, ConsoleBench, write_beat
from .orders import BAD, GOOD

KEY = "order-quantity-conserved/instrument:IBM"
MakeGuard = Callable[..., Guard]


@pytest.fixture
def guard(make_guard: MakeGuard) -> Guard:
    """A guard that has frozen IBM, with the memory and the bundles of it."""
    frozen_guard = make_guard(bundles=Path("bundles"), recorder_size=64)
    frozen_guard.evidence.bundles = frozen_guard.directory / "bundles"
    with frozen_guard.step("execution-report"):
        frozen_guard.record("orders", GOOD)
    with frozen_guard.step("execution-report"):
        frozen_guard.record("orders", BAD)
    frozen_guard.save_memory()
    return frozen_guard


@pytest.fixture
def bench(guard: Guard, time_ns: Any) -> ConsoleBench:
    """A console over its store."""
    return ConsoleBench(guard.directory, time_ns)


def breach_number(bench: ConsoleBench, invariant: str = "order-quantity-conserved") -> int:
    """The breach of an invariant."""
    return next(breach.number for breach in bench.store.breaches() if breach.invariant == invariant)


def first_freeze_number(bench: ConsoleBench) -> int:
    """The first freeze in force."""
    return bench.store.active_freezes()[0].number


def freeze_numbers(bench: ConsoleBench) -> str:
    """The freezes that an operator has before him, as the form names them."""
    return ",".join(str(freeze.number) for freeze in bench.store.active_freezes())


def list_routes(bench: ConsoleBench) -> list[tuple[str, str]]:
    """(method, path) of all that the application has, as it tells itself, with numbers that exist."""
    method_paths = []
    for route in routes(bench.console):
        assert isinstance(route, Route)
        path = route.path.replace("{number:int}", "1").replace("{name}", "order-quantity-conserved")
        method_paths += [(method, path) for method in sorted((route.methods or set()) - {"HEAD"})]
    return method_paths


# -- what it shows -------------------------------------------------------------------------------------------------


def test_now_says_what_is_frozen_and_why(bench: ConsoleBench) -> None:
    """Scope, invariant, explanation, what is allowed, whether anybody has acknowledged."""
    page_text = html.unescape(bench.browser("vera").get("/").text)
    for text in (
        "instrument:IBM",
        "order-quantity-conserved",
        "the open quantity is 60, but the order quantity less the filled quantity is 20",
    ):
        assert text in page_text
    assert "Nobody has acknowledged" in page_text
    assert "One freeze in force" in page_text


def test_the_card_has_all_that_an_operator_needs(bench: ConsoleBench) -> None:
    """The catalogue's words, every step, the records, the last mutations from the bundle, the thaw's form."""
    browser = bench.browser("olga")
    page_text = html.unescape(re.sub(r"</?code>", "`", browser.get(f"/breach/{breach_number(bench)}").text))
    entry = bench.console.catalogue["order-quantity-conserved"].entry
    assert entry.statement in page_text
    assert entry.implication in page_text
    for step in entry.response:
        assert fill_commands(step.step, "instrument:IBM", bench.console.config.location) in page_text
        assert step.done_when in page_text
    assert "SYMBOL" not in page_text
    assert "--guard DIR" not in page_text
    assert "Records involved" in page_text
    assert re.search(r"cum_qty` 0 → 40|cum_qty` 40", page_text)
    assert "The last mutations" in page_text
    assert 'action="/freeze/' in page_text


def test_a_viewer_sees_no_button(bench: ConsoleBench) -> None:
    """Only the one that logs out."""
    page_text = bench.browser("vera").get(f"/breach/{breach_number(bench)}").text
    assert re.findall(r'action="([^"]*)"', page_text) == ["/logout"]
    assert "an operator can thaw it" in page_text


def test_steps_are_ticked_off_by_name(bench: ConsoleBench) -> None:
    """Who and when; a second time changes nothing; a step that there is not is none."""
    number = breach_number(bench)
    browser = bench.browser("olga")
    assert browser.submit(f"/breach/{number}/tick", step="1").status_code == 303
    bench.browser("amir").submit(f"/breach/{number}/tick", step="1")
    assert {step: user for step, (user, _) in bench.store.done_steps(number).items()} == {1: "olga"}
    assert "Done by <b>olga</b>" in browser.get(f"/breach/{number}").text
    for wrong in ("0", "99", "x", ""):
        assert browser.submit(f"/breach/{number}/tick", step=wrong).status_code == 404


def test_a_page_is_acknowledged_once(bench: ConsoleBench) -> None:
    """By the one whose session it is, whatever the form says."""
    browser = bench.browser("olga")
    answer = browser.submit("/acknowledge", key=KEY, operator="amir")
    assert answer.headers["location"] == "/?notice=acknowledged"
    assert bench.audit_details("acknowledge") == [f"{KEY} by olga"]
    assert browser.submit("/acknowledge", key=KEY).headers["location"] == "/?notice=taken"
    assert "Acknowledged by <b>olga</b>" in browser.get("/").text


def test_a_thaw_is_refused_while_the_invariant_fails(bench: ConsoleBench) -> None:
    """In words, with what was typed still there; a reason and evidence are needed."""
    browser = bench.browser("olga")
    path = f"/freeze/{first_freeze_number(bench)}/thaw"
    refused = browser.submit(path, seen=freeze_numbers(bench), reason="looks right to me", evidence="ticket 7")
    assert (refused.status_code, "still does not hold" in refused.text) == (409, True)
    assert "looks right to me" in refused.text
    missing = browser.submit(path, reason="why", evidence="  ")
    assert (missing.status_code, "The thaw needs evidence" in missing.text) == (422, True)
    assert bench.store.active_freezes()
    assert bench.audit_details("thaw") == []


def test_a_thaw_after_the_repair(bench: ConsoleBench, guard: Guard) -> None:
    """By one person; the operator is the session's, also where the form says another."""
    guard.record("orders", GOOD)
    guard.record("orders", replace(GOOD, cum_qty=0))
    guard.save_memory()
    answer = bench.browser("olga").submit(
        f"/freeze/{first_freeze_number(bench)}/thaw",
        seen=freeze_numbers(bench),
        reason="busted",
        evidence="ticket 7",
        operator="amir",
    )
    assert (answer.status_code, answer.headers.get("location")) == (303, "/?notice=thawed")
    assert bench.store.active_freezes() == []
    assert '"operator":"olga"' in bench.audit_details("thaw")[0]


def test_a_freeze_that_nobody_has_seen_is_not_thawed_with_the_rest(bench: ConsoleBench) -> None:
    """One that came after the page was opened: the thaw is refused, and the next page shows it."""
    browser = bench.browser("olga")
    seen_freezes = freeze_numbers(bench)
    new = bench.store.freeze("instrument:IBM", [], "amir", "odd prints", 5)
    form = {"reason": "r", "evidence": "e", "second_name": "anna", "second_password": PASSWORD}
    refused = browser.submit(f"/freeze/{first_freeze_number(bench)}/thaw", seen=seen_freezes, **form)
    assert (refused.status_code, "another freeze of this scope has come" in refused.text) == (409, True)
    assert f'href="/freeze/{new.number}"' in refused.text
    assert bench.audit_details("thaw") == []
    shown = re.search(r'name="seen" value="([0-9,]+)"', refused.text)
    assert shown
    assert browser.submit(f"/freeze/{first_freeze_number(bench)}/thaw", seen=shown[1], **form).status_code == 303


def test_a_forced_thaw_needs_an_approver_and_his_password(bench: ConsoleBench) -> None:
    """Not an operator's word, not a wrong password, not the operator's own; the right one's name is kept."""
    path = f"/freeze/{first_freeze_number(bench)}/thaw"
    form = {"seen": freeze_numbers(bench), "reason": "market closes", "evidence": "venue's own report"}
    browser = bench.browser("amir")
    for name, password in (("olga", PASSWORD), ("anna", "wrong"), ("amir", PASSWORD), ("anna", ""), ("", PASSWORD)):
        answer = browser.submit(path, second_name=name, second_password=password, **form)
        assert answer.status_code in (403, 422), (name, answer.status_code)
        assert PASSWORD not in answer.text
    assert bench.store.active_freezes()
    assert len(bench.audit_details("approval failed")) == 4
    assert browser.submit(path, second_name="anna", second_password=PASSWORD, **form).status_code == 303
    assert bench.store.active_freezes() == []
    assert '"operator":"amir"' in bench.audit_details("thaw")[0]
    assert '"forced_by":"anna"' in bench.audit_details("thaw")[0]


def test_a_freeze_by_hand_has_a_card(bench: ConsoleBench) -> None:
    """Without a breach: who froze it, and the thaw."""
    freeze = bench.store.freeze("account:A", ["cancel"], "olga", "odd fills", 5)
    browser = bench.browser("olga")
    assert "by hand: olga" in browser.get(f"/freeze/{freeze.number}").text
    assert browser.submit(f"/freeze/{freeze.number}/thaw", reason="r", evidence="e").status_code == 303
    assert browser.get(f"/freeze/{freeze.number}").status_code == 404


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({}, "HEALTHY"),
        ({"frozen": ["instrument:IBM"]}, "FROZEN"),
        ({"open_ns": 1}, "WEDGED"),
        ({"time_ns": 1}, "SILENT"),
        ({"stopped": True}, "STOPPED"),
    ],
)
def test_health_is_told_in_a_word_and_a_shape(
    bench: ConsoleBench, time_ns: Any, change: dict[str, Any], label: str
) -> None:
    """Each state has its own word and its own picture on the first page and on the page of health."""
    time_ns.now_ns = 100_000_000_000
    beat = Beat(
        pid=7, host="h", version="1", digest="d", time_ns=time_ns.now_ns, mutations=1, breaches=0, last_ns=0, open_ns=0,
        frozen=[], problem="", limits=HeartbeatLimits(),
    )  # fmt: skip
    beat = replace(beat, **change)
    write_beat(bench.store, "desk", beat.time_ns, beat)
    browser = bench.browser("vera")
    for path in ("/", "/health"):
        page_text = browser.get(path).text
        assert f"<b>{label}</b>" in page_text
        assert f's-{label.lower()}"' in page_text


def test_pages_say_how_far_they_came(bench: ConsoleBench) -> None:
    """Delivered, or tried and with which problem."""
    page = bench.store.alerts()[0].page
    bench.store.send_page(replace(page, dedup_key="one/x", number=0, title="ONE"), ["desk"])
    bench.store.mark_failed(bench.store.backlog()[0].number, 5, "URLError: refused <by> them")
    page_text = bench.browser("vera").get("/alerts").text
    assert "Not delivered yet, 1 try: URLError: refused &lt;by&gt; them" in page_text
    bench.store.mark_delivered(bench.store.backlog()[0].number, 7)
    assert "Delivered <time" in bench.browser("vera").get("/alerts").text


def test_the_audit_log_is_verified_and_comes_in_parts(bench: ConsoleBench) -> None:
    """The head is shown; older acts are a page further; a changed row is said."""
    for number in range(250):
        bench.store.log_action("test", f"act {number}", 5)
    browser = bench.browser("vera")
    page_text = browser.get("/audit").text
    assert "The log is whole" in page_text
    assert bench.store.audit_head().split()[1] in page_text
    assert "act 249" in page_text
    assert "act 100<" not in page_text
    older = re.search(r'href="(/audit\?before=\d+)"', page_text)
    assert older
    assert "act 100<" in browser.get(older[1]).text
    bench.store.database.write(lambda run: run("UPDATE audit SET detail='no' WHERE number=3"))
    assert "audit row 3 was changed" in browser.get("/audit?verify=all").text


def test_the_catalogue_is_the_book(bench: ConsoleBench) -> None:
    """Every invariant, each with a page of its own."""
    browser = bench.browser("vera")
    listed = re.findall(r'href="/catalogue/([a-z-]+)"', browser.get("/catalogue").text)
    assert listed == list(bench.console.catalogue.invariants)
    page_text = html.unescape(re.sub(r"</?code>", "`", browser.get("/catalogue/positions-agree").text))
    assert bench.console.catalogue["positions-agree"].entry.implication in page_text
    assert browser.get("/catalogue/nothing").status_code == 404


def test_what_a_breach_says_is_never_markup(bench: ConsoleBench) -> None:
    """Scripts in explanation, scope, key, cause and records come out as text on every page."""
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    breach = Breach(
        number=0, invariant="order-quantity-conserved", scope=f"instrument:{evil}", subsystem=evil, kind="Order",
        key=evil, time_ns=9, mutation=1, cause=evil, explanation=evil, severity="critical", digest=evil, boundary=evil,
        records=[BreachRecord(evil, "Order", evil, {evil: evil})],
    )  # fmt: skip
    entry = bench.console.catalogue["order-quantity-conserved"].entry
    freeze = bench.store.record_breach(breach, [], make_page(breach, entry, 0), [evil])
    bench.store.mark_failed(bench.store.backlog()[0].number, 5, evil)
    bench.store.acknowledge(make_page(breach, entry, 0).dedup_key, evil, 5)
    bench.store.mark_step_done(freeze.breach, 1, evil, 5)
    browser = bench.browser("olga")
    for path in ("/", f"/breach/{freeze.breach}", f"/freeze/{freeze.number}", "/alerts", "/audit", "/health"):
        page_text = browser.get(path).text
        assert "<script>alert" not in page_text, path
        assert "<img" not in page_text, path
        if path != "/health":
            assert "&lt;script&gt;" in page_text, path
    answer = browser.submit(f"/freeze/{freeze.number}/thaw", reason=evil, evidence="", second_name=evil)
    assert "<script>alert" not in answer.text
    assert "<img" not in answer.text


def test_a_breach_of_another_catalogue_is_shown_by_its_page(bench: ConsoleBench) -> None:
    """An invariant that is not here: the steps as they were paged, and that it was another catalogue."""
    breach = replace(
        bench.store.breaches()[0], invariant="of-elsewhere", scope="account:Z", digest="0" * 64, time_ns=99
    )
    page = replace(bench.store.alerts()[0].page, dedup_key="of-elsewhere/account:Z", steps=["Call Zoe."], time_ns=99)
    freeze = bench.store.record_breach(breach, [], page, [])
    page_text = bench.browser("olga").get(f"/breach/{freeze.breach}").text
    assert "Call Zoe." in page_text
    assert "another catalogue" in page_text


# -- who may do what -------------------------------------------------------------------------------------------------


def test_nobody_who_is_not_logged_in_gets_in_anywhere(bench: ConsoleBench) -> None:
    """Every route that the application has: to the login, or 401; and the store is what it was."""
    before = bench.read_tables()
    browser = bench.browser()
    for method, path in list_routes(bench):
        if path.replace("order-quantity-conserved", "{name}") in PUBLIC_PATHS:
            continue
        answer = browser.request(method, path, data={"step": "1", "key": KEY} if method == "POST" else None)
        assert answer.status_code in ((303, 401) if method == "GET" else (401,)), (method, path)
        assert "instrument:IBM" not in answer.text
        if answer.status_code == 303:
            assert answer.headers["location"].startswith("/login")
    assert bench.read_tables() == before


def test_a_viewer_changes_nothing(bench: ConsoleBench) -> None:
    """Every route: what he may see is there, what changes anything is 403, and the store is what it was."""
    browser = bench.browser("vera")
    csrf = browser.csrf()
    IncidentLedger(
        bench.store
    ).import_breaches()  # what is new in the store is taken up by itself: that is nobody's act
    before = bench.read_tables()
    page_count = 0
    for method, path in list_routes(bench):
        if path in ("/login", "/logout"):
            continue
        if method == "GET":
            assert browser.get(path).status_code in (200, 404), path
            page_count += 1
            continue
        form = {"csrf": csrf, "step": "1", "key": KEY, "reason": "r", "evidence": "e"}
        form |= {"second_name": "amir", "second_password": PASSWORD}
        assert browser.post(path, data=form).status_code == 403, path
    assert page_count > 8
    assert bench.read_tables() == before


def test_the_application_has_no_other_route(bench: ConsoleBench) -> None:
    """A page that is added must be looked at here: everything that changes something needs an operator."""
    posts = {path for method, path in list_routes(bench) if method == "POST"}
    incidents = {f"/incident/1/{step}" for step in ("acknowledge", "diagnose", "resolve")}
    assert posts == {"/login", "/logout", "/acknowledge", "/breach/1/tick", "/freeze/1/thaw"} | incidents


# -- sessions --------------------------------------------------------------------------------------------------------


def test_a_wrong_password_and_an_unknown_name_are_told_alike(bench: ConsoleBench) -> None:
    """The same page but for the name that was typed; both are in the audit log, without the password."""
    answers = []
    for name in ("olga", "nobody"):
        answer = bench.browser().log_in(name, "wrong password here")
        assert answer.status_code == 401
        answers.append(re.sub(r'value="[^"]*"', "", answer.text))
    assert answers[0] == answers[1]
    assert [detail.split()[0] for detail in bench.audit_details("login failed")] == ["'olga'", "'nobody'"]
    assert "wrong password" not in str(bench.store.audit_rows())


def test_an_unknown_name_costs_a_hash_as_well(bench: ConsoleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the time tells nothing: the hasher verifies once either way."""
    hashes: list[str] = []

    class Counting:
        def hash(self, password: str) -> str:
            return "of nobody"

        def verify(self, hashed: str, password: str) -> bool:
            hashes.append(hashed)
            from argon2.exceptions import VerifyMismatchError

            raise VerifyMismatchError

    monkeypatch.setattr(bench.users, "_hasher", Counting())
    for name in ("olga", "nobody"):
        assert bench.users.check_password(name, PASSWORD) is None
    assert len(hashes) == 2
    assert hashes[1] == "of nobody"


def test_a_cookie_is_worth_nothing_after_logout(bench: ConsoleBench) -> None:
    """Nor before: the store has only its hash. Nor is a made-up one."""
    browser = bench.browser("olga")
    stolen = browser.cookies["holdover"]
    assert stolen not in str(bench.read_tables())
    thief = bench.browser()
    thief.cookies.set("holdover", stolen)
    assert thief.get("/").status_code == 200
    assert browser.submit("/logout").status_code == 303
    assert thief.get("/").status_code == 303
    assert thief.get("/live").status_code == 401
    for made_up in ("", "x", "0" * 500, "é"):
        assert bench.browser().get("/", headers={"Cookie": f"holdover={made_up}".encode()}).status_code == 303


def test_the_cookie_is_locked_down(guard: Guard, time_ns: Any) -> None:
    """HttpOnly and SameSite=Strict; Secure, with the prefix that browsers hold to it, under TLS."""
    plain = ConsoleBench(guard.directory, time_ns)
    cookie = plain.browser().log_in("olga").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    for name in ("vera", "olga", "amir", "anna"):
        plain.users.remove_user(name, by="test", time_ns=1)
    secure = ConsoleBench(guard.directory, time_ns, secure=True)
    answer = secure.browser(scheme="https").log_in("olga")
    assert "__Host-holdover=" in answer.headers["set-cookie"]
    assert "Secure" in answer.headers["set-cookie"]
    assert answer.headers["strict-transport-security"]


@pytest.mark.parametrize("ending", ["idle", "day", "password", "removed"])
def test_sessions_end(bench: ConsoleBench, time_ns: Any, ending: str) -> None:
    """When nobody clicks, after a day of clicking, with another password, with the user."""
    browser = bench.browser("olga")
    if ending == "idle":
        time_ns.now_ns += 1_700_000_000_000
        assert browser.get("/").status_code == 200
        time_ns.now_ns += 1_700_000_000_000
        assert browser.get("/", headers={"X-Live": "1"}).status_code == 200
        time_ns.now_ns += 1_700_000_000_000  # the page that reloads itself is no click
    elif ending == "day":
        for _ in range(29):
            assert browser.get("/").status_code == 200
            time_ns.now_ns += 1_500_000_000_000
    elif ending == "password":
        bench.users.set_password("olga", "quiet otters paint seven lamps", by="test", time_ns=5)
    else:
        bench.users.remove_user("olga", by="test", time_ns=5)
    assert browser.get("/").status_code == 303


def test_a_change_of_role_counts_at_once(bench: ConsoleBench) -> None:
    """The role is the store's, not the session's."""
    browser = bench.browser("olga")
    bench.store.database.write(lambda run: run("UPDATE console_user SET role='viewer' WHERE name='olga'"))
    assert browser.submit("/acknowledge", key=KEY).status_code == 403


@pytest.mark.parametrize("token", [None, "", "0" * 64, "é"])
def test_a_forged_form_is_refused(bench: ConsoleBench, token: str | None) -> None:
    """Without the session's own token nothing is done; another session's is none."""
    browser = bench.browser("olga")
    other_token = bench.browser("amir").csrf()
    before = bench.read_tables()
    for path in (
        "/acknowledge",
        f"/breach/{breach_number(bench)}/tick",
        f"/freeze/{first_freeze_number(bench)}/thaw",
        "/logout",
    ):
        for csrf_token in (token, other_token):
            form = {"key": KEY, "step": "1", "reason": "r", "evidence": "e"}
            assert (
                browser.post(path, data=form if csrf_token is None else {**form, "csrf": csrf_token}).status_code == 403
            )
    assert bench.read_tables() == before
    assert browser.get("/").status_code == 200


def test_a_login_cannot_be_forged_either(bench: ConsoleBench) -> None:
    """Its form carries a token that the browser's own cookie must match."""
    browser = bench.browser()
    assert browser.post("/login", data={"name": "olga", "password": PASSWORD}).status_code == 403
    browser.csrf("/login")
    assert browser.post("/login", data={"name": "olga", "password": PASSWORD, "csrf": "x" * 43}).status_code == 403
    assert browser.get("/").status_code == 303


def test_tries_are_counted_by_name_and_by_address(bench: ConsoleBench, time_ns: Any) -> None:
    """After ten wrong ones the right one is not taken either, for unknown names alike; later it is."""
    for name in ("olga", "nobody"):
        browser = bench.browser()
        codes = [browser.log_in(name, "wrong password").status_code for _ in range(11)]
        assert codes == [401] * 10 + [429]
    assert bench.browser().log_in("olga").status_code == 429
    assert bench.browser().log_in("vera").status_code == 303
    assert len(bench.audit_details("login failed")) == 20
    time_ns.now_ns += 301_000_000_000
    assert bench.browser().log_in("olga").status_code == 303
    for number in range(30):
        bench.browser().log_in(f"name{number}", "wrong password")
    assert bench.browser().log_in("vera").status_code == 429


def test_after_login_the_page_that_was_asked_for(bench: ConsoleBench) -> None:
    """The card that a page links to; never another site."""
    browser = bench.browser()
    location = browser.get("/breach/1").headers["location"]
    assert location == "/login?to=%2Fbreach%2F1"
    assert 'value="/breach/1"' in browser.get(location).text
    assert browser.log_in("olga", to="/breach/1").headers["location"] == "/breach/1"
    for wrong in ("https://evil.example", "//evil.example", "/\\evil.example", "/..//evil", "javascript:alert(1)"):
        assert bench.browser().log_in("olga", to=wrong).headers["location"] == "/"


def test_a_link_from_elsewhere_asks_once_more(bench: ConsoleBench) -> None:
    """A strict cookie does not come with a link in a mail: our own page asks again, and then it does."""
    answer = bench.browser().get("/breach/1", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0;url=/breach/1">' in answer.text


# -- the door --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/static/../guard.db", "/static/..%2f..%2fguard.db", "/static/%2e%2e/console.py", "/catalogue/..%2f..%2fx",
     "/static/..%5cguard.db", "/%2e%2e/%2e%2e/etc/passwd", "/breach/..%2f1", "/breach/-1",
     "/freeze/9999999999999999999999", "/static/console.css%00.js"],
)  # fmt: skip
def test_paths_lead_nowhere_else(bench: ConsoleBench, path: str) -> None:
    """Up and out, encoded or not, numbers that no row has: not there."""
    assert bench.browser("olga").get(path).status_code == 404


def test_too_much_is_refused_without_reading_it(bench: ConsoleBench) -> None:
    """By what is announced, and by what comes when nothing was."""
    browser = bench.browser("olga")
    assert browser.post("/acknowledge", content=b"x" * (BODY_MAX + 1)).status_code == 413
    pulled = 0

    def endless() -> Any:
        nonlocal pulled
        for _ in range(1000):
            pulled += 1
            yield b"x" * 8192

    assert browser.post("/acknowledge", content=endless()).status_code == 413
    assert browser.post("/acknowledge", content=b"", headers={"Content-Length": "-5"}).status_code in (400, 403, 415)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Host": ""}, 400),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://[x"}, 403),
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
    ],
)
def test_who_calls_from_elsewhere_is_refused(bench: ConsoleBench, headers: dict[str, str], status: int) -> None:
    """The wrong name, the wrong origin, what is no form; with a good session and a good token."""
    browser = bench.browser("olga")
    before = bench.read_tables()
    body = urllib.parse.urlencode({"csrf": browser.csrf(), "key": KEY})
    request_headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    assert browser.post("/acknowledge", content=body, headers=request_headers).status_code == status
    assert bench.read_tables() == before


def test_a_form_without_origin_needs_the_browsers_word(bench: ConsoleBench) -> None:
    """Sec-Fetch-Site says same-origin, or it is refused."""
    browser = bench.browser("olga")
    form = {"csrf": browser.csrf(), "key": KEY}
    del browser.headers["Origin"]
    assert browser.post("/acknowledge", data=form).status_code == 403
    assert browser.post("/acknowledge", data=form, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert browser.post("/acknowledge", data=form, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303


def test_every_answer_carries_its_headers(bench: ConsoleBench) -> None:
    """Also refusals; and no page has script or style of its own in it."""
    browser = bench.browser("olga")
    for _, path in [route for route in list_routes(bench) if route[0] == "GET"]:
        answer = browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        if not path.startswith("/static"):
            assert answer.headers["cache-control"] == "no-store"
        if "html" in answer.headers["content-type"]:
            assert not re.search(r"<style|<script(?![^>]* src=)|\sstyle=|\son[a-z]+=", answer.text), path
    assert browser.get("/", headers={"Host": "x"}).headers["x-content-type-options"] == "nosniff"


def test_a_store_that_is_lost_is_said_in_words(bench: ConsoleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, no traceback, and not that nothing is frozen."""
    browser = bench.browser("olga")

    def fail_read(statement: str, *values: object) -> Any:
        raise StoreError("guard.db: the freeze store cannot be used: disk I/O error")

    monkeypatch.setattr(bench.store.database, "read", fail_read)
    for path in ("/", "/breach/1", "/audit", "/health"):
        answer = browser.get(path)
        assert answer.status_code == 503
        assert "Assume that everything is" in answer.text
        assert "Traceback" not in answer.text
    assert bench.browser().get("/healthz").text == "ok\n"


def test_the_stream_tells_how_it_stands(bench: ConsoleBench) -> None:
    """The first event carries the version that the page was made with."""
    browser = bench.browser("vera")
    version = re.search(r'data-version="(\w+)"', browser.get("/").text)
    assert version
    response = browser.get("/live")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert f'"version": "{version[1]}"' in response.text


def test_streams_are_counted(bench: ConsoleBench) -> None:
    """Nobody takes them all: eight of one user, then he has to wait and the others have not."""

    async def fill() -> None:
        async def is_connected() -> bool:
            return True

        live = LiveUpdates(bench.console.take_picture, 60.0)
        streams = [live.stream_events("vera", is_connected) for _ in range(8)]
        assert not live.is_full("vera")
        for stream in streams:
            assert "event: now" in await anext(stream)
        assert live.is_full("vera")
        assert not live.is_full("olga")
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]
        assert not live.is_full("vera")

    asyncio.run(fill())


def test_news_are_sentences(bench: ConsoleBench, guard: Guard) -> None:
    """What a screen reader says: frozen, thawed, acknowledged."""
    before = bench.console.take_picture()
    bench.store.freeze("account:A", [], "olga", "x", 5)
    bench.store.acknowledge(KEY, "olga", 5)
    middle = bench.console.take_picture()
    assert describe_changes(before, middle) == f"Frozen: account:A by hand: olga. {KEY} is acknowledged by olga."
    bench.store.thaw("account:A", "olga", "r", "e", "", 6)
    assert describe_changes(middle, bench.console.take_picture()) == "Thawed: account:A by hand: olga."
    assert before.version != middle.version


TEXT = st.text(max_size=40) | st.sampled_from(
    ["1", "0", "-1", "9" * 30, KEY, "<script>", "olga", PASSWORD, "\x00", "٣"]
)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_breaks_it(data: st.DataObject, bench: ConsoleBench, console_browsers: list[Browser]) -> None:
    """Any method, path, form, cookie and header over all routes: never a 5xx, and the audit log stays whole."""
    browser = data.draw(st.sampled_from(console_browsers))
    known_paths = [path for _, path in list_routes(bench)]
    path = data.draw(st.sampled_from(known_paths) | TEXT.map(lambda text: "/" + urllib.parse.quote(text, safe="/%?")))
    if data.draw(st.booleans()):
        path = re.sub(r"\d+", lambda _: str(data.draw(st.integers(-1, 2**70))), path)
    query = urllib.parse.urlencode(
        data.draw(st.dictionaries(st.sampled_from(["before", "notice", "to"]), TEXT, max_size=2)), errors="replace"
    )
    form = data.draw(
        st.dictionaries(
            st.sampled_from(
                [
                    "csrf",
                    "key",
                    "step",
                    "reason",
                    "evidence",
                    "second_name",
                    "second_password",
                    "breach",
                    "name",
                    "password",
                    "to",
                ]
            )
            | TEXT,
            TEXT,
            max_size=8,
        )
    )
    if data.draw(st.booleans()):
        form["csrf"] = browser.token
    body = data.draw(st.just(urllib.parse.urlencode(form, errors="replace").encode()) | st.binary(max_size=60))
    headers = data.draw(
        st.dictionaries(
            st.sampled_from(["Cookie", "Host", "Origin", "Content-Type", "Content-Length", "X-Live", "Sec-Fetch-Site"]),
            st.binary(max_size=30).filter(lambda content: b"\r" not in content and b"\n" not in content),
            max_size=2,
        )
    )
    headers.setdefault("Content-Type", b"application/x-www-form-urlencoded")
    method = data.draw(st.sampled_from(["GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"]))
    answer = browser.request(method, f"{path}?{query}", content=body, headers=headers)
    assert answer.status_code < 500, (method, path, answer.status_code)
    assert bench.store.verify_audit() == ""


@pytest.fixture
def console_browsers(bench: ConsoleBench) -> list[Browser]:
    """One that is not logged in, and one of each role, with the token of its forms."""
    browsers = [bench.browser(name) for name in ("", "vera", "olga", "amir")]
    for browser in browsers:
        browser.token = browser.csrf("/login" if browser is browsers[0] else "/")
    return browsers


# -- users and addresses on the command line ----------------------------------------------------------------------


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """A password in a file of its own."""
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    return path


def test_users_by_the_command_line(
    tmp_path: Path, secret_file: Path, capsys: pytest.CaptureFixture[str], time_ns: Any
) -> None:
    """Add, list, password, remove; each in the audit log, the password nowhere."""
    place = ["--config", str(tmp_path / "guard")]
    password_options = ["--password-file", str(secret_file)]
    assert main(["users", "add", "zoe", "--role", "operator", *place, *password_options]) == 0
    assert main(["users", "add", "zoe", "--role", "operator", *place, *password_options]) == 2
    assert main(["users", "add", "zed", "--role", "king", *place, *password_options]) == 2
    assert main(["users", "add", "<b>", "--role", "viewer", *place, *password_options]) == 2
    assert main(["users", "list", *place]) == 0
    assert "zoe                      operator" in capsys.readouterr().out
    bench = ConsoleBench(tmp_path / "guard", time_ns)
    assert bench.audit_details("user")[0].startswith("zoe added as operator by")
    assert main(["users", "password", "zoe", *place, *password_options]) == 0
    assert main(["users", "remove", "zoe", *place]) == 0
    assert main(["users", "remove", "zoe", *place]) == 2
    assert "no user is called 'zoe'" in capsys.readouterr().err
    assert PASSWORD.encode() not in (tmp_path / "guard" / "guard.db").read_bytes()
    secret_file.chmod(0o644)
    assert main(["users", "add", "yan", "--role", "viewer", *place, *password_options]) == 2
    assert "should be 0600" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # not as short for --password-file either: it would be in the process list
        main(["users", "add", "yan", "--role", "viewer", "--password", "x", *place])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.com"])
def test_it_listens_nowhere_else_without_tls(host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only with the files, or with the explicit word."""
    assert main(["serve", "--config", str(tmp_path / "guard"), "--host", host]) == 2
    assert "without TLS the console listens at loopback only" in capsys.readouterr().err
    with pytest.raises(ListenAddressError):
        check_address(host, tls=False, insecure=False)
    check_address(host, tls=True, insecure=False)
    check_address(host, tls=False, insecure=True)
    check_address("127.0.0.1", tls=False, insecure=False)
    check_address("::1", tls=False, insecure=False)


def test_serve_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A key without a certificate, a port that is none, a bad table in the configuration."""
    place = ["--config", str(tmp_path / "guard")]
    assert main(["serve", *place, "--tls-key", "k.pem"]) == 2
    assert main(["serve", *place, "--port", "0"]) == 2
    assert main(["serve", *place, "--tls-key", str(tmp_path / "k"), "--tls-cert", str(tmp_path / "c")]) == 2
    assert "cannot be used for TLS" in capsys.readouterr().err
    with socket.socket() as busy_socket:
        busy_socket.bind(("127.0.0.1", 0))
        busy_socket.listen()
        assert main(["serve", *place, "--port", str(busy_socket.getsockname()[1])]) == 2
    assert "cannot listen at 127.0.0.1" in capsys.readouterr().err
    path = tmp_path / "desk.toml"
    path.write_text('[guard]\ndirectory = "g"\n[console]\nport = 99999\nidle_s = 0\n')
    assert main(["serve", "--config", str(path)]) == 2
    assert "[console] port should be a whole number from 1 to 65535" in capsys.readouterr().err


def test_a_request_that_does_not_come_is_not_waited_for(bench: ConsoleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a head, one byte now and then, the second one on a connection: closed, while others are answered."""
    monkeypatch.setattr(DeadlineProtocol, "head_timeout_s", 0.3)
    console_server = make_server(bench.console)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        running = threading.Thread(target=console_server.run, kwargs={"sockets": [bound]})
        running.start()
        whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for first in (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", whole + b"GET / HTTP/1.1\r\nX-Y: "):
            with socket.create_connection(bound.getsockname(), timeout=20) as slow:
                slow.sendall(first)
                with socket.create_connection(bound.getsockname(), timeout=20) as quick:
                    quick.sendall(whole)
                    assert quick.recv(4096).startswith(b"HTTP/1.1 200")
                received = b""
                while chunk := slow.recv(4096):
                    received += chunk
                assert received.startswith(b"HTTP/1.1 200") == first.startswith(whole)
        with socket.create_connection(bound.getsockname(), timeout=20) as huge:
            huge.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000)
            assert huge.recv(4096).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
        console_server.should_exit = True
        running.join(20)
    assert not running.is_alive()


def test_durations_are_words() -> None:
    """One unit, rounded down."""
    assert [format_duration(s) for s in (0, 1, 61, 7200, 100000)] == [
        "0 seconds",
        "1 second",
        "1 minute",
        "2 hours",
        "1 day",
    ]
