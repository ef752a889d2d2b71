"""The console's HTTP server: uvicorn with limits on the number of connections and on how long a request may take.

`connections.py` accepts the connections and decides which one gives way to another.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any, Final, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from holdover.console.application import make_application
from holdover.console.connections import Acceptor, ConnectionKey, ConnectionTable
from holdover.console.console import Console
from holdover.runtime.secrets import SecretError, check_private_key

_HEAD_MAX: Final = 16 * 1024
_BACKLOG: Final = 1024


class ListenAddressError(ValueError):
    """The console cannot listen at this address; the message says why, and what would be right."""


class DeadlineProtocol(H11Protocol):
    """Closes a connection whose request head does not arrive completely within `head_timeout_s` seconds.

    Reports to `table` whether the connection is pending or answers a request.
    """

    head_timeout_s = 10.0
    table: ConnectionTable | None = None
    _head_timer: asyncio.TimerHandle | None = None
    _key: ConnectionKey | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._key = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else None
        self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        """Data has arrived."""
        if self.table is not None and self._key is not None and self._key not in self.table:
            self.transport.abort()  # it gave way to another connection, so no response would arrive
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_head_timer()
            if self.conn.their_state is not h11.SEND_BODY:
                self._report(is_active=True)
        elif self._head_timer is None:
            self._start_head_timer()

    def on_response_complete(self) -> None:
        """A response has been sent."""
        self._report(is_active=False)
        super().on_response_complete()
        if self.cycle is not None and not self.cycle.response_complete:  # the next request was here already
            self._report(is_active=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop_head_timer()
        if self.table is not None and self._key is not None:
            self.table.remove(self._key)
        super().connection_lost(exc)

    def _report(self, *, is_active: bool) -> None:
        if self.table is not None and self._key is not None:
            (self.table.mark_active if is_active else self.table.mark_pending)(self._key)

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class ConsoleServer(uvicorn.Server):
    """A uvicorn server whose connections are accepted into a `ConnectionTable`."""

    def __init__(self, config: uvicorn.Config, table: ConnectionTable | None = None) -> None:
        super().__init__(config)
        self.table = table or ConnectionTable()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections on the bound sockets."""
        await super().startup(sockets=[])
        for listener in sockets or []:
            acceptor = Acceptor(listener, self.table, self._make_protocol)
            acceptor.start(self.config.ssl, self.config.backlog)
            # uvicorn closes its servers, which an acceptor stands in for, with close() and wait_closed().
            self.servers.append(cast(asyncio.base_events.Server, acceptor))

    def _make_protocol(self) -> DeadlineProtocol:
        protocol = DeadlineProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        protocol.table = self.table
        return protocol


def check_address(host: str, *, tls: bool, insecure: bool) -> None:
    """Require TLS for any address but loopback. Raises `ListenAddressError`."""
    if tls or insecure or host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ListenAddressError(
            f"without TLS the console listens at loopback only, not at {host}: give --tls-cert and --tls-key, "
            f"or put a proxy that speaks TLS before it; passwords would be read on the way"
        )


def make_server(console: Console, cert: Path | None = None, key: Path | None = None) -> ConsoleServer:
    """Returns the server, to be run on a bound socket.

    Raises `ListenAddressError` when the TLS files cannot be used, or others can read the key.
    """
    if key is not None:
        try:
            check_private_key(key)
        except SecretError as problem:
            raise ListenAddressError(f"{problem}; {key} cannot be used for TLS") from None
    config = uvicorn.Config(
        make_application(console),
        loop="asyncio",
        http=DeadlineProtocol,
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
        backlog=_BACKLOG,
        h11_max_incomplete_event_size=_HEAD_MAX,
        ssl_certfile=str(cert) if cert is not None else None,
        ssl_keyfile=str(key) if key is not None else None,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as problem:
        raise ListenAddressError(f"{cert} and {key} cannot be used for TLS: {problem.strerror or problem}") from problem
    return ConsoleServer(config)


def serve(console: Console, host: str, port: int, cert: Path | None, key: Path | None) -> None:
    """Serve until stopped. Raises `ListenAddressError` when the port is taken or the TLS files cannot be used."""
    http_server = make_server(console, cert, key)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host.strip("[]"), port))
            listener.listen(_BACKLOG)
        except OSError as problem:
            raise ListenAddressError(
                f"cannot listen at {host}, port {port}: {problem.strerror or problem}"
            ) from problem
        scheme = "https" if cert is not None else "http"
        host_text = f"[{host}]" if ":" in host and not host.startswith("[") else host
        print(f"the console is at {scheme}://{host_text}:{port}/", flush=True)
        http_server.run(sockets=[listener])
