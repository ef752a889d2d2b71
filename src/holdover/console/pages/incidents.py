"""Incidents: each breach's, how far each has come, and the acts on it. Every look takes up what is new in the store."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import Ask, Part
from holdover.incidents import BadIncident, Ledger

_SHOWN: Final = 100


def _ledger(ask: Ask) -> Ledger:
    ledger = Ledger(ask.console.store)
    ledger.take()
    return ledger


def show(ask: Ask) -> Response:
    """Those that are not resolved, then the latest that are."""
    found = _ledger(ask).all()
    open_ones = [one for one in found if one.resolved_ns is None]
    over = [one for one in reversed(found) if one.resolved_ns is not None]
    return ask.render("incidents.html", open=open_ones, over=over[:_SHOWN], left_out=max(0, len(over) - _SHOWN))


def show_one(ask: Ask) -> Response:
    """One incident."""
    return _page(ask)


def act(ask: Ask) -> Response:
    """Acknowledge, diagnose or resolve, as the path says."""
    ledger, number, who, now = _ledger(ask), ask.number(), ask.who.user.name, ask.console.clock()
    step = ask.path.rpartition("/")[2]
    try:
        if step == "acknowledge":
            ledger.acknowledge(number, who, now)
        elif step == "diagnose":
            ledger.diagnose(number, who, ask.text("cause", 64), ask.text("diagnosis"), now)
        else:
            ledger.resolve(number, who, now)
    except BadIncident as problem:
        told = str(problem).partition(": holdover")[0]  # what comes after it is for the command line
        return _page(ask, status=422, problem=f"{told[:1].upper()}{told[1:]}.")
    return ask.back(f"/incident/{number}", "incident")


def _page(ask: Ask, *, status: int = 200, problem: str = "") -> Response:
    ledger = _ledger(ask)
    try:
        one = ledger.get(ask.number())
    except BadIncident:
        return ask.lost("There is no incident of that number.")
    return ask.render(
        "incident.html",
        status=status,
        one=one,
        acts=ledger.acts(one.number),
        problem=problem,
        cause=ask.text("cause", 64) or one.cause,
        diagnosis=ask.text("diagnosis") or one.diagnosis,
    )


NAV: Final = ("/incidents", "Incidents")
PARTS: Final = (
    Part(path="/incidents", answer=show),
    Part(path="/incident/{number:int}", answer=show_one),
    *(
        Part(path=f"/incident/{{number:int}}/{step}", answer=act, method="POST", role="operator")
        for step in ("acknowledge", "diagnose", "resolve")
    ),
)
