"""Health: how each guarded process stands by its last sign of life."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import Ask, Part


def show(ask: Ask) -> Response:
    """Every process that has ever said that it lives, the worst first."""
    return ask.render("health.html", digest=ask.console.catalogue.digest)


NAV: Final = ("/health", "Health")
PARTS: Final = (Part(path="/health", answer=show),)
