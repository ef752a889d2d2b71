"""TLS for a FIX session: a relay in this process between the engine, over loopback, and the counterparty, over TLS.

QuickFIX's own TLS checks a certificate but not the name in it, so any certificate of the same authority would do. The
relay uses Python's `ssl`: TLS 1.2 or later, the name is checked, and a client certificate is sent or required. It
forwards bytes and stores nothing: what the engine has not received is requested again by the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec

from holdover.fix.engine import FixEngineError
from holdover.fix.listener import own_sockets
from holdover.runtime.secrets import SecretError, check_private_key

_CHUNK: Final = 64 * 1024
_HANDSHAKE_TIMEOUT_S: Final = 10.0
_CONNECT_TIMEOUT_S: Final = 10.0
_CONNECTIONS_MAX: Final = 16
LOOPBACK: Final = "127.0.0.1"


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table [fix.tls]: PEM files and the name to expect.

    `ca` are the authorities to trust; default: the system's, and when listening no client certificate is required.
    `cert` and `key` are our certificate; required when listening. `name` is the name in the venue's certificate;
    default: the host of the URL. Relative paths are relative to the working directory.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    name: Annotated[str, msgspec.Meta(max_length=255)] = ""

    def client_context(self) -> ssl.SSLContext:
        """Returns the context of a session that we open. Raises `FixEngineError`."""
        return self._load(lambda: ssl.create_default_context(cafile=self.ca or None))

    def server_context(self) -> ssl.SSLContext:
        """Returns the context of a session that the counterparty opens. Raises `FixEngineError`."""
        if not self.cert:
            raise FixEngineError("[fix.tls] cert and key: a listener over TLS needs both")

        def make() -> ssl.SSLContext:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca or None)
            if self.ca:
                context.verify_mode = ssl.CERT_REQUIRED
            return context

        return self._load(make)

    def _load(self, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        if bool(self.cert) != bool(self.key):
            raise FixEngineError("[fix.tls] cert and key belong together: give both")
        try:
            context = make()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert:
                check_private_key(Path(self.key))
                context.load_cert_chain(self.cert, self.key)
        except SecretError as problem:
            raise FixEngineError(f"[fix.tls] key: {problem}") from None
        except (ssl.SSLError, OSError) as problem:
            raise FixEngineError(f"[fix.tls] the files cannot be used: {problem.strerror or problem}") from None
        return context


class TlsRelay:
    """Forwards each connection that `listener` accepts to `target`. One side of the two is TLS.

    Args:
        listener: a listening socket; the relay closes it.
        target: the host and port to connect to.
        server: the context of the accepted side; None when that side is the engine.
        client: the context of the side that connects; None when that side is the engine.
        server_name: the name to expect in the certificate of `target`.
        notify: receives each new reason why a connection failed, in a sentence.
    """

    def __init__(
        self,
        listener: socket.socket,
        target: tuple[str, int],
        *,
        server: ssl.SSLContext | None = None,
        client: ssl.SSLContext | None = None,
        server_name: str = "",
        notify: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._listener, self._target = listener, target
        self._server_context, self._client_context, self._server_name = server, client, server_name
        self._notify, self._last_notice = notify, ""
        self._connection_count = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdover-fix-tls", daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def port(self) -> int:
        """The port at which the relay listens."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Close every connection and the listening socket."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._listener.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        # The handshake of TLS is awaited in `_forward`, so that its failure can be reported.
        server = self._loop.run_until_complete(
            asyncio.start_server(
                self._forward,
                sock=self._listener,
                ssl=self._server_context,
                ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S if self._server_context is not None else None,
            )
        )
        self._loop.set_exception_handler(lambda loop, context: None)  # a stranger's bad handshake is no problem of ours
        self._started.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection_count += 1
        try:
            if self._connection_count > _CONNECTIONS_MAX or not self._is_allowed(writer):
                return
            target = await self._connect()
            if target is None:
                return
            target_reader, target_writer = target
            try:
                pumps = [
                    asyncio.create_task(_pump(reader, target_writer)),
                    asyncio.create_task(_pump(target_reader, writer)),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
            finally:
                target_writer.close()
        finally:
            self._connection_count -= 1
            writer.close()

    def _is_allowed(self, writer: asyncio.StreamWriter) -> bool:
        """Whether the accepted side may use the relay: the counterparty over TLS, else this process only.

        The engine connects over loopback, where another user of the host could connect as well.
        """
        if self._server_context is not None:
            return True
        peer = writer.get_extra_info("peername")
        for _, own in own_sockets():
            with contextlib.suppress(OSError):
                if own.family == socket.AF_INET and own.getsockname() == peer:
                    return True
        return False

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        host, port = self._target
        is_tls = self._client_context is not None
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                connection = await asyncio.open_connection(
                    host,
                    port,
                    ssl=self._client_context,
                    server_hostname=(self._server_name or host) if is_tls else None,
                    ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S if is_tls else None,
                )
        except ssl.SSLCertVerificationError as problem:
            self._report(f"the certificate of {host} is refused: {problem.verify_message}")
        except ssl.SSLError as problem:
            self._report(f"no TLS with {host}, port {port}: {problem.reason or problem}")
        except (OSError, TimeoutError) as problem:
            self._report(f"no connection to {host}, port {port}: {getattr(problem, 'strerror', None) or 'no answer'}")
        else:
            self._last_notice = ""
            return connection
        return None

    def _report(self, notice: str) -> None:
        if notice != self._last_notice:
            self._last_notice = notice
            self._notify(f"{notice}; trying until it works")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
