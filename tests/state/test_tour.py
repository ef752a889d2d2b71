"""The tour: a transition in every cell that a recorded day comes to, as soon as it first comes there.

Other tests pick moments that somebody thought of. This one lets state coverage pick them: whenever the day reaches a
cell in which the transition has not found the desk yet, it comes about there and then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdover.coverage import find_lock, read_lock
from holdover.coverage.numbers import AxisProduct
from holdover.harness import Condition, PartialFill, Pending, Session, first
from holdover.harness.session import RESTARTS
from holdover.model import Record

from .test_session import DAYS, make_session

pytestmark = pytest.mark.state(instrument="ACME")
# A day is toured after a kill here; after the other restarts beside the default run, and in the gate.
KINDS = [kind if kind == "kill" else pytest.param(kind, marks=pytest.mark.slow) for kind in RESTARTS]


class Tour:
    """The cells of the product in which a session's transition has come about."""

    def __init__(self, session: Session, pytestconfig: pytest.Config) -> None:
        self.session, self.cells = session, session.guard.cells
        product = AxisProduct(read_lock(find_lock(pytestconfig.rootpath)))
        self._places = [number for number, axis in enumerate(self.cells.axes) if axis.name in product.names]
        self.visited_cells: set[str] = set()

    def move(self, session: Session) -> None:
        """Go on in another session, with what has been done."""
        self.session, self.cells = session, session.guard.cells

    def current_cell(self) -> str:
        """The cell in which the session is."""
        code = self.cells.encode_cell(self.cells.cell)
        return "".join(code[place] for place in self._places)

    def run_transitions(self, transition: Callable[[], None], *, kill: bool = False) -> None:
        """Run the day to its close, with the transition in each cell that is new."""
        while self.session.run(until=Condition("a cell not yet toured", self._arrives), kill=kill):
            transition()

    def _arrives(self, subsystem: str, record: Record) -> bool:
        new = self.current_cell() not in self.visited_cells
        self.visited_cells.add(self.current_cell())
        return new


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_in_every_cell_of_a_day(session: Session, pytestconfig: pytest.Config, kind: str) -> None:
    """Wherever the day is when it comes, books and venue agree again afterwards, and nothing is breached."""
    session.begin(DAYS[0])
    tour = Tour(session, pytestconfig)
    tour.run_transitions(lambda: session.restart(kind), kill=kind not in ("clean", "upgrade"))
    session.end()
    assert len(tour.visited_cells) > 5
    assert session.breaches == []


@pytest.mark.parametrize("recovery", ["replay", "drop"])
def test_a_cut_in_every_cell_of_a_day(session: Session, pytestconfig: pytest.Config, recovery: str) -> None:
    """The link is cut for a minute wherever the day comes to, and what happened meanwhile is known afterwards."""

    def cut() -> None:
        session.disconnect(recovery=recovery)
        session.run(session.clock.now_ns + 60_000_000_000)
        session.reconnect()

    session.begin(DAYS[0])
    tour = Tour(session, pytestconfig)
    tour.run_transitions(cut)
    session.end()
    assert len(tour.visited_cells) > 5
    assert session.breaches == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_while_the_link_is_cut(session: Session, pytestconfig: pytest.Config, kind: str) -> None:
    """The desk goes down while it cannot hear the venue, and comes up before it can."""

    def cut() -> None:
        session.disconnect(recovery="drop")
        session.run(session.clock.now_ns + 1_000_000_000)
        session.restart(kind)
        session.run(session.clock.now_ns + 5_000_000_000)
        session.reconnect()

    session.begin(DAYS[0])
    tour = Tour(session, pytestconfig)
    tour.run_transitions(cut)
    session.end()
    assert len(tour.visited_cells) > 5
    assert session.breaches == []


@pytest.mark.parametrize("condition", [Pending, PartialFill])
@pytest.mark.parametrize("kind", [pytest.param("clean", marks=pytest.mark.slow), "kill"])
def test_a_night_after_a_cut_that_nobody_mended(session: Session, condition: Callable[..., bool], kind: str) -> None:
    """The link is cut late in the day and stays so over the close; the desk is restarted in the dark."""
    session.begin(DAYS[0])
    session.run(0.9)
    session.run(first(condition))
    session.disconnect()
    session.restart(kind)
    session.end()
    session.overnight()
    session.begin(DAYS[1])
    session.run(session.clock.now_ns + 60_000_000_000)
    session.reconnect()
    session.run(0.1)
    session.restart("kill-unsynced")
    session.run(0.2)
    session.end()
    assert session.breaches == []


def test_a_day_after_a_split(session: Session) -> None:
    """What was carried uses the venue's reference data of the new day, before and after a kill."""
    session.begin(DAYS[0])
    session.run(until=first(PartialFill, tif="GTC"))
    session.run()
    session.end()
    for order in session.venue.orders.values():
        if order.is_open and ((order.price or 0) % 2 or (order.stop_px or 0) % 2):
            session.venue.cancel_order(order.cl_ord_id)
    session.overnight({"ACME": (2, 1)})
    session.begin(DAYS[1])
    session.run(0.2)
    session.restart("kill")
    session.run(0.3)
    session.end()
    assert session.guard.monitor.evaluation_counts()["reference-data-current"] > 0
    assert session.breaches == []


@pytest.mark.parametrize("cut", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "cut"])
def test_a_night_from_every_cell_of_a_morning(tmp_path: Path, pytestconfig: pytest.Config, cut: bool) -> None:
    """The venue closes early, wherever the morning is; what is open is carried over the night as it stands."""
    tour: Tour | None = None
    for number in range(24):
        session = make_session(tmp_path / str(number), journal=False)
        if tour is None:
            tour = Tour(session, pytestconfig)
        tour.move(session)
        session.begin(DAYS[0])
        arrived = session.run(until=Condition("a cell not yet toured", tour._arrives), limit=0.5)
        if arrived:
            if cut:
                session.disconnect()
            session.end(immediately=True)
            session.overnight()
            session.begin(DAYS[1])
            if cut:
                session.reconnect()
            session.run(0.01)
            session.end(immediately=True)
        session.close()
        assert session.breaches == []
        if not arrived:
            break
    assert tour is not None
    assert len(tour.visited_cells) > 5
