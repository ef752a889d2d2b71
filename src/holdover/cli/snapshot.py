"""`holdover snapshot`: take, list, show, diff, restore."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdover.catalogue import Catalogue
from holdover.cli.commands import add_command, add_subcommands, add_verb
from holdover.cli.cycle import select_symbols
from holdover.cli.options import (
    add_json_option,
    add_recordings_option,
    add_size_option,
    add_subject_option,
)
from holdover.harness.player import Player
from holdover.harness.schedule import DEFAULT_SCHEDULE, bind_schedule
from holdover.harness.session import Session, SessionConfig
from holdover.harness.snapshot import Snapshot, SnapshotInfo, SnapshotStore, compare_snapshots, take_snapshot
from holdover.harness.subject import resolve_factory
from holdover.recording import RecordingStore, bundled_store
from holdover.runtime.files import sync_directory
from holdover.runtime.size_limits import write_parts

if TYPE_CHECKING:
    from holdover.adapters.process.config import ProcessConfig
    from holdover.adapters.process.state_store import StateStores


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    done = {0: "done"}
    parser = add_verb(
        verbs, "snapshot", "holdover snapshot take --instrument ACME", {0: "done", 1: "diff: the snapshots differ"}
    )
    commands = add_subcommands(parser, "what")
    take_parser = add_command(
        commands,
        "take",
        "Run one recorded day and take a snapshot of its end.",
        "holdover snapshot take --instrument ACME --day 2024-11-27",
        done,
        details="With --process it reads the state of a process instead, which must be stopped or a replica.",
        run=run,
    )
    add_subject_option(take_parser)
    add_recordings_option(take_parser)
    take_parser.add_argument("--instrument", metavar="SYM", help="the instrument; default: the first one recorded")
    take_parser.add_argument("--day", metavar="DAY", help="the day, YYYY-MM-DD; default: the first one recorded")
    take_parser.add_argument(
        "--redact", action="append", default=[], metavar="FIELD", help="a field to remove by name; may be repeated"
    )
    take_parser.add_argument(
        "--process", type=Path, metavar="FILE", help="the configuration of a process, whose state stores are read"
    )
    take_parser.add_argument(
        "--work",
        type=Path,
        default=Path("out/snapshot"),
        metavar="DIR",
        help="the working directory of the run (default out/snapshot)",
    )
    _add_readers(commands, done)
    for name in ("show", "diff", "restore"):
        add_size_option(commands.choices[name])
    for subparser in commands.choices.values():
        subparser.add_argument(
            "--store",
            type=Path,
            default=Path("out/snapshots"),
            metavar="DIR",
            help="the directory of the snapshots (default out/snapshots)",
        )
        add_json_option(subparser)


def _add_readers(commands: Any, done: dict[int, str]) -> None:
    add_command(commands, "list", "List the snapshots of a directory.", "holdover snapshot list", done, run=run)
    name_help = "the snapshot: its name, or the first letters of it"
    shown = add_command(
        commands, "show", "Show the parts of one snapshot.", "holdover snapshot show 3fa9c1", done, run=run
    )
    shown.add_argument("name", metavar="NAME", help=name_help)
    differed = add_command(
        commands,
        "diff",
        "List the differences between two snapshots.",
        "holdover snapshot diff 3fa9c1 77b0e2",
        {0: "the same state", 1: "the snapshots differ"},
        run=run,
    )
    differed.add_argument("left", metavar="LEFT", help=name_help)
    differed.add_argument("right", metavar="RIGHT", help="the snapshot to compare it with")
    restored = add_command(
        commands,
        "restore",
        "Write the subject's files of a snapshot into a directory.",
        "holdover snapshot restore 3fa9c1 --into restored",
        done,
        run=run,
    )
    restored.add_argument("name", metavar="NAME", help=name_help)
    restored.add_argument("--into", type=Path, metavar="DIR", help="a new directory for the files")
    restored.add_argument(
        "--process", type=Path, metavar="FILE", help="the configuration of a process, whose state stores are replaced"
    )


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when done; for diff, 1 when the snapshots differ."""
    action = {"take": _take, "list": _list, "show": _show, "diff": _diff, "restore": _restore}[arguments.what]
    return action(arguments, SnapshotStore(arguments.store))


def _take(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    if arguments.process is not None:
        return _take_process(arguments, store)
    recordings = RecordingStore(arguments.recordings) if arguments.recordings else bundled_store()
    symbol, *others = select_symbols(recordings, arguments.instrument)
    if others:
        raise ValueError(f"--instrument {arguments.instrument}: a snapshot is taken of one instrument at a time")
    day = arguments.day or recordings.days(symbol)[0]
    recordings.get(symbol, day)  # names the available days when there is none
    arguments.work.mkdir(parents=True, exist_ok=True)
    session = Session(
        resolve_factory(arguments.subject), recordings, [symbol], arguments.work, SessionConfig(days=[day])
    )
    try:
        schedule = bind_schedule(DEFAULT_SCHEDULE, recordings, [symbol], [day])
        Player(schedule, recordings, arguments.work, session=session).play_day(0, day)
        snapshot = take_snapshot(session, redact=arguments.redact, subject=arguments.subject)
    finally:
        session.close()
    return _save(snapshot, arguments, store)


def _save(snapshot: Snapshot, arguments: argparse.Namespace, store: SnapshotStore) -> int:
    path = snapshot.save(store.directory)
    print(json.dumps({"name": snapshot.name, "file": str(path)}) if arguments.json else f"{snapshot!r}\n{path}")
    return 0


def _take_process(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    """Read the state stores of a process, on a replica or while it is stopped; secrets are redacted."""
    from holdover.adapters.process.config import read_process_config

    config = read_process_config(arguments.process)
    day = _parse_date(arguments.day)
    close_ns = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + 86_400) * 1_000_000_000
    about = SnapshotInfo(
        trade_date=day.isoformat(),
        phase="night",
        time_ns=close_ns,
        catalogue=Catalogue.load().digest,
        subject="process",
        symbols=config.venue.symbols,
        redacted=sorted({*config.redact.fields, *arguments.redact}),
    )
    parts = _open_state_stores(config, arguments.process).capture(config.redaction_rules(arguments.redact))
    return _save(Snapshot(about, parts), arguments, store)


def _parse_date(text: str | None) -> date:
    if text is None:
        raise ValueError("--process needs --day, the day at whose end the state was taken")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--day {text} should be a date, YYYY-MM-DD") from None


def _open_state_stores(config: ProcessConfig, path: Path) -> StateStores:
    from holdover.adapters.process.state_store import StateStores

    config_directory = path.resolve().parent
    home = config_directory / config.process.directory
    return StateStores(config, home, {"directory": str(home), "here": str(config_directory)}, owns_folder=False)


def _list(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    snapshots = [store.find(path.stem) for path in store.list_paths()]
    if arguments.json:
        print(
            json.dumps(
                [
                    {"name": snapshot.name, "day": snapshot.info.trade_date, "phase": snapshot.info.phase}
                    for snapshot in snapshots
                ]
            )
        )
    else:
        for snapshot in snapshots:
            print(snapshot)
        if not snapshots:
            print(f"no snapshot in {store.directory}")
    return 0


def _show(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    snapshot = store.find(arguments.name, arguments.max_size)
    parts = {name: len(content) for name, content in sorted(snapshot.parts.items())}
    if arguments.json:
        print(
            json.dumps(
                {"name": snapshot.name, "digest": snapshot.digest, "day": snapshot.info.trade_date, "parts": parts}
            )
        )
        return 0
    print(snapshot)
    for name, size in parts.items():
        print(f"  {name:<28}{size:>10} bytes")
    if snapshot.info.redacted:
        print(f"  redacted: {', '.join(snapshot.info.redacted)}")
    return 0


def _diff(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    differences = compare_snapshots(
        store.find(arguments.left, arguments.max_size), store.find(arguments.right, arguments.max_size)
    )
    if arguments.json:
        print(json.dumps({"same": not differences, "differences": differences}))
    else:
        for line in differences[:200]:
            print(line)
        print(f"{len(differences)} differences" if differences else "the same state")
    return 1 if differences else 0


def _restore(arguments: argparse.Namespace, store: SnapshotStore) -> int:
    snapshot = store.find(arguments.name, arguments.max_size)
    if (arguments.into is None) == (arguments.process is None):
        raise ValueError("give either --into DIR or --process FILE, whose state stores are then replaced")
    if arguments.process is not None:
        return _restore_process(snapshot, arguments)
    if arguments.into.is_symlink() or (arguments.into.exists() and any(arguments.into.iterdir())):
        raise ValueError(f"{arguments.into} is not empty, or is a link; restore into a new folder")
    parts = {
        name.removeprefix("subject/"): content
        for name, content in snapshot.parts.items()
        if name.startswith("subject/")
    }
    _write_directory(parts, arguments.into)
    print(json.dumps({"files": len(parts)}) if arguments.json else f"{len(parts)} files written into {arguments.into}")
    return 0


def _write_directory(parts: dict[str, bytes], directory: Path) -> None:
    """Write files into a new or empty directory, whole or not at all."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        write_parts(parts, part)
        os.replace(part, directory)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_directory(directory.parent)


def _restore_process(snapshot: Snapshot, arguments: argparse.Namespace) -> int:
    from holdover.adapters.process.config import read_process_config

    config = read_process_config(arguments.process)
    parts = {name: content for name, content in snapshot.parts.items() if name.startswith("subject/")}
    if snapshot.info.subject != "process":
        raise ValueError(f"snapshot {snapshot.name} is not of a process; to write its files, give --into DIR")
    _open_state_stores(config, arguments.process).restore(parts)
    names = ", ".join(state.name for state in config.state)
    print(json.dumps({"parts": len(parts)}) if arguments.json else f"{len(parts)} parts restored: {names}")
    return 0
