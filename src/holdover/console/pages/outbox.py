"""Alerts: what on-call received, by which channel, whether it was delivered, and who acknowledged it."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import PageRequest, PageRoute

_ROWS_PER_PAGE: Final = 50


def show(request: PageRequest) -> Response:
    """Show the open alerts, and the outbox a page at a time."""
    store = request.console.store
    rows = store.deliveries_before(request.page_start(), _ROWS_PER_PAGE + 1)
    next_number = rows[_ROWS_PER_PAGE - 1].number if len(rows) > _ROWS_PER_PAGE else 0
    return request.render(
        "outbox.html",
        alerts=store.alerts(),
        rows=rows[:_ROWS_PER_PAGE],
        more=next_number,
        first=not request.page_start(),
    )


NAV: Final = ("/pages", "Pages")
PARTS: Final = (PageRoute(path="/pages", answer=show),)
