"""The venue view over two nights: reused ExecIDs, and trades reported again on the next day."""

from __future__ import annotations

from typing import Any

from holdover.adapters.fix.venue_view import VenueView
from holdover.audit import Audit
from holdover.catalogue import Catalogue
from holdover.model import ExecType, ExecutionReport, OrdStatus, Side
from tests.unit.fixlog import frame


def fill_line(seq: int, day: str, cum: int, last: int, exec_id: str, *, poss_dup: bool = False) -> bytes:
    """A fill of one GTC order, with its TradeDate."""
    fields: list[tuple[str, Any]] = [("35", "8"), ("34", seq), ("49", "VENUE"), ("56", "DESK")]
    fields += [("52", f"{day}-14:30:{seq:02d}"), *([("43", "Y"), ("122", f"{day}-14:30:00")] if poss_dup else [])]
    fields += [("11", "G1"), ("37", "O1"), ("17", exec_id), ("150", "F"), ("39", "1"), ("55", "ACME"), ("54", "1")]
    fields += [("38", 1000), ("14", cum), ("151", 1000 - cum), ("32", last), ("31", "99.99"), ("6", "99.99")]
    return frame("FIX.4.4", [*fields, ("59", "1"), ("75", day)])


def test_an_execution_of_todays_that_is_told_as_one_of_yesterday_was() -> None:
    """ExecIDs begin anew with the day: the same name, quantity and price, sent again over a gap, is another fill."""
    audit = Audit(Catalogue.load())
    audit.begin_log("wire")
    audit.read_lines(
        [fill_line(1, "20241127", 100, 100, "E1"), fill_line(2, "20241129", 200, 100, "E1", poss_dup=True)]
    )
    audit.end()
    assert audit.breaches == []
    assert audit.skipped == []
    audit.read_lines(
        [fill_line(3, "20241129", 200, 100, "E1", poss_dup=True), fill_line(4, "20241129", 300, 100, "E2")]
    )
    audit.end()
    assert audit.breaches == [], "told once more it is the same, and counted once"


class RecordSink:
    """A guard that keeps only the last record."""

    def __init__(self) -> None:
        self.last: Any = None

    def record(self, subsystem: str, record: Any) -> None:
        """The last one."""
        self.last = record


def make_report(exec_type: ExecType, time_ns: int, exec_id: str, day: str, **overrides: Any) -> ExecutionReport:
    """What the venue says of the carried order."""
    defaults: dict[str, Any] = {
        "cum_qty": 400,
        "leaves_qty": 600,
        "notional": 400,
        "ord_status": OrdStatus.PARTIALLY_FILLED,
    }
    return ExecutionReport(
        exec_type=exec_type,
        cl_ord_id="G1",
        exec_id=exec_id,
        symbol="ACME",
        side=Side.BUY,
        order_qty=1000,
        account="A1",
        trade_date=day,
        transact_time_ns=time_ns,
        **{**defaults, **overrides},
    )


def test_trades_of_yesterday_told_again_are_in_the_count_already() -> None:
    """After a night the venue restates the order; asked for its trades it tells those that made it what it is."""
    sink = RecordSink()
    venue_view = VenueView(sink, lambda cl_ord_id: None)  # type: ignore[arg-type]
    venue_view.apply_message(make_report(ExecType.RESTATED, 2_000, "E1", "2024-11-29"))
    venue_view.apply_message(
        make_report(ExecType.TRADE, 1_000, "E7", "2024-11-27", req_id="Q1", last_qty=400, last_px=1)
    )
    assert (sink.last.cum_qty, sink.last.leaves_qty) == (400, 600)
    venue_view.apply_message(
        make_report(ExecType.TRADE, 2_200, "E2", "2024-11-29", req_id="Q3", last_qty=100, last_px=1)
    )
    assert (venue_view._orders["G1"].cum_qty, venue_view._orders["G1"].leaves_qty) == (500, 500), (
        "one that was missed counts"
    )
