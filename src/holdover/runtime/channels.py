"""Channels for pages: a file, the log, a webhook, PagerDuty, and some hundred other services through Apprise."""

from __future__ import annotations

import logging
import os
import socket
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from holdover.runtime.breach import ACKNOWLEDGE, RESOLVE, TRIGGER, UPDATE, Page
from holdover.runtime.files import open_private

log = logging.getLogger("holdover.pager")

_TIMEOUT_S: Final = 10.0
PAGERDUTY_URL: Final = "https://events.pagerduty.com/v2/enqueue"
_SUMMARY_MAX: Final = 1024  # characters, PagerDuty's Events API v2


class Channel(Protocol):
    """A destination for pages. `deliver` raises when the page did not get there."""

    name: str

    def deliver(self, page: Page) -> None:
        """Deliver the page."""


class FileChannel:
    """Appends each page to a file as one JSON object per line and syncs it before it counts as delivered."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.name = name or f"file:{path.name}"
        self.path = path

    def deliver(self, page: Page) -> None:
        """Append and sync. Raises `OSError` when the write fails."""
        line = msgspec.json.encode(page) + b"\n"
        with open_private(self.path) as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


class LogChannel:
    """Logs each page as an error, and each later event of it as a warning."""

    def __init__(self, name: str = "log") -> None:
        self.name = name

    def deliver(self, page: Page) -> None:
        """Log the headline and the text."""
        if page.event == TRIGGER:
            log.error("%s\n%s", page.title, page.text())
        else:
            log.warning("%s", page.headline())


class WebhookChannel:
    """Posts each page as JSON; the header Idempotency-Key holds the dedup key, the number and the event."""

    def __init__(self, url: str, name: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError("a web hook's URL should begin with http:// or https://")
        self.name = name or "webhook"
        self._url = url

    def deliver(self, page: Page) -> None:
        """Post the page. Raises `ConnectionError` for any answer but 2xx."""
        key = f"{page.dedup_key} {page.number} {page.event}"
        _post_json(self.name, self._url, msgspec.json.encode(page), {"Idempotency-Key": key})


class PagerDutyChannel:
    """PagerDuty's Events API v2: trigger, acknowledge and resolve, joined by the page's dedup key.

    `routing_key` is the service's integration key. `url` names another receiver of the same API.
    """

    def __init__(self, routing_key: str, name: str = "", url: str = PAGERDUTY_URL) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError("PagerDuty's URL should begin with http:// or https://")
        self.name = name or "pagerduty"
        self._key, self._url = routing_key, url
        self._source = socket.gethostname()

    def to_event(self, page: Page) -> dict[str, Any]:
        """Return the PagerDuty event for a page."""
        event: dict[str, Any] = {
            "routing_key": self._key,
            "event_action": {
                TRIGGER: "trigger",
                UPDATE: "trigger",  # of an open key: PagerDuty adds it to the alert and notifies nobody
                ACKNOWLEDGE: "acknowledge",
                RESOLVE: "resolve",
            }[page.event],
            "dedup_key": page.dedup_key[:255],
        }
        if page.event in (TRIGGER, UPDATE):
            severity = page.severity if page.severity in ("critical", "error", "warning", "info") else "critical"
            event["client"] = "Holdover"
            event["payload"] = {
                "summary": f"{page.headline()}: {page.explanation}"[:_SUMMARY_MAX],
                "source": self._source,
                "severity": "info" if page.event == UPDATE else severity,
                "timestamp": datetime.fromtimestamp(page.time_ns / 1e9, UTC).isoformat(),
                "component": page.scope,
                "class": page.invariant,
                "custom_details": {
                    **({"state": page.state} if page.state else {}),
                    "what must hold": page.statement,
                    "what it means": page.implication,
                    "frozen": page.scope if page.is_frozen else "nothing",
                    "still allowed": ", ".join(page.allows) or "nothing",
                    **({"followed from it": page.consequence_lines()} if page.consequences else {}),
                    "steps": page.steps,
                    "next": page.next_command,
                    "catalogue": page.digest,
                },
            }
        return event

    def deliver(self, page: Page) -> None:
        """Send the event. Raises `ConnectionError` when PagerDuty does not accept it."""
        _post_json(self.name, self._url, msgspec.json.encode(self.to_event(page)), {})


class AppriseChannel:
    """Any service that Apprise supports (Opsgenie, Slack, mail and some hundred others), by URL."""

    def __init__(self, url: str, name: str = "") -> None:
        try:
            import apprise
        except ImportError as problem:
            raise ValueError("paging by URL needs Apprise: pip install 'holdover[paging]'") from problem
        self._apprise = apprise.Apprise()
        if not self._apprise.add(url):
            # The URL carries secrets, so the message shows only its scheme.
            raise ValueError(f"the paging URL {url.split(':', 1)[0]}:... is not one that Apprise understands")
        self.name = name or f"apprise:{url.split(':', 1)[0]}"

    def deliver(self, page: Page) -> None:
        """Notify the service. Raises `ConnectionError` when it does not accept the page."""
        body = f"{page.text()}\nkey: {page.dedup_key}\n"
        if not self._apprise.notify(title=page.headline(), body=body):
            raise ConnectionError(f"{self.name} did not take the page")


def _post_json(name: str, url: str, body: bytes, headers: dict[str, str]) -> None:
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return
    except urllib.error.HTTPError as problem:
        # The message shows neither the URL nor the body: both may carry secrets.
        raise ConnectionError(f"{name} did not take the page: it answered {problem.code}") from None
    except (urllib.error.URLError, OSError) as problem:
        reason = getattr(problem, "reason", problem)
        raise ConnectionError(f"{name} did not take the page: {reason}") from None
