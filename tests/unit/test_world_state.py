"""The state of the world as values: what a checkpoint and an encoding of clock, link and venue contain."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdover.harness import Session, SessionConfig, resolve_factory
from holdover.harness.condition import Condition
from holdover.harness.snapshot import VERSION, Snapshot, SnapshotError, take_snapshot
from holdover.model import ImpossibleStateError, Inbound, Instrument, MsgType, Order, OrdStatus, OrdType, Request, Side
from holdover.model import TimeInForce as Tif
from holdover.recording import bundled_store
from holdover.state import StateError, split_parts
from holdover.world import SimulatedLink, Venue, VirtualClock

OPEN_NS, CLOSE_NS = 1_000_000_000_000, 2_000_000_000_000
INSTRUMENT = Instrument(symbol="X")


class WorldBench:
    """A clock, a venue with one instrument, and a link whose messages are recorded."""

    def __init__(self) -> None:
        self.clock = VirtualClock(OPEN_NS)
        self.venue = Venue(self.clock, [INSTRUMENT])
        self.link = SimulatedLink(self.clock, self.venue, ["A"])
        self.link.attach().listen(self)
        self.received: list[int] = []
        self.sent_count = 0

    def on_up(self, epoch: int, out_seq: int) -> None:
        """Ignore the event."""

    on_down = on_sequence_reset = on_heartbeat = lambda self, argument: None

    def on_message(self, seq: int, poss_dup: bool, message: Inbound) -> None:
        """Record the number of the message."""
        self.received.append(seq)

    def begin(self) -> WorldBench:
        """Begin the day and log on."""
        self.venue.begin("2024-01-02", OPEN_NS, CLOSE_NS)
        self.link.end.connect(1, 1)
        self.clock.run_until(self.clock.now_ns + 10_000_000)
        return self

    def send(self, side: Side = Side.BUY, *, stop: bool = False, price: int = 100) -> str:
        """Send a new order; return its ClOrdID."""
        self.sent_count += 1
        cl_ord_id = f"N{self.link.out_seq}-{self.sent_count}"
        self.link.end.send(
            Request(
                msg_type=MsgType.NEW_ORDER_SINGLE,
                cl_ord_id=cl_ord_id,
                symbol="X",
                side=side,
                order_qty=100,
                account="A",
                price=price,
                ord_type=OrdType.STOP_LIMIT if stop else OrdType.LIMIT,
                stop_px=price if stop else None,
                time_in_force=Tif.GTC,
            )
        )
        return cl_ord_id

    def play_step(self, step: int) -> None:
        """Do one thing to the world, by a number."""
        clock, now_ns = self.clock, self.clock.now_ns
        match step % 8:
            case 0 | 1 if self.link.is_up:
                self.send(Side.SELL if step % 3 else Side.BUY, stop=step % 5 == 0, price=90 + step % 20)
            case 2:
                self.venue.on_market((now_ns, 0, 1, 0, 0, 0, 0, 90 + step % 10, 101 + step % 10, 30, 40))
            case 3:
                self.venue.on_market((now_ns, 0, 2, 0, 0, 90 + step % 20, 50, 0, 0, 0, 0))
            case 4:
                self.link.inject_fault("in", 1 + step % 3, ("drop", "delay", "reorder", "duplicate")[step % 4], step)
            case 5:
                trades = [trade for trade in self.venue.trades if trade.last_qty]
                if trades:
                    self.venue.bust_trade(trades[step % len(trades)].exec_id)
            case 6:
                for order in self.venue.lifecycle.open_orders()[: step % 2]:
                    self.venue.cancel_order(order.cl_ord_id)
        clock.run_until(clock.now_ns + step * 10_000)

    def to_bytes(self) -> tuple[bytes, bytes, bytes]:
        """Return the encoded state."""
        return self.clock.to_bytes(), self.venue.to_bytes(), self.link.to_bytes()


STEPS = st.lists(st.integers(0, 200), max_size=30)


@settings(deadline=None)  # the first example compiles the copying of each class
@given(STEPS, STEPS)
def test_rollback_undoes_every_step_of_the_world(before: list[int], after: list[int]) -> None:
    """A rollback gives the bytes of the checkpoint, and the same steps then lead to the same bytes again."""
    world = WorldBench().begin()
    for step in before:
        world.play_step(step)
    parts = (world.clock, world.venue, world.link)
    checkpoints, expected, sent_count = [part.checkpoint() for part in parts], world.to_bytes(), world.sent_count
    for step in after:
        world.play_step(step)
    later = world.to_bytes()
    for part, checkpoint in zip(parts, checkpoints, strict=True):
        part.rollback(checkpoint)
    assert world.to_bytes() == expected
    world.sent_count = sent_count
    for step in after:
        world.play_step(step)
    assert world.to_bytes() == later


@settings(deadline=None)  # the first example compiles the copying of each class
@given(STEPS, STEPS)
def test_a_world_restored_elsewhere_goes_on_alike(before: list[int], after: list[int]) -> None:
    """A new world that takes up the bytes has the same bytes, and the same steps keep the two equal."""
    world, restored = WorldBench().begin(), WorldBench()
    for step in before:
        world.play_step(step)
    for part, content in zip((restored.clock, restored.venue, restored.link), world.to_bytes(), strict=True):
        part.restore_bytes(content)
    restored.sent_count = world.sent_count
    assert restored.to_bytes() == world.to_bytes()
    for step in after:
        world.play_step(step)
        restored.play_step(step)
    assert restored.to_bytes() == world.to_bytes()


def test_the_bytes_of_a_venue_have_its_last_exec_id() -> None:
    """The last ExecID survives a restart of the venue, as it survives a rollback."""
    world = WorldBench().begin()
    world.send()
    world.clock.run_until(world.clock.now_ns + 10_000_000)
    restored = Venue(VirtualClock(OPEN_NS), [INSTRUMENT])
    restored.restore_bytes(world.venue.to_bytes())
    assert restored.reports.last_exec_id == world.venue.reports.last_exec_id == "E1"


def test_a_rollback_revives_the_end_that_a_trial_detached() -> None:
    """The end of the checkpoint is the link's end again, with its listener, and it is not dead."""
    world = WorldBench().begin()
    end, checkpoint = world.link.end, world.link.checkpoint()
    world.link.detach()
    world.link.attach()
    world.link.rollback(checkpoint)
    assert world.link.end is end
    assert (end.is_dead, end.listener) == (False, world)


def test_a_reordered_message_that_a_heartbeat_releases_arrives() -> None:
    """Behind a message that is held for longer than the heartbeat, the reordered one arrives after it."""
    world = WorldBench().begin()
    world.link.inject_fault("in", 1, "hold", 2 * world.venue.policy.heartbeat_ns)
    world.link.inject_fault("in", 2, "reorder")
    world.send()
    world.send()
    world.clock.run_until(world.clock.now_ns + 3 * world.venue.policy.heartbeat_ns)
    assert world.received == [1, 2, 3]  # the first is the status of the book
    assert world.link.is_quiet


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("clock", {"now_ns": CLOSE_NS}, "does not belong to a clock"),
        ("link", {"in_seq": 7}, "last message is number 7"),
        ("link", {"received_seq": 9}, "received number 9"),
        ("link", {"sent_counts": {}}, "count of messages sent"),
        ("link", {"inbound": [[5, {"kind": "up"}], [4, {"kind": "up"}]]}, "overtake each other"),
        ("venue", {"lifecycle": {"roots": {"N": "M"}}}, "damaged"),
        ("venue", {"lifecycle": {"order_number": 0}}, "entered as number 1 of 0"),
        ("venue", {"book/X": {"buys": []}}, None),
        ("venue", {"own": {"open_ns": CLOSE_NS}}, "open from"),
        ("venue", {"reports": {"exec_number": -1}}, "executions"),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(part: str, change: dict[str, Any], message: str | None) -> None:
    """A decoded state is checked before it is used, and the error says what is wrong in it."""
    world, restored = WorldBench().begin(), WorldBench()
    world.send()
    world.clock.run_until(world.clock.now_ns + 10_000_000)
    content = msgspec.msgpack.decode(getattr(world, part).to_bytes())
    for name, value in change.items():
        content[name] = {**content[name], **value} if part == "venue" else value
    data = msgspec.msgpack.encode(content)
    if message is None:
        getattr(restored, part).restore_bytes(data)
        return
    with pytest.raises(StateError, match=message):
        getattr(restored, part).restore_bytes(data)


def test_an_order_in_a_book_is_the_venue_s_order() -> None:
    """A book whose copy of an order differs is refused; a good one refers to the venue's object."""
    world = WorldBench().begin()
    world.send()
    world.clock.run_until(world.clock.now_ns + 10_000_000)
    restored = Venue(VirtualClock(OPEN_NS), [INSTRUMENT])
    restored.restore_bytes(world.venue.to_bytes())
    (order,) = restored.books["X"].buys
    assert order is restored.orders[order.root_cl_ord_id]
    content = msgspec.msgpack.decode(world.venue.to_bytes())
    content["book/X"]["buys"][0]["cum_qty"] = 50
    with pytest.raises(StateError, match="holds another state of order"):
        restored.restore_bytes(msgspec.msgpack.encode(content))


def test_a_venue_state_names_its_parts() -> None:
    """Foreign bytes and a state with other instruments get a sentence."""
    world = WorldBench().begin()
    assert set(split_parts(world.venue.to_bytes(), "Venue")) == {
        "own",
        "reports",
        "lifecycle",
        "accounts",
        "book/X",
    }
    with pytest.raises(StateError, match="stored state of Venue is damaged"):
        world.venue.restore_bytes(b"\xc1")
    with pytest.raises(StateError, match="no recording of X is here"):
        Venue(VirtualClock(0), [Instrument(symbol="Y")]).restore_bytes(world.venue.to_bytes())


def test_impossible_orders_are_refused_at_once() -> None:
    """A fill beyond the open quantity, a second end and a second begin of the day raise, also under python -O."""
    world = WorldBench().begin()
    name = world.send()
    world.clock.run_until(world.clock.now_ns + 10_000_000)
    order = world.venue.find_order(name)
    assert order is not None
    for quantity in (0, -1, 101):
        with pytest.raises(ImpossibleStateError, match="100 open"):
            world.venue.lifecycle.fill(order, quantity, 100)
    assert world.venue.cancel_order(name)
    with pytest.raises(ImpossibleStateError, match="ends twice"):
        world.venue.lifecycle.close_order(order, order.ord_status, order.exec_type)  # type: ignore[arg-type]
    with pytest.raises(ImpossibleStateError, match="has not ended"):
        world.venue.begin("2024-01-03", OPEN_NS, CLOSE_NS)


def test_a_request_becomes_an_order_and_a_report_states_it() -> None:
    """Request, the owner's order, the venue's order and the report agree in every term that they share."""
    world = WorldBench().begin()
    request = Request(
        msg_type=MsgType.NEW_ORDER_SINGLE,
        cl_ord_id="R",
        root_cl_ord_id="R",
        symbol="X",
        side=Side.SELL,
        order_qty=100,
        account="A",
        price=120,
        time_in_force=Tif.GTD,
        expire_date="2024-02-01",
        cl_ord_link_id="P",
    )
    owner_order = request.to_order()
    venue_order = world.venue.lifecycle.enter_request(request)
    report = venue_order.to_report(venue_order.exec_type, "E9", trade_date="2024-01-02", transact_time_ns=1)  # type: ignore[arg-type]
    terms = [
        name for name in Order.__struct_fields__ if name in Request.__struct_fields__ and hasattr(venue_order, name)
    ]
    assert len(terms) >= 12
    assert owner_order.ord_status == OrdStatus.PENDING_NEW
    from_report = report.to_order("R")
    for name in set(terms) - {"trade_date"}:
        values = {getattr(source, name) for source in (request, owner_order, venue_order, from_report)}
        assert len(values) == 1, name
    assert from_report == msgspec.structs.replace(venue_order.to_record(), exec_id="E9")
    rejection = request.to_rejection(
        "E10", trade_date="2024-01-02", transact_time_ns=1, ord_rej_reason=2, text="exchange closed"
    )
    assert (rejection.cl_ord_id, rejection.leaves_qty, rejection.text) == ("R", 0, "exchange closed")


def test_a_rolled_back_condition_counts_from_where_it_was() -> None:
    """What a trial matched does not bring a condition nearer."""
    condition = Condition("every", lambda subsystem, record: True, 2)
    checkpoint = condition.checkpoint()
    record = Request(msg_type=MsgType.NEW_ORDER_SINGLE, cl_ord_id="R", symbol="X", side=Side.BUY, order_qty=1)
    assert not condition.observe("orders", record)
    condition.rollback(checkpoint)
    assert not condition.observe("orders", record)
    assert condition.observe("orders", record)


def test_a_snapshot_of_the_former_version_is_refused(tmp_path: Path) -> None:
    """One sentence says which version the file has and which one is read."""
    session = Session(
        resolve_factory("desk"), bundled_store(), ["BOLT"], tmp_path / "s", SessionConfig(days=["2024-11-27"])
    )
    session.begin()
    path = take_snapshot(session).save(tmp_path)
    session.close()
    content = path.read_bytes()
    assert Snapshot.open(path).info.trade_date == "2024-11-27"
    path.write_bytes(content[:4] + struct.pack("<I", VERSION - 1) + content[8:])
    with pytest.raises(SnapshotError, match=f"version {VERSION - 1}.*version {VERSION}"):
        Snapshot.open(path)


def test_a_checkpoint_of_a_session_has_the_synced_sizes(tmp_path: Path) -> None:
    """A trial that kills the subject leaves nothing behind: neither sizes, nor a transition, nor a directory."""
    session = Session(
        resolve_factory("desk"), bundled_store(), ["BOLT"], tmp_path / "s", SessionConfig(days=["2024-11-27"])
    )
    session.begin()
    session.run(0.1)
    session.disk.synced["orders.log"] = 7  # as after an earlier kill
    checkpoint, synced = session.trials.checkpoint(), dict(session.disk.synced)
    directory, transitions = session.disk.directory, list(session.transitions)
    session.trials.fork_tape()
    session.trials.crash(tmp_path / "trial")
    session.restart("kill")
    assert session.disk.synced != synced
    session.trials.rollback(checkpoint)
    assert session.disk.synced == synced
    assert (session.disk.directory, session.transitions) == (directory, transitions)
    assert session.host.env is not None
    assert not session.host.env.link.is_dead
    session.close()
