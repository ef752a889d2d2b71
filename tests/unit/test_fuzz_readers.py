"""No input breaks a reader: it is read, or refused by the documented exception, in bounded time and memory.

Each reader has a valid file (`fuzzing.py`). Hypothesis mutates it in the default run; `make test-slow` reads 100,000
mutations of each, the same ones every time. An input that once broke a reader is in `REGRESSIONS`.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdover.cli import main
from holdover.recording import RecordingError
from holdover.recording.dbn import import_dbn
from holdover.recording.dbn_decoder import DbnDecodingError, decode_dbn
from holdover.recording.tap import read_instrument

from .fuzzing import (
    INSTRUMENT,
    FuzzedReader,
    Mutation,
    draw_mutations,
    make_dbn_reader,
    make_readers,
    mutate,
)

READERS = {reader.name: reader for reader in make_readers()}
SECONDS_MAX = 5.0
"""Processor time that a reader may take for a file of a few kilobytes."""
GROWTH_MAX = 400 << 20
"""Bytes by which the process may grow over all inputs of one reader."""
MUTATIONS = st.lists(
    st.tuples(st.integers(0, 7), st.floats(0, 1, allow_nan=False), st.integers(0, 65_535)), min_size=1, max_size=4
)
REGRESSIONS: list[tuple[str, list[Mutation] | bytes]] = [
    ("csv", b"t,px,qty,bid,bs,ask,as\nx,1,1,,,,\n"),
    ("csv", b"t,px,qty,bid,bs,ask,as\n1e999999999,1,1,,,,\n"),
    ("csv", b"t,px,qty,bid,bs,ask,as\n99999999999999999,1,1,,,,\n"),
    ("csv", b"t,px,qty,bid,bs,ask,as\n17320000000000,1,1,,,,\n"),
    ("csv", b"t,px,qty,bid,bs,ask,as\n1732717800000,1e999999999,1,,,,\n"),
    ("csv", b"t,px,qty,bid,bs,ask,as\n1732717800000," + b"9" * 30 + b",1,,,,\n"),
    ("csv", b"t,px,qty,bid,bs,ask,as\n1732717800000,1\n"),
    ("csv-mapping", b"\xff\xfe"),
    ("csv-mapping", b'symbol = "X"\ntime = "t"\ntime_unit = "ms"\ntrade = 1\n'),
    ("csv-mapping", b"symbol = " + b"9" * 5_000),
    ("csv-mapping", b"symbol = " + b"[" * 3_000),
    ("lock", b"version = " + b"[" * 3_000),
    ("fix-config", b"fix = " + b"[" * 3_000),
    ("schedule", b"[" * 3_000),
    ("schedule", b'{"settings":' * 3_000),
    ("schedule", b'{"start":"../../etc/passwd","recordings":[{"symbol":"A","trade_date":"d","digest":""}]}'),
    ("journal", b'{"format":"holdover-journal","version":3}\n' + b"[" * 3_000 + b"\n"),
    ("watch-journal", b'{"a":' * 3_000 + b"\n"),
    ("watch-journal", b'{"record": {}, "kind": "Order", "time_ns": ' + b"9" * 4_500 + b"}\n"),
    ("coverage", b"[" * 3_000),
    ("corpus", b'{"corpus":2,"schedules":{"../x.json":{"digest":"d","reason":"r"}}}'),
    ("record-lines", b'{"ts_event": "9999999999999999999999", "price": "1", "size": "1"}\n'),
    ("record-lines", b'{"ts_event": "-1", "price": "1", "size": "1"}\n'),
    ("record-lines", b'{"ts_event": "1", "price": "1e99999999", "size": "1"}\n'),
    ("venue-export", b"[" * 3_000),
    ("desk-config", b'[[strategy]]\nname = "a~b"\n'),
    ("watch-state", [(0, 0.05633207627866921, 9306), (5, 0.618028473811608, 15567)]),
    ("watch-state", [(0, 0.05807221021276743, 542), (7, 0.9393466461080008, 5168)]),
    ("fix-log", b"8=FIX.4.4|34=" + b"9" * 1_000_000 + b"|35=8|10=000|\n"),
    ("fix-log", b"8=FIX.4.4|35=8|49=A|56=B|34=1|11=X|14=" + b"9" * 1_000_000 + b"|10=000|\n"),
]
"""Inputs that broke a reader: whole files, or mutations of its valid file."""


@pytest.mark.parametrize("name", READERS)
def test_the_valid_file_is_accepted(tmp_path: Path, name: str) -> None:
    """Otherwise the mutations would only show that everything is refused."""
    reader = READERS[name]
    assert reader.run(reader.seal(reader.content), tmp_path)


@pytest.mark.parametrize(("name", "regression"), REGRESSIONS)
def test_no_kept_input_breaks_its_reader(tmp_path: Path, name: str, regression: list[Mutation] | bytes) -> None:
    reader = READERS[name]
    content = regression if isinstance(regression, bytes) else reader.seal(mutate(reader.content, regression))
    began = time.process_time()
    reader.run(content, tmp_path)
    assert time.process_time() - began < SECONDS_MAX


@pytest.mark.parametrize("name", READERS)
@given(mutations=MUTATIONS)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_mutation_breaks_a_reader(name: str, mutations: list[Mutation]) -> None:
    reader = READERS[name]
    content = reader.seal(mutate(reader.content, mutations))
    with tempfile.TemporaryDirectory() as directory:
        began = time.process_time()
        reader.run(content, Path(directory))
        assert time.process_time() - began < SECONDS_MAX


COMMANDS = [reader for reader in READERS.values() if reader.words]


@pytest.mark.parametrize("reader", COMMANDS, ids=lambda reader: reader.name)
def test_a_command_ends_with_a_documented_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, reader: FuzzedReader
) -> None:
    """Bad input is 2, or 0, 1 and 3 for what could be read; never a traceback, never a crash of the tool."""
    monkeypatch.chdir(tmp_path)
    source = random.Random(reader.name)
    for number in range(25):
        content = reader.seal(mutate(reader.content, draw_mutations(source)))
        (tmp_path / "input").write_bytes(content)
        code = main([*reader.words, "input", *(["--out", f"out{number}"] if reader.words == ["reproduce"] else [])])
        message = capsys.readouterr().err
        assert code in (0, 1, 2, 3)
        assert "Traceback" not in message
        assert "failed in" not in message
        assert "set HOLDOVER_TRACEBACK" not in message


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_hundred_thousand_mutations_break_no_reader(name: str) -> None:
    """In a process of its own, whose largest memory is measured. `HOLDOVER_FUZZ_INPUTS` sets another number."""
    count = os.environ.get("HOLDOVER_FUZZ_INPUTS", "100000")
    words = [sys.executable, "-m", "tests.unit.test_fuzz_readers", name, count]
    ended = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-3_000:] + ended.stderr[-3_000:]


def run_many(name: str, count: int) -> int:
    """Read mutations of one reader's file; print each that breaks it, and return the exit code of the process."""
    reader, source, failures = READERS[name], random.Random(name), 0
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for number in range(count):
        mutations = draw_mutations(source)
        content = reader.seal(mutate(reader.content, mutations))
        began = time.process_time()
        try:
            reader.run(content, directory)
        except Exception as problem:
            failures += 1
            print(f"input {number}, {mutations}: {type(problem).__name__}: {str(problem)[:200]}")
        if time.process_time() - began > SECONDS_MAX:
            failures += 1
            print(f"input {number}, {mutations}: took {time.process_time() - began:.1f} s")
        for path in directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if failures > 20:
            break
    shutil.rmtree(directory)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    if growth > GROWTH_MAX:
        failures += 1
        print(f"the process grew by {growth >> 20} MiB")
    return 1 if failures else 0


# -- native decoders --------------------------------------------------------------------------------------------------


def test_a_dbn_file_never_ends_this_process(tmp_path: Path) -> None:
    """The decoder is native code that may abort; it runs in a child process."""
    pytest.importorskip("databento_dbn")
    reader, source = make_dbn_reader(), random.Random(5)
    assert reader.run(reader.content, tmp_path)
    for _ in range(8):
        reader.run(mutate(reader.content, draw_mutations(source)), tmp_path)


@pytest.mark.slow
def test_no_dbn_mutation_ends_this_process(tmp_path: Path) -> None:
    pytest.importorskip("databento_dbn")
    reader, source = make_dbn_reader(), random.Random(6)
    for _ in range(1_000):
        reader.run(mutate(reader.content, draw_mutations(source)), tmp_path)


@pytest.mark.parametrize("code", ["os.abort()", "os._exit(7)", "bytearray(1 << 44)", "print('not msgpack')"])
def test_a_decoder_that_dies_is_a_file_that_cannot_be_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    fake = "import os\nclass DBNDecoder:\n    def write(self, data):\n        " + code + "\n    def decode(self):\n"
    (tmp_path / "databento_dbn.py").write_text(fake + "        return []\n")
    (tmp_path / "x.dbn").write_bytes(b"DBN")
    (tmp_path / "i.toml").write_text(INSTRUMENT)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(sys.path)}")
    with pytest.raises(RecordingError, match=r"x\.dbn: not a DBN file"):
        import_dbn(tmp_path / "x.dbn", read_instrument(tmp_path / "i.toml"), "2024-11-27", tmp_path / "out")
    if "print" not in code:
        with pytest.raises(DbnDecodingError):
            decode_dbn(tmp_path / "x.dbn")


if __name__ == "__main__":
    sys.exit(run_many(sys.argv[1], int(sys.argv[2])))
