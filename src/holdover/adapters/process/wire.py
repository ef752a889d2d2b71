"""The wire between a process and the venue: a TCP proxy that cuts, stalls and records messages.

It records a message of the process when it has left the process, and a message of the venue when it is let
through to the process. A message that a cut or a stall loses on its way to the process is not recorded.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

OUTBOUND, INBOUND = "out", "in"
"""The direction from the process to the venue, and the opposite one."""

DIRECTIONS: Final = (OUTBOUND, INBOUND)
_END: Final = re.compile(rb"\x0110=\d{3}\x01")
_READ: Final = 65536


class WireProxy:
    """A proxy at `port` in front of another loopback port. `on_message` is called for each complete message.

    Each direction of each connection has a thread. `drop_connections` closes the connections and refuses new ones
    until `heal`; `stall` holds back one or both directions until `heal`.
    """

    def __init__(
        self, to_port: int, on_message: Callable[[str, bytes], None] = lambda direction, message: None
    ) -> None:
        self.to_port = to_port
        self.on_message = on_message
        self.connections = 0
        self._state = threading.Condition()
        self._stalled: set[str] = set()
        self._is_open = True
        self._is_closed = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept_connections, name="wire", daemon=True).start()

    def drop_connections(self) -> None:
        """Close every connection and refuse new ones."""
        with self._state:
            self._is_open = False
        self._shutdown_connections()

    def stall(self, *directions: str) -> None:
        """Hold back what flows in these directions (`out`, `in`; both by default). Connections stay open."""
        with self._state:
            self._stalled = set(directions or DIRECTIONS)

    def heal(self) -> None:
        """Allow connections and release everything that was held back."""
        with self._state:
            self._is_open = True
            self._stalled = set()
            self._state.notify_all()

    def close(self) -> None:
        """Close the port and every connection."""
        with self._state:
            self._is_closed = True
            self._state.notify_all()
        self._server.close()
        self._shutdown_connections()

    # -- inside -------------------------------------------------------------------------------------------------

    def _shutdown_connections(self) -> None:
        with self._state:
            pairs, self._pairs = self._pairs, []
            self._state.notify_all()
        for pair in pairs:
            for connection in pair:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept_connections(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            with self._state:
                is_accepted = self._is_open and not self._is_closed
            if not is_accepted:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.to_port))
            except OSError:
                near.close()
                continue
            pair = (near, far)
            for connection in pair:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._state:
                self._pairs.append(pair)
                self.connections += 1
            for direction, source, target in ((OUTBOUND, near, far), (INBOUND, far, near)):
                arguments = (direction, source, target, pair)
                threading.Thread(target=self._forward, args=arguments, name=f"wire {direction}", daemon=True).start()

    def _forward(
        self, direction: str, source: socket.socket, target: socket.socket, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        unfinished = b""
        with suppress(OSError):
            while True:
                data = source.recv(_READ)
                if not data:
                    break
                if direction == OUTBOUND:
                    unfinished = self._report_messages(direction, unfinished + data)
                if not self._may_pass(direction, pair):
                    break
                if direction == INBOUND:  # before it is delivered, so that its consequences come after it
                    unfinished = self._report_messages(direction, unfinished + data)
                target.sendall(data)
        for connection in pair:  # a half-open connection is useless
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        source.close()
        with self._state:
            if pair in self._pairs:
                self._pairs.remove(pair)

    def _may_pass(self, direction: str, pair: tuple[socket.socket, socket.socket]) -> bool:
        """Wait while the direction is stalled; return False when the connection was cut meanwhile."""
        with self._state:
            while direction in self._stalled and pair in self._pairs and not self._is_closed:
                self._state.wait()
            return pair in self._pairs

    def _report_messages(self, direction: str, data: bytes) -> bytes:
        """Report each complete message; return the unfinished rest, which is reported with the next data."""
        begin = 0
        for match in _END.finditer(data):
            self.on_message(direction, data[begin : match.end()])
            begin = match.end()
        return data[begin:]
