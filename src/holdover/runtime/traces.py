"""Breach, freeze, thaw and page as OpenTelemetry events, on the current span or on a new one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdover.runtime.metrics import MetricsError

if TYPE_CHECKING:
    from holdover.runtime.breach import Breach, Page
    from holdover.runtime.channels import Channel
    from holdover.runtime.guard import Guard


def trace_guard(guard: Guard, provider: Any = None) -> None:
    """Emit this guard's actions to the provider's tracer from now on; the default is the global provider.

    A breach and its freeze are events of the span that recorded the mutation, if there is one. Raises
    `MetricsError` without opentelemetry-api.
    """
    try:
        from opentelemetry import trace as otel
    except ImportError as problem:
        raise MetricsError("traces need opentelemetry-api: pip install 'holdover[otel]'") from problem
    tracer = (provider or otel.get_tracer_provider()).get_tracer("holdover")

    rules = guard.evidence.rules

    def emit(name: str, attributes: dict[str, Any]) -> None:
        attributes = {
            key: rules.redact_text(value) if isinstance(value, str) else value for key, value in attributes.items()
        }
        span = otel.get_current_span()
        if span.is_recording():
            span.add_event(name, attributes)
            return
        with tracer.start_as_current_span(name, attributes=attributes) as new_span:
            new_span.add_event(name, attributes)

    _trace_breaches(guard, emit)
    _trace_actions(guard, emit)
    for channel in list(guard.pager.channels.values()):
        guard.pager.channels[channel.name] = _TracedChannel(channel, emit)


def _trace_breaches(guard: Guard, emit: Any) -> None:
    before = guard.evidence.on_breach

    def breached(breach: Breach) -> None:
        attributes = {
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
        emit("holdover.breach", attributes)
        for freeze in guard.active_freezes:
            if breach.number == freeze.breach:
                emit(
                    "holdover.freeze", _freeze_attributes(freeze.scope, freeze.invariant, freeze.allows, freeze.breach)
                )
        if before is not None:
            before(breach)

    guard.evidence.on_breach = breached


def _trace_actions(guard: Guard, emit: Any) -> None:
    freeze, thaw = guard.freeze, guard.thaw

    def freezing(scope: str, **options: Any) -> None:
        freeze(scope, **options)
        allows = options.get("allows", ("cancel", "query"))
        emit("holdover.freeze", _freeze_attributes(scope, f"by hand: {options['operator']}", allows, 0))

    def thawing(scope: str, **options: Any) -> int:
        ended_count = thaw(scope, **options)
        attributes = {"holdover.scope": scope, "holdover.freezes": ended_count}
        attributes |= {f"holdover.{name}": value for name, value in options.items() if value}
        emit("holdover.thaw", attributes)
        return ended_count

    guard.freeze, guard.thaw = freezing, thawing  # type: ignore[method-assign]


def _freeze_attributes(scope: str, by: str, allows: Sequence[str], breach: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {"holdover.scope": scope, "holdover.by": by, "holdover.allows": list(allows)}
    return {**attributes, "holdover.breach": breach} if breach else attributes


class _TracedChannel:
    """A channel that emits an event for each delivery."""

    def __init__(self, channel: Channel, emit: Any) -> None:
        self.name = channel.name
        self._channel, self._emit = channel, emit

    def deliver(self, page: Page) -> None:
        """Deliver the page and emit whether it succeeded. Raises what the channel raises."""
        attributes = {"holdover.channel": self.name, "holdover.key": page.dedup_key, "holdover.title": page.title}
        try:
            self._channel.deliver(page)
        except Exception as problem:
            self._emit("holdover.page", {**attributes, "holdover.problem": f"{type(problem).__name__}: {problem}"})
            raise
        self._emit("holdover.page", attributes)
