"""Check that a schedule gives the same journal when it is repeated, run in a new process, and replayed.

    python bench/same_journal.py --seeds 0:10000 --workers 2 --out out/same

A seed always gives the same schedule: one or two instruments, the first minutes of one recorded day or of two
with the night between them, and up to six operations of every kind. One process plays it twice. A new process
plays it once more, with another hash seed (`PYTHONHASHSEED`), another folder, another working directory and
another time zone. Such a process plays the seeds of one piece (`--piece`) and ends. In addition, `holdover
replay` plays one seed in `--alone` in a process of its own. The script compares the SHA-256 of the journals,
the findings, and the number of operations done.

`--out` stores one line for each seed. The same command continues where it was stopped; other seeds can be
added to the same file later or from another machine. The table covers everything in the file. The script
exits with 1 when anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from holdover.catalogue import Catalogue
from holdover.explore.search import LOSSY_KINDS, LOST_MAX
from holdover.harness.player import play
from holdover.harness.schedule import KINDS, MESSAGE_OPERATIONS, Operation, Schedule, make_schedule
from holdover.recording import bundled_store

DAYS: Final = ("2024-11-27", "2024-11-29")
_NUMBERS: Final[dict[str, tuple[int, ...]]] = {
    "down_seconds": (0, 0, 1, 30, 90),
    "mutations": (1, 2, 5, 12),
    "seconds": (1, 20, 60),
    "recovery": (0, 1, 2),
    "lose_out": (0, 1),
    "milliseconds": (1, 700, 3000),
    "lots": (-20, -1, 1, 100),
    "ticks": (-3, -1, 0, 2),
}
_MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
_ORDINALS: Final = (0, 1, 2, 5)
_ENVIRONMENTS: Final = (("1", "Asia/Tokyo", "/"), ("77", "America/New_York", "/tmp"), ("4242", "UTC", "/"))
"""Hash seed, time zone and working directory of the processes that are started."""


def random_schedule(seed: int, catalogue: Catalogue) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(f"same journal {seed}")
    symbols = ["ACME", "BOLT"] if rng.random() < 0.1 else [rng.choice(("ACME", "BOLT"))]
    last = 1 if rng.random() < 0.25 else 0
    seconds = [rng.randint(60, 400) for _ in range(last + 1)]
    operations = _limit_losses([_operation(rng, rng.randint(0, last), seconds) for _ in range(rng.randint(0, 6))])
    # A day that ends early: what is recorded after it is left out, and the night comes all the same.
    operations += [Operation(day=day, at="second", n=length, do="overnight") for day, length in enumerate(seconds)]
    return make_schedule(
        bundled_store(), symbols, DAYS[: last + 1], catalogue, name=f"random {seed}", seed=seed, operations=operations
    )


def _operation(rng: random.Random, day: int, seconds: list[int]) -> Operation:
    do = rng.choice(list(KINDS))
    at, n = "second", rng.randint(1, seconds[day])
    if do in MESSAGE_OPERATIONS:
        at, n = rng.choice(("in", "out")), rng.choice((rng.randint(1, 8), rng.randint(1, 40)))
    elif rng.random() < 0.6:
        at = rng.choice(("mutation", "mutation", "delivered", "sent", "instant"))
        n = rng.choice((rng.randint(1, 40), rng.randint(1, 400))) if at == "mutation" else rng.randint(1, 30)
    with_ = [rng.choice(_NUMBERS.get(name, _ORDINALS)) for name, _ in KINDS[do].parameters]
    return Operation(day=day, at=at, n=n, do=do, with_=with_)  # type: ignore[arg-type]


def _limit_losses(operations: list[Operation]) -> list[Operation]:
    """Without the losses after the second: no patience gets through one after the other (see `explore.search`)."""
    lossy = [operation for operation in operations if operation.do in LOSSY_KINDS]
    return [operation for operation in operations if operation not in lossy[LOST_MAX:]]


def play_seed(seed: int, catalogue: Catalogue, directory: Path) -> list[Any]:
    """What playing a seed gives: the journal's SHA-256, how much was done, and what was found."""
    result = play(random_schedule(seed, catalogue), directory, catalogue=catalogue, scratch=True)
    findings = [breach.explanation for breach in result.breaches] + [result.crash]
    return [
        result.journal_digest(),
        result.mutations,
        result.market_events,
        result.operations_done,
        result.mark,
        hashlib.sha256("\n".join(findings).encode()).hexdigest()[:16],
    ]


def play_piece(seeds: list[int], times: int) -> list[list[list[Any]]]:
    """Each of some seeds played so many times in this process, each time in another folder."""
    logging.getLogger("holdover").setLevel(logging.CRITICAL + 1)
    catalogue = Catalogue.load()
    with tempfile.TemporaryDirectory(dir=_MEMORY) as directory:
        return [[play_seed(seed, catalogue, Path(directory) / f"{turn}") for turn in range(times)] for seed in seeds]


def _play_in_new_process(seeds: list[int], times: int, number: int) -> list[list[list[Any]]]:
    """The same in a process that is started for it."""
    hash_seed, zone, folder = _ENVIRONMENTS[number % len(_ENVIRONMENTS)]
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--play", str(times), *map(str, seeds)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": zone},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"a process that plays seeds {seeds[0]} to {seeds[-1]} has failed: {ended.stderr}")
    answers: list[list[list[Any]]] = json.loads(ended.stdout)
    return answers


def _replay_digest(seed: int) -> str:
    """The SHA-256 of the journal that `holdover replay` writes of a seed's schedule file, from a process of its own."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as directory:
        path = random_schedule(seed, Catalogue.load()).save(Path(directory) / "one.json")
        command = [
            sys.executable,
            "-m",
            "holdover",
            "replay",
            str(path),
            "--out",
            str(Path(directory) / "out"),
            "--json",
        ]
        ended = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=False
        )
        return str(json.loads(ended.stdout)["journal_sha256"]) if ended.stdout else ended.stderr


def compare_piece(seeds: list[int], replay_every: int) -> list[dict[str, Any]]:
    """One line for each seed: what it gave, and how often it was played to the same and in how many processes."""
    lines = []
    first_answers, second_answers = (
        _play_in_new_process(seeds, 2, seeds[0]),
        _play_in_new_process(seeds, 1, seeds[0] + 1),
    )
    for seed, (first, second), (new,) in zip(seeds, first_answers, second_answers, strict=True):
        line: dict[str, Any] = {"seed": seed, "journal": first[0], "mutations": first[1], "events": first[2]}
        line |= {"operations": first[3], "mark": first[4], "again": second == first, "new process": new == first}
        if replay_every and seed % replay_every == 0:
            line["alone"] = _replay_digest(seed) == first[0]
        lines.append(line)
    return lines


def run(first: int, last: int, directory: Path, *, workers: int, size: int, replay_every: int) -> list[dict[str, Any]]:
    """Every seed that is not in the file yet; returns all the lines of the file."""
    path = directory / "seeds.jsonl"
    directory.mkdir(parents=True, exist_ok=True)
    lines_by_seed = read(path)
    remaining = iter([seed for seed in range(first, last) if seed not in lines_by_seed])
    pieces = iter(lambda: list(islice(remaining, size)), [])
    with (
        ThreadPoolExecutor(workers) as pool,
        open(path, "a", encoding="utf-8") as file,
        tqdm(
            total=last - first, initial=sum(first <= seed < last for seed in lines_by_seed), disable=None, unit="seed"
        ) as bar,
    ):
        for lines in pool.map(lambda seeds: compare_piece(seeds, replay_every), list(pieces)):
            file.write("".join(f"{json.dumps(line)}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
            bar.update(len(lines))
            lines_by_seed.update({line["seed"]: line for line in lines})
            bar.set_postfix_str(f"{sum(not _equal(line) for line in lines_by_seed.values())} differ")
    return [lines_by_seed[seed] for seed in sorted(lines_by_seed)]


def read(path: Path) -> dict[int, dict[str, Any]]:
    """The lines of a file by their seeds; a last one that was cut off is left out."""
    if not path.exists():
        return {}
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    path.write_text("".join(whole), encoding="utf-8")
    return {line["seed"]: line for line in map(json.loads, whole)}


def _equal(line: dict[str, Any]) -> bool:
    return bool(line["again"] and line["new process"] and line.get("alone", True))


def table(lines: list[dict[str, Any]]) -> str:
    """What the file says, a line a number."""
    replays = [line["alone"] for line in lines if "alone" in line]
    rows = [
        ("seeds", len(lines)),
        ("different journals among them", len({line["journal"] for line in lines})),
        ("operations done", sum(line["operations"] for line in lines)),
        ("mutations", sum(line["mutations"] for line in lines)),
        ("market events", sum(line["events"] for line in lines)),
        ("equal when run again", sum(line["again"] for line in lines)),
        ("equal in a new process", sum(line["new process"] for line in lines)),
        (f"equal by holdover replay, of {len(replays)}", sum(replays)),
        ("differ", sum(not _equal(line) for line in lines)),
        *((f"found: {mark}", count) for mark, count in sorted(Counter(line["mark"] for line in lines).items()) if mark),
    ]
    text_lines = [f"{name:<56}{number:>14,}" for name, number in rows]
    return "\n".join([*text_lines, *(f"DIFFERS seed {line['seed']}" for line in lines if not _equal(line))][:60])


def main() -> int:
    """Play, compare, print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seeds", default="0:10000", help="FIRST:LAST, the last not included")
    parser.add_argument("--workers", type=int, default=2, help="pieces at a time")
    parser.add_argument("--piece", type=int, default=100, help="how many seeds a started process plays")
    parser.add_argument(
        "--alone", type=int, default=100, help="one seed in so many is played by holdover replay; 0 none"
    )
    parser.add_argument("--out", type=Path, default=Path("out/same"))
    parser.add_argument("--play", nargs="+", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.play:
        json.dump(play_piece(arguments.play[1:], arguments.play[0]), sys.stdout)
        return 0
    first, _, last = arguments.seeds.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        parser.error(f"--seeds is {arguments.seeds}, should be FIRST:LAST, such as 0:10000")
    began = time.perf_counter()
    lines = run(
        int(first),
        int(last),
        arguments.out,
        workers=arguments.workers,
        size=arguments.piece,
        replay_every=arguments.alone,
    )
    print(table(lines))
    print(f"{time.perf_counter() - began:,.0f} s")
    return 0 if all(_equal(line) for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
