"""The audit log: who did what, verified when shown from the last verified head.

Its head is shown as well, for comparison with a copy elsewhere.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import PageRequest, PageRoute

_ROWS_PER_PAGE: Final = 100


def show(request: PageRequest) -> Response:
    """Show the latest entries first, a page at a time."""
    store = request.console.store
    rows = store.audit_rows_before(request.page_start(), _ROWS_PER_PAGE + 1)
    next_number = rows[_ROWS_PER_PAGE - 1][0] if len(rows) > _ROWS_PER_PAGE else 0
    verdict = request.console.audit_verifier.verify(
        request.console.clock(), whole=request.query.get("verify", "") == "all"
    )
    number, _, digest = verdict.head.partition(" ")
    return request.render(
        "audit.html",
        rows=rows[:_ROWS_PER_PAGE],
        next_number=next_number,
        is_first=not request.page_start(),
        problem=verdict.problem,
        whole_ns=verdict.whole_ns,
        head=number,
        digest=digest,
    )


NAV: Final = ("/audit", "Audit")
PARTS: Final = (PageRoute(path="/audit", answer=show),)
