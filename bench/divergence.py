"""Measure the time and peak memory of comparing two journals.

python bench/divergence.py --orders 1000000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from holdover.shadow import compare_orders


def write(path: Path, orders: int, differs: int) -> None:
    """A journal of so many orders, each new and then filled; one in `differs` at another price."""
    record = (
        '"root_cl_ord_id":"C-{0:08d}","cl_ord_id":"C-{0:08d}","symbol":"IBM","side":"1","order_qty":100,"account":"A1"'
    )
    line = (
        '{{"seq":{1},"time_ns":{1},"subsystem":"orders","kind":"Order","record":{{' + record + ',"price":{2},{3}}}}}\n'
    )
    with open(path, "w", encoding="utf-8") as file:
        for number in range(orders):
            price = 5_000 + (differs > 0 and number % differs == 0)
            for state in ('"leaves_qty":100,"ord_status":"0"', '"leaves_qty":0,"cum_qty":100,"ord_status":"2"'):
                file.write(line.format(number, 2 * number, price, state))


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=1_000_000)
    orders = parser.parse_args().orders
    with tempfile.TemporaryDirectory() as directory:
        reference_path, changed_path = Path(directory) / "one.jsonl", Path(directory) / "other.jsonl"
        write(reference_path, orders, 0)
        write(changed_path, orders, 1000)
        began = time.perf_counter()
        comparison = compare_orders(reference_path, changed_path)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{comparison.orders:,} orders, {comparison.differing:,} differ: {seconds:.1f} s, {peak:.0f} MiB at most")


if __name__ == "__main__":
    main()
