"""Reach: which invariants can fire on a system, by what it has ever recorded, and what the others need."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdover.catalogue import Catalogue
from holdover.cli import main
from holdover.harness.contract import InstantCounter, LivelockError, RecordChecks, check_subject, limit_call_time
from holdover.model import SUBSYSTEMS, Exposure, Instrument, Link, Order, OrdStatus, Position, Request, Side
from holdover.runtime import FreezeStore, Guard, GuardSettings
from holdover.runtime.reach import EntryReach, Reach, list_reach, list_requirements

from .orders import request

CATALOGUE = Catalogue.load()
DAY = "2024-01-02"


def open_guard(directory: Path, **fields: object) -> Guard:
    settings_ = GuardSettings(**fields)  # type: ignore[arg-type]
    return Guard(
        directory, settings_, catalogue=CATALOGUE, clock=lambda: 1_000, channels=[], store=FreezeStore.in_memory()
    )


def reach_by_name(guard: Guard) -> dict[str, EntryReach]:
    return {entry.name: entry for entry in list_reach(guard.monitor)}


def working(**fields: object) -> Order:
    terms: dict[str, object] = {"strategy": "s", "order_qty": 10, "leaves_qty": 10, "ord_status": OrdStatus.NEW}
    return Order(root_cl_ord_id="o1", cl_ord_id="o1", account="A", symbol="IBM", side=Side.BUY, **(terms | fields))  # type: ignore[arg-type]


def test_every_entry_is_listed_once_with_a_reason_unless_it_is_active(tmp_path: Path) -> None:
    guard = open_guard(tmp_path)
    guard.record("orders", working())
    reaches = list_reach(guard.monitor)
    assert [entry.name for entry in reaches] == list(CATALOGUE.invariants)
    assert all((entry.reason == "") == (entry.reach is Reach.ACTIVE) for entry in reaches)
    assert all((entry.evaluated_count > 0) == (entry.reach is Reach.ACTIVE) for entry in reaches)


def test_an_entry_says_what_it_needs(tmp_path: Path) -> None:
    guard = open_guard(tmp_path)
    guard.record("orders", working())
    entries = reach_by_name(guard)
    assert entries["reconciled-within"].reason == "it needs `Link` records in `gateway`"
    assert "no Order in `orders` states its link (`link`)" in entries["acknowledged-within"].reason
    assert entries["order-quantity-conserved"].reach is Reach.ACTIVE
    guard.record("gateway", Link(name="V", is_up=True, epoch=1))
    guard.record("orders", working(link="V"))
    assert reach_by_name(guard)["acknowledged-within"].reach is Reach.ACTIVE


def test_a_declared_subsystem_exists_before_its_first_record(tmp_path: Path) -> None:
    """A fill without risk's record is a breach where risk must exist, and no question where it does not."""
    position = Position(account="A", symbol="IBM", net_qty=10)
    for subsystems, expected in (((), []), (("risk",), ["positions-agree"]), (("risk.Exposure",), ["positions-agree"])):
        guard = open_guard(tmp_path / "-".join(["g", *subsystems]), subsystems=subsystems)
        guard.record("positions", position)
        assert [breach.invariant for breach in guard.breaches] == expected


def test_what_existed_once_exists_in_the_next_process(tmp_path: Path) -> None:
    """A subsystem that stops recording is found: its last record stays, and it is not absent."""
    guard = open_guard(tmp_path)
    with guard.step("fill"):
        guard.record("positions", Position(account="A", symbol="IBM", net_qty=10))
        guard.record("risk", Exposure(account="A", symbol="IBM", net_qty=10))
    guard.save_memory()
    later = open_guard(tmp_path)
    assert later.load_memory()
    assert later.monitor.compiler.presence.present == guard.monitor.compiler.presence.present
    assert reach_by_name(later)["positions-agree"].reach is Reach.ACTIVE
    later.record("positions", Position(account="B", symbol="IBM", net_qty=5))
    assert [breach.invariant for breach in later.breaches] == ["positions-agree"]


ACTIONS = st.lists(
    st.sampled_from(["order", "strategy", "position", "reserved", "risk", "link", "request"]), max_size=8
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=ACTIONS, after=ACTIONS)
def test_a_rollback_restores_what_exists(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], after: list[str]
) -> None:
    """After a rollback the same predicates apply as in a guard that never went on."""

    def play(guard: Guard, actions: list[str]) -> None:
        records = {
            "order": ("orders", working(strategy="")),
            "strategy": ("orders", working()),
            "position": ("positions", Position(account="A", symbol="IBM", net_qty=0)),
            "reserved": ("positions", Position(account="A", symbol="IBM", net_qty=0, reserved_qty=1)),
            "risk": ("risk", Exposure(account="A", symbol="IBM", net_qty=0, open_buy_qty=10)),
            "link": ("gateway", Link(name="V", is_up=False)),
            "request": ("gateway", request(account="A")),
        }
        for action in actions:
            guard.record(*records[action])

    directory = tmp_path_factory.mktemp("rollback")
    guard, other = open_guard(directory / "a"), open_guard(directory / "b")
    guard.evidence.is_quiet = other.evidence.is_quiet = True
    play(guard, before)
    play(other, before)
    checkpoint = guard.checkpoint()
    play(guard, after)
    guard.rollback(checkpoint)
    assert guard.monitor.compiler.presence.present == other.monitor.compiler.presence.present
    play(guard, after)
    play(other, after)
    assert guard.monitor.evaluation_counts() == other.monitor.evaluation_counts()
    assert guard.monitor.to_bytes() == other.monitor.to_bytes()


def test_a_misspelled_subsystem_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guard = open_guard(tmp_path)
    with caplog.at_level(logging.WARNING, "holdover.guard"):
        guard.record("order", working())
        guard.record("signals", working())
    assert [message for message in caplog.messages if "read by no" in message] == [
        "records of the subsystem 'order' are read by no built-in invariant; did you mean orders?"
    ]


def test_every_requirement_names_what_records_have() -> None:
    """Each table and field in the table of requirements exists in the model."""
    kinds = {kind.__name__: kind for kind in (Order, Position, Exposure, Request, Link)}
    for requirement in list_requirements(CATALOGUE):
        subsystem, kind, *field = requirement.name.split(".")
        assert subsystem
        assert requirement.invariants
        if field and kind in kinds:
            assert field[0] in kinds[kind].__struct_fields__


def test_the_command_lists_reach_and_requirements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalogue", "active", "--config", str(tmp_path)]) == 2
    assert "no guard has ever run here" in capsys.readouterr().err
    guard = Guard(tmp_path, catalogue=CATALOGUE, clock=lambda: 1_000, channels=[])
    assert main(["catalogue", "active", "--config", str(tmp_path)]) == 3
    assert "no memory is saved there" in capsys.readouterr().out
    guard.record("orders", working())
    guard.save_memory()
    assert main(["catalogue", "active", "--config", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    by_name = {entry["name"]: entry for entry in document["invariants"]}
    assert by_name["order-quantity-conserved"]["reach"] == "active"
    assert main(["catalogue", "active", "--config", str(tmp_path)]) == 0
    assert "reconciled-within: it needs `Link` records in `gateway`" in capsys.readouterr().out
    assert main(["catalogue", "requirements"]) == 0
    assert "orders.Order.link\n    acknowledged-within" in capsys.readouterr().out


# -- subject check --------------------------------------------------------------------------------------------------


def test_a_record_of_the_wrong_type_is_named_with_the_conversion() -> None:
    from decimal import Decimal

    checks = RecordChecks()
    checks.check("orders", working())
    assert checks.problems() == []
    checks.check("order", working(order_qty=Decimal("1.5")))
    checks.check("orders", working(price=10.5))
    problems = checks.problems()
    assert problems[0] == "it records in the subsystem 'order', which no invariant reads; did you mean orders?"
    assert "wrong type" in problems[1]
    assert "convert order_qty with Instrument.lots()" in problems[1]
    assert "convert price with" in problems[2]


class _Clock:
    now_ns = 5


class _StillSession:
    clock = _Clock()


def test_timers_at_one_instant_are_a_livelock() -> None:
    counter = InstantCounter(_StillSession())  # type: ignore[arg-type]

    def spin() -> None:
        for _ in range(200_000):
            counter.count()

    with pytest.raises(LivelockError, match="the time does not go on"):
        spin()


def test_a_call_that_does_not_return_is_a_livelock() -> None:
    def wait_for_ever() -> None:
        with limit_call_time(0.01):
            while True:
                pass

    with pytest.raises(LivelockError, match="did not return within"):
        wait_for_ever()


def test_the_desk_meets_the_contract_and_reaches_nearly_everything() -> None:
    report = check_subject("desk")
    assert report.problems == []
    inapplicable = [entry.name for entry in report.reach if entry.reach is Reach.INAPPLICABLE]
    assert len(inapplicable) <= 3, inapplicable
    assert Instrument(symbol="X").negative_prices is False


def test_the_page_on_records_has_the_current_table(capsys: pytest.CaptureFixture[str]) -> None:
    """`docs/records.md` is regenerated with `holdover catalogue requirements --markdown`."""
    page = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")
    assert main(["catalogue", "requirements", "--markdown"]) == 0
    table = capsys.readouterr().out
    assert page.partition("<!-- requirements -->\n")[2].partition("<!-- end -->")[0] == table
    assert [name for name in SUBSYSTEMS if name != "guard" and f"| `{name}` |" not in page] == []
