"""Puts the tables that the benchmarks have written into docs/performance.md, each where a comment names it.

    python bench/page.py

A place is `<!-- bench NAME -->` with everything up to `<!-- end -->`: the rows of out/bench/NAME.json, and on what they
were measured. A table whose file is not there stays as it is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from table import OUT, line_of, said

PAGE = Path("docs/performance.md")
LEFT_OUT = {"points run", "breaches"}


def table_of(told: dict[str, Any]) -> str:
    """The rows as Markdown."""
    rows = told["rows"]
    heads = [head for head in dict.fromkeys(head for row in rows for head in row) if head not in LEFT_OUT]
    plain = [all(not isinstance(row.get(head), (int, float)) for row in rows) for head in heads]
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join("---" if flag else "---:" for flag in plain) + "|"]
    lines += ["| " + " | ".join(said(row.get(head, "")) for head in heads) + " |" for row in rows]
    about = told.get("machine", {})
    where = f"\n{line_of(about)}\n" if "versions" in about else ""
    return "\n".join(lines) + "\n" + where


def main() -> None:
    """Fill them in."""
    page = PAGE.read_text(encoding="utf-8")

    def filled(match: re.Match[str]) -> str:
        path = OUT / f"{match[1]}.json"
        if not path.exists() or "rows" not in path.read_text():
            return match[0]
        return f"<!-- bench {match[1]} -->\n\n{table_of(json.loads(path.read_text()))}\n<!-- end -->"

    PAGE.write_text(re.sub(r"<!-- bench (\S+) -->.*?<!-- end -->", filled, page, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
