"""What stands before every page: whose name was called, where a form came from, how much and how long it may be."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_MAX: Final = 64 * 1024
_BODY_WITHIN_S: Final = 10.0
_CSP: Final = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not no-referrer: with that a browser sends the Origin of its own forms as null, and they could not be told apart.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class Defences:
    """ASGI middleware. `hosts` are the names that a browser may call it by, `secure` whether it stands behind TLS.

    `refuse` makes the answer to what does not get through: a status and a sentence.
    """

    def __init__(
        self, app: ASGIApp, hosts: frozenset[str], secure: bool, refuse: Callable[[int, str], ASGIApp]
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._secure = secure
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(message)
            await send(message)

        headers = _headers(scope)
        wrong = self._wrong(scope, headers)
        if wrong is not None:
            await self._refuse(*wrong)(scope, receive, guarded)
            return
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, guarded)
            return
        try:
            async with asyncio.timeout(_BODY_WITHIN_S):
                body = await _body(receive)
        except TimeoutError:
            await self._refuse(408, "The form did not arrive in time.")(scope, receive, guarded)
            return
        if body is None:
            await self._refuse(413, _TOO_MUCH)(scope, receive, guarded)
            return
        told = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            for message in told:
                return message
            return await receive()

        await self._app(scope, again, guarded)

    def _wrong(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if host_name(host) not in self._hosts:
            return 400, "This console does not answer to that name; add it to names in [console] if it should."
        if scope["method"] in ("GET", "HEAD"):
            return None
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return 400, "The length of the form is no number."
        if len(length) > 12 or int(length) > BODY_MAX:
            return 413, _TOO_MUCH
        if not self._from_here(host, headers):
            return 403, "The form did not come from this console. Open the console itself and try there."
        return None

    def _from_here(self, host: str, headers: dict[str, str]) -> bool:
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site") == "same-origin"
        try:
            told = urllib.parse.urlsplit(origin)
        except ValueError:
            return False
        schemes = ("https",) if self._secure else ("http", "https")  # https: a proxy before us may speak it
        return told.scheme in schemes and told.netloc.lower() == host.lower()

    def _add_headers(self, message: MutableMapping[str, Any]) -> None:
        there = {name.lower() for name, _ in message["headers"]}
        added = [*_HEADERS, (b"cache-control", b"no-store")]
        if self._secure:
            added.append((b"strict-transport-security", b"max-age=31536000"))
        message["headers"] = [*message["headers"], *(one for one in added if one[0] not in there)]


_TOO_MUCH: Final = f"The form is larger than the {BODY_MAX // 1024} KiB that are taken here."


def host_name(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None as soon as it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_MAX:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)
