"""Connections of the console: how many there may be, and which one gives way to another.

A connection is pending until a whole request has arrived: during the TLS handshake, while head or body arrive, and idle
between two requests. A slow or idle client costs nothing but its place, so a new connection takes the place of the
oldest pending one: of the same address when that has reached its limit, otherwise of the address that has most. A
request that is being answered never gives way. The alternative, to refuse new connections at the limit, lets 200 slow
clients close the console.

A pending connection has `GRACE_S` before it may give way, so that a burst does not push out requests that are on their
way. While all pending connections are younger than that, nothing is accepted and the kernel queues.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

PENDING_MAX: Final = 300
PENDING_PER_ADDRESS_MAX: Final = 128
ACTIVE_MAX: Final = 300
"""Requests that are being answered, event streams included. Beyond that a new connection is closed."""
GRACE_S: Final = 0.1
HANDSHAKE_TIMEOUT_S: Final = 5.0
_RETRY_S: Final = 0.05  # after an error of accept, such as too many open files

ConnectionKey = tuple[str, int]
"""Address and port of a client."""


class ConnectionTable:
    """The connections of one server, the oldest first. Used by the event loop's thread only."""

    def __init__(
        self,
        pending_max: int = PENDING_MAX,
        per_address_max: int = PENDING_PER_ADDRESS_MAX,
        active_max: int = ACTIVE_MAX,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pending_max, self._per_address_max, self._active_max = pending_max, per_address_max, active_max
        self._grace_s, self._clock = grace_s, clock
        self._pending: dict[str, OrderedDict[ConnectionKey, tuple[socket.socket, float]]] = {}
        self._pending_count = 0
        self._active: dict[ConnectionKey, socket.socket] = {}

    @property
    def counts(self) -> tuple[int, int]:
        """The numbers of pending and of active connections."""
        return self._pending_count, len(self._active)

    def __contains__(self, key: ConnectionKey) -> bool:
        return key in self._active or key in self._pending.get(key[0], ())

    def wait_s(self, address: str) -> float:
        """Returns how long a new connection of an address has to wait until another may give way to it."""
        full = self._full_address(address)
        if not full:
            return 0.0
        _, began_s = next(iter(self._pending[full].values()))
        return max(0.0, began_s + self._grace_s - self._clock())

    def add(self, key: ConnectionKey, connection: socket.socket) -> bool:
        """Add a pending connection; another one may give way. Returns False when it cannot be accepted."""
        if len(self._active) >= self._active_max:
            return False
        self._add_pending(key, connection)
        return True

    def mark_active(self, key: ConnectionKey) -> None:
        """A whole request has arrived."""
        connection = self._remove_pending(key)
        if connection is not None:
            self._active[key] = connection

    def mark_pending(self, key: ConnectionKey) -> None:
        """The connection waits for a request; it is now the newest of its address."""
        connection = self._active.pop(key, None)
        if connection is not None:
            self._add_pending(key, connection)

    def remove(self, key: ConnectionKey) -> None:
        """The connection is closed."""
        self._remove_pending(key)
        self._active.pop(key, None)

    def _full_address(self, address: str) -> str:
        """Returns the address whose oldest pending connection gives way to a new one; empty while there is room."""
        if len(self._pending.get(address, ())) >= self._per_address_max:
            return address
        if self._pending_count >= self._pending_max:
            return max(self._pending, key=lambda candidate: len(self._pending[candidate]))
        return ""

    def _add_pending(self, key: ConnectionKey, connection: socket.socket) -> None:
        if full := self._full_address(key[0]):
            oldest = self._remove_pending(next(iter(self._pending[full])))
            if oldest is not None:
                shut_down(oldest)
        self._pending.setdefault(key[0], OrderedDict())[key] = (connection, self._clock())
        self._pending_count += 1

    def _remove_pending(self, key: ConnectionKey) -> socket.socket | None:
        connections = self._pending.get(key[0])
        entry = connections.pop(key, None) if connections is not None else None
        if entry is None:
            return None
        self._pending_count -= 1
        if not connections:
            del self._pending[key[0]]
        return entry[0]


def shut_down(connection: socket.socket) -> None:
    """End a connection whose transport belongs to the event loop, which then sees its end and closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class Acceptor:
    """Accepts the connections of a listening socket into a table, and runs the TLS handshake within a time limit."""

    def __init__(
        self, listener: socket.socket, table: ConnectionTable, make_protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        self._listener, self._table, self._make_protocol = listener, table, make_protocol
        self._handshakes: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self, context: ssl.SSLContext | None, backlog: int) -> None:
        """Listen, and accept connections until `close`."""
        self._listener.listen(backlog)
        self._listener.setblocking(False)
        self._task = asyncio.get_running_loop().create_task(self._accept_all(context))

    def close(self) -> None:
        """Stop accepting."""
        for task in (self._task, *self._handshakes):
            if task is not None:
                task.cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing is accepted any more."""
        tasks = [task for task in (self._task, *self._handshakes) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept_all(self, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError:
                await asyncio.sleep(_RETRY_S)
                continue
            key = (str(address[0]), int(address[1]))
            if (wait_s := self._table.wait_s(key[0])) > 0:
                await asyncio.sleep(wait_s)
            if not self._table.add(key, connection):
                connection.close()
                continue
            task = loop.create_task(self._open(connection, key, context))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)
            await asyncio.sleep(0)  # what has arrived on earlier connections is read before the next is accepted

    async def _open(self, connection: socket.socket, key: ConnectionKey, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if context is not None else None,
            )
        except (OSError, ConnectionError, TimeoutError):  # no TLS, or none in time
            self._table.remove(key)
            connection.close()
        except asyncio.CancelledError:
            self._table.remove(key)
            connection.close()
            raise
