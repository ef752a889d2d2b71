"""Metrics scraped over loopback and read by Prometheus' own parser; traces taken by OpenTelemetry's own exporter."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from holdover.cli import main
from holdover.runtime import Breach, Guard, GuardConfigError, read_config
from holdover.runtime.metrics import MetricsEndpoint, MetricsError, make_guard_reader, measure_cost, parse_address
from holdover.runtime.traces import trace_guard

from ..state.test_watch import journal, wait_until  # noqa: F401 - a fixture
from ..unit.orders import BAD

MakeGuard = Callable[..., Guard]
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]


def scrape(port: int) -> Samples:
    """Every sample by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return samples


class RefusingChannel:
    """A channel that takes nothing."""

    name = "refusing"

    def deliver(self, page: Any) -> None:
        """Raises."""
        raise ConnectionError("not now")


@pytest.fixture
def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_breach_is_seen_from_outside(make_guard: MakeGuard, time_ns: Any) -> None:
    """Every number is the guard's own, before the breach, after it and after the thaw."""
    guard = make_guard(channels=[RefusingChannel()])
    endpoint = MetricsEndpoint("127.0.0.1:0", make_guard_reader(guard))
    before = scrape(endpoint.port)
    info = (("digest", guard.catalogue.digest), ("invariants", str(len(guard.catalogue.invariants))))
    assert before["holdover_catalogue_info"] == {info: 1}
    assert before["holdover_mutations_total"] == {(): 0}
    assert "holdover_breaches_total" not in before
    assert "holdover_guard_seconds_sum" not in before
    guard.record("orders", BAD)
    guard.record("orders", BAD)
    guard.pager.deliver_due()
    time_ns.now_ns += 5_000_000_000
    after = scrape(endpoint.port)
    assert after["holdover_mutations_total"][()] == guard.monitor.mutations > 1
    assert after["holdover_checks_total"][()] == guard.monitor.check_count > 0
    expected = {(("invariant", breach.invariant), ("severity", breach.severity)): 1.0 for breach in guard.breaches}
    assert len(expected) >= 1
    assert after["holdover_breaches_total"] == expected
    assert sum(after["holdover_freezes"].values()) == len(guard.active_freezes)
    assert {labels[0][1] for labels in after["holdover_freezes"]} == {freeze.scope for freeze in guard.active_freezes}
    assert after["holdover_pages_undelivered"][()] == len(guard.store.due_pages(2**63 - 1)) > 0
    assert after["holdover_oldest_page_age_seconds"][()] == 5
    assert after["holdover_heartbeat_age_seconds"][()] == 5
    assert after["holdover_problems"][()] == 0
    for scope in {freeze.scope for freeze in guard.active_freezes}:
        guard.thaw(scope, operator="A", reason="r", evidence="e", forced_by="B")
    assert "holdover_freezes" not in scrape(endpoint.port)
    endpoint.close()
    with pytest.raises(OSError, match="refused"):
        scrape(endpoint.port)


def test_the_cost_is_measured_once_an_entry(make_guard: MakeGuard) -> None:
    """Each entry into the guard is one, whatever it calls inside; another guard is not measured."""
    guard, other_guard = make_guard(), make_guard(name="other")
    ticks = iter(range(0, 10_000, 10))
    cost = measure_cost(guard, lambda: next(ticks))
    guard.record("orders", BAD)
    assert (cost.entries, cost.spent_ns) == (1, 10)
    with guard.step("report"):
        guard.record("orders", BAD)
        guard.record(subsystem="orders", record=BAD)
    assert (cost.entries, cost.spent_ns) == (5, 50)
    other_guard.record("orders", BAD)
    assert cost.entries == 5
    assert other_guard.record.__func__ is Guard.record
    endpoint = MetricsEndpoint("127.0.0.1:0", make_guard_reader(guard, cost))
    samples = scrape(endpoint.port)
    assert (samples["holdover_guard_seconds_count"][()], samples["holdover_guard_seconds_sum"][()]) == (5, 5e-8)
    endpoint.close()


def test_the_configuration_starts_and_stops_it(tmp_path: Path, free_port: int) -> None:
    """[metrics] in the guard's TOML; without it the guard's methods are its class's."""
    config = tmp_path / "guard.toml"
    text = '[guard]\ndirectory = "g"\n[pages]\nlog = false\n'
    config.write_text(text)
    plain = Guard.open(config)
    assert not {"record", "_settle", "_begin", "restore", "close", "thaw"} & plain.__dict__.keys()
    plain.close()
    config.write_text(f'{text}[metrics]\nprometheus = "127.0.0.1:{free_port}"\n')
    guard = Guard.open(config)
    guard.record("orders", BAD)
    samples = scrape(free_port)
    assert sum(samples["holdover_breaches_total"].values()) == len(guard.breaches) > 0
    assert samples["holdover_guard_seconds_count"][()] == 1
    assert samples["holdover_guard_seconds_sum"][()] > 0
    with pytest.raises(MetricsError, match="cannot be served"):
        MetricsEndpoint(f"127.0.0.1:{free_port}", make_guard_reader(guard))
    guard.close()
    with pytest.raises(OSError, match="refused"):
        scrape(free_port)


def test_beyond_loopback_only_when_told(tmp_path: Path) -> None:
    """An address that others reach needs a word of its own; what is no address is a problem of the file."""
    config = tmp_path / "guard.toml"
    for address, reason in (("0.0.0.0:9464", "should be on loopback"), ("9464", "it should be HOST:PORT")):
        config.write_text(f'[guard]\ndirectory = "g"\n[metrics]\nprometheus = "{address}"\n')
        with pytest.raises(GuardConfigError, match=reason):
            read_config(config)
    config.write_text('[guard]\ndirectory = "g"\n[metrics]\nprometheus = "0.0.0.0:9464"\nbeyond_loopback = true\n')
    metrics_config = read_config(config).metrics
    assert metrics_config is not None
    assert parse_address(metrics_config.prometheus, beyond_loopback=metrics_config.beyond_loopback) == ("0.0.0.0", 9464)
    assert parse_address("[::1]:1") == ("::1", 1)
    with pytest.raises(MetricsError):
        parse_address("example.com:1")


def test_a_watch_is_scraped(
    journal: tuple[Path, list[Breach]],  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The sidecar's numbers, its freezes in the guard's store among them."""
    guard = tmp_path / "acted"
    command = [sys.executable, "-m", "holdover", "watch", str(journal[0]), "--state", str(tmp_path / "state")]
    command += ["--guard", str(guard), "--metrics", "127.0.0.1:0", "--json"]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert watch.stderr is not None
        assert watch.stdout is not None
        port = int(re.findall(rb"metrics at port (\d+)", watch.stderr.readline())[0])
        breaches = [json.loads(watch.stdout.readline()) for _ in journal[1]]
        mutations = journal[0].read_bytes().count(b'"record"')
        wait_until(lambda: scrape(port)["holdover_mutations_total"][()] >= mutations)
        wait_until(lambda: sum(scrape(port).get("holdover_freezes", {}).values()) == len(breaches))
        samples = scrape(port)
    finally:
        watch.kill()
        watch.wait()
    assert samples["holdover_breaches_total"] == {
        (("invariant", breach["invariant"]), ("severity", breach["severity"])): 1 for breach in breaches
    }
    assert samples["holdover_pages_undelivered"][()] == len(breaches)
    assert (samples["holdover_acts_undone"][()], samples["holdover_messages_lost"][()]) == (0, 0)
    assert samples["holdover_heartbeat_age_seconds"][()] >= 0
    assert main(["watch", str(journal[0]), "--once", "--metrics", "0.0.0.0:0"]) == 2
    assert "should be on loopback" in capsys.readouterr().err


@pytest.fixture
def spans() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    """A provider of its own, not the global one."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


def test_breach_freeze_thaw_and_page_are_events(
    make_guard: MakeGuard, spans: tuple[TracerProvider, InMemorySpanExporter], tmp_path: Path
) -> None:
    """In the span that did it where there is one, else in one of their own; with who, what, where and why."""
    from holdover.runtime import FileChannel

    provider, exporter = spans
    guard = make_guard(channels=[FileChannel(tmp_path / "pages.jsonl"), RefusingChannel()])
    breaches: list[Breach] = []
    guard.evidence.on_breach = breaches.append
    trace_guard(guard, provider)
    with provider.get_tracer("desk").start_as_current_span("execution-report"):
        guard.record("orders", BAD)
    (span,) = exporter.get_finished_spans()
    events = [(event.name, dict(event.attributes or {})) for event in span.events]
    assert [name for name, _ in events].count("holdover.breach") == len(guard.breaches) > 0
    assert [name for name, _ in events].count("holdover.freeze") == len(guard.active_freezes) > 0
    breach, attributes = guard.breaches[0], events[0][1]
    assert attributes["holdover.invariant"] == breach.invariant
    assert attributes["holdover.scope"] == breach.scope
    assert attributes["holdover.explanation"] == breach.explanation
    assert breaches == guard.breaches
    exporter.clear()
    guard.pager.deliver_due()
    guard.freeze("system", operator="A", reason="look")
    guard.thaw("system", operator="A", reason="looked", evidence="the log")
    guard_spans = [
        (finished_span.name, dict(finished_span.attributes or {})) for finished_span in exporter.get_finished_spans()
    ]
    pages = [attributes for name, attributes in guard_spans if name == "holdover.page"]
    assert len(pages) == 2 * len(guard.store.all_pages())
    assert {attributes["holdover.channel"]: attributes.get("holdover.problem") for attributes in pages} == {
        "file:pages.jsonl": None,
        "refusing": "ConnectionError: not now",
    }
    assert guard_spans[-2] == (
        "holdover.freeze",
        {"holdover.scope": "system", "holdover.by": "by hand: A", "holdover.allows": ("cancel", "query")},
    )
    assert guard_spans[-1][0] == "holdover.thaw"
    assert guard_spans[-1][1]["holdover.evidence"] == "the log"
    assert guard_spans[-1][1]["holdover.freezes"] == 1
