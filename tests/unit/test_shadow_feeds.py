"""The inputs of a live shadow: the incumbent's journal or FIX log, and market data from lines or a tap."""

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

from holdover.adapters.fix.messages import (
    FixCodec,
)
from holdover.harness.session import Session, SessionConfig
from holdover.harness.subject import resolve_factory
from holdover.model import CancelReject, ExecType, ExecutionReport, Inbound, Instrument, MsgType, Outbound, Request
from holdover.recording import bundled_store
from holdover.recording.tap import Recorder, TapReader
from holdover.runtime import Journal
from holdover.shadow.feed import LineFeed, MarketReader, TapFeed
from holdover.shadow.incumbent import IncumbentReader, IncumbentReportError, time_of_line
from holdover.shadow.input_store import InputItem, InputStore
from holdover.world import IncumbentReport

from .fixlog import FixLogWriter

S = 1_000_000_000
ACME = bundled_store().get("ACME", bundled_store().days("ACME")[0]).meta.instrument
BOLT = bundled_store().get("BOLT", bundled_store().days("BOLT")[0]).meta.instrument

# -- the incumbent: one day, as its journal and as its FIX logs tell it ---------------------------------------------


Day = tuple[list[bytes], dict[str, list[bytes]]]


class LinkLog:
    """Write the messages of a link into a FIX log."""

    def __init__(self, session: Session, version: str, separator: bytes) -> None:
        self.writer = FixLogWriter(version, separator)
        self.session, self.codec = session, FixCodec([ACME])

    def write_request(self, message: Outbound) -> None:
        """A request leaves."""
        if isinstance(message, Request):
            wire = self.codec.encode_outbound(
                message, now_ns=self.session.clock.now_ns, trade_date=self.session.trade_date
            )
            self._write("C", wire.kind, wire.fields)

    def write_report(self, message: Inbound) -> None:
        """A report has arrived."""
        if isinstance(message, (ExecutionReport, CancelReject)):
            wire = self.codec.encode_inbound(message)
            fields = wire.fields
            if self.writer.version == "FIX.4.2" and isinstance(message, ExecutionReport):
                kinds = {ExecType.TRADE_CANCEL: "1", ExecType.TRADE_CORRECT: "2"}
                traded = message.exec_type in (ExecType.TRADE, *kinds)
                exec_type = "2" if message.leaves_qty == 0 else "1"
                fields = [(tag, exec_type if traded and tag == 150 else value) for tag, value in fields]
                fields.append((20, kinds.get(message.exec_type, "0")))
            self._write("V", wire.kind, fields)

    def _write(self, party: str, kind: str, fields: list[tuple[int, Any]]) -> None:
        self.writer.write_message(
            party, kind, [(str(tag), value) for tag, value in fields], sent="20241127-14:30:00.250"
        )


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """The journal and the FIX logs of part of a day on which the venue takes back, corrects and cancels, too."""
    place = tmp_path_factory.mktemp("incumbent")
    days = bundled_store().days("ACME")[:1]
    session = Session(resolve_factory("desk"), bundled_store(), ["ACME"], place, SessionConfig(days=days))
    logs = {
        f"{version} {separator!r}": LinkLog(session, version, separator)
        for version in ("FIX.4.2", "FIX.4.4")
        for separator in (b"\x01", b"|")
    }
    sending = session.link.on_send

    replace_count = [0]

    def on_send(message: Outbound) -> None:
        if isinstance(message, Request) and message.msg_type == MsgType.ORDER_CANCEL_REPLACE_REQUEST:
            replace_count[0] += 1
            session.venue.refuse_count = int(replace_count[0] % 4 == 0)
        for log in logs.values():
            log.write_request(message)
        if sending is not None:
            sending(message)

    session.link.on_send = on_send
    session.begin()
    assert session.link.end.listener is not None
    on_message = session.link.end.listener.on_message

    def on_logged_message(seq: int, poss_dup: bool, message: Inbound) -> None:
        for log in logs.values():
            log.write_report(message)
        on_message(seq, poss_dup, message)

    session.link.end.listener.on_message = on_logged_message  # type: ignore[method-assign]
    venue, rng = session.venue, random.Random(7)
    for step in range(1, 40):
        session.run(step / 100)
        trades = [trade for trade in venue.trades if trade.exec_type == ExecType.TRADE]
        if trades and step % 3 == 0:
            named = rng.choice(trades)
            venue.bust_trade(named.exec_id) if step % 2 else venue.correct_trade(
                named.exec_id, named.last_qty, named.last_px + 1
            )
        live = [order for order in venue.orders.values() if order.is_open]
        if live and step % 5 == 0:
            order = rng.choice(live)
            venue.cancel_order(order.cl_ord_id)
            if step % 10 == 0:
                venue.late_fill(order.cl_ord_id, 1)
        if step % 7 == 0:
            venue.refuse_count = 1  # a replace, or a new order
    session.end(immediately=True)
    session.close()
    lines = (place / "journal.jsonl").read_bytes().splitlines(keepends=True)
    return lines, {name: log.writer.log() for name, log in logs.items()}


def make_reader() -> IncumbentReader:
    """A reader of one instrument."""
    return IncumbentReader({"ACME": ACME})


def read_reports(lines: list[bytes], incumbent: IncumbentReader | None = None) -> list[IncumbentReport]:
    """What lines tell."""
    incumbent = incumbent or make_reader()
    return [report for line in lines for report in incumbent.read_line(line)]


def group_by_order(reports: list[IncumbentReport]) -> dict[str, list[tuple[Any, ...]]]:
    """What was told of each order, in its order."""
    reports_by_order: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for report in reports:
        trade = (
            (report.last_qty, report.last_px, report.exec_id, report.exec_ref_id)
            if report.last_qty or report.exec_id
            else ()
        )
        bare = report.kind in ("bust",)
        reports_by_order[report.order].append(
            (report.kind, report.is_requested, trade[2:] if bare else trade if report.kind != "new" else ())
        )
    return dict(reports_by_order)


def test_a_journal_and_a_fix_log_of_a_day_tell_the_same(day: Day) -> None:
    """Every order's reports, in either version and with either separator."""
    journal, logs = day
    expected = read_reports(journal)
    assert {report.kind for report in expected} >= {
        "sent", "new", "rejected", "trade", "filled", "replaced", "canceled", "expired", "refused", "bust", "correct",
    }  # fmt: skip
    assert {report.is_requested for report in expected if report.kind == "canceled"} == {True, False}
    for name, log in logs.items():
        assert group_by_order(read_reports(log)) == group_by_order(expected), name


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_what_a_fix_log_repeats_changes_nothing(day: Day, data: st.DataObject) -> None:
    """Any reports again with PossDupFlag or PossResend: told once."""
    log = day[1]["FIX.4.4 b'|'"]
    repeated_numbers = data.draw(st.sets(st.integers(0, len(log) - 1), max_size=30))
    lines: list[bytes] = []
    for number, line in enumerate(log):
        lines.append(line)
        if number in repeated_numbers and b"|35=8|" in line:
            fields = [tuple(field.split("=", 1)) for field in line.decode().strip().strip("|").split("|")[3:-1]]
            writer = FixLogWriter("FIX.4.4", b"|")
            writer.write_message(
                "V", "8", [(tag, value) for tag, value in fields if tag not in ("34", "49", "52", "56")], dup=True
            )
            lines += writer.log()
    assert read_reports(lines) == read_reports(log)


@pytest.mark.parametrize("source", ["journal", "FIX.4.2 b'|'", "FIX.4.4 b'\\x01'"])
def test_a_memory_kept_at_any_line_goes_on_the_same(day: Day, source: str) -> None:
    """Dumped and loaded before every single line."""
    lines = day[0] if source == "journal" else day[1][source]
    incumbent, reports = make_reader(), []
    for line in lines:
        line_reports = incumbent.read_line(line)
        reports += line_reports
        if line_reports or b'"Order"' in line:
            restored = make_reader()
            restored.restore_bytes(incumbent.to_bytes())
            assert restored.to_bytes() == incumbent.to_bytes()
            incumbent = restored
    assert reports == read_reports(lines)


def test_a_journal_read_from_its_middle(day: Day) -> None:
    """Orders that begin later are told whole; of those before, what comes, and first that they are there."""
    lines = day[0]
    whole = group_by_order(read_reports(lines))
    for at in (len(lines) // 7, len(lines) // 3, len(lines) // 2):
        late = group_by_order(read_reports(lines[at:]))
        early = group_by_order(read_reports(lines[:at]))
        for order, late_reports in late.items():
            if order not in early:
                assert late_reports == whole[order]
            else:
                rest, expected = (
                    [report[0] for report in reports if report[0] not in ("sent", "new")]
                    for reports in (late_reports, whole[order])
                )
                assert rest == expected[len(expected) - len(rest) :]


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
    assert read_reports([json.dumps(line).encode() + b"\n"]) == []


def test_a_rotated_journal_is_followed(tmp_path: Path, day: Day) -> None:
    """Put aside and begun anew while it is read, and the reader opened again at any of its places."""
    lines = day[0][:600]
    path = tmp_path / "journal.jsonl"
    read_lines: list[bytes] = []
    feed = LineFeed("r", str(path), path, None)
    for number in range(0, len(lines), 50):
        with open(path, "ab") as file:
            file.write(b"".join(lines[number : number + 50]))
        if number % 150 == 0:
            read_lines += [item.data for item in feed.read()]
        if number % 200 == 100:
            path.rename(path.with_name(f"journal.jsonl.{number:06d}"))
        if number % 250 == 0:
            offset = feed.offset
            feed.close()
            feed = LineFeed("r", str(path), path, offset)
    for _ in range(9):
        read_lines += [item.data for item in feed.read()]
    feed.close()
    assert read_lines == lines[1:], "all but the header"
    assert feed.drain_losses() == []


def test_a_log_that_is_cut_or_damaged_says_so(day: Day) -> None:
    """A message that cannot be used is a problem; what stands on the line beside it is told; chatter is neither."""
    log = day[1]["FIX.4.4 b'|'"]
    number = next(number for number, line in enumerate(log) if b"|150=F|" in line)
    before, line = log[:number], log[number]
    incumbent = make_reader()
    read_reports(before, incumbent)
    memory = incumbent.to_bytes()
    (traded,) = [report for report in incumbent.read_line(line) if report.kind == "trade"]
    for bad in (line[:-30] + b"\n", line.replace(b"|31=", b"|31=9"), line.replace(b"|38=", b"|38="[:3] + b"|")):
        incumbent.restore_bytes(memory)
        with pytest.raises(IncumbentReportError):
            incumbent.read_line(bad)
    incumbent.restore_bytes(memory)
    with pytest.raises(IncumbentReportError) as error:
        incumbent.read_line(line.strip() + line[: line.index(b"|10=") - 3] + b"\n")
    assert traded in error.value.reports
    assert make_reader().read_line(b"2024-11-27 09:30:01 INFO the session is up\n") == []
    assert make_reader().read_line(b"\xff\xfe\n") == []
    bad_qty = json.dumps({"root_cl_ord_id": "1"}).encode()
    with pytest.raises(IncumbentReportError):
        make_reader().read_line(b'{"subsystem":"orders","kind":"Order","record":' + bad_qty + b"}\n")


def test_when_a_line_was_told() -> None:
    """By its own time, to the nanosecond; 0 where there is none or a wrong one."""
    assert time_of_line(b'{"seq":1,"time_ns":1732717830000000001,"x":2}') == 1732717830000000001
    assert time_of_line(b"8=FIX.4.4|9=5|35=8|52=20241127-14:30:30.5|10=000|") == 1732717830500000000
    assert time_of_line(b"8=FIX.4.4|9=5|35=8|52=20241127-14:30:30|10=000|") == 1732717830000000000
    assert time_of_line(b"8=FIX.4.4|152=20241127-14:30:30|52=20241399-14:30:30|") == 0
    assert time_of_line(b"{}") == 0


# -- market data in lines -----------------------------------------------------------------------------------------


def market_line(**fields: Any) -> InputItem:
    """A line of market data."""
    return InputItem("m", 0, json.dumps(fields).encode() + b"\n")


def test_lines_of_market_data() -> None:
    """Events of each instrument, heartbeats, foreign symbols, numbers; and what is none of these."""
    pair_reader, acme_reader = MarketReader([ACME, BOLT]), MarketReader([ACME])
    parsed = pair_reader.read(
        market_line(symbol="BOLT", ts_event=5, price=BOLT.price_text(100), size=BOLT.quantity_text(3), seq=9)
    )
    assert parsed.event is not None
    assert (parsed.time_ns, parsed.event[1], parsed.event[5:7], parsed.seq) == (5, 1, (100, 3), 9)
    assert pair_reader.read(market_line(ts_event=7)) == (7, None, 0, "")
    assert pair_reader.read(market_line(symbol="ELSE", ts_event=7, price="1", size="1")) == (0, None, 0, "")
    assert pair_reader.read(market_line(ts_event=7, price="1", size="1")).time_ns == 0
    assert acme_reader.read(market_line(ts_event=7, price="1", size="1")).time_ns == 7
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
        assert acme_reader.read(market_line(**bad)).problem.startswith("a line of market data cannot be read"), bad
    for data in (b"\n", b"{", b"[]", b"7", b"null", b"\xff", b'{"ts_event": null}'):
        assert acme_reader.read(InputItem("m", 0, data)).problem, data


# -- a tap --------------------------------------------------------------------------------------------------------

ABC = Instrument(symbol="ABC", calendar="24/7")
NIGHT = 86_400 * S
STEPS = st.lists(
    st.sampled_from(["trade", "trade", "trade", "flush", "kill", "close", "midnight", "read", "resume", "torn"]),
    max_size=40,
)


class RecorderSequence:
    """Consecutive recorders of one directory; `synced_prices` are the prices on the disk."""

    def __init__(self, directory: Path, instrument: Instrument) -> None:
        self.directory, self.instrument = directory, instrument
        self.time_ns = 1_732_750_000 * S
        self.price = 0
        self.synced_prices: list[int] = []
        self.unsynced_prices: list[int] = []
        self.start_recorder()

    def start_recorder(self) -> None:
        """Another process."""
        self.recorder = Recorder(self.directory, self.instrument, sync_events=3)

    def apply(self, step: str) -> None:
        """Apply one step to the recorder."""
        if step in ("trade", "midnight"):
            self.time_ns += NIGHT if step == "midnight" else S
            if step == "midnight":
                self.synced_prices += self.unsynced_prices
                self.unsynced_prices = []
            self.price += 1
            self.unsynced_prices.append(self.price)
            self.recorder.trade(self.time_ns, self.price, 1)
            if not self.recorder._block:
                self.apply("synced")
        elif step in ("flush", "close"):
            self.recorder.flush() if step == "flush" else self.recorder.close()
            self.apply("synced")
        elif step == "synced":
            self.synced_prices += self.unsynced_prices
            self.unsynced_prices = []
        else:
            if self.recorder._file is not None:
                self.recorder._file.close()
            self.unsynced_prices = []
            if step == "torn":
                for part in self.directory.rglob("*.part"):
                    with open(part, "ab") as file:
                        file.write(b"\x50\x00\x00\x00 half a block")
            self.start_recorder()


@settings(max_examples=40, deadline=None)  # a calendar is loaded on the way
@given(STEPS, st.integers(1, 5))
def test_a_reader_of_a_tap_gives_every_record_once(steps: list[str], limit: int) -> None:
    """Flushed, killed, torn, closed and opened again on the same day, over midnights; resumed from any place."""
    with tempfile.TemporaryDirectory() as folder:
        taps = RecorderSequence(Path(folder), ABC)
        follower = TapReader(Path(folder), ABC)
        prices: list[int] = []
        for step in steps:
            if step == "read":
                prices += [event[5] for event in follower.read_events(limit)]
            elif step == "resume":
                follower = TapReader(Path(folder), ABC, follower.offset)
            else:
                taps.apply(step)
            assert prices == taps.synced_prices[: len(prices)]
        while new := follower.read_events(limit):
            prices += [event[5] for event in new]
        assert prices == taps.synced_prices
        whole = TapReader(Path(folder), ABC)
        assert [event[5] for event in whole.read_events()] == taps.synced_prices


def test_a_sealed_day_that_goes_on_keeps_its_first_half(tmp_path: Path) -> None:
    """Closed, opened again on the same day, closed again: one recording of both halves."""
    for price in (1, 2):
        recorder = Recorder(tmp_path, ABC)
        recorder.trade(1_732_750_000 * S + price, price, 1)
        sealed = recorder.close()
    assert sealed is not None
    assert [event[5] for event in sealed.events()] == [1, 2]
    assert [problem for problem in sealed.verify() if not problem.notable] == []


def test_instruments_of_a_tap_keep_step_behind_a_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One has much more to give than the other: all of it comes in the order of its times, from any place again."""
    monkeypatch.setattr("holdover.shadow.feed.BATCH_MAX", 10)
    second_instrument = msgspec.structs.replace(ABC, symbol="XYZ")
    for instrument, step in ((ABC, 1), (second_instrument, 17)):
        recorder = Recorder(tmp_path, instrument, sync_events=4)
        for number in range(170 // step):
            recorder.trade((1_732_750_000 + number * step) * S, number + 1, 1)
        recorder.flush()
    times: list[tuple[int, int]] = []
    behind: list[bool] = []
    feed = TapFeed(tmp_path, [ABC, second_instrument], None)
    market = MarketReader([ABC, second_instrument])
    while items := feed.read():
        times += [(market.read(item).time_ns, item.number) for item in items]
        behind.append(feed.is_behind)
        feed = TapFeed(tmp_path, [ABC, second_instrument], feed.offset)
    assert times == sorted(times)
    assert len(times) == 180
    assert behind[0]
    assert (feed.read(), feed.is_behind) == ([], False)


# -- what came in -------------------------------------------------------------------------------------------------

ADD = """
import sys
from pathlib import Path
from holdover.shadow.input_store import InputItem, InputStore, ShadowDayStart
inputs = InputStore(Path(sys.argv[1]))
if inputs.running_day() is None:
    inputs.begin_day("2024-11-27", ShadowDayStart(), 5)
offset = int(inputs.offsets().get("feed", b"0"))
while True:
    items = [InputItem("m", 0, str(offset + number).encode()) for number in range(5)]
    waiting = [(1, InputItem("r", 0, str(offset + number).encode())) for number in (5, 6)]
    number = inputs.add_batch("2024-11-27", offset, items, {"feed": str(offset + 5).encode()}, waiting)
    offset += 5
    print(number, offset, flush=True)
"""


def add_until_killed(path: Path, lines: int) -> tuple[int, int]:
    """Add batches in another process and kill it after `lines` lines. Returns its last batch number and offset."""
    process = subprocess.Popen([sys.executable, "-c", ADD, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    output += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    number, offset = [line for line in output if line.endswith(b"\n")][-1].split()
    return int(number), int(offset)


def test_what_came_in_is_there_after_a_kill(tmp_path: Path) -> None:
    """What `add` had returned is on the disk; places and what waits fit to the last batch that is there."""
    path = tmp_path / "inputs.db"
    for lines in (1, 9, 4):
        number, offset = add_until_killed(path, lines)
        inputs = InputStore(path)
        batches = list(inputs.read_batches("2024-11-27"))
        assert [batch.number for batch in batches] == list(range(1, len(batches) + 1))
        assert len(batches) >= number
        feed_offset = int(inputs.offsets()["feed"])
        assert feed_offset == 5 * len(batches) >= offset
        assert [item.data for batch in batches for item in batch.items] == [
            b"%d" % index for index in range(feed_offset)
        ]
        assert [item.data for _, item in inputs.waiting_items()] == [b"%d" % feed_offset, b"%d" % (feed_offset + 1)]
        inputs.close()


def test_the_header_of_a_journal_is_no_input(tmp_path: Path) -> None:
    """A feed passes on the lines of a journal without its header, and nothing of a journal of another version."""
    path = tmp_path / "journal.jsonl"
    Journal(path).close()
    with open(path, "ab") as file:
        file.write(b'{"time_ns":1}\n')
    feed = LineFeed("r", "", path, None)
    assert [item.data for item in feed.read()] == [b'{"time_ns":1}\n']
    feed.close()
    older = tmp_path / "older.jsonl"
    older.write_bytes(path.read_bytes().replace(b'"version":2', b'"version":1'))
    feed = LineFeed("r", "", older, None)
    assert feed.read() == []
    assert feed.drain_losses() == [
        "nothing is read of older.jsonl: it is a journal of version 1; this build reads version 2"
    ]
    with open(older, "ab") as file:
        file.write(b'{"time_ns":2}\n')
    resumed = LineFeed("r", "", older, feed.offset)
    assert resumed.read() == []
    for reader in (feed, resumed):
        reader.close()
