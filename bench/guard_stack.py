"""Measure each part of the guard on the desk's mutations, next to other tools that could check them.

    python bench/guard_stack.py [--open 100] [--steps 3000] [--rounds 7]

Each row is a separate desk that takes the same execution reports (execution, order, position, balance,
exposure and parent change in one step) and commits them to its store. The rows take turns in one process; the
medians of the rounds are compared with the unguarded desk.

- `catalogue`: the whole catalogue and nothing else.
- `stack`: the production configuration: catalogue, flight recorder, state coverage counter, a journal write
  at each step, freezes followed with a bound of 500 ms, heartbeat and pager. `permits` is called on an order
  after each report.
- `branch tracing`: the unguarded desk under coverage.py with branches, its C tracer.
- `icontract`, `deal`: the invariants that read one record and its former version, as preconditions of a
  function that is called at each mutation. `guard, same checks` is the guard with only these invariants.

To install the two libraries, run `pip install icontract deal`. Without them their rows are left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import coverage
from guard import DAY, NoGuard, feed, make_desk
from table import print_machine

from holdover.catalogue import Catalogue, Invariant
from holdover.model import MsgType, Request, Side
from holdover.runtime import Guard, GuardSettings
from holdover.runtime.config import GuardConfig, PagesTable
from holdover.runtime.memory import kinds_by_name

SUBSYSTEMS = ("orders", "positions", "ledger", "risk", "gateway", "session", "reconciler", "store", "venue")


class Contracts(NoGuard):
    """A guard of preconditions: `record` calls the checked function of the record's kind with what stood before."""

    def __init__(self, checked: dict[tuple[str, type], Callable[[Any, Any], None]]) -> None:
        self._checked = checked
        self._before: dict[tuple[str, type, str], Any] = {}

    def record(self, subsystem: str, record: Any) -> None:
        """Check, and keep as what stands."""
        kind = type(record)
        mark = (subsystem, kind, record.key)
        checked = self._checked.get((subsystem, kind))
        if checked is not None:
            checked(record, self._before.get(mark))
        self._before[mark] = record


def select_single_record(catalogue: Catalogue) -> Catalogue:
    """Those invariants that a mutation can be judged by alone: the record, and the one that stood before it."""
    invariants = {}
    for name, invariant in catalogue.invariants.items():
        fits = tuple(
            bound
            for bound in invariant.predicates
            if (bound.asserted or invariant.entry.asserted) == "on-mutation"
            and all(read.source in ("anchor", "before") for read in bound.reads)
        )
        if fits:
            invariants[name] = Invariant(invariant.entry, fits)
    return Catalogue(invariants)


def group_checks(catalogue: Catalogue) -> dict[tuple[str, type], list[Callable[[Any, Any], bool]]]:
    """For each kind of record what has to hold of it, as functions of the record and the one before."""
    checks_by_kind: dict[tuple[str, type], list[Callable[[Any, Any], bool]]] = {}
    for invariant in catalogue:
        for bound in invariant.predicates:
            function = bound.function
            if len(bound.reads) == 2:

                def check_with_before(record: Any, before: Any, function: Any = function) -> bool:
                    return function(record, before) is not False

                check = check_with_before
            else:

                def single(record: Any, before: Any, function: Any = function) -> bool:
                    return function(record) is not False

                check = single
            kind, subsystem = bound.anchor.kind, bound.anchor.subsystem
            for record_kind in kinds_by_name().values():
                if kind is not None and issubclass(record_kind, kind):
                    for record_subsystem in [subsystem] if subsystem else SUBSYSTEMS:
                        checks_by_kind.setdefault((record_subsystem, record_kind), []).append(check)
    return checks_by_kind


def make_contracts(catalogue: Catalogue, library: str) -> Contracts:
    """The same as preconditions of icontract or deal."""
    checked: dict[tuple[str, type], Callable[[Any, Any], None]] = {}
    for mark, checks in group_checks(catalogue).items():

        def mutated(record: Any, before: Any) -> None:
            return None

        function: Any = mutated
        for check in checks:
            if library == "icontract":
                import icontract

                function = icontract.require(lambda record, before, check=check: check(record, before))(function)
            else:
                import deal

                function = deal.pre(lambda record, before, check=check: check(record, before))(function)
        checked[mark] = function
    return Contracts(checked)


class PermissionAsker:
    """Every report is followed by the question whether the next order may leave."""

    def __init__(self, desk: Any, guard: Guard) -> None:
        self._on_message = desk.on_message
        self._permits = guard.permits
        self._next = Request(
            msg_type=MsgType.NEW_ORDER_SINGLE,
            cl_ord_id="N",
            root_cl_ord_id="N",
            symbol="X",
            side=Side.BUY,
            order_qty=1,
            account="A",
            strategy="S",
            trade_date=DAY,
        )
        desk.on_message = self.on_message

    def on_message(self, *args: Any) -> None:
        """As the desk's own, and ask."""
        self._on_message(*args)
        assert self._permits(self._next)


def main() -> None:
    """Print the table and write it as JSON beside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=int, default=100)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("out/bench/guard_stack.json"))
    arguments = parser.parse_args()
    whole = Catalogue.load()
    single_record_catalogue = select_single_record(whole)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)

        def plain(name: str, catalogue: Catalogue) -> Guard:
            guard = Guard(directory / name, GuardSettings(axes=(), recorder_size=0), catalogue=catalogue, channels=[])
            guard.evidence.is_quiet = True
            return guard

        stack = Guard.open(GuardConfig.for_directory(directory / "stack", pages=PagesTable(log=False)))
        guards: dict[str, Any] = {
            "unguarded": NoGuard(),
            "catalogue": plain("catalogue", whole),
            "stack": stack,
            "branch tracing": NoGuard(),
            "guard, same checks": plain("same", single_record_catalogue),
        }
        for library in ("icontract", "deal"):
            with suppress(ImportError):
                guards[library] = make_contracts(single_record_catalogue, library)
        desks = {}
        for name, guard in guards.items():
            desks[name] = make_desk(directory / f"desk-{name}", guard, arguments.open)
        PermissionAsker(desks["stack"][0], stack)
        tracer = coverage.Coverage(branch=True, data_file=None, source=["holdover"], config_file=False)
        times: dict[str, list[float]] = {name: [] for name in guards}
        for number in range(arguments.rounds + 1):
            for name, (desk, keys) in desks.items():
                gc.collect()
                if name == "branch tracing":
                    tracer.start()
                times[name].append(feed(desk, keys, number * arguments.steps, arguments.steps))
                if name == "branch tracing":
                    tracer.stop()
        for guard in guards.values():
            assert not getattr(guard, "breaches", []), "the bench itself breaks an invariant"
        for desk, _ in desks.values():
            desk.store.close()
        for guard in guards.values():
            if isinstance(guard, Guard):
                guard.close()
    print_table(arguments, times, whole, single_record_catalogue)


def print_table(
    arguments: argparse.Namespace, times: dict[str, list[float]], whole: Catalogue, single_record_catalogue: Catalogue
) -> None:
    """Print and write."""
    middle = {name: statistics.median(durations[1:]) for name, durations in times.items()}
    checks = {
        "catalogue": len(whole.invariants),
        "stack": len(whole.invariants),
        **dict.fromkeys(("guard, same checks", "icontract", "deal"), len(single_record_catalogue.invariants)),
    }
    print(f"{arguments.open:,} open orders, {arguments.steps:,} reports a round, medians of {arguments.rounds} rounds")
    print(f"{'row':<22}{'invariants':>11}{'us a report':>13}{'to unguarded':>14}")
    for name, duration_us in middle.items():
        print(f"{name:<22}{checks.get(name, 0):>11}{duration_us:>13.1f}{duration_us / middle['unguarded']:>14.2f}")
    catalogue, stack = middle["catalogue"] / middle["unguarded"], middle["stack"] / middle["unguarded"]
    traced = middle["stack"] / middle["branch tracing"]
    for label, ratio, limit in (
        ("catalogue to unguarded", catalogue, 2.5),
        ("stack to unguarded", stack, 5.0),
        ("stack to branch tracing", traced, 1.0),
    ):
        print(f"{label:<26}{ratio:>8.2f}  at most {limit:g}  {'met' if ratio <= limit else 'missed'}")
    rows = [
        {"way": name, "us a report": us, "times unguarded": us / middle["unguarded"]} for name, us in middle.items()
    ]
    machine = print_machine("icontract", "deal", "coverage")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine, "rows": rows, "us": middle}, indent=1))


if __name__ == "__main__":
    main()
