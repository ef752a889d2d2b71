"""Where a live shadow's inputs come from: the incumbent's journal or FIX log, market data in lines or of a tap."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.adapters.fix.messages import Codec
from holdover.harness.session import Session
from holdover.harness.subject import factory_named
from holdover.model import CancelReject, ExecType, ExecutionReport, Inbound, Instrument, MsgType, Outbound, Request
from holdover.recording import bundled
from holdover.recording.tap import Recorder, TapReader
from holdover.shadow.feeds import LineFeed, MarketReader, TapFeed
from holdover.shadow.incumbent import BadReport, Incumbent, told_at
from holdover.shadow.inputs import Inputs, Item
from holdover.world import Reported

from .fixlog import Writer

S = 1_000_000_000
ACME = bundled().get("ACME", bundled().days("ACME")[0]).meta.instrument
BOLT = bundled().get("BOLT", bundled().days("BOLT")[0]).meta.instrument

# -- the incumbent: one day, as its journal and as its FIX logs tell it ---------------------------------------------


Day = tuple[list[bytes], dict[str, list[bytes]]]


class Logged:
    """Writes what passes the link into a FIX log."""

    def __init__(self, session: Session, version: str, separator: bytes) -> None:
        self.writer = Writer(version, separator)
        self.session, self.codec = session, Codec([ACME])

    def out(self, message: Outbound) -> None:
        """A request leaves."""
        if isinstance(message, Request):
            wire = self.codec.outbound(message, now_ns=self.session.clock.now_ns, trade_date=self.session.trade_date)
            self._write("C", wire.kind, wire.fields)

    def heard(self, message: Inbound) -> None:
        """A report has arrived."""
        if isinstance(message, (ExecutionReport, CancelReject)):
            wire = self.codec.inbound(message)
            fields = wire.fields
            if self.writer.version == "FIX.4.2" and isinstance(message, ExecutionReport):
                kinds = {ExecType.TRADE_CANCEL: "1", ExecType.TRADE_CORRECT: "2"}
                traded = message.exec_type in (ExecType.TRADE, *kinds)
                ours = "2" if message.leaves_qty == 0 else "1"
                fields = [(tag, ours if traded and tag == 150 else value) for tag, value in fields]
                fields.append((20, kinds.get(message.exec_type, "0")))
            self._write("V", wire.kind, fields)

    def _write(self, who: str, kind: str, fields: list[tuple[int, Any]]) -> None:
        self.writer.raw(who, kind, [(str(tag), value) for tag, value in fields], sent="20241127-14:30:00.250")


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """The journal and the FIX logs of part of a day on which the venue takes back, corrects and cancels, too."""
    place = tmp_path_factory.mktemp("incumbent")
    days = bundled().days("ACME")[:1]
    session = Session(factory_named("desk"), bundled(), ["ACME"], place, days=days)
    logs = {
        f"{version} {separator!r}": Logged(session, version, separator)
        for version in ("FIX.4.2", "FIX.4.4")
        for separator in (b"\x01", b"|")
    }
    sending = session.link.on_send

    sent = [0]

    def on_send(message: Outbound) -> None:
        if isinstance(message, Request) and message.msg_type == MsgType.ORDER_CANCEL_REPLACE_REQUEST:
            sent[0] += 1
            session.venue.refuse_next = int(sent[0] % 4 == 0)
        for log in logs.values():
            log.out(message)
        if sending is not None:
            sending(message)

    session.link.on_send = on_send
    session.begin()
    assert session.link.end.listener is not None
    on_message = session.link.end.listener.on_message

    def heard(seq: int, poss_dup: bool, message: Inbound) -> None:
        for log in logs.values():
            log.heard(message)
        on_message(seq, poss_dup, message)

    session.link.end.listener.on_message = heard  # type: ignore[method-assign]
    venue, rng = session.venue, random.Random(7)
    for step in range(1, 40):
        session.run(step / 100)
        trades = [one for one in venue.trades if one.exec_type == ExecType.TRADE]
        if trades and step % 3 == 0:
            named = rng.choice(trades)
            venue.bust(named.exec_id) if step % 2 else venue.correct(named.exec_id, named.last_qty, named.last_px + 1)
        live = [order for order in venue.orders.values() if order.is_open]
        if live and step % 5 == 0:
            order = rng.choice(live)
            venue.cancel(order.cl_ord_id)
            if step % 10 == 0:
                venue.fill_late(order.cl_ord_id, 1)
        if step % 7 == 0:
            venue.refuse_next = 1  # a replace, or a new order
    session.end(now=True)
    session.close()
    lines = (place / "journal.jsonl").read_bytes().splitlines(keepends=True)
    return lines, {name: log.writer.log() for name, log in logs.items()}


def reader() -> Incumbent:
    """A reader of one instrument."""
    return Incumbent({"ACME": ACME})


def read(lines: list[bytes], incumbent: Incumbent | None = None) -> list[Reported]:
    """What lines tell."""
    incumbent = incumbent or reader()
    return [one for line in lines for one in incumbent.line(line)]


def by_order(reports: list[Reported]) -> dict[str, list[tuple[Any, ...]]]:
    """What was told of each order, in its order."""
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for one in reports:
        told = (one.last_qty, one.last_px, one.exec_id, one.exec_ref_id) if one.last_qty or one.exec_id else ()
        bare = one.what in ("bust",)
        found[one.order].append((one.what, one.asked, told[2:] if bare else told if one.what != "new" else ()))
    return dict(found)


def test_a_journal_and_a_fix_log_of_a_day_tell_the_same(day: Day) -> None:
    """Every order's reports, in either version and with either separator."""
    journal, logs = day
    expected = read(journal)
    assert {one.what for one in expected} >= {
        "sent", "new", "rejected", "trade", "filled", "replaced", "canceled", "expired", "refused", "bust", "correct",
    }  # fmt: skip
    assert {one.asked for one in expected if one.what == "canceled"} == {True, False}
    for name, log in logs.items():
        assert by_order(read(log)) == by_order(expected), name


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_what_a_fix_log_repeats_changes_nothing(day: Day, data: st.DataObject) -> None:
    """Any reports again with PossDupFlag or PossResend: told once."""
    log = day[1]["FIX.4.4 b'|'"]
    again = data.draw(st.sets(st.integers(0, len(log) - 1), max_size=30))
    lines: list[bytes] = []
    for number, line in enumerate(log):
        lines.append(line)
        if number in again and b"|35=8|" in line:
            fields = [tuple(one.split("=", 1)) for one in line.decode().strip().strip("|").split("|")[3:-1]]
            writer = Writer("FIX.4.4", b"|")
            writer.raw(
                "V", "8", [(tag, value) for tag, value in fields if tag not in ("34", "49", "52", "56")], dup=True
            )
            lines += writer.log()
    assert read(lines) == read(log)


@pytest.mark.parametrize("source", ["journal", "FIX.4.2 b'|'", "FIX.4.4 b'\\x01'"])
def test_a_memory_kept_at_any_line_goes_on_the_same(day: Day, source: str) -> None:
    """Dumped and loaded before every single line."""
    lines = day[0] if source == "journal" else day[1][source]
    incumbent, found = reader(), []
    for line in lines:
        told = incumbent.line(line)
        found += told
        if told or b'"Order"' in line:
            other = reader()
            other.load(incumbent.dump())
            assert other.dump() == incumbent.dump()
            incumbent = other
    assert found == read(lines)


def test_a_journal_read_from_its_middle(day: Day) -> None:
    """Orders that begin later are told whole; of those before, what comes, and first that they are there."""
    lines = day[0]
    whole = by_order(read(lines))
    for at in (len(lines) // 7, len(lines) // 3, len(lines) // 2):
        late = by_order(read(lines[at:]))
        early = by_order(read(lines[:at]))
        for order, told in late.items():
            if order not in early:
                assert told == whole[order]
            else:
                rest, left = (
                    [one[0] for one in reports if one[0] not in ("sent", "new")] for reports in (told, whole[order])
                )
                assert rest == left[len(left) - len(rest) :]


def test_restore_lines_tell_nothing_new() -> None:
    """What a restarted incumbent read back has been told before."""
    order = {"root_cl_ord_id": "1", "cl_ord_id": "1", "symbol": "ACME", "side": "1", "order_qty": 5, "leaves_qty": 5}
    line = {
        "seq": 1,
        "time_ns": 5,
        "what": "restore",
        "detail": "orders",
        "restored": [{"kind": "Order", "record": order}],
    }
    assert read([json.dumps(line).encode() + b"\n"]) == []


def test_a_rotated_journal_is_followed(tmp_path: Path, day: Day) -> None:
    """Put aside and begun anew while it is read, and the reader opened again at any of its places."""
    lines = day[0][:600]
    path = tmp_path / "journal.jsonl"
    found: list[bytes] = []
    feed = LineFeed("r", str(path), path, None)
    for number in range(0, len(lines), 50):
        with open(path, "ab") as file:
            file.write(b"".join(lines[number : number + 50]))
        if number % 150 == 0:
            found += [item.data for item in feed.read()]
        if number % 200 == 100:
            path.rename(path.with_name(f"journal.jsonl.{number:06d}"))
        if number % 250 == 0:
            place = feed.place
            feed.close()
            feed = LineFeed("r", str(path), path, place)
    for _ in range(9):
        found += [item.data for item in feed.read()]
    feed.close()
    assert found == lines
    assert feed.told() == []


def test_a_log_that_is_cut_or_damaged_says_so(day: Day) -> None:
    """A message that cannot be used is a problem; what stands on the line beside it is told; chatter is neither."""
    log = day[1]["FIX.4.4 b'|'"]
    number = next(number for number, line in enumerate(log) if b"|150=F|" in line)
    before, line = log[:number], log[number]
    incumbent = reader()
    read(before, incumbent)
    memory = incumbent.dump()
    (traded,) = [one for one in incumbent.line(line) if one.what == "trade"]
    for bad in (line[:-30] + b"\n", line.replace(b"|31=", b"|31=9"), line.replace(b"|38=", b"|38="[:3] + b"|")):
        incumbent.load(memory)
        with pytest.raises(BadReport):
            incumbent.line(bad)
    incumbent.load(memory)
    with pytest.raises(BadReport) as told:
        incumbent.line(line.strip() + line[: line.index(b"|10=") - 3] + b"\n")
    assert traded in told.value.reports
    assert reader().line(b"2024-11-27 09:30:01 INFO the session is up\n") == []
    assert reader().line(b"\xff\xfe\n") == []
    bad_qty = json.dumps({"root_cl_ord_id": "1"}).encode()
    with pytest.raises(BadReport):
        reader().line(b'{"subsystem":"orders","kind":"Order","record":' + bad_qty + b"}\n")


def test_when_a_line_was_told() -> None:
    """By its own time, to the nanosecond; 0 where there is none or a wrong one."""
    assert told_at(b'{"seq":1,"time_ns":1732717830000000001,"x":2}') == 1732717830000000001
    assert told_at(b"8=FIX.4.4|9=5|35=8|52=20241127-14:30:30.5|10=000|") == 1732717830500000000
    assert told_at(b"8=FIX.4.4|9=5|35=8|52=20241127-14:30:30|10=000|") == 1732717830000000000
    assert told_at(b"8=FIX.4.4|152=20241127-14:30:30|52=20241399-14:30:30|") == 0
    assert told_at(b"{}") == 0


# -- market data in lines -----------------------------------------------------------------------------------------


def line(**told: Any) -> Item:
    """A line of market data."""
    return Item("m", 0, json.dumps(told).encode() + b"\n")


def test_lines_of_market_data() -> None:
    """Events of each instrument, heartbeats, foreign symbols, numbers; and what is none of these."""
    two, one = MarketReader([ACME, BOLT]), MarketReader([ACME])
    told = two.read(line(symbol="BOLT", ts_event=5, price=BOLT.price_text(100), size=BOLT.quantity_text(3), seq=9))
    assert told.event is not None
    assert (told.time_ns, told.event[1], told.event[5:7], told.seq) == (5, 1, (100, 3), 9)
    assert two.read(line(ts_event=7)) == (7, None, 0, "")
    assert two.read(line(symbol="ELSE", ts_event=7, price="1", size="1")) == (0, None, 0, "")
    assert two.read(line(ts_event=7, price="1", size="1")).time_ns == 0
    assert one.read(line(ts_event=7, price="1", size="1")).time_ns == 7
    for bad in (
        {"symbol": "ACME", "ts_event": 7},
        {"symbol": "ACME", "ts_event": 7, "price": "1.00001", "size": "1"},
        {"symbol": "ACME", "ts_event": 7, "price": "1", "size": "-1"},
        {"symbol": "ACME", "ts_event": 7, "price": "1e400", "size": "1"},
        {"symbol": "ACME", "ts_event": 7, "status": "asleep"},
        {"symbol": "ACME", "ts_event": 7, "price": "1", "size": "1", "seq": "x"},
        {"symbol": "ACME", "ts_event": 10**30, "price": "1", "size": "1"},
        {"ts_event": 10**30},
        {"ts_event": "x"},
        {"ts_event": -5},
    ):
        assert one.read(line(**bad)).problem.startswith("a line of market data cannot be read"), bad
    for data in (b"\n", b"{", b"[]", b"7", b"null", b"\xff", b'{"ts_event": null}'):
        assert one.read(Item("m", 0, data)).problem, data


# -- a tap --------------------------------------------------------------------------------------------------------

ABC = Instrument(symbol="ABC", calendar="24/7")
NIGHT = 86_400 * S
STEPS = st.lists(
    st.sampled_from(["trade", "trade", "trade", "flush", "kill", "close", "midnight", "read", "resume", "torn"]),
    max_size=40,
)


class Taps:
    """Recorders of one folder, one after another; `kept` are the prices that are on the disk."""

    def __init__(self, place: Path, instrument: Instrument) -> None:
        self.place, self.instrument = place, instrument
        self.time_ns = 1_732_750_000 * S
        self.price = 0
        self.kept: list[int] = []
        self.unsynced: list[int] = []
        self.begin()

    def begin(self) -> None:
        """Another process."""
        self.recorder = Recorder(self.place, self.instrument, every=3)

    def do(self, what: str) -> None:
        """One thing that happens to a recorder."""
        if what in ("trade", "midnight"):
            self.time_ns += NIGHT if what == "midnight" else S
            if what == "midnight":
                self.kept += self.unsynced
                self.unsynced = []
            self.price += 1
            self.unsynced.append(self.price)
            self.recorder.trade(self.time_ns, self.price, 1)
            if not self.recorder._block:
                self.do("synced")
        elif what in ("flush", "close"):
            self.recorder.flush() if what == "flush" else self.recorder.close()
            self.do("synced")
        elif what == "synced":
            self.kept += self.unsynced
            self.unsynced = []
        else:
            if self.recorder._file is not None:
                self.recorder._file.close()
            self.unsynced = []
            if what == "torn":
                for part in self.place.rglob("*.part"):
                    with open(part, "ab") as file:
                        file.write(b"\x50\x00\x00\x00 half a block")
            self.begin()


@settings(max_examples=40, deadline=None)  # a calendar is loaded on the way
@given(STEPS, st.integers(1, 5))
def test_a_reader_of_a_tap_gives_every_record_once(steps: list[str], most: int) -> None:
    """Flushed, killed, torn, closed and opened again on the same day, over midnights; resumed from any place."""
    with tempfile.TemporaryDirectory() as folder:
        taps = Taps(Path(folder), ABC)
        follower = TapReader(Path(folder), ABC)
        found: list[int] = []
        for step in steps:
            if step == "read":
                found += [event[5] for event in follower.records(most)]
            elif step == "resume":
                follower = TapReader(Path(folder), ABC, follower.place)
            else:
                taps.do(step)
            assert found == taps.kept[: len(found)]
        while new := follower.records(most):
            found += [event[5] for event in new]
        assert found == taps.kept
        whole = TapReader(Path(folder), ABC)
        assert [event[5] for event in whole.records()] == taps.kept


def test_a_sealed_day_that_goes_on_keeps_its_first_half(tmp_path: Path) -> None:
    """Closed, opened again on the same day, closed again: one recording of both halves."""
    for price in (1, 2):
        recorder = Recorder(tmp_path, ABC)
        recorder.trade(1_732_750_000 * S + price, price, 1)
        sealed = recorder.close()
    assert sealed is not None
    assert [event[5] for event in sealed.events()] == [1, 2]
    assert [one for one in sealed.verify() if not one.notable] == []


def test_instruments_of_a_tap_keep_step_behind_a_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One has much more to give than the other: all of it comes in the order of its times, from any place again."""
    monkeypatch.setattr("holdover.shadow.feeds.MOST", 10)
    other = msgspec.structs.replace(ABC, symbol="XYZ")
    for instrument, step in ((ABC, 1), (other, 17)):
        recorder = Recorder(tmp_path, instrument, every=4)
        for number in range(170 // step):
            recorder.trade((1_732_750_000 + number * step) * S, number + 1, 1)
        recorder.flush()
    times: list[tuple[int, int]] = []
    behind: list[bool] = []
    feed = TapFeed(tmp_path, [ABC, other], None)
    market = MarketReader([ABC, other])
    while items := feed.read():
        times += [(market.read(item).time_ns, item.number) for item in items]
        behind.append(feed.behind)
        feed = TapFeed(tmp_path, [ABC, other], feed.place)
    assert times == sorted(times)
    assert len(times) == 180
    assert behind[0]
    assert (feed.read(), feed.behind) == ([], False)


# -- what came in -------------------------------------------------------------------------------------------------

ADD = """
import sys
from pathlib import Path
from holdover.shadow.inputs import Began, Inputs, Item
inputs = Inputs(Path(sys.argv[1]))
if inputs.day() is None:
    inputs.begin("2024-11-27", Began(), 5)
place = int(inputs.places().get("feed", b"0"))
while True:
    items = [Item("m", 0, str(place + number).encode()) for number in range(5)]
    waiting = [(1, Item("r", 0, str(place + number).encode())) for number in (5, 6)]
    number = inputs.add("2024-11-27", place, items, {"feed": str(place + 5).encode()}, waiting)
    place += 5
    print(number, place, flush=True)
"""


def killed(path: Path, lines: int) -> tuple[int, int]:
    """Adds in another process until it is killed after so many lines; the number and the place that it told last."""
    running = subprocess.Popen([sys.executable, "-c", ADD, str(path)], stdout=subprocess.PIPE)
    assert running.stdout is not None
    told = [running.stdout.readline() for _ in range(lines)]
    running.send_signal(signal.SIGKILL)
    told += running.stdout.readlines()
    running.wait()
    running.stdout.close()
    number, place = [one for one in told if one.endswith(b"\n")][-1].split()
    return int(number), int(place)


def test_what_came_in_is_there_after_a_kill(tmp_path: Path) -> None:
    """What `add` had returned is on the disk; places and what waits fit to the last batch that is there."""
    path = tmp_path / "inputs.db"
    for lines in (1, 9, 4):
        number, place = killed(path, lines)
        inputs = Inputs(path)
        batches = list(inputs.batches("2024-11-27"))
        assert [batch.number for batch in batches] == list(range(1, len(batches) + 1))
        assert len(batches) >= number
        stands = int(inputs.places()["feed"])
        assert stands == 5 * len(batches) >= place
        assert [item.data for batch in batches for item in batch.items] == [b"%d" % one for one in range(stands)]
        assert [item.data for _, item in inputs.waiting()] == [b"%d" % stands, b"%d" % (stands + 1)]
        inputs.close()
