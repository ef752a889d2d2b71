"""A fault drill of the live desk: a seeded fault in a desk that trades, and how long the guard took to freeze it.

The daemon knows nothing of drills. A drill gives it other classes of its parts, whose faulty methods do what the
sound ones do until a switch is turned, and looks at the guard's flight recorder when there is a breach.
"""

from __future__ import annotations

import inspect
import json
import os
import time
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from holdover.adapters.fix.live_desk import LiveDesk
from holdover.desk import Parts
from holdover.desk.faults import parts_with
from holdover.runtime import Breach, Guard

DRILL_FILE: Final = "drill.jsonl"
_TIMER: Final = "drill"


class FaultSwitch:
    """Whether a seeded fault is in effect."""

    def __init__(self, *, is_on: bool) -> None:
        self.is_on = is_on


class FaultDrill:
    """One seeded fault of a live desk, in effect from the start, or some time after the desk has begun to trade.

    It writes to `drill.jsonl` when the fault came into effect, when the step that broke an invariant recorded its
    first mutation, and when the freeze was on disk; times in ns since the epoch. Raises `UnknownFaultError`.

    Args:
        fault: the name of the fault.
        after_s: seconds from the begin of trading; None: the fault is in effect from the start, recovery included.
        directory: the desk's directory.
    """

    def __init__(self, fault: str, after_s: float | None, directory: Path) -> None:
        self.fault, self.after_s = fault, after_s
        self.path = directory / DRILL_FILE
        self.switch = FaultSwitch(is_on=after_s is None)
        self.parts = make_switched_parts(parts_with([fault]), self.switch)

    def attach(self, live: LiveDesk) -> None:
        """Follow a desk that was made of the drill's parts, before it runs."""
        guard = live.guard
        guard.evidence.on_breach = lambda breach: self._write_breach(guard, breach)
        if self.after_s is not None:
            live.on_begun = lambda: self._schedule(live, self.after_s or 0.0)

    def _schedule(self, live: LiveDesk, after_s: float) -> None:
        handler = live.clock.handler

        def on_timer(name: str, args: tuple[Any, ...]) -> None:
            if name == _TIMER:
                self.begin()
            else:
                handler(name, args)

        live.clock.on_timer(on_timer)
        live.clock.call_at(live.clock.now_ns + int(after_s * 1e9 * live.config.accelerate), _TIMER)

    def begin(self) -> None:
        """Put the fault into effect."""
        self.switch.is_on = True
        self._write({"fault": self.fault, "on_ns": time.time_ns()})

    def _write_breach(self, guard: Guard, breach: Breach) -> None:
        frozen_ns = time.time_ns()
        detail = {"invariant": breach.invariant, "scope": breach.scope, "breach": breach.number}
        self._write({**detail, "mutation_ns": find_step_begin(guard, breach), "frozen_ns": frozen_ns})

    def _write(self, entry: dict[str, Any]) -> None:
        with open(self.path, "ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def find_step_begin(guard: Guard, breach: Breach) -> int:
    """Return when the step of a breach recorded its first mutation (ns); of the breach itself when it is the first."""
    times = [mutation.time_ns for mutation in guard.recorder.mutations() if mutation.step == guard.steps.count]
    return min([*times, breach.time_ns])


def make_switched_parts(faulty: Parts, switch: FaultSwitch) -> Parts:
    """Return parts that behave like the faulty ones while the switch is on, and like the sound ones otherwise."""
    sound = Parts()
    return Parts(
        **{
            field.name: _make_switched_class(getattr(sound, field.name), getattr(faulty, field.name), switch)
            for field in fields(Parts)
        }
    )


def _make_switched_class(sound: type[Any], faulty: type[Any], switch: FaultSwitch) -> type[Any]:
    """Return a subclass of both whose replaced attributes are chosen by the switch at each use."""
    if sound is faulty:
        return sound
    replaced = {name for base in faulty.__mro__[: faulty.__mro__.index(sound)] for name in vars(base)}
    names = sorted(name for name in replaced if not name.startswith("__"))
    members: dict[str, Any] = {}
    for name in names:
        member = inspect.getattr_static(faulty, name)
        if hasattr(sound, name):
            members[name] = _SwitchedMember(name, sound, faulty, switch)
        elif inspect.isdatadescriptor(member):
            members[name] = _SwitchedProperty(name, member, switch)
    return type(f"Switched{sound.__name__}", (faulty,), members)


class _SwitchedMember:
    """A method or attribute of a class, taken from the sound or the faulty one as the switch is."""

    def __init__(self, name: str, sound: type[Any], faulty: type[Any], switch: FaultSwitch) -> None:
        self._name, self._sound, self._faulty, self._switch = name, sound, faulty, switch

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        source = self._faulty if self._switch.is_on else self._sound
        if instance is None:
            return getattr(source, self._name)
        return getattr(super(_first_below(owner, source), instance), self._name)


class _SwitchedProperty:
    """An attribute of each object, which the faulty class replaces by a property that keeps its value there, too."""

    def __init__(self, name: str, member: Any, switch: FaultSwitch) -> None:
        self._name, self._member, self._switch = name, member, switch

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        if instance is None or self._switch.is_on:
            return self._member.__get__(instance, owner)
        return vars(instance)[self._name]

    def __set__(self, instance: Any, value: Any) -> None:
        if self._switch.is_on:
            self._member.__set__(instance, value)
        else:
            vars(instance)[self._name] = value


def _first_below(owner: type[Any], source: type[Any]) -> type[Any]:
    """Return the class before `source` in the method resolution order, where `super` begins to look."""
    order = owner.__mro__
    return order[order.index(source) - 1]
