"""What a guard knows of itself, as numbers for Prometheus: read when somebody asks, counted nowhere a second time.

The monitor counts mutations, checks and breaches anyway, the store holds the freezes and the outbox: a scrape reads
them there. Only the guard's cost is measured, and only while `measure` is on: nothing in a guard without metrics is
any different.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from holdover.runtime.database import StoreProblem
from holdover.runtime.freezes import FreezeStore

if TYPE_CHECKING:
    from holdover.runtime.breach import Breach
    from holdover.runtime.freezes import Freeze
    from holdover.runtime.guard import Guard


class MetricsProblem(ValueError):
    """Metrics that cannot be served; the message says why and what would be right."""


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table [metrics]: where Prometheus may scrape, whether the guard's cost is measured and its acts traced."""

    prometheus: str = ""
    beyond_loopback: bool = False
    cost: bool = True
    otel: bool = False


class Backlog(msgspec.Struct, frozen=True):
    """The pages that nobody has taken yet, and when the oldest of them was written, ns; 0 when there is none."""

    pages: int
    oldest_ns: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One reading. Times in ns. `cost` is (entries into the guard, ns spent in them) where that is measured."""

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
    lost: int | None = None
    undone: int | None = None
    problems: int = 0


class Read(Protocol):
    """Reads the figures; called by whoever scrapes, in a thread of its own."""

    def __call__(self) -> Figures:
        """The figures now."""


class Cost:
    """How often a guard was entered and how long was spent there, ns, in all threads."""

    __slots__ = ("_lock", "entries", "spent_ns")

    def __init__(self) -> None:
        self.entries = 0
        self.spent_ns = 0
        self._lock = threading.Lock()

    def add(self, spent_ns: int) -> None:
        """One more entry."""
        with self._lock:
            self.entries += 1
            self.spent_ns += spent_ns


def measure(guard: Guard, clock: Callable[[], int] = time.perf_counter_ns) -> Cost:
    """Measure the time spent inside this guard's `record`, and in settling its steps, from now on.

    The methods of this one guard are wrapped; another guard, and its class, stay as they are.
    """
    cost = Cost()
    depth = threading.local()

    def timed(act: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*given: Any, **named: Any) -> Any:
            if getattr(depth, "inside", False):
                return act(*given, **named)
            depth.inside = True
            began = clock()
            try:
                return act(*given, **named)
            finally:
                depth.inside = False
                cost.add(clock() - began)

        return timing

    for name in ("record", "restore", "_begin", "_settle"):
        setattr(guard, name, timed(getattr(guard, name)))
    return cost


def guard_reader(guard: Guard, cost: Cost | None = None) -> Read:
    """Reads a guard; its lock is held for no longer than it takes to list what is frozen."""

    def read() -> Figures:
        monitor = guard.monitor
        problems = 1 if guard.problem else 0
        backlog = None
        with guard._lock:
            frozen = guard.frozen
        try:
            backlog = backlog_of(guard.store)
        except StoreProblem:
            problems += 1
        return Figures(
            digest=guard.catalogue.digest,
            invariants=len(guard.catalogue.invariants),
            mutations=monitor.mutations,
            checks=monitor.checks,
            breaches=by_invariant(list(guard.breaches)),
            freezes=by_scope(frozen),
            backlog=backlog,
            cost=None if cost is None else (cost.entries, cost.spent_ns),
            now_ns=guard.clock(),
            beat_ns=monitor.now_ns,
            problems=problems,
        )

    return read


def by_invariant(breaches: Iterable[Breach]) -> dict[tuple[str, str], int]:
    """How many breaches of each (invariant, severity)."""
    return dict(Counter((one.invariant, one.severity) for one in breaches))


def by_scope(freezes: Iterable[Freeze]) -> dict[str, int]:
    """How many freezes are in force in each scope."""
    return dict(Counter(one.scope for one in freezes))


def backlog_of(store: FreezeStore) -> Backlog:
    """What is in a store's outbox still. Raises `StoreProblem`."""
    waiting = store.backlog()
    return Backlog(len(waiting), min((one.page.time_ns for one in waiting), default=0))


class Endpoint:
    """Serves figures at http://HOST:PORT/metrics until `close`. `port` is the one that was taken for port 0."""

    def __init__(self, address: str, read: Read, *, beyond_loopback: bool = False) -> None:
        host, port = parsed(address, beyond_loopback=beyond_loopback)
        try:
            import prometheus_client
        except ImportError as problem:
            raise MetricsProblem("metrics need prometheus_client: pip install 'holdover[metrics]'") from problem
        registry = prometheus_client.CollectorRegistry(auto_describe=False)
        registry.register(_collector(read))
        try:
            self._server, self._thread = prometheus_client.start_http_server(port, host, registry)
        except OSError as problem:
            raise MetricsProblem(f"metrics cannot be served at {address}: {problem.strerror or problem}") from problem
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)


def attach(guard: Guard, told: MetricsConfig) -> Endpoint | None:
    """Serve and trace a guard as its configuration says, until it is closed. Raises `MetricsProblem`."""
    if told.otel:
        from holdover.runtime.traces import trace

        trace(guard)
    if not told.prometheus:
        return None
    cost = measure(guard) if told.cost else None
    endpoint = Endpoint(told.prometheus, guard_reader(guard, cost), beyond_loopback=told.beyond_loopback)
    close = guard.close

    def closing() -> None:
        endpoint.close()
        close()

    guard.close = closing  # type: ignore[method-assign]
    return endpoint


def parsed(address: str, *, beyond_loopback: bool = False) -> tuple[str, int]:
    """(host, port) of HOST:PORT. Raises `MetricsProblem` for one that is not of this machine only, unless allowed."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise MetricsProblem(f"metrics at {address!r}: it should be HOST:PORT, as 127.0.0.1:9464")
    try:
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside and not beyond_loopback:
        raise MetricsProblem(
            f"metrics at {address}: anybody who reaches that address could read them; it should be on loopback, or "
            f"beyond_loopback must be said"
        )
    return host, int(port)


def _collector(read: Read) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, SummaryMetricFamily

    class Collector:
        def collect(self) -> Iterable[Any]:
            told = read()
            info = {"digest": told.digest, "invariants": str(told.invariants)}
            yield InfoMetricFamily("holdover_catalogue", "The catalogue that is judged by.", info)
            yield CounterMetricFamily("holdover_mutations", "Mutations judged.", told.mutations)
            yield CounterMetricFamily("holdover_checks", "Predicates evaluated.", told.checks)
            found = CounterMetricFamily("holdover_breaches", "Breaches found.", labels=("invariant", "severity"))
            for labels, count in sorted(told.breaches.items()):
                found.add_metric(labels, count)
            yield found
            frozen = GaugeMetricFamily("holdover_freezes", "Freezes in force.", labels=("scope",))
            for scope, count in sorted(told.freezes.items()):
                frozen.add_metric((scope,), count)
            yield frozen
            if told.backlog is not None:
                age = (told.now_ns - told.backlog.oldest_ns) / 1e9 if told.backlog.pages else 0.0
                yield GaugeMetricFamily("holdover_pages_undelivered", "Pages not taken yet.", told.backlog.pages)
                yield GaugeMetricFamily("holdover_oldest_page_age_seconds", "Age of the oldest of them.", age)
            if told.cost is not None:
                entries, spent_ns = told.cost
                about = "Time spent inside the guard."
                yield SummaryMetricFamily("holdover_guard_seconds", about, entries, spent_ns / 1e9)
            if told.beat_ns:
                age = (told.now_ns - told.beat_ns) / 1e9
                yield GaugeMetricFamily("holdover_heartbeat_age_seconds", "Time since the monitor last acted.", age)
            if told.lost is not None:
                yield GaugeMetricFamily("holdover_messages_lost", "Messages lost unjudged.", told.lost)
            if told.undone is not None:
                yield GaugeMetricFamily("holdover_acts_undone", "Acts that no hook has taken yet.", told.undone)
            yield GaugeMetricFamily("holdover_problems", "What the guard could not do or read.", told.problems)

    return Collector()
