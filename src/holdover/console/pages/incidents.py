"""Incidents: their state and the actions on them. Every view first imports new breaches from the store."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import PageRequest, PageRoute
from holdover.incidents import IncidentError, IncidentLedger

_ROWS_PER_PAGE: Final = 50


def _open_ledger(request: PageRequest) -> IncidentLedger:
    ledger = IncidentLedger(request.console.store)
    ledger.import_breaches()
    return ledger


def show(request: PageRequest) -> Response:
    """Show the open incidents, then the latest resolved ones, each a page at a time."""
    ledger = _open_ledger(request)
    starts = {name: request.page_start(name) for name in ("open", "resolved")}
    lists = {
        name: ledger.incident_page(resolved=name == "resolved", offset=start, limit=_ROWS_PER_PAGE)
        for name, start in starts.items()
    }
    counts = {name: ledger.count_incidents(resolved=name == "resolved") for name in starts}
    following = {
        name: start + _ROWS_PER_PAGE if start + _ROWS_PER_PAGE < counts[name] else 0 for name, start in starts.items()
    }
    return request.render("incidents.html", lists=lists, counts=counts, starts=starts, following=following)


def show_incident(request: PageRequest) -> Response:
    """Show one incident."""
    return _incident_page(request)


def update_incident(request: PageRequest) -> Response:
    """Acknowledge, diagnose or resolve, as the path says."""
    ledger, number, operator, now_ns = (
        _open_ledger(request),
        request.number(),
        request.session.user.name,
        request.console.clock(),
    )
    step = request.path.rpartition("/")[2]
    try:
        if step == "acknowledge":
            ledger.acknowledge(number, operator, now_ns)
        elif step == "diagnose":
            ledger.diagnose(number, operator, request.text("cause", 64), request.text("diagnosis"), now_ns)
        else:
            ledger.resolve(number, operator, now_ns)
    except IncidentError as problem:
        sentence = str(problem).partition(": holdover")[0]  # the rest is for the command line
        return _incident_page(request, status=422, problem=f"{sentence[:1].upper()}{sentence[1:]}.")
    return request.redirect(f"/incident/{number}", "incident")


def _incident_page(request: PageRequest, *, status: int = 200, problem: str = "") -> Response:
    ledger = _open_ledger(request)
    try:
        incident = ledger.get_incident(request.number())
    except IncidentError:
        return request.not_found("There is no incident of that number.")
    return request.render(
        "incident.html",
        status=status,
        incident=incident,
        actions=ledger.list_actions(incident.number),
        problem=problem,
        cause=request.text("cause", 64) or incident.cause,
        diagnosis=request.text("diagnosis") or incident.diagnosis,
    )


NAV: Final = ("/incidents", "Incidents")
PARTS: Final = (
    PageRoute(path="/incidents", answer=show),
    PageRoute(path="/incident/{number:int}", answer=show_incident),
    *(
        PageRoute(path=f"/incident/{{number:int}}/{step}", answer=update_incident, method="POST", role="operator")
        for step in ("acknowledge", "diagnose", "resolve")
    ),
)
