"""Random schedules, each played again and again: run, run again and replay in a new process give the same journal.

    python bench/same_journal.py --seeds 0:10000 --workers 2 --out out/same

A seed is a schedule for ever: one or two instruments, the first minutes of one recorded day or of two with the night
between them, up to six operations of every kind. It is played twice in one process, and once more in a process that was
started anew, with another order of hashes (`PYTHONHASHSEED`), another folder, another working directory and another
time zone. Such a process plays the seeds of one piece (`--piece`) and ends; one seed in `--alone` is played by
`holdover replay` besides, in a process that plays nothing else. The journals are compared byte for byte, by their
SHA-256; what is found and how far it came is compared too.

`--out` keeps a line for each seed. The same command goes on where it was stopped; other seeds go to the same file from
another machine or later. The table at the end is of everything in the file. Exit code 1 when anything differs.
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
from holdover.explore.play import play
from holdover.explore.schedule import AT_MESSAGES, KINDS, Operation, Schedule, schedule_on
from holdover.explore.search import LOSSY, LOST_MAX
from holdover.recording import bundled

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
    operations = _within([_operation(rng, rng.randint(0, last), seconds) for _ in range(rng.randint(0, 6))])
    # A day that ends early: what is recorded after it is left out, and the night comes all the same.
    operations += [Operation(day=day, at="second", n=length, do="overnight") for day, length in enumerate(seconds)]
    return schedule_on(
        bundled(), symbols, DAYS[: last + 1], catalogue, name=f"random {seed}", seed=seed, operations=operations
    )


def _operation(rng: random.Random, day: int, seconds: list[int]) -> Operation:
    do = rng.choice(list(KINDS))
    at, n = "second", rng.randint(1, seconds[day])
    if do in AT_MESSAGES:
        at, n = rng.choice(("in", "out")), rng.choice((rng.randint(1, 8), rng.randint(1, 40)))
    elif rng.random() < 0.6:
        at = rng.choice(("mutation", "mutation", "delivered", "sent", "instant"))
        n = rng.choice((rng.randint(1, 40), rng.randint(1, 400))) if at == "mutation" else rng.randint(1, 30)
    with_ = [rng.choice(_NUMBERS.get(name, _ORDINALS)) for name, _ in KINDS[do].takes]
    return Operation(day=day, at=at, n=n, do=do, with_=with_)  # type: ignore[arg-type]


def _within(operations: list[Operation]) -> list[Operation]:
    """Without the losses after the second: no patience gets through one after the other (see `explore.search`)."""
    lost = [one for one in operations if one.do in LOSSY]
    return [one for one in operations if one not in lost[LOST_MAX:]]


def played(seed: int, catalogue: Catalogue, place: Path) -> list[Any]:
    """What playing a seed gives: the journal's SHA-256, how much was done, and what was found."""
    told = play(random_schedule(seed, catalogue), place, catalogue=catalogue, scratch=True)
    found = [one.explanation for one in told.breaches] + [told.crash]
    return [
        told.journal_digest(),
        told.mutations,
        told.market_events,
        told.done,
        told.mark,
        hashlib.sha256("\n".join(found).encode()).hexdigest()[:16],
    ]


def play_piece(seeds: list[int], times: int) -> list[list[list[Any]]]:
    """Each of some seeds played so many times in this process, each time in another folder."""
    logging.getLogger("holdover").setLevel(logging.CRITICAL + 1)
    catalogue = Catalogue.load()
    with tempfile.TemporaryDirectory(dir=_MEMORY) as place:
        return [[played(seed, catalogue, Path(place) / f"{turn}") for turn in range(times)] for seed in seeds]


def _started(seeds: list[int], times: int, number: int) -> list[list[list[Any]]]:
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
    told: list[list[list[Any]]] = json.loads(ended.stdout)
    return told


def _alone(seed: int) -> str:
    """The SHA-256 of the journal that `holdover replay` writes of a seed's schedule file, from a process of its own."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as place:
        path = random_schedule(seed, Catalogue.load()).save(Path(place) / "one.json")
        command = [sys.executable, "-m", "holdover", "replay", str(path), "--out", str(Path(place) / "out"), "--json"]
        ended = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=False
        )
        return str(json.loads(ended.stdout)["journal_sha256"]) if ended.stdout else ended.stderr


def piece(seeds: list[int], alone: int) -> list[dict[str, Any]]:
    """One line for each seed: what it gave, and how often it was played to the same and in how many processes."""
    lines = []
    here, there = _started(seeds, 2, seeds[0]), _started(seeds, 1, seeds[0] + 1)
    for seed, (first, second), (new,) in zip(seeds, here, there, strict=True):
        line: dict[str, Any] = {"seed": seed, "journal": first[0], "mutations": first[1], "events": first[2]}
        line |= {"operations": first[3], "mark": first[4], "again": second == first, "new process": new == first}
        if alone and seed % alone == 0:
            line["alone"] = _alone(seed) == first[0]
        lines.append(line)
    return lines


def run(first: int, last: int, out: Path, *, workers: int, size: int, alone: int) -> list[dict[str, Any]]:
    """Every seed that is not in the file yet; returns all the lines of the file."""
    path = out / "seeds.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    known = read(path)
    left = iter([seed for seed in range(first, last) if seed not in known])
    pieces = iter(lambda: list(islice(left, size)), [])
    with (
        ThreadPoolExecutor(workers) as pool,
        open(path, "a", encoding="utf-8") as file,
        tqdm(total=last - first, initial=sum(first <= one < last for one in known), disable=None, unit="seed") as bar,
    ):
        for lines in pool.map(lambda seeds: piece(seeds, alone), list(pieces)):
            file.write("".join(f"{json.dumps(line)}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
            bar.update(len(lines))
            known.update({line["seed"]: line for line in lines})
            bar.set_postfix_str(f"{sum(not _equal(one) for one in known.values())} differ")
    return [known[seed] for seed in sorted(known)]


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
    alone = [line["alone"] for line in lines if "alone" in line]
    rows = [
        ("seeds", len(lines)),
        ("different journals among them", len({line["journal"] for line in lines})),
        ("operations done", sum(line["operations"] for line in lines)),
        ("mutations", sum(line["mutations"] for line in lines)),
        ("market events", sum(line["events"] for line in lines)),
        ("equal when run again", sum(line["again"] for line in lines)),
        ("equal in a new process", sum(line["new process"] for line in lines)),
        (f"equal by holdover replay, of {len(alone)}", sum(alone)),
        ("differ", sum(not _equal(line) for line in lines)),
        *((f"found: {mark}", count) for mark, count in sorted(Counter(one["mark"] for one in lines).items()) if mark),
    ]
    told = [f"{name:<56}{number:>14,}" for name, number in rows]
    return "\n".join([*told, *(f"DIFFERS seed {line['seed']}" for line in lines if not _equal(line))][:60])


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
        alone=arguments.alone,
    )
    print(table(lines))
    print(f"{time.perf_counter() - began:,.0f} s")
    return 0 if all(_equal(line) for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
