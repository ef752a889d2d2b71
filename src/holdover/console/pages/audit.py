"""The audit log: who did what, verified as it is shown, with the head to be compared with one kept elsewhere."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import Ask, Part

_A_PAGE: Final = 100


def show(ask: Ask) -> Response:
    """The latest acts first, a part at a time."""
    store = ask.console.store
    rows = store.audit_before(ask.before(), _A_PAGE + 1)
    more = rows[_A_PAGE - 1][0] if len(rows) > _A_PAGE else 0
    number, _, digest = store.audit_head().partition(" ")
    return ask.render(
        "audit.html",
        rows=rows[:_A_PAGE],
        more=more,
        first=not ask.before(),
        wrong=store.verify_audit(),
        head=number,
        digest=digest,
    )


NAV: Final = ("/audit", "Audit")
PARTS: Final = (Part(path="/audit", answer=show),)
