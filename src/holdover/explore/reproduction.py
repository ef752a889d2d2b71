"""Makes a bundle of a schedule, and reproduces the breach of a bundle on another machine.

A bundle of a guard in production has no schedule; it is reproduced from its last mutations.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgspec

from holdover.catalogue import Catalogue, CatalogueError
from holdover.catalogue.policy import ENFORCE
from holdover.explore.shrink import render_pytest
from holdover.harness.player import Player, play
from holdover.harness.schedule import Schedule, ScheduleError, bind_schedule, decode_schedule
from holdover.harness.snapshot import Snapshot
from holdover.recording import RecordingStore
from holdover.runtime.bundle import (
    Bundle,
    BundleError,
    collect_guard_parts,
    encode_breach_part,
    make_bundle_info,
    replay,
)
from holdover.runtime.redaction import RedactionRules

_SCHEDULE: Final = "schedule.json"
_RECORDINGS: Final = "recordings/"


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """The result of reproducing a bundle: `mark` is the expected breach, `found_mark` the actual one.

    `test` is a regression test, empty when none can be made. `same_catalogue` is False when the bundle was made
    with another catalogue. `source` says what was replayed.
    """

    mark: str
    found_mark: str
    explanation: str
    source: str
    same_catalogue: bool
    test: str = ""

    @property
    def verdict(self) -> str:
        """Return `breach` for the expected breach, `holds` for none and `unknown` for another one."""
        return "breach" if self.found_mark == self.mark else "holds" if not self.found_mark else "unknown"


def make_bundle(
    schedule: Schedule,
    store: RecordingStore,
    directory: Path,
    *,
    catalogue: Catalogue,
    snapshot: Snapshot | None = None,
    rules: RedactionRules | None = None,
) -> Bundle | None:
    """Play a schedule to its first breach and return a bundle of it; None when nothing is breached."""
    rules = rules or RedactionRules.with_defaults()
    schedule = bind_schedule(schedule, store)
    player = Player(
        schedule, store, directory, catalogue=catalogue, snapshot=snapshot, journal=False, scratch=True, to_breach=True
    )
    try:
        play_result = player.play()
        if not play_result.breaches:
            return None
        breach = play_result.breaches[0]
        parts = {**collect_guard_parts(player.session.guard, rules), **encode_breach_part(breach, rules)}
        info = make_bundle_info(breach, rules, player.session.trade_date, catalogue)
    finally:
        player.close()
    parts[_SCHEDULE] = rules.redact_content(schedule.replace(expect=play_result.mark).encode())
    if snapshot is not None:
        snapshot_path = snapshot.save(directory / "start")
        parts[schedule.start] = snapshot_path.read_bytes()
    for recorded_day in schedule.recordings:
        recording = store.get(recorded_day.symbol, recorded_day.trade_date)
        parts[f"{_RECORDINGS}{recorded_day.symbol}/{recorded_day.trade_date}.hrec"] = recording.path.read_bytes()
    return Bundle(info, parts)


def _apply_bundled_policy(bundle: Bundle, catalogue: Catalogue) -> Catalogue:
    """Return the catalogue under the policy of the guard that found the breach.

    Raises `BundleError` when a policy names an entry that is not in the catalogue.
    """
    if catalogue.policies or catalogue.mode != ENFORCE:
        return catalogue
    try:
        return catalogue.with_policy(bundle.info.policies, bundle.info.mode)
    except CatalogueError as problem:
        raise BundleError(f"the policy of the guard that found the breach does not fit: {problem}") from problem


def reproduce(bundle: Bundle, directory: Path, *, catalogue: Catalogue) -> Reproduction:
    """Reproduce the breach of a bundle in an empty directory.

    The policy of the guard that found the breach is applied to a catalogue without a policy.

    Raises `BundleError` when its schedule cannot be read, it names a recording outside its folder, or its policy does
    not fit the catalogue.
    """
    catalogue = _apply_bundled_policy(bundle, catalogue)
    same_catalogue = catalogue.digest == bundle.info.catalogue
    if _SCHEDULE not in bundle.parts:
        breaches = replay(bundle, catalogue)
        matches = [breach for breach in breaches if breach.mark == bundle.info.mark and breach.key == bundle.info.key]
        first = next(iter(matches or breaches), None)
        return Reproduction(
            mark=bundle.info.mark,
            found_mark=first.mark if first is not None else "",
            explanation=first.explanation if first is not None else "",
            source="its last mutations",
            same_catalogue=same_catalogue,
        )
    try:
        schedule = decode_schedule(bundle.parts[_SCHEDULE], _SCHEDULE)
    except ScheduleError as problem:
        raise BundleError(f"the bundle's schedule cannot be read: {problem}") from problem
    if directory.exists():
        shutil.rmtree(directory)
    for name, content in bundle.parts.items():
        if name.startswith(_RECORDINGS):
            path = directory / name
            if not path.resolve().is_relative_to((directory / _RECORDINGS).resolve()):
                raise BundleError(f"the bundle names a recording outside its folder: {name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    store = RecordingStore(directory / _RECORDINGS)
    snapshot = None
    if schedule.start != "fresh":
        (directory / "start.hsnap").write_bytes(bundle.parts[schedule.start])
        snapshot = Snapshot.open(directory / "start.hsnap")
    play_result = play(
        schedule, directory / "played", store=store, catalogue=catalogue, snapshot=snapshot, to_breach=True
    )
    explanation = play_result.breaches[0].explanation if play_result.breaches else play_result.crash
    return Reproduction(
        mark=bundle.info.mark,
        found_mark=play_result.mark,
        explanation=explanation,
        source="its schedule",
        same_catalogue=same_catalogue,
        test=render_pytest(schedule, bundle.info.explanation) if schedule.start == "fresh" else "",
    )
