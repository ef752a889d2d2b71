"""Measure how soon a process obeys a freeze that another process sets.

    python bench/obey.py [--freezes 20]

A second process asks its guard without pause whether an order may leave. This process freezes, waits for the
refusal and thaws. The latency runs from the commit of the freeze to the last permitted message; it is
negative when the last permitted message came before the commit. The script measures a store in a file and a
store on its own PostgreSQL server (`pip install pgserver`). `bound` is `obey_within_ms`; the last column is
the cost of the freeze itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from table import print_machine

from holdover.model import MsgType, Request, Side
from holdover.runtime import FreezeStore, Guard, read_config


def ask_permission(config: str) -> None:
    """The other process: one line at each refusal, when the last message was permitted."""
    guard = Guard.open(config)
    order = Request(
        msg_type=MsgType.NEW_ORDER_SINGLE, cl_ord_id="1", symbol="IBM", side=Side.BUY, order_qty=1, account="A"
    )
    print("up", flush=True)
    while True:
        permitted = time.monotonic_ns()
        while guard.permits(order):
            permitted = time.monotonic_ns()
        print(permitted, flush=True)
        while not guard.permits(order):
            pass
        print("again", flush=True)


def measure(directory: Path, url: str, bound_ms: float, freezes: int) -> tuple[list[float], list[float]]:
    """(ms from the commit to the last message, ms that a freeze costs) of each freeze."""
    directory.mkdir()
    store = ""
    if url:
        (directory / "url").write_text(url)
        (directory / "url").chmod(0o600)
        store = f'[store]\nurl_file = "url"\nschema = "b{directory.name.replace("-", "")}"\n'
    config = directory / "desk.toml"
    config.write_text(
        f'[guard]\ndirectory = "g"\nobey_within_ms = {bound_ms}\njournal = false\n[pages]\nlog = false\n{store}'
    )
    asker = subprocess.Popen([sys.executable, __file__, "--asking", str(config)], stdout=subprocess.PIPE)
    pipe: Any = asker.stdout
    assert pipe.readline() == b"up\n"
    freeze_store: FreezeStore = read_config(config).open_store()
    late, cost = [], []
    for number in range(freezes):
        began = time.monotonic_ns()
        freeze_store.freeze("instrument:IBM", [], "bench", "to measure", number)
        frozen = time.monotonic_ns()
        late.append((int(pipe.readline()) - frozen) / 1e6)
        cost.append((frozen - began) / 1e6)
        freeze_store.thaw("instrument:IBM", "bench", "measured", "this bench", "", number)
        assert pipe.readline() == b"again\n"
    asker.kill()
    asker.wait()
    freeze_store.close()
    return late, cost


def main() -> None:
    """Print the table and write it as JSON beside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--freezes", type=int, default=20)
    parser.add_argument("--asking", default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("out/bench/obey.json"))
    arguments = parser.parse_args()
    if arguments.asking:
        ask_permission(arguments.asking)
    rows = []
    print(f"{'store':<12}{'bound ms':>9}{'median ms':>11}{'worst ms':>10}{'a freeze, ms':>14}")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        import pgserver

        server = pgserver.get_server(directory / "postgres")
        for number, (name, url, bound) in enumerate(
            (name, url, bound)
            for name, url in (("file", ""), ("postgresql", server.get_uri()))
            for bound in (0.0, 100.0, 500.0)
        ):
            late, cost = measure(directory / f"run-{number}", url, bound, arguments.freezes)
            row = {"store": name, "bound_ms": bound, "median_ms": statistics.median(late), "worst_ms": max(late)}
            rows.append({**row, "freeze_ms": statistics.median(cost)})
            print(
                f"{name:<12}{bound:>9.0f}{statistics.median(late):>11.2f}{max(late):>10.2f}{rows[-1]['freeze_ms']:>14.2f}"
            )
        server.cleanup()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    machine = print_machine("psycopg")
    arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    assert all(row["worst_ms"] <= max(row["bound_ms"], 50.0) for row in rows), "a bound was not kept"


if __name__ == "__main__":
    main()
