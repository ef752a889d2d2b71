"""Pages: what on-call was told, by which channel, how far it came, and who took it."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import Ask, Part

_A_PAGE: Final = 50


def show(ask: Ask) -> Response:
    """The open alerts, and the outbox a part at a time."""
    store = ask.console.store
    rows = store.deliveries_before(ask.before(), _A_PAGE + 1)
    more = rows[_A_PAGE - 1].number if len(rows) > _A_PAGE else 0
    return ask.render("outbox.html", alerts=store.alerts(), rows=rows[:_A_PAGE], more=more, first=not ask.before())


NAV: Final = ("/pages", "Pages")
PARTS: Final = (Part(path="/pages", answer=show),)
