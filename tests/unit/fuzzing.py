"""Readers of files from elsewhere, with a valid file for each and mutations of it.

A reader takes bytes and either accepts them or raises its documented exception. `seal` repairs the checksums of a
format, so that mutations reach what is behind them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from holdover.adapters.fix.config import read_live_config
from holdover.adapters.process.config import read_process_config
from holdover.adapters.process.seed import VenueStateError, read_night_export
from holdover.audit import Audit, FixLogError
from holdover.catalogue import Catalogue
from holdover.coverage import read_coverage, read_lock
from holdover.coverage.data import CoverageData, CoverageError, decode_coverage
from holdover.coverage.lock import CoverageLock, LockError, Rule
from holdover.coverage.profile import read_journal_coverage
from holdover.coverage.results import ResultsError, read_results
from holdover.explore.corpus import Corpus, CorpusError
from holdover.explore.witness import Witnesses
from holdover.harness.schedule import DEFAULT_SCHEDULE, ScheduleError, decode_schedule
from holdover.harness.snapshot import Snapshot, SnapshotError, compare_snapshots
from holdover.incidents.interchange import IncidentImportError, read_csv
from holdover.model import Link, LinkState
from holdover.recording import Recording, RecordingError, bundled_store
from holdover.recording.csvfile import import_csv
from holdover.recording.dbn import import_dbn
from holdover.recording.lean import import_lean
from holdover.recording.tap import Recorder, read_instrument, record_lines, seal_day
from holdover.runtime.axes import axes_in_use
from holdover.runtime.bundle import Bundle, BundleError, BundleInfo, replay
from holdover.runtime.config import GuardConfigError, read_config
from holdover.runtime.journal import read_journal
from holdover.shadow.config import ShadowConfigError, read_shadow_config
from holdover.watch import FixConfig, MutationJudge, SourceError, Tail, Watch, WatchStateError

CATALOGUE = Catalogue.load()
TOKENS = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\n",
    b"\r\n",
    b'"',
    b"'",
    b"\\",
    b",",
    b"=",
    b"|",
    b"\x01",
    b"../",
    b"/etc/passwd",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"-0",
    b"9" * 19,
    b"9" * 40,
    b"9" * 5_000,
    b"1" + b"0" * 30 + b".5",
    b"[" * 3_000,
    b'{"a":' * 3_000,
    b"\xe2\x80\xa8",
    b"\xed\xa0\x80",
    b"2024-02-30",
    b"99999-12-31",
    b"\xc1",
    b"\xdd\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\x80" * 40,
    b"\xcf" + b"\xff" * 8,
    b"\xff" * 8,
    b"\x00" * 64,
)
"""Bytes that break readers."""
_NUMBER = re.compile(rb"[0-9]+")

Mutation = tuple[int, float, int]
"""The kind of a mutation, its place as a fraction of the content, and the number of a token or a length."""


def mutate(content: bytes, mutations: list[Mutation]) -> bytes:
    """Apply mutations in order."""
    for kind, place, number in mutations:
        at = min(int(place * (len(content) + 1)), len(content))
        token = TOKENS[number % len(TOKENS)]
        if kind == 0:
            content = content[:at] + bytes([number & 255]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + token + content[at:]
        elif kind == 2:
            content = content[:at] + content[at + number % 64 :]
        elif kind == 3:
            content = content[:at]
        elif kind == 4:
            content = content[: at + number % 200] + content[at:]
        elif kind == 5:
            match = _NUMBER.search(content, at)
            content = content[: match.start()] + token + content[match.end() :] if match else content
        elif kind == 6:
            end = content.find(b"\n", at) + 1 or len(content)
            content = content[:end] + content[at:end] * (number % 4) + content[end:]
        else:
            content = content[:at] + token + content[at + len(token) :]
    return content


def draw_mutations(source: random.Random) -> list[Mutation]:
    """Draw one to four mutations."""
    return [(source.randrange(8), source.random(), source.randrange(1 << 16)) for _ in range(source.randint(1, 4))]


class FuzzedReader:
    """A reader: a valid file, the function that reads one, and the exceptions that it may raise."""

    def __init__(
        self,
        name: str,
        content: bytes,
        read: Callable[[bytes, Path], object],
        errors: tuple[type[Exception], ...],
        seal: Callable[[bytes], bytes] | None = None,
        words: list[str] | None = None,
        suffix: str = "",
    ) -> None:
        self.name, self.content, self.read, self.errors, self.words = name, content, read, errors, words or []
        self.seal = seal or (lambda body: body)
        self.suffix = suffix

    def run(self, content: bytes, directory: Path) -> bool:
        """Read a file; return whether it was accepted. Any exception but the documented ones passes through."""
        try:
            self.read(content, directory)
        except self.errors:
            return False
        return True


def _write(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


# -- valid files ------------------------------------------------------------------------------------------------------

INSTRUMENT = 'symbol = "XYZ"\ntick_size = "0.01"\nlot_size = "0.001"\ncalendar = "24/7"\nvenue = "V"\n'
MAPPING = (
    INSTRUMENT
    + 'time = "t"\ntime_unit = "ms"\n[trade]\nprice = "px"\nsize = "qty"\n'
    + ('[quote]\nbid_px = "bid"\nbid_sz = "bs"\nask_px = "ask"\nask_sz = "as"\n')
)
CSV = (
    "t,px,qty,bid,bs,ask,as\n1732717800000,10.01,5,,,,\n1732717801000,,,10.00,1,10.02,2.5\n1732717802000,10.02,1,,,,\n"
)


def _journal() -> bytes:
    """Return a short journal as a guard writes it."""
    import tempfile

    from holdover.runtime.journal import Journal

    from .orders import order

    with tempfile.TemporaryDirectory() as directory:
        journal = Journal(Path(directory) / "journal.jsonl")
        head = (Path(directory) / "journal.jsonl").read_bytes()
        journal.close()
    record = order(account="A", strategy="S")
    lines = [
        {"seq": n, "time_ns": n, "subsystem": "orders", "kind": "Order", "record": msgspec.to_builtins(record)}
        | {"cause": "new", "settled": True}
        for n in range(1, 4)
    ]
    link = Link(name="V", is_up=True, in_seq=1, change=LinkState.LOGON)
    lines.append({"seq": 4, "time_ns": 4, "subsystem": "gateway", "kind": "Link", "record": msgspec.to_builtins(link)})
    lines.append({"seq": 4, "time_ns": 5, "what": "begin", "detail": "2024-11-27"})
    return head + b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _fix_log() -> bytes:
    from .test_audit_bounds import fix_message, orders

    log = [*orders(3), fix_message(_35="A", _34=1, _49="C", _56="V", _52="20240102-09:00:00", _108=30)]
    log.append(fix_message(_35="D", _34=2, _49="C", _56="V", _52="20240102-09:00:01", _11="N", _55="IBM", _54=1, _38=5))
    log.append(b"2024-01-02 INFO text")
    log.append(log[0].replace(b"\x01", b"|"))
    return b"\n".join(log) + b"\n"


def _recording() -> bytes:
    from holdover.recording.format import RecordingWriter

    meta = msgspec.structs.replace(bundled_store().get("ACME", "2024-11-27").meta, encoding="zlib")
    directory = Path(os.environ.get("TMPDIR", "/tmp")) / f"fuzz-{os.getpid()}"
    writer = RecordingWriter(directory / "x.hrec", meta)
    for number in range(50):
        writer.quote(number, 100, 5, 101, 5)
        writer.trade(number, 100, 1)
    path = writer.close().path
    content = path.read_bytes()
    path.unlink()
    directory.rmdir()
    return content


def _seal_recording(content: bytes) -> bytes:
    """Set the checksum of the header to that of the header that is there."""
    if len(content) < 64:
        return content
    length = struct.unpack_from("<I", content, 8)[0]
    crc = struct.pack("<I", zlib.crc32(content[12 : 12 + length]))
    return content[:-40] + crc + content[-36:]


def _snapshot_body() -> bytes:
    about = {"trade_date": "2024-11-27", "phase": "night", "time_ns": 1, "catalogue": "c", "symbols": ["A"]}
    parts = {"subject/a": b"text", "subject/b/c": msgspec.msgpack.encode({"k": [1, 2]}), "guard": _database()}
    return msgspec.msgpack.encode({"about": about, "parts": parts})


def _database() -> bytes:
    import sqlite3

    database = sqlite3.connect(":memory:")
    database.executescript("CREATE TABLE t (a TEXT, b INTEGER); INSERT INTO t VALUES ('x', 1), ('y', 2)")
    try:
        return database.serialize()
    finally:
        database.close()


def _seal_snapshot(body: bytes) -> bytes:
    return b"HSNP" + struct.pack("<I", 2) + hashlib.sha256(body).digest() + zlib.compress(body)


def _read_snapshot(content: bytes, directory: Path) -> None:
    snapshot = Snapshot.open(_write(content, directory / "s.hsnap"))
    other = Snapshot(snapshot.info, {**snapshot.parts, "guard": b"x", "subject/a": b"y"})
    compare_snapshots(snapshot, other)


def _bundle_parts() -> bytes:
    """Return the parts of a bundle of a guard, each behind its name, one a line in hexadecimal."""
    from holdover.runtime import FreezeStore, Guard

    from .orders import order

    monitor = Guard(Path(), catalogue=CATALOGUE, store=FreezeStore.in_memory(), channels=[]).monitor
    mutation = [1, 1, "orders", "Order", msgspec.to_builtins(order(account="A", strategy="S")), "new", None, 1]
    info = BundleInfo(mark="orders/x", scope="system", key="k", explanation="e", time_ns=1, catalogue="c")
    parts = {
        "bundle.json": json.dumps(msgspec.to_builtins(info)).encode(),
        "mutations.jsonl": msgspec.json.encode(mutation) + b"\n",
        "memory.msgpack": monitor.to_bytes(),
    }
    return b"\n--\n".join(name.encode() + b"\n" + content for name, content in parts.items())


def _seal_bundle(body: bytes) -> bytes:
    buffer = io.BytesIO()
    parts: dict[str, bytes] = {}
    for part in body.split(b"\n--\n"):
        name, _, content = part.partition(b"\n")
        parts[name.decode("utf-8", "replace").replace("\0", "")[:100] or "unnamed"] = content
    about = parts.get("bundle.json", b"")
    try:
        document = json.loads(about)
        document["parts"] = {n: hashlib.sha256(c).hexdigest() for n, c in parts.items() if n != "bundle.json"}
        parts["bundle.json"] = json.dumps(document).encode()
    except (ValueError, TypeError, RecursionError, UnicodeDecodeError):
        pass
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _coverage() -> bytes:
    data = CoverageData.empty(CATALOGUE.digest, axes_in_use())
    data.add_activation("x", "a b", 3)
    return data.encode()


def _seal_coverage(content: bytes) -> bytes:
    try:
        document = json.loads(content)
        body = {key: value for key, value in document.items() if key not in ("magic", "version", "checksum")}
        checksum = hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()
        return json.dumps({**document, "checksum": checksum}).encode()
    except (ValueError, AttributeError, TypeError, RecursionError, UnicodeError, OverflowError):
        return content


def _lock() -> bytes:
    from datetime import date

    lock = CoverageLock()
    rule = Rule(name="r", reason="why", axis_values={"link": ["up"]})
    lock.accept(rule, by="me", day=date(2024, 1, 1))
    return lock.to_toml().encode()


def _witnesses() -> bytes:
    return (
        b'{"holdover":"witnesses","version":2,"axes":["orders"],"recordings":{"ACME 2024-11-27":"d"}}\n'
        b'{"name":"a","recordings":["ACME 2024-11-27"],"reaches":["being empty"],'
        b'"operations":[{"at":"second","n":61,"do":"kill"}]}\n'
    )


def _lean() -> bytes:
    """Return the two CSV files of a day of equity."""
    trades = b"34200000,100000,5,P,0,0\n34201000,100100,7,Q,0,0\n34202000,100000,5,P,0,0\n"
    return trades + b"--\n34200000,100000,5,0,0,P,0,0\n34201000,0,0,100100,7,Q,0,0\n"


def _read_lean(content: bytes, directory: Path) -> None:
    folder = directory / "equity" / "usa" / "tick" / "abc"
    folder.mkdir(parents=True, exist_ok=True)
    trades, _, quotes = content.partition(b"--\n")
    for kind, text in (("trade", trades), ("quote", quotes)):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a.csv", text)
        (folder / f"20241127_{kind}.zip").write_bytes(buffer.getvalue())
    import_lean(directory / "equity" / "usa" / "tick", directory / "out", quiet=True)


def _read_lean_archive(content: bytes, directory: Path) -> None:
    folder = directory / "equity" / "usa" / "tick" / "abc"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "20241127_trade.zip").write_bytes(content)
    (folder / "20241127_quote.zip").unlink(missing_ok=True)
    import_lean(directory / "equity" / "usa" / "tick", directory / "out", quiet=True)


def _archive(text: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", text)
    return buffer.getvalue()


DBN_NS = 1_732_717_800_000_000_000


def dbn_head() -> bytes:
    """Return the head of a DBN file."""
    import databento_dbn as dbn

    metadata = dbn.Metadata(
        dataset="XNAS.ITCH",
        start=0,
        stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID,
        schema=dbn.Schema.MBP_1,
    )
    return metadata.encode()


def dbn_trade(ts_event: int, price: int) -> bytes:
    """Return a DBN trade of 50, received at `DBN_NS`."""
    import databento_dbn as dbn

    fields = {"publisher_id": 1, "instrument_id": 1, "side": dbn.Side.NONE, "depth": 0}
    trade = dbn.TradeMsg(ts_event=ts_event, ts_recv=DBN_NS, price=price, size=50, action=dbn.Action.TRADE, **fields)
    return bytes(trade)


def dbn_file() -> bytes:
    """Return a DBN file of a quote and a trade."""
    import databento_dbn as dbn

    level = dbn.BidAskPair(bid_px=9_990_000_000, ask_px=10_010_000_000, bid_sz=100, ask_sz=200, bid_ct=1, ask_ct=1)
    fields = {"publisher_id": 1, "instrument_id": 1, "side": dbn.Side.NONE, "depth": 0}
    quote = dbn.MBP1Msg(ts_event=DBN_NS, ts_recv=DBN_NS, price=0, size=0, action=dbn.Action.ADD, levels=level, **fields)
    return dbn_head() + bytes(quote) + dbn_trade(DBN_NS + 5, 10_010_000_000)


# -- readers ----------------------------------------------------------------------------------------------------------


def _read_csv_day(content: bytes, directory: Path) -> None:
    _write(MAPPING.encode(), directory / "m.toml")
    import_csv(_write(content, directory / "x.csv"), directory / "m.toml", directory / "out", quiet=True)


def _read_mapping(content: bytes, directory: Path) -> None:
    _write(CSV.encode(), directory / "x.csv")
    import_csv(directory / "x.csv", _write(content, directory / "m.toml"), directory / "out", quiet=True)


def _read_recording(content: bytes, directory: Path) -> None:
    recording = Recording.open(_write(content, directory / "x.hrec"))
    recording.verify()
    for _ in recording.events():
        pass


def _read_fix(content: bytes, directory: Path) -> None:
    audit = Audit(CATALOGUE)
    audit.read("log", io.BytesIO(content))
    audit.end()
    audit.as_json()


def _read_bundle(content: bytes, directory: Path) -> None:
    replay(Bundle.open(_write(content, directory / "b.hbundle")), CATALOGUE)


def _read_fix_config(content: bytes, directory: Path) -> None:
    FixConfig.load(_write(content, directory / "f.toml"))


def _read_dbn(content: bytes, directory: Path) -> None:
    instrument = read_instrument(_write(INSTRUMENT.encode(), directory / "i.toml"))
    import_dbn(_write(content, directory / "x.dbn"), instrument, "2024-11-27", directory / "out")


def _read_corpus(content: bytes, directory: Path) -> None:
    (directory / "corpus").mkdir(exist_ok=True)
    _write(content, directory / "corpus" / "corpus.json")
    Corpus(directory / "corpus").check()


def _read_watched(content: bytes, directory: Path) -> None:
    tail, judge = Tail(_write(content, directory / "journal")), MutationJudge(CATALOGUE)
    number = 0
    while lines := tail.read_lines():
        for line in lines:
            number += 1
            judge.judge_line(line, number)
    judge.end()
    tail.close()


def _watch_state() -> bytes:
    import tempfile

    from holdover.watch import FixJudge, Offset

    with tempfile.TemporaryDirectory() as directory:
        watch = Watch("s", FixJudge(CATALOGUE, "s"), "d", [], lambda breach: None, lambda text: None, Path(directory))
        watch.judge_lines(_fix_log().splitlines(keepends=True), 1)
        watch.save(Offset(line=9), force=True)
        watch.close()
        return (Path(directory) / "watch.state").read_bytes()


def _read_watch_state(content: bytes, directory: Path) -> None:
    from holdover.watch import FixJudge

    _write(content, directory / "watch.state")
    Watch("s", FixJudge(CATALOGUE, "s"), "d", [], lambda breach: None, lambda text: None, directory).close()


def _read_lines(content: bytes, directory: Path) -> None:
    shutil.rmtree(directory / "out", ignore_errors=True)
    recorder = Recorder(directory / "out", read_instrument(_write(INSTRUMENT.encode(), directory / "i.toml")))
    try:
        record_lines(content.splitlines(keepends=True), recorder)
    finally:
        recorder.close()


EVENTS = (
    b'{"ts_event": "1732717800000000000", "price": "10.01", "size": "5"}\n'
    b'{"ts_event": "1732717801000000000", "bid_px": "10", "bid_sz": "1", "ask_px": "11", "ask_sz": "2"}\n'
)


def _part_file() -> bytes:
    from holdover.recording.format import RECORD

    body = RECORD.pack(1_732_717_800_000_000_000, 0, 2, 0, 0, 100, 5, 1, 2, 3, 4) * 3
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


def _read_part(content: bytes, directory: Path) -> None:
    instrument = read_instrument(_write(INSTRUMENT.encode(), directory / "i.toml"))
    seal_day(_write(content, directory / "2024-11-27.part"), instrument, "2024-11-27")


def _read_guard_config(content: bytes, directory: Path) -> None:
    read_config(_write(content, directory / "guard.toml"))


GUARD_TOML = """
[guard]
directory = "guard"
[redact]
fields = ["account"]
patterns = ["x[0-9]+"]
[pages]
repeat_s = 5
[[pages.channel]]
name = "hook"
kind = "webhook"
url = "http://127.0.0.1:9/hook"
[store]
timeout_s = 1.5
"""
PROCESS_TOML = """
[process]
command = ["true", "--port", "${port}"]
directory = "."
ready_s = 20.0
[process.environment]
A = "${directory}"
[venue]
symbols = ["ACME"]
clients = ["DESK"]
accelerate = 60.0
numbers = "carried"
[[state]]
name = "desk"
kind = "directory"
path = "desk"
exclude = ["*.lock"]
[redact]
fields = ["client_name"]
patterns = ["ACC-[0-9]{8}"]
"""
DESK_TOML = """
[desk]
directory = "desk"
day = 2024-11-27
open = 14:30:00
close = 21:00:00
position_max = 10000000
[fix]
host = "127.0.0.1"
port = 9880
sender = "DESK"
target = "VENUE"
[[instrument]]
symbol = "ACME"
[[strategy]]
name = "accumulate"
account = "A1"
symbol = "ACME"
side = "1"
order_qty = 10000
day_qty = 5000
slice_qty = 100
interval_s = 30.0
[guard]
directory = "guard"
"""
SHADOW_TOML = """
[shadow]
directory = "shadow"
[candidate]
subject = "desk"
instruments = ["ACME"]
days = 2
[incumbent]
journal = "incumbent/journal.jsonl"
[clock]
tick_s = 1.0
deadline_s = 30.0
[[component]]
name = "market data"
deadline_s = 5
calendar = "XNYS"
[cutover]
hours = 72
"""
EXPORT = json.dumps(
    {
        "orders": [
            {"cl_ord_id": "G1", "client": "DESK", "account": "A1", "symbol": "ACME", "side": "buy", "order_qty": "100"}
            | {"cum_qty": "40", "price": "98.05", "avg_px": "98.05", "time_in_force": "GTC"}
        ],
        "positions": [{"client": "DESK", "account": "A1", "symbol": "ACME", "net_qty": "-40"}],
        "numbers": {"DESK": {"out": 57, "in": 43}},
    }
)
INCIDENTS = "name,invariant,opened,acknowledged,acknowledged_by\na,x,2024-01-02T09:00:00Z,2024-01-02T09:05:00Z,me\n"
CORPUS = (
    b'{"corpus":2,"schedules":{"a.json":{"digest":"d","reason":"r"}},'
    b'"witnesses":{"sha256":"x","schedules":1,"cells":2}}'
)
RESULTS = (
    b'{"magic":"holdover-state-results","version":2,"catalogue":"c",'
    b'"tests":[{"test":"a","outcome":"passed","events_played":3}]}'
)
FIX_TOML = '[fix]\nversion = "4.4"\nsender = "A"\ntarget = "B"\nheartbeat_s = 30\nstart = "00:00:00"\n'


def _read_process_config(content: bytes, directory: Path) -> None:
    read_process_config(_write(content, directory / "p.toml"))


def _read_desk_config(content: bytes, directory: Path) -> None:
    read_live_config(_write(content, directory / "d.toml"))


def _read_shadow_config(content: bytes, directory: Path) -> None:
    read_shadow_config(_write(content, directory / "s.toml"))


def _read_venue_export(content: bytes, directory: Path) -> None:
    config = read_process_config(_write(PROCESS_TOML.encode(), directory / "p.toml"))
    instruments = [bundled_store().get("ACME", "2024-11-27").meta.instrument]
    read_night_export(_write(content, directory / "venue.json"), config, instruments, "2024-11-27")


def make_dbn_reader() -> FuzzedReader:
    """Return the reader of DBN files, which needs a process for each."""
    return FuzzedReader("dbn", dbn_file(), _read_dbn, (RecordingError,))


def make_readers() -> list[FuzzedReader]:
    """Return every reader."""
    recording, snapshot, bundle = _recording(), _snapshot_body(), _bundle_parts()
    return [
        FuzzedReader("csv", CSV.encode(), _read_csv_day, (RecordingError,)),
        FuzzedReader("csv-mapping", MAPPING.encode(), _read_mapping, (RecordingError,)),
        FuzzedReader("lean", _lean(), _read_lean, (RecordingError,)),
        FuzzedReader("lean-archive", _archive(_lean().partition(b"--\n")[0]), _read_lean_archive, (RecordingError,)),
        FuzzedReader("hrec", recording, _read_recording, (RecordingError,), words=["recording", "verify"]),
        FuzzedReader("hrec-sealed", recording, _read_recording, (RecordingError,), _seal_recording),
        FuzzedReader("hsnap", _seal_snapshot(snapshot), _read_snapshot, (SnapshotError,)),
        FuzzedReader("hsnap-sealed", snapshot, _read_snapshot, (SnapshotError,), _seal_snapshot),
        FuzzedReader("hbundle", _seal_bundle(bundle), _read_bundle, (BundleError,), words=["reproduce"]),
        FuzzedReader("hbundle-sealed", bundle, _read_bundle, (BundleError,), _seal_bundle, words=["reproduce"]),
        FuzzedReader(
            "schedule", DEFAULT_SCHEDULE.encode(), lambda c, d: decode_schedule(c), (ScheduleError,), words=["replay"]
        ),
        FuzzedReader("corpus", CORPUS, _read_corpus, (CorpusError, ScheduleError)),
        FuzzedReader(
            "witnesses", _witnesses(), lambda c, d: Witnesses.read(_write(c, d / "w.jsonl")), (ScheduleError,)
        ),
        FuzzedReader("coverage", _coverage(), lambda c, d: read_coverage(_write(c, d / "c.json")), (CoverageError,)),
        FuzzedReader(
            "coverage-sealed", _coverage(), lambda c, d: decode_coverage(c, "c"), (CoverageError,), _seal_coverage
        ),
        FuzzedReader("lock", _lock(), lambda c, d: read_lock(_write(c, d / "state-coverage.toml")), (LockError,)),
        FuzzedReader("results", RESULTS, lambda c, d: read_results(_write(c, d / "r.json")), (ResultsError,)),
        FuzzedReader("journal", _journal(), lambda c, d: list(read_journal(_write(c, d / "j"))), (ValueError,)),
        FuzzedReader(
            "journal-coverage",
            _journal(),
            lambda c, d: read_journal_coverage(_write(c, d / "j"), "c", axes_in_use()),
            (CoverageError,),
        ),
        FuzzedReader("fix-log", _fix_log(), _read_fix, (FixLogError,), words=["audit"]),
        FuzzedReader("watch-journal", _journal(), _read_watched, (SourceError,), words=["watch", "--once"]),
        FuzzedReader("watch-state", _watch_state(), _read_watch_state, (WatchStateError,)),
        FuzzedReader(
            "incidents", INCIDENTS.encode(), lambda c, d: read_csv(_write(c, d / "i.csv")), (IncidentImportError,)
        ),
        FuzzedReader("record-lines", EVENTS, _read_lines, (RecordingError,)),
        FuzzedReader("recorder-part", _part_file(), _read_part, (RecordingError,)),
        FuzzedReader("guard-config", GUARD_TOML.encode(), _read_guard_config, (GuardConfigError,)),
        FuzzedReader("process-config", PROCESS_TOML.encode(), _read_process_config, (GuardConfigError,)),
        FuzzedReader("desk-config", DESK_TOML.encode(), _read_desk_config, (GuardConfigError,)),
        FuzzedReader("shadow-config", SHADOW_TOML.encode(), _read_shadow_config, (ShadowConfigError,)),
        FuzzedReader("venue-export", EXPORT.encode(), _read_venue_export, (VenueStateError,)),
        FuzzedReader("fix-config", FIX_TOML.encode(), _read_fix_config, (SourceError,)),
        FuzzedReader(
            "instrument", INSTRUMENT.encode(), lambda c, d: read_instrument(_write(c, d / "i.toml")), (RecordingError,)
        ),
    ]
