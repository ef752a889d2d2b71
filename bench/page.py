"""Put the tables of the benchmarks into docs/performance.md.

    python bench/page.py

The script replaces the text between `<!-- bench NAME -->` and `<!-- end -->` with the rows of
out/bench/NAME.json and a line about the machine. A table whose file does not exist stays unchanged.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from table import OUT_DIRECTORY, format_machine, format_value

PAGE = Path("docs/performance.md")
LEFT_OUT = {"points run", "breaches"}


def format_table(data: dict[str, Any]) -> str:
    """The rows as Markdown."""
    rows = data["rows"]
    heads = [head for head in dict.fromkeys(head for row in rows for head in row) if head not in LEFT_OUT]
    plain = [all(not isinstance(row.get(head), (int, float)) for row in rows) for head in heads]
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join("---" if flag else "---:" for flag in plain) + "|"]
    lines += ["| " + " | ".join(format_value(row.get(head, "")) for head in heads) + " |" for row in rows]
    about = data.get("machine", {})
    machine_line = f"\n{format_machine(about)}\n" if "versions" in about else ""
    return "\n".join(lines) + "\n" + machine_line


def main() -> None:
    """Fill them in."""
    page = PAGE.read_text(encoding="utf-8")

    def fill_place(match: re.Match[str]) -> str:
        path = OUT_DIRECTORY / f"{match[1]}.json"
        if not path.exists() or "rows" not in path.read_text():
            return match[0]
        return f"<!-- bench {match[1]} -->\n\n{format_table(json.loads(path.read_text()))}\n<!-- end -->"

    PAGE.write_text(re.sub(r"<!-- bench (\S+) -->.*?<!-- end -->", fill_place, page, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
