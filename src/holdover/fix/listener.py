"""Binds a QuickFIX acceptor to the address that is asked for.

QuickFIX has no setting for the address of an acceptor: it listens at every network interface. So it listens at a free
port first, and as soon as it does, its listening socket is replaced (`dup2`) by one of ours, which is bound to the
right address. For the moment between the two, a random port accepts connections at every interface; who connects
there meets the same session with the same checks. An own listener that forwards to QuickFIX would leave QuickFIX's
port open for good.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from holdover.fix.engine import FixEngineError

_BACKLOG: Final = 16
_DESCRIPTORS: Final = (Path("/proc/self/fd"), Path("/dev/fd"))


class EngineListeners:
    """The listening sockets of an acceptor, one for each port.

    Args:
        host: the IPv4 address or host name to listen at; `0.0.0.0` is every interface.
        ports: the ports to listen at; 0 is a free one.

    Raises `FixEngineError` when an address cannot be used.
    """

    def __init__(self, host: str, ports: Iterable[int]) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._engine_ports: dict[int, int] = {}
        try:
            for port in sorted(set(ports)):
                self._sockets[port] = listen(host, port)
                self._engine_ports[port] = _free_port(self._engine_ports.values())
        except BaseException:
            self.close()
            raise

    def engine_port(self, port: int) -> int:
        """Returns the port to give to QuickFIX in place of `port`."""
        return self._engine_ports[port]

    def bound_port(self, port: int) -> int:
        """Returns the port at which the acceptor listens; another than `port` when that is 0."""
        return int(self._sockets[port].getsockname()[1])

    def attach(self) -> None:
        """Put our sockets in place of QuickFIX's, right after it has started.

        Raises `FixEngineError` when QuickFIX's sockets cannot be found; it must then be stopped.
        """
        descriptors = {port: descriptor for descriptor, port in _listening_ports()}
        for port, engine_port in self._engine_ports.items():
            if engine_port not in descriptors:
                raise FixEngineError(f"port {port}: QuickFIX cannot be bound to one address on this system")
        for port, engine_port in self._engine_ports.items():
            os.dup2(self._sockets[port].fileno(), descriptors[engine_port], inheritable=False)

    def close(self) -> None:
        """Close our sockets; QuickFIX has copies of its own after `attach`."""
        for listener in self._sockets.values():
            listener.close()


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket at an IPv4 address or host name. Raises `FixEngineError`."""
    try:
        if isinstance(ipaddress.ip_address(host), ipaddress.IPv6Address):
            raise FixEngineError(f"[{host}]:{port}: QuickFIX listens at IPv4 addresses only; give one of these")
    except ValueError:
        pass  # a name, which the system resolves
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as problem:
        listener.close()
        raise FixEngineError(
            f"port {port} at {host} cannot be had: {problem.strerror}; give another address or --port"
        ) from None
    return listener


def _free_port(taken: Iterable[int]) -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = int(probe.getsockname()[1])
    return port if port not in set(taken) else _free_port(taken)


def own_sockets() -> Iterator[tuple[int, socket.socket]]:
    """Yields each socket of this process, with its descriptor; it is closed again after its turn."""
    directory = next((path for path in _DESCRIPTORS if path.is_dir()), None)
    for name in os.listdir(directory) if directory is not None else []:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as own:
            yield int(name), own


def _listening_ports() -> list[tuple[int, int]]:
    """Returns (descriptor, port) of every listening IPv4 socket of this process."""
    ports = []
    for descriptor, own in own_sockets():
        with contextlib.suppress(OSError):
            if own.family == socket.AF_INET and own.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                ports.append((descriptor, int(own.getsockname()[1])))
    return ports
