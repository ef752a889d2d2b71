"""Parts of long lists in the store, read a page at a time: freezes in force and open alerts."""

from __future__ import annotations

from typing import Final

import msgspec

from holdover.runtime import Alert, Freeze, FreezeStore
from holdover.runtime.database import Row
from holdover.runtime.outbox import read_page

FREEZES_PER_PAGE: Final = 50
ALERTS_PER_PAGE: Final = 50
_ALERT_COLUMNS: Final = "dedup_key, body, opened_ns, level, escalated_ns, acknowledged_ns, acknowledged_by, resolved_ns"


class ListPage(msgspec.Struct, frozen=True):
    """A part of a list: where it starts, how long the whole list is, and where the next part starts (0: nowhere)."""

    start: int
    count: int
    following: int

    @classmethod
    def at(cls, start: int, count: int, rows_max: int) -> ListPage:
        """Returns the page that starts after `start` rows of a list of `count` rows."""
        return cls(start, count, start + rows_max if start + rows_max < count else 0)


def read_freezes(store: FreezeStore, start: int) -> tuple[list[Freeze], ListPage]:
    """Returns freezes in force, those of the whole system first, then the latest first."""
    freezes = sorted(store.active_freezes(), key=lambda freeze: (freeze.scope != "system", -freeze.number))
    return freezes[start : start + FREEZES_PER_PAGE], ListPage.at(start, len(freezes), FREEZES_PER_PAGE)


def read_open_alerts(store: FreezeStore, start: int, *, without_freeze: bool = False) -> tuple[list[Alert], ListPage]:
    """Returns open alerts, oldest first; with `without_freeze` only those whose breaches froze nothing."""
    condition = "resolved_ns IS NULL"
    if without_freeze:
        condition += (
            ' AND breach NOT IN (SELECT b.cause FROM "freeze" f JOIN breach b ON b.number = f.breach '
            "WHERE f.thawed_ns IS NULL)"
        )
    count = int(store.database.read(f"SELECT COUNT(*) FROM alert WHERE {condition}")[0][0])
    rows = store.database.read(
        f"SELECT {_ALERT_COLUMNS} FROM alert WHERE {condition} ORDER BY opened_ns, dedup_key LIMIT ? OFFSET ?",
        ALERTS_PER_PAGE,
        start,
    )
    return [_alert_of_row(row) for row in rows], ListPage.at(start, count, ALERTS_PER_PAGE)


def count_causes(store: FreezeStore) -> int:
    """Returns the number of causes of the freezes in force; a freeze without a breach has one of its own."""
    rows = store.database.read(
        "SELECT COUNT(DISTINCT COALESCE(b.cause, -f.number)) "
        'FROM "freeze" f LEFT JOIN breach b ON b.number = f.breach WHERE f.thawed_ns IS NULL'
    )
    return int(rows[0][0])


def find_alert(store: FreezeStore, cause_number: int) -> Alert | None:
    """Returns the alert of a cause, open or resolved; None when there is none."""
    rows = store.database.read(
        f"SELECT {_ALERT_COLUMNS} FROM alert WHERE breach=? ORDER BY opened_ns DESC LIMIT 1", cause_number
    )
    return _alert_of_row(rows[0]) if rows else None


def _alert_of_row(row: Row) -> Alert:
    key, body, *values = row
    names = ("opened_ns", "level", "escalated_ns", "acknowledged_ns", "acknowledged_by", "resolved_ns")
    return Alert(page=read_page(key, body), **dict(zip(names, values, strict=True)))
