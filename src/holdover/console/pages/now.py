"""Now: what is frozen and why, which pages are open, how each process stands; and taking a page upon oneself."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import Ask, Part
from holdover.console.pages.breach import Card, card_of


def show(ask: Ask) -> Response:
    """The first page."""
    store = ask.console.store
    freezes = sorted(store.in_force(), key=lambda one: (one.scope != "system", -one.number))
    cards: list[Card] = [card_of(ask.console, freeze.breach, freeze) for freeze in freezes]
    shown = {card.alert.page.dedup_key for card in cards if card.alert is not None}
    others = [alert for alert in store.alerts() if alert.page.dedup_key not in shown]
    return ask.render("now.html", cards=cards, others=others)


def acknowledge(ask: Ask) -> Response:
    """Somebody is on it."""
    done = ask.console.store.acknowledge(ask.text("key"), ask.who.user.name, ask.console.clock())
    number = ask.text("breach")
    back = f"/breach/{number}" if number.isascii() and number.isdigit() and len(number) < 15 else "/"
    return ask.back(back, "acknowledged" if done else "taken")


NAV: Final = ("/", "Now")
PARTS: Final = (
    Part(path="/", answer=show),
    Part(path="/acknowledge", answer=acknowledge, method="POST", role="operator"),
)
