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
from holdover.runtime import BadConfig, Breach, Guard, read_config
from holdover.runtime.metrics import Endpoint, MetricsProblem, guard_reader, measure, parsed
from holdover.runtime.traces import trace

from ..state.test_watch import journal, wait_until  # noqa: F401 - a fixture
from ..unit.orders import BAD

MakeGuard = Callable[..., Guard]
Scraped = dict[str, dict[tuple[tuple[str, str], ...], float]]


def scraped(port: int) -> Scraped:
    """Every sample by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: Scraped = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


class Refusing:
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
    guard = make_guard(channels=[Refusing()])
    endpoint = Endpoint("127.0.0.1:0", guard_reader(guard))
    before = scraped(endpoint.port)
    info = (("digest", guard.catalogue.digest), ("invariants", str(len(guard.catalogue.invariants))))
    assert before["holdover_catalogue_info"] == {info: 1}
    assert before["holdover_mutations_total"] == {(): 0}
    assert "holdover_breaches_total" not in before
    assert "holdover_guard_seconds_sum" not in before
    guard.record("orders", BAD)
    guard.record("orders", BAD)
    guard.pager.deliver_due()
    time_ns.now_ns += 5_000_000_000
    after = scraped(endpoint.port)
    assert after["holdover_mutations_total"][()] == guard.monitor.mutations > 1
    assert after["holdover_checks_total"][()] == guard.monitor.checks > 0
    expected = {(("invariant", one.invariant), ("severity", one.severity)): 1.0 for one in guard.breaches}
    assert len(expected) >= 1
    assert after["holdover_breaches_total"] == expected
    assert sum(after["holdover_freezes"].values()) == len(guard.frozen)
    assert {labels[0][1] for labels in after["holdover_freezes"]} == {one.scope for one in guard.frozen}
    assert after["holdover_pages_undelivered"][()] == len(guard.store.undelivered(2**63 - 1)) > 0
    assert after["holdover_oldest_page_age_seconds"][()] == 5
    assert after["holdover_heartbeat_age_seconds"][()] == 5
    assert after["holdover_problems"][()] == 0
    for scope in {one.scope for one in guard.frozen}:
        guard.thaw(scope, operator="A", reason="r", evidence="e", forced_by="B")
    assert "holdover_freezes" not in scraped(endpoint.port)
    endpoint.close()
    with pytest.raises(OSError, match="refused"):
        scraped(endpoint.port)


def test_the_cost_is_measured_once_an_entry(make_guard: MakeGuard) -> None:
    """Each entry into the guard is one, whatever it calls inside; another guard is not measured."""
    guard, other = make_guard(), make_guard(name="other")
    ticks = iter(range(0, 10_000, 10))
    cost = measure(guard, lambda: next(ticks))
    guard.record("orders", BAD)
    assert (cost.entries, cost.spent_ns) == (1, 10)
    with guard.step("report"):
        guard.record("orders", BAD)
        guard.record(subsystem="orders", record=BAD)
    assert (cost.entries, cost.spent_ns) == (5, 50)
    other.record("orders", BAD)
    assert cost.entries == 5
    assert other.record.__func__ is Guard.record
    endpoint = Endpoint("127.0.0.1:0", guard_reader(guard, cost))
    told = scraped(endpoint.port)
    assert (told["holdover_guard_seconds_count"][()], told["holdover_guard_seconds_sum"][()]) == (5, 5e-8)
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
    told = scraped(free_port)
    assert sum(told["holdover_breaches_total"].values()) == len(guard.breaches) > 0
    assert told["holdover_guard_seconds_count"][()] == 1
    assert told["holdover_guard_seconds_sum"][()] > 0
    with pytest.raises(MetricsProblem, match="cannot be served"):
        Endpoint(f"127.0.0.1:{free_port}", guard_reader(guard))
    guard.close()
    with pytest.raises(OSError, match="refused"):
        scraped(free_port)


def test_beyond_loopback_only_when_told(tmp_path: Path) -> None:
    """An address that others reach needs a word of its own; what is no address is a problem of the file."""
    config = tmp_path / "guard.toml"
    for address, reason in (("0.0.0.0:9464", "should be on loopback"), ("9464", "it should be HOST:PORT")):
        config.write_text(f'[guard]\ndirectory = "g"\n[metrics]\nprometheus = "{address}"\n')
        with pytest.raises(BadConfig, match=reason):
            read_config(config)
    config.write_text('[guard]\ndirectory = "g"\n[metrics]\nprometheus = "0.0.0.0:9464"\nbeyond_loopback = true\n')
    told = read_config(config).metrics
    assert told is not None
    assert parsed(told.prometheus, beyond_loopback=told.beyond_loopback) == ("0.0.0.0", 9464)
    assert parsed("[::1]:1") == ("::1", 1)
    with pytest.raises(MetricsProblem):
        parsed("example.com:1")


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
        wait_until(lambda: scraped(port)["holdover_mutations_total"][()] >= mutations)
        wait_until(lambda: sum(scraped(port).get("holdover_freezes", {}).values()) == len(breaches))
        told = scraped(port)
    finally:
        watch.kill()
        watch.wait()
    assert told["holdover_breaches_total"] == {
        (("invariant", one["invariant"]), ("severity", one["severity"])): 1 for one in breaches
    }
    assert told["holdover_pages_undelivered"][()] == len(breaches)
    assert (told["holdover_acts_undone"][()], told["holdover_messages_lost"][()]) == (0, 0)
    assert told["holdover_heartbeat_age_seconds"][()] >= 0
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
    guard = make_guard(channels=[FileChannel(tmp_path / "pages.jsonl"), Refusing()])
    seen: list[Breach] = []
    guard.on_breach = seen.append
    trace(guard, provider)
    with provider.get_tracer("desk").start_as_current_span("execution-report"):
        guard.record("orders", BAD)
    (span,) = exporter.get_finished_spans()
    found = [(one.name, dict(one.attributes or {})) for one in span.events]
    assert [name for name, _ in found].count("holdover.breach") == len(guard.breaches) > 0
    assert [name for name, _ in found].count("holdover.freeze") == len(guard.frozen) > 0
    breach, told = guard.breaches[0], found[0][1]
    assert told["holdover.invariant"] == breach.invariant
    assert told["holdover.scope"] == breach.scope
    assert told["holdover.explanation"] == breach.explanation
    assert seen == guard.breaches
    exporter.clear()
    guard.pager.deliver_due()
    guard.freeze("system", operator="A", reason="look")
    guard.thaw("system", operator="A", reason="looked", evidence="the log")
    own = [(one.name, dict(one.attributes or {})) for one in exporter.get_finished_spans()]
    pages = [told for name, told in own if name == "holdover.page"]
    assert len(pages) == 2 * len(guard.store.outbox())
    assert {one["holdover.channel"]: one.get("holdover.problem") for one in pages} == {
        "file:pages.jsonl": None,
        "refusing": "ConnectionError: not now",
    }
    assert own[-2] == (
        "holdover.freeze",
        {"holdover.scope": "system", "holdover.by": "by hand: A", "holdover.allows": ("cancel", "query")},
    )
    assert own[-1][0] == "holdover.thaw"
    assert own[-1][1]["holdover.evidence"] == "the log"
    assert own[-1][1]["holdover.freezes"] == 1
