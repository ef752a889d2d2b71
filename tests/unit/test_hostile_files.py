"""Files from elsewhere: they run no code, write nothing outside their folder, and stay within their bounds."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import stat
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.explore.corpus import Corpus, CorpusError
from holdover.explore.shrink import render_pytest
from holdover.harness.schedule import Operation, Schedule, decode_schedule, make_schedule
from holdover.harness.snapshot import Snapshot, SnapshotError, SnapshotInfo
from holdover.harness.trust import UntrustedCodeError, check_trust, find_foreign_code
from holdover.recording import Recording, RecordingError, bundled_store
from holdover.recording.store import recording_path
from holdover.runtime.bundle import Bundle, BundleError, BundleInfo
from holdover.runtime.files import OUTPUT_MARKER
from holdover.runtime.size_limits import parse_size

INFO = BundleInfo(mark="orders/x", scope="system", key="k", explanation="e", time_ns=1, catalogue="c")


def bundle_of(schedule: Schedule, explanation: str = "e", **parts: bytes) -> bytes:
    """Return the bytes of a bundle of a schedule on the bundled recordings."""
    store = bundled_store()
    contents = {"schedule.json": schedule.encode(), **parts}
    for day in schedule.recordings:
        contents[f"recordings/{day.symbol}/{day.trade_date}.hrec"] = store.get(
            day.symbol, day.trade_date
        ).path.read_bytes()
    return Bundle(msgspec.structs.replace(INFO, explanation=explanation), contents).encode()


def evil_module(directory: Path) -> Path:
    """Write a module that leaves a trace when it is imported; return the path of the trace."""
    trace = directory / "trace"
    (directory / "evilpart.py").write_text(
        f"from pathlib import Path\nPath({str(trace)!r}).touch()\nfrom holdover.adapters.desk import DeskSubject as S\n"
    )
    return trace


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, from which modules are imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "evilpart", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def foreign_schedule(catalogue: Catalogue, **fields: Any) -> Schedule:
    """A schedule of a quarter of an hour."""
    return make_schedule(
        bundled_store(),
        ["BOLT"],
        ["2024-11-27"],
        catalogue,
        operations=[Operation(day=0, at="second", n=60, do="overnight")],
        **fields,
    )


# -- code -------------------------------------------------------------------------------------------------------------


def test_a_bundle_runs_its_subject_only_when_it_is_trusted(
    working_directory: Path, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = evil_module(working_directory)
    Path("b.hbundle").write_bytes(bundle_of(foreign_schedule(catalogue, subject="evilpart:S")))
    assert main(["reproduce", "b.hbundle", "--out", "out"]) == 2
    message = capsys.readouterr().err
    assert not trace.exists()
    assert "--trust" in message
    assert str(working_directory / "evilpart.py") in message
    assert not Path("out").exists()
    main(["reproduce", "b.hbundle", "--out", "out", "--trust"])
    assert trace.exists()


@pytest.mark.parametrize(
    "verb", ["replay s.json", "shrink s.json", "bundle s.json", "cycle --schedule s.json", "corpus play", "gate"]
)
def test_no_verb_runs_the_subject_of_a_schedule_unasked(
    working_directory: Path, catalogue: Catalogue, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    trace = evil_module(working_directory)
    schedule = foreign_schedule(catalogue, subject="evilpart:S")
    schedule.save(Path("s.json"))
    Corpus(Path("corpus")).add(schedule, "a.json", "a reason")
    words = verb.split()
    if verb == "gate":
        Path("state-coverage.toml").write_text("version = 2\n")
        words = ["gate", "--corpus", "corpus"]
    assert main(words) == 2
    assert "--trust" in capsys.readouterr().err
    assert not trace.exists()


def test_a_witness_runs_its_subject_only_when_it_is_trusted(
    working_directory: Path, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = evil_module(working_directory)
    corpus = Corpus(Path("corpus"))
    witnesses = corpus.witnesses()
    witnesses.head.axes = ["orders"]
    witnesses.add(foreign_schedule(catalogue, subject="evilpart:S"), ["being empty"])
    corpus.save_witnesses(witnesses)
    assert main(["corpus", "play"]) == 2
    assert "--trust" in capsys.readouterr().err
    assert main(["search", "--instrument", "BOLT", "--bursts", "1", "--corpus", "corpus"]) == 2
    assert not trace.exists()


@pytest.mark.parametrize(
    ("subject", "setting", "value"),
    [
        ("nautilus", "strategy", "evilpart:S"),
        ("freqtrade", "strategy_path", "/tmp/evil"),
        ("freqtrade", "anything", 1),
        ("desk", "live", "/etc/passwd"),
        ("holdover.adapters.nautilus:NautilusSubject", "strategy", "evilpart:S"),
    ],
)
def test_a_setting_that_names_code_or_files_needs_trust(subject: str, setting: str, value: object) -> None:
    schedule = Schedule(subject=subject, settings={setting: value})
    assert len(find_foreign_code(schedule)) == 1
    with pytest.raises(UntrustedCodeError, match="--trust"):
        check_trust(schedule, "s.json")
    check_trust(schedule, "s.json", is_trusted=True)


def test_data_needs_no_trust() -> None:
    check_trust(Schedule(settings={"slices": 1, "strategies": ["a"]}), "s.json")
    check_trust(Schedule(subject="nautilus", settings={"oms": "hedging"}), "s.json")
    check_trust(Schedule(subject="mine:S"), "s.json", trusted_subjects=["mine:S"])


TEXT = st.text(
    st.one_of(
        st.sampled_from("\"'\\\n\r\u2028\u2029\x0b\x0c\x1c\x85{}#%\t\x00"), st.characters(blacklist_categories=("Cs",))
    ),
    max_size=60,
)


@given(explanation=TEXT, name=TEXT, strategy=TEXT, expect=TEXT)
@settings(max_examples=200)
def test_a_generated_test_contains_data_only(explanation: str, name: str, strategy: str, expect: str) -> None:
    """Whatever a bundle says, the test is one import block, two tuples of strings and one function of fixed body."""
    schedule = Schedule(
        name=name,
        expect=expect,
        settings={"strategies": [strategy]},
        operations=[Operation(at="fill", n=1, do="kill", strategy=strategy)],
    )
    tree = ast.parse(render_pytest(schedule, explanation))
    imports, story, data, function = tree.body[:1], tree.body[2], tree.body[3], tree.body[4]
    assert [type(node) for node in tree.body] == [
        ast.ImportFrom,
        ast.ImportFrom,
        ast.Assign,
        ast.Assign,
        ast.FunctionDef,
    ]
    assert isinstance(imports[0], ast.ImportFrom)
    assert isinstance(story, ast.Assign)
    assert isinstance(data, ast.Assign)
    assert isinstance(function, ast.FunctionDef)
    assert ast.literal_eval(data.value) == tuple(schedule.encode().decode().splitlines(keepends=True))
    assert decode_schedule("".join(ast.literal_eval(data.value)).encode()) == schedule
    first = explanation.splitlines()[0] if explanation.splitlines() else name
    assert ast.literal_eval(story.value) == (first, *schedule.describe())
    empty = ast.parse(render_pytest(Schedule(), ""))
    assert [ast.dump(node) for node in function.body] == [ast.dump(node) for node in empty.body[4].body]  # type: ignore[attr-defined]
    assert function.name.isidentifier()
    assert function.name.startswith("test_")


def test_the_test_of_a_hostile_bundle_is_data(working_directory: Path, catalogue: Catalogue) -> None:
    hostile = 'x"""\nimport os; os.mkdir("owned")\n"""'
    schedule = foreign_schedule(catalogue, faults=["forget-carried-partial"], name=hostile)
    Path("b.hbundle").write_bytes(bundle_of(schedule, explanation=hostile))
    assert main(["reproduce", "b.hbundle", "--out", "out"]) in (0, 1, 3)
    exec(compile(next(Path("out").glob("test_*.py")).read_text(), "generated", "exec"), {})
    assert not Path("owned").exists()


# -- names ------------------------------------------------------------------------------------------------------------

OUTSIDE = ["../x", "/tmp/x", "a/../../x", "a//b", "./x", "a\\..\\x", "a\nb", "recordings/../../x/y.hrec", "x/" * 5_000]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_bundle_with_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "b.hbundle"
    path.write_bytes(Bundle(INFO, {name: b"x"}).encode())
    with pytest.raises(BundleError):
        Bundle.open(path)
    assert [file.name for file in tmp_path.parent.rglob("*") if file.is_file() and file.name == "x"] == []


def zip_of(members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    """Return a bundle's archive with more members."""
    buffer = io.BytesIO(Bundle(INFO, {}).encode())
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def link(name: str, mode: int) -> zipfile.ZipInfo:
    """Return a member that is no regular file."""
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


@pytest.mark.parametrize(
    "members",
    [
        [(link("recordings", stat.S_IFLNK | 0o777), b"/etc")],
        [(link("disk", stat.S_IFBLK | 0o600), b"")],
        [(link("pipe", stat.S_IFIFO | 0o600), b"")],
        [("a", b"1"), ("a/b", b"2")],
        [(f"p{number}", b"") for number in range(10_001)],
    ],
)
def test_a_bundle_holds_regular_files_only(tmp_path: Path, members: list[tuple[Any, bytes]]) -> None:
    (tmp_path / "b.hbundle").write_bytes(zip_of(members))
    with pytest.raises(BundleError):
        Bundle.open(tmp_path / "b.hbundle")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b.hbundle").write_bytes(zip_of([("a", b"1"), ("a", b"2")]))
    with pytest.raises(BundleError, match="two parts called"):
        Bundle.open(tmp_path / "b.hbundle")


def snapshot_bytes(parts: dict[str, bytes]) -> bytes:
    """Return the bytes of a snapshot with these parts."""
    info = SnapshotInfo(trade_date="2024-11-27", phase="night", time_ns=1, catalogue="c")
    body = msgspec.msgpack.encode({"about": info, "parts": parts})
    return b"HSNP" + struct.pack("<I", 2) + hashlib.sha256(body).digest() + zlib.compress(body)


@pytest.mark.parametrize("name", ["subject/../../x", "subject//etc/x", "/subject/x", "subject/", "subject/a\0b"])
def test_a_snapshot_restores_inside_its_folder_only(tmp_path: Path, name: str) -> None:
    store = tmp_path / "deep" / "store"
    store.mkdir(parents=True)
    (store / "evil.hsnap").write_bytes(snapshot_bytes({name: b"x", "subject/ok": b"y"}))
    words = ["snapshot", "restore", "evil", "--store", str(store), "--into", str(tmp_path / "deep" / "into")]
    assert main(words) == 2
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["evil.hsnap"]


def test_a_snapshot_is_restored_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "s.hsnap").write_bytes(snapshot_bytes({"subject/a/b": b"1", "subject/c": b"2", "guard": b"3"}))
    assert main(["snapshot", "restore", "s", "--store", str(tmp_path), "--into", str(tmp_path / "into")]) == 0
    assert {path.relative_to(tmp_path / "into").as_posix() for path in (tmp_path / "into").rglob("*")} == {
        "a",
        "a/b",
        "c",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "s.hsnap"]


@pytest.mark.parametrize(("venue", "symbol", "day"), [("..", "X", "d"), ("v", "../X", "d"), ("v", "X", "../../d")])
def test_an_imported_symbol_names_no_other_folder(tmp_path: Path, venue: str, symbol: str, day: str) -> None:
    with pytest.raises(RecordingError):
        recording_path(tmp_path, venue, symbol, day)


def test_a_corpus_lists_files_of_its_folder_only(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "victim.json").write_text("{}")
    listed = {"corpus": 2, "schedules": {"../victim.json": {"digest": "d", "reason": "r"}}}
    (tmp_path / "corpus" / "corpus.json").write_text(json.dumps(listed))
    with pytest.raises(CorpusError, match="outside"):
        Corpus(tmp_path / "corpus")
    words = ["corpus", "retire", "../victim.json", "--why", "w", "--by", "me", "--corpus", str(tmp_path / "corpus")]
    assert main(words) == 2
    assert (tmp_path / "victim.json").exists()


# -- size -------------------------------------------------------------------------------------------------------------


def test_a_bundle_that_expands_too_far_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bomb.hbundle"
    path.write_bytes(Bundle(INFO, {"mutations.jsonl": bytes(80 << 20), "memory.msgpack": b""}).encode())
    assert path.stat().st_size < 200_000
    assert main(["reproduce", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "--max-size" in capsys.readouterr().err
    assert len(Bundle.open(path, size_max=200 << 20).parts["mutations.jsonl"]) == 80 << 20


def test_a_snapshot_that_expands_too_far_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.hsnap"
    path.write_bytes(snapshot_bytes({"subject/a": bytes(80 << 20)}))
    with pytest.raises(SnapshotError, match="--max-size"):
        Snapshot.open(path)
    assert len(Snapshot.open(path, size_max=200 << 20).parts["subject/a"]) == 80 << 20


def test_a_recording_that_expands_too_far_is_refused(tmp_path: Path) -> None:
    """The header of the bomb is consistent: only the bound stops it."""
    recording = bundled_store().get("ACME", "2024-11-27")
    records = (80 << 20) // 64
    blocks = -(-records // 4096)
    body = zlib.compress(bytes(80 << 20), 9)
    meta = msgspec.structs.replace(recording.meta, encoding="zlib", records=records, body_bytes=len(body))
    header = msgspec.json.encode(meta)
    sums = struct.pack(f"<{blocks}I", *[0] * blocks) + struct.pack("<I", zlib.crc32(header))
    path = tmp_path / "bomb.hrec"
    path.write_bytes(
        b"HREC" + struct.pack("<II", 1, len(header)) + header + body + sums + hashlib.sha256(b"").digest() + b"HEND"
    )
    with pytest.raises(RecordingError, match="expands"):
        Recording.open(path)


def test_a_file_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe or a device must not hold a reader up or fill its memory."""
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        for words in (["replay"], ["reproduce"], ["shrink"], ["recording", "verify"]):
            if words != ["recording", "verify"] or not path.is_dir():
                assert main([*words, str(path)]) in (1, 2)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5G", "G", "1X", "9" * 20, "1e9", "\u0661G", "1G\n2"])
def test_a_size_is_a_number_with_a_unit(text: str) -> None:
    with pytest.raises(ValueError, match="500M"):
        parse_size(text)


def test_sizes() -> None:
    assert [parse_size(text) for text in ("1", "2K", "500m", "4GiB")] == [1, 2048, 500 << 20, 4 << 30]


# -- output directories -----------------------------------------------------------------------------------------------


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory of the user's."""
    (tmp_path / "precious" / "carried").mkdir(parents=True)
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    (tmp_path / "precious" / "carried" / "data").write_text("more")
    return tmp_path / "precious"


def content_of(directory: Path) -> dict[str, str]:
    """Return the files of a directory with their content."""
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        ["reproduce", "b.hbundle"],
        ["replay", "s.json"],
        ["shrink", "s.json"],
        ["cycle", "--instrument", "BOLT"],
        ["sweep", "--instrument", "BOLT", "--kinds", "kill", "--budget", "1"],
        ["search", "--instrument", "BOLT", "--bursts", "1"],
    ],
    ids=lambda words: words[0],
)
def test_a_folder_of_others_is_never_emptied(
    working_directory: Path, catalogue: Catalogue, precious: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    schedule = foreign_schedule(catalogue)
    schedule.save(Path("s.json"))
    Path("b.hbundle").write_bytes(bundle_of(schedule))
    before = content_of(precious)
    assert main([*words, "--out", str(precious)]) == 2
    assert content_of(precious) == before
    assert OUTPUT_MARKER in capsys.readouterr().err


def test_a_link_is_no_output_folder(working_directory: Path, catalogue: Catalogue, precious: Path) -> None:
    foreign_schedule(catalogue).save(Path("s.json"))
    Path("link").symlink_to(precious)
    before = content_of(precious)
    assert main(["replay", "s.json", "--out", "link"]) == 2
    assert content_of(precious) == before


def test_an_output_folder_of_an_earlier_run_is_used_again(working_directory: Path, catalogue: Catalogue) -> None:
    foreign_schedule(catalogue).save(Path("s.json"))
    assert main(["replay", "s.json", "--out", "out"]) == 0
    Path("out/leftover").touch()
    assert main(["replay", "s.json", "--out", "out"]) == 0
    assert not Path("out/leftover").exists()


def test_a_bundle_leaves_no_work_folder(working_directory: Path, catalogue: Catalogue) -> None:
    schedule = foreign_schedule(catalogue)
    schedule.save(Path("s.json"))
    assert main(["bundle", "s.json"]) == 3
    assert [path.name for path in Path().iterdir()] == ["s.json"]
