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

from holdover.harness.session import Session
from holdover.harness.subject import factory_named
from holdover.recording import bundled
from holdover.shadow import Life, ask, read_shadow, read_state, run_recordings
from holdover.shadow.components import ComponentTable
from holdover.world import Book, Venue

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
        self.life = self.begin()

    def begin(self) -> Life:
        """Another life of the shadow."""
        tables = [ComponentTable(name="feed", deadline_s=400)]
        return Life(read_shadow(self.config), components=tables, monotonic=lambda: self.mono, wall=lambda: self.wall)

    def look(self, *, feed: bool = True) -> None:
        """One look, with the feed heard or not."""
        if feed:
            self.life.components.heard("feed", self.mono)
        self.life.look()

    def on(self, seconds: int, *, feed: bool = True) -> None:
        """Time passes, looked at every tick and at its end."""
        while seconds:
            step = min(TICK, seconds)
            self.pass_by(step)
            self.look(feed=feed)
            seconds -= step

    def pass_by(self, seconds: int) -> None:
        """Time passes, and nobody looks."""
        self.mono += seconds * S
        self.wall += seconds * S

    def kill(self, down: int, *, boot: bool) -> None:
        """The shadow is killed and comes back later, on the same boot or on another."""
        self.pass_by(down)
        if boot:
            self.mono = 7 * S
        self.life = self.begin()


def test_153_healthy_hours_to_the_second(tmp_path: Path) -> None:
    """Kills, a boot, jumps of the host's clock, a silent feed, a host that stood still: exactly what was healthy."""
    (tmp_path / "shadow.toml").write_text(SOAK)
    host = Host(tmp_path / "shadow.toml")
    host.look()
    host.on(50 * 3600)
    host.pass_by(123)  # not looked at before the kill
    host.kill(1800, boot=False)
    host.look()
    host.on(40 * 3600 + 17)
    host.on(7200, feed=False)  # silent: only its first tick lies within the deadline
    host.look()
    host.wall += 3600 * S
    host.on(20 * 3600)
    host.wall -= 9000 * S
    host.kill(60, boot=True)
    host.look()
    host.on(30 * 3600)
    host.pass_by(5000)  # stood still
    host.look()
    host.on(13 * 3600 - 17 - TICK)
    counted = read_state(read_shadow(host.config).state).clock
    assert counted.healthy_ns == 153 * 3600 * S
    assert counted.lives == 3
    assert counted.watched_ns == 153 * 3600 * S + (7200 - TICK) * S
    told = read_state(read_shadow(host.config).state).faults
    assert {name: one.count for name, one in told.items()} == {"silence": 1, "clock-skew": 1}


_TICKER = """
import sys
from pathlib import Path
from holdover.shadow import Life, read_shadow
now = [0]
life = Life(read_shadow(Path(sys.argv[1])), components=[], monotonic=lambda: now[0], wall=lambda: now[0])
while True:
    life.look()
    now[0] += 1_000_000_000
"""


def test_a_kill_at_any_moment_leaves_the_state_whole(tmp_path: Path) -> None:
    """Killed in the middle of writing, again and again: it can be read, and nothing is ever lost or added."""
    config = tmp_path / "shadow.toml"
    config.write_text(SOAK)
    state = read_shadow(config).state
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
        assert counted.lives == kill + 1
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
    store = bundled()
    days = store.days("ACME")[:2]
    config = tmp_path / "shadow.toml"
    incumbent = tmp_path / "incumbent"
    incumbent.mkdir()
    (incumbent / "shadow.toml").write_text(RECORDED.format(faults="").replace("[incumbent]\njournal", "[shadow]\n#"))
    first = run_recordings(
        read_shadow(incumbent / "shadow.toml"), factory_named("desk"), store, ["ACME"], days, hours=10
    )
    hours = sum(m.close_ns - m.open_ns for m in (store.get("ACME", day).meta for day in days))
    assert first.state.clock.healthy_ns == hours
    assert [night["after"] for night in first.state.nights] == days
    assert first.state.nights[0]["open_orders"] > 0
    shutil.copy(incumbent / "shadow" / "lap-0" / "journal.jsonl", tmp_path / "incumbent.jsonl")
    config.write_text(RECORDED.format(faults=f'"{fault}"' if fault else ""))
    run = run_recordings(read_shadow(config), factory_named("desk"), store, ["ACME"], days, hours=10)
    compared = run.state.compared
    assert compared is not None
    answer = ask(read_shadow(config), 0)
    stands = {one.name: one.met for one in answer.conditions}
    if not fault:
        assert (compared.orders, compared.differing) == (first.state.orders, 0)
        assert stands["healthy clock"] is True
        assert stands["no unresolved freeze"] is True
        assert run.state.faults == {}
    else:
        assert run.state.breach_count > 0
        assert compared.unexplained > 0
        assert stands["no unresolved freeze"] is False
        assert stands["healthy clock"] is False
        assert answer.exit_code == 1


class Thin(Venue):
    """A venue in which half of every trade goes to somebody else."""

    def _on_trade(self, book: Book, price: int, size: int) -> None:
        super()._on_trade(book, price, size // 2)


def test_over_recordings_the_incumbent_s_executions_make_the_difference(tmp_path: Path) -> None:
    """The incumbent's venue fills otherwise: alone the candidate comes out otherwise, with its reports not."""
    store = bundled()
    days = store.days("ACME")[:2]
    incumbent = Session(factory_named("desk"), store, ["ACME"], tmp_path / "incumbent", days=days, venue=Thin)
    for day in days:
        incumbent.begin(day)
        incumbent.run()
        incumbent.end()
        incumbent.overnight()
    incumbent.close()
    found = []
    for name, more in (("alone", ""), ("beside", '[input]\nreports = "incumbent/journal.jsonl"\n')):
        told = RECORDED.format(faults="").replace("incumbent.jsonl", "incumbent/journal.jsonl")
        (tmp_path / f"{name}.toml").write_text(f'{more}{told}\n[shadow]\ndirectory = "{name}"\n')
        run = run_recordings(
            read_shadow(tmp_path / f"{name}.toml"), factory_named("desk"), store, ["ACME"], days, hours=10
        )
        assert run.state.compared is not None
        found.append(run.state)
    alone, beside = found
    assert alone.followed is None
    assert alone.compared.differing > 0
    assert beside.followed.reports > beside.orders > 100
    assert beside.compared.orders == beside.orders
    assert beside.compared.differing <= alone.compared.differing / 10
    assert (beside.breach_count, beside.faults.get("breach")) == (0, None)
