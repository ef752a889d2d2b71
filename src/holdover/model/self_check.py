"""Records that the guard or the system makes about itself: results of its own checks.

The catalogue treats them like any other record.
"""

from __future__ import annotations

from typing import ClassVar, Final

from holdover.model.record import ReconciliationEffort, Record


class Recompute(Record, frozen=True, kw_only=True, gc=False):
    """A full recomputation of the running totals at a boundary: how many totals it covered and how many differed."""

    per_connection: ClassVar[bool] = True

    boundary: str
    totals: int
    differences: int
    first: str = ""

    @property
    def key(self) -> str:
        """The boundary's name."""
        return self.boundary


class Recovery(Record, frozen=True, kw_only=True, gc=False):
    """Compares what a subsystem read back after a restart with what it last recorded before.

    `missing` counts records that did not come back. `regressed` counts records that came back older and that the
    recovery did not bring up to date.
    """

    per_connection: ClassVar[bool] = True

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
        counts = f"restored {self.restored}, missing {self.missing}, regressed {self.regressed}"
        return f"<Recovery {self.subsystem} {counts}{' first ' + self.first if self.first else ''}>"


class RestoredOrders(Record, frozen=True, kw_only=True, gc=False):
    """Compares the working orders that a restart brought back with those before it, field by field.

    `changed` counts orders with a field that differs, that nobody has corrected since, and that the venue does not
    confirm.
    """

    per_connection: ClassVar[bool] = True

    subsystem: str
    compared: int
    changed: int
    first: str = ""

    @property
    def key(self) -> str:
        """The subsystem."""
        return self.subsystem

    def __repr__(self) -> str:
        counts = f"compared {self.compared}, changed {self.changed}"
        return f"<RestoredOrders {self.subsystem} {counts}{' first ' + self.first if self.first else ''}>"


class FreezeSet(Record, frozen=True, kw_only=True, gc=False):
    """Compares the freezes in force at a boundary with the freezes that the guard set and no operator thawed.

    `lost_count` counts freezes that the store no longer has.
    """

    per_connection: ClassVar[bool] = True

    boundary: str
    in_force: int
    lost_count: int
    first: str = ""

    @property
    def key(self) -> str:
        """The boundary's name."""
        return self.boundary


class ClockReading(Record, frozen=True, kw_only=True, gc=False):
    """The time of a step and of the step before it, in ns. `declared` means that the jump was announced."""

    per_connection: ClassVar[bool] = True

    time_ns: int
    previous_ns: int
    declared: bool = False

    @property
    def key(self) -> str:
        """Always `clock`: there is one clock."""
        return "clock"


class Restored(Record, frozen=True, kw_only=True, gc=False):
    """Compares what a store holds with what a start restored from it. The system records it about itself.

    `stored` and `restored` count the records on either side; `differing` counts records that came back changed.
    """

    per_connection: ClassVar[bool] = True

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
        counts = f"stored {self.stored}, restored {self.restored}, differing {self.differing}"
        return f"<Restored {self.store} {counts}{' first ' + self.first if self.first else ''}>"


class Repetition(Record, frozen=True, kw_only=True, gc=False):
    """A reconciliation that follows another one without any new input, and how many records it changed."""

    per_connection: ClassVar[bool] = True

    trade_date: str
    compared: int
    changed: int
    first: str = ""

    @property
    def key(self) -> str:
        """The trade date."""
        return self.trade_date

    def __repr__(self) -> str:
        counts = f"compared {self.compared}, changed {self.changed}"
        return f"<Repetition {self.trade_date} {counts}{' first ' + self.first if self.first else ''}>"


GUARD_KINDS: Final[frozenset[type[Record]]] = frozenset(
    {Recompute, Recovery, RestoredOrders, FreezeSet, ClockReading, Repetition, ReconciliationEffort}
)
"""The kinds that the guard records by itself, whatever the system records."""
