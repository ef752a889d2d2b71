"""Health: the state of each guarded process by its last heartbeat."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import PageRequest, PageRoute
from holdover.runtime.observation import describe_policy, describe_policy_difference


def show(request: PageRequest) -> Response:
    """Show every process that ever sent a heartbeat, the worst first."""
    catalogue = request.console.catalogue
    policy = describe_policy(catalogue)
    differences = {
        process.name: describe_policy_difference(policy, process.beat.policy)
        for process in request.console.take_picture().statuses
    }
    return request.render("health.html", digest=catalogue.digest, differences=differences)


NAV: Final = ("/health", "Health")
PARTS: Final = (PageRoute(path="/health", answer=show),)
