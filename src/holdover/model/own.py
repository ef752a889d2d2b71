"""Records about the system as such: what the guard makes of its own duties, and what a store was made into.

They stand in the catalogue like any other record.
"""

from __future__ import annotations

from typing import ClassVar

from holdover.model.record import Record


class Recompute(Record, frozen=True, kw_only=True, gc=False):
    """A full recompute of the running totals at a boundary: how many totals it covered and how many differed."""

    passing: ClassVar[bool] = True

    boundary: str
    totals: int
    differences: int
    first: str = ""

    @property
    def key(self) -> str:
        """The boundary's name."""
        return self.boundary


class Recovery(Record, frozen=True, kw_only=True, gc=False):
    """What a subsystem read back after a restart, against what it last recorded before it.

    `missing` records have not come back; `regressed` ones came back older and the recovery did not bring them up again.
    """

    passing: ClassVar[bool] = True

    subsystem: str
    restored: int
    missing: int
    regressed: int
    first: str = ""

    @property
    def key(self) -> str:
        """The subsystem."""
        return self.subsystem

    def __repr__(self) -> str:
        found = f"restored {self.restored}, missing {self.missing}, regressed {self.regressed}"
        return f"<Recovery {self.subsystem} {found}{' first ' + self.first if self.first else ''}>"


class FreezeSet(Record, frozen=True, kw_only=True, gc=False):
    """The freezes in force at a boundary, against those that the guard set and nobody thawed."""

    passing: ClassVar[bool] = True

    boundary: str
    in_force: int
    lost: int
    first: str = ""

    @property
    def key(self) -> str:
        """The boundary's name."""
        return self.boundary


class ClockReading(Record, frozen=True, kw_only=True, gc=False):
    """The time of a step beside the time of the step before it; `declared` when the jump was announced."""

    passing: ClassVar[bool] = True

    time_ns: int
    previous_ns: int
    declared: bool = False

    @property
    def key(self) -> str:
        """There is one clock."""
        return "clock"


class Restored(Record, frozen=True, kw_only=True, gc=False):
    """What a store holds that a start has to bring back, against what was made of it; the system says it of itself.

    `stored` and `restored` count the records on either side, `differing` those that came back as something else.
    """

    passing: ClassVar[bool] = True

    store: str
    stored: int
    restored: int
    differing: int
    first: str = ""

    @property
    def key(self) -> str:
        """The store's name."""
        return self.store

    def __repr__(self) -> str:
        found = f"stored {self.stored}, restored {self.restored}, differing {self.differing}"
        return f"<Restored {self.store} {found}{' first ' + self.first if self.first else ''}>"


class Repetition(Record, frozen=True, kw_only=True, gc=False):
    """A reconciliation that came after another one with nothing between them to tell, and how much it changed."""

    passing: ClassVar[bool] = True

    trade_date: str
    compared: int
    changed: int
    first: str = ""

    @property
    def key(self) -> str:
        """The trade date."""
        return self.trade_date

    def __repr__(self) -> str:
        found = f"compared {self.compared}, changed {self.changed}"
        return f"<Repetition {self.trade_date} {found}{' first ' + self.first if self.first else ''}>"
