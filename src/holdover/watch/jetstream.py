"""A NATS JetStream stream followed: its messages hold journal lines, its sequence numbers are the place.

The server is asked for what comes after the place and told nothing of how far the watch has got: where that is, only
the watch's own state knows, written in one file with what was judged. What the stream no longer holds, or holds
otherwise than it was read, is said and counted. A connection that breaks is made again, for as long as it takes.
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

from holdover.watch.source import BadSource, Place

_WAIT_S: Final = 0.2
_ANSWER_S: Final = 5.0
_LOOK_S: Final = 1.0
_BATCH: Final = 500
_INACTIVE_S: Final = 300.0
_NAME: Final = re.compile(r"[^\s.*>/\\]+")


class StreamAddress(msgspec.Struct, frozen=True, kw_only=True):
    """What `nats://[USER:PASSWORD@]HOST:PORT/STREAM[/SUBJECT]` names. `tls` for a URL that begins with tls://."""

    host: str
    port: int
    stream: str
    subject: str = ""
    user: str = ""
    password: str = ""
    tls: bool = False

    @classmethod
    def of(cls, url: str) -> StreamAddress:
        """Raises `BadSource` for a URL that names no stream."""
        right = "it should be nats://HOST:PORT/STREAM or nats://HOST:PORT/STREAM/SUBJECT"
        parts = urlsplit(url)
        try:
            port = parts.port or 4222
        except ValueError as problem:
            raise BadSource(f"{_bare(url)}: {problem}; {right}") from problem
        stream, _, subject = parts.path.removeprefix("/").partition("/")
        if not parts.hostname or not _NAME.fullmatch(stream) or re.search(r"\s", subject):
            raise BadSource(f"{_bare(url)}: names no stream; {right}")
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
        """The source's name in a state and in what is said: without user and password."""
        return f"{self.server}/{self.stream}" + (f"/{self.subject}" if self.subject else "")


class Stream:
    """Follows one stream from `place` on. With `once` a server that does not answer is a problem, not a wait.

    Raises `BadSource` from `lines` where there is no such stream, or none that keeps its messages for all.
    """

    def __init__(self, address: StreamAddress, place: Place | None = None, *, once: bool = False) -> None:
        try:
            import nats  # noqa: F401 - asked for here, so that it is missed before anything begins
        except ImportError as problem:
            raise BadSource("following a NATS stream needs nats-py: pip install 'holdover[nats]'") from problem
        self.address = address
        self.place = msgspec.structs.replace(place) if place is not None else Place()
        self.told: list[str] = []
        self._once = once
        self._runner = asyncio.Runner()
        self._client: Any = None
        self._pull: Any = None
        self._until: int | None = None
        self._pending = 0
        self._seen = False
        self._away = ""
        self._next_look = 0.0

    @property
    def ended(self) -> bool:
        """Whether what the stream held when it was first looked at has been given."""
        return self._until is not None and (self.place.sequence >= self._until or not self._pending)

    @property
    def behind(self) -> bool:
        """Whether the stream holds more, as far as is known, than it has given."""
        return self._pull is not None and self._pending > 0

    def lines(self, most: int = 5000) -> list[bytes]:
        """The lines of whole messages, at most so many messages; waits a moment when there are none."""
        return self._runner.run(self._read(most))

    def wait(self, seconds: float) -> None:
        """`lines` has waited already, where there is a server to wait for."""
        if self._pull is None:
            threading.Event().wait(seconds)

    def close(self) -> None:
        """Let go of the connection."""
        self._runner.run(self._hang_up())
        self._runner.close()

    # -- reading ------------------------------------------------------------------------------------------------

    async def _read(self, most: int) -> list[bytes]:
        import nats.errors

        if self._once and self._until is not None and self.place.sequence >= self._until:
            return []
        try:
            if self._pull is None:
                await self._open()
            try:
                messages = await self._pull.fetch(min(most, _BATCH), timeout=_WAIT_S)
            except TimeoutError:
                messages = []
            if not messages:
                await self._look()
            return await self._taken(messages)
        except (TimeoutError, nats.errors.Error, OSError) as problem:
            await self._hang_up()
            if self._once:
                raise BadSource(f"{self.address.name}: cannot be read: {_told(problem)}") from problem
            if not self._away:
                self._away = _told(problem)
                self.told.append(f"{self.address.name}: cannot be read now: {self._away}; trying until it can")
            return []

    async def _taken(self, messages: list[Any]) -> list[bytes]:
        place = self.place
        # One that was asked for before a connection broke may have been given since.
        messages = [one for one in messages if one.metadata.sequence.stream > place.sequence]
        if not messages:
            return []
        first = messages[0].metadata.sequence.stream
        kept_from = 0
        if self.address.subject and first > place.sequence + 1:  # other subjects lie between, or something is gone
            info = await self._client.jetstream(timeout=_ANSWER_S).stream_info(self.address.stream)
            kept_from = min(first, info.state.first_seq)
        found: list[bytes] = []
        for message in messages:
            sequence = message.metadata.sequence.stream
            if not self.address.subject and sequence > place.sequence + 1:
                self._lost(sequence - place.sequence - 1)
            elif kept_from > place.sequence + 1:
                self._perhaps_lost(kept_from - place.sequence - 1)
            place.sequence = sequence
            found += [line + b"\n" for line in message.data.split(b"\n") if line.strip()]
        self._pending = messages[-1].metadata.num_pending
        place.head = _digest(messages[-1].data)
        place.line += len(found)
        return found

    def _lost(self, count: int) -> None:
        self.place.lost += count
        after = f"after message {self.place.sequence}"
        self.told.append(f"{self.address.name}: {count} messages were lost before they could be judged, {after}")

    def _perhaps_lost(self, count: int) -> None:
        self.place.breaks += 1
        subject, after = self.address.subject, f"after message {self.place.sequence}"
        self.told.append(
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
            max_reconnect_attempts=1,  # it counts the first attempt, and without a bound goes on for minutes unsaid
            reconnect_time_wait=0,
            connect_timeout=int(_ANSWER_S),
            error_cb=_silent,
            name="holdover watch",
        )
        stream = self._client.jetstream(timeout=_ANSWER_S)
        try:
            info = await stream.stream_info(address.stream)
        except NotFoundError as problem:
            if self._seen:
                raise
            raise BadSource(f"{address.server}: there is no stream {address.stream}") from problem
        if info.config.retention != "limits":
            raise BadSource(
                f"{address.name}: keeps its messages by {info.config.retention}, so that they are gone when one reader "
                f"has them; a watch needs the retention limits"
            )
        await self._compare(stream, info)
        consumer = await stream.add_consumer(
            address.stream,
            ConsumerConfig(
                ack_policy=AckPolicy.NONE,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self.place.sequence + 1,
                filter_subject=address.subject or None,
                inactive_threshold=_INACTIVE_S,
                mem_storage=True,
            ),
        )
        self._pending = consumer.num_pending or 0
        self._pull = await stream.pull_subscribe_bind(consumer=consumer.name, stream=address.stream)
        if self._until is None:
            self._until = info.state.last_seq
        if self._away:
            self.told.append(f"{address.name}: can be read again")
        self._seen, self._away = True, ""

    async def _compare(self, stream: Any, info: Any) -> None:
        """Whether the stream still is what was read: made anew, put back to an earlier state, cut off at its front."""
        place, state, name = self.place, info.state, self.address.name
        made = info.created.isoformat() if info.created is not None else ""
        if place.made and place.made != made:
            self._broken(f"{name}: was made anew; what it held after message {place.sequence} is not known", 0)
        elif state.last_seq < place.sequence or not await self._same(stream, state.first_seq):
            self._broken(f"{name}: is not what it was at message {place.sequence}; reading it from its beginning", 0)
        place.made = made
        if not place.sequence:
            if state.first_seq > 1:
                self.told.append(f"{name}: begins with message {state.first_seq}; what was before is not judged")
            place.sequence = max(state.first_seq - 1, 0)
        elif state.first_seq > place.sequence + 1:
            missing = state.first_seq - place.sequence - 1
            if self.address.subject:
                self._perhaps_lost(missing)
            else:
                self._lost(missing)
            place.sequence, place.head = state.first_seq - 1, ""

    def _broken(self, told: str, sequence: int) -> None:
        self.told.append(told)
        self.place.breaks += 1
        self.place.sequence, self.place.head = sequence, ""

    async def _same(self, stream: Any, first: int) -> bool:
        """Whether the message that was read last, where the stream still holds it, is the one that was read."""
        from nats.js.errors import NotFoundError

        place = self.place
        if not place.head or place.sequence < first:
            return True
        try:
            message = await stream.get_msg(self.address.stream, seq=place.sequence)
        except NotFoundError:
            return True
        return _digest(message.data or b"") == place.head

    async def _look(self) -> None:
        """Nothing came: whether the server and what it was asked for are still there."""
        now = time.monotonic()
        if self._client.is_closed or now >= self._next_look:
            self._pending = (await self._pull.consumer_info()).num_pending or 0
            self._next_look = now + _LOOK_S

    async def _hang_up(self) -> None:
        client, self._client, self._pull = self._client, None, None
        if client is not None and not client.is_closed:
            await client.close()


async def _silent(problem: Exception) -> None:
    """What breaks is told where it is noticed."""


def _told(problem: BaseException) -> str:
    return str(problem).removeprefix("nats: ") or "it does not answer"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _bare(url: str) -> str:
    """A URL without what may be a password."""
    return re.sub(r"//[^/@]*@", "//", url)
