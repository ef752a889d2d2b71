"""The running subject: its start, its stop, its kill at an exact mutation, and what it sends past a freeze.

A kill is exact: the host copies the subject's directory at that instant and disables its environment. Code of the
subject that still unwinds (a `finally`, a `with`, a database rollback) cannot change any state that survives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from holdover.harness.condition import Condition
from holdover.harness.subject import (
    Env,
    Factory,
    Plan,
    RecordedMarket,
    Subject,
    SubjectClock,
    SubjectGuard,
    SubjectKilledError,
)
from holdover.harness.subject_disk import SubjectDisk
from holdover.model import ImpossibleStateError, Outbound, Record, Request
from holdover.runtime import Guard
from holdover.state import StateError, Stateful
from holdover.world import SimulatedLink, Venue, VirtualClock


@dataclass(frozen=True)
class World:
    """The outside of a subject: clock, venue, and the link between the two."""

    clock: VirtualClock
    venue: Venue
    link: SimulatedLink


class SubjectHostState(msgspec.Struct):
    """The state of a `SubjectHost`."""

    leaked_requests: list[Request]
    quiet_mutation: int


class SubjectHost(Stateful[SubjectHostState]):
    """Runs one incarnation of a subject after the other.

    `leaked_requests` are those that left although a freeze forbade them. `on_record` is called for each mutation of the
    subject, `on_kill` with the reason when a condition kills it, and `on_stop` when a condition ends the run.
    """

    State = SubjectHostState
    IN_PROCESS: ClassVar = {
        "subject": "the subject's object",
        "env": "the environment of the subject's object",
        "factory": "a function of the process",
        "stop_condition": "contains a function",
        "kill_condition": "contains a function",
        "_last_sent": "the message object, compared by identity",
    }
    DERIVED: ClassVar = {
        "plan": "configuration, set once",
        "world": "parts that save themselves",
        "guard": "a part that saves itself",
        "disk": "a part that saves itself",
        "on_record": "a hook of whoever watches the run, set and removed by it",
        "on_kill": "a function of the session",
        "on_stop": "a function of the session",
    }

    def __init__(self, factory: Factory, plan: Plan, world: World, guard: Guard, disk: SubjectDisk) -> None:
        self.factory, self.plan, self.world, self.guard, self.disk = factory, plan, world, guard, disk
        self.subject: Subject | None = None
        self.env: Env | None = None
        self.leaked_requests: list[Request] = []
        self.quiet_mutation = -1
        self.stop_condition: Condition | None = None
        self.kill_condition: Condition | None = None
        self.on_record: Callable[[str, Record], None] | None = None
        self.on_kill: Callable[[str], None] = lambda reason: None
        self.on_stop: Callable[[], None] = lambda: None
        self._last_sent: Outbound | None = None
        world.link.on_send = self._on_send

    # -- start and end ------------------------------------------------------------------------------------------

    def start(self, trade_date: str, open_ns: int, close_ns: int) -> None:
        """Start a new incarnation from the directory.

        Raises `ImpossibleStateError` while one is running, or when the image of a kill was not restored.
        """
        if self.subject is not None or self.disk.is_captured:
            raise ImpossibleStateError("the former incarnation of the subject has not ended")
        if not trade_date or open_ns >= close_ns:
            raise ImpossibleStateError(f"the subject starts on {trade_date!r}, open from {open_ns} to {close_ns} ns")
        self.disk.track_syncs()
        self.env = Env(
            clock=SubjectClock(self.world.clock),
            link=self.world.link.attach(),
            market=RecordedMarket(self.world.venue),
            directory=self.disk.directory,
            guard=SubjectGuard(self.guard, self._on_subject_record),
            trade_date=trade_date,
            open_ns=open_ns,
            close_ns=close_ns,
            instruments=self.plan.instruments(),
        )
        self.subject = self.factory(self.plan)
        self.subject.start(self.env)

    def stop(self) -> None:
        """Stop the subject in good order, if it is running. One that was killed before stays killed."""
        if self.disk.is_captured:
            self.finish_kill()
        elif self.subject is not None:
            self.subject.stop()
        self.detach()

    def capture_kill(self) -> None:
        """Kill the subject at this instant: copy its directory and disable its environment."""
        self.disk.capture()
        if self.env is not None:
            self.env.kill()
        self.guard.steps.abandon(self._was_sent)

    def finish_kill(self) -> None:
        """Complete a kill: take the image if there is none, detach the subject, and restore the image."""
        if not self.disk.is_captured and self.subject is not None:
            self.capture_kill()
        self.detach()
        self.disk.restore_capture()

    def abandon(self) -> None:
        """Kill the subject inside one of its calls, for a trial that ends before that call returns."""
        if self.env is not None:
            self.env.kill()
        self.kill_condition = None
        self.guard.steps.abandon(self._was_sent, discard_steps=True)
        self.detach()

    def detach(self) -> None:
        """Detach the subject from clock, link and guard."""
        if self.env is not None:
            self.env.kill()
        self.guard.steps.mark_subject_down()
        self.world.link.detach()
        self.world.clock.unregister("subject")
        self.world.clock.cancel_owner("subject")
        self.subject = self.env = None

    def close(self) -> None:
        """Kill the subject if it is running, and release what belongs to the process."""
        if self.subject is not None:
            self.finish_kill()
        self.disk.close()

    # -- mutations and messages ---------------------------------------------------------------------------------

    def check_quiescence(self) -> None:
        """If no message is in flight, let the guard compare the subject's records with the venue's."""
        if not self.world.link.is_quiet or self.env is None:
            return
        subject_guard = self.env.guard
        if subject_guard.reconciled_date:
            recovered, subject_guard.recovered_subsystems = subject_guard.recovered_subsystems, []
            date, subject_guard.reconciled_date = subject_guard.reconciled_date, ""
            self.guard.reconciled(date, recovered)
        else:
            self.guard.quiescent()
        self.quiet_mutation = self.guard.monitor.mutations

    def _on_subject_record(self, subsystem: str, record: Record) -> None:
        """Handle one mutation of the subject: stop or kill when a condition is met."""
        if self.on_record is not None:
            self.on_record(subsystem, record)
        if self.stop_condition is not None and self.stop_condition.observe(subsystem, record):
            self.on_stop()
        if self.kill_condition is not None and self.kill_condition.observe(subsystem, record):
            self.on_kill(f"at {record!r}")
            self.capture_kill()
            raise SubjectKilledError

    def _on_send(self, message: Outbound) -> None:
        """Note a message that leaves the subject, and whether a frozen scope should have blocked it."""
        self._last_sent = message
        if isinstance(message, Request) and self.guard.forbids(message):
            self.leaked_requests.append(message)

    def _was_sent(self, record: Record) -> bool:
        # A kill inside the send happens before the message is in flight; then no one else has seen the record.
        return record is self._last_sent and self.world.link.is_message_in_flight(self._last_sent)

    # -- state --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Any:
        """Return the state as it is now, with that of the environment and of the conditions."""
        return super().checkpoint(), [part.checkpoint() for part in self._running_parts()]

    def take_state(self, state: SubjectHostState) -> None:
        """Take over a decoded state. Raises `StateError` for a mutation below -1, which stands for none."""
        if state.quiet_mutation < -1:
            raise StateError(f"the stored state of SubjectHost is damaged: quiet at mutation {state.quiet_mutation}")
        super().take_state(state)

    def rollback(self, checkpoint: Any) -> None:
        """Restore the state of a checkpoint. The subject's own objects are not part of it."""
        own, parts = checkpoint
        super().rollback(own)
        for part, saved in zip(self._running_parts(), parts, strict=True):
            part.rollback(saved)

    def _running_parts(self) -> list[Stateful[Any]]:
        parts: list[Stateful[Any] | None] = [self.stop_condition, self.kill_condition]
        if self.env is not None:
            parts += [self.env.clock, self.env.guard]
        return [part for part in parts if part is not None]
