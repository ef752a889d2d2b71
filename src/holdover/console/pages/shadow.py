"""The shadow run: may the candidate go live, what stands in its way, the cutover clock, components and faults."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import Ask, Part
from holdover.shadow import (
    BadShadow,
    BadState,
    ask,
    boundary,
    compared_text,
    counted,
    inputs_text,
    read_shadow,
    read_state,
    uptime_text,
)
from holdover.shadow.components import FAULTS


def show(asked: Ask) -> Response:
    """The answer first."""
    config = asked.console.config
    if not config.console.shadow:
        return asked.render("shadow.html", problem="", answer=None, state=None)
    try:
        shadow = read_shadow(config.here / config.console.shadow)
        answer = ask(shadow, asked.console.clock())
    except BadShadow as problem:
        return asked.render("shadow.html", problem=str(problem), answer=None, state=None)
    try:
        state = read_state(shadow.state)
    except BadState:
        state = None  # the answer says so already
    streams = answer.workstreams
    order = {False: 0, None: 1, True: 2}
    return asked.render(
        "shadow.html",
        problem="",
        answer=answer,
        conditions=sorted(answer.conditions, key=lambda one: order[one.met]),
        state=state,
        hours=shadow.cutover.hours,
        faults=FAULTS,
        streams=f"{counted(streams)}; required: {boundary(streams)}" if streams else "",
        workstreams=streams,
        uptime=uptime_text(state) if state else "",
        inputs=inputs_text(state) if state else "",
        compared=compared_text(state.compared) if state and state.compared else "",
    )


NAV: Final = ("/shadow", "Shadow")
PARTS: Final = (Part(path="/shadow", answer=show),)
