"""Overview: what is frozen and why, which alerts are open, the state of each process; and acknowledging alerts."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import PageRequest, PageRoute
from holdover.console.pages.breach import BreachCard, group_cards, make_card


def show(request: PageRequest) -> Response:
    """Show the overview."""
    store = request.console.store
    freezes = sorted(store.active_freezes(), key=lambda freeze: (freeze.scope != "system", -freeze.number))
    cards: list[BreachCard] = [make_card(request.console, freeze.breach, freeze) for freeze in freezes]
    shown_keys = {card.alert.page.dedup_key for card in cards if card.alert is not None}
    remaining_alerts = [alert for alert in store.alerts() if alert.page.dedup_key not in shown_keys]
    incidents = group_cards(request.console, cards)
    return request.render("overview.html", cards=cards, incidents=incidents, other_alerts=remaining_alerts)


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
