"""Parts of the live adapters without a network: fault drills, sleeps in virtual time, tags of FIX fields."""

from __future__ import annotations

import json
import re
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from holdover.adapters.fix.drill import FaultDrill, FaultSwitch, find_step_begin, make_switched_parts
from holdover.audit import tags as byte_tags
from holdover.desk import Parts
from holdover.desk.faults import FAULTS, UnknownFaultError, parts_with
from holdover.fix.engine import find_dictionary
from holdover.model import fix_tags
from holdover.runtime import Guard

from .orders import BAD, GOOD


class SoundPart:
    """A part with a method, a property and a class attribute."""

    limit = 1

    @property
    def state(self) -> str:
        """Its state."""
        return "sound"

    def apply(self, number: int) -> int:
        """Apply a number."""
        return number + self.limit


class FaultyPart(SoundPart):
    """The same part with all three replaced."""

    limit = 100

    @property
    def state(self) -> str:
        """Its state."""
        return "faulty"

    def apply(self, number: int) -> int:
        """Apply a number twice."""
        return super().apply(number) + number


@pytest.mark.parametrize("fault", FAULTS)
def test_a_switched_part_is_the_faulty_one_only_while_the_switch_is_on(fault: str) -> None:
    """Each replaced method of each seeded fault; the other parts are the desk's own."""
    faulty, sound, switch = parts_with([fault]), Parts(), FaultSwitch(is_on=False)
    switched = make_switched_parts(faulty, switch)
    changed = 0
    for name in Parts.__dataclass_fields__:
        part, faulty_part, sound_part = (getattr(parts, name) for parts in (switched, faulty, sound))
        if faulty_part is sound_part:
            assert part is sound_part
            continue
        assert issubclass(part, faulty_part)
        for member in vars(part).keys() - {"__module__", "__doc__"}:
            if not hasattr(sound_part, member):
                continue  # an attribute of each object; see the test below
            switch.is_on = False
            assert getattr(part, member) == getattr(sound_part, member)
            switch.is_on = True
            assert getattr(part, member) == getattr(faulty_part, member)
            changed += 1
    assert changed


def test_a_switch_turns_a_living_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods, properties and attributes of an object that exists follow the switch, both ways."""
    from holdover.adapters.fix.drill import _make_switched_class

    switch = FaultSwitch(is_on=False)
    part = _make_switched_class(SoundPart, FaultyPart, switch)()
    assert (part.state, part.limit, part.apply(1)) == ("sound", 1, 2)
    switch.is_on = True
    assert (part.state, part.limit, part.apply(1)) == ("faulty", 100, 102)
    part.limit = 5
    assert part.apply(1) == 7
    switch.is_on = False
    assert (part.state, part.apply(1)) == ("sound", 6)


class PartWithAttribute:
    """A part that sets an attribute of its own."""

    is_done: bool

    def __init__(self) -> None:
        self.is_done = False


def test_a_switch_turns_an_attribute_into_a_property() -> None:
    """The value that the object has set stays, and the faulty property reads it."""
    from holdover.adapters.fix.drill import _make_switched_class

    def set_value(part: PartWithAttribute, value: bool) -> None:
        vars(part)["is_done"] = value

    inverted = property(lambda part: not vars(part)["is_done"], set_value)
    faulty = type("FaultyPartWithAttribute", (PartWithAttribute,), {"is_done": inverted})
    switch = FaultSwitch(is_on=False)
    part = _make_switched_class(PartWithAttribute, faulty, switch)()
    assert part.is_done is False
    switch.is_on = True
    assert part.is_done is True
    part.is_done = True
    assert part.is_done is False
    switch.is_on = False
    assert part.is_done is True


def test_a_drill_writes_when_the_step_began_and_when_it_was_frozen(
    make_guard: Callable[..., Guard], tmp_path: Path
) -> None:
    """Of a step of two mutations the first one counts, and the guard itself is not changed."""
    guard = make_guard()
    drill = FaultDrill("resent-fill-booked-again", None, tmp_path)
    drill.attach(types.SimpleNamespace(guard=guard))  # type: ignore[arg-type]
    with guard.step("report"):
        guard.record("orders", GOOD)
        first = guard.recorder.mutations()[-1].time_ns
        guard.record("orders", BAD)
    assert "record" not in vars(guard)
    drill.begin()
    breach, *_, begin = (json.loads(line) for line in drill.path.read_text().splitlines())
    assert (breach["scope"], breach["mutation_ns"]) == ("instrument:IBM", first)
    assert breach["frozen_ns"] > 0
    assert begin["fault"] == "resent-fill-booked-again"
    assert find_step_begin(guard, guard.breaches[0]) == first
    guard.close()


def test_a_drill_of_an_unknown_fault(tmp_path: Path) -> None:
    """The name is checked before the desk is made."""
    with pytest.raises(UnknownFaultError, match="no seeded fault is called 'x'"):
        FaultDrill("x", None, tmp_path)


def test_each_incarnation_has_its_own_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `sleep` that was imported by name is replaced for every incarnation, not for the first one alone."""
    pytest.importorskip("time_machine")
    pytest.importorskip("greenlet")
    from holdover.adapters.freqtrade.fibre import replace_sleep

    module = types.ModuleType("blocking.retry")
    module.__dict__.update(sleep=time.sleep, time=time)
    other = types.ModuleType("blocking.own")
    own_sleep = lambda seconds: None  # noqa: E731
    other.__dict__["sleep"] = own_sleep
    monkeypatch.setitem(sys.modules, "blocking.retry", module)
    monkeypatch.setitem(sys.modules, "blocking.own", other)
    sleeps: list[tuple[int, float]] = []
    for incarnation in (1, 2):
        replace_sleep("blocking", lambda seconds, incarnation=incarnation: sleeps.append((incarnation, seconds)))
        module.sleep(3)
        module.time.sleep(4)
    assert sleeps == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert module.time.time_ns is time.time_ns
    assert other.sleep is own_sleep


def constants_of(module: types.ModuleType) -> dict[str, int]:
    """Return the tags of a module by name."""
    return {name: int(value) for name, value in vars(module).items() if re.fullmatch(r"[A-Z][A-Z0-9_]+", name)}


def test_the_tags_are_those_of_fix() -> None:
    """Every name is the name of the field in the data dictionary, and both modules agree."""
    numbers, byte_numbers = constants_of(fix_tags), constants_of(byte_tags)
    assert all(numbers.get(name, number) == number for name, number in byte_numbers.items())
    assert len(set(numbers.values())) == len(numbers)
    path = find_dictionary()
    if path is None:
        pytest.skip("QuickFIX has no data dictionary here")
    fields = dict(re.findall(r"number='(\d+)' name='(\w+)'", path.read_text().replace('"', "'")))
    for name, number in (numbers | byte_numbers).items():
        if number < 5000 and str(number) in fields:
            assert fields[str(number)].upper() == name.replace("_", ""), (name, number)
