"""Alerts: what on-call received, by which channel, whether it was delivered, and who acknowledged it."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import PageRequest, PageRoute
from holdover.console.store_pages import read_open_alerts

_ROWS_PER_PAGE: Final = 50


def show(request: PageRequest) -> Response:
    """Show the open alerts, and the outbox a page at a time."""
    store = request.console.store
    deliveries = store.deliveries_before(request.page_start(), _ROWS_PER_PAGE + 1)
    next_number = deliveries[_ROWS_PER_PAGE - 1].number if len(deliveries) > _ROWS_PER_PAGE else 0
    alerts, alert_page = read_open_alerts(store, request.page_start("open"))
    return request.render(
        "alerts.html",
        alerts=alerts,
        alert_page=alert_page,
        deliveries=deliveries[:_ROWS_PER_PAGE],
        next_number=next_number,
        is_first=not request.page_start(),
    )


NAV: Final = ("/alerts", "Alerts")
PARTS: Final = (PageRoute(path="/alerts", answer=show),)
