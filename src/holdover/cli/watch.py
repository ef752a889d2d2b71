"""`holdover watch`: the same judgement from outside the process, on what it writes as it writes it."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from holdover.catalogue import Catalogue
from holdover.runtime import Breach
from holdover.runtime.metrics import Endpoint
from holdover.watch import (
    BadSource,
    CommandHook,
    DropCopy,
    FixConfig,
    FixJudge,
    FreezeHook,
    Hook,
    Judge,
    MutationJudge,
    Place,
    Source,
    Stream,
    StreamAddress,
    Tail,
    UrlHook,
    Watch,
)

_POLL_S = 0.2


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "watch",
        help="judge a journal, a FIX log, a stream or lines of JSON as they are written",
        description="Follows SOURCE, judges it by the catalogue and acts on breaches. With --once 0 holds, 1 breach, "
        "3 nothing that could be judged, or messages lost unjudged; without it the watch goes on until it is stopped.",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a journal or a FIX log; - for JSON lines on standard input; nats://HOST:PORT/STREAM[/SUBJECT] for "
        "journal lines in a JetStream stream; fix://HOST:PORT or fix-listen://0.0.0.0:PORT for a FIX drop copy",
    )
    parser.add_argument("--format", choices=("journal", "fix"), help="without it the first line tells")
    parser.add_argument("--state", type=Path, metavar="DIR", help="keep place and memory here, and resume from them")
    parser.add_argument("--guard", type=Path, metavar="GUARD", help="freeze in this guard's store (directory or TOML)")
    parser.add_argument("--hook-url", metavar="URL", help="post each breach there")
    parser.add_argument("--hook-command", metavar="COMMAND", help="run this with each breach on its standard input")
    parser.add_argument("--catalogue", action="append", default=[], help="a folder or package beside the built-in one")
    parser.add_argument("--sender", metavar="ID", help="drop copy: SenderCompID (49), this side's")
    parser.add_argument("--target", metavar="ID", help="drop copy: TargetCompID (56), the venue's")
    parser.add_argument("--fix-version", metavar="VERSION", help="drop copy: 4.2, 4.4 (unless said otherwise) or 5.0")
    parser.add_argument("--fix-config", type=Path, metavar="FILE", help="drop copy: TOML with a table [fix]")
    parser.add_argument("--metrics", metavar="HOST:PORT", help="serve /metrics for Prometheus there")
    parser.add_argument("--metrics-beyond-loopback", action="store_true", help="allow another address than loopback")
    parser.add_argument("--once", action="store_true", help="to the end of what is there, and no further")
    parser.add_argument("--json", action="store_true", help="one JSON object a breach on standard output")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Watch; returns the exit code."""
    catalogue = Catalogue.load(*arguments.catalogue)
    if arguments.source == "-":
        watch = _watch(arguments, catalogue, MutationJudge(catalogue, alone=True, once=True), "-")
        source = None
    else:
        opened = _opened(arguments, catalogue)
        if opened is None:
            return 3
        watch, source = opened
    with contextlib.ExitStack() as stack:
        if source is not None:
            stack.callback(source.close)
        if arguments.metrics:
            read = partial(watch.figures, catalogue)
            endpoint = Endpoint(arguments.metrics, read, beyond_loopback=arguments.metrics_beyond_loopback)
            stack.callback(endpoint.close)
            print(f"holdover: metrics at port {endpoint.port}", file=sys.stderr, flush=True)
        if source is None:
            _from_stdin(watch)
        else:
            _follow(watch, source, once=arguments.once, ends=arguments.once and arguments.state is None)
    whole = source is None or source.place.whole
    for seconds in watch.waits():
        threading.Event().wait(seconds)
    watch.keep_acts()
    watch.close()
    for one in watch.pending:
        print(f"holdover: breach {one.breach.number} was not taken by the hook {one.hook}", file=sys.stderr)
    return {"holds": 0 if whole else 3, "breach": 1}.get(watch.verdict, 3)


def _opened(arguments: argparse.Namespace, catalogue: Catalogue) -> tuple[Watch, Source] | None:
    """The watch and what it reads; None where there is nothing that could tell what it is."""
    told = arguments.source
    judge: Judge | None
    opening: Callable[[Place | None], Source]
    if told.startswith(("nats://", "tls://")):
        address = StreamAddress.of(told)
        name, judge = address.name, MutationJudge(catalogue, once=True)
        opening = partial(Stream, address, once=arguments.once)
    elif told.startswith(("fix://", "fix-listen://")):
        config = _fix_config(arguments)
        name = f"{told} {config.sender}->{config.target}"
        judge = FixJudge(catalogue, name)
        opening = partial(DropCopy, told, config, arguments.state)
    else:
        path = Path(told)
        if arguments.once and not path.exists():
            raise FileNotFoundError(2, "there is no such file", str(path))
        name, judge, opening = str(path.resolve()), _judge(arguments, path, catalogue), partial(Tail, path)
        if judge is None:
            return None
    watch = _watch(arguments, catalogue, judge, name)
    try:
        return watch, opening(watch.place)
    except BadSource:
        watch.close()
        raise


def _fix_config(arguments: argparse.Namespace) -> FixConfig:
    config = FixConfig.of(
        arguments.fix_config, sender=arguments.sender, target=arguments.target, version=arguments.fix_version
    )
    if arguments.state is None:
        raise BadSource(f"{arguments.source}: needs --state DIR, where its sequence numbers and messages are kept")
    if arguments.once:
        raise BadSource(f"{arguments.source}: a FIX session has no end; leave --once out")
    return config


def _judge(arguments: argparse.Namespace, path: Path, catalogue: Catalogue) -> Judge | None:
    """The judge that fits the source; waits for a first line where the watch goes on."""
    told = arguments.format
    while told is None:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            for line in file:
                if line.strip() and line.endswith(b"\n"):
                    told = "journal" if line.lstrip()[:1] == b"{" and b"8=FIX" not in line else "fix"
                    break
        if told is None:
            if arguments.once:
                return None
            threading.Event().wait(_POLL_S)
    return FixJudge(catalogue, path.name) if told == "fix" else MutationJudge(catalogue)


def _watch(arguments: argparse.Namespace, catalogue: Catalogue, judge: Judge, source: str) -> Watch:
    hooks: list[Hook] = []
    if arguments.guard is not None:
        hooks.append(FreezeHook(arguments.guard, catalogue))
    if arguments.hook_url:
        hooks.append(UrlHook(arguments.hook_url))
    if arguments.hook_command:
        hooks.append(CommandHook(arguments.hook_command))

    def say(breach: Breach) -> None:
        told = f"BREACH {breach.explanation}" + (f"; state: {breach.state}" if breach.state else "")
        print(msgspec.json.encode(breach).decode() if arguments.json else told, flush=True)

    def complain(told: str) -> None:
        print(f"holdover: {told}", file=sys.stderr, flush=True)

    return Watch(source, judge, catalogue.digest, hooks, say, complain, arguments.state)


def _follow(watch: Watch, source: Source, *, once: bool, ends: bool) -> None:
    try:
        while True:
            lines = source.lines()
            while lines:
                _tell(source)
                watch.lines(lines, source.place.line - len(lines) + 1)
                watch.keep(source.place)
                lines = source.lines(1 if not watch.settled else 5000)
            _tell(source)
            if once and source.ended:
                break
            watch.deliver()
            watch.keep(source.place)
            source.wait(_POLL_S)
        if ends:
            watch.end()
        watch.keep(source.place, now=True)
    except KeyboardInterrupt:
        watch.keep(source.place, now=True)
        raise


def _tell(source: Source) -> None:
    for told in source.told:
        print(f"holdover: {told}", file=sys.stderr, flush=True)
    source.told.clear()


def _from_stdin(watch: Watch) -> None:
    place = watch.place or Place()
    for line in sys.stdin.buffer:
        place.line += 1
        watch.lines((line,), place.line)
        watch.keep(place)
    watch.end()
    watch.keep(place, now=True)
