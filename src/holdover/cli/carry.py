"""`holdover carry`: runs a process behind FIX for a day from yesterday's state, and again from an empty state."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from tqdm import tqdm

from holdover.catalogue import Catalogue
from holdover.cli.commands import add_verb
from holdover.cli.options import add_catalogue_option, add_json_option, add_out_option, add_recordings_option
from holdover.harness.snapshot import Snapshot, SnapshotInfo, SnapshotStore
from holdover.model.spelling import suggest_spelling
from holdover.recording import Recording, RecordingError, RecordingStore, bundled_store
from holdover.report import carry_text
from holdover.runtime.files import claim_output_directory, write_report

if TYPE_CHECKING:
    from holdover.adapters.process.carry import CarryRunner
    from holdover.adapters.process.config import ProcessConfig
    from holdover.adapters.process.day import DayResult, ProcessOperation


class UnknownStateError(RuntimeError):
    """State that a verdict needs is unknown; the message says what, and who can supply it."""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "carry",
        "holdover carry --from 2024-11-27 --day 2024-11-29 --process process.toml",
        {0: "every invariant holds", 1: "an invariant is breached", 3: "could not tell: a state is unknown"},
        details="The process under test trades the day against the simulated venue over FIX, once from a snapshot of "
        "its state and once from an empty state. Both runs are judged.",
        run=run,
    )
    parser.add_argument(
        "snapshot",
        nargs="?",
        metavar="SNAPSHOT",
        help="the state to start from: a name in --store, or a file; alternatively give --from",
    )
    parser.add_argument(
        "--from", dest="first", metavar="DAY", help="run this day first, from an empty state, and carry its end"
    )
    parser.add_argument("--day", required=True, metavar="DAY", help="the day to compare, YYYY-MM-DD")
    parser.add_argument(
        "--process", type=Path, required=True, metavar="FILE", help="the configuration of the process under test, TOML"
    )
    add_recordings_option(parser)
    _add_run_options(parser)
    add_catalogue_option(parser)
    parser.add_argument(
        "--store",
        type=Path,
        default=Path("out/snapshots"),
        metavar="DIR",
        help="where SNAPSHOT is looked up (default out/snapshots)",
    )
    add_out_option(parser, "out/carry", "runs and snapshots")
    add_json_option(parser)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accelerate",
        type=float,
        metavar="N",
        help="seconds of the day per second; default: of the configuration",
    )
    parser.add_argument(
        "--venue-orders", type=Path, metavar="FILE", help="the orders open at the venue, for a snapshot without them"
    )
    for action, sentence in (
        ("kill", "kill the process, and start it again after FOR seconds (default 0)"),
        ("cut", "cut its connection for FOR seconds (default 5)"),
        ("stall", "hold back its messages for FOR seconds (default 5), in both directions or in one"),
    ):
        direction_hint = "[:in|out]" if action == "stall" else ""
        parser.add_argument(
            f"--{action}-at",
            action="append",
            default=[],
            metavar=f"SECONDS[:FOR{direction_hint}]",
            help=f"SECONDS after the open, {sentence}; may be repeated",
        )
    parser.add_argument(
        "--arm", choices=("both", "carried", "control"), default="both", help="which runs to make (default both)"
    )
    parser.add_argument(
        "--twice", action="store_true", help="run the control twice, to show the differences that timing alone makes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the requested arms; returns 0 holds, 1 breach, 3 undecided."""
    from holdover.adapters.process.carry import CARRIED, CONTROL, REPEAT, CarryRunner, to_json
    from holdover.adapters.process.config import read_process_config
    from holdover.adapters.process.day import DayStart

    if (arguments.snapshot is None) == (arguments.first is None):
        raise ValueError("give either SNAPSHOT, or --from DAY to make one")
    config = read_process_config(arguments.process)
    if arguments.accelerate is not None:
        if not 0 < arguments.accelerate <= 100_000:
            raise ValueError(f"--accelerate {arguments.accelerate:g} should be above 0 and at most 100000")
        config = msgspec.structs.replace(
            config, venue=msgspec.structs.replace(config.venue, accelerate=arguments.accelerate)
        )
    store = RecordingStore(arguments.recordings) if arguments.recordings else bundled_store()
    recordings = load_recordings(store, config.venue.symbols, arguments.day)
    before = load_recordings(store, config.venue.symbols, arguments.first) if arguments.first else []
    if before and before[0].meta.trade_date >= recordings[0].meta.trade_date:
        raise ValueError(f"--day {arguments.day} should come after --from {arguments.first}")
    operations = parse_operations(arguments)
    claim_output_directory(arguments.out)
    arms = [CARRIED, CONTROL] if arguments.arm == "both" else [arguments.arm]
    arms += [REPEAT] if arguments.twice and CONTROL in arms else []
    total = (1 if before else 0) + len(arms)
    with _sigterm_as_interrupt(), tqdm(total=total, unit="day", disable=None, file=sys.stderr, leave=False) as bar:

        def progress(description: str) -> None:
            bar.set_description(description)
            bar.update(1)

        carrier = CarryRunner(
            config, arguments.out, Catalogue.load(*arguments.catalogue), operations=operations, progress=progress
        )
        try:
            snapshot = run_first_day(carrier, config, before) if before else load_snapshot(arguments)
            begin = begin_from_snapshot(snapshot, config, arguments, recordings)
        except UnknownStateError as problem:
            print(f"holdover: {problem}", file=sys.stderr)
            return 3
        runs: dict[str, DayResult] = {}
        for arm in arms:
            runs[arm], _ = carrier.run(arm, recordings, begin if arm == CARRIED else DayStart())
    result = to_json(carrier.result(recordings, snapshot.name, runs))
    write_report(arguments.out / "result.json", json.dumps(result, indent=1))
    print(json.dumps(result) if arguments.json else carry_text(result))
    return {"holds": 0, "breach": 1}.get(result["verdict"], 3)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that the process under test, which has its own process group, is ended too."""

    def stopped(*signal_arguments: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stopped)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def load_recordings(store: RecordingStore, symbols: list[str], day: str) -> list[Recording]:
    """Return the recordings of a day. Raises `RecordingError` that lists the available days."""
    for symbol in symbols:
        if day not in store.days(symbol):
            hint = "" if store.days(symbol) else suggest_spelling(symbol, store.symbols())
            hint = hint or f"; available: {', '.join(store.days(symbol)) or 'none'}"
            raise RecordingError(f"no recording of {symbol} on {day} in {store.directory}{hint}")
    return [store.get(symbol, day) for symbol in symbols]


def parse_operations(arguments: argparse.Namespace) -> list[ProcessOperation]:
    """Return the operations that the options name. Raises `ValueError` with every operation that cannot be parsed."""
    from holdover.adapters.process.day import ProcessOperation
    from holdover.adapters.process.wire import DIRECTIONS

    operations, problems = [], []
    for action, default_s in (("kill", 0.0), ("cut", 5.0), ("stall", 5.0)):
        for text in getattr(arguments, f"{action}_at"):
            at, *options = text.split(":")
            try:
                at_s, for_s = float(at), float(options[0]) if options else default_s
                if at_s < 0 or for_s < 0 or len(options) > (2 if action == "stall" else 1):
                    raise ValueError
                if len(options) == 2 and options[1] not in DIRECTIONS:
                    raise ValueError
            except ValueError:
                direction_hint = ", and for one direction :in or :out" if action == "stall" else ""
                problems.append(f"--{action}-at {text} should be SECONDS or SECONDS:FOR, not below 0{direction_hint}")
                continue
            directions = (options[1],) if len(options) == 2 else DIRECTIONS
            operations.append(ProcessOperation(kind=action, at_s=at_s, for_s=for_s, directions=directions))
    if problems:
        raise ValueError("\n".join(problems))
    return operations


def run_first_day(carrier: CarryRunner, config: ProcessConfig, recordings: list[Recording]) -> Snapshot:
    """Run the day before from an empty state, without faults, and return a snapshot of its end.

    Raises `UnknownStateError` when the day did not end normally.
    """
    from holdover.adapters.process.carry import FIRST, snapshot_parts
    from holdover.adapters.process.day import DayStart

    ran, memory = carrier.run(FIRST, recordings, DayStart())
    if ran.problems:
        raise UnknownStateError(
            f"the day {ran.trade_date} did not complete, so there is no state to carry: {ran.problems[0]}"
        )
    snapshot = snapshot_of(config, recordings, snapshot_parts(config, ran, memory), carrier.catalogue.digest)
    snapshot.save(carrier.output_directory / "snapshots")
    return snapshot


def snapshot_of(config: ProcessConfig, recordings: list[Recording], parts: dict[str, bytes], digest: str) -> Snapshot:
    """Return the snapshot of a process after a day."""
    metas = [recording.meta for recording in recordings]
    about = SnapshotInfo(
        trade_date=metas[0].trade_date,
        phase="night",
        time_ns=max(meta.close_ns for meta in metas),
        catalogue=digest,
        subject="process",
        symbols=list(config.venue.symbols),
        redacted=sorted(config.redact.fields),
        simulated=any(meta.simulated for meta in metas),
    )
    return Snapshot(about, parts)


def load_snapshot(arguments: argparse.Namespace) -> Snapshot:
    """Load the requested snapshot."""
    path = Path(arguments.snapshot)
    return Snapshot.open(path) if path.suffix == ".hsnap" else SnapshotStore(arguments.store).find(arguments.snapshot)


def begin_from_snapshot(
    snapshot: Snapshot, config: ProcessConfig, arguments: argparse.Namespace, recordings: list[Recording]
) -> Any:
    """Return the start state of the carried arm.

    Raises `UnknownStateError` when the open orders at the venue are unknown, and `ValueError` for an unsuitable
    snapshot.
    """
    from holdover.adapters.process.carry import NIGHT_PART, day_start_of
    from holdover.adapters.process.seed import read_night_export

    if snapshot.info.subject != "process":
        raise ValueError(
            f"snapshot {snapshot.name} is of the subject {snapshot.info.subject or 'of a session'}; "
            "to make one of a process, run holdover snapshot take --process FILE, or give --from DAY"
        )
    if snapshot.info.trade_date >= arguments.day:
        raise ValueError(f"snapshot {snapshot.name} is of {snapshot.info.trade_date}; --day should come after it")
    begin = day_start_of(snapshot.parts)
    if arguments.venue_orders is not None:
        instruments = [recording.meta.instrument for recording in recordings]
        night = read_night_export(arguments.venue_orders, config, instruments, snapshot.info.trade_date)
        return msgspec.structs.replace(begin, night=night.to_bytes(), memory=b"", eras=[])
    if NIGHT_PART not in snapshot.parts:
        raise UnknownStateError(
            f"snapshot {snapshot.name} was taken without the simulated venue, so the open orders and positions at "
            f"the venue after {snapshot.info.trade_date} are unknown; give them with --venue-orders FILE"
        )
    return begin
