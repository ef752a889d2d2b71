"""The limits of the console: attempts on passwords, the quality of passwords, connections, key files."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.cli import main
from holdover.console import UserError
from holdover.console.connections import ConnectionTable
from holdover.console.gate import LoginGate, LoginGateFullError
from holdover.console.password import PASSWORD_MAX, PasswordQualityError, check_quality
from holdover.console.server import ListenAddressError, make_server
from holdover.console.throttle import SLOW_S, LoginThrottle
from holdover.runtime import FreezeStore

from .console_bench import PASSWORD, ConsoleBench

SECOND = 1_000_000_000


@pytest.fixture
def store() -> FreezeStore:
    """A store in memory."""
    return FreezeStore.in_memory()


@pytest.fixture
def bench(tmp_path: Path, time_ns: Any) -> ConsoleBench:
    """A console over an empty store."""
    return ConsoleBench(tmp_path / "guard", time_ns)


def admit(throttle: LoginThrottle, name: str, address: str, now_ns: int, token: str = "") -> int:
    """Ask for one attempt."""
    return throttle.admit(name, throttle.find_origin(name, address, token, now_ns), now_ns)


# -- attempts ------------------------------------------------------------------------------------------------------


def test_parallel_attempts_are_admitted_exactly_up_to_the_limit(tmp_path: Path) -> None:
    """Eighty at the same time, at two consoles of one store: ten are tried."""
    stores = [FreezeStore(tmp_path / "guard.db") for _ in range(2)]
    throttles = [LoginThrottle(store) for store in stores]
    barrier = threading.Barrier(16)

    def attempt(number: int) -> int:
        barrier.wait()
        return sum(not admit(throttles[number % 2], "olga", "10.0.0.1", SECOND) for _ in range(5))

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(attempt, range(16))) == 10


def test_attempts_from_elsewhere_lock_nobody_out(store: FreezeStore) -> None:
    """Ten wrong passwords from one address close the name for this address; a known device is not asked."""
    throttle = LoginThrottle(store)
    token = throttle.remember_device("olga", "10.0.0.1", "", SECOND)
    assert [bool(admit(throttle, "olga", "10.0.0.9", SECOND)) for _ in range(12)] == [False] * 10 + [True] * 2
    assert not admit(throttle, "olga", "10.0.0.1", SECOND)
    assert not admit(throttle, "olga", "10.0.0.9", SECOND, token)


def test_a_device_is_one_users_and_its_token_changes(store: FreezeStore) -> None:
    """A token counts for the user who logged in with it, and only until the next login."""
    throttle = LoginThrottle(store)
    first = throttle.remember_device("olga", "10.0.0.1", "", SECOND)
    assert throttle.find_origin("olga", "10.0.0.9", first, SECOND).is_device
    assert not throttle.find_origin("vera", "10.0.0.9", first, SECOND).is_device
    second = throttle.remember_device("vera", "10.0.0.1", first, SECOND)
    assert not throttle.find_origin("olga", "10.0.0.9", first, SECOND).is_device
    assert throttle.find_origin("olga", "10.0.0.9", second, SECOND).is_device
    assert throttle.find_origin("vera", "10.0.0.9", second, SECOND).is_device
    year_ns = 366 * 24 * 3600 * SECOND
    assert not throttle.find_origin("vera", "10.0.0.9", second, year_ns).is_known
    assert second not in str(store.database.read("SELECT * FROM console_device"))


def test_everybody_behind_one_address_is_slowed_and_not_stopped(store: FreezeStore) -> None:
    """After thirty wrong passwords one attempt passes every few seconds, for any name."""
    throttle = LoginThrottle(store)
    for number in range(30):
        assert not admit(throttle, f"name{number}", "10.0.0.1", SECOND)
    assert admit(throttle, "vera", "10.0.0.1", SECOND) == SLOW_S
    later_ns = SECOND + round(SLOW_S * SECOND)
    assert not admit(throttle, "vera", "10.0.0.1", later_ns)
    assert admit(throttle, "vera", "10.0.0.1", later_ns + SECOND) == SLOW_S - 1
    assert not admit(throttle, "vera", "10.0.0.2", SECOND)


def test_a_name_guessed_from_everywhere_is_slowed_for_strangers_only(store: FreezeStore) -> None:
    """Fifty addresses within the hour: strangers wait, the address and the device that logged in before do not."""
    throttle = LoginThrottle(store)
    token = throttle.remember_device("olga", "10.0.0.1", "", SECOND)
    for number in range(50):
        assert not admit(throttle, "olga", f"10.1.0.{number}", SECOND)
    assert admit(throttle, "olga", "10.2.0.1", SECOND) == SLOW_S
    assert not admit(throttle, "olga", "10.2.0.1", SECOND + round(SLOW_S * SECOND))
    assert not admit(throttle, "olga", "10.0.0.1", SECOND)
    assert not admit(throttle, "olga", "10.2.0.1", SECOND, token)


def test_an_ipv6_host_has_one_network(store: FreezeStore) -> None:
    """Another address of the same 64 bits is the same origin; the same address in IPv4 form is too."""
    throttle = LoginThrottle(store)
    keys = [throttle.find_origin("a", text, "", 1).key for text in ("2001:db8::1", "2001:db8::ffff:2", "2001:db9::1")]
    assert keys[0] == keys[1] != keys[2]
    assert throttle.find_origin("a", "::ffff:10.0.0.1", "", 1) == throttle.find_origin("a", "10.0.0.1", "", 1)


def test_a_success_forgets_its_own_attempts_only(store: FreezeStore) -> None:
    """Who knows a password of his own cannot clear the count of the address."""
    throttle = LoginThrottle(store, address_tries=3)
    origin = throttle.find_origin("vera", "10.0.0.1", "", SECOND)
    admit(throttle, "olga", "10.0.0.1", SECOND)
    admit(throttle, "olga", "10.0.0.1", SECOND)
    assert not throttle.admit("vera", origin, SECOND)
    throttle.record_success("vera", origin)
    assert not throttle.admit("vera", origin, SECOND)
    assert throttle.admit("vera", origin, SECOND)


@given(st.lists(st.integers(-7200, 7200), min_size=1, max_size=30))
def test_no_clock_prolongs_a_wait(steps: list[int]) -> None:
    """However the clock is set: who is refused is accepted within the window, counted from now."""
    throttle = LoginThrottle(FreezeStore.in_memory(), pair_tries=3)
    now_ns = 10_000_000 * SECOND
    for step in steps:
        now_ns += step * SECOND
        wait_s = admit(throttle, "olga", "10.0.0.1", now_ns)
        assert 0 <= wait_s <= 300
        origin = throttle.find_origin("olga", "10.0.0.1", "", now_ns)
        assert throttle.recent_refusal_s("olga", origin, now_ns) <= wait_s
        if wait_s:
            assert not LoginThrottle.recent_refusal_s(throttle, "olga", origin, now_ns + wait_s * SECOND)


def test_a_flood_of_refused_attempts_takes_no_look_at_the_store(
    bench: ConsoleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first refusal nothing is written, hashed or logged."""
    browser = bench.browser()
    for _ in range(11):
        browser.log_in("olga", "wrong password")
    before = bench.read_tables()
    monkeypatch.setattr(bench.users, "check_password", lambda *arguments: pytest.fail("a password was hashed"))
    monkeypatch.setattr(bench.store.database, "write", lambda *arguments, **options: pytest.fail("written"))
    assert [browser.log_in("olga", "wrong password").status_code for _ in range(20)] == [429] * 20
    assert bench.read_tables() == before


def test_a_known_browser_logs_in_while_its_name_is_attacked(bench: ConsoleBench) -> None:
    """From the same address, which is that of a proxy; the cookie is locked down like the session's."""
    browser = bench.browser()
    answer = browser.log_in("olga")
    cookies = [text for text in answer.headers.get_list("set-cookie") if text.startswith("holdover-device=")]
    assert "HttpOnly" in cookies[0]
    assert "SameSite=strict" in cookies[0]
    assert browser.submit("/logout").status_code == 303
    stranger = bench.browser()
    codes = [stranger.log_in("olga", "wrong password").status_code for _ in range(12)]
    assert codes[-1] == 429
    assert browser.log_in("olga").status_code == 303


def test_a_device_is_let_in_by_its_link(
    bench: ConsoleBench, capsys: pytest.CaptureFixture[str], tmp_path: Path, time_ns: Any
) -> None:
    """A new browser opens the link that the command line prints; another cookie is not replaced by a link."""
    time_ns.now_ns = time.time_ns()
    stranger = bench.browser()
    for _ in range(11):
        stranger.log_in("olga", "wrong password")
    place = ["--config", str(tmp_path / "guard")]
    assert main(["users", "device", "nobody", *place]) == 2
    assert "no user is called 'nobody'" in capsys.readouterr().err
    assert main(["users", "device", "olga", *place]) == 0
    token = re.search(r"/login\?device=(\S+)", capsys.readouterr().out)[1]  # type: ignore[index]
    assert "olga" in bench.audit_details("device")[0]
    browser = bench.browser()
    browser.get(f"/login?device={token}")
    assert browser.log_in("olga").status_code == 303
    device = browser.cookies["holdover-device"]
    browser.get(f"/login?device={'x' * 43}")
    assert browser.cookies["holdover-device"] == device


def test_an_approver_is_not_locked_out_by_an_operators_form(bench: ConsoleBench) -> None:
    """Wrong passwords of an approver on one operator's form close this form, not the approver's login."""
    from holdover.console.login import check_password
    from holdover.console.throttle import operator_origin

    console = bench.console
    origin = operator_origin("olga")
    codes = [check_password(console, "amir", "wrong", "10.0.0.1", "approval", origin)[2] for _ in range(11)]
    assert codes == [401] * 10 + [429]
    assert check_password(console, "amir", PASSWORD, "10.0.0.1", "approval", operator_origin("vera"))[2] == 200
    assert check_password(console, "amir", PASSWORD, "10.0.0.1", "login")[2] == 200


def test_hashing_is_bounded_and_known_devices_have_a_lane() -> None:
    """The lane of strangers is full: the next one is refused, a known device is not."""
    gate = LoginGate(waiting_max=4)
    release = threading.Event()

    async def fill() -> None:
        waiting = [asyncio.create_task(gate.run(False, release.wait, 60)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(LoginGateFullError):
            await gate.run(False, release.wait, 60)
        assert await gate.run(True, lambda: "answered") == "answered"
        release.set()
        assert await asyncio.gather(*waiting) == [True] * 4
        assert await gate.run(False, lambda: "answered") == "answered"

    asyncio.run(fill())


# -- passwords -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    [
        "aaaaaaaaaaaa",
        "abcabcabcabc",
        "123456789012",
        "password1234",
        "Password123!",
        "qwertyuiop12",
        "P@ssw0rd2024",
        "Summer2024!!",
        "holdover-console",
        "1q2w3e4r5t6y",
        "iloveyou2025",
    ],
)
def test_a_password_that_is_guessed_quickly_is_refused(password: str) -> None:
    """The message says what would be right and does not contain the password."""
    with pytest.raises(PasswordQualityError, match=r"too easy to guess.*five unrelated words") as error:
        check_quality("zoe", password)
    assert password not in str(error.value)


@pytest.mark.parametrize("password", ["zoe.miller-9f!x7Q", "XZOEqpv8s7tmw2", "relliMq8s7tmw2bv"])
def test_the_users_name_is_no_part_of_a_password(password: str) -> None:
    """In any case, in parts and backwards."""
    with pytest.raises(PasswordQualityError, match="contains the user's name"):
        check_quality("zoe.miller@example", password)


@pytest.mark.parametrize(
    "password", ["correct horse battery", "k7#Qw9$zLm2!", "пять сонных бобров", "x9" * 3 + "quartz ledger moth"]
)
def test_a_good_password_is_taken(password: str) -> None:
    """Words or signs, in any script, as long as one likes."""
    check_quality("zoe", password)


@settings(max_examples=20, deadline=None)
@given(st.text(min_size=PASSWORD_MAX - 5, max_size=PASSWORD_MAX + 5, alphabet="ab7$é "))
def test_a_long_password_costs_no_more(password: str) -> None:
    """What is too long is refused; nothing else goes wrong with long ones."""
    with pytest.raises(PasswordQualityError, match="this one has" if len(password) > PASSWORD_MAX else "too easy"):
        check_quality("zoe", password if len(password) > PASSWORD_MAX else "ab" * (len(password) // 2))


def test_a_weak_password_adds_no_user(bench: ConsoleBench) -> None:
    """Too short or too weak: the store is as before, and the message does not hold the password."""
    for password, words in (("shorter", "this one has 7"), ("aaaaaaaaaaaa", "too easy")):
        with pytest.raises(UserError, match=words):
            bench.users.add_user("zoe", "viewer", password, by="test", time_ns=1)
    assert bench.users.find("zoe") is None
    with pytest.raises(UserError, match="too easy"):
        bench.users.set_password("olga", "aaaaaaaaaaaa", by="test", time_ns=1)


# -- connections and files -----------------------------------------------------------------------------------------


class FakeConnection:
    """A socket that records that it was shut down."""

    is_open = True

    def shutdown(self, how: int) -> None:
        """Record it."""
        self.is_open = False


def add(table: ConnectionTable, address: str, port: int) -> FakeConnection:
    """Add a connection that is accepted."""
    connection = FakeConnection()
    assert table.add((address, port), connection)  # type: ignore[arg-type]
    return connection


def test_the_oldest_pending_connection_of_the_address_gives_way() -> None:
    """An active one does not, and none of another address does."""
    table = ConnectionTable(pending_max=10, per_address_max=3)
    other = add(table, "10.0.0.2", 1)
    first, *rest = (add(table, "10.0.0.1", port) for port in range(3))
    table.mark_active(("10.0.0.1", 0))
    add(table, "10.0.0.1", 3)
    add(table, "10.0.0.1", 4)
    assert first.is_open
    assert other.is_open
    assert [connection.is_open for connection in rest] == [False, True]
    assert table.counts == (4, 1)
    table.mark_pending(("10.0.0.1", 0))
    for port in range(10):
        table.remove(("10.0.0.1", port))
    table.remove(("10.0.0.2", 1))
    assert table.counts == (0, 0)


def test_in_all_the_address_with_most_gives_way() -> None:
    """Many addresses of one attacker do not push out a single one of somebody else."""
    table = ConnectionTable(pending_max=6, per_address_max=5)
    single = add(table, "10.0.0.2", 1)
    many = [add(table, "10.0.0.1", port) for port in range(5)]
    add(table, "10.0.0.3", 1)
    assert single.is_open
    assert [connection.is_open for connection in many] == [False] + [True] * 4


def test_a_connection_has_a_moment_before_it_gives_way() -> None:
    """A new one waits until the oldest of its address has had its time, and never longer."""
    now_s = 100.0
    table = ConnectionTable(pending_max=9, per_address_max=2, grace_s=0.5, clock=lambda: now_s)
    add(table, "10.0.0.1", 1)
    assert table.wait_s("10.0.0.1") == 0
    now_s += 0.25
    add(table, "10.0.0.1", 2)
    assert table.wait_s("10.0.0.1") == 0.25
    assert table.wait_s("10.0.0.2") == 0
    now_s += 0.5
    assert table.wait_s("10.0.0.1") == 0
    add(table, "10.0.0.1", 3)
    assert ("10.0.0.1", 1) not in table
    assert ("10.0.0.1", 2) in table


@given(
    st.lists(st.tuples(st.sampled_from(["add", "active", "pending", "remove"]), st.integers(0, 3), st.integers(0, 9)))
)
def test_counts_are_bounded_whatever_happens(actions: list[tuple[str, int, int]]) -> None:
    """After any history: no limit is passed, and nothing is counted that is not there."""
    table = ConnectionTable(pending_max=6, per_address_max=3, active_max=4)
    present: set[tuple[str, int]] = set()
    for action, host, port in actions:
        key = (f"10.0.0.{host}", port)
        if action == "add" and key not in present:
            if table.add(key, FakeConnection()):  # type: ignore[arg-type]
                present.add(key)
        elif action == "active":
            table.mark_active(key)
        elif action == "pending":
            table.mark_pending(key)
        else:
            table.remove(key)
            present.discard(key)
        pending, active = table.counts
        assert pending + active <= len(present)
        assert pending <= 6
        assert active <= 4 + 6  # a request that was accepted is answered
    for key in present:
        table.remove(key)
    assert table.counts == (0, 0)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604])
def test_a_key_that_others_may_read_is_refused(bench: ConsoleBench, tmp_path: Path, mode: int) -> None:
    """With the mode that it has and the command that mends it; a key of 0600 is taken."""
    trustme = pytest.importorskip("trustme")
    path = tmp_path / "both.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    path.chmod(mode)
    with pytest.raises(ListenAddressError, match=f"its mode is {mode:04o}; it should be 0600: chmod 600"):
        make_server(bench.console, path, path)
    path.chmod(0o600)
    assert make_server(bench.console, path, path).config.ssl is not None


def test_a_listening_socket_is_needed_for_nothing_else(bench: ConsoleBench) -> None:
    """A server that is told to end before it begins does so."""
    server = make_server(bench.console)
    server.should_exit = True
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server.run(sockets=[bound])
        assert server.table.counts == (0, 0)
