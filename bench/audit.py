"""Measure how many messages of a FIX log `holdover audit` judges per second.

    python bench/audit.py [--messages 200000] [--rounds 3]

The script writes three logs. `fills` holds orders that are filled in five executions each, both directions,
with heartbeats. `drop copy` holds only the execution reports of `fills`. `decimals` is `fills` with
quantities and prices in many decimals, `|` between the fields, and a time stamp before each message. A
measurement covers the whole audit, from the bytes of the log to the verdict, in wall-clock time and in
processor time (other work on the machine does not lengthen the latter). The script prints the medians of the
rounds.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from decimal import Decimal
from pathlib import Path

from table import print_machine

from holdover.audit import Audit
from holdover.catalogue import Catalogue


def message(separator: bytes, prefix: bytes, **fields: object) -> bytes:
    """One line of a log; the keywords are tags with an underscore before them."""
    body = "".join(f"{tag[1:]}={value}\x01" for tag, value in fields.items()).encode()
    text = b"8=FIX.4.4\x019=%d\x01" % len(body) + body
    return prefix + (text + b"10=%03d\x01" % (sum(text) % 256)).replace(b"\x01", separator) + b"\n"


class Log:
    """Lines of both directions with their numbers."""

    def __init__(self, separator: bytes, prefix: bytes, requests: bool) -> None:
        self.separator, self.prefix, self.requests = separator, prefix, requests
        self.lines: list[bytes] = []
        self.seq = {"C": 0, "V": 0}

    def add(self, party: str, kind: str, **fields: object) -> None:
        """One message more."""
        if party == "C" and not self.requests:
            return
        self.seq[party] += 1
        number = len(self.lines)
        clock = (
            f"{number // 3_600_000 % 24:02d}:{number // 60_000 % 60:02d}:{number // 1000 % 60:02d}.{number % 1000:03d}"
        )
        parties = ("CLIENT", "VENUE") if party == "C" else ("VENUE", "CLIENT")
        head = {"_35": kind, "_34": self.seq[party], "_49": parties[0], "_52": f"20240102-{clock}", "_56": parties[1]}
        self.lines.append(message(self.separator, self.prefix, **head, **fields))


def write(kind: str, messages: int) -> bytes:
    """A log of about that many messages."""
    decimals = kind == "decimals"
    log = Log(
        b"|" if decimals else b"\x01", b"2024-01-02 09:30:00,123 INFO [fix] " if decimals else b"", kind != "drop copy"
    )
    lot, price = (Decimal("0.00013"), Decimal("101.257")) if decimals else (Decimal(100), Decimal("101.25"))
    number = execution = 0
    while len(log.lines) < messages:
        number += 1
        name, quantity, cum = f"ORD{number}", lot * 5, Decimal(0)
        order = {"_11": name, "_55": f"SYM{number % 50}", "_54": 1, "_38": quantity, "_44": price, "_40": 2, "_59": 0}
        log.add("C", "D", _1="ACC", **order, _60="20240102-09:30:00")
        for fill in range(6):
            execution += 1
            cum = lot * fill
            fields = {"_37": f"V{number}", "_17": f"E{execution}", "_150": "F" if fill else "0"}
            fields |= {"_39": "0" if not fill else "2" if fill == 5 else "1", "_14": cum, "_151": quantity - cum}
            fields |= {"_32": lot, "_31": price, "_30": "XNAS"} if fill else {}
            log.add("V", "8", **fields, **order, _6=price if fill else 0, _60="20240102-09:30:00.123")
        if number % 5 == 0:
            log.add("C", "0")
            log.add("V", "0")
    return b"".join(log.lines)


def measure(log: bytes, catalogue: Catalogue) -> tuple[int, float, float]:
    """(messages, seconds by the wall, seconds of the processor) of one audit that holds."""
    audit = Audit(catalogue)
    wall, processor = time.perf_counter(), time.process_time()
    audit.read("log", io.BytesIO(log))
    audit.end()
    figures = (audit.messages, time.perf_counter() - wall, time.process_time() - processor)
    assert audit.verdict == "holds", audit.breaches[:3]
    assert not audit.skipped, audit.skipped[:3]
    return figures


def main() -> None:
    """Print the table and write it as JSON beside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/bench/audit.json"))
    arguments = parser.parse_args()
    catalogue = Catalogue.load()
    rows = []
    print(f"{'log':<12}{'messages':>10}{'MB':>7}{'messages/s':>12}{'messages/s of processor':>26}")
    for kind in ("fills", "drop copy", "decimals"):
        log = write(kind, arguments.messages)
        measurements = [measure(log, catalogue) for _ in range(arguments.rounds)]
        count = measurements[0][0]
        wall, processor = (
            count / statistics.median(measurement[place] for measurement in measurements) for place in (1, 2)
        )
        rows.append({"log": kind, "messages": count, "bytes": len(log), "per_s": wall, "per_processor_s": processor})
        print(f"{kind:<12}{count:>10,}{len(log) / 1e6:>7.1f}{wall:>12,.0f}{processor:>26,.0f}", flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    machine = print_machine()
    arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
