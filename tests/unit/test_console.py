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
from holdover.console import BadUser
from holdover.console.application import routes
from holdover.console.console import lasted
from holdover.console.defences import BODY_MAX
from holdover.console.live import Live, news
from holdover.console.server import BadAddress, Prompt, check_address, server
from holdover.console.throttle import Throttle
from holdover.incidents import Ledger
from holdover.runtime import Breach, Guard, StoreProblem
from holdover.runtime.breach import Shown, page_for
from holdover.runtime.heartbeat import Beat, Limits

from .console_bench import NOBODY_NEEDED, PASSWORD, Bench, Browser, without_age
from .orders import BAD, GOOD

KEY = "order-quantity-conserved/instrument:IBM"
MakeGuard = Callable[..., Guard]


@pytest.fixture
def guard(make_guard: MakeGuard) -> Guard:
    """A guard that has frozen IBM, with the memory and the bundles of it."""
    made = make_guard(bundles=Path("bundles"), recorder_size=64)
    made.bundles = made.directory / "bundles"
    with made.step("execution-report"):
        made.record("orders", GOOD)
    with made.step("execution-report"):
        made.record("orders", BAD)
    made.remember()
    return made


@pytest.fixture
def bench(guard: Guard, time_ns: Any) -> Bench:
    """A console over its store."""
    return Bench(guard.directory, time_ns)


def number_of(bench: Bench, invariant: str = "order-quantity-conserved") -> int:
    """The breach of an invariant."""
    return next(one.number for one in bench.store.breaches() if one.invariant == invariant)


def freeze_of(bench: Bench) -> int:
    """The first freeze in force."""
    return bench.store.in_force()[0].number


def all_of(bench: Bench) -> str:
    """The freezes that an operator has before him, as the form names them."""
    return ",".join(str(one.number) for one in bench.store.in_force())


def every_route(bench: Bench) -> list[tuple[str, str]]:
    """(method, path) of all that the application has, as it tells itself, with numbers that exist."""
    found = []
    for route in routes(bench.console):
        assert isinstance(route, Route)
        path = route.path.replace("{number:int}", "1").replace("{name}", "order-quantity-conserved")
        found += [(method, path) for method in sorted((route.methods or set()) - {"HEAD"})]
    return found


# -- what it shows -------------------------------------------------------------------------------------------------


def test_now_says_what_is_frozen_and_why(bench: Bench) -> None:
    """Scope, invariant, explanation, what is allowed, whether anybody has acknowledged."""
    told = html.unescape(bench.browser("vera").get("/").text)
    for said in ("instrument:IBM", "order-quantity-conserved", "leaves_qty is 60, order_qty - cum_qty is 20"):
        assert said in told
    assert "Nobody has acknowledged" in told
    assert "2 freezes in force" in told


def test_the_card_has_all_that_an_operator_needs(bench: Bench) -> None:
    """The catalogue's words, every step, the records, the last mutations from the bundle, the thaw's form."""
    browser = bench.browser("olga")
    told = html.unescape(re.sub(r"</?code>", "`", browser.get(f"/breach/{number_of(bench)}").text))
    entry = bench.console.catalogue["order-quantity-conserved"].entry
    assert entry.statement in told
    assert entry.implication in told
    for step in entry.response:
        assert step.step in told
        assert step.done_when in told
    assert "Records involved" in told
    assert re.search(r"cum_qty` 0 → 40|cum_qty` 40", told)
    assert "The last mutations" in told
    assert 'action="/freeze/' in told


def test_a_viewer_sees_no_button(bench: Bench) -> None:
    """Only the one that logs out."""
    told = bench.browser("vera").get(f"/breach/{number_of(bench)}").text
    assert re.findall(r'action="([^"]*)"', told) == ["/logout"]
    assert "an operator can thaw it" in told


def test_steps_are_ticked_off_by_name(bench: Bench) -> None:
    """Who and when; a second time changes nothing; a step that there is not is none."""
    number = number_of(bench)
    browser = bench.browser("olga")
    assert browser.submit(f"/breach/{number}/tick", step="1").status_code == 303
    bench.browser("amir").submit(f"/breach/{number}/tick", step="1")
    assert {step: who for step, (who, _) in bench.store.ticks(number).items()} == {1: "olga"}
    assert "Done by <b>olga</b>" in browser.get(f"/breach/{number}").text
    for wrong in ("0", "99", "x", ""):
        assert browser.submit(f"/breach/{number}/tick", step=wrong).status_code == 404


def test_a_page_is_acknowledged_once(bench: Bench) -> None:
    """By the one whose session it is, whatever the form says."""
    browser = bench.browser("olga")
    answer = browser.submit("/acknowledge", key=KEY, operator="amir")
    assert answer.headers["location"] == "/?said=acknowledged"
    assert bench.acts("acknowledge") == [f"{KEY} by olga"]
    assert browser.submit("/acknowledge", key=KEY).headers["location"] == "/?said=taken"
    assert "Acknowledged by <b>olga</b>" in browser.get("/").text


def test_a_thaw_is_refused_while_the_invariant_fails(bench: Bench) -> None:
    """In words, with what was typed still there; a reason and evidence are needed."""
    browser = bench.browser("olga")
    path = f"/freeze/{freeze_of(bench)}/thaw"
    refused = browser.submit(path, seen=all_of(bench), reason="looks right to me", evidence="ticket 7")
    assert (refused.status_code, "still does not hold" in refused.text) == (409, True)
    assert "looks right to me" in refused.text
    missing = browser.submit(path, reason="why", evidence="  ")
    assert (missing.status_code, "The thaw needs evidence" in missing.text) == (422, True)
    assert bench.store.in_force()
    assert bench.acts("thaw") == []


def test_a_thaw_after_the_repair(bench: Bench, guard: Guard) -> None:
    """By one person; the operator is the session's, also where the form says another."""
    guard.record("orders", GOOD)
    guard.record("orders", replace(GOOD, cum_qty=0))
    guard.remember()
    answer = bench.browser("olga").submit(
        f"/freeze/{freeze_of(bench)}/thaw", seen=all_of(bench), reason="busted", evidence="ticket 7", operator="amir"
    )
    assert (answer.status_code, answer.headers.get("location")) == (303, "/?said=thawed")
    assert bench.store.in_force() == []
    assert '"operator":"olga"' in bench.acts("thaw")[0]


def test_a_freeze_that_nobody_has_seen_is_not_thawed_with_the_rest(bench: Bench) -> None:
    """One that came after the page was opened: the thaw is refused, and the next page shows it."""
    browser = bench.browser("olga")
    seen = all_of(bench)
    new = bench.store.freeze("instrument:IBM", [], "amir", "odd prints", 5)
    why = {"reason": "r", "evidence": "e", "second_name": "anna", "second_password": PASSWORD}
    refused = browser.submit(f"/freeze/{freeze_of(bench)}/thaw", seen=seen, **why)
    assert (refused.status_code, "another freeze of this scope has come" in refused.text) == (409, True)
    assert f'href="/freeze/{new.number}"' in refused.text
    assert bench.acts("thaw") == []
    shown = re.search(r'name="seen" value="([0-9,]+)"', refused.text)
    assert shown
    assert browser.submit(f"/freeze/{freeze_of(bench)}/thaw", seen=shown[1], **why).status_code == 303


def test_a_forced_thaw_needs_an_approver_and_his_password(bench: Bench) -> None:
    """Not an operator's word, not a wrong password, not the operator's own; the right one's name is kept."""
    path = f"/freeze/{freeze_of(bench)}/thaw"
    why = {"seen": all_of(bench), "reason": "market closes", "evidence": "venue's own report"}
    browser = bench.browser("amir")
    for name, password in (("olga", PASSWORD), ("anna", "wrong"), ("amir", PASSWORD), ("anna", ""), ("", PASSWORD)):
        answer = browser.submit(path, second_name=name, second_password=password, **why)
        assert answer.status_code in (403, 422), (name, answer.status_code)
        assert PASSWORD not in answer.text
    assert bench.store.in_force()
    assert len(bench.acts("approval failed")) == 4
    assert browser.submit(path, second_name="anna", second_password=PASSWORD, **why).status_code == 303
    assert bench.store.in_force() == []
    assert '"operator":"amir"' in bench.acts("thaw")[0]
    assert '"forced_by":"anna"' in bench.acts("thaw")[0]


def test_a_freeze_by_hand_has_a_card(bench: Bench) -> None:
    """Without a breach: who froze it, and the thaw."""
    freeze = bench.store.freeze("account:A", ["cancel"], "olga", "odd fills", 5)
    browser = bench.browser("olga")
    assert "by hand: olga" in browser.get(f"/freeze/{freeze.number}").text
    assert browser.submit(f"/freeze/{freeze.number}/thaw", reason="r", evidence="e").status_code == 303
    assert browser.get(f"/freeze/{freeze.number}").status_code == 404


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "HEALTHY"),
        ({"frozen": ["instrument:IBM"]}, "FROZEN"),
        ({"open_ns": 1}, "WEDGED"),
        ({"time_ns": 1}, "SILENT"),
        ({"stopped": True}, "STOPPED"),
    ],
)
def test_health_is_told_in_a_word_and_a_shape(bench: Bench, time_ns: Any, change: dict[str, Any], word: str) -> None:
    """Each state has its own word and its own picture on the first page and on the page of health."""
    time_ns.now_ns = 100_000_000_000
    beat = Beat(
        pid=7, host="h", version="1", digest="d", time_ns=time_ns.now_ns, mutations=1, breaches=0, last_ns=0, open_ns=0,
        frozen=[], problem="", limits=Limits(),
    )  # fmt: skip
    beat = replace(beat, **change)
    without_age(bench.store, "desk", beat.time_ns, beat)
    browser = bench.browser("vera")
    for path in ("/", "/health"):
        told = browser.get(path).text
        assert f"<b>{word}</b>" in told
        assert f's-{word.lower()}"' in told


def test_pages_say_how_far_they_came(bench: Bench) -> None:
    """Delivered, or tried and with which problem."""
    page = bench.store.alerts()[0].page
    bench.store.page(replace(page, dedup_key="one/x", number=0, title="ONE"), ["desk"])
    bench.store.failed(bench.store.backlog()[0].number, 5, "URLError: refused <by> them")
    told = bench.browser("vera").get("/pages").text
    assert "Not delivered yet, 1 try: URLError: refused &lt;by&gt; them" in told
    bench.store.delivered(bench.store.backlog()[0].number, 7)
    assert "Delivered <time" in bench.browser("vera").get("/pages").text


def test_the_audit_log_is_verified_and_comes_in_parts(bench: Bench) -> None:
    """The head is shown; older acts are a page further; a changed row is said."""
    for number in range(250):
        bench.store.say("test", f"act {number}", 5)
    browser = bench.browser("vera")
    told = browser.get("/audit").text
    assert "The log is whole" in told
    assert bench.store.audit_head().split()[1] in told
    assert "act 249" in told
    assert "act 100<" not in told
    older = re.search(r'href="(/audit\?before=\d+)"', told)
    assert older
    assert "act 100<" in browser.get(older[1]).text
    bench.store.database.write(lambda run: run("UPDATE audit SET detail='no' WHERE number=3"))
    assert "audit row 3 was changed" in browser.get("/audit").text


def test_the_catalogue_is_the_book(bench: Bench) -> None:
    """Every invariant, each with a page of its own."""
    browser = bench.browser("vera")
    listed = re.findall(r'href="/catalogue/([a-z-]+)"', browser.get("/catalogue").text)
    assert listed == list(bench.console.catalogue.invariants)
    told = html.unescape(re.sub(r"</?code>", "`", browser.get("/catalogue/positions-agree").text))
    assert bench.console.catalogue["positions-agree"].entry.implication in told
    assert browser.get("/catalogue/nothing").status_code == 404


def test_what_a_breach_says_is_never_markup(bench: Bench) -> None:
    """Scripts in explanation, scope, key, cause and records come out as text on every page."""
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    breach = Breach(
        number=0, invariant="order-quantity-conserved", scope=f"instrument:{evil}", subsystem=evil, kind="Order",
        key=evil, time_ns=9, mutation=1, cause=evil, explanation=evil, severity="critical", digest=evil, boundary=evil,
        records=[Shown(evil, "Order", evil, {evil: evil})],
    )  # fmt: skip
    entry = bench.console.catalogue["order-quantity-conserved"].entry
    freeze = bench.store.record(breach, [], page_for(breach, entry, 0), [evil])
    bench.store.failed(bench.store.backlog()[0].number, 5, evil)
    bench.store.acknowledge(page_for(breach, entry, 0).dedup_key, evil, 5)
    bench.store.tick(freeze.breach, 1, evil, 5)
    browser = bench.browser("olga")
    for path in ("/", f"/breach/{freeze.breach}", f"/freeze/{freeze.number}", "/pages", "/audit", "/health"):
        told = browser.get(path).text
        assert "<script>alert" not in told, path
        assert "<img" not in told, path
        if path != "/health":
            assert "&lt;script&gt;" in told, path
    again = browser.submit(f"/freeze/{freeze.number}/thaw", reason=evil, evidence="", second_name=evil)
    assert "<script>alert" not in again.text
    assert "<img" not in again.text


def test_a_breach_of_another_catalogue_is_shown_by_its_page(bench: Bench) -> None:
    """An invariant that is not here: the steps as they were paged, and that it was another catalogue."""
    breach = replace(
        bench.store.breaches()[0], invariant="of-elsewhere", scope="account:Z", digest="0" * 64, time_ns=99
    )
    page = replace(bench.store.alerts()[0].page, dedup_key="of-elsewhere/account:Z", steps=["Call Zoe."], time_ns=99)
    freeze = bench.store.record(breach, [], page, [])
    told = bench.browser("olga").get(f"/breach/{freeze.breach}").text
    assert "Call Zoe." in told
    assert "another catalogue" in told


# -- who may do what -------------------------------------------------------------------------------------------------


def test_nobody_who_is_not_logged_in_gets_in_anywhere(bench: Bench) -> None:
    """Every route that the application has: to the login, or 401; and the store is what it was."""
    before = bench.dump()
    browser = bench.browser()
    for method, path in every_route(bench):
        if path.replace("order-quantity-conserved", "{name}") in NOBODY_NEEDED:
            continue
        answer = browser.request(method, path, data={"step": "1", "key": KEY} if method == "POST" else None)
        assert answer.status_code in ((303, 401) if method == "GET" else (401,)), (method, path)
        assert "instrument:IBM" not in answer.text
        if answer.status_code == 303:
            assert answer.headers["location"].startswith("/login")
    assert bench.dump() == before


def test_a_viewer_changes_nothing(bench: Bench) -> None:
    """Every route: what he may see is there, what changes anything is 403, and the store is what it was."""
    browser = bench.browser("vera")
    csrf = browser.csrf()
    Ledger(bench.store).take()  # what is new in the store is taken up by itself: that is nobody's act
    before = bench.dump()
    seen = 0
    for method, path in every_route(bench):
        if path in ("/login", "/logout"):
            continue
        if method == "GET":
            assert browser.get(path).status_code in (200, 404), path
            seen += 1
            continue
        form = {"csrf": csrf, "step": "1", "key": KEY, "reason": "r", "evidence": "e"}
        form |= {"second_name": "amir", "second_password": PASSWORD}
        assert browser.post(path, data=form).status_code == 403, path
    assert seen > 8
    assert bench.dump() == before


def test_the_application_has_no_other_route(bench: Bench) -> None:
    """A page that is added must be looked at here: everything that changes something needs an operator."""
    posts = {path for method, path in every_route(bench) if method == "POST"}
    incidents = {f"/incident/1/{step}" for step in ("acknowledge", "diagnose", "resolve")}
    assert posts == {"/login", "/logout", "/acknowledge", "/breach/1/tick", "/freeze/1/thaw"} | incidents


# -- sessions --------------------------------------------------------------------------------------------------------


def test_a_wrong_password_and_an_unknown_name_are_told_alike(bench: Bench) -> None:
    """The same page but for the name that was typed; both are in the audit log, without the password."""
    answers = []
    for name in ("olga", "nobody"):
        answer = bench.browser().log_in(name, "wrong password here")
        assert answer.status_code == 401
        answers.append(re.sub(r'value="[^"]*"', "", answer.text))
    assert answers[0] == answers[1]
    assert [told.split()[0] for told in bench.acts("login failed")] == ["'olga'", "'nobody'"]
    assert "wrong password" not in str(bench.store.audit())


def test_an_unknown_name_costs_a_hash_as_well(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the time tells nothing: the hasher verifies once either way."""
    asked: list[str] = []

    class Counting:
        def hash(self, told: str) -> str:
            return "of nobody"

        def verify(self, hashed: str, told: str) -> bool:
            asked.append(hashed)
            from argon2.exceptions import VerifyMismatchError

            raise VerifyMismatchError

    monkeypatch.setattr(bench.users, "_hasher", Counting())
    for name in ("olga", "nobody"):
        assert bench.users.check(name, PASSWORD) is None
    assert len(asked) == 2
    assert asked[1] == "of nobody"


def test_a_cookie_is_worth_nothing_after_logout(bench: Bench) -> None:
    """Nor before: the store has only its hash. Nor is a made-up one."""
    browser = bench.browser("olga")
    stolen = browser.cookies["holdover"]
    assert stolen not in str(bench.dump())
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
    plain = Bench(guard.directory, time_ns)
    said = plain.browser().log_in("olga").headers["set-cookie"]
    assert "HttpOnly" in said
    assert "SameSite=strict" in said
    for name in ("vera", "olga", "amir", "anna"):
        plain.users.remove(name, by="test", time_ns=1)
    secure = Bench(guard.directory, time_ns, secure=True)
    answer = secure.browser(scheme="https").log_in("olga")
    assert "__Host-holdover=" in answer.headers["set-cookie"]
    assert "Secure" in answer.headers["set-cookie"]
    assert answer.headers["strict-transport-security"]


@pytest.mark.parametrize("how", ["idle", "day", "password", "removed"])
def test_sessions_end(bench: Bench, time_ns: Any, how: str) -> None:
    """When nobody clicks, after a day of clicking, with another password, with the user."""
    browser = bench.browser("olga")
    if how == "idle":
        time_ns.now_ns += 1_700_000_000_000
        assert browser.get("/").status_code == 200
        time_ns.now_ns += 1_700_000_000_000
        assert browser.get("/", headers={"X-Live": "1"}).status_code == 200
        time_ns.now_ns += 1_700_000_000_000  # the page that reloads itself is no click
    elif how == "day":
        for _ in range(29):
            assert browser.get("/").status_code == 200
            time_ns.now_ns += 1_500_000_000_000
    elif how == "password":
        bench.users.set_password("olga", "another password", by="test", time_ns=5)
    else:
        bench.users.remove("olga", by="test", time_ns=5)
    assert browser.get("/").status_code == 303


def test_a_change_of_role_counts_at_once(bench: Bench) -> None:
    """The role is the store's, not the session's."""
    browser = bench.browser("olga")
    bench.store.database.write(lambda run: run("UPDATE console_user SET role='viewer' WHERE name='olga'"))
    assert browser.submit("/acknowledge", key=KEY).status_code == 403


@pytest.mark.parametrize("token", [None, "", "0" * 64, "é"])
def test_a_forged_form_is_refused(bench: Bench, token: str | None) -> None:
    """Without the session's own token nothing is done; another session's is none."""
    browser = bench.browser("olga")
    other = bench.browser("amir").csrf()
    before = bench.dump()
    for path in ("/acknowledge", f"/breach/{number_of(bench)}/tick", f"/freeze/{freeze_of(bench)}/thaw", "/logout"):
        for told in (token, other):
            form = {"key": KEY, "step": "1", "reason": "r", "evidence": "e"}
            assert browser.post(path, data=form if told is None else {**form, "csrf": told}).status_code == 403
    assert bench.dump() == before
    assert browser.get("/").status_code == 200


def test_a_login_cannot_be_forged_either(bench: Bench) -> None:
    """Its form carries a token that the browser's own cookie must match."""
    browser = bench.browser()
    assert browser.post("/login", data={"name": "olga", "password": PASSWORD}).status_code == 403
    browser.csrf("/login")
    assert browser.post("/login", data={"name": "olga", "password": PASSWORD, "csrf": "x" * 43}).status_code == 403
    assert browser.get("/").status_code == 303


def test_tries_are_counted_by_name_and_by_address(bench: Bench, time_ns: Any) -> None:
    """After ten wrong ones the right one is not taken either, for unknown names alike; later it is."""
    for name in ("olga", "nobody"):
        browser = bench.browser()
        codes = [browser.log_in(name, "wrong password").status_code for _ in range(11)]
        assert codes == [401] * 10 + [429]
    assert bench.browser().log_in("olga").status_code == 429
    assert bench.browser().log_in("vera").status_code == 303
    assert len(bench.acts("login failed")) == 20
    time_ns.now_ns += 301_000_000_000
    assert bench.browser().log_in("olga").status_code == 303
    for one in range(30):
        bench.browser().log_in(f"name{one}", "wrong password")
    assert bench.browser().log_in("vera").status_code == 429


def test_the_throttle_forgets_no_more_than_it_must() -> None:
    """A window that slides; a success clears the name and not the address."""
    throttle = Throttle(name_tries=2, address_tries=3, within_s=10)
    throttle.failed("a", "1", 0)
    throttle.failed("a", "1", 5_000_000_000)
    assert throttle.wait_s("a", "2", 5_000_000_000) == 5
    assert throttle.wait_s("a", "2", 10_100_000_000) == 0
    throttle.passed("a")
    throttle.failed("b", "1", 6_000_000_000)
    assert throttle.wait_s("a", "1", 6_000_000_000) == 4


def test_after_login_the_page_that_was_asked_for(bench: Bench) -> None:
    """The card that a page links to; never another site."""
    browser = bench.browser()
    there = browser.get("/breach/1").headers["location"]
    assert there == "/login?to=%2Fbreach%2F1"
    assert 'value="/breach/1"' in browser.get(there).text
    assert browser.log_in("olga", to="/breach/1").headers["location"] == "/breach/1"
    for wrong in ("https://evil.example", "//evil.example", "/\\evil.example", "/..//evil", "javascript:alert(1)"):
        assert bench.browser().log_in("olga", to=wrong).headers["location"] == "/"


def test_a_link_from_elsewhere_asks_once_more(bench: Bench) -> None:
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
def test_paths_lead_nowhere_else(bench: Bench, path: str) -> None:
    """Up and out, encoded or not, numbers that no row has: not there."""
    assert bench.browser("olga").get(path).status_code == 404


def test_too_much_is_refused_without_reading_it(bench: Bench) -> None:
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
def test_who_calls_from_elsewhere_is_refused(bench: Bench, headers: dict[str, str], status: int) -> None:
    """The wrong name, the wrong origin, what is no form; with a good session and a good token."""
    browser = bench.browser("olga")
    before = bench.dump()
    body = urllib.parse.urlencode({"csrf": browser.csrf(), "key": KEY})
    told = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    assert browser.post("/acknowledge", content=body, headers=told).status_code == status
    assert bench.dump() == before


def test_a_form_without_origin_needs_the_browsers_word(bench: Bench) -> None:
    """Sec-Fetch-Site says same-origin, or it is refused."""
    browser = bench.browser("olga")
    form = {"csrf": browser.csrf(), "key": KEY}
    del browser.headers["Origin"]
    assert browser.post("/acknowledge", data=form).status_code == 403
    assert browser.post("/acknowledge", data=form, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert browser.post("/acknowledge", data=form, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303


def test_every_answer_carries_its_headers(bench: Bench) -> None:
    """Also refusals; and no page has script or style of its own in it."""
    browser = bench.browser("olga")
    for _, path in [route for route in every_route(bench) if route[0] == "GET"]:
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


def test_a_store_that_is_lost_is_said_in_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, no traceback, and not that nothing is frozen."""
    browser = bench.browser("olga")

    def lost(statement: str, *values: object) -> Any:
        raise StoreProblem("guard.db: the freeze store cannot be used: disk I/O error")

    monkeypatch.setattr(bench.store.database, "read", lost)
    for path in ("/", "/breach/1", "/audit", "/health"):
        answer = browser.get(path)
        assert answer.status_code == 503
        assert "Assume that everything is" in answer.text
        assert "Traceback" not in answer.text
    assert bench.browser().get("/healthz").text == "ok\n"


def test_the_stream_tells_how_it_stands(bench: Bench) -> None:
    """The first event carries the version that the page was made with."""
    browser = bench.browser("vera")
    version = re.search(r'data-version="(\w+)"', browser.get("/").text)
    assert version
    told = browser.get("/live")
    assert told.headers["content-type"].startswith("text/event-stream")
    assert f'"version": "{version[1]}"' in told.text


def test_streams_are_counted(bench: Bench) -> None:
    """Nobody takes them all: eight of one user, then he has to wait and the others have not."""

    async def fill() -> None:
        async def there() -> bool:
            return True

        live = Live(bench.console.picture, 60.0)
        streams = [live.events("vera", there) for _ in range(8)]
        assert not live.is_full("vera")
        for stream in streams:
            assert "event: now" in await anext(stream)
        assert live.is_full("vera")
        assert not live.is_full("olga")
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]
        assert not live.is_full("vera")

    asyncio.run(fill())


def test_news_are_sentences(bench: Bench, guard: Guard) -> None:
    """What a screen reader says: frozen, thawed, acknowledged."""
    before = bench.console.picture()
    bench.store.freeze("account:A", [], "olga", "x", 5)
    bench.store.acknowledge(KEY, "olga", 5)
    middle = bench.console.picture()
    assert news(before, middle) == f"Frozen: account:A by hand: olga. {KEY} is acknowledged by olga."
    bench.store.thaw("account:A", "olga", "r", "e", "", 6)
    assert news(middle, bench.console.picture()) == "Thawed: account:A by hand: olga."
    assert before.version != middle.version


TEXT = st.text(max_size=40) | st.sampled_from(
    ["1", "0", "-1", "9" * 30, KEY, "<script>", "olga", PASSWORD, "\x00", "٣"]
)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_breaks_it(data: st.DataObject, bench: Bench, console_browsers: list[Browser]) -> None:
    """Any method, path, form, cookie and header over all routes: never a 5xx, and the audit log stays whole."""
    browser = data.draw(st.sampled_from(console_browsers))
    known = [path for _, path in every_route(bench)]
    path = data.draw(st.sampled_from(known) | TEXT.map(lambda said: "/" + urllib.parse.quote(said, safe="/%?")))
    if data.draw(st.booleans()):
        path = re.sub(r"\d+", lambda _: str(data.draw(st.integers(-1, 2**70))), path)
    query = urllib.parse.urlencode(
        data.draw(st.dictionaries(st.sampled_from(["before", "said", "to"]), TEXT, max_size=2)), errors="replace"
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
            st.binary(max_size=30).filter(lambda said: b"\r" not in said and b"\n" not in said),
            max_size=2,
        )
    )
    headers.setdefault("Content-Type", b"application/x-www-form-urlencoded")
    method = data.draw(st.sampled_from(["GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"]))
    answer = browser.request(method, f"{path}?{query}", content=body, headers=headers)
    assert answer.status_code < 500, (method, path, answer.status_code)
    assert bench.store.verify_audit() == ""


@pytest.fixture
def console_browsers(bench: Bench) -> list[Browser]:
    """One that is not logged in, and one of each role, with the token of its forms."""
    found = [bench.browser(name) for name in ("", "vera", "olga", "amir")]
    for browser in found:
        browser.token = browser.csrf("/login" if browser is found[0] else "/")
    return found


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
    word = ["--password-file", str(secret_file)]
    assert main(["users", "add", "zoe", "--role", "operator", *place, *word]) == 0
    assert main(["users", "add", "zoe", "--role", "operator", *place, *word]) == 2
    assert main(["users", "add", "zed", "--role", "king", *place, *word]) == 2
    assert main(["users", "add", "<b>", "--role", "viewer", *place, *word]) == 2
    assert main(["users", "list", *place]) == 0
    assert "zoe                      operator" in capsys.readouterr().out
    bench = Bench(tmp_path / "guard", time_ns)
    assert bench.acts("user")[0].startswith("zoe added as operator by")
    assert main(["users", "password", "zoe", *place, *word]) == 0
    assert main(["users", "remove", "zoe", *place]) == 0
    assert main(["users", "remove", "zoe", *place]) == 2
    assert "no user is called 'zoe'" in capsys.readouterr().err
    assert PASSWORD.encode() not in (tmp_path / "guard" / "guard.db").read_bytes()
    secret_file.chmod(0o644)
    assert main(["users", "add", "yan", "--role", "viewer", *place, *word]) == 2
    assert "should be 0600" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # not as short for --password-file either: it would be in the process list
        main(["users", "add", "yan", "--role", "viewer", "--password", "x", *place])


def test_a_short_password_is_none(bench: Bench) -> None:
    """Twelve characters at least; the message does not hold it."""
    with pytest.raises(BadUser, match="this one has 7"):
        bench.users.add("zoe", "viewer", "shorter", by="test", time_ns=1)
    assert bench.users.find("zoe") is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.com"])
def test_it_listens_nowhere_else_without_tls(host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only with the files, or with the explicit word."""
    assert main(["serve", "--config", str(tmp_path / "guard"), "--host", host]) == 2
    assert "without TLS the console listens at loopback only" in capsys.readouterr().err
    with pytest.raises(BadAddress):
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
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", *place, "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot listen at 127.0.0.1" in capsys.readouterr().err
    path = tmp_path / "desk.toml"
    path.write_text('[guard]\ndirectory = "g"\n[console]\nport = 99999\nidle_s = 0\n')
    assert main(["serve", "--config", str(path)]) == 2
    assert "[console] port should be 1 to 65535" in capsys.readouterr().err


def test_a_request_that_does_not_come_is_not_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a head, one byte now and then, the second one on a connection: closed, while others are answered."""
    monkeypatch.setattr(Prompt, "head_within_s", 0.3)
    made = server(bench.console)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        running = threading.Thread(target=made.run, kwargs={"sockets": [bound]})
        running.start()
        whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for first in (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", whole + b"GET / HTTP/1.1\r\nX-Y: "):
            with socket.create_connection(bound.getsockname(), timeout=20) as slow:
                slow.sendall(first)
                with socket.create_connection(bound.getsockname(), timeout=20) as quick:
                    quick.sendall(whole)
                    assert quick.recv(4096).startswith(b"HTTP/1.1 200")
                got = b""
                while said := slow.recv(4096):
                    got += said
                assert got.startswith(b"HTTP/1.1 200") == first.startswith(whole)
        with socket.create_connection(bound.getsockname(), timeout=20) as huge:
            huge.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000)
            assert huge.recv(4096).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
        made.should_exit = True
        running.join(20)
    assert not running.is_alive()


def test_durations_are_words() -> None:
    """One unit, rounded down."""
    assert [lasted(s) for s in (0, 1, 61, 7200, 100000)] == ["0 seconds", "1 second", "1 minute", "2 hours", "1 day"]
