"""A page reaches a real HTTP receiver through Apprise, however often the receiver fails first."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from holdover.runtime import AppriseChannel, EscalationLevel, FileChannel, Guard, PagerDutyChannel, WebhookChannel

from ..unit.orders import BAD


class WebhookReceiver(BaseHTTPRequestHandler):
    """Refuses the first three, then takes what comes."""

    failures = 3
    alerts: list[dict[str, Any]]

    def do_POST(self) -> None:
        """One page."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.tries += 1
        if server.tries <= self.failures:
            self.send_response(503)
        else:
            server.alerts.append(body)
            self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing."""


def test_a_page_is_delivered_at_last(make_guard: Callable[..., Guard], time_ns: Any) -> None:
    """Three refusals, then delivered once a page, with the dedup key and the operator's steps in it."""
    server: Any = HTTPServer(("127.0.0.1", 0), WebhookReceiver)
    server.tries, server.alerts = 0, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    guard = make_guard(channels=[AppriseChannel(f"json://127.0.0.1:{server.server_port}/")])
    guard.record("orders", BAD)
    delivered = 0
    for _ in range(12):
        delivered += guard.pager.deliver_due()
        time_ns.now_ns += 3_000_000_000
    server.shutdown()
    assert server.tries > 3
    assert delivered == len(server.alerts) == len(guard.store.all_pages())
    messages = [body["message"] for body in server.alerts]
    assert any("order-quantity-conserved/instrument:IBM" in message for message in messages)
    assert all("1. " in message for message in messages)


def test_a_url_that_is_none_is_refused_without_its_secrets() -> None:
    """The message names the scheme and nothing else of the URL."""
    with pytest.raises(ValueError, match=r"the paging URL nonsense:\.\.\.") as excinfo:
        AppriseChannel("nonsense://secret-token@host")
    assert "secret-token" not in str(excinfo.value)


class PagerDutyReceiver(BaseHTTPRequestHandler):
    """The receiving side of the Events API v2: checks what it documents, joins by dedup key, answers 202 or 400."""

    def do_POST(self) -> None:
        """One event."""
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        payload = event.get("payload", {})
        sound = (
            event.get("event_action") in ("trigger", "acknowledge", "resolve")
            and len(event.get("routing_key", "")) == 32
            and 0 < len(event.get("dedup_key", "")) <= 255
            and (
                event["event_action"] != "trigger"
                or (
                    0 < len(payload.get("summary", "")) <= 1024
                    and payload.get("severity") in ("critical", "error", "warning", "info")
                    and payload.get("source")
                )
            )
        )
        if sound and server.refusals > 0:
            server.refusals -= 1
            self.send_response(429)
        elif sound:
            server.events.append(event)
            self.send_response(202)
        else:
            server.unsound.append(event)
            self.send_response(400)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def pagerduty() -> Iterator[Any]:
    """A receiver on loopback."""
    server: Any = HTTPServer(("127.0.0.1", 0), PagerDutyReceiver)
    server.events, server.unsound, server.refusals = [], [], 3
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_pagerduty_joins_trigger_acknowledge_and_resolve(
    make_guard: Callable[..., Guard], time_ns: Any, pagerduty: Any
) -> None:
    """One key from the breach to the thaw, in this order, although the receiver refuses the first three."""
    channel = PagerDutyChannel("R" * 32, "desk", f"http://127.0.0.1:{pagerduty.server_port}/v2/enqueue")
    guard = make_guard(channels=[channel])
    guard.record("orders", BAD)
    keys = [alert.page.dedup_key for alert in guard.store.alerts()]
    for key in keys:
        assert guard.store.acknowledge(key, "ann", time_ns())
        assert not guard.store.acknowledge(key, "bob", time_ns())
    for scope in guard.frozen_scopes():
        guard.thaw(scope, operator="ann", reason="mended", evidence="ticket 7", forced_by="bob")
    for _ in range(40):
        guard.pager.deliver_due()
        time_ns.now_ns += 2_000_000_000
    assert guard.store.backlog() == []
    assert pagerduty.unsound == []
    for key in keys:
        events = [event["event_action"] for event in pagerduty.events if event["dedup_key"] == key]
        assert events == ["trigger", "acknowledge", "resolve"]
    details = pagerduty.events[0]["payload"]["custom_details"]
    assert details["steps"]
    assert details["next"].startswith("holdover ")


def test_what_nobody_acknowledges_goes_up_level_by_level(
    make_guard: Callable[..., Guard], time_ns: Any, tmp_path: Path
) -> None:
    """The desk at once, the head after ten minutes, the head again every five, nobody once it is acknowledged."""
    desk, head = FileChannel(tmp_path / "desk", "desk"), FileChannel(tmp_path / "head", "head")
    levels = [EscalationLevel(channels=["desk"]), EscalationLevel(after_s=600, channels=["desk", "head"])]
    guard = make_guard(channels=[desk, head], levels=levels, repeat_s=300)
    guard.record("orders", BAD)
    (key, *_) = [alert.page.dedup_key for alert in guard.store.alerts()]

    def count_alerts(name: str) -> int:
        path = tmp_path / name
        lines = path.read_text().splitlines() if path.exists() else []
        return sum(json.loads(line)["dedup_key"] == key for line in lines)

    def counts_after(seconds: int) -> tuple[int, int]:
        time_ns.now_ns += seconds * 1_000_000_000
        guard.pager.deliver_due()
        guard.pager.deliver_due()
        return count_alerts("desk"), count_alerts("head")

    assert counts_after(0) == (1, 0)
    assert counts_after(599) == (1, 0)
    assert counts_after(1) == (2, 1)
    assert counts_after(299) == (2, 1)
    assert counts_after(1) == (3, 2)
    assert counts_after(300) == (4, 3)
    guard.store.acknowledge(key, "ann", time_ns())
    assert counts_after(0) == (5, 4)  # the word that somebody is on it
    assert counts_after(10_000) == (5, 4)
    actions = [action for _, _, action, detail in guard.store.audit_rows() if key in detail]
    assert actions == ["escalate", "escalate", "escalate", "acknowledge"]
    assert guard.store.verify_audit() == ""


def test_a_web_hook_gets_a_key_to_do_it_once(make_guard: Callable[..., Guard], time_ns: Any) -> None:
    """The same key for every try of one page, another for what follows it."""
    server: Any = HTTPServer(("127.0.0.1", 0), WebhookReceiver)
    server.tries, server.alerts = 3, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    guard = make_guard(channels=[WebhookChannel(f"http://127.0.0.1:{server.server_port}/hook", "hook")])
    guard.record("orders", BAD)
    guard.pager.deliver_due()
    server.shutdown()
    assert {page["event"] for page in server.alerts} == {"trigger"}
    assert all(page["steps"] and page["implication"] for page in server.alerts)
