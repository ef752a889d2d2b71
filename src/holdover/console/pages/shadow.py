"""The shadow run: whether the candidate may go live, what prevents it, the cutover clock, components and faults."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from holdover.console.console import PageRequest, PageRoute
from holdover.shadow import (
    ShadowConfigError,
    ShadowStateError,
    check_cutover,
    comparison_text,
    inputs_text,
    open_boundaries_text,
    read_shadow_config,
    read_state,
    uptime_text,
    workstreams_text,
)
from holdover.shadow.components import FAULTS


def show(request: PageRequest) -> Response:
    """Show the shadow run, the verdict first."""
    config = request.console.config
    if not config.console.shadow:
        return request.render("shadow.html", problem="", answer=None, state=None)
    try:
        shadow = read_shadow_config(config.base_directory / config.console.shadow)
        answer = check_cutover(shadow, request.console.clock())
    except ShadowConfigError as problem:
        return request.render("shadow.html", problem=str(problem), answer=None, state=None)
    try:
        state = read_state(shadow.state_path)
    except ShadowStateError:
        state = None  # the answer reports this already
    streams = answer.workstreams
    summary = f"{workstreams_text(streams)}; required: {open_boundaries_text(streams)}" if streams else ""
    order = {False: 0, None: 1, True: 2}
    return request.render(
        "shadow.html",
        problem="",
        answer=answer,
        conditions=sorted(answer.conditions, key=lambda condition: order[condition.met]),
        state=state,
        hours=shadow.cutover.hours,
        faults=FAULTS,
        workstreams_summary=summary,
        workstreams=streams,
        uptime=uptime_text(state) if state else "",
        inputs=inputs_text(state) if state else "",
        comparison=comparison_text(state.compared) if state and state.compared else "",
    )


NAV: Final = ("/shadow", "Shadow")
PARTS: Final = (PageRoute(path="/shadow", answer=show),)
