"""Breach, freeze, thaw and page as OpenTelemetry events: on the span that is open, or on one of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdover.runtime.metrics import MetricsProblem

if TYPE_CHECKING:
    from holdover.runtime.breach import Breach, Page
    from holdover.runtime.channels import Channel
    from holdover.runtime.guard import Guard


def trace(guard: Guard, provider: Any = None) -> None:
    """From now on say what this guard does to the provider's tracer, the global one's unless one is given.

    A breach and the freeze that it sets are events of the span in which the mutation was recorded, where there is one.
    Raises `MetricsProblem` without opentelemetry-api.
    """
    try:
        from opentelemetry import trace as otel
    except ImportError as problem:
        raise MetricsProblem("traces need opentelemetry-api: pip install 'holdover[otel]'") from problem
    tracer = (provider or otel.get_tracer_provider()).get_tracer("holdover")

    def say(name: str, attributes: dict[str, Any]) -> None:
        span = otel.get_current_span()
        if span.is_recording():
            span.add_event(name, attributes)
            return
        with tracer.start_as_current_span(name, attributes=attributes) as own:
            own.add_event(name, attributes)

    _on_breach(guard, say)
    _on_acts(guard, say)
    for channel in list(guard.pager.channels.values()):
        guard.pager.channels[channel.name] = _Traced(channel, say)


def _on_breach(guard: Guard, say: Any) -> None:
    before = guard.on_breach

    def breached(breach: Breach) -> None:
        told = {
            "holdover.invariant": breach.invariant,
            "holdover.severity": breach.severity,
            "holdover.scope": breach.scope,
            "holdover.subsystem": breach.subsystem,
            "holdover.key": breach.key,
            "holdover.breach": breach.number,
            "holdover.mutation": breach.mutation,
            "holdover.cause": breach.cause,
            "holdover.explanation": breach.explanation,
            "holdover.state": breach.state,
            "holdover.catalogue": breach.digest,
        }
        say("holdover.breach", told)
        for freeze in guard.frozen:
            if breach.number == freeze.breach:
                say("holdover.freeze", _freeze(freeze.scope, freeze.invariant, freeze.allows, freeze.breach))
        if before is not None:
            before(breach)

    guard.on_breach = breached


def _on_acts(guard: Guard, say: Any) -> None:
    freeze, thaw = guard.freeze, guard.thaw

    def freezing(scope: str, **told: Any) -> None:
        freeze(scope, **told)
        allows = told.get("allows", ("cancel", "query"))
        say("holdover.freeze", _freeze(scope, f"by hand: {told['operator']}", allows, 0))

    def thawing(scope: str, **told: Any) -> int:
        done = thaw(scope, **told)
        attributes = {"holdover.scope": scope, "holdover.freezes": done}
        attributes |= {f"holdover.{name}": value for name, value in told.items() if value}
        say("holdover.thaw", attributes)
        return done

    guard.freeze, guard.thaw = freezing, thawing  # type: ignore[method-assign]


def _freeze(scope: str, by: str, allows: Sequence[str], breach: int) -> dict[str, Any]:
    told: dict[str, Any] = {"holdover.scope": scope, "holdover.by": by, "holdover.allows": list(allows)}
    return {**told, "holdover.breach": breach} if breach else told


class _Traced:
    """A channel whose deliveries are said."""

    def __init__(self, channel: Channel, say: Any) -> None:
        self.name = channel.name
        self._channel, self._say = channel, say

    def deliver(self, page: Page) -> None:
        """Hand the page over, and say whether it got there. Raises what the channel raises."""
        told = {"holdover.channel": self.name, "holdover.key": page.dedup_key, "holdover.title": page.title}
        try:
            self._channel.deliver(page)
        except Exception as problem:
            self._say("holdover.page", {**told, "holdover.problem": f"{type(problem).__name__}: {problem}"})
            raise
        self._say("holdover.page", told)
