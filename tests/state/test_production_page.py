"""`docs/production.md`: its order manager goes through restarts, kills and nights; the guard is silent when right."""

from __future__ import annotations

import importlib
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdover.runtime import Guard, read_config
from holdover.runtime.reach import Reach, list_reach

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
DAYS = ("2026-03-02", "2026-03-03", "2026-03-04")
MODULES = ("records", "oms")


class ScriptedVenue:
    """An exchange that accepts every order and fills what the test asks it to fill."""

    def __init__(self, oms: ModuleType) -> None:
        self._oms = oms
        self._orders: dict[str, Any] = {}
        self._trades: list[Any] = []
        self._positions: dict[str, Decimal] = {}

    def place(self, order: Any) -> None:
        """Accept an order."""
        self._orders[order.client_id] = replace(order, status="open", venue_id=f"V{len(self._orders)}")

    def fill(self, client_id: str, quantity: Decimal, day: str) -> Any:
        """Fill a part of an order; return the trade."""
        order = self._orders[client_id]
        order.filled += quantity
        order.status = "filled" if order.filled == order.qty else "partially_filled"
        trade_id = f"T{len(self._trades)}"
        trade = self._oms.OwnTrade(trade_id, client_id, order.symbol, order.side, quantity, order.price, day)
        self._trades.append(trade)
        change = quantity if order.side == "buy" else -quantity
        self._positions[order.symbol] = self._positions.get(order.symbol, Decimal(0)) + change
        return replace(trade)

    def trades(self) -> list[Any]:
        """All trades."""
        return [replace(trade) for trade in self._trades]

    def orders(self) -> list[Any]:
        """All orders."""
        return [replace(order) for order in self._orders.values()]

    def positions(self) -> dict[str, Decimal]:
        """The position of each symbol."""
        return dict(self._positions)


class Program:
    """The program of the page, run again and again on one directory."""

    def __init__(self, directory: Path, oms: ModuleType) -> None:
        self.directory, self.oms = directory, oms
        self.venue = ScriptedVenue(oms)
        self.numbers = iter(range(1_000))
        self.guard: Guard | None = None

    def start(self, day: str, manager_class: type | None = None) -> Any:
        """Open the guard and start the order manager."""
        self.guard = Guard.open(self.directory / "guard.toml")
        self.guard.evidence.is_quiet = True
        kind = manager_class or self.oms.OrderManager
        manager = kind(self.guard, self.venue, self.directory / "store.json", day)
        manager.start()
        return manager

    def trade(self, manager: Any) -> None:
        """One order that is filled in part, and in part without the program's knowledge."""
        client_id, side = f"c{next(self.numbers)}", "buy"
        manager.submit(client_id, "BTC-USD", side, Decimal("0.5"), Decimal("65000.12"))
        manager.on_status(client_id, "open", self.venue._orders[client_id].venue_id)
        manager.on_trade(self.venue.fill(client_id, Decimal("0.2"), manager.day))
        self.venue.fill(client_id, Decimal("0.1"), manager.day)

    def breaches(self) -> list[str]:
        """The explanations of the breaches of the running guard."""
        assert self.guard is not None
        return [breach.explanation for breach in self.guard.breaches]

    def close(self) -> None:
        """Stop in good order."""
        assert self.guard is not None
        self.guard.close()


@pytest.fixture
def oms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's modules, written to files and imported."""
    for language, block in BLOCKS:
        named = re.match(r"# (\w+\.(?:py|toml))", block)
        if named:
            text = block.replace('mode = "observe" ', 'mode = "enforce" ') if language == "toml" else block
            (tmp_path / named[1]).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in MODULES:
        sys.modules.pop(name, None)
    module = importlib.import_module("oms")
    for language, block in BLOCKS:
        if language == "python" and not block.startswith("# "):
            exec(compile(block, "docs/production.md", "exec"), vars(module))
    yield module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def program(tmp_path: Path, oms: ModuleType) -> Iterator[Program]:
    """The program on an empty directory."""
    program = Program(tmp_path, oms)
    yield program
    if program.guard is not None:
        program.close()


@pytest.mark.parametrize("seed", range(4))
def test_ten_restarts_and_two_nights_are_silent(program: Program, seed: int) -> None:
    """Orderly stops and kills in any order, a missed fill before each of them: nothing is breached."""
    rng = random.Random(seed)
    for day in DAYS:
        for _ in range(5):
            manager = program.start(day)
            for _ in range(rng.randrange(3)):
                program.trade(manager)
            assert program.breaches() == []
            if rng.random() < 0.3:
                manager.end_day()
                assert program.breaches() == []
                program.close()
                break
            if rng.random() < 0.5:
                program.close()  # else a kill: the guard is left as it is


def test_the_day_rolls_while_the_program_runs(program: Program, oms: ModuleType) -> None:
    manager = program.start(DAYS[0])
    program.trade(manager)
    oms.roll_day(manager, DAYS[1])  # type: ignore[attr-defined]
    program.trade(manager)
    manager.reconcile()
    assert program.breaches() == []
    assert manager.carried["BTC-USD"] == Decimal("0.2")


def test_a_redeploy_continues(program: Program, oms: ModuleType, tmp_path: Path) -> None:
    manager = program.start(DAYS[0])
    program.trade(manager)
    assert program.guard is not None
    config = tmp_path / "guard.toml"
    config.write_text(config.read_text() + '[[policy]]\ninvariant = "acknowledged-within"\nwithin = "90s"\n')
    manager = oms.redeploy(program.guard, config, program.venue, tmp_path / "store.json", DAYS[0])  # type: ignore[attr-defined]
    program.guard = manager.guard
    program.trade(manager)
    assert program.breaches() == []


def test_a_start_without_memory_is_silent(program: Program, tmp_path: Path) -> None:
    """The guard comes to a program that has traded for days: it has seen none of it, and judges none of it."""
    manager = program.start(DAYS[0])
    program.trade(manager)
    program.close()
    for path in (tmp_path / "guard").iterdir():
        if path.is_file():
            path.unlink()
    manager = program.start(DAYS[1])
    program.trade(manager)
    assert program.breaches() == []


def test_the_example_reaches_what_it_records(program: Program) -> None:
    """Nothing that it records is left unjudged for want of another record."""
    manager = program.start(DAYS[0])
    program.trade(manager)
    manager.reconcile()
    assert program.guard is not None
    active = {entry.name for entry in list_reach(program.guard.monitor) if entry.reach is Reach.ACTIVE}
    assert active >= {
        "acknowledged-within",
        "books-agree-with-venue",
        "cumulative-equals-executions",
        "no-order-before-reconciled",
        "order-matches-request",
        "own-order-was-requested",
        "position-equals-carried-plus-fills",
        "reconciled-within",
    }


# -- defects of the order manager, as teams make them ------------------------------------------------------------------


def forget_filled(manager: Any) -> None:
    """The filled quantity is not loaded."""
    for order in manager.orders.values():
        order.filled = Decimal(0)


def forget_positions(manager: Any) -> None:
    """The positions are not loaded."""
    manager.positions, manager.carried = {}, {}


def forget_trades(manager: Any) -> None:
    """The trade ids are not loaded, so the venue's trades are booked again."""
    manager.trades = {}


def lose_a_fill(manager: Any) -> None:
    """The position was stored before the last fill."""
    manager.positions["BTC-USD"] -= Decimal("0.2")


def lose_the_price(manager: Any) -> None:
    """The limit price of working orders comes back rounded."""
    for order in manager.orders.values():
        order.price = order.price.quantize(Decimal(1))


DEFECTS: dict[Callable[[Any], None], set[str]] = {
    forget_filled: {"cumulative-equals-executions"},
    forget_positions: {"store-agrees-with-memory", "position-equals-carried-plus-fills", "books-agree-with-venue"},
    forget_trades: {"cumulative-equals-executions", "quantities-in-range", "execution-booked-once"},
    lose_a_fill: {"position-equals-carried-plus-fills"},
    lose_the_price: {"restored-order-unchanged"},
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_of_the_restart_is_found(program: Program, oms: ModuleType, defect: Callable[[Any], None]) -> None:
    class Defective(oms.OrderManager):  # type: ignore[misc, name-defined]
        def load(self) -> None:
            super().load()
            defect(self)

    program.trade(program.start(DAYS[0]))
    program.close()
    program.start(DAYS[0], Defective)
    assert program.guard is not None
    assert {breach.invariant for breach in program.guard.breaches} & DEFECTS[defect]


def test_the_configurations_of_the_page_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGERDUTY_KEY", "0" * 32)
    for number, block in enumerate(block for language, block in BLOCKS if language == "toml" and "[guard]" in block):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        assert read_config(path).instruments
