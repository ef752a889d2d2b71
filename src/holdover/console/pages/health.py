"""Health: the state of each guarded process by its last heartbeat."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import PageRequest, PageRoute


def show(request: PageRequest) -> Response:
    """Show every process that ever sent a heartbeat, the worst first."""
    return request.render("health.html", digest=request.console.catalogue.digest)


NAV: Final = ("/health", "Health")
PARTS: Final = (PageRoute(path="/health", answer=show),)
