"""A guard's metrics for Prometheus, read at each scrape.

The monitor already counts mutations, checks and breaches, and the store holds freezes and outbox; a scrape
reads them there. Only the guard's cost is measured, and only while `measure_cost` is active: a guard without
metrics is unchanged.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from holdover.runtime.database import StoreError
from holdover.runtime.freeze_store import FreezeStore

if TYPE_CHECKING:
    from holdover.runtime.breach import Breach
    from holdover.runtime.freeze_store import Freeze
    from holdover.runtime.guard import Guard


class MetricsError(ValueError):
    """Metrics cannot be served; the message says why and what would be right."""


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table [metrics]: address for Prometheus, whether to measure the guard's cost and to trace its actions."""

    prometheus: str = ""
    beyond_loopback: bool = False
    cost: bool = True
    otel: bool = False


class Backlog(msgspec.Struct, frozen=True):
    """The number of undelivered pages, and the time of the oldest in ns; 0 when there is none."""

    pages: int
    oldest_ns: int

    def __post_init__(self) -> None:
        if self.pages < 0 or self.oldest_ns < 0:
            raise ValueError(f"a backlog of {self.pages} pages, the oldest from {self.oldest_ns} ns")


class GuardMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of the metrics; times in ns. `cost` is (calls, ns spent in them) if the cost is measured."""

    digest: str
    invariants: int
    mutations: int
    checks: int
    breaches: dict[tuple[str, str], int]
    freezes: dict[str, int]
    backlog: Backlog | None = None
    cost: tuple[int, int] | None = None
    now_ns: int = 0
    beat_ns: int = 0
    lost_messages: int | None = None
    pending_actions: int | None = None
    problems: int = 0


class MetricsReader(Protocol):
    """Reads the metrics. The scraper calls it in its own thread."""

    def __call__(self) -> GuardMetrics:
        """Return the current metrics."""


class GuardCost:
    """How often a guard was entered and how long it took, in ns, over all threads."""

    __slots__ = ("_lock", "entries", "spent_ns")

    def __init__(self) -> None:
        self.entries = 0
        self.spent_ns = 0
        self._lock = threading.Lock()

    def add(self, spent_ns: int) -> None:
        """Add one entry. Raises `ValueError` for a negative time."""
        if spent_ns < 0:
            raise ValueError(f"the guard took {spent_ns} ns, should be from 0 on")
        with self._lock:
            self.entries += 1
            self.spent_ns += spent_ns


def measure_cost(guard: Guard, clock: Callable[[], int] = time.perf_counter_ns) -> GuardCost:
    """Measure the time spent in this guard's `record` and in settling its steps, from now on.

    Wraps the methods of this guard only; other guards and the class stay unchanged.
    """
    cost = GuardCost()
    depth = threading.local()

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*args: Any, **kwargs: Any) -> Any:
            if getattr(depth, "inside", False):
                return method(*args, **kwargs)
            depth.inside = True
            began = clock()
            try:
                return method(*args, **kwargs)
            finally:
                depth.inside = False
                cost.add(clock() - began)

        return timing

    for owner, name in ((guard, "record"), (guard, "restore"), (guard.steps, "begin"), (guard.steps, "settle")):
        setattr(owner, name, timed(getattr(owner, name)))
    return cost


def make_guard_reader(guard: Guard, cost: GuardCost | None = None) -> MetricsReader:
    """Return a reader of a guard's metrics. It holds the guard's lock only while it lists the freezes."""

    def read() -> GuardMetrics:
        monitor, rules = guard.monitor, guard.evidence.rules
        problems = 1 if guard.freezes.problem else 0
        backlog = None
        with guard.steps.lock:
            frozen = guard.active_freezes
        try:
            backlog = read_backlog(guard.store)
        except StoreError:
            problems += 1
        return GuardMetrics(
            digest=guard.catalogue.digest,
            invariants=len(guard.catalogue.invariants),
            mutations=monitor.mutations,
            checks=monitor.check_count,
            breaches=count_by_invariant(list(guard.breaches)),
            freezes={rules.redact_scope(scope): count for scope, count in count_by_scope(frozen).items()},
            backlog=backlog,
            cost=None if cost is None else (cost.entries, cost.spent_ns),
            now_ns=guard.clock(),
            beat_ns=monitor.now_ns,
            problems=problems,
        )

    return read


def count_by_invariant(breaches: Iterable[Breach]) -> dict[tuple[str, str], int]:
    """Count breaches by (invariant, severity)."""
    return dict(Counter((breach.invariant, breach.severity) for breach in breaches))


def count_by_scope(freezes: Iterable[Freeze]) -> dict[str, int]:
    """Count freezes by scope."""
    return dict(Counter(freeze.scope for freeze in freezes))


def read_backlog(store: FreezeStore) -> Backlog:
    """Read the backlog of a store's outbox. Raises `StoreError`."""
    waiting = store.backlog()
    return Backlog(len(waiting), min((pending.page.time_ns for pending in waiting), default=0))


class MetricsEndpoint:
    """Serves metrics at http://HOST:PORT/metrics until `close`. `port` is the bound port if the address names port 0.

    Raises `MetricsError` when the address cannot be used.
    """

    def __init__(self, address: str, read: MetricsReader, *, beyond_loopback: bool = False) -> None:
        host, port = parse_address(address, beyond_loopback=beyond_loopback)
        try:
            import prometheus_client
        except ImportError as problem:
            raise MetricsError("metrics need prometheus_client: pip install 'holdover[metrics]'") from problem
        registry = prometheus_client.CollectorRegistry(auto_describe=False)
        registry.register(_make_collector(read))
        try:
            self._server, self._thread = prometheus_client.start_http_server(port, host, registry)
        except OSError as problem:
            raise MetricsError(f"metrics cannot be served at {address}: {problem.strerror or problem}") from problem
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)


def attach_metrics(guard: Guard, config: MetricsConfig) -> MetricsEndpoint | None:
    """Serve and trace a guard as configured, until the guard is closed. Raises `MetricsError`."""
    if config.otel:
        from holdover.runtime.traces import trace_guard

        trace_guard(guard)
    if not config.prometheus:
        return None
    cost = measure_cost(guard) if config.cost else None
    endpoint = MetricsEndpoint(
        config.prometheus, make_guard_reader(guard, cost), beyond_loopback=config.beyond_loopback
    )
    close = guard.close

    def closing() -> None:
        endpoint.close()
        close()

    guard.close = closing  # type: ignore[method-assign]
    return endpoint


def parse_address(address: str, *, beyond_loopback: bool = False) -> tuple[str, int]:
    """Return (host, port) of HOST:PORT.

    Raises `MetricsError` when it is malformed, or not on loopback and `beyond_loopback` is False.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise MetricsError(f"metrics at {address!r}: it should be HOST:PORT, as 127.0.0.1:9464")
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback and not beyond_loopback:
        raise MetricsError(
            f"metrics at {address}: anybody who reaches that address could read them; it should be on loopback, or "
            f"beyond_loopback must be said"
        )
    return host, int(port)


def _make_collector(read: MetricsReader) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, SummaryMetricFamily

    class GuardMetricsCollector:
        def collect(self) -> Iterable[Any]:
            metrics = read()
            info = {"digest": metrics.digest, "invariants": str(metrics.invariants)}
            yield InfoMetricFamily("holdover_catalogue", "The catalogue that is judged by.", info)
            yield CounterMetricFamily("holdover_mutations", "Mutations judged.", metrics.mutations)
            yield CounterMetricFamily("holdover_checks", "Predicates evaluated.", metrics.checks)
            breach_counter = CounterMetricFamily(
                "holdover_breaches", "Breaches found.", labels=("invariant", "severity")
            )
            for labels, count in sorted(metrics.breaches.items()):
                breach_counter.add_metric(labels, count)
            yield breach_counter
            frozen = GaugeMetricFamily("holdover_freezes", "Freezes in force.", labels=("scope",))
            for scope, count in sorted(metrics.freezes.items()):
                frozen.add_metric((scope,), count)
            yield frozen
            if metrics.backlog is not None:
                age = (metrics.now_ns - metrics.backlog.oldest_ns) / 1e9 if metrics.backlog.pages else 0.0
                yield GaugeMetricFamily("holdover_pages_undelivered", "Pages not taken yet.", metrics.backlog.pages)
                yield GaugeMetricFamily("holdover_oldest_page_age_seconds", "Age of the oldest of them.", age)
            if metrics.cost is not None:
                entries, spent_ns = metrics.cost
                about = "Time spent inside the guard."
                yield SummaryMetricFamily("holdover_guard_seconds", about, entries, spent_ns / 1e9)
            if metrics.beat_ns:
                age = (metrics.now_ns - metrics.beat_ns) / 1e9
                yield GaugeMetricFamily("holdover_heartbeat_age_seconds", "Time since the monitor last acted.", age)
            if metrics.lost_messages is not None:
                yield GaugeMetricFamily("holdover_messages_lost", "Messages lost unjudged.", metrics.lost_messages)
            if metrics.pending_actions is not None:
                yield GaugeMetricFamily(
                    "holdover_acts_undone", "Acts that no hook has taken yet.", metrics.pending_actions
                )
            yield GaugeMetricFamily("holdover_problems", "What the guard could not do or read.", metrics.problems)

    return GuardMetricsCollector()
