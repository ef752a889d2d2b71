"""Nothing but a thaw ends a freeze: no restart, no kill, no other version, no night, no older snapshot."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from holdover.harness import Session, factory_named
from holdover.harness.session import RESTARTS
from holdover.harness.snapshot import take
from holdover.model import Order, Request
from holdover.recording import bundled
from holdover.runtime import ThawRefused

pytestmark = pytest.mark.state(instrument="ACME")
DAYS = ("2024-11-27", "2024-11-29")
SCOPE = "instrument:ACME"


def broken(session: Session) -> None:
    """Breach an invariant of an order, in the middle of the day."""
    kept = session.guard.monitor.layout.tables["orders", Order].values()
    order = next(one for one in kept if isinstance(one, Order) and one.is_open)
    session.guard.record("orders", msgspec.structs.replace(order, leaves_qty=order.leaves_qty + 1))


def frozen(session: Session, before: int) -> None:
    """It is frozen, in memory and in the store, and nothing has been sent since."""
    assert SCOPE in session.guard.frozen_scopes()
    assert SCOPE in [freeze.scope for freeze in session.guard.store.in_force()]
    assert sent(session) == before
    assert session.guard.store.verify_audit() == ""


def sent(session: Session) -> int:
    """How many requests are known to have left."""
    return sum(len(kept) for (_, kind), kept in session.guard.monitor.layout.tables.items() if kind is Request)


def test_only_a_thaw_ends_it(tmp_path: Path) -> None:
    """Every kind of restart, the redeploy of another version among them, a night, and a state of before the freeze."""
    session = Session(factory_named("desk"), bundled(), ["ACME"], tmp_path / "session", days=DAYS)
    session.begin(DAYS[0])
    session.run()
    session.end()
    session.overnight()
    older = take(session)
    session.begin(DAYS[1])
    session.run(0.2)
    broken(session)
    before = sent(session)
    for kind in RESTARTS:
        session.restart(kind)
        session.run(session.clock.now_ns + 60_000_000_000)
        frozen(session, before)
    with pytest.raises(ThawRefused):
        session.guard.thaw(SCOPE, operator="ann", reason="", evidence="none")
    frozen(session, before)
    session.guard.load_state(older.parts["guard/store"], older.parts["guard/memory"])
    assert SCOPE in session.guard.frozen_scopes()
    session.guard.reload()
    assert SCOPE in session.guard.frozen_scopes()
    session.close()


def test_a_new_process_finds_it_after_a_night(tmp_path: Path) -> None:
    """The session is closed frozen and made anew on its directory; then a second person's thaw ends it."""
    first = Session(factory_named("desk"), bundled(), ["ACME"], tmp_path / "session", days=DAYS)
    first.begin(DAYS[0])
    first.run(0.3)
    broken(first)
    first.end()
    first.overnight()
    parts = take(first).parts
    first.close()
    again = Session(factory_named("desk"), bundled(), ["ACME"], tmp_path / "again", days=DAYS)
    again.load(parts)
    assert SCOPE in again.guard.frozen_scopes()
    again.begin(DAYS[1])
    before = sent(again)
    again.run(0.2)
    frozen(again, before)
    for scope in again.guard.frozen_scopes():
        again.guard.thaw(scope, operator="ann", reason="seen", evidence="the venue's list", forced_by="bob")
    again.run(0.3)
    assert sent(again) > before
    acts = [act for _, _, act, _ in again.guard.store.audit()]
    assert acts.count("thaw") >= 1
    again.close()
