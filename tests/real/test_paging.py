"""A page reaches a real HTTP receiver through Apprise, however often the receiver fails first."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from holdover.runtime import AppriseChannel, Guard

from ..unit.test_guard import BAD


class Receiver(BaseHTTPRequestHandler):
    """Refuses the first three, then takes what comes."""

    failures = 3
    got: list[dict[str, Any]]

    def do_POST(self) -> None:
        """One page."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.tries += 1
        if server.tries <= self.failures:
            self.send_response(503)
        else:
            server.got.append(body)
            self.send_response(200)
        self.end_headers()

    def log_message(self, *told: object) -> None:
        """Nothing."""


def test_a_page_is_delivered_at_last(make_guard: Callable[..., Guard], time_ns: Any) -> None:
    """Three refusals, then delivered once a page, with the dedup key and the operator's steps in it."""
    server: Any = HTTPServer(("127.0.0.1", 0), Receiver)
    server.tries, server.got = 0, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    guard = make_guard(channels=[AppriseChannel(f"json://127.0.0.1:{server.server_port}/")])
    guard.record("orders", BAD)
    delivered = 0
    for _ in range(12):
        delivered += guard.pager.deliver_due()
        time_ns.now_ns += 3_000_000_000
    server.shutdown()
    assert server.tries > 3
    assert delivered == len(server.got) == 2
    messages = [body["message"] for body in server.got]
    assert any("order-quantity-conserved/instrument:IBM" in message for message in messages)
    assert all("1. " in message for message in messages)


def test_a_url_that_is_none_is_refused_without_its_secrets() -> None:
    """The message names the scheme and nothing else of the URL."""
    with pytest.raises(ValueError, match=r"the paging URL nonsense:\.\.\.") as told:
        AppriseChannel("nonsense://secret-token@host")
    assert "secret-token" not in str(told.value)
