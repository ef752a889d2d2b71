"""Probes a venue over HTTP or WebSocket with the candidate's credentials. Does it answer, does it accept the
credentials, are its books open, does its feed have gaps? A response is a sign of life or a fault.

A fault is counted once, when it begins: a hundred refused requests in a row are one authentication fault, and so is a
book that stays disabled. A component that refuses is unhealthy, and that time is not counted. The threads only
collect; `FollowedShadow` takes their findings, so that one thread counts.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from holdover.shadow.components import ComponentTable
from holdover.state import DECODE_ERRORS

_REFUSAL_STATUSES: Final = frozenset({401, 403})
_TIMEOUT_S: Final = 5.0
_EXCERPT_MAX: Final = 120

ProbeFinding = tuple[str, str, str]
"""(component, class of fault, detail); an empty class is a sign of life."""


class ProbeError(ValueError):
    """A probe cannot be set up; the message says why."""


class Probe:
    """The evaluation of one component's responses. `findings` collects signs of life and faults, oldest first."""

    def __init__(self, table: ComponentTable) -> None:
        self.table = table
        self.findings: queue.SimpleQueue[ProbeFinding] = queue.SimpleQueue()
        self.refusing = self._is_disconnected = False
        self._sequences: dict[str, int] = {}
        self._disabled_books: set[str] = set()

    def record_refusal(self, status: int, text: str = "") -> None:
        """Record that the credentials were refused."""
        if not self.refusing:
            self._add_finding("authentication", f"{status} {text}".strip())
        self.refusing = True

    def record_disconnect(self, reason: str) -> None:
        """Record that the connection failed or was lost."""
        if not self._is_disconnected:
            self._add_finding("disconnect", reason)
        self._is_disconnected = True

    def record_connection(self) -> None:
        """Record a connection that accepts the credentials; the feed's sequence may start again."""
        self.refusing = self._is_disconnected = False
        self._sequences.clear()

    def record_response(self, status: int, body: bytes) -> None:
        """Record an HTTP response."""
        if status in _REFUSAL_STATUSES:
            self.record_refusal(status, body[:_EXCERPT_MAX].decode("utf-8", "replace"))
            return
        if status >= 500:
            return  # not a sign of life: the silence is measured instead
        self.refusing = self._is_disconnected = False
        self.record_message(body)

    def record_message(self, text: str | bytes) -> None:
        """Record a message, JSON or not: a sign of life, with sequence numbers and book states if it has any."""
        self._add_finding("", "")
        try:
            message = msgspec.json.decode(text)
        except DECODE_ERRORS:
            return
        for item in _items_at(message, self.table.items):
            self._check_sequence(item)
            self._check_book(item)

    def _check_sequence(self, item: Any) -> None:
        number = _value_at(item, self.table.sequence) if self.table.sequence else None
        if not isinstance(number, int):
            return
        channel = str(_value_at(item, self.table.channel)) if self.table.channel else ""
        before = self._sequences.get(channel)
        if before is not None and number <= before:
            return  # a repeated message
        if before is not None and number > before + 1:
            named = f"{channel}: " if channel else ""
            self._add_finding("gap", f"{named}{number} came after {before}")
        self._sequences[channel] = number

    def _check_book(self, item: Any) -> None:
        field, _, value = self.table.disabled.partition("=")
        if not field:
            return
        status = _value_at(item, field)
        if status is None:
            return
        book = str(_value_at(item, self.table.book)) if self.table.book else "the book"
        if str(status) != value:
            self._disabled_books.discard(book)
        elif book not in self._disabled_books:
            self._disabled_books.add(book)
            self._add_finding("disabled-book", f"{book}: {field} is {value}")

    def _add_finding(self, fault: str, detail: str) -> None:
        self.findings.put((self.table.name, fault, detail))


class ProbeThreads:
    """The probes of a shadow, each in its own thread. `close` ends the threads."""

    def __init__(self, tables: list[ComponentTable]) -> None:
        self.probes = [Probe(table) for table in tables if table.url]
        self._stop = threading.Event()
        self._sockets: list[Any] = []
        self._threads = [threading.Thread(target=self._run_probe, args=(probe,), daemon=True) for probe in self.probes]
        for thread in self._threads:
            thread.start()

    def drain_findings(self) -> Iterator[ProbeFinding]:
        """Yield the findings since the last call."""
        for probe in self.probes:
            while True:
                try:
                    yield probe.findings.get_nowait()
                except queue.Empty:
                    break

    def close(self) -> None:
        """End the threads."""
        self._stop.set()
        for socket in self._sockets:
            with contextlib.suppress(Exception):
                socket.close()
        for thread in self._threads:
            thread.join(_TIMEOUT_S + 1)

    def _run_probe(self, probe: Probe) -> None:
        follow = self._follow_feed if probe.table.url.startswith("ws") else self._poll_http
        while not self._stop.is_set():
            follow(probe)
            self._stop.wait(probe.table.every_s)

    def _poll_http(self, probe: Probe) -> None:
        request = urllib.request.Request(probe.table.url, headers=read_headers(probe.table))
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                probe.record_response(answer.status, answer.read())
        except urllib.error.HTTPError as problem:
            with problem:
                probe.record_response(problem.code, problem.read())
        except (OSError, http.client.HTTPException) as problem:
            probe.record_disconnect(str(problem))

    def _follow_feed(self, probe: Probe) -> None:
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.sync.client import connect

        try:
            with connect(
                probe.table.url, additional_headers=read_headers(probe.table), open_timeout=_TIMEOUT_S, max_size=None
            ) as socket:
                self._sockets.append(socket)
                probe.record_connection()
                if probe.table.subscribe:
                    socket.send(probe.table.subscribe)
                for frame in socket:
                    probe.record_message(frame)
            probe.record_disconnect("the feed was closed")
        except InvalidStatus as problem:
            status = problem.response.status_code
            if status in _REFUSAL_STATUSES:
                probe.record_refusal(status)
            else:
                probe.record_disconnect(f"the feed answered {status}")
        except (OSError, WebSocketException, TimeoutError) as problem:
            if not self._stop.is_set():
                probe.record_disconnect(str(problem) or type(problem).__name__)


def read_headers(table: ComponentTable) -> dict[str, str]:
    """Read the headers from the environment, as `Name: value`. Raises `ProbeError` when a variable has none."""
    headers: dict[str, str] = {}
    for variable in table.header_env:
        name, colon, value = os.environ.get(variable, "").partition(":")
        if not (colon and name.strip()):
            raise ProbeError(f"[[component]] {table.name}: {variable} should hold a header, Name: value")
        headers[name.strip()] = value.strip()
    return headers


def find_probe_problems(table: ComponentTable) -> list[str]:
    """Returns the problems of a component's probe; empty when there are none."""
    problems: list[str] = []
    options = (
        table.header_env,
        table.subscribe,
        table.sequence,
        table.channel,
        table.disabled,
        table.book,
        table.items,
    )
    if not table.url:
        return ["has no url, and what only a probe uses"] if any(options) else []
    if table.url.partition("://")[0] not in ("http", "https", "ws", "wss"):
        problems.append(f"url {table.url!r} should begin with http://, https://, ws:// or wss://")
    if table.every_s <= 0:
        problems.append("every_s should be above 0")
    if table.disabled and not all(table.disabled.partition("=")):
        problems.append(f"disabled {table.disabled!r} should be FIELD=VALUE")
    if table.url.startswith("ws"):
        try:
            import websockets  # noqa: F401
        except ImportError:
            problems.append("a feed needs websockets: pip install 'holdover[shadow]'")
    try:
        read_headers(table)
    except ProbeError as problem:
        problems.append(str(problem).partition(": ")[2])
    return problems


def _items_at(document: Any, path: str) -> list[Any]:
    inner = _value_at(document, path) if path else document
    return inner if isinstance(inner, list) else [inner]


def _value_at(value: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


__all__ = ["ProbeError", "ProbeFinding", "Probe", "ProbeThreads", "read_headers", "find_probe_problems"]
