"""The catalogue: what must hold, what it means when it does not, and what to do then."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from starlette.responses import Response

from holdover.console.console import Ask, Part


def show(ask: Ask) -> Response:
    """Every invariant by family."""
    catalogue = ask.console.catalogue
    entries = [invariant.entry for invariant in catalogue]
    families = [
        (family.replace("-", " ").capitalize(), list(members))
        for family, members in groupby(entries, key=lambda entry: entry.family)
    ]
    return ask.render("catalogue.html", families=families, count=len(entries), digest=catalogue.digest)


def show_one(ask: Ask) -> Response:
    """One invariant whole."""
    found = ask.console.catalogue.invariants.get(ask.params["name"])
    if found is None:
        return ask.lost("No invariant has that name.")
    return ask.render("invariant.html", entry=found.entry)


NAV: Final = ("/catalogue", "Catalogue")
PARTS: Final = (Part(path="/catalogue", answer=show), Part(path="/catalogue/{name}", answer=show_one))
