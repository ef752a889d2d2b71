"""The wire between a process and the venue: a TCP proxy that cuts, stalls and writes down what passes.

What the process sends is written down when it has left it, what the venue says when it is let through to the process:
a message that a cut or a stall swallows on its way was never heard.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

OUT, IN = "out", "in"
"""What the process sends, and what it hears."""

DIRECTIONS: Final = (OUT, IN)
_END: Final = re.compile(rb"\x0110=\d{3}\x01")
_READ: Final = 65536


class Wire:
    """A proxy at `port` in front of another port of loopback. `heard` gets each whole message that has passed.

    Each direction of each connection has a thread. `cut` takes the connections down and refuses others until `heal`;
    `stall` holds back one direction, or both, until `heal`.
    """

    def __init__(self, to_port: int, heard: Callable[[str, bytes], None] = lambda direction, message: None) -> None:
        self.to_port = to_port
        self.heard = heard
        self.connections = 0
        self._state = threading.Condition()
        self._stalled: set[str] = set()
        self._open = True
        self._ended = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, name="wire", daemon=True).start()

    def cut(self) -> None:
        """Take every connection down and refuse new ones."""
        with self._state:
            self._open = False
        self._hang_up()

    def stall(self, *directions: str) -> None:
        """Hold back what flows in these directions (`out`, `in`; both where none is said); connections stay."""
        with self._state:
            self._stalled = set(directions or DIRECTIONS)

    def heal(self) -> None:
        """Let connections and all that was held back through again."""
        with self._state:
            self._open = True
            self._stalled = set()
            self._state.notify_all()

    def close(self) -> None:
        """Let go of the port and of every connection."""
        with self._state:
            self._ended = True
            self._state.notify_all()
        self._server.close()
        self._hang_up()

    # -- inside -------------------------------------------------------------------------------------------------

    def _hang_up(self) -> None:
        with self._state:
            pairs, self._pairs = self._pairs, []
            self._state.notify_all()
        for pair in pairs:
            for one in pair:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            with self._state:
                welcome = self._open and not self._ended
            if not welcome:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.to_port))
            except OSError:
                near.close()
                continue
            pair = (near, far)
            for one in pair:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._state:
                self._pairs.append(pair)
                self.connections += 1
            for direction, source, target in ((OUT, near, far), (IN, far, near)):
                told = (direction, source, target, pair)
                threading.Thread(target=self._carry, args=told, name=f"wire {direction}", daemon=True).start()

    def _carry(
        self, direction: str, source: socket.socket, target: socket.socket, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        rest = b""
        with suppress(OSError):
            while True:
                data = source.recv(_READ)
                if not data:
                    break
                if direction == OUT:
                    rest = self._written_down(direction, rest + data)
                if not self._may_pass(direction, pair):
                    break
                if direction == IN:  # before it is there: what it brings about comes after it
                    rest = self._written_down(direction, rest + data)
                target.sendall(data)
        for one in pair:  # half a connection is none
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        source.close()
        with self._state:
            if pair in self._pairs:
                self._pairs.remove(pair)

    def _may_pass(self, direction: str, pair: tuple[socket.socket, socket.socket]) -> bool:
        """Wait while the direction is stalled; False when the connection has been cut meanwhile."""
        with self._state:
            while direction in self._stalled and pair in self._pairs and not self._ended:
                self._state.wait()
            return pair in self._pairs

    def _written_down(self, direction: str, data: bytes) -> bytes:
        """Tell of each whole message; returns what is left of it. What does not end like one is told with the next."""
        begin = 0
        for found in _END.finditer(data):
            self.heard(direction, data[begin : found.end()])
            begin = found.end()
        return data[begin:]
