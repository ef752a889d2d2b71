"""A shadow over days: what its clock has counted is exact to the second, whatever happens to its host."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from holdover.harness.session import Session, SessionConfig
from holdover.harness.subject import resolve_factory
from holdover.recording import bundled_store
from holdover.shadow import ShadowRun, check_cutover, read_shadow_config, read_state, run_recordings
from holdover.shadow.components import ComponentTable
from holdover.world import TopOfBook, Venue
from holdover.world.matching import MarketMatching

S = 1_000_000_000
TICK = 300

SOAK = """
[candidate]
journal = "journal.jsonl"
guard = "guard"
[clock]
tick_s = 300
deadline_s = 400
resets_on = ["breach"]
[[component]]
name = "feed"
deadline_s = 400
"""


class Host:
    """A host whose clock jumps and which boots anew, and a feed."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.mono, self.wall = 0, 1_700_000_000 * S
        self.shadow_run = self.begin()

    def begin(self) -> ShadowRun:
        """Another life of the shadow."""
        tables = [ComponentTable(name="feed", deadline_s=400)]
        return ShadowRun(
            read_shadow_config(self.config), components=tables, monotonic=lambda: self.mono, wall=lambda: self.wall
        )

    def look(self, *, feed: bool = True) -> None:
        """One look, with the feed heard or not."""
        if feed:
            self.shadow_run.components.mark_alive("feed", self.mono)
        self.shadow_run.check()

    def advance(self, seconds: int, *, feed: bool = True) -> None:
        """Time passes, looked at every tick and at its end."""
        while seconds:
            step = min(TICK, seconds)
            self.elapse(step)
            self.look(feed=feed)
            seconds -= step

    def elapse(self, seconds: int) -> None:
        """Time passes, and nobody looks."""
        self.mono += seconds * S
        self.wall += seconds * S

    def kill(self, down_s: int, *, boot: bool) -> None:
        """The shadow is killed and comes back later, on the same boot or on another."""
        self.elapse(down_s)
        if boot:
            self.mono = 7 * S
        self.shadow_run = self.begin()


def test_153_healthy_hours_to_the_second(tmp_path: Path) -> None:
    """Kills, a boot, jumps of the host's clock, a silent feed, a host that stood still: exactly what was healthy."""
    (tmp_path / "shadow.toml").write_text(SOAK)
    host = Host(tmp_path / "shadow.toml")
    host.look()
    host.advance(50 * 3600)
    host.elapse(123)  # not looked at before the kill
    host.kill(1800, boot=False)
    host.look()
    host.advance(40 * 3600 + 17)
    host.advance(7200, feed=False)  # silent: only its first tick lies within the deadline
    host.look()
    host.wall += 3600 * S
    host.advance(20 * 3600)
    host.wall -= 9000 * S
    host.kill(60, boot=True)
    host.look()
    host.advance(30 * 3600)
    host.elapse(5000)  # stood still
    host.look()
    host.advance(13 * 3600 - 17 - TICK)
    counted = read_state(read_shadow_config(host.config).state_path).clock
    assert counted.healthy_ns == 153 * 3600 * S
    assert counted.run_count == 3
    assert counted.watched_ns == 153 * 3600 * S + (7200 - TICK) * S
    faults = read_state(read_shadow_config(host.config).state_path).faults
    assert {name: fault.count for name, fault in faults.items()} == {"silence": 1, "clock-skew": 1}


_TICKER = """
import sys
from pathlib import Path
from holdover.shadow import ShadowRun, read_shadow_config
now = [0]
config = read_shadow_config(Path(sys.argv[1]))
run = ShadowRun(config, components=[], monotonic=lambda: now[0], wall=lambda: now[0])
while True:
    run.check()
    now[0] += 1_000_000_000
"""


def test_a_kill_at_any_moment_leaves_the_state_whole(tmp_path: Path) -> None:
    """Killed in the middle of writing, again and again: it can be read, and nothing is ever lost or added."""
    config = tmp_path / "shadow.toml"
    config.write_text(SOAK)
    state = read_shadow_config(config).state_path
    before = 0
    for kill in range(3):
        process = subprocess.Popen([sys.executable, "-c", _TICKER, str(config)])
        wait, end = threading.Event(), time.monotonic() + 120
        while not state.exists() or read_state(state).clock.healthy_ns < before + (kill + 2) * S:
            assert time.monotonic() < end
            wait.wait(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        counted = read_state(state).clock
        assert counted.run_count == kill + 1
        assert counted.healthy_ns >= before + (kill + 2) * S
        assert counted.healthy_ns % S == 0
        before = counted.healthy_ns


RECORDED = """
[candidate]
subject = "desk"
faults = [{faults}]
[incumbent]
journal = "incumbent.jsonl"
[clock]
tick_s = 600
deadline_s = 900
[[component]]
name = "venue"
deadline_s = 900
[cutover]
hours = 10
virtual = true
gate = "gate.json"
"""


@pytest.mark.parametrize("fault", ["", "forget-carried-partial"])
def test_the_desk_over_recordings_in_the_shadow_of_itself(tmp_path: Path, fault: str) -> None:
    """Both days' open hours are counted and no order differs; with a fault it breaks, freezes and differs."""
    store = bundled_store()
    days = store.days("ACME")[:2]
    config = tmp_path / "shadow.toml"
    incumbent = tmp_path / "incumbent"
    incumbent.mkdir()
    (incumbent / "shadow.toml").write_text(RECORDED.format(faults="").replace("[incumbent]\njournal", "[shadow]\n#"))
    first = run_recordings(
        read_shadow_config(incumbent / "shadow.toml"), resolve_factory("desk"), store, ["ACME"], days, hours=10
    )
    hours = sum(m.close_ns - m.open_ns for m in (store.get("ACME", day).meta for day in days))
    assert first.state.clock.healthy_ns == hours
    assert [night["after"] for night in first.state.nights] == days
    assert first.state.nights[0]["open_orders"] > 0
    shutil.copy(incumbent / "shadow" / "lap-0" / "journal.jsonl", tmp_path / "incumbent.jsonl")
    config.write_text(RECORDED.format(faults=f'"{fault}"' if fault else ""))
    run = run_recordings(read_shadow_config(config), resolve_factory("desk"), store, ["ACME"], days, hours=10)
    compared = run.state.compared
    assert compared is not None
    answer = check_cutover(read_shadow_config(config), 0)
    is_met_by_name = {condition.name: condition.met for condition in answer.conditions}
    if not fault:
        assert (compared.orders, compared.differing) == (first.state.orders, 0)
        assert is_met_by_name["healthy clock"] is True
        assert is_met_by_name["no unresolved freeze"] is True
        assert run.state.faults == {}
    else:
        assert run.state.breach_count > 0
        assert compared.unexplained > 0
        assert is_met_by_name["no unresolved freeze"] is False
        assert is_met_by_name["healthy clock"] is False
        assert answer.exit_code == 1


class ThinMatching(MarketMatching):
    """Matching in which half of every trade goes to somebody else."""

    def match_trade(self, book: TopOfBook, price: int, size: int) -> None:
        super().match_trade(book, price, size // 2)


class ThinVenue(Venue):
    """A venue in which half of every trade goes to somebody else."""

    matching_type = ThinMatching


def test_over_recordings_the_incumbent_s_executions_make_the_difference(tmp_path: Path) -> None:
    """The incumbent's venue fills otherwise: alone the candidate comes out otherwise, with its reports not."""
    store = bundled_store()
    days = store.days("ACME")[:2]
    incumbent = Session(
        resolve_factory("desk"), store, ["ACME"], tmp_path / "incumbent", SessionConfig(days=days, venue=ThinVenue)
    )
    for day in days:
        incumbent.begin(day)
        incumbent.run()
        incumbent.end()
        incumbent.overnight()
    incumbent.close()
    states = []
    for name, input_table in (("alone", ""), ("beside", '[input]\nreports = "incumbent/journal.jsonl"\n')):
        text = RECORDED.format(faults="").replace("incumbent.jsonl", "incumbent/journal.jsonl")
        (tmp_path / f"{name}.toml").write_text(f'{input_table}{text}\n[shadow]\ndirectory = "{name}"\n')
        run = run_recordings(
            read_shadow_config(tmp_path / f"{name}.toml"), resolve_factory("desk"), store, ["ACME"], days, hours=10
        )
        assert run.state.compared is not None
        states.append(run.state)
    without_reports, with_reports = states
    assert without_reports.followed is None
    assert without_reports.compared.differing > 0
    assert with_reports.followed.reports > with_reports.orders > 100
    assert with_reports.compared.orders == with_reports.orders
    assert with_reports.compared.differing <= without_reports.compared.differing / 10
    assert (with_reports.breach_count, with_reports.faults.get("breach")) == (0, None)
