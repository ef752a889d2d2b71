"""`holdover watch`: checks the output of a process from outside, as it is written."""

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

from holdover.audit.log_lines import LINE_MAX, read_log_lines
from holdover.catalogue import Catalogue
from holdover.cli.commands import add_verb
from holdover.cli.options import add_catalogue_option, add_json_option
from holdover.runtime import Breach, read_config
from holdover.runtime.metrics import MetricsEndpoint
from holdover.runtime.size_limits import open_bounded
from holdover.watch import (
    URL_SCHEMES,
    CommandHook,
    DropCopy,
    FixConfig,
    FixJudge,
    FreezeHook,
    Hook,
    Judge,
    MutationJudge,
    Offset,
    Source,
    SourceError,
    Stream,
    StreamAddress,
    Tail,
    UrlHook,
    Watch,
)

_POLL_S = 0.2


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "watch",
        "holdover watch journal.jsonl --once",
        {
            0: "every invariant holds",
            1: "an invariant is breached",
            3: "nothing could be judged, too much could not be used, or messages were lost",
        },
        details="Follows SOURCE, judges it by the catalogue and acts on breaches until it is stopped; with --once up "
        "to the current end of SOURCE.",
        run=run,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a journal or a FIX log; - for JSON lines on standard input; nats://HOST:PORT/STREAM[/SUBJECT] for "
        "journal lines in a JetStream stream; fix://HOST:PORT or "
        "fix-listen://ADDRESS:PORT for a FIX drop copy, fixs:// and fixs-listen:// over TLS",
    )
    parser.add_argument(
        "--format", choices=("journal", "fix"), help="the format of a file; default: the first line decides"
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="keep the offset and the memory here, and resume from them"
    )
    parser.add_argument(
        "--guard", type=Path, metavar="DIR|TOML", help="freeze in the store of this guard when an invariant is breached"
    )
    parser.add_argument("--hook-url", metavar="URL", help="post each breach to this URL, as JSON")
    parser.add_argument(
        "--hook-command", metavar="COMMAND", help="run this command with each breach on its standard input"
    )
    add_catalogue_option(parser)
    parser.add_argument("--sender", metavar="ID", help="drop copy: our SenderCompID (49)")
    parser.add_argument("--target", metavar="ID", help="drop copy: the venue's TargetCompID (56)")
    parser.add_argument("--fix-version", metavar="VERSION", help="drop copy: 4.2, 4.4 or 5.0 (default 4.4)")
    parser.add_argument("--fix-config", type=Path, metavar="FILE", help="drop copy: a TOML file with a table [fix]")
    parser.add_argument("--metrics", metavar="HOST:PORT", help="serve /metrics for Prometheus at this address")
    parser.add_argument(
        "--metrics-beyond-loopback", action="store_true", help="allow an address of --metrics beyond loopback"
    )
    parser.add_argument("--once", action="store_true", help="stop at the current end of SOURCE")
    add_json_option(parser, "print one JSON object for each breach")


def run(arguments: argparse.Namespace) -> int:
    """Watch the source; returns the exit code."""
    catalogue = _load_catalogue(arguments)
    if arguments.source == "-":
        watch = _make_watch(arguments, catalogue, MutationJudge(catalogue, line_is_step=True, skip_repeats=True), "-")
        source = None
    else:
        opened = _open_watch(arguments, catalogue)
        if opened is None:
            return 3
        watch, source = opened
    with contextlib.ExitStack() as stack:
        if source is not None:
            stack.callback(source.close)
        if arguments.metrics:
            read = partial(watch.metrics, catalogue)
            endpoint = MetricsEndpoint(arguments.metrics, read, beyond_loopback=arguments.metrics_beyond_loopback)
            stack.callback(endpoint.close)
            print(f"holdover: metrics at port {endpoint.port}", file=sys.stderr, flush=True)
        if source is None:
            _watch_stdin(watch)
        else:
            _follow(watch, source, stops_at_end=arguments.once, ends=arguments.once and arguments.state is None)
    whole = source is None or source.offset.is_complete
    for seconds in watch.retry_delays():
        threading.Event().wait(seconds)
    watch.save_pending()
    watch.close()
    for delivery in watch.pending:
        print(f"holdover: the hook {delivery.hook} did not accept breach {delivery.breach.number}", file=sys.stderr)
    return {"holds": 0 if whole else 3, "breach": 1}.get(watch.verdict, 3)


def _load_catalogue(arguments: argparse.Namespace) -> Catalogue:
    """Load the catalogue under the policy of the guard's configuration, if one is named."""
    catalogue = Catalogue.load(*arguments.catalogue)
    if arguments.guard is None or not arguments.guard.is_file():
        return catalogue
    config = read_config(arguments.guard)
    policies = [policy for policy in config.policy if policy.invariant in catalogue.invariants]
    return catalogue.with_policy(policies, config.guard.mode)


def _open_watch(arguments: argparse.Namespace, catalogue: Catalogue) -> tuple[Watch, Source] | None:
    """Return the watch and its source; None when a file has no line that shows its format.

    Raises `FileNotFoundError` and `SourceError` when the source cannot be opened.
    """
    source_text = arguments.source
    judge: Judge | None
    opening: Callable[[Offset | None], Source]
    if source_text.startswith(("nats://", "tls://")):
        address = StreamAddress.parse(source_text)
        name, judge = address.name, MutationJudge(catalogue, skip_repeats=True)
        opening = partial(Stream, address, single_pass=arguments.once)
    elif source_text.startswith(URL_SCHEMES):
        config = _fix_config(arguments)
        name = f"{source_text} {config.sender}->{config.target}"
        judge = FixJudge(catalogue, name)
        opening = partial(DropCopy, source_text, config, arguments.state)
    else:
        path = Path(source_text)
        if arguments.once and not path.exists():
            raise FileNotFoundError(2, "there is no such file", str(path))
        name, judge, opening = str(path.resolve()), _make_judge(arguments, path, catalogue), partial(Tail, path)
        if judge is None:
            return None
    watch = _make_watch(arguments, catalogue, judge, name)
    try:
        return watch, opening(watch.offset)
    except SourceError:
        watch.close()
        raise


def _fix_config(arguments: argparse.Namespace) -> FixConfig:
    config = FixConfig.load(
        arguments.fix_config, sender=arguments.sender, target=arguments.target, version=arguments.fix_version
    )
    if arguments.state is None:
        raise SourceError(f"{arguments.source}: needs --state DIR, which stores its sequence numbers and messages")
    if arguments.once:
        raise SourceError(f"{arguments.source}: a FIX session has no end; remove --once")
    return config


def _make_judge(arguments: argparse.Namespace, path: Path, catalogue: Catalogue) -> Judge | None:
    """Return the judge for a file by its first line; without `--once` wait for that line."""
    log_format = arguments.format
    while log_format is None:
        with contextlib.suppress(FileNotFoundError), open_bounded(path) as file:
            head = file.read(LINE_MAX).lstrip()
            line, line_end, _ = head.partition(b"\n")
            if line_end or b"8=FIX" in line:
                log_format = "journal" if line[:1] == b"{" and b"8=FIX" not in line else "fix"
        if log_format is None:
            if arguments.once:
                return None
            threading.Event().wait(_POLL_S)
    return FixJudge(catalogue, path.name) if log_format == "fix" else MutationJudge(catalogue)


def _make_watch(arguments: argparse.Namespace, catalogue: Catalogue, judge: Judge, source: str) -> Watch:
    hooks: list[Hook] = []
    if arguments.guard is not None:
        hooks.append(FreezeHook(arguments.guard, catalogue))
    if arguments.hook_url:
        hooks.append(UrlHook(arguments.hook_url))
    if arguments.hook_command:
        hooks.append(CommandHook(arguments.hook_command))

    def say(breach: Breach) -> None:
        text = f"BREACH {breach.explanation}" + (f"; state: {breach.state}" if breach.state else "")
        print(msgspec.json.encode(breach).decode() if arguments.json else text, flush=True)

    def complain(message: str) -> None:
        print(f"holdover: {message}", file=sys.stderr, flush=True)

    return Watch(source, judge, catalogue.digest, hooks, say, complain, arguments.state)


def _follow(watch: Watch, source: Source, *, stops_at_end: bool, ends: bool) -> None:
    try:
        while True:
            lines = source.read_lines()
            while lines:
                _print_messages(source)
                watch.judge_lines(lines, source.offset.line - len(lines) + 1)
                _save(watch, source)
                lines = source.read_lines(1 if not watch.is_settled else 5000)
            _print_messages(source)
            if stops_at_end and source.is_exhausted:
                break
            watch.run_pending()
            _save(watch, source)
            source.wait(_POLL_S)
        if ends:
            watch.end()
        watch.save(source.offset, force=True)
    except KeyboardInterrupt:
        watch.save(source.offset, force=True)
        raise


def _save(watch: Watch, source: Source) -> None:
    """Save the state, and let the source delete what the saved state no longer needs."""
    if watch.save(source.offset):
        source.forget(source.offset)


def _print_messages(source: Source) -> None:
    for message in source.notices:
        print(f"holdover: {message}", file=sys.stderr, flush=True)
    source.notices.clear()


def _watch_stdin(watch: Watch) -> None:
    offset = watch.offset or Offset()
    for number, line in read_log_lines(sys.stdin.buffer, offset.line + 1, piece_min=LINE_MAX):
        offset.line = number
        content = line if isinstance(line, bytes) else f"a line of {line.size:,} bytes".encode()
        watch.judge_lines((content,), offset.line)
        watch.save(offset)
    watch.end()
    watch.save(offset, force=True)
