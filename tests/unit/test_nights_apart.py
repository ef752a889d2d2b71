"""What two nights on the wire have shown: executions of the same name on two days, trades told again the day after."""

from __future__ import annotations

from typing import Any

from holdover.adapters.fix.word import VenueWord
from holdover.audit import Audit
from holdover.catalogue import Catalogue
from holdover.model import ExecType, ExecutionReport, OrdStatus, Side
from tests.unit.fixlog import frame


def line(seq: int, day: str, cum: int, last: int, exec_id: str, *, again: bool = False) -> bytes:
    """A fill of one GTC order, with its TradeDate."""
    fields: list[tuple[str, Any]] = [("35", "8"), ("34", seq), ("49", "VENUE"), ("56", "DESK")]
    fields += [("52", f"{day}-14:30:{seq:02d}"), *([("43", "Y"), ("122", f"{day}-14:30:00")] if again else [])]
    fields += [("11", "G1"), ("37", "O1"), ("17", exec_id), ("150", "F"), ("39", "1"), ("55", "ACME"), ("54", "1")]
    fields += [("38", 1000), ("14", cum), ("151", 1000 - cum), ("32", last), ("31", "99.99"), ("6", "99.99")]
    return frame("FIX.4.4", [*fields, ("59", "1"), ("75", day)])


def test_an_execution_of_todays_that_is_told_as_one_of_yesterday_was() -> None:
    """ExecIDs begin anew with the day: the same name, quantity and price, sent again over a gap, is another fill."""
    audit = Audit(Catalogue.load())
    audit.begin("wire")
    audit.lines([line(1, "20241127", 100, 100, "E1"), line(2, "20241129", 200, 100, "E1", again=True)])
    audit.end()
    assert audit.breaches == []
    assert audit.skipped == []
    audit.lines([line(3, "20241129", 200, 100, "E1", again=True), line(4, "20241129", 300, 100, "E2")])
    audit.end()
    assert audit.breaches == [], "told once more it is the same, and counted once"


class Kept:
    """Takes what is recorded."""

    def __init__(self) -> None:
        self.last: Any = None

    def record(self, subsystem: str, record: Any) -> None:
        """The last one."""
        self.last = record


def report(exec_type: ExecType, time_ns: int, exec_id: str, day: str, **more: Any) -> ExecutionReport:
    """What the venue says of the carried order."""
    told: dict[str, Any] = {
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
        **{**told, **more},
    )


def test_trades_of_yesterday_told_again_are_in_the_count_already() -> None:
    """After a night the venue restates the order; asked for its trades it tells those that made it what it is."""
    kept = Kept()
    word = VenueWord(kept, lambda cl_ord_id: None)  # type: ignore[arg-type]
    word.take(report(ExecType.RESTATED, 2_000, "E1", "2024-11-29"))
    word.take(report(ExecType.TRADE, 1_000, "E7", "2024-11-27", req_id="Q1", last_qty=400, last_px=1))
    assert (kept.last.cum_qty, kept.last.leaves_qty) == (400, 600)
    word.take(report(ExecType.TRADE, 2_200, "E2", "2024-11-29", req_id="Q3", last_qty=100, last_px=1))
    assert (word._orders["G1"].cum_qty, word._orders["G1"].leaves_qty) == (500, 500), "one that was missed counts"
