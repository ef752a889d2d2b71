"""`holdover snapshot`: take, list, show, diff, restore."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdover.catalogue import Catalogue
from holdover.harness.schedule import DEFAULT, perform
from holdover.harness.session import Session
from holdover.harness.snapshot import About, Snapshot, SnapshotStore, difference, take
from holdover.harness.subject import factory_named
from holdover.recording import RecordingStore, bundled

if TYPE_CHECKING:
    from holdover.adapters.process.config import ProcessConfig
    from holdover.adapters.process.place import Places


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("snapshot", help="the full state: take, list, show, diff, restore")
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    taken = what.add_parser("take", help="run one recorded day and take its end-of-day state")
    taken.add_argument("--subject", default="desk")
    taken.add_argument("--recordings", type=Path)
    taken.add_argument("--instrument")
    taken.add_argument("--day")
    taken.add_argument("--redact", action="append", default=[], metavar="FIELD")
    taken.add_argument("--process", type=Path, metavar="FILE", help="the places of a process's state, as they are now")
    taken.add_argument("--work", type=Path, default=Path("out/snapshot"))
    listed = what.add_parser("list", help="what is in a folder of snapshots")
    shown = what.add_parser("show", help="one snapshot's parts")
    shown.add_argument("name")
    differed = what.add_parser("diff", help="what differs between two")
    differed.add_argument("left")
    differed.add_argument("right")
    restored = what.add_parser("restore", help="write the subject's files of a snapshot into a folder")
    restored.add_argument("name")
    restored.add_argument("--into", type=Path, metavar="DIR", help="a new folder for its files")
    restored.add_argument("--process", type=Path, metavar="FILE", help="or where the places of a process's state are")
    for each in (taken, listed, shown, differed, restored):
        each.add_argument("--store", type=Path, default=Path("out/snapshots"))
        each.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 done (for diff: the same), 1 for diff when they differ."""
    act = {"take": _take, "list": _list, "show": _show, "diff": _diff, "restore": _restore}[arguments.what]
    return act(arguments, SnapshotStore(arguments.store))


def _take(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    if arguments.process is not None:
        return _take_process(arguments, store)
    recordings = RecordingStore(arguments.recordings) if arguments.recordings else bundled()
    symbol = (arguments.instrument or recordings.symbols()[0]).upper()
    day = arguments.day or recordings.days(symbol)[0]
    recordings.get(symbol, day)
    arguments.work.mkdir(parents=True, exist_ok=True)
    session = Session(factory_named(arguments.subject), recordings, [symbol], arguments.work, days=[day])
    try:
        for operation in DEFAULT.every_day:
            perform(session, operation, day=day)
        made = take(session, redact=arguments.redact, subject=arguments.subject)
    finally:
        session.close()
    return _saved(made, arguments, store)


def _saved(made: Snapshot, arguments: argparse.Namespace, store: SnapshotStore) -> int:
    path = made.save(store.directory)
    print(json.dumps({"name": made.name, "file": str(path)}) if arguments.json else f"{made!r}\n{path}")
    return 0


def _take_process(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    """Read the places where they are, on a replica or at rest; what is no secret leaves the machine."""
    from holdover.adapters.process.config import read_process

    config = read_process(arguments.process)
    day = _date(arguments.day)
    close_ns = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + 86_400) * 1_000_000_000
    about = About(
        trade_date=day.isoformat(),
        phase="night",
        time_ns=close_ns,
        catalogue=Catalogue.load().digest,
        subject="process",
        symbols=config.symbols,
        redacted=sorted({*config.redact_fields, *arguments.redact}),
    )
    parts = _places(config, arguments.process).capture(config.rules(arguments.redact))
    return _saved(Snapshot(about, parts), arguments, store)


def _date(told: str | None) -> date:
    if told is None:
        raise ValueError("--process needs --day, the day that the state is the end of")
    try:
        return date.fromisoformat(told)
    except ValueError:
        raise ValueError(f"--day {told} should be a date, YYYY-MM-DD") from None


def _places(config: ProcessConfig, path: Path) -> Places:
    from holdover.adapters.process.place import Places

    here = path.resolve().parent
    home = here / config.directory
    return Places(config, home, {"directory": str(home), "here": str(here)}, ours=False)


def _list(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    found = [store.get(path.stem) for path in store.list()]
    if arguments.json:
        print(json.dumps([{"name": one.name, "day": one.about.trade_date, "phase": one.about.phase} for one in found]))
    else:
        for one in found:
            print(one)
        if not found:
            print(f"no snapshot in {store.directory}")
    return 0


def _show(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    one = store.get(arguments.name)
    parts = {name: len(content) for name, content in sorted(one.parts.items())}
    if arguments.json:
        print(json.dumps({"name": one.name, "digest": one.digest, "day": one.about.trade_date, "parts": parts}))
        return 0
    print(one)
    for name, size in parts.items():
        print(f"  {name:<28}{size:>10} bytes")
    if one.about.redacted:
        print(f"  redacted: {', '.join(one.about.redacted)}")
    return 0


def _diff(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    found = difference(store.get(arguments.left), store.get(arguments.right))
    if arguments.json:
        print(json.dumps({"same": not found, "differences": found}))
    else:
        for line in found[:200]:
            print(line)
        print(f"{len(found)} differences" if found else "the same state")
    return 1 if found else 0


def _restore(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    one = store.get(arguments.name)
    if (arguments.into is None) == (arguments.process is None):
        raise ValueError("say either --into DIR or --process FILE, whose places are then put back")
    if arguments.process is not None:
        return _restore_process(one, arguments)
    if arguments.into.exists() and any(arguments.into.iterdir()):
        raise ValueError(f"{arguments.into} is not empty; restore into a new folder")
    written = 0
    for name, content in one.parts.items():
        if name.startswith("subject/"):
            path = arguments.into / name.removeprefix("subject/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            written += 1
    print(json.dumps({"files": written}) if arguments.json else f"{written} files written into {arguments.into}")
    return 0


def _restore_process(one: Snapshot, arguments: argparse.Namespace) -> int:
    from holdover.adapters.process.config import read_process

    config = read_process(arguments.process)
    parts = {name: content for name, content in one.parts.items() if name.startswith("subject/")}
    if one.about.subject != "process":
        raise ValueError(f"snapshot {one.name} is of no process; --into DIR writes its files")
    _places(config, arguments.process).restore(parts)
    places = ", ".join(each.name for each in config.states)
    print(json.dumps({"parts": len(parts)}) if arguments.json else f"{len(parts)} parts put back: {places}")
    return 0
