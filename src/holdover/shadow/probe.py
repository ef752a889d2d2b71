"""Asks a venue itself, over HTTP or WebSocket, with the candidate's credentials: does it answer, does it refuse them,
are its books open, does its feed skip a number? What it answers is a component's sign of life, or a fault.

A fault is counted once when it begins: a hundred refused requests in a row are one authentication fault, and so is a
book that stays disabled. While it refuses, a component is unhealthy: no such time is counted. The threads only
collect; `Following` takes what they found, so that one thread counts.
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

_REFUSED: Final = frozenset({401, 403})
_TIMEOUT_S: Final = 5.0
_SHOWN: Final = 120

Found = tuple[str, str, str]
"""(component, class of fault, detail); a class that is empty is a sign of life."""


class BadProbe(ValueError):
    """A probe that cannot be made; the message says why."""


class Probe:
    """What one component's answers say. `found` gets signs of life and faults, oldest first."""

    def __init__(self, table: ComponentTable) -> None:
        self.table = table
        self.found: queue.SimpleQueue[Found] = queue.SimpleQueue()
        self.refusing = self._cut = False
        self._sequences: dict[str, int] = {}
        self._shut: set[str] = set()

    def refused(self, status: int, said: str = "") -> None:
        """The credentials were not taken."""
        if not self.refusing:
            self._say("authentication", f"{status} {said}".strip())
        self.refusing = True

    def cut(self, why: str) -> None:
        """There is no connection, or no more."""
        if not self._cut:
            self._say("disconnect", why)
        self._cut = True

    def up(self) -> None:
        """It answers, and takes the credentials; a feed's numbers may begin anew."""
        self.refusing = self._cut = False
        self._sequences.clear()

    def answered(self, status: int, body: bytes) -> None:
        """An answer over HTTP."""
        if status in _REFUSED:
            self.refused(status, body[:_SHOWN].decode("utf-8", "replace"))
            return
        if status >= 500:
            return  # nobody is heard: silence says for how long
        self.refusing = self._cut = False
        self.said(body)

    def said(self, text: str | bytes) -> None:
        """Something of the venue's, JSON or not: a sign of life, and whatever it tells of books and numbers."""
        self._say("", "")
        try:
            told = msgspec.json.decode(text)
        except msgspec.MsgspecError:
            return
        for one in _each(told, self.table.each):
            self._numbered(one)
            self._book(one)

    def _numbered(self, told: Any) -> None:
        number = _at(told, self.table.sequence) if self.table.sequence else None
        if not isinstance(number, int):
            return
        channel = str(_at(told, self.table.channel)) if self.table.channel else ""
        before = self._sequences.get(channel)
        if before is not None and number <= before:
            return  # told again
        if before is not None and number > before + 1:
            named = f"{channel}: " if channel else ""
            self._say("gap", f"{named}{number} came after {before}")
        self._sequences[channel] = number

    def _book(self, told: Any) -> None:
        field, _, value = self.table.disabled.partition("=")
        if not field:
            return
        status = _at(told, field)
        if status is None:
            return
        book = str(_at(told, self.table.book)) if self.table.book else "the book"
        if str(status) != value:
            self._shut.discard(book)
        elif book not in self._shut:
            self._shut.add(book)
            self._say("disabled-book", f"{book}: {field} is {value}")

    def _say(self, fault: str, detail: str) -> None:
        self.found.put((self.table.name, fault, detail))


class Probes:
    """The probes of a shadow, each in a thread that ends with `close`."""

    def __init__(self, tables: list[ComponentTable]) -> None:
        self.probes = [Probe(table) for table in tables if table.url]
        self._stop = threading.Event()
        self._sockets: list[Any] = []
        self._threads = [threading.Thread(target=self._ask, args=(one,), daemon=True) for one in self.probes]
        for one in self._threads:
            one.start()

    def found(self) -> Iterator[Found]:
        """What has been found since this was asked last."""
        for probe in self.probes:
            while True:
                try:
                    yield probe.found.get_nowait()
                except queue.Empty:
                    break

    def close(self) -> None:
        """End them."""
        self._stop.set()
        for one in self._sockets:
            with contextlib.suppress(Exception):
                one.close()
        for thread in self._threads:
            thread.join(_TIMEOUT_S + 1)

    def _ask(self, probe: Probe) -> None:
        follow = self._feed if probe.table.url.startswith("ws") else self._get
        while not self._stop.is_set():
            follow(probe)
            self._stop.wait(probe.table.every_s)

    def _get(self, probe: Probe) -> None:
        request = urllib.request.Request(probe.table.url, headers=headers_of(probe.table))
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                probe.answered(answer.status, answer.read())
        except urllib.error.HTTPError as problem:
            with problem:
                probe.answered(problem.code, problem.read())
        except (OSError, http.client.HTTPException) as problem:
            probe.cut(str(problem))

    def _feed(self, probe: Probe) -> None:
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.sync.client import connect

        try:
            with connect(
                probe.table.url, additional_headers=headers_of(probe.table), open_timeout=_TIMEOUT_S, max_size=None
            ) as socket:
                self._sockets.append(socket)
                probe.up()
                if probe.table.subscribe:
                    socket.send(probe.table.subscribe)
                for frame in socket:
                    probe.said(frame)
            probe.cut("the feed was closed")
        except InvalidStatus as problem:
            status = problem.response.status_code
            if status in _REFUSED:
                probe.refused(status)
            else:
                probe.cut(f"the feed answered {status}")
        except (OSError, WebSocketException, TimeoutError) as problem:
            if not self._stop.is_set():
                probe.cut(str(problem) or type(problem).__name__)


def headers_of(table: ComponentTable) -> dict[str, str]:
    """The headers that the environment holds, as `Name: value`. Raises `BadProbe` without the value."""
    found: dict[str, str] = {}
    for variable in table.header_env:
        name, colon, value = os.environ.get(variable, "").partition(":")
        if not (colon and name.strip()):
            raise BadProbe(f"[[component]] {table.name}: {variable} should hold a header, Name: value")
        found[name.strip()] = value.strip()
    return found


def problems_of(table: ComponentTable) -> list[str]:
    """What is wrong with a component's probe; empty when it can be asked."""
    found: list[str] = []
    asked = (table.header_env, table.subscribe, table.sequence, table.channel, table.disabled, table.book, table.each)
    if not table.url:
        return ["has no url, and what only a probe uses"] if any(asked) else []
    if table.url.partition("://")[0] not in ("http", "https", "ws", "wss"):
        found.append(f"url {table.url!r} should begin with http://, https://, ws:// or wss://")
    if table.every_s <= 0:
        found.append("every_s should be above 0")
    if table.disabled and not all(table.disabled.partition("=")):
        found.append(f"disabled {table.disabled!r} should be FIELD=VALUE")
    if table.url.startswith("ws"):
        try:
            import websockets  # noqa: F401
        except ImportError:
            found.append("a feed needs websockets: pip install 'holdover[shadow]'")
    try:
        headers_of(table)
    except BadProbe as problem:
        found.append(str(problem).partition(": ")[2])
    return found


def _each(told: Any, path: str) -> list[Any]:
    inner = _at(told, path) if path else told
    return inner if isinstance(inner, list) else [inner]


def _at(told: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(told, dict):
            return None
        told = told.get(part)
    return told


__all__ = ["BadProbe", "Found", "Probe", "Probes", "headers_of", "problems_of"]
