"""Makes a bundle of a schedule, and reproduces the breach of a bundle on another machine.

A bundle of a guard in production has no schedule; it is reproduced from its last mutations.
"""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from holdover.catalogue import Catalogue, CatalogueError
from holdover.catalogue.policy import ENFORCE
from holdover.explore.shrink import render_pytest
from holdover.harness.player import Player, play
from holdover.harness.schedule import Schedule, ScheduleError, bind_schedule, decode_schedule
from holdover.harness.snapshot import Snapshot
from holdover.harness.trust import check_trust
from holdover.recording import RecordingStore
from holdover.runtime.bundle import (
    Bundle,
    BundleError,
    collect_guard_parts,
    encode_breach_part,
    make_bundle_info,
    replay,
)
from holdover.runtime.files import renew_output_directory
from holdover.runtime.redaction import RedactionRules
from holdover.runtime.size_limits import find_name_problem, write_parts

_SCHEDULE: Final = "schedule.json"
_RECORDINGS: Final = "recordings/"
_START: Final = "start.hsnap"


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
    *,
    catalogue: Catalogue,
    snapshot: Snapshot | None = None,
    rules: RedactionRules | None = None,
) -> Bundle | None:
    """Play a schedule to its first breach and return a bundle of it; None when nothing is breached.

    It plays in a temporary directory that only its owner may enter and that is gone afterwards, because the files of
    the run are not redacted.
    """
    with tempfile.TemporaryDirectory(prefix="holdover-bundle-") as directory:
        return _play_bundle(
            schedule,
            store,
            Path(directory) / "work",
            catalogue=catalogue,
            snapshot=snapshot,
            rules=rules or RedactionRules.with_defaults(),
        )


def _play_bundle(
    schedule: Schedule,
    store: RecordingStore,
    directory: Path,
    *,
    catalogue: Catalogue,
    snapshot: Snapshot | None,
    rules: RedactionRules,
) -> Bundle | None:
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


def reproduce(
    bundle: Bundle, directory: Path, *, catalogue: Catalogue, is_trusted: bool = False, origin: str = "the bundle"
) -> Reproduction:
    """Reproduce the breach of a bundle; the files of the run are written to a directory.

    The policy of the guard that found the breach is applied to a catalogue without a policy.

    Args:
        bundle: the bundle.
        directory: a new or empty directory, or one of an earlier reproduction, which is emptied.
        catalogue: the catalogue to judge by.
        is_trusted: whether code that the bundle's schedule names may run.
        origin: the name of the bundle's file, for messages.

    Raises:
        BundleError: its schedule cannot be read, it names a file outside its folder, or its policy does not fit.
        OutputDirectoryError: the directory has other content; nothing of it was changed.
        UntrustedCodeError: the schedule names code, and `is_trusted` is false.
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
    check_trust(schedule, origin, is_trusted=is_trusted)
    files = _select_files(bundle, schedule)
    renew_output_directory(directory)
    write_parts(files, directory)
    (directory / _RECORDINGS).mkdir(exist_ok=True)
    store = RecordingStore(directory / _RECORDINGS)
    snapshot = Snapshot.open(directory / _START) if _START in files else None
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


def _select_files(bundle: Bundle, schedule: Schedule) -> dict[str, bytes]:
    """Return the files that playing the bundle needs, by their path in the output directory. Raises `BundleError`."""
    files: dict[str, bytes] = {}
    for name, content in bundle.parts.items():
        if problem := find_name_problem(name):
            raise BundleError(f"the name of a part, {name[:80]!r}, {problem}")
        if name.startswith(_RECORDINGS):
            if PurePosixPath(name).suffix != ".hrec" or len(PurePosixPath(name).parts) != 3:
                raise BundleError(f"{name[:80]!r} should be recordings/SYMBOL/DAY.hrec")
            files[name] = content
    if schedule.start != "fresh":
        if schedule.start not in bundle.parts:
            raise BundleError(f"the schedule starts from {schedule.start[:80]!r}, which the bundle does not hold")
        files[_START] = bundle.parts[schedule.start]
    return files
