"""Overview: what is frozen and why, which alerts are open, the state of each process; and acknowledging alerts."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import PageRequest, PageRoute
from holdover.console.pages.breach import BreachCard, group_cards, make_card
from holdover.console.store_pages import count_causes, read_freezes, read_open_alerts


def show(request: PageRequest) -> Response:
    """Show the overview."""
    store = request.console.store
    freezes, freeze_page = read_freezes(store, request.page_start())
    cards: list[BreachCard] = [make_card(request.console, freeze.breach, freeze) for freeze in freezes]
    other_alerts, alert_page = read_open_alerts(store, 0, without_freeze=True)
    return request.render(
        "overview.html",
        incidents=group_cards(request.console, cards),
        freeze_page=freeze_page,
        cause_count=count_causes(store),
        other_alerts=other_alerts,
        alert_page=alert_page,
    )


def acknowledge(request: PageRequest) -> Response:
    """Acknowledge an alert."""
    is_acknowledged = request.console.store.acknowledge(
        request.text("key"), request.session.user.name, request.console.clock()
    )
    number = request.text("breach")
    path = f"/breach/{number}" if number.isascii() and number.isdigit() and len(number) < 15 else "/"
    return request.redirect(path, "acknowledged" if is_acknowledged else "taken")


NAV: Final = ("/", "Now")
PARTS: Final = (
    PageRoute(path="/", answer=show),
    PageRoute(path="/acknowledge", answer=acknowledge, method="POST", role="operator"),
)
