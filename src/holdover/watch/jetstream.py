"""Follows a NATS JetStream stream: its messages hold journal lines, its sequence numbers are the offset.

The watch requests what comes after the offset and sends the server no acknowledgement: only the watch's own
state knows the offset, in one file with the evaluation. The watch reports and counts messages that the stream
no longer holds or holds differently. It reconnects a broken connection until it succeeds.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from holdover.watch.source import Offset, SourceError

_WAIT_S: Final = 0.2
_ANSWER_TIMEOUT_S: Final = 5.0
_CHECK_INTERVAL_S: Final = 1.0
_BATCH: Final = 500
_INACTIVE_TIMEOUT_S: Final = 300.0
_NAME: Final = re.compile(r"[^\s.*>/\\]+")


class StreamAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of `nats://[USER:PASSWORD@]HOST:PORT/STREAM[/SUBJECT]`. `tls` is true for a URL that begins with
    tls://.
    """

    host: str
    port: int
    stream: str
    subject: str = ""
    user: str = ""
    password: str = ""
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> StreamAddress:
        """Parse a URL. Raises `SourceError` when it names no stream."""
        expected = "it should be nats://HOST:PORT/STREAM or nats://HOST:PORT/STREAM/SUBJECT"
        parts = urlsplit(url)
        try:
            port = parts.port or 4222
        except ValueError as problem:
            raise SourceError(f"{_without_credentials(url)}: {problem}; {expected}") from problem
        stream, _, subject = parts.path.removeprefix("/").partition("/")
        if not parts.hostname or not _NAME.fullmatch(stream) or re.search(r"\s", subject):
            raise SourceError(f"{_without_credentials(url)}: names no stream; {expected}")
        return cls(
            host=parts.hostname,
            port=port,
            stream=stream,
            subject=subject,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            tls=parts.scheme == "tls",
        )

    @property
    def server(self) -> str:
        """The server's URL, without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.tls else 'nats'}://{host}:{self.port}"

    @property
    def name(self) -> str:
        """The source's name in states and messages, without user and password."""
        return f"{self.server}/{self.stream}" + (f"/{self.subject}" if self.subject else "")


class Stream:
    """Follows one stream from `offset` on. With `single_pass`, a server that does not answer is an error, not a wait.

    `read_lines` raises `SourceError` when the stream does not exist or does not keep its messages for all readers.
    """

    def __init__(self, address: StreamAddress, offset: Offset | None = None, *, single_pass: bool = False) -> None:
        try:
            import nats  # noqa: F401 - asked for here, so that it is missed before anything begins
        except ImportError as problem:
            raise SourceError("following a NATS stream needs nats-py: pip install 'holdover[nats]'") from problem
        self.address = address
        self.offset = msgspec.structs.replace(offset) if offset is not None else Offset()
        self.notices: list[str] = []
        self._single_pass = single_pass
        self._runner = asyncio.Runner()
        self._client: Any = None
        self._pull: Any = None
        self._end_sequence: int | None = None
        self._pending = 0
        self._has_connected = False
        self._outage = ""
        self._next_check_s = 0.0

    @property
    def is_exhausted(self) -> bool:
        """Whether every message that the stream held at the first read has been returned."""
        return self._end_sequence is not None and (self.offset.sequence >= self._end_sequence or not self._pending)

    @property
    def is_behind(self) -> bool:
        """Whether the stream is known to hold more messages."""
        return self._pull is not None and self._pending > 0

    def read_lines(self, count_max: int = 5000) -> list[bytes]:
        """Return the lines of at most `count_max` messages; waits briefly when there are none.

        Raises `SourceError`.
        """
        return self._runner.run(self._read_messages(count_max))

    def wait(self, seconds: float) -> None:
        """Wait while there is no connection; `read_lines` already waits for a connected server."""
        if self._pull is None:
            threading.Event().wait(seconds)

    def forget(self, saved: Offset) -> None:
        """Nothing: the file and the stream belong to others."""

    def close(self) -> None:
        """Close the connection."""
        self._runner.run(self._disconnect())
        self._runner.close()

    # -- reading ------------------------------------------------------------------------------------------------

    async def _read_messages(self, count_max: int) -> list[bytes]:
        import nats.errors

        if self._single_pass and self._end_sequence is not None and self.offset.sequence >= self._end_sequence:
            return []
        try:
            if self._pull is None:
                await self._open()
            try:
                messages = await self._pull.fetch(min(count_max, _BATCH), timeout=_WAIT_S)
            except TimeoutError:
                messages = []
            if not messages:
                await self._check_server()
            return await self._take_messages(messages)
        except (TimeoutError, nats.errors.Error, OSError) as problem:
            await self._disconnect()
            if self._single_pass:
                raise SourceError(f"{self.address.name}: cannot be read: {_describe_error(problem)}") from problem
            if not self._outage:
                self._outage = _describe_error(problem)
                self.notices.append(f"{self.address.name}: cannot be read now: {self._outage}; trying until it can")
            return []

    async def _take_messages(self, messages: list[Any]) -> list[bytes]:
        offset = self.offset
        # A message requested before a connection broke may have been returned since.
        messages = [message for message in messages if message.metadata.sequence.stream > offset.sequence]
        if not messages:
            return []
        first = messages[0].metadata.sequence.stream
        first_stored = 0
        if self.address.subject and first > offset.sequence + 1:  # other subjects lie between, or messages are gone
            info = await self._client.jetstream(timeout=_ANSWER_TIMEOUT_S).stream_info(self.address.stream)
            first_stored = min(first, info.state.first_seq)
        lines: list[bytes] = []
        for message in messages:
            sequence = message.metadata.sequence.stream
            if not self.address.subject and sequence > offset.sequence + 1:
                self._report_lost(sequence - offset.sequence - 1)
            elif first_stored > offset.sequence + 1:
                self._report_possibly_lost(first_stored - offset.sequence - 1)
            offset.sequence = sequence
            lines += [line + b"\n" for line in message.data.split(b"\n") if line.strip()]
        self._pending = messages[-1].metadata.num_pending
        offset.head_digest = _digest(messages[-1].data)
        offset.line += len(lines)
        return lines

    def _report_lost(self, count: int) -> None:
        self.offset.lost_count += count
        after = f"after message {self.offset.sequence}"
        self.notices.append(f"{self.address.name}: {count} messages were lost before they could be judged, {after}")

    def _report_possibly_lost(self, count: int) -> None:
        self.offset.break_count += 1
        subject, after = self.address.subject, f"after message {self.offset.sequence}"
        self.notices.append(
            f"{self.address.name}: up to {count} messages were lost before they could be judged, {after}: the stream "
            f"no longer says how many of them were of {subject}"
        )

    # -- the connection -----------------------------------------------------------------------------------------

    async def _open(self) -> None:
        import nats
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
        from nats.js.errors import NotFoundError

        address = self.address
        self._client = await nats.connect(
            address.server,
            user=address.user or None,
            password=address.password or None,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # counts the first attempt; unlimited retries are silent
            reconnect_time_wait=0,
            connect_timeout=int(_ANSWER_TIMEOUT_S),
            error_cb=_ignore_error,
            name="holdover watch",
        )
        stream = self._client.jetstream(timeout=_ANSWER_TIMEOUT_S)
        try:
            info = await stream.stream_info(address.stream)
        except NotFoundError as problem:
            if self._has_connected:
                raise
            raise SourceError(f"{address.server}: there is no stream {address.stream}") from problem
        if info.config.retention != "limits":
            raise SourceError(
                f"{address.name}: keeps its messages by {info.config.retention}, so that they are gone when one reader "
                f"has them; a watch needs the retention limits"
            )
        await self._check_continuity(stream, info)
        consumer = await stream.add_consumer(
            address.stream,
            ConsumerConfig(
                ack_policy=AckPolicy.NONE,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self.offset.sequence + 1,
                filter_subject=address.subject or None,
                inactive_threshold=_INACTIVE_TIMEOUT_S,
                mem_storage=True,
            ),
        )
        self._pending = consumer.num_pending or 0
        self._pull = await stream.pull_subscribe_bind(consumer=consumer.name, stream=address.stream)
        if self._end_sequence is None:
            self._end_sequence = info.state.last_seq
        if self._outage:
            self.notices.append(f"{address.name}: can be read again")
        self._has_connected, self._outage = True, ""

    async def _check_continuity(self, stream: Any, info: Any) -> None:
        """Check that the stream is still the one that was read: not recreated, reset or truncated at its front."""
        offset, state, name = self.offset, info.state, self.address.name
        created = info.created.isoformat() if info.created is not None else ""
        if offset.created and offset.created != created:
            self._report_break(f"{name}: was made anew; what it held after message {offset.sequence} is not known", 0)
        elif state.last_seq < offset.sequence or not await self._last_message_matches(stream, state.first_seq):
            self._report_break(
                f"{name}: is not what it was at message {offset.sequence}; reading it from its beginning", 0
            )
        offset.created = created
        if not offset.sequence:
            if state.first_seq > 1:
                self.notices.append(f"{name}: begins with message {state.first_seq}; what was before is not judged")
            offset.sequence = max(state.first_seq - 1, 0)
        elif state.first_seq > offset.sequence + 1:
            missing = state.first_seq - offset.sequence - 1
            if self.address.subject:
                self._report_possibly_lost(missing)
            else:
                self._report_lost(missing)
            offset.sequence, offset.head_digest = state.first_seq - 1, ""

    def _report_break(self, notice: str, sequence: int) -> None:
        self.notices.append(notice)
        self.offset.break_count += 1
        self.offset.sequence, self.offset.head_digest = sequence, ""

    async def _last_message_matches(self, stream: Any, first: int) -> bool:
        """Whether the last message read, if the stream still holds it, is unchanged."""
        from nats.js.errors import NotFoundError

        offset = self.offset
        if not offset.head_digest or offset.sequence < first:
            return True
        try:
            message = await stream.get_msg(self.address.stream, seq=offset.sequence)
        except NotFoundError:
            return True
        return _digest(message.data or b"") == offset.head_digest

    async def _check_server(self) -> None:
        """Check that the server and the consumer still exist after a read without messages."""
        now_s = time.monotonic()
        if self._client.is_closed or now_s >= self._next_check_s:
            self._pending = (await self._pull.consumer_info()).num_pending or 0
            self._next_check_s = now_s + _CHECK_INTERVAL_S

    async def _disconnect(self) -> None:
        client, self._client, self._pull = self._client, None, None
        if client is not None and not client.is_closed:
            await client.close()


async def _ignore_error(problem: Exception) -> None:
    """Ignore the error: the code that notices a broken connection reports it."""


def _describe_error(problem: BaseException) -> str:
    return str(problem).removeprefix("nats: ") or "it does not answer"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _without_credentials(url: str) -> str:
    """Return a URL without anything that may be a password."""
    return re.sub(r"//[^/@]*@", "//", url)
