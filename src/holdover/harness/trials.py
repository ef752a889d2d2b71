"""What only exploration does with a session: checkpoints, kills and cuts in the middle of a call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdover.harness.subject import SubjectKilledError

if TYPE_CHECKING:
    from holdover.harness.session import Session


class SessionTrials:
    """Trials of one session: each begins at a checkpoint, does something, and is rolled back.

    A rollback can only end a trial in which the incarnation of the checkpoint does nothing, because it is killed at
    once: the subject's own objects are not part of a checkpoint.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def checkpoint(self) -> Any:
        """Return a checkpoint of everything in this process that may change, but the subject's own objects."""
        return [part.checkpoint() for part in self._parts()]

    def rollback(self, checkpoint: Any) -> None:
        """Restore the state of a checkpoint."""
        if len(checkpoint) != len(self._parts()):
            raise ValueError(f"a checkpoint of {len(checkpoint)} parts, the session has {len(self._parts())}")
        for part, saved in zip(self._parts(), checkpoint, strict=True):
            part.rollback(saved)

    def _parts(self) -> tuple[Any, ...]:
        session = self._session
        world = (session.venue, session.guard, session.link, session.clock)
        return (*world, session.player, session.disk, session.host, session)

    def fork_tape(self) -> None:
        """Continue the market on a new tape, so that the present tape stays where it is."""
        self._session.player.open_tape(self._session.player.tape_offset)

    def crash(self, directory: Path, image: Mapping[str, bytes] | None = None) -> None:
        """Kill the subject at this instant, from inside one of its calls, for a trial that `rollback` ends.

        The next incarnation runs on a copy of the disk in `directory`, made from `image` when that is given. Files
        and objects of the killed incarnation are not touched. `Session.restart` starts the next incarnation.
        """
        self._session.disk.branch(directory, image)
        self._session.host.abandon()

    def kill(self) -> None:
        """Kill the subject at this point, from inside one of its calls.

        Raises `SubjectKilledError`; call `discard_subject` next.
        """
        self._session.record_transition("kill", "here")
        self._session.host.capture_kill()
        raise SubjectKilledError

    def discard_subject(self) -> None:
        """Discard the killed subject and restore its disk to the instant of the kill."""
        self._session.host.finish_kill()

    def drop_link(self, *, lose_out: bool = False, recovery: str = "") -> None:
        """Cut the link in the middle of a call of the subject. The subject is notified after that call."""
        link = self._session.link
        if recovery not in ("", "replay", "drop"):
            raise ValueError(f"no recovery is called {recovery!r}; there are replay and drop")
        link.recovery = recovery or link.recovery
        self._session.record_transition("disconnect", f"in flight {link.in_flight}")
        link.drop_deferred(lose_out=lose_out)
