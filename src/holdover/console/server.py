"""The console's HTTP server: uvicorn, with limits on how long a request takes to arrive and how many there may be."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from holdover.console.application import application
from holdover.console.console import Console

_HEAD_WITHIN_S: Final = 10.0
_HEAD_MAX: Final = 16 * 1024
_CONNECTIONS_MAX: Final = 200


class BadAddress(ValueError):
    """An address that the console does not listen at; the message says why, and what would be right."""


class Prompt(H11Protocol):
    """Closes a connection whose request does not arrive whole in its head within ten seconds."""

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
        self._late = self.loop.call_later(_HEAD_WITHIN_S, self._too_late)

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


def serve(console: Console, host: str, port: int, cert: Path | None, key: Path | None) -> None:
    """Answer until stopped. Raises `OSError` when the port is taken, or a file of TLS cannot be read."""
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host.strip("[]"), port))
        config = uvicorn.Config(
            application(console),
            http=Prompt,
            ws="none",
            lifespan="off",
            log_level="critical",
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
            limit_concurrency=_CONNECTIONS_MAX,
            h11_max_incomplete_event_size=_HEAD_MAX,
            ssl_certfile=str(cert) if cert is not None else None,
            ssl_keyfile=str(key) if key is not None else None,
        )
        config.load()
        uvicorn.Server(config).run(sockets=[bound])
