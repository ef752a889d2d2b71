"""Measure the memory and the time of `holdover audit` and `holdover watch` on logs of growing size.

    python bench/audit_memory.py [--megabytes 50 300] [--verbs audit watch] [--no-line-ends]

The log is the one of `bench/audit.py`: orders that are filled in five executions each, both directions, with
heartbeats. With `--no-line-ends` the same messages stand in one line. A measurement is one process: its largest
resident memory as the operating system reports it, and its wall-clock time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from audit import Log
from table import machine


def write_log(path: Path, size: int, *, has_line_ends: bool) -> int:
    """Write a log of at least that many bytes; return the number of messages."""
    log = Log(b"\x01", b"", True)
    order_number = execution = messages = written = 0
    with open(path, "wb") as file:
        while written < size:
            for _ in range(2_000):
                order_number += 1
                order = {"_11": f"ORD{order_number}", "_55": f"SYM{order_number % 50}", "_54": 1, "_38": 500}
                order |= {"_44": "101.25", "_40": 2, "_59": 0}
                log.add("C", "D", _1="ACC", **order, _60="20240102-09:30:00")
                for fill in range(6):
                    execution += 1
                    fields = {"_37": f"V{order_number}", "_17": f"E{execution}", "_150": "F" if fill else "0"}
                    fields |= {"_39": "0" if not fill else "2" if fill == 5 else "1", "_14": 100 * fill}
                    fields |= {"_151": 500 - 100 * fill} | ({"_32": 100, "_31": "101.25"} if fill else {})
                    log.add("V", "8", **fields, **order, _6="101.25" if fill else 0, _60="20240102-09:30:00.123")
            messages += len(log.lines)
            content = b"".join(log.lines if has_line_ends else [line[:-1] for line in log.lines])
            log.lines.clear()
            file.write(content)
            written += len(content)
    return messages


def measure(words: list[str]) -> tuple[float, float, int]:
    """Run a command; return its seconds, its largest memory in MB and its exit code."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "holdover", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    return time.monotonic() - began, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)


def main() -> None:
    """Print the table and write it as JSON beside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--verbs", nargs="+", choices=("audit", "watch"), default=["audit", "watch"])
    parser.add_argument("--no-line-ends", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/bench/audit_memory.json"))
    arguments = parser.parse_args()
    rows = []
    print(f"{'verb':<8}{'MB':>6}{'messages':>12}{'seconds':>10}{'MB of memory':>14}{'exit code':>11}")
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "fix.log"
            messages = write_log(path, megabytes * 1_000_000, has_line_ends=not arguments.no_line_ends)
            for verb in arguments.verbs:
                words = [verb, str(path)] if verb == "audit" else [verb, str(path), "--once", "--format", "fix"]
                seconds, memory, code = measure(words)
                rows.append({"verb": verb, "megabytes": megabytes, "messages": messages, "seconds": seconds})
                rows[-1] |= {"memory_mb": memory, "exit_code": code, "line_ends": not arguments.no_line_ends}
                print(f"{verb:<8}{megabytes:>6}{messages:>12,}{seconds:>10.1f}{memory:>14,.0f}{code:>11}", flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    page_size = resource.getpagesize()
    arguments.out.write_text(json.dumps({"machine": machine(), "page_size": page_size, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
