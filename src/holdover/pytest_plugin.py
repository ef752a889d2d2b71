"""The pytest plugin: fixtures `session`, `recording`, `snapshot`, and the marker `state`.

    @pytest.mark.state(instrument="ACME")
    def test_a_partial_fill_survives_the_night(session):
        session.begin("2024-11-27")
        ...

`session` runs the desk, or the subject that the marker or `--holdover-subject` names, on the recordings that the
marker or `--holdover-recordings` names (without either the bundled simulated ones). A breach that the test has not
expected (`session.expected`) fails it. Nothing heavy is imported before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from holdover.harness.session import Session
    from holdover.harness.snapshot import Snapshot
    from holdover.recording import Recording, RecordingStore


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("holdover")
    group.addoption("--holdover-subject", default="desk", help="the subject of `session`: desk, or MODULE:NAME")
    group.addoption("--holdover-recordings", default=None, help="a folder of recordings for `session`")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "state(instrument=..., subject=..., recordings=..., days=..., faults=..., recovery=...): "
        "a state-persistent test on recorded days",
    )


def _told(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("state")
    return dict(marker.kwargs) if marker is not None else {}


def _store(request: pytest.FixtureRequest) -> RecordingStore:
    from holdover.recording import RecordingStore, bundled

    place = _told(request).get("recordings") or request.config.getoption("--holdover-recordings")
    return RecordingStore(place) if place else bundled()


@pytest.fixture
def recording(request: pytest.FixtureRequest) -> Callable[..., Recording]:
    """A recorded day by instrument and date: `recording("ACME", "2024-11-27")`."""
    store = _store(request)

    def get(symbol: str, trade_date: str) -> Recording:
        return store.get(symbol, trade_date)

    return get


@pytest.fixture
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    """A session of the subject over recorded days; a breach that `session.expected` does not name fails the test."""
    from holdover.harness.session import Session
    from holdover.harness.subject import factory_named
    from holdover.world import VenuePolicy

    told = _told(request)
    store = _store(request)
    instrument = told.get("instrument") or store.symbols()[0]
    symbols = instrument.split(",") if isinstance(instrument, str) else list(instrument)
    made = Session(
        factory_named(told.get("subject") or request.config.getoption("--holdover-subject")),
        store,
        symbols,
        tmp_path / "session",
        days=told.get("days") or store.days(symbols[0]),
        faults=told.get("faults", ()),
        policy=VenuePolicy(recovery=told.get("recovery", "replay")),
    )
    try:
        yield made
    finally:
        made.close()
    unexpected = [one for one in made.breaches if one.invariant not in made.expected]
    if unexpected:
        pytest.fail("\n".join(one.explanation for one in unexpected[:5]), pytrace=False)


@pytest.fixture
def snapshot() -> Callable[..., Snapshot]:
    """Takes the full state of a session: `snapshot(session)`."""
    from holdover.harness.snapshot import take

    def taken(of: Session, *, redact: tuple[str, ...] = ()) -> Snapshot:
        return take(of, redact=redact)

    return taken
