"""The console under attack: a real server on loopback, slow connections, parallel logins, an operator at work."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from holdover.console.connections import PENDING_PER_ADDRESS_MAX
from holdover.console.server import ConsoleServer, DeadlineProtocol, make_server

from ..unit.console_bench import PASSWORD, ConsoleBench

SLOW_CONNECTIONS = 500
PARALLEL_LOGINS = 1000
LOGIN_TRIES = 10
PATIENCE_S = 60.0
FORM_TOKEN = "t" * 43


@contextlib.contextmanager
def serve(bench: ConsoleBench, *tls: Path) -> Iterator[tuple[str, int, ConsoleServer]]:
    """A running server, with its address."""
    server = make_server(bench.console, *tls)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield (*address, server)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@pytest.fixture
def bench(tmp_path: Path, time_ns: Any) -> ConsoleBench:
    """A console over an empty store."""
    return ConsoleBench(tmp_path / "guard", time_ns)


def log_in(browser: httpx.Client, name: str = "olga", password: str = PASSWORD) -> int:
    """Fill in the login form. Returns the status."""
    page = browser.get("/login")
    match = re.search(r'name="csrf" value="([^"]*)"', page.text)
    assert match, page.status_code
    return browser.post("/login", data={"csrf": match[1], "name": name, "password": password}).status_code


def open_browser(port: int, scheme: str = "http", **options: Any) -> httpx.Client:
    """A client on a connection of its own."""
    url = f"{scheme}://localhost:{port}"
    return httpx.Client(base_url=url, headers={"Origin": url}, timeout=PATIENCE_S, **options)


BEGINNINGS = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "half a body": b"POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 5000\r\n\r\nname=",
    "a whole request": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_slow_connections_do_not_close_the_console(
    bench: ConsoleBench, monkeypatch: pytest.MonkeyPatch, beginning: str
) -> None:
    """Five hundred clients that send a part and wait, from the operator's own address: login and pages work."""
    monkeypatch.setattr(DeadlineProtocol, "head_timeout_s", 3600.0)  # what helps is not that they time out
    with serve(bench) as (host, port, server), contextlib.ExitStack() as stack:
        for _ in range(SLOW_CONNECTIONS):
            slow = stack.enter_context(socket.create_connection((host, port), timeout=PATIENCE_S))
            with contextlib.suppress(ConnectionError):
                slow.sendall(BEGINNINGS[beginning])
        with open_browser(port) as browser:
            assert log_in(browser) == 303
            assert "Nothing is frozen" in browser.get("/").text
        pending, active = server.table.counts
        assert pending <= PENDING_PER_ADDRESS_MAX
        assert active <= 2


def test_clients_that_begin_no_handshake_do_not_close_the_console(tmp_path: Path, time_ns: Any) -> None:
    """The same under TLS: a connection that never says anything is not waited for."""
    trustme = pytest.importorskip("trustme")
    bench = ConsoleBench(tmp_path / "guard", time_ns, secure=True)
    authority = trustme.CA()
    path = tmp_path / "both.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    path.chmod(0o600)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with serve(bench, path, path) as (host, port, server), contextlib.ExitStack() as stack:
        for number in range(SLOW_CONNECTIONS):
            slow = stack.enter_context(socket.create_connection((host, port), timeout=PATIENCE_S))
            with contextlib.suppress(ConnectionError):
                slow.sendall(b"\x16\x03" if number % 2 else b"")
        with open_browser(port, "https", verify=trust) as browser:
            assert log_in(browser) == 303
            assert browser.get("/").status_code == 200
        assert server.table.counts[0] <= PENDING_PER_ADDRESS_MAX


async def post_login(host: str, port: int, name: str, password: str) -> int:
    """One login on a connection of its own. Returns the status; 0 when the connection was closed."""
    form = urllib.parse.urlencode({"csrf": FORM_TOKEN, "name": name, "password": password}).encode()
    head = (
        f"POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nConnection: close\r\n"
        f"Cookie: holdover-form={FORM_TOKEN}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(form)}\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(head.encode() + form)
        answer = await reader.read()
        writer.close()
    except ConnectionError:
        return 0
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


async def post_logins(host: str, port: int, names: list[str]) -> Counter[int]:
    """All logins at the same time. Returns how often each status came."""
    posts = [post_login(host, port, name, f"wrong password {number}") for number, name in enumerate(names)]
    return Counter(await asyncio.wait_for(asyncio.gather(*posts), PATIENCE_S))


def test_of_a_thousand_parallel_logins_exactly_the_limit_is_tried(bench: ConsoleBench) -> None:
    """Ten are tried. The operator's pages are answered meanwhile, and his browser logs in again at once."""
    tried: list[str] = []
    check = bench.users.check_password

    def count_and_check(name: str, password: str) -> Any:
        tried.append(password)
        return check(name, password)

    with serve(bench) as (host, port, _), open_browser(port) as browser:
        assert log_in(browser) == 303
        bench.users.check_password = count_and_check  # type: ignore[method-assign]
        statuses: list[Counter[int]] = []
        attack = threading.Thread(
            target=lambda: statuses.append(asyncio.run(post_logins(host, port, ["olga"] * PARALLEL_LOGINS)))
        )
        attack.start()
        while attack.is_alive():
            assert browser.get("/").status_code == 200
        attack.join()
        assert len(tried) == LOGIN_TRIES, statuses
        assert statuses[0][401] == LOGIN_TRIES
        assert statuses[0][303] == 0
        assert len(bench.audit_details("login failed")) == LOGIN_TRIES
        assert log_in(browser) == 303


def test_a_flood_over_all_names_leaves_a_lane_for_known_browsers(bench: ConsoleBench) -> None:
    """Every attempt has another name: what is hashed at once is bounded, and a known browser logs in meanwhile."""
    hashing, most = 0, 0
    lock = threading.Lock()
    check = bench.users.check_password

    def count_and_check(name: str, password: str) -> Any:
        nonlocal hashing, most
        with lock:
            hashing += 1
            most = max(most, hashing)
        try:
            return check(name, password)
        finally:
            with lock:
                hashing -= 1

    bench.users.check_password = count_and_check  # type: ignore[method-assign]
    names = [f"name{number}" for number in range(PARALLEL_LOGINS)]
    with serve(bench) as (host, port, _), open_browser(port) as browser:
        assert log_in(browser) == 303
        statuses: list[Counter[int]] = []
        attack = threading.Thread(target=lambda: statuses.append(asyncio.run(post_logins(host, port, names))))
        attack.start()
        assert log_in(browser) == 303
        attack.join()
    assert statuses[0][401] == 30, statuses  # as many as one address may try, the operator's own login not counted
    assert 1 <= most <= 3
