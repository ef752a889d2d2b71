"""A bundle of a schedule, made and played: the breach with all that it needs, shown again on another machine.

A bundle that a guard in production wrote has no schedule; its last mutations are done again instead.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgspec

from holdover.catalogue import Catalogue
from holdover.explore.play import Player, play
from holdover.explore.schedule import Schedule
from holdover.explore.shrink import pytest_function
from holdover.harness.snapshot import Snapshot
from holdover.recording import RecordingStore
from holdover.runtime.bundle import BadBundle, Bundle, about, breach_part, guard_parts, replay
from holdover.runtime.redaction import Rules

_SCHEDULE: Final = "schedule.json"
_RECORDINGS: Final = "recordings/"


class Reproduced(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle came to. `mark` was to be found, `found` was; `test` is the regression test, where one can be made.

    `same_catalogue` is False when the predicates here are not those that the bundle was made under.
    """

    mark: str
    found: str
    explanation: str
    by: str
    same_catalogue: bool
    test: str = ""

    @property
    def verdict(self) -> str:
        """`breach` when the same breach was found, `holds` when none was, `unknown` when it was another."""
        return "breach" if self.found == self.mark else "holds" if not self.found else "unknown"


def bundle_of(
    schedule: Schedule,
    store: RecordingStore,
    place: Path,
    *,
    catalogue: Catalogue,
    snapshot: Snapshot | None = None,
    rules: Rules | None = None,
) -> Bundle | None:
    """Play a schedule to its first breach and bundle it; None when there is no breach."""
    rules = rules or Rules.usual()
    player = Player(
        schedule, store, place, catalogue=catalogue, snapshot=snapshot, journal=False, scratch=True, to_breach=True
    )
    try:
        played = player.play()
        if not played.breaches:
            return None
        breach = played.breaches[0]
        parts = {**guard_parts(player.session.guard, rules), **breach_part(breach, rules)}
        told = about(breach, rules, player.session.trade_date)
    finally:
        player.close()
    parts[_SCHEDULE] = rules.redacted(schedule.replace(expect=played.mark).encode())
    if snapshot is not None:
        kept = snapshot.save(place / "start")
        parts[schedule.start] = kept.read_bytes()
    for one in schedule.recordings:
        recording = store.get(one.symbol, one.trade_date)
        parts[f"{_RECORDINGS}{one.symbol}/{one.trade_date}.hrec"] = recording.path.read_bytes()
    return Bundle(told, parts)


def reproduce(bundle: Bundle, place: Path, *, catalogue: Catalogue) -> Reproduced:
    """Do again what a bundle holds, in a folder of its own. Raises `BadBundle` for one that cannot be done again."""
    same = catalogue.digest == bundle.about.catalogue
    if _SCHEDULE not in bundle.parts:
        found = replay(bundle, catalogue)
        wanted = [one for one in found if one.mark == bundle.about.mark and one.key == bundle.about.key]
        first = next(iter(wanted or found), None)
        return Reproduced(
            mark=bundle.about.mark,
            found=first.mark if first is not None else "",
            explanation=first.explanation if first is not None else "",
            by="its last mutations",
            same_catalogue=same,
        )
    try:
        schedule = msgspec.json.decode(bundle.parts[_SCHEDULE], type=Schedule)
    except msgspec.MsgspecError as problem:
        raise BadBundle(f"the bundle's schedule cannot be read: {problem}") from problem
    if place.exists():
        shutil.rmtree(place)
    for name, content in bundle.parts.items():
        if name.startswith(_RECORDINGS):
            path = place / name
            if not path.resolve().is_relative_to((place / _RECORDINGS).resolve()):
                raise BadBundle(f"the bundle names a recording outside its folder: {name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    store = RecordingStore(place / _RECORDINGS)
    snapshot = None
    if schedule.start != "fresh":
        (place / "start.hsnap").write_bytes(bundle.parts[schedule.start])
        snapshot = Snapshot.open(place / "start.hsnap")
    played = play(schedule, place / "played", store=store, catalogue=catalogue, snapshot=snapshot, to_breach=True)
    explanation = played.breaches[0].explanation if played.breaches else played.crash
    return Reproduced(
        mark=bundle.about.mark,
        found=played.mark,
        explanation=explanation,
        by="its schedule",
        same_catalogue=same,
        test=pytest_function(schedule, bundle.about.explanation) if schedule.start == "fresh" else "",
    )
