"""An audit in bounded memory and linear time, whose verdict says what could not be used."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.audit import Audit, FixLogError
from holdover.audit.framing import FixFramer
from holdover.audit.log_lines import LINE_MAX, OverlongLine, read_log_lines
from holdover.audit.seen_messages import RECENT_MAX, SeenMessages
from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.watch import Tail

SOH = "\x01"


def fix_message(**fields: object) -> bytes:
    """Return one message; the keywords are tags with an underscore before them."""
    body = "".join(f"{tag[1:]}={value}{SOH}" for tag, value in fields.items()).encode()
    text = b"8=FIX.4.4\x019=%d\x01" % len(body) + body
    return text + b"10=%03d\x01" % (sum(text) % 256)


def report(order: int, cum: int, seq: int, *, last: int = 40, status: str = "1", **changes: object) -> bytes:
    """Return an execution report of a fill of an order of 80."""
    fields: dict[str, object] = {"_35": "8", "_34": seq, "_49": "V", "_56": "C", "_52": "20240102-10:00:00.000"}
    fields |= {"_11": f"O{order}", "_17": f"E{order}-{cum}", "_150": "F", "_39": status, "_55": "IBM", "_54": 1}
    fields |= {"_38": 80, "_14": cum, "_151": 80 - cum, "_32": last, "_31": "10.5"}
    return fix_message(**(fields | changes))


def orders(count: int) -> Iterator[bytes]:
    """Yield the reports of orders that are filled in two executions each."""
    for number in range(count):
        yield report(number, 40, 2 * number + 1)
        yield report(number, 80, 2 * number + 2, status="2")


def run_audit(content: bytes, catalogue: Catalogue, **options: Any) -> Audit:
    """Return the audit of a log."""
    audit = Audit(catalogue, **options)
    audit.read("log", io.BytesIO(content))
    audit.end()
    return audit


# -- verdict ----------------------------------------------------------------------------------------------------------


def test_a_log_of_unusable_reports_does_not_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = [report(0, 40, 1), *(report(number, 40, number + 1, _14="x") for number in range(1, 2_001))]
    (tmp_path / "fix.log").write_bytes(b"\n".join(log))
    assert main(["audit", str(tmp_path / "fix.log")]) == 3
    text = capsys.readouterr().out
    assert "2,000 messages could not be used" in text
    assert "the first at line 2" in text
    assert "is 'x', it should be a decimal number" in text
    assert main(["audit", str(tmp_path / "fix.log"), "--json"]) == 3
    summary = json.loads(capsys.readouterr().out)
    assert (summary["unusable"], summary["executions"], summary["verdict"]) == (2_000, 1, "unknown")
    assert main(["audit", str(tmp_path / "fix.log"), "--unusable-max", "100"]) == 0


def test_one_torn_message_in_a_thousand_is_a_note(catalogue: Catalogue) -> None:
    log = list(orders(500))
    log[700] = log[700][:-30]
    audit = run_audit(b"\n".join(log), catalogue)
    assert audit.verdict == "holds"
    assert "1 messages could not be used" in audit.list_notes()[0]


def test_other_lines_of_a_log_are_no_unusable_messages(catalogue: Catalogue) -> None:
    log = [line for message in orders(10) for line in (b"INFO connected", message)]
    audit = run_audit(b"\n".join(log), catalogue)
    assert (audit.verdict, audit.unusable, audit.skipped_count) == ("holds", 0, 20)


def test_a_breach_is_a_breach_among_unusable_messages(catalogue: Catalogue) -> None:
    log = [report(0, 40, 1), report(0, 50, 2, last=20), *(report(1, 40, n, _14="x") for n in range(3, 50))]
    assert run_audit(b"\n".join(log), catalogue).verdict == "breach"


# -- lines ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 70_000))
@settings(max_examples=25, deadline=None)
def test_the_pieces_of_a_log_are_the_log(counts: list[int], padding: int) -> None:
    """Law: nothing is lost or doubled, with line ends or without, whatever the length of a line."""
    lines = [
        b"x" * (padding % 300) + report(number, 40, 1) * (padding * count // 400) for number, count in enumerate(counts)
    ]
    content = b"\n".join(lines)
    pieces = list(read_log_lines(io.BytesIO(content)))
    assert b"".join(piece for _, piece in pieces if isinstance(piece, bytes)) == content
    assert {number for number, _ in pieces} <= set(range(1, len(lines) + 1))


def test_a_log_without_line_ends_has_the_verdict_of_one_with_them(catalogue: Catalogue) -> None:
    messages = list(orders(1_000))
    with_ends, without = (run_audit(separator.join(messages), catalogue) for separator in (b"\n", b""))
    assert (without.messages, without.orders.executions, without.verdict) == (2_000, 2_000, "holds")
    assert without.as_json() | {"files": []} == with_ends.as_json() | {"files": []}


@pytest.mark.parametrize("message", [report(1, 40, 1), b"8=FIX.4.4|35=8|10=1|", b"8=FIX.4.4\x0135=0\x01", b"\x0110=1"])
def test_framing_takes_linear_time(message: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in bytes handed to the parser of messages: at most twice the line."""
    framer, parsed_bytes = FixFramer(), 0
    parse = framer._parse_message

    def counting(text: bytes, end: int) -> Any:
        nonlocal parsed_bytes
        parsed_bytes += len(text)
        return parse(text, end)

    monkeypatch.setattr(framer, "_parse_message", counting)
    line = b"8=FIX.4.4\x0135=0\x01" + message * 3_000
    framer.split_line(line)
    assert parsed_bytes <= 2 * len(line)


def test_a_message_without_an_end_is_dropped(catalogue: Catalogue) -> None:
    content = report(0, 40, 1) + b"\n" + b"8=FIX.4.4\x0158=" + b"x" * (3 * LINE_MAX) + report(0, 80, 3, status="2")
    assert [type(line) for _, line in read_log_lines(io.BytesIO(content))] == [bytes, OverlongLine, bytes]
    audit = run_audit(content, catalogue)
    assert (audit.messages, audit.unusable) == (2, 1)
    assert "bytes is not judged" in audit.skipped[0].reason


def test_a_gzip_log_that_expands_too_far_is_refused(catalogue: Catalogue) -> None:
    bomb = gzip.compress(bytes(100 << 20))
    with pytest.raises(FixLogError, match="expands to more than"):
        run_audit(bomb, catalogue)


@pytest.mark.parametrize("digits", [13, 5_000, 1_000_000])
@pytest.mark.parametrize("tag", ["_34", "_14", "_31", "_9", "_36", "_6"])
def test_a_number_of_any_length_is_no_crash(catalogue: Catalogue, tag: str, digits: int) -> None:
    audit = run_audit(report(0, 40, 1) + b"\n" + report(0, 80, 2, **{tag: "9" * digits}), catalogue)
    assert audit.verdict in ("holds", "unknown", "breach")
    audit.to_bytes()


# -- memory -----------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_log(catalogue: Catalogue) -> None:
    """Twice the orders take no more memory than half of them, once the closed ones are forgotten."""
    audit = Audit(catalogue, closed_max=200)
    tracemalloc.start()
    try:
        sizes = []
        messages = orders(3_000)
        for _ in range(3):
            audit.read_lines([next(messages) for _ in range(2_000)])
            audit.sessions._message_digests.recent.clear()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[2] < sizes[0] + 200_000
    audit.end()
    assert audit.verdict == "holds"
    assert len(audit.orders.order_states) == 200
    assert audit.as_json()["orders"] == 3_000
    assert sum(map(len, audit.monitor.tables.by_table.values())) <= 200 * 3 + 10
    assert sum(map(len, audit.monitor.tables.totals.values())) <= 200 * 10


def test_a_forgotten_order_is_one_from_before_the_log(catalogue: Catalogue) -> None:
    """A bust, a repetition or a request long after never breaches by what was forgotten."""
    late = [
        report(0, 40, 2_001, last=40, status="1", _150="H", _19="E0-80", _17="B1"),
        fix_message(_35="F", _34=1, _49="C", _56="V", _52="20240102-11:00:00", _11="X", _41="O1", _55="IBM", _54=1),
        report(2, 80, 2_002, status="2", _17="again", _43="Y"),
        report(3, 40, 2_003, _17="E3-40"),
    ]
    audit = run_audit(b"\n".join([*orders(1_000), *late]), catalogue, closed_max=10)
    assert audit.breaches == []


def test_an_open_order_is_never_forgotten(catalogue: Catalogue) -> None:
    log = [report(0, 40, 1)]
    for number in range(1, 500):
        log += [report(number, 40, 2 * number), report(number, 80, 2 * number + 1, status="2")]
    log.append(report(0, 80, 1_000, last=10, status="2"))
    audit = run_audit(b"\n".join(log), catalogue, closed_max=10)
    assert {breach.key for breach in audit.breaches} == {"O0"}


@pytest.mark.parametrize("closed_max", [5, 50, 10_000])
def test_a_breach_of_the_last_orders_is_found_whatever_is_remembered(catalogue: Catalogue, closed_max: int) -> None:
    log = list(orders(300))
    log[501] = report(250, 80, 502, last=30, status="2")
    audit = run_audit(b"\n".join(log), catalogue, closed_max=closed_max)
    assert {breach.key for breach in audit.breaches} == {"O250"}


def test_an_audit_that_forgets_resumes_where_it_was(catalogue: Catalogue) -> None:
    """A sidecar stores and restores it between any two messages."""
    whole, resumed = Audit(catalogue, closed_max=20), Audit(catalogue, closed_max=20)
    for audit in (whole, resumed):
        audit.begin_log("log")
    for number, line in enumerate(orders(200), 1):
        whole.read_lines((line,), number)
        resumed.read_lines((line,), number)
        if number % 37 == 0:
            data = resumed.to_bytes()
            resumed = Audit(catalogue, closed_max=20)
            resumed.restore_bytes(data)
    assert whole.to_bytes() == resumed.to_bytes()


def test_a_second_copy_of_a_log_counts_once(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much came between: the digests of old messages are on disk."""
    monkeypatch.setattr("holdover.audit.seen_messages.RECENT_MAX", 100)
    audit = Audit(catalogue, closed_max=10)
    for name in ("log", "copy"):
        audit.read(name, io.BytesIO(b"\n".join(orders(500))))
    audit.end()
    assert (audit.sessions.copy_count, audit.breaches, audit.messages) == (1_000, [], 2_000)


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 300), max_size=400))
@settings(max_examples=30, deadline=None)
def test_seen_messages_are_a_set(digests: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holdover.audit.seen_messages.RECENT_MAX", 7)
        patch.setattr("holdover.audit.seen_messages._FILTER_BITS", 10)
        messages, expected = SeenMessages(), set()
        for digest in digests:
            assert messages.add(digest) == (digest in expected)
            expected.add(digest)
    assert RECENT_MAX > 7


def test_the_lists_of_an_audit_end(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdover.audit.audit.LISTED_MAX", 10)
    log = [line for n in range(50) for line in (report(n, 40, 2 * n + 1), report(n, 50, 2 * n + 2, last=20), b"noise")]
    audit = run_audit(b"\n".join(log), catalogue)
    assert (len(audit.breaches), len(audit.skipped), audit.skipped_count) == (10, 10, 50)
    assert audit.breach_count >= 50


# -- watch ------------------------------------------------------------------------------------------------------------


def test_a_watch_takes_a_log_without_line_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = [*orders(2_000), report(9_000, 40, 4_001), report(9_000, 60, 4_002, last=10), report(9_001, 40, 4_003)]
    (tmp_path / "fix.log").write_bytes(b"".join(log))
    assert main(["watch", str(tmp_path / "fix.log"), "--once"]) == 1
    assert "O9000" in capsys.readouterr().out


def test_a_tail_returns_a_long_line_in_pieces(tmp_path: Path) -> None:
    """Law: the pieces are the file, up to its last message; each is read once and at most `LINE_MAX` long."""
    content = b"".join(orders(8_000))
    path = tmp_path / "fix.log"
    path.write_bytes(b"")
    tail, pieces = Tail(path), []
    with open(path, "ab") as file:
        for begin in range(0, len(content), 300_000):
            file.write(content[begin : begin + 300_000])
            file.flush()
            while lines := tail.read_lines():
                pieces += lines
    tail.close()
    assert b"".join(pieces) == content[: content.rfind(b"8=FIX")]
    assert max(map(len, pieces)) <= LINE_MAX


def test_a_watch_of_unusable_lines_does_not_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fix.log").write_bytes(
        b"\n".join([report(0, 40, 1), *(report(number, 40, number + 1, _14="x") for number in range(1, 300)), b""])
    )
    assert main(["watch", str(tmp_path / "fix.log"), "--once"]) == 3
    assert "line 2" in capsys.readouterr().err


@pytest.mark.parametrize("state", [True, False])
def test_a_watch_of_a_lost_file_does_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, state: bool
) -> None:
    path = tmp_path / "fix.log"
    options = ["--once", *(["--state", str(tmp_path / "state")] if state else [])]
    assert main(["watch", str(path), *options]) == 2
    path.write_bytes(b"\n".join([*orders(3), b""]))
    assert main(["watch", str(path), *options]) == 0
    path.unlink()
    assert main(["watch", str(path), *options]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_watch_whose_file_was_replaced_does_not_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the lost file held after the last line that was read is not known."""
    path, words = tmp_path / "fix.log", ["--once", "--state", str(tmp_path / "state")]
    path.write_bytes(b"\n".join([*orders(3), b""]))
    assert main(["watch", str(path), *words]) == 0
    (tmp_path / "other").write_bytes(b"\n".join([*orders(1), b""]))
    (tmp_path / "other").replace(path)
    assert main(["watch", str(path), *words]) == 3
    assert "is gone" in capsys.readouterr().err


def test_a_watch_of_an_endless_line_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b'{"subsystem": "' + b"x" * (3 * LINE_MAX))
    tail = Tail(tmp_path / "journal")
    assert [len(line) for line in tail.read_lines()] == [LINE_MAX] * 3
    tail.close()
