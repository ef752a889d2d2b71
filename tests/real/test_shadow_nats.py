"""A live shadow on a real NATS server: market data and the incumbent's journal, the server killed in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from holdover.harness.subject import factory_named
from holdover.shadow import Live, read_shadow
from holdover.watch.tail import Tail
from tests.beside import Incumbent, S
from tests.waits import waiting

from .test_nats import Server, server  # noqa: F401 - a fixture

wait_until = waiting(60)


class Published:
    """Publishes what an incumbent says, as it says it; how many lines of either it has published."""

    def __init__(self, server: Server, incumbent: Incumbent) -> None:  # noqa: F811
        self.server = server
        self.feed = Tail(incumbent.place / "feed.jsonl")
        self.journal = Tail(incumbent.place / "incumbent" / "journal.jsonl")
        self.lines = {"market": 0, "journal": 0}

    def all(self) -> None:
        """What is new."""
        for subject, tail in (("market", self.feed), ("journal", self.journal)):
            while lines := tail.lines():
                # Now several lines in a message, now one, so that a backlog is longer than what is asked for at once.
                size = 1 + self.lines[subject] % 2 * 9
                messages = [b"".join(lines[at : at + size]) for at in range(0, len(lines), size)]
                self.server.publish(messages, f"{subject}.one")
                self.lines[subject] += len(lines)


class Host:
    """The shadow, its clocks moved by hand."""

    def __init__(self, place: Path) -> None:
        self.place, self.mono, self.wall = place, 10**12, 1_732_700_000 * S
        self.live = self.begin()

    def begin(self) -> Live:
        """Another life."""
        config = read_shadow(self.place / "shadow.toml")
        return Live(config, factory_named("desk"), monotonic=lambda: self.mono, wall=lambda: self.wall)

    def taken(self) -> dict[str, int]:
        """How many items of either kind have been taken or wait."""
        kept = self.live.inputs.day()
        items = [item for batch in self.live.inputs.batches(kept[0]) for item in batch.items] if kept else []
        items += [item for _, item in self.live.inputs.waiting()]
        return {
            "market": sum(item.kind == "m" for item in items),
            "journal": sum(item.kind == "r" for item in items),
        }

    def kill(self) -> None:
        """The shadow is gone; another life begins."""
        for arm in self.live.arms:
            if arm.session is not None:
                arm.session.close()
        for feed in self.live.feeds.values():
            feed.close()
        self.live.inputs.close()
        self.live = self.begin()


@pytest.fixture
def beside(tmp_path: Path, server: Server) -> Iterator[tuple[Incumbent, Published, Host]]:  # noqa: F811
    """An incumbent whose words go over the server, and the candidate's host."""
    server.make("MARKET", ["market.>"])
    server.make("JOURNAL", ["journal.>"])
    incumbent = Incumbent(tmp_path, days=1)
    text = (tmp_path / "shadow.toml").read_text()
    text = text.replace('market = "feed.jsonl"', f"market = {json.dumps(server.url('MARKET'))}")
    text = text.replace('reports = "incumbent/journal.jsonl"', f"reports = {json.dumps(server.url('JOURNAL'))}")
    text = text.replace("[input]", '[input]\nbegin = "start"')
    (tmp_path / "shadow.toml").write_text(text)
    host = Host(tmp_path)
    yield incumbent, Published(server, incumbent), host
    incumbent.close()
    host.live.close()


def test_nothing_is_lost_and_nothing_twice(
    beside: tuple[Incumbent, Published, Host],
    server: Server,  # noqa: F811
) -> None:
    """The server is killed twice, the shadow once while it is away, and a backlog is waiting for both after that."""
    incumbent, published, host = beside

    def catch_up() -> None:
        def caught() -> bool:
            host.live.once()
            return host.taken() == published.lines

        published.all()
        wait_until(caught)

    late = 0
    for number, passed in enumerate(islice(incumbent.steps(incumbent.days[0]), 50)):
        late += passed
        if number in (15, 30):
            server.stop()
            host.live.once()  # there is no server
            if number == 30:
                host.kill()
                host.live.once()
            server.start()
        if number < 18 or number > 47:  # between them the host sleeps
            host.mono += late
            host.wall += late
            late = 0
            catch_up()
    host.mono += S
    host.live.once()
    host.live.compare()
    state = host.live.life.state
    kept = [item for batch in host.live.inputs.batches(incumbent.days[0]) for item in batch.items]
    feed = (incumbent.place / "feed.jsonl").read_bytes().splitlines(keepends=True)
    journal = (incumbent.place / "incumbent" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert [item.data for item in kept if item.kind == "m"] == feed
    assert [item.data for item in kept if item.kind == "r"] == journal
    assert state.market_events == incumbent.seq
    assert {name: told.count for name, told in state.faults.items() if name != "gap"} == {}
    assert "gap" in state.faults
    assert all(
        "cannot be read now" in one.detail or "can be read again" in one.detail for one in state.faults["gap"].last
    )
    assert state.compared is not None
    assert state.compared.orders > 10
    assert state.followed is not None
    # A minute passes in each step here: on a busy machine a stream may give its reports a step later than the other its
    # market, and what the candidate asked in that minute is answered without them. Lost or taken twice is nothing then.
    if not state.followed.alone:
        assert (state.followed.left_out, state.compared.differing) == (0, 0)
