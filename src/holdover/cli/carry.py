"""`holdover carry`: a process behind FIX on a day from yesterday's state, beside the same day from none."""

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
from holdover.harness.snapshot import About, Snapshot, SnapshotStore
from holdover.recording import BadRecording, Recording, RecordingStore, bundled
from holdover.report import carry_text

if TYPE_CHECKING:
    from holdover.adapters.process.carry import Carrier
    from holdover.adapters.process.config import ProcessConfig
    from holdover.adapters.process.day import Operation, Ran


class NotKnown(RuntimeError):
    """Something without which there is no verdict is not known; the message says what, and who may know it."""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "carry",
        help="a process behind FIX: a day from yesterday's state beside the same day from none",
        description="Runs a process under test over the next day from a snapshot of its state, and again from an empty "
        "one, against our venue over FIX, and judges both. 0 holds, 1 breach, 2 bad input, 3 could not tell.",
    )
    parser.add_argument(
        "snapshot", nargs="?", metavar="SNAPSHOT", help="a name in --store, or a file; without it --from"
    )
    parser.add_argument(
        "--from", dest="first", metavar="DAY", help="run this day first, from nothing, and carry its end"
    )
    parser.add_argument("--day", required=True, metavar="NEXT", help="the day that is compared, YYYY-MM-DD")
    parser.add_argument("--process", type=Path, required=True, metavar="FILE", help="the process under test, in TOML")
    parser.add_argument("--recordings", type=Path, metavar="DIR", help="a folder of recordings; without it the bundled")
    parser.add_argument("--accelerate", type=float, metavar="N", help="seconds of the day in a second, for the file's")
    parser.add_argument(
        "--venue-orders", type=Path, metavar="FILE", help="what the venue has open, where no snapshot says"
    )
    for what in ("kill", "cut", "stall"):
        way = "[:in|out]" if what == "stall" else ""
        parser.add_argument(
            f"--{what}-at",
            action="append",
            default=[],
            metavar=f"SECONDS[:FOR{way}]",
            help="after the open; repeatedly",
        )
    parser.add_argument("--arm", choices=("both", "carried", "control"), default="both")
    parser.add_argument("--twice", action="store_true", help="the control again: where it parts from itself by timing")
    parser.add_argument("--catalogue", action="append", default=[], help="a folder or package of further invariants")
    parser.add_argument("--store", type=Path, default=Path("out/snapshots"), metavar="DIR")
    parser.add_argument(
        "--out", type=Path, default=Path("out/carry"), metavar="DIR", help="where runs and snapshots go"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run both arms; 0 holds, 1 breach, 3 could not tell."""
    from holdover.adapters.process.carry import AGAIN, CARRIED, CONTROL, Carrier, as_json
    from holdover.adapters.process.config import read_process
    from holdover.adapters.process.day import Begin

    if (arguments.snapshot is None) == (arguments.first is None):
        raise ValueError("say either a SNAPSHOT or --from DAY, by which one is made")
    config = read_process(arguments.process)
    if arguments.accelerate is not None:
        if not 0 < arguments.accelerate <= 100_000:
            raise ValueError(f"--accelerate {arguments.accelerate:g} should be above 0 and at most 100000")
        config = msgspec.structs.replace(config, accelerate=arguments.accelerate)
    store = RecordingStore(arguments.recordings) if arguments.recordings else bundled()
    recordings = recorded(store, config.symbols, arguments.day)
    before = recorded(store, config.symbols, arguments.first) if arguments.first else []
    if before and before[0].meta.trade_date >= recordings[0].meta.trade_date:
        raise ValueError(f"--day {arguments.day} should come after --from {arguments.first}")
    operations = operations_of(arguments)
    arms = [CARRIED, CONTROL] if arguments.arm == "both" else [arguments.arm]
    arms += [AGAIN] if arguments.twice and CONTROL in arms else []
    total = (1 if before else 0) + len(arms)
    with _in_good_order(), tqdm(total=total, unit="day", disable=None, file=sys.stderr, leave=False) as bar:

        def progress(what: str) -> None:
            bar.set_description(what)
            bar.update(1)

        carrier = Carrier(
            config, arguments.out, Catalogue.load(*arguments.catalogue), operations=operations, progress=progress
        )
        try:
            snapshot = first_day(carrier, config, before) if before else taken(arguments)
            begin = begun(snapshot, config, arguments, recordings)
        except NotKnown as problem:
            print(f"holdover: {problem}", file=sys.stderr)
            return 3
        runs: dict[str, Ran] = {}
        for arm in arms:
            runs[arm], _ = carrier.run(arm, recordings, begin if arm == CARRIED else Begin())
    told = as_json(carrier.result(recordings, snapshot.name, runs))
    (arguments.out / "result.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    print(json.dumps(told) if arguments.json else carry_text(told))
    return {"holds": 0, "breach": 1}.get(told["verdict"], 3)


@contextlib.contextmanager
def _in_good_order() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: the process under test, which has a group of its own, is ended on the way."""

    def stopped(*told: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stopped)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def recorded(store: RecordingStore, symbols: list[str], day: str) -> list[Recording]:
    """The recordings of a day. Raises `BadRecording` naming what is at hand instead."""
    for symbol in symbols:
        if day not in store.days(symbol):
            at_hand = ", ".join(store.days(symbol)) or "none"
            raise BadRecording(f"no recording of {symbol} on {day} in {store.directory}; at hand: {at_hand}")
    return [store.get(symbol, day) for symbol in symbols]


def operations_of(arguments: argparse.Namespace) -> list[Operation]:
    """What is to be done to the process. Raises `ValueError` with every operation that cannot be read."""
    from holdover.adapters.process.day import Operation
    from holdover.adapters.process.wire import DIRECTIONS

    found, problems = [], []
    for what, default_s in (("kill", 0.0), ("cut", 5.0), ("stall", 5.0)):
        for said in getattr(arguments, f"{what}_at"):
            at, *more = said.split(":")
            try:
                at_s, for_s = float(at), float(more[0]) if more else default_s
                if at_s < 0 or for_s < 0 or len(more) > (2 if what == "stall" else 1):
                    raise ValueError
                if len(more) == 2 and more[1] not in DIRECTIONS:
                    raise ValueError
            except ValueError:
                way = ", and for one direction :in or :out" if what == "stall" else ""
                problems.append(f"--{what}-at {said} should be SECONDS or SECONDS:FOR, not below 0{way}")
                continue
            directions = (more[1],) if len(more) == 2 else DIRECTIONS
            found.append(Operation(what=what, at_s=at_s, for_s=for_s, directions=directions))
    if problems:
        raise ValueError("\n".join(problems))
    return found


def first_day(carrier: Carrier, config: ProcessConfig, recordings: list[Recording]) -> Snapshot:
    """Run the day before from nothing, undisturbed, and take the state that it ends with."""
    from holdover.adapters.process.carry import FIRST, parts_of
    from holdover.adapters.process.day import Begin

    ran, memory = carrier.run(FIRST, recordings, Begin())
    if ran.problems:
        raise NotKnown(f"the day {ran.trade_date} did not come to its end, so nothing is carried: {ran.problems[0]}")
    snapshot = made(config, recordings, parts_of(config, ran, memory), carrier.catalogue.digest)
    snapshot.save(carrier.out / "snapshots")
    return snapshot


def made(config: ProcessConfig, recordings: list[Recording], parts: dict[str, bytes], digest: str) -> Snapshot:
    """The snapshot of a process after a day."""
    metas = [one.meta for one in recordings]
    about = About(
        trade_date=metas[0].trade_date,
        phase="night",
        time_ns=max(one.close_ns for one in metas),
        catalogue=digest,
        subject="process",
        symbols=list(config.symbols),
        redacted=sorted(config.redact_fields),
        simulated=any(one.simulated for one in metas),
    )
    return Snapshot(about, parts)


def taken(arguments: argparse.Namespace) -> Snapshot:
    """The snapshot that was asked for."""
    path = Path(arguments.snapshot)
    return Snapshot.open(path) if path.suffix == ".hsnap" else SnapshotStore(arguments.store).get(arguments.snapshot)


def begun(snapshot: Snapshot, config: ProcessConfig, arguments: argparse.Namespace, recordings: list[Recording]) -> Any:
    """What the carried arm begins with. Raises `NotKnown` where nobody has said what the venue has open."""
    from holdover.adapters.process.carry import NIGHT, begin_of
    from holdover.adapters.process.seed import night_from

    if snapshot.about.subject != "process":
        raise ValueError(
            f"snapshot {snapshot.name} is of the subject {snapshot.about.subject or 'of a session'}; "
            "one of a process is made by holdover snapshot take --process FILE, or by --from DAY"
        )
    if snapshot.about.trade_date >= arguments.day:
        raise ValueError(f"snapshot {snapshot.name} is of {snapshot.about.trade_date}; --day should come after it")
    begin = begin_of(snapshot.parts)
    if arguments.venue_orders is not None:
        instruments = [one.meta.instrument for one in recordings]
        night = night_from(arguments.venue_orders, config, instruments, snapshot.about.trade_date)
        return msgspec.structs.replace(begin, night=night.encoded(), memory=b"", eras=[])
    if NIGHT not in snapshot.parts:
        raise NotKnown(
            f"snapshot {snapshot.name} was taken without our venue: which orders are open and what is held at "
            f"the venue after {snapshot.about.trade_date} is not known; its owner says so by --venue-orders FILE"
        )
    return begin
