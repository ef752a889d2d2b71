"""Judges trials: follows the subject after a fault until its verdict is certain.

A trial ends when its state equals that of the undisturbed day (*transparent*), when an invariant or an oracle
fails (*breach*), or at the horizon (*converged*: it agrees with the venue, and the result lists the
differences).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from holdover.explore.walk import KILL_KINDS, Baseline, DayMap, DayWalk, measure_baseline
from holdover.harness.schedule import Operation
from holdover.model import Order, Position

VERDICTS: Final = ("transparent", "converged", "breach", "unknown")
_IDEMPOTENCE_INTERVAL: Final = 20


class TrialResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of one trial: the point, the fault and the verdict.

    `number` is the number of the point; `at` and `n` name it as a schedule does. `oracle` names the check that
    failed: `catalogue`, `convergence`, `idempotence`, `crash`, `rejoin`. `same_as` is the kind whose trial had
    the same disk image. `second` is the second fault of a pair; its day counts from the swept one.
    """

    number: int
    kind: str
    at: str
    n: int
    time_ns: int
    verdict: str
    oracle: str = ""
    invariant: str = ""
    subsystem: str = ""
    explanation: str = ""
    rejoined_ns: int = 0
    is_proved: bool = False
    same_as: str = ""
    second: Operation | None = None

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"a trial of {self.kind} is {self.verdict!r}, should be {', '.join(VERDICTS)}")
        if self.number < 0 or self.n < 0 or self.time_ns < 0:
            raise ValueError(f"a trial of {self.kind} at point {self.number}, {self.at} {self.n}, {self.time_ns} ns")

    @property
    def kind_name(self) -> str:
        """Return the kind; for a pair, both kinds."""
        return self.kind if self.second is None else f"{self.kind}+{self.second.do}"

    def operations(self, day: int) -> list[Operation]:
        """Return the operations of a schedule that repeats the trial."""
        first = Operation(day=day, at=self.at, n=self.n, do=self.kind)  # type: ignore[arg-type]
        return (
            [first] if self.second is None else [first, msgspec.structs.replace(self.second, day=day + self.second.day)]
        )


class TrialJudge:
    """Follows trials of one walk and makes their results. `complete_result`, when set, completes each of them."""

    def __init__(self, walk: DayWalk, day_map: DayMap) -> None:
        self.session, self.spec, self.state_sum = walk.session, walk.spec, walk.state_sum
        self.day_map = day_map
        self.baselines = {baseline.time_ns: baseline for baseline in day_map.baselines}
        self.grid_times_ns = [baseline.time_ns for baseline in day_map.baselines]
        self.complete_result: Callable[[TrialResult, Operation], TrialResult] | None = None

    def follow(self, operation: Operation, number: int) -> TrialResult:
        """Run on until the trial rejoins the undisturbed day, fails, or reaches the horizon."""
        session = self.session
        if session.trade_date != self.spec.day:
            session.play(max(session.hours()[0], session.clock.now_ns) + self.spec.convergence_timeout_ns)
            return self.make_judged_result(
                operation, number, "converged", f"the next day began on what {self.spec.day} left"
            )
        began_ns = session.clock.now_ns
        horizon_ns = began_ns + self.spec.horizon_ns
        quiet = False
        differs = "the day was over before it could rejoin"
        for time_ns in [grid_time_ns for grid_time_ns in self.grid_times_ns if grid_time_ns > began_ns]:
            session.play(time_ns)
            if session.guard.breaches:
                return self.make_judged_result(operation, number, "breach", "")
            base = self.baselines[time_ns]
            if base.state and self.state_sum.compute(session) == base.state:
                return self._check_rejoined(operation, number, time_ns)
            if session.link.is_quiet and not quiet:
                quiet = True
                differs = self._baseline_difference(base)
            if not quiet and time_ns > began_ns + self.spec.convergence_timeout_ns:
                return self.make_result(
                    operation,
                    number,
                    "breach",
                    oracle="convergence",
                    explanation=f"not quiet {self.spec.convergence_timeout_ns // 1_000_000_000} s after it",
                )
            if time_ns >= horizon_ns:
                break
        if _is_sampled(number, operation.do, self.spec.prove_every):
            session.play(self.grid_times_ns[-1])
        return self.make_judged_result(operation, number, "converged", differs)

    def _check_rejoined(self, operation: Operation, number: int, time_ns: int) -> TrialResult:
        session = self.session
        if operation.do in KILL_KINDS and _is_sampled(number, f"{operation.do} again", _IDEMPOTENCE_INTERVAL):
            after = [grid_time_ns for grid_time_ns in self.grid_times_ns if grid_time_ns > time_ns][:1]
            if after:
                session.restart("kill" if operation.do == "kill" else "clean")
                session.play(after[0])
                if self.state_sum.compute(session) != self.baselines[after[0]].state:
                    return self.make_result(
                        operation,
                        number,
                        "breach",
                        oracle="idempotence",
                        explanation="restarted once more, it is not what it was after the first restart",
                    )
        proved = False
        if _is_sampled(number, operation.do, self.spec.prove_every):
            proved = True
            session.play(self.grid_times_ns[-1])
            if session.guard.breaches:
                return self.make_judged_result(operation, number, "breach", "")
            if self.state_sum.compute(session) != (self.day_map.baselines[-1].state or None):
                return self.make_result(
                    operation,
                    number,
                    "unknown",
                    oracle="rejoin",
                    explanation="it had rejoined, and at the close its state is another: the sum misses something",
                )
        return self.make_result(operation, number, "transparent", rejoined_ns=time_ns, is_proved=proved)

    def make_judged_result(self, operation: Operation, number: int, verdict: str, explanation: str) -> TrialResult:
        """Return the result, as a breach when the catalogue or the comparison with the venue fails."""
        session = self.session
        if session.guard.breaches:
            first = session.guard.breaches[0]
            return self.make_result(
                operation,
                number,
                "breach",
                oracle="catalogue",
                invariant=first.invariant,
                subsystem=first.subsystem,
                explanation=first.explanation,
            )
        differs = self._venue_disagreement()
        if differs:
            return self.make_result(operation, number, "breach", oracle="convergence", explanation=differs)
        return self.make_result(operation, number, verdict, explanation=explanation)

    def _venue_disagreement(self) -> str:
        """Describe where subject and venue differ with nothing in flight, without using an invariant; empty when they
        agree.
        """
        session = self.session
        if not session.link.is_quiet:
            return ""
        monitor = session.guard.monitor
        subject_orders = monitor.records(Order, "orders")
        for root, venue_order in monitor.records(Order, "venue").items():
            subject_order = subject_orders.get(root)
            if venue_order.is_open and subject_order is not None:
                if (subject_order.cum_qty, subject_order.leaves_qty) != (venue_order.cum_qty, venue_order.leaves_qty):
                    return f"the venue has {venue_order!r}, the subject {subject_order!r}"
            elif venue_order.is_open:
                return f"the venue works {venue_order!r}, of which the subject knows nothing"
        subject_positions = monitor.records(Position, "positions")
        for key, position in session.venue.positions.items():
            subject_position = subject_positions.get(key)
            if position.net_qty != (subject_position.net_qty if subject_position is not None else 0):
                return f"the venue holds {position!r}, the subject {subject_position!r}"
        return ""

    def _baseline_difference(self, base: Baseline) -> str:
        """Describe how the state differs from that of the undisturbed day."""
        current = measure_baseline(self.session, self.state_sum, base.time_ns)
        differences = [
            f"{abs(value - base_value)} {'more' if value > base_value else 'fewer'} {name}"
            for name, value, base_value in (
                ("orders entered", current.orders, base.orders),
                ("trades", current.trades, base.trades),
                ("orders open", current.open_orders, base.open_orders),
            )
            if value != base_value
        ]
        return ", ".join(differences) or "the same orders and trades, otherwise known or priced"

    def make_crash_result(self, operation: Operation, number: int, problem: BaseException) -> TrialResult:
        """Return the result of a trial in which the subject raised an exception."""
        return self.make_result(
            operation,
            number,
            "breach",
            oracle="crash",
            explanation=f"the subject raised {type(problem).__name__}: {problem}",
        )

    def make_result(self, operation: Operation, number: int, verdict: str, **fields: Any) -> TrialResult:
        """Return the result of a trial, with `fields` of `TrialResult`. Raises `ValueError` for an unknown verdict."""
        if verdict not in VERDICTS:
            raise ValueError(f"no verdict is called {verdict!r}; there are {', '.join(VERDICTS)}")
        result = TrialResult(
            number=number,
            kind=operation.do,
            at=operation.at,
            n=operation.n,
            time_ns=self.session.clock.now_ns,
            verdict=verdict,
            **fields,
        )
        return result if self.complete_result is None else self.complete_result(result, operation)


def _is_sampled(number: int, kind: str, interval: int) -> bool:
    """Return whether a trial is in the sample of one in `interval`, by its point and kind only."""
    mixed = (number * 2_654_435_761 + sum(kind.encode()) * 40_503) & 0xFFFFFFFF
    return interval > 0 and (mixed >> 8) % interval == 0
