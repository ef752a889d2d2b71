"""`holdover recording`: import, list, show, verify, choose, record."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from holdover.recording import BadRecording, Recording, RecordingStore, bundled
from holdover.recording.choose import choose
from holdover.recording.csvfile import import_csv
from holdover.recording.dbn import import_dbn
from holdover.recording.lean import import_lean
from holdover.recording.tap import Recorder, read_instrument, record_lines


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser("recording", help="recorded market days: import, list, show, verify, choose, record")
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    imported = what.add_parser("import", help="import days from lean, dbn or csv")
    imported.add_argument("form", choices=("lean", "dbn", "csv"))
    imported.add_argument("source", type=Path)
    imported.add_argument("--into", type=Path, required=True)
    imported.add_argument("--symbol", action="append", default=[], help="lean: only these")
    imported.add_argument("--mapping", type=Path, help="csv: the mapping in TOML")
    imported.add_argument("--instrument", type=Path, help="dbn: the instrument in TOML")
    imported.add_argument("--day", help="dbn: the trading day")
    listed = what.add_parser("list", help="what is in a folder")
    shown = what.add_parser("show", help="one recording's header")
    verified = what.add_parser("verify", help="read recordings whole and say what is wrong")
    chosen = what.add_parser("choose", help="the smallest set of days that covers the market's moods")
    chosen.add_argument("--days", type=int, required=True)
    chosen.add_argument("--instrument")
    shown.add_argument("--instrument")
    shown.add_argument("--day")
    for each in (listed, shown, chosen):
        each.add_argument("place", type=Path, nargs="?", help="a folder or file; without it the bundled ones")
    verified.add_argument("places", type=Path, nargs="+")
    for each in (imported, listed, shown, verified, chosen):
        each.add_argument("--json", action="store_true")
    recorded = what.add_parser("record", help="record newline-delimited JSON from standard input")
    recorded.add_argument("--into", type=Path, required=True)
    recorded.add_argument("--instrument", type=Path, required=True, help="the instrument in TOML")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 done, 1 verify found something wrong."""
    acts = {
        "import": _import,
        "list": _list,
        "show": _show,
        "verify": _verify,
        "choose": _choose,
        "record": _record,
    }
    return acts[arguments.what](arguments)


def _import(arguments: argparse.Namespace) -> int:
    if not arguments.source.exists():
        raise BadRecording(f"{arguments.source}: there is no such file or folder")
    if arguments.form == "lean":
        made = import_lean(arguments.source, arguments.into, arguments.symbol or None, quiet=arguments.json)
    elif arguments.form == "csv":
        if arguments.mapping is None:
            raise BadRecording("import csv needs --mapping FILE.toml, which says what its columns are")
        made = import_csv(arguments.source, arguments.mapping, arguments.into, quiet=arguments.json)
    else:
        if arguments.instrument is None or arguments.day is None:
            raise BadRecording("import dbn needs --instrument FILE.toml and --day YYYY-MM-DD")
        made = [import_dbn(arguments.source, read_instrument(arguments.instrument), arguments.day, arguments.into)]
    _print(made, arguments.json)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    store = _store(arguments.place)
    _print(store.list(), arguments.json)
    for problem in store.problems:
        print(f"holdover: {problem}", file=sys.stderr)
    return 2 if store.problems else 0


def _print(recordings: list[Recording], as_json: bool) -> None:
    if as_json:
        print(json.dumps([_told(one) for one in recordings]))
        return
    print(f"{'instrument':<12}{'day':<12}{'quotes':>10}{'trades':>10}{'traded lots':>18}  digest")
    for one in recordings:
        meta = one.meta
        said = "  simulated" if meta.simulated else ""
        print(
            f"{meta.instrument.symbol:<12}{meta.trade_date:<12}{meta.quotes:>10,}{meta.trades:>10,}"
            f"{meta.traded_qty:>18,}  {one.digest[:12]}{said}"
        )


def _told(one: Recording) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(one.meta)
    return {**told, "digest": one.digest, "file": str(one.path)}


def _show(arguments: argparse.Namespace) -> int:
    for one in _chosen(arguments):
        if arguments.json:
            print(json.dumps(_told(one)))
            continue
        for name, value in _told(one).items():
            print(f"{name:<18}{value}")
    return 0


def _chosen(arguments: argparse.Namespace) -> list[Recording]:
    if arguments.place is not None and arguments.place.is_file():
        return [Recording.open(arguments.place)]
    store = _store(arguments.place)
    symbols = [arguments.instrument.upper()] if arguments.instrument else store.symbols()
    return [
        store.get(symbol, day)
        for symbol in symbols
        for day in ([arguments.day] if arguments.day else store.days(symbol))
    ]


def _verify(arguments: argparse.Namespace) -> int:
    paths: list[Path] = []
    for place in arguments.places:
        if place.is_dir():
            paths += sorted(place.rglob("*.hrec"))
        elif place.exists():
            paths.append(place)
        else:
            raise BadRecording(f"{place}: there is no such file or folder")
    wrong = 0
    told: list[dict[str, Any]] = []
    for path in paths:
        try:
            found = Recording.open(path).verify()
        except BadRecording as problem:
            told.append({"file": str(path), "verdict": "bad", "problems": [{"record": -1, "what": str(problem)}]})
            wrong += 1
            continue
        bad = [problem for problem in found if not problem.notable]
        wrong += bool(bad)
        told.append(
            {
                "file": str(path),
                "verdict": "bad" if bad else "good",
                "problems": [{"record": one.record, "what": one.what, "notable": one.notable} for one in found[:100]],
            }
        )
    if arguments.json:
        print(json.dumps(told))
    else:
        for one in told:
            print(f"{one['verdict']:<5}{one['file']}")
            for each in one["problems"]:
                at = f"record {each['record']}: " if each["record"] >= 0 else ""
                print(f"     {at}{each['what']}")
    return 1 if wrong else 0


def _choose(arguments: argparse.Namespace) -> int:
    store = _store(arguments.place)
    recordings = [
        one
        for one in store.list()
        if arguments.instrument in (None, one.meta.instrument.symbol, one.meta.instrument.symbol.lower())
    ]
    if not recordings:
        raise BadRecording(f"no recording to choose from; at hand: {', '.join(store.symbols()) or 'nothing'}")
    chosen = choose(recordings, arguments.days, quiet=arguments.json)
    if arguments.json:
        print(json.dumps([msgspec.to_builtins(one) for one in chosen]))
    else:
        for one in chosen:
            print(f"{one.symbol:<10}{one.why}")
        print(f"{len(chosen)} of {len(recordings)} recorded days")
    return 0


def _record(arguments: argparse.Namespace) -> int:
    recorder = Recorder(arguments.into, read_instrument(arguments.instrument))
    try:
        count = record_lines(sys.stdin.buffer, recorder)
    finally:
        sealed = recorder.close()
    print(f"{count} events{'; ' + repr(sealed) if sealed else ''}")
    return 0


def _store(place: Path | None) -> RecordingStore:
    return RecordingStore(place) if place is not None else bundled()
