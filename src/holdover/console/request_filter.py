"""Checks on every request: the host name, the origin of a form, the size of the body and the time it takes."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_MAX: Final = 64 * 1024
_BODY_TIMEOUT_S: Final = 10.0
_CSP: Final = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # Not no-referrer: browsers would then send their own forms with Origin null, and they could not be told apart.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class RequestFilter:
    """ASGI middleware. `hosts` are the host names that it answers to, `secure` says whether browsers connect over TLS.

    `refuse` makes the response to a rejected request from a status and a sentence.
    """

    def __init__(
        self, app: ASGIApp, hosts: frozenset[str], secure: bool, refuse: Callable[[int, str], ASGIApp]
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._secure = secure
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(message)
            await send(message)

        headers = _headers(scope)
        problem = self._find_problem(scope, headers)
        if problem is not None:
            await self._refuse(*problem)(scope, receive, send_with_headers)
            return
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send_with_headers)
            return
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                body = await _read_body(receive)
        except TimeoutError:
            await self._refuse(408, "The form did not arrive in time.")(scope, receive, send_with_headers)
            return
        if body is None:
            await self._refuse(413, _TOO_LARGE)(scope, receive, send_with_headers)
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive_body() -> Message:
            for message in messages:
                return message
            return await receive()

        await self._app(scope, receive_body, send_with_headers)

    def _find_problem(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if host_name(host) not in self._hosts:
            return 400, "This console does not answer to that name; add it to names in [console] if it should."
        if scope["method"] in ("GET", "HEAD"):
            return None
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return 400, "The length of the form is no number."
        if len(length) > 12 or int(length) > BODY_MAX:
            return 413, _TOO_LARGE
        if not self._is_same_origin(host, headers):
            return 403, "The form did not come from this console. Open the console itself and try there."
        return None

    def _is_same_origin(self, host: str, headers: dict[str, str]) -> bool:
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site") == "same-origin"
        try:
            parts = urllib.parse.urlsplit(origin)
        except ValueError:
            return False
        schemes = ("https",) if self._secure else ("http", "https")  # https: a proxy in front may terminate TLS
        return parts.scheme in schemes and parts.netloc.lower() == host.lower()

    def _add_headers(self, message: MutableMapping[str, Any]) -> None:
        present_names = {name.lower() for name, _ in message["headers"]}
        added = [*_HEADERS, (b"cache-control", b"no-store")]
        if self._secure:
            added.append((b"strict-transport-security", b"max-age=31536000"))
        message["headers"] = [*message["headers"], *(header for header in added if header[0] not in present_names)]


_TOO_LARGE: Final = f"The form is larger than the {BODY_MAX // 1024} KiB that are taken here."


def host_name(host: str) -> str:
    """Returns the name in a Host header, without the port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


async def _read_body(receive: Receive) -> bytes | None:
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
