"""`holdover recording`: import, list, show, verify, choose, record."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from holdover.cli.commands import add_command, add_subcommands, add_verb
from holdover.cli.options import add_json_option
from holdover.recording import Recording, RecordingError, RecordingStore, bundled_store
from holdover.recording.csvfile import import_csv
from holdover.recording.dbn import import_dbn
from holdover.recording.lean import import_lean
from holdover.recording.selection import choose_days
from holdover.recording.tap import Recorder, read_instrument, record_lines


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "recording",
        "holdover recording list",
        {0: "done", 1: "verify: a recording is bad", 2: "usage error, bad input, or an unreadable recording"},
    )
    commands = add_subcommands(parser, "what")
    done = {0: "done"}
    _add_import(commands, done)
    _add_readers(commands, done)
    recorded = add_command(
        commands,
        "record",
        "Record newline-delimited JSON from standard input.",
        "holdover recording record --into days --instrument acme.toml < feed.jsonl",
        done,
        run=run,
    )
    recorded.add_argument("--into", type=Path, required=True, metavar="DIR", help="where to write the recordings")
    recorded.add_argument("--instrument", type=Path, required=True, metavar="FILE", help="the instrument, TOML")


def _add_import(commands: Any, done: dict[int, str]) -> None:
    imported = add_command(
        commands,
        "import",
        "Import market days of QuantConnect LEAN, Databento DBN or CSV.",
        "holdover recording import csv trades.csv --mapping columns.toml --into days",
        done,
        run=run,
    )
    imported.add_argument("form", choices=("lean", "dbn", "csv"), help="the format of SOURCE: lean, dbn or csv")
    imported.add_argument("source", type=Path, metavar="SOURCE", help="the file or directory to import")
    imported.add_argument("--into", type=Path, required=True, metavar="DIR", help="where to write the recordings")
    imported.add_argument(
        "--symbol", action="append", default=[], metavar="SYM", help="lean: only this symbol; may be repeated"
    )
    imported.add_argument("--mapping", type=Path, metavar="FILE", help="csv: the meaning of the columns, TOML")
    imported.add_argument("--instrument", type=Path, metavar="FILE", help="dbn: the instrument, TOML")
    imported.add_argument("--day", metavar="DAY", help="dbn: the trading day, YYYY-MM-DD")
    add_json_option(imported)


def _add_readers(commands: Any, done: dict[int, str]) -> None:
    listed = add_command(
        commands, "list", "List the recordings of a directory.", "holdover recording list days", done, run=run
    )
    shown = add_command(
        commands,
        "show",
        "Show the header of recordings.",
        "holdover recording show --instrument ACME --day 2024-11-29",
        done,
        run=run,
    )
    shown.add_argument("--instrument", metavar="SYM", help="only this instrument")
    shown.add_argument("--day", metavar="DAY", help="only this day, YYYY-MM-DD")
    verified = add_command(
        commands,
        "verify",
        "Read recordings completely and list every problem.",
        "holdover recording verify days",
        {0: "all recordings are good", 1: "a recording is bad; its problems are listed"},
        run=run,
    )
    verified.add_argument("places", type=Path, nargs="+", metavar="PATH", help="a recording, or a directory of them")
    choose_parser = add_command(
        commands,
        "choose",
        "Choose the smallest set of days that covers the market's moods.",
        "holdover recording choose --days 2",
        done,
        run=run,
    )
    choose_parser.add_argument("--days", type=int, required=True, metavar="N", help="how many days to choose")
    choose_parser.add_argument("--instrument", metavar="SYM", help="only days of this instrument")
    for subparser in (listed, shown, choose_parser):
        subparser.add_argument(
            "place", type=Path, nargs="?", metavar="PATH", help="a directory of recordings; default: the bundled ones"
        )
    for subparser in (listed, shown, verified, choose_parser):
        add_json_option(subparser)


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when done, 1 when verify found a problem, 2 when list found an unreadable file."""
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
        raise RecordingError(f"{arguments.source}: there is no such file or folder")
    if arguments.form == "lean":
        recordings = import_lean(arguments.source, arguments.into, arguments.symbol or None, quiet=arguments.json)
    elif arguments.form == "csv":
        if arguments.mapping is None:
            raise RecordingError("import csv needs --mapping FILE.toml, which names the columns")
        recordings = import_csv(arguments.source, arguments.mapping, arguments.into, quiet=arguments.json)
    else:
        if arguments.instrument is None or arguments.day is None:
            raise RecordingError("import dbn needs --instrument FILE.toml and --day YYYY-MM-DD")
        recordings = [
            import_dbn(arguments.source, read_instrument(arguments.instrument), arguments.day, arguments.into)
        ]
    _print_recordings(recordings, arguments.json)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    store = _open_store(arguments.place)
    _print_recordings(store.list_recordings(), arguments.json)
    for problem in store.problems:
        print(f"holdover: {problem}", file=sys.stderr)
    return 2 if store.problems else 0


def _print_recordings(recordings: list[Recording], as_json: bool) -> None:
    if as_json:
        print(json.dumps([_as_json(recording) for recording in recordings]))
        return
    print(f"{'instrument':<12}{'day':<12}{'quotes':>10}{'trades':>10}{'traded lots':>18}  digest")
    for recording in recordings:
        meta = recording.meta
        suffix = "  simulated" if meta.simulated else ""
        print(
            f"{meta.instrument.symbol:<12}{meta.trade_date:<12}{meta.quotes:>10,}{meta.trades:>10,}"
            f"{meta.traded_qty:>18,}  {recording.digest[:12]}{suffix}"
        )


def _as_json(recording: Recording) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(recording.meta)
    return {**document, "digest": recording.digest, "file": str(recording.path)}


def _show(arguments: argparse.Namespace) -> int:
    for recording in _select_recordings(arguments):
        if arguments.json:
            print(json.dumps(_as_json(recording)))
            continue
        for name, value in _as_json(recording).items():
            print(f"{name:<18}{value}")
    return 0


def _select_recordings(arguments: argparse.Namespace) -> list[Recording]:
    if arguments.place is not None and arguments.place.is_file():
        return [Recording.open(arguments.place)]
    store = _open_store(arguments.place)
    symbols = [arguments.instrument.upper()] if arguments.instrument else store.symbols()
    return [
        store.get(symbol, day)
        for symbol in symbols
        for day in ([arguments.day] if arguments.day else store.days(symbol))
    ]


def _verify(arguments: argparse.Namespace) -> int:
    paths: list[Path] = []
    for location in arguments.places:
        if location.is_dir():
            paths += sorted(location.rglob("*.hrec"))
        elif location.exists():
            paths.append(location)
        else:
            raise RecordingError(f"{location}: there is no such file or folder")
    wrong = 0
    reports: list[dict[str, Any]] = []
    for path in paths:
        try:
            problems = Recording.open(path).verify()
        except RecordingError as problem:
            reports.append({"file": str(path), "verdict": "bad", "problems": [{"record": -1, "what": str(problem)}]})
            wrong += 1
            continue
        bad = [problem for problem in problems if not problem.notable]
        wrong += bool(bad)
        reports.append(
            {
                "file": str(path),
                "verdict": "bad" if bad else "good",
                "problems": [
                    {"record": problem.record, "what": problem.description, "notable": problem.notable}
                    for problem in problems[:100]
                ],
            }
        )
    if arguments.json:
        print(json.dumps(reports))
    else:
        for report in reports:
            print(f"{report['verdict']:<5}{report['file']}")
            for entry in report["problems"]:
                at = f"record {entry['record']}: " if entry["record"] >= 0 else ""
                print(f"     {at}{entry['what']}")
    return 1 if wrong else 0


def _choose(arguments: argparse.Namespace) -> int:
    store = _open_store(arguments.place)
    recordings = [
        recording
        for recording in store.list_recordings()
        if arguments.instrument in (None, recording.meta.instrument.symbol, recording.meta.instrument.symbol.lower())
    ]
    if not recordings:
        raise RecordingError(f"no recording to choose from; available: {', '.join(store.symbols()) or 'none'}")
    choices = choose_days(recordings, arguments.days, quiet=arguments.json)
    if arguments.json:
        print(json.dumps([msgspec.to_builtins(choice) for choice in choices]))
    else:
        for choice in choices:
            print(f"{choice.symbol:<10}{choice.reason}")
        print(f"{len(choices)} of {len(recordings)} recorded days")
    return 0


def _record(arguments: argparse.Namespace) -> int:
    recorder = Recorder(arguments.into, read_instrument(arguments.instrument))
    try:
        count = record_lines(sys.stdin.buffer, recorder)
    finally:
        sealed = recorder.close()
    print(f"{count} events{'; ' + repr(sealed) if sealed else ''}")
    return 0


def _open_store(path: Path | None) -> RecordingStore:
    return RecordingStore(path) if path is not None else bundled_store()
