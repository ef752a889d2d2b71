"""`holdover serve` over TLS with its store on a PostgreSQL server: as a browser elsewhere meets it."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from holdover.console import ConsoleUsers
from holdover.runtime import Guard

from ..servers import PostgresServer, free_port
from ..unit.console_bench import FAST_HASHER, PASSWORD
from ..unit.orders import BAD, GOOD

trustme = pytest.importorskip("trustme")

CONFIG = """
[guard]
directory = "guard"
name = "desk"
[store]
url_file = "store.url"
schema = "{schema}"
[pages]
log = false
"""


@pytest.fixture
def console(tmp_path: Path, postgres: PostgresServer, schema: str) -> Iterator[tuple[str, ssl.SSLContext, Guard]]:
    """A console that serves, whom to trust, and the guard whose store it shares."""
    (tmp_path / "store.url").touch(0o600)
    (tmp_path / "store.url").write_text(postgres.url)
    path = tmp_path / "desk.toml"
    path.write_text(CONFIG.format(schema=schema))
    guard = Guard.open(path)
    ConsoleUsers(guard.store, FAST_HASHER).add_user("olga", "operator", PASSWORD, by="test", time_ns=time.time_ns())
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    (tmp_path / "both.pem").chmod(0o600)
    port = free_port()
    command = [sys.executable, "-m", "holdover", "serve", "--config", str(path), "--port", str(port)]
    tls = ["--tls-cert", str(tmp_path / "both.pem"), "--tls-key", str(tmp_path / "both.pem")]
    process = subprocess.Popen([*command, *tls], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert f":{port}" in process.stdout.readline()
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        yield f"https://localhost:{port}", trust, guard
    finally:
        process.kill()
        process.wait()
        guard.close()


def test_from_login_to_acknowledged_over_tls(console: tuple[str, ssl.SSLContext, Guard]) -> None:
    """A stranger's certificate is refused, the cookie is for TLS only, and what is done is in the shared store."""
    url, trust, guard = console
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/login", timeout=10)
    with httpx.Client(base_url=url, verify=trust, headers={"Origin": url}, timeout=20) as browser:
        door = browser.get("/login")
        assert "max-age" in door.headers["strict-transport-security"]

        def token(text: str) -> str:
            match = re.search(r'name="csrf" value="([^"]*)"', text)
            assert match
            return match[1]

        entered = browser.post("/login", data={"csrf": token(door.text), "name": "olga", "password": PASSWORD})
        assert entered.status_code == 303
        cookie = entered.headers["set-cookie"]
        assert "Secure" in cookie
        assert "HttpOnly" in cookie
        with guard.step("report"):
            guard.record("orders", GOOD)
            guard.record("orders", BAD)
        shown = browser.get("/")
        assert "FROZEN" in shown.text
        assert "order-quantity-conserved" in shown.text
        page = guard.store.all_pages()[0]
        answer = browser.post("/acknowledge", data={"csrf": token(shown.text), "key": page.dedup_key})
        assert answer.status_code == 303, answer.text
        assert any(action == "acknowledge" for _, _, action, _ in guard.store.audit_rows())
