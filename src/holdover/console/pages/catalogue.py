"""The catalogue: every invariant, its meaning and its runbook."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from starlette.responses import Response

from holdover.console.console import PageRequest, PageRoute
from holdover.runtime.observation import describe_policy


def show(request: PageRequest) -> Response:
    """Show all invariants by family."""
    catalogue = request.console.catalogue
    entries = [invariant.entry for invariant in catalogue]
    families = [
        (family.replace("-", " ").capitalize(), list(members))
        for family, members in groupby(entries, key=lambda entry: entry.family)
    ]
    return request.render(
        "catalogue.html",
        families=families,
        count=len(entries),
        digest=catalogue.digest,
        policy=describe_policy(catalogue),
    )


def show_invariant(request: PageRequest) -> Response:
    """Show one invariant."""
    invariant = request.console.catalogue.invariants.get(request.params["name"])
    if invariant is None:
        return request.not_found("No invariant has that name.")
    return request.render("invariant.html", entry=invariant.entry)


NAV: Final = ("/catalogue", "Catalogue")
PARTS: Final = (PageRoute(path="/catalogue", answer=show), PageRoute(path="/catalogue/{name}", answer=show_invariant))
