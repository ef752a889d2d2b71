"""Plays the stories of docs/findings/nautilus and writes the table, for one release of NautilusTrader or several.

    python bench/nautilus.py --markdown docs/findings/nautilus.md [--python 1.211.0=/path/to/python ...]

Another release is asked by its own interpreter, which needs msgspec and tqdm beside it. A release "holds" a story that
was played to its end there without any breach.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).parent.parent
STORIES = HOUSE / "docs" / "findings" / "nautilus"
UNDISTURBED = "undisturbed"
SECONDS = 900


def main() -> int:
    """0 when every story has been played, 3 when a release could not say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", default=[], metavar="RELEASE=PATH")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--here", action="store_true", help="only this interpreter's release, as JSON")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(played()))
        return 0
    found = {importlib.metadata.version("nautilus_trader"): played()}
    for one in arguments.python:
        release, _, path = one.partition("=")
        found[release] = elsewhere(path)
    text = table(dict(sorted(found.items(), key=lambda item: [int(part) for part in item[0].split(".")])))
    if arguments.markdown:
        arguments.markdown.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 3 if any("could not" in told for release in found.values() for told in release.values()) else 0


def played() -> dict[str, str]:
    """What each story comes to here: the first breach, or that it holds."""
    from holdover.explore.play import Player, store_for
    from holdover.explore.schedule import read_schedule

    found: dict[str, str] = {}
    stories = {path.stem: read_schedule(path) for path in sorted(STORIES.glob("*.json"))}
    first = next(iter(stories.values()))
    stories[UNDISTURBED] = first.replace(operations=[], settings={}, name=UNDISTURBED, expect="")
    for name, schedule in stories.items():
        with tempfile.TemporaryDirectory() as place:
            player = Player(
                schedule, store_for(schedule, None), Path(place), journal=False, scratch=True, to_breach=True
            )
            player.until = (0, SECONDS)
            told = player.play()
            player.close()
        found[name] = told.crash[:120] if told.crash else told.mark or "holds"
    return found


def elsewhere(path: str) -> dict[str, str]:
    """The same by another interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(HOUSE / "src")}
    asked = subprocess.run([path, __file__, "--here"], capture_output=True, text=True, env=environment, check=False)
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no word"])[-1]
        return dict.fromkeys(
            [*(one.stem for one in STORIES.glob("*.json")), UNDISTURBED], f"could not say: {last[:100]}"
        )
    answer: dict[str, str] = json.loads(asked.stdout.strip().splitlines()[-1])
    return answer


def table(found: dict[str, dict[str, str]]) -> str:
    """The page."""
    about: dict[str, Any] = tomllib.loads((STORIES / "about.toml").read_text(encoding="utf-8"))
    from holdover.explore.schedule import read_schedule

    lines = [
        "# What was found in NautilusTrader",
        "",
        f"Made with `python bench/nautilus.py` on the first {SECONDS // 60} minutes of ACME of 2024-11-27",
        "(simulated), with the adapter's own strategy. Each story is a schedule in the folder `nautilus/`:",
        "`holdover replay` shows it. A cell is the first breach that a release has shown, or that it holds.",
        "",
        "| story | operations | " + " | ".join(found) + " |",
        "|---|---|" + "---|" * len(found),
    ]
    for name in [UNDISTURBED, *about]:
        words = "-"
        if name != UNDISTURBED:
            schedule = read_schedule(STORIES / f"{name}.json")
            words = "; ".join(schedule.story())
            if schedule.settings:
                words += f" ({json.dumps(schedule.settings)})"
        lines.append(
            f"| {name} | {words} | " + " | ".join(one.get(name, "not played") for one in found.values()) + " |"
        )
    if any(one[UNDISTURBED] != "holds" for one in found.values()):
        lines += [
            "",
            f"## {UNDISTURBED}",
            "",
            "The average price of an order that is filled in several parts is skewed: the older releases weigh it",
            "by a filled quantity that has the new fill in it already.",
            "",
            "Where: `Order._calculate_avg_px`, mended in 1.221.",
        ]
    for name, told in about.items():
        lines += ["", f"## {name}", "", told["what"], "", f"Where: {told['where']}.", ""]
        lines.append(f"Not the adapter: {told['excluded']}")
    lines += [
        "",
        "## What it has no word for",
        "",
        "Busts, corrections and splits: there is no event for them, so the client can only count them. A search",
        "with those kinds shows the difference from the venue at once, and that is no finding.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
