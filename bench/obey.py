"""How soon a freeze that one process sets is obeyed by another: from its commit to the last message that still leaves.

    python bench/obey.py [--freezes 20]

Another process asks its guard without pause whether an order may leave; this one freezes, waits for the refusal, thaws.
For a store in a file, and on a PostgreSQL server of the bench's own (`pip install pgserver`). A negative time is a last
message before the commit. `bound` is `obey_within_ms`; a freeze itself costs what is in the last column.
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

from table import told_machine

from holdover.model import MsgType, Request, Side
from holdover.runtime import FreezeStore, Guard, read_config


def asking(config: str) -> None:
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


def measured(place: Path, url: str, bound_ms: float, freezes: int) -> tuple[list[float], list[float]]:
    """(ms from the commit to the last message, ms that a freeze costs) of each freeze."""
    place.mkdir()
    store = ""
    if url:
        (place / "url").write_text(url)
        (place / "url").chmod(0o600)
        store = f'[store]\nurl_file = "url"\nschema = "b{place.name.replace("-", "")}"\n'
    config = place / "desk.toml"
    config.write_text(
        f'[guard]\ndirectory = "g"\nobey_within_ms = {bound_ms}\njournal = false\n[pages]\nlog = false\n{store}'
    )
    other = subprocess.Popen([sys.executable, __file__, "--asking", str(config)], stdout=subprocess.PIPE)
    pipe: Any = other.stdout
    assert pipe.readline() == b"up\n"
    own: FreezeStore = read_config(config).open_store()
    late, cost = [], []
    for number in range(freezes):
        began = time.monotonic_ns()
        own.freeze("instrument:IBM", [], "bench", "to measure", number)
        frozen = time.monotonic_ns()
        late.append((int(pipe.readline()) - frozen) / 1e6)
        cost.append((frozen - began) / 1e6)
        own.thaw("instrument:IBM", "bench", "measured", "this bench", "", number)
        assert pipe.readline() == b"again\n"
    other.kill()
    other.wait()
    own.close()
    return late, cost


def main() -> None:
    """Print the table and write it as JSON beside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--freezes", type=int, default=20)
    parser.add_argument("--asking", default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("out/bench/obey.json"))
    told = parser.parse_args()
    if told.asking:
        asking(told.asking)
    rows = []
    print(f"{'store':<12}{'bound ms':>9}{'median ms':>11}{'worst ms':>10}{'a freeze, ms':>14}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        import pgserver

        server = pgserver.get_server(place / "postgres")
        for number, (name, url, bound) in enumerate(
            (name, url, bound)
            for name, url in (("file", ""), ("postgresql", server.get_uri()))
            for bound in (0.0, 100.0, 500.0)
        ):
            late, cost = measured(place / f"run-{number}", url, bound, told.freezes)
            row = {"store": name, "bound_ms": bound, "median_ms": statistics.median(late), "worst_ms": max(late)}
            rows.append({**row, "freeze_ms": statistics.median(cost)})
            print(
                f"{name:<12}{bound:>9.0f}{statistics.median(late):>11.2f}{max(late):>10.2f}{rows[-1]['freeze_ms']:>14.2f}"
            )
        server.cleanup()
    told.out.parent.mkdir(parents=True, exist_ok=True)
    machine = told_machine("psycopg")
    told.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    assert all(row["worst_ms"] <= max(row["bound_ms"], 50.0) for row in rows), "a bound was not kept"


if __name__ == "__main__":
    main()
