"""Recordings: what is written reads back, and what is damaged is never read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.cli import main
from holdover.model import Instrument
from holdover.recording import (
    UNDEF_PRICE,
    Meta,
    Provenance,
    Recording,
    RecordingError,
    RecordingStore,
    RecordingWriter,
    bundled_store,
)
from holdover.recording.calendar import hours
from holdover.recording.generate import generate
from holdover.recording.selection import choose_days
from holdover.recording.tap import Recorder

from .fuzzing import DBN_NS, dbn_file, dbn_head, dbn_trade

X = Instrument(symbol="XYZ")


def make_meta(**fields: object) -> Meta:
    """A header with what a test does not care about filled in."""
    meta_fields: dict[str, object] = {
        "instrument": X,
        "trade_date": "2024-01-02",
        "open_ns": 0,
        "close_ns": 10**12,
        "previous_session": "2023-12-29",
        "next_session": "2024-01-03",
        "provenance": Provenance(source="a test"),
        **fields,
    }
    return Meta(**meta_fields)  # type: ignore[arg-type]


quotes = st.tuples(
    st.integers(0, 10**9), st.integers(1, 10**9), st.integers(1, 10**12), st.integers(1, 10**9), st.integers(1, 10**12)
)


@given(st.lists(quotes, min_size=1, max_size=40), st.sampled_from(["raw", "zlib"]))
@settings(max_examples=40, deadline=None)
def test_write_and_read_are_opposites(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[int, ...]], encoding: str
) -> None:
    """Whatever was written comes back, field by field, whatever the encoding."""
    path = tmp_path_factory.mktemp("r") / "x.hrec"
    writer = RecordingWriter(path, make_meta(encoding=encoding))
    time = 0
    expected = []
    for gap, bid_px, bid_sz, ask_px, ask_sz in records:
        time += gap
        writer.quote(time, bid_px, bid_sz, ask_px, ask_sz)
        expected.append((time, bid_px, ask_px, bid_sz, ask_sz))
    recording = writer.close()
    assert [(e[0], *e[7:]) for e in recording.events()] == expected
    assert [problem for problem in recording.verify() if not problem.notable] == []


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_damage_is_read_silently(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A flipped bit or a cut anywhere in the file is refused, or found by verify."""
    path = tmp_path_factory.mktemp("r") / "x.hrec"
    writer = RecordingWriter(path, make_meta())
    for number in range(20):
        writer.trade(number, 100, 5)
    whole = bytearray(writer.close().path.read_bytes())
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    path.write_bytes(whole)
    try:
        problems = [problem for problem in Recording.open(path).verify() if not problem.notable]
    except RecordingError:
        problems = []
        with pytest.raises(RecordingError, match=r"x\.hrec"):
            Recording.open(path)
    else:
        assert problems


def test_a_damaged_block_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Streaming names the file and the records, and gives none of the bad ones out."""
    path = tmp_path / "x.hrec"
    writer = RecordingWriter(path, make_meta())
    for number in range(5000):
        writer.trade(number, 100, 5)
    writer.close()
    data = bytearray(path.read_bytes())
    data[-600] ^= 1
    path.write_bytes(data)
    given_out = []
    with pytest.raises(RecordingError, match=r"x\.hrec: records 4096 to 4999"):
        given_out.extend(Recording.open(path).events())
    assert len(given_out) == 4096


def test_slices_and_seeks_agree(tmp_path: Path) -> None:
    """A time range gives exactly the records in it; several instruments keep their own number."""
    writer = RecordingWriter(tmp_path / "x.hrec", make_meta())
    for number in range(9000):
        writer.trade(number // 3 * 10, 100, 5)
    recording = writer.close()
    whole = list(recording.events(instrument_id=7))
    assert {event[1] for event in whole} == {7}
    assert [e[0] for e in recording.events(100, 20_000)] == [e[0] for e in whole if 100 <= e[0] < 20_000]
    assert recording.event_at(recording.index_at(500))[0] == 500


def test_verify_tells_what_is_impossible(tmp_path: Path) -> None:
    """A trade of nothing, and a long silence, are each told with their place."""
    writer = RecordingWriter(tmp_path / "x.hrec", make_meta())
    writer.trade(1, 100, 5)
    writer.trade(2, 0, 5)
    writer.quote(200 * 10**9, UNDEF_PRICE, 0, 101, 5)
    problems = writer.close().verify()
    assert [(problem.record, problem.notable) for problem in problems] == [(1, False), (2, True)]
    with pytest.raises(RecordingError, match="goes back in time"):
        writer.trade(1, 100, 5)


def test_the_generator_makes_what_is_bundled(tmp_path: Path) -> None:
    """Byte for byte, so that anyone can make the simulated sessions again."""
    for recording in generate(tmp_path):
        bundled_recording = bundled_store().get(recording.meta.instrument.symbol, recording.meta.trade_date)
        assert bundled_recording.path.read_bytes() == recording.path.read_bytes()
        assert bundled_recording.meta.simulated


@pytest.mark.parametrize("day", ["2024-11-27", "2024-11-29"])
def test_the_bundled_hours_are_the_calendars(day: str) -> None:
    """Open, close, neighbours and the early close after the holiday are what the exchange calendar says."""
    day_meta, session_hours = bundled_store().get("ACME", day).meta, hours("XNYS", day)
    assert (day_meta.open_ns, day_meta.close_ns) == (session_hours.open_ns, session_hours.close_ns)
    assert (day_meta.previous_session, day_meta.next_session) == (
        session_hours.previous_session,
        session_hours.next_session,
    )
    assert day_meta.early_close == session_hours.early_close


def test_a_missing_day_is_named_with_what_is_there() -> None:
    """The message says which days are at hand."""
    with pytest.raises(RecordingError, match="2024-11-27, 2024-11-29"):
        bundled_store().get("ACME", "2024-11-28")


def test_choose_explains_each_day() -> None:
    """The smallest set that shows every mood; both bundled days are needed, and each says why."""
    choices = choose_days(bundled_store().list_recordings(), 5, quiet=True)
    acme = [choice for choice in choices if choice.symbol == "ACME"]
    assert {choice.trade_date for choice in acme} == {"2024-11-27", "2024-11-29"}
    assert any("halt" in choice.moods for choice in acme)
    assert any("early-close" in choice.moods for choice in acme)
    fewest = choose_days(bundled_store().list_recordings(), 1, quiet=True)
    assert len([choice for choice in fewest if choice.symbol == "ACME"]) == 1


def test_csv_comes_in_by_its_mapping(tmp_path: Path) -> None:
    """Trades and quotes by declared columns; a row that does not fit a tick is refused with its line."""
    (tmp_path / "d.csv").write_text(
        "t,px,qty,bid,bs,ask,as\n1732717800000,,,9.99,100,10.01,200\n1732717801000,10.00,50,,,,\n"
    )
    (tmp_path / "m.toml").write_text(
        'symbol = "XYZ"\ntime = "t"\ntime_unit = "ms"\n[trade]\nprice = "px"\nsize = "qty"\n'
        '[quote]\nbid_px = "bid"\nbid_sz = "bs"\nask_px = "ask"\nask_sz = "as"\n'
    )
    place = ["recording", "import", "csv", str(tmp_path / "d.csv"), "--into", str(tmp_path / "out"), "--mapping"]
    assert main([*place, str(tmp_path / "m.toml")]) == 0
    recording = RecordingStore(tmp_path / "out").get("XYZ", "2024-11-27")
    assert [event[2] for event in recording.events()] == [1, 2]
    (tmp_path / "d.csv").write_text("t,px,qty,bid,bs,ask,as\n1732717801000,10.005,50,,,,\n")
    assert main([*place, str(tmp_path / "m.toml")]) == 2


def test_dbn_comes_in(tmp_path: Path) -> None:
    """Trades written by the format's own encoder are read; what is no DBN file is refused in a sentence."""
    from holdover.recording.dbn import import_dbn

    (tmp_path / "good.dbn").write_bytes(dbn_file())
    recording = import_dbn(tmp_path / "good.dbn", X, "2024-11-27", tmp_path / "out")
    assert [event[2:3] + event[5:7] for event in recording.events()] == [(1, 0, 0), (2, 1001, 50)]
    assert recording.event_at(1)[7:] == (999, 1001, 100, 200)
    (tmp_path / "odd.dbn").write_bytes(dbn_head() + dbn_trade(DBN_NS, 10_015_000_000))
    with pytest.raises(RecordingError, match="no whole number of ticks"):
        import_dbn(tmp_path / "odd.dbn", X, "2024-11-27", tmp_path / "out")
    (tmp_path / "x.dbn").write_bytes(b"not dbn at all" * 20)
    with pytest.raises(RecordingError, match=r"x\.dbn: not a DBN file"):
        import_dbn(tmp_path / "x.dbn", X, "2024-11-27", tmp_path / "out")


def test_the_lean_layout_comes_in(lean: Path, tmp_path: Path) -> None:
    """A real day of ticks: the national best is crossed once in a thousand quotes, not most of the time."""
    assert main(["recording", "import", "lean", str(lean), "--into", str(tmp_path), "--symbol", "IBM", "--json"]) == 0
    day = RecordingStore(tmp_path).get("IBM", "2013-10-07")
    regular = [event for event in day.events(day.meta.open_ns, day.meta.close_ns) if event[2] == 1]
    assert sum(1 for event in regular if event[3] & 2) < len(regular) // 500
    assert [problem for problem in day.verify() if not problem.notable] == []


RECORD = """
import sys
from pathlib import Path
from holdover.model import Instrument
from holdover.recording.tap import Recorder
recorder = Recorder(Path(sys.argv[1]), Instrument(symbol="XYZ", calendar="24/7"), sync_events=5)
for number in range(1_000_000):
    recorder.trade(1_732_717_800_000_000_000 + number, 100 + number, 5)
    if number % 5 == 4:
        print(number, flush=True)
"""


@pytest.mark.parametrize("after", [0, 1, 3, 7, 15, 31])
def test_a_killed_recorder_loses_nothing_synced(tmp_path: Path, after: int) -> None:
    """After SIGKILL the day holds at least what had been reported as synced, in order, and verifies."""
    running = subprocess.Popen([sys.executable, "-c", RECORD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    synced = -1
    for _ in range(after + 1):
        synced = int(running.stdout.readline())
    running.send_signal(signal.SIGKILL)
    running.wait()
    recorder = Recorder(tmp_path, Instrument(symbol="XYZ", calendar="24/7"))
    recorder.trade(1_732_717_900_000_000_000, 1, 1)
    sealed = recorder.close()
    assert sealed is not None
    prices = [event[5] for event in sealed.events()]
    assert prices[:-1] == [100 + number for number in range(len(prices) - 1)]
    assert len(prices) - 1 >= synced + 1
    assert [problem for problem in sealed.verify() if not problem.notable] == []


def test_record_reads_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newline-delimited JSON from standard input becomes a recording; a bad line is named."""
    import io

    (tmp_path / "i.toml").write_text('symbol = "XYZ"\n')
    lines = [
        {"ts_event": 1732717800000000000, "bid_px": "9.99", "bid_sz": "100", "ask_px": "10.01", "ask_sz": "300"},
        {"ts_event": 1732717800000000001, "price": "10.01", "size": "50"},
    ]

    def run(text: str) -> int:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return main(["recording", "record", "--into", str(tmp_path / "out"), "--instrument", str(tmp_path / "i.toml")])

    assert run("\n".join(json.dumps(line) for line in lines)) == 0
    assert RecordingStore(tmp_path / "out").get("XYZ", "2024-11-27").meta.trades == 1
    assert run('{"ts_event": 1}\n') == 2
    assert "line 1" in capsys.readouterr().err
