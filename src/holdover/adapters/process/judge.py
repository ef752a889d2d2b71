"""What a process said and heard over FIX, as it passed the wire: written down, judged by the catalogue, compared.

The messages are judged in the time of the recorded day: SendingTime is the wall clock's, by which two days that are
run one after the other would be one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from holdover.adapters.fix.messages import Fields, stamp, stamped
from holdover.adapters.process.engine_store import redacted_message
from holdover.adapters.process.wire import IN, OUT
from holdover.audit import Audit
from holdover.catalogue import Catalogue
from holdover.runtime.redaction import Rules

_TIMES: Final = re.compile(rb"\x01(52|122)=(\d{8}-\d\d:\d\d:\d\d)")
_RULES: Final = Rules.usual()
_REQUESTS: Final = {"D": "new", "F": "cancel", "G": "replace"}
_PENDING: Final = ("6", "A", "E")


class Era(msgspec.Struct, frozen=True):
    """From `wall_ns` on, the recorded time was `day_ns` and went on `pace` times as fast as the wall clock."""

    wall_ns: int
    day_ns: int
    pace: float

    def at(self, wall_ns: int) -> int:
        """The recorded time at a time of the wall clock."""
        return self.day_ns + int(max(0, wall_ns - self.wall_ns) * self.pace)


class Passed(msgspec.Struct, frozen=True):
    """A message that has passed the wire: when, in the recorded day, in which direction, and as it stood."""

    time_ns: int
    direction: str
    text: bytes


class Act(msgspec.Struct, frozen=True):
    """What a process asked for or was told, as it is compared with another run's: without names, ids and prices.

    `said` has it in words, with them.
    """

    time_ns: int
    direction: str
    what: tuple[str, ...]
    said: str


class Transcript:
    """The messages of one run, in the order in which they passed; each is in the file before it is let through.

    A Logon is in the file without its password.
    """

    def __init__(self, path: Path, now_ns: Callable[[], int]) -> None:
        self.path = path
        self.passed: list[Passed] = []
        self._now_ns = now_ns
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(path, "wb", buffering=0)  # noqa: SIM115 - held as long as the run is

    def heard(self, direction: str, message: bytes) -> None:
        """One message passes."""
        with self._lock:
            one = Passed(self._now_ns(), direction, message)
            self.passed.append(one)
            if not self._file.closed:
                told = redacted_message(message, _RULES) if b"\x0135=A\x01" in message else message
                self._file.write(f"{stamp(one.time_ns)} {direction} ".encode() + told + b"\n")

    def close(self) -> None:
        """The run is over."""
        with self._lock:
            self._file.close()


def judged(
    catalogue: Catalogue, passed: Sequence[Passed], eras: Sequence[Era], name: str, before: bytes = b""
) -> Audit:
    """The catalogue's judgement of what passed. `before` is the memory of the judgement of the day before."""
    audit = Audit(catalogue)
    if before:
        audit.load(before)
    audit.begin(name)
    audit.lines(dated(one, eras) for one in passed)
    audit.end()
    return audit


def dated(one: Passed, eras: Sequence[Era]) -> bytes:
    """A message with its sending times in the recorded day; BodyLength stays, CheckSum is that of what stands there."""
    own = stamp(one.time_ns)[:17].encode()

    def moved(found: re.Match[bytes]) -> bytes:
        if found[1] == b"52":
            return b"\x0152=" + own
        era = max((era for era in eras if era.wall_ns <= _wall(found[2])), key=lambda era: era.wall_ns, default=None)
        told = stamp(era.at(_wall(found[2])))[:17].encode() if era is not None else own
        return b"\x01122=" + told

    body = _TIMES.sub(moved, one.text)
    end = body.rfind(b"\x0110=") + 1
    return body[:end] + b"10=%03d\x01" % (sum(body[:end]) % 256)


def _wall(text: bytes) -> int:
    return stamped(text.decode())


def acts(passed: Sequence[Passed], direction: str) -> list[Act]:
    """What was asked for (`out`) or told (`in`) about orders, each once."""
    found: list[Act] = []
    seen: set[tuple[str, ...]] = set()
    for one in passed:
        if one.direction != direction:
            continue
        fields = Fields(one.text.decode("utf-8", "replace"))
        act = _asked(one, fields) if direction == OUT else _told(one, fields)
        mark = (fields.kind, fields.get(11), fields.get(17), fields.get(41), fields.get(150))
        if act is not None and mark not in seen:
            seen.add(mark)
            found.append(act)
    return found


def _asked(one: Passed, fields: Fields) -> Act | None:
    kind = _REQUESTS.get(fields.kind)
    if kind is None:
        return None
    side = "sell" if fields.get(54) in ("2", "5") else "buy"
    what = (kind, fields.get(1), fields.get(55), side, fields.get(38), fields.get(59, "0"))
    said = f"{kind} {fields.get(11)} {fields.get(1)} {side} {fields.get(38)} {fields.get(55)}"
    said += f" at {fields.get(44)}" if fields.get(44) else ""
    return Act(one.time_ns, OUT, what, said + (f" for {fields.get(41)}" if fields.get(41) else ""))


def _told(one: Passed, fields: Fields) -> Act | None:
    if fields.kind != "8" or fields.get(150) in _PENDING or not fields.get(11):
        return None  # what follows it says more; and that there is nothing is said of no order
    side = "sell" if fields.get(54) in ("2", "5") else "buy"
    exec_type = _EXEC.get(fields.get(150), fields.get(150))
    what = (exec_type, fields.get(1), fields.get(55), side, fields.get(38))
    said = f"{exec_type} {fields.get(11)} {side} {fields.get(14)}/{fields.get(38)} {fields.get(55)}"
    return Act(one.time_ns, IN, what, said)


_EXEC: Final = {
    "0": "New",
    "4": "Canceled",
    "5": "Replaced",
    "8": "Rejected",
    "C": "Expired",
    "D": "Restated",
    "F": "Trade",
    "3": "DoneForDay",
    "I": "OrderStatus",
    "G": "TradeCorrect",
    "H": "TradeCancel",
}


class Parted(msgspec.Struct, frozen=True):
    """Where two runs first part: what each asked for, or was told, there. Empty words where it was nothing."""

    time_ns: int
    direction: str
    carried: str
    control: str


def parted(carried: Sequence[Passed], control: Sequence[Passed]) -> Parted | None:
    """The first point where what was asked for or told differs between two runs; None where it never does."""
    found = [one for way in (OUT, IN) if (one := _parted(acts(carried, way), acts(control, way), way)) is not None]
    return min(found, key=lambda one: one.time_ns, default=None)


def _parted(carried: list[Act], control: list[Act], direction: str) -> Parted | None:
    for number in range(max(len(carried), len(control))):
        one = carried[number] if number < len(carried) else None
        other = control[number] if number < len(control) else None
        if one is None or other is None or one.what != other.what:
            first: Any = min((act for act in (one, other) if act is not None), key=lambda act: act.time_ns)
            return Parted(first.time_ns, direction, one.said if one else "", other.said if other else "")
    return None
