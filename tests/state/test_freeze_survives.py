"""Nothing but a thaw ends a freeze: no restart, no kill, no other version, no night, no older snapshot."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from holdover.harness import Session, SessionConfig, resolve_factory
from holdover.harness.session import RESTARTS
from holdover.harness.snapshot import take_snapshot
from holdover.model import Order, Request
from holdover.recording import bundled_store
from holdover.runtime import ThawRefusedError

pytestmark = pytest.mark.state(instrument="ACME")
DAYS = ("2024-11-27", "2024-11-29")
SCOPE = "instrument:ACME"


def breach_order(session: Session) -> None:
    """Breach an invariant of an order, in the middle of the day."""
    orders = session.guard.monitor.records(Order, "orders").values()
    order = next(record for record in orders if isinstance(record, Order) and record.is_open)
    session.guard.record("orders", msgspec.structs.replace(order, leaves_qty=order.leaves_qty + 1))


def assert_frozen(session: Session, before: int) -> None:
    """It is frozen, in memory and in the store, and nothing has been sent since."""
    assert SCOPE in session.guard.frozen_scopes()
    assert SCOPE in [freeze.scope for freeze in session.guard.store.active_freezes()]
    assert count_sent(session) == before
    assert session.guard.store.verify_audit() == ""


def count_sent(session: Session) -> int:
    """How many requests are known to have left."""
    return sum(len(records) for (_, kind), records in session.guard.monitor.all_records().items() if kind is Request)


def test_only_a_thaw_ends_it(tmp_path: Path) -> None:
    """Every kind of restart, the redeploy of another version among them, a night, and a state of before the freeze."""
    session = Session(
        resolve_factory("desk"), bundled_store(), ["ACME"], tmp_path / "session", SessionConfig(days=DAYS)
    )
    session.begin(DAYS[0])
    session.run()
    session.end()
    session.overnight()
    older = take_snapshot(session)
    session.begin(DAYS[1])
    session.run(0.2)
    breach_order(session)
    before = count_sent(session)
    for kind in RESTARTS:
        session.restart(kind)
        session.run(session.clock.now_ns + 60_000_000_000)
        assert_frozen(session, before)
    with pytest.raises(ThawRefusedError):
        session.guard.thaw(SCOPE, operator="ann", reason="", evidence="none")
    assert_frozen(session, before)
    session.guard.restore_state(older.parts["guard/store"], older.parts["guard/memory"])
    assert SCOPE in session.guard.frozen_scopes()
    session.guard.reload()
    assert SCOPE in session.guard.frozen_scopes()
    session.close()


def test_a_new_process_finds_it_after_a_night(tmp_path: Path) -> None:
    """The session is closed frozen and made anew on its directory; then a second person's thaw ends it."""
    first = Session(resolve_factory("desk"), bundled_store(), ["ACME"], tmp_path / "session", SessionConfig(days=DAYS))
    first.begin(DAYS[0])
    first.run(0.3)
    breach_order(first)
    first.end()
    first.overnight()
    parts = take_snapshot(first).parts
    first.close()
    second = Session(resolve_factory("desk"), bundled_store(), ["ACME"], tmp_path / "again", SessionConfig(days=DAYS))
    second.restore(parts)
    assert SCOPE in second.guard.frozen_scopes()
    second.begin(DAYS[1])
    before = count_sent(second)
    second.run(0.2)
    assert_frozen(second, before)
    for scope in second.guard.frozen_scopes():
        second.guard.thaw(scope, operator="ann", reason="seen", evidence="the venue's list", forced_by="bob")
    second.run(0.3)
    assert count_sent(second) > before
    actions = [action for _, _, action, _ in second.guard.store.audit_rows()]
    assert actions.count("thaw") >= 1
    second.close()
