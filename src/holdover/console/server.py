"""The console's HTTP server: uvicorn, with limits on how long a request takes to arrive and how many there may be."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from holdover.console.application import application
from holdover.console.console import Console

_HEAD_MAX: Final = 16 * 1024
_CONNECTIONS_MAX: Final = 200


class BadAddress(ValueError):
    """An address that the console does not listen at; the message says why, and what would be right."""


class Prompt(H11Protocol):
    """Closes a connection whose request's head does not arrive whole within `head_within_s` seconds."""

    head_within_s = 10.0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Somebody has connected."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwatch()
        elif self._late is None:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        self._late = self.loop.call_later(self.head_within_s, self._too_late)

    def _unwatch(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def check_address(host: str, *, tls: bool, insecure: bool) -> None:
    """Refuse to let anybody but this machine in without TLS. Raises `BadAddress`."""
    if tls or insecure or host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise BadAddress(
            f"without TLS the console listens at loopback only, not at {host}: give --tls-cert and --tls-key, "
            f"or put a proxy that speaks TLS before it; passwords would be read on the way"
        )


def server(console: Console, cert: Path | None = None, key: Path | None = None) -> uvicorn.Server:
    """The server, to be run on a bound socket. Raises `BadAddress` when the files of TLS cannot be used."""
    config = uvicorn.Config(
        application(console),
        http=Prompt,
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
        limit_concurrency=_CONNECTIONS_MAX,
        h11_max_incomplete_event_size=_HEAD_MAX,
        ssl_certfile=str(cert) if cert is not None else None,
        ssl_keyfile=str(key) if key is not None else None,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as problem:
        raise BadAddress(f"{cert} and {key} cannot be used for TLS: {problem.strerror or problem}") from problem
    return uvicorn.Server(config)


def serve(console: Console, host: str, port: int, cert: Path | None, key: Path | None) -> None:
    """Answer until stopped. Raises `BadAddress` when the port is taken, or the files of TLS cannot be used."""
    made = server(console, cert, key)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host.strip("[]"), port))
        except OSError as problem:
            raise BadAddress(f"cannot listen at {host}, port {port}: {problem.strerror or problem}") from problem
        scheme = "https" if cert is not None else "http"
        shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
        print(f"the console is at {scheme}://{shown}:{port}/", flush=True)
        made.run(sockets=[bound])
