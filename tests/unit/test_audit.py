"""The audit: legal FIX passes in any framing, a corruption breaches its invariant, unreadable lines are listed."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from holdover.audit import Audit
from holdover.catalogue import Catalogue
from holdover.cli import main
from tests.unit.fixlog import PREFIXES, SEPARATORS, VERSIONS, FixLogWriter, frame
from tests.unit.test_fix_scenarios import LEGAL, fill, new, report

EXTRA_STORIES: dict[str, list[dict[str, Any]]] = {
    "two cancels, the first refused": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        {"msg_type": "F", "cl_ord_id": "Y", "orig_cl_ord_id": "X"},
        report("E2", "6", "6", 0, 10_000, cl_ord_id="Y", orig_cl_ord_id="X"),
        {"msg_type": "9", "cl_ord_id": "Y", "orig_cl_ord_id": "X", "ord_status": "0", "cxl_rej_reason": 0},
        {"msg_type": "F", "cl_ord_id": "Z", "orig_cl_ord_id": "X"},
        report("E3", "6", "6", 0, 10_000, cl_ord_id="Z", orig_cl_ord_id="X"),
        report("E4", "4", "4", 0, 0, cl_ord_id="Z", orig_cl_ord_id="X"),
    ],
    "a cancel crosses a replace, both pending": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        {"msg_type": "G", "cl_ord_id": "Y", "orig_cl_ord_id": "X", "order_qty": 12_000},
        {"msg_type": "F", "cl_ord_id": "Z", "orig_cl_ord_id": "X"},
        report("E2", "E", "E", 0, 10_000, cl_ord_id="Y", orig_cl_ord_id="X"),
        report("E3", "6", "6", 0, 10_000, cl_ord_id="Z", orig_cl_ord_id="X"),
        report("E4", "5", "6", 0, 12_000, cl_ord_id="Y", orig_cl_ord_id="X", order_qty=12_000),
        report("E5", "4", "4", 0, 0, cl_ord_id="Z", orig_cl_ord_id="Y", order_qty=12_000),
    ],
    "replaced unfilled, then filled": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        {"msg_type": "G", "cl_ord_id": "Y", "orig_cl_ord_id": "X", "order_qty": 11_000},
        report("E2", "5", "0", 0, 11_000, cl_ord_id="Y", orig_cl_ord_id="X", order_qty=11_000),
        fill("E3", "2", 11_000, 0, 11_000, cl_ord_id="Y", order_qty=11_000),
    ],
    "unsolicited cancel": [new(), report("E1", "0", "0", 0, 10_000), report("E2", "4", "4", 0, 0)],
    "suspended and released": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        report("E2", "9", "9", 0, 10_000),
        report("E3", "D", "0", 0, 10_000, exec_restatement_reason="99"),
        fill("E4", "2", 10_000, 0, 10_000),
    ],
    "stopped, then filled at the guaranteed price": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        report("E2", "7", "7", 0, 10_000),
        fill("E3", "1", 4_000, 6_000, 4_000),
        fill("E4", "2", 10_000, 0, 6_000),
    ],
    "quantity reduced by restatement": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        report("E2", "D", "0", 0, 9_000, order_qty=9_000, exec_restatement_reason="5"),
        fill("E3", "2", 9_000, 0, 9_000, order_qty=9_000),
    ],
    "done for the day, a day order": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        fill("E2", "1", 2_000, 8_000, 2_000),
        report("E3", "3", "3", 2_000, 0),
    ],
    "the status of an order that nobody knows": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        report("0", "I", "8", 0, 0, cl_ord_id="LOST", ord_rej_reason=5, order_id="NONE"),
    ],
    "a cancel of an unknown order": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        {"msg_type": "F", "cl_ord_id": "Y", "orig_cl_ord_id": "OLD"},
        {"msg_type": "9", "cl_ord_id": "Y", "orig_cl_ord_id": "OLD", "ord_status": "8", "cxl_rej_reason": 1},
    ],
    "a second correction names the first execution again": [
        new(),
        report("E1", "0", "0", 0, 10_000),
        fill("E2", "1", 1_000, 9_000, 1_000),
        report("E3", "G", "1", 900, 9_100, exec_ref_id="E2", last_qty=900, last_px=100),
        report("E4", "G", "1", 800, 9_200, exec_ref_id="E2", last_qty=800, last_px=101),
    ],
    "yesterday's execution busted": [
        new(time_in_force="1"),
        report("E1", "0", "0", 0, 10_000, time_in_force="1"),
        fill("E2", "1", 1_000, 9_000, 1_000, time_in_force="1"),
        report("E1", "D", "1", 1_000, 9_000, day=2, exec_restatement_reason="1", time_in_force="1"),
        report("E3", "H", "0", 0, 10_000, day=2, exec_ref_id="E2", time_in_force="1"),
    ],
    "a ClOrdID taken again the next day": [
        new(),
        report("E1", "0", "0", 0, 10_000, order_id="V1"),
        fill("E2", "2", 10_000, 0, 10_000, order_id="V1"),
        new(day=2),
        report("E1", "0", "0", 0, 10_000, order_id="V2", day=2),
        fill("E2", "1", 10, 9_990, 10, order_id="V2", day=2),
    ],
}
STORIES = {**LEGAL, **EXTRA_STORIES}


def write_log(story: Iterable[dict[str, Any]], **style: Any) -> list[bytes]:
    """A story as a log."""
    writer = FixLogWriter(**style)
    for message in story:
        writer.write_order_message(message)
    return writer.log()


def run_audit(lines: list[bytes], catalogue: Catalogue) -> Audit:
    """The audit of a log."""
    audit = Audit(catalogue)
    audit.read("log", io.BytesIO(b"".join(lines)))
    audit.end()
    return audit


def breached_invariants(lines: list[bytes], catalogue: Catalogue) -> list[str]:
    """What a log breaches; nothing in it may be unreadable."""
    audit = run_audit(lines, catalogue)
    assert audit.skipped == []
    return [breach.invariant for breach in audit.breaches]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("story", STORIES)
def test_a_legal_story_is_silent(story: str, version: str, catalogue: Catalogue) -> None:
    """Whole, as a drop copy, from any message on, as requests only, and logged twice."""
    lines = write_log(STORIES[story], version=version)
    reports = [line for line in lines if b"\x0135=8\x01" in line]
    assert breached_invariants(lines, catalogue) == []
    assert breached_invariants(reports, catalogue) == []
    assert breached_invariants([line for line in lines if line not in reports], catalogue) == []
    assert breached_invariants([*lines, *lines], catalogue) == []
    assert breached_invariants([line for line in lines for _ in range(2)], catalogue) == []
    for cut in range(1, len(lines)):
        assert breached_invariants(lines[cut:], catalogue) == []
        assert breached_invariants(reports[cut:], catalogue) == []


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("version", VERSIONS)
def test_any_framing_reads_the_same(prefix: str, separator: bytes, version: str, catalogue: Catalogue) -> None:
    """The counts and the breach of one corrupted story do not depend on how it was written down."""
    story = [dict(message) for message in LEGAL["filled in three"]]
    story[3]["cum_qty"], story[3]["leaves_qty"] = 4_000, 6_000
    audit = run_audit(write_log(story, version=version, separator=separator, prefix=PREFIXES[prefix]), catalogue)
    audit_json = audit.as_json()
    assert [audit_json[name] for name in ("verdict", "messages", "executions", "orders", "sessions")] == [
        "breach",
        5,
        4,
        1,
        1,
    ]
    assert (audit_json["breaches"][0]["invariant"], audit_json["breaches"][0]["line"]) == (
        "cumulative-equals-executions",
        4,
    )
    assert audit.skipped == []


CORRUPTIONS: list[tuple[str, int, dict[str, Any], str]] = [
    ("filled in three", 2, {"leaves_qty": 8_001}, "order-quantity-conserved"),
    ("filled in three", 3, {"exec_id": "E2"}, "execution-booked-once"),
    ("filled in three", 3, {"cum_qty": 1_000, "leaves_qty": 9_000}, "cumulative-never-falls"),
    ("filled in three", 3, {"last_qty": 999}, "cumulative-equals-executions"),
    ("filled in three", 3, {"ord_status": "0"}, "legal-status-step"),
    ("filled in three", 3, {"ord_status": "2"}, "status-agrees-with-quantities"),
    ("filled in three", 4, {"cum_qty": 10_001, "leaves_qty": -1}, "quantities-in-range"),
    ("busted and corrected", 4, {"exec_ref_id": "E9"}, "correction-names-its-execution"),
    ("busted and corrected", 5, {"last_qty": 8_000}, "cumulative-equals-executions"),
    ("a fill crosses the cancel, which stays pending", 3, {"orig_cl_ord_id": "NOBODY"}, "replace-chain-unbroken"),
    ("a fill crosses the cancel, which stays pending", 2, {"orig_cl_ord_id": "NOBODY"}, "replace-chain-unbroken"),
    ("replace below what is filled", 2, {"cl_ord_id": "X"}, "client-order-id-unique"),
    ("expired", 2, {"leaves_qty": 10_000}, "order-quantity-conserved"),
    ("filled in three", 3, {"avg_px": 99}, "notional-matches-executions"),
    (
        "a bust on a cancelled order",
        4,
        {"exec_type": "0", "ord_status": "0", "leaves_qty": 10_000},
        "legal-status-step",
    ),
    ("a fill resent", 3, {"last_qty": 401}, "execution-booked-once"),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("story", "place", "fields", "expected"), CORRUPTIONS)
def test_a_corruption_trips_its_invariant(
    story: str, place: int, fields: dict[str, Any], expected: str, version: str, catalogue: Catalogue
) -> None:
    """On the line that was corrupted, and nothing before it."""
    messages = [dict(message) for message in STORIES[story]]
    messages[place].update(fields)
    audit = run_audit(write_log(messages, version=version), catalogue)
    assert expected in [breach.invariant for breach in audit.breaches if breach.line == place + 1]
    assert min(breach.line for breach in audit.breaches) == place + 1


@pytest.mark.parametrize("separator", SEPARATORS)
def test_decimals_are_exact(separator: bytes, catalogue: Catalogue) -> None:
    """Lots and ticks are found as they come, finer ones after coarser ones; a difference of one is seen."""
    story = [
        new(order_qty="0.015", symbol="BTC", price="101.25"),
        report("E1", "0", "0", 0, "0.015", order_qty="0.015", symbol="BTC"),
        fill("E2", "1", "0.01", "0.005", "0.010", px="101", order_qty="0.0150", symbol="BTC"),
        fill("E3", "2", "0.015", "0", "0.005", px="101.255", order_qty="0.015", symbol="BTC", avg_px="101.09"),
    ]
    assert breached_invariants(write_log(story, separator=separator), catalogue) == []
    story[3]["last_qty"] = "0.00500001"
    audit = run_audit(write_log(story, separator=separator), catalogue)
    assert next(breach.invariant for breach in audit.breaches) == "cumulative-equals-executions"
    assert audit.monitor.instruments["BTC"].lot_size == "0.00000001"


@pytest.mark.parametrize("avg_px", ["33.33", "33.3", "33", "33.333333", "33.34", "33.3333333333333286", "0"])
def test_a_rounded_average_is_no_breach(avg_px: str, catalogue: Catalogue) -> None:
    """Two at 33 and one at 34."""
    story = [
        new(order_qty=3),
        fill("E1", "1", 2, 1, 2, px=33, order_qty=3),
        fill("E2", "2", 3, 0, 1, px=34, order_qty=3, avg_px=avg_px),
    ]
    assert breached_invariants(write_log(story), catalogue) == []


# -- sessions ---------------------------------------------------------------------------------------------------


def start_session() -> FixLogWriter:
    """A session with its Logons and an order that is acknowledged."""
    writer = FixLogWriter()
    for party in "CV":
        writer.write_message(party, "A", [("98", 0), ("108", 30)])
    writer.write_order_message(new())
    writer.write_order_message(report("E1", "0", "0", 0, 10_000))
    return writer


def write_heartbeats(writer: FixLogWriter, count: int = 1) -> None:
    """Heartbeats of both."""
    for _ in range(count):
        writer.write_message("C", "0", [])
        writer.write_message("V", "0", [])


def test_a_gap_that_is_asked_for_and_resent_is_silent(catalogue: Catalogue) -> None:
    """What came behind the gap counts only when the gap is closed; a gap fill closes it too."""
    writer = start_session()
    writer.seq["V"] += 2  # a fill and a heartbeat are lost
    writer.write_order_message(fill("E3", "2", 10_000, 0, 6_000))
    writer.write_message("C", "2", [("7", 3), ("16", 0)])
    writer.write_order_message(fill("E2", "1", 4_000, 6_000, 4_000), seq=3, dup=True)
    writer.write_message("V", "4", [("123", "Y"), ("36", 5)], seq=4, dup=True)
    writer.write_order_message(fill("E3", "2", 10_000, 0, 6_000), seq=5, dup=True)
    write_heartbeats(writer, 3)
    assert breached_invariants(writer.log(), catalogue) == []


def test_a_gap_that_is_passed_over_is_a_breach(catalogue: Catalogue) -> None:
    """Both directions are in the log with their Heartbeats, and nobody asks for what is missing."""
    writer = start_session()
    writer.seq["V"] += 1
    write_heartbeats(writer, 3)
    audit = run_audit(writer.log(), catalogue)
    assert [(breach.invariant, breach.line) for breach in audit.breaches] == [("sequence-continuous", 6)]


def test_a_gap_of_the_logs_own_is_not_judged(catalogue: Catalogue) -> None:
    """One direction, a line that cannot be read, another file: what is missing may never have been missing."""
    writer = start_session()
    writer.write_order_message(fill("E2", "1", 4_000, 6_000, 4_000))
    writer.write_order_message(fill("E3", "2", 10_000, 0, 6_000))
    write_heartbeats(writer, 3)
    lines = writer.log()
    without = [*lines[:4], *lines[5:]]
    assert breached_invariants([line for line in without if b"\x0149=VENUE" in line], catalogue) == []
    assert run_audit([*lines[:4], lines[4][:40] + b"\n", *lines[5:]], catalogue).breaches == []
    audit = Audit(catalogue)
    for part in (lines[:4], lines[5:]):
        audit.read("part", io.BytesIO(b"".join(part)))
    audit.end()
    assert audit.breaches == []
    assert "cumulative-equals-executions" in breached_invariants(without, catalogue)


def test_numbers_may_begin_again(catalogue: Catalogue) -> None:
    """By a Logon on the next day, by a plain reset, and by nothing but the day in a log without Logons."""
    writer = start_session()
    write_heartbeats(writer, 5)
    for day in (2, 3):
        writer.seq = {"C": 0, "V": 0}
        for party in "CV":
            writer.write_message(party, "A", [("141", "Y")], day)
        writer.write_message("C", "0", [], day)
        writer.write_message("V", "0", [], day)
    writer.write_message("V", "4", [("36", 50)], 3)
    writer.seq["V"] = 49
    writer.write_message("V", "0", [], 3)
    assert breached_invariants(writer.log(), catalogue) == []
    assert breached_invariants([line for line in writer.log() if b"\x0135=A" not in line], catalogue) == []


def test_a_number_that_has_been_before(catalogue: Catalogue) -> None:
    """Without PossDupFlag and without a Logon it is a breach; with it, it is not."""
    for dup, expected in ((False, ["sequence-continuous"]), (True, [])):
        writer = start_session()
        write_heartbeats(writer, 2)
        writer.write_message("V", "0", [("112", "x")], seq=3, dup=dup)
        assert breached_invariants(writer.log(), catalogue) == expected


def test_several_sessions_keep_apart(catalogue: Catalogue) -> None:
    """The same identifiers on two sessions, their lines mixed."""
    first_log = write_log(STORIES["filled in three"])
    second_log = write_log(STORIES["busted and corrected"], client="OTHER")
    mixed = [line for pair in zip(first_log, second_log, strict=False) for line in pair] + second_log[len(first_log) :]
    audit = run_audit(mixed, catalogue)
    assert (audit.breaches, len(audit.sessions.by_name), len(audit.orders.order_states)) == ([], 2, 2)


# -- what cannot be used ----------------------------------------------------------------------------------------


def corrupted_log(change: Callable[[bytes], bytes]) -> list[bytes]:
    """A legal log whose third line was changed."""
    lines = write_log(LEGAL["filled in three"], separator=b"|")
    lines[2] = change(lines[2])
    return lines


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda line: line.replace(b"32=2000", b"32=2001"), "CheckSum (10) is"),
        (lambda line: line.replace(b"|9=", b"|9=1"), "BodyLength (9) is"),
        (lambda line: line[:60] + b"\n", "truncated: BodyLength (9) is"),
        (lambda line: line.replace(b"17=E2", b"17_E2"), "a field has no ="),
        (lambda line: b"\x00\xff\x80\x12\n", "not UTF-8"),
        (lambda line: "caf\xe9 \xfc".encode("latin-1") + b"\n", "not UTF-8"),
        (lambda line: b"\x02\x03\x04 abc\n", "binary"),
        (lambda line: b"session created\n", "no FIX message: 'session created'"),
        (lambda line: b"8=FIX.4.4 and nothing\n", "BeginString (8)"),
        (lambda line: frame("FIX.4.4", [("34", 2), ("49", "VENUE")]), "there is no MsgType (35)"),
        (lambda line: frame("FIX.4.4", [("35", "8"), ("34", "x")]), "MsgSeqNum (34) is 'x'"),
        (lambda line: frame("FIX.4.4", [("35", "8"), ("11", "X"), ("150", "F"), ("14", "1e5")]), "is '1e5'"),
        (lambda line: frame("FIX.4.4", [("35", "8"), ("11", "X"), ("150", "%"), ("14", "1")]), "ExecType (150) is '%'"),
        (lambda line: frame("FIX.4.4", [("35", "8"), ("11", "X"), ("150", "F")]), "there is no CumQty (14)"),
    ],
)
def test_rubbish_is_named_and_not_held_against_anybody(
    change: Callable[[bytes], bytes], reason: str, catalogue: Catalogue
) -> None:
    """One line that cannot be used: it is told with its number, and the fill that it hid is nobody's breach."""
    audit = run_audit(corrupted_log(change), catalogue)
    assert [skip.line for skip in audit.skipped] == [3]
    assert reason in audit.skipped[0].reason
    assert audit.breaches == []
    is_text = "session created" in reason
    assert audit.verdict == ("holds" if is_text else "unknown")
    assert audit.first_unusable == ("" if is_text else "line 3")
    audit.unusable_max = 0.5
    assert audit.verdict == "holds"


def test_a_log_without_checksums_is_read(catalogue: Catalogue) -> None:
    """It is said once that nothing could be proved; BodyLength may be gone too."""
    lines = [line[: line.rindex(b"10=")] + b"\n" for line in write_log(LEGAL["filled in three"], separator=b"|")]
    for log in (lines, [line[:10] + line[line.index(b"35=") :] for line in lines]):
        audit = run_audit(log, catalogue)
        assert (audit.verdict, audit.skipped, len(audit.list_notes())) == ("holds", [], 1)
        assert "5 messages came without" in audit.list_notes()[0]


def test_messages_without_line_ends(catalogue: Catalogue) -> None:
    """A raw stream is one line with many messages."""
    stream = b"".join(write_log(LEGAL["filled in three"])).replace(b"\n", b"")
    assert run_audit([stream], catalogue).messages == 5


# -- the verb ---------------------------------------------------------------------------------------------------


def read_json_output(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one object on standard output."""
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit codes 0, 1, 2, 3; gzip by content; standard input; several files."""
    lines = write_log(LEGAL["filled in three"])
    good, bad, empty = tmp_path / "good.log", tmp_path / "bad.log", tmp_path / "empty.log"
    good.write_bytes(gzip.compress(b"".join(lines)))
    bad.write_bytes(b"".join(write_log([*LEGAL["filled in three"][:3], fill("E2", "1", 3_000, 7_000, 1_000)])))
    empty.write_bytes(b"no message at all\n\n")
    assert main(["audit", str(good), "--json"]) == 0
    assert read_json_output(capsys)["verdict"] == "holds"
    assert main(["audit", str(bad)]) == 1
    assert "line 4  execution-booked-once" in capsys.readouterr().out
    assert main(["audit", str(empty), "--json"]) == 3
    assert read_json_output(capsys)["skipped"] == [{"line": 1, "reason": "no FIX message: 'no message at all'"}]
    assert main(["audit", str(empty), str(bad), "--json"]) == 1
    assert {breach["file"] for breach in read_json_output(capsys)["breaches"]} == {str(bad)}
    assert main(["audit", str(tmp_path / "none")]) == 2
    assert "none: cannot be read" in capsys.readouterr().err
    good.write_bytes(good.read_bytes()[:-20])
    assert main(["audit", str(good)]) == 2
    assert "cannot be read after line" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"".join(lines))))
    assert main(["audit", "-", "--json"]) == 0
    assert read_json_output(capsys)["executions"] == 4
