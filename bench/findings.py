"""Plays the stories of docs/findings/SUBJECT and writes the table, for one release of a foreign system or several.

    python bench/findings.py nautilus --markdown docs/findings/nautilus.md [--python 1.211.0=/path/to/python ...]
    python bench/findings.py freqtrade --markdown docs/findings/freqtrade.md

Another release is asked by its own interpreter, which needs what the subject's extra has beside it. A release "holds" a
story that was played to its end there without any breach. `about.toml` beside the stories says of each what it shows,
where it comes from and how a mistake of the adapter was excluded, and under `page` what the page says of the system.
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
FINDINGS = HOUSE / "docs" / "findings"
SUBJECTS = sorted(path.parent.name for path in FINDINGS.glob("*/about.toml"))
UNDISTURBED = "undisturbed"


def main() -> int:
    """0 when every story has been played, 3 when a release could not say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--python", action="append", default=[], metavar="RELEASE=PATH")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--here", action="store_true", help="only this interpreter's release, as JSON")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(played(arguments.subject)))
        return 0
    found = {importlib.metadata.version(about(arguments.subject)["page"]["package"]): played(arguments.subject)}
    for one in arguments.python:
        release, _, path = one.partition("=")
        found[release] = elsewhere(path, arguments.subject)
    text = table(
        arguments.subject, dict(sorted(found.items(), key=lambda item: [int(part) for part in item[0].split(".")]))
    )
    if arguments.markdown:
        arguments.markdown.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 3 if any("could not" in told for release in found.values() for told in release.values()) else 0


def about(subject: str) -> dict[str, Any]:
    """What there is to say of a system, and of each story."""
    return tomllib.loads((FINDINGS / subject / "about.toml").read_text(encoding="utf-8"))


def played(subject: str) -> dict[str, str]:
    """What each story comes to here: the first breach, or that it holds."""
    from holdover.explore.play import Player, store_for
    from holdover.explore.schedule import read_schedule

    found: dict[str, str] = {}
    stories = {path.stem: read_schedule(path) for path in sorted((FINDINGS / subject).glob("*.json"))}
    first = next(iter(stories.values()))
    stories[UNDISTURBED] = first.replace(operations=[], settings={}, name=UNDISTURBED, expect="")
    for name, schedule in stories.items():
        with tempfile.TemporaryDirectory() as place:
            player = Player(
                schedule, store_for(schedule, None), Path(place), journal=False, scratch=True, to_breach=True
            )
            told = about(subject)
            player.until = (0, told.get(name, {}).get("minutes", told["page"]["minutes"]) * 60)
            shown = player.play()
            player.close()
        found[name] = shown.crash[:120] if shown.crash else shown.mark or "holds"
    return found


def elsewhere(path: str, subject: str) -> dict[str, str]:
    """The same by another interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(HOUSE / "src")}
    asked = subprocess.run(
        [path, __file__, subject, "--here"], capture_output=True, text=True, env=environment, check=False
    )
    if asked.returncode:
        last = (asked.stderr.strip().splitlines() or ["no word"])[-1]
        return dict.fromkeys(
            [*(one.stem for one in (FINDINGS / subject).glob("*.json")), UNDISTURBED], f"could not say: {last[:100]}"
        )
    answer: dict[str, str] = json.loads(asked.stdout.strip().splitlines()[-1])
    return answer


def table(subject: str, found: dict[str, dict[str, str]]) -> str:
    """The page."""
    stories = about(subject)
    page = stories.pop("page")
    from holdover.explore.schedule import read_schedule

    lines = [
        f"# What was found in {page['system']}",
        "",
        f"Made with `python bench/findings.py {subject}` on the first {page['minutes']} minutes of ACME of 2024-11-27",
        f"(simulated; longer where a story needs it), with the adapter's own strategy. Each story is a schedule in "
        f"the folder `{subject}/`:",
        "`holdover replay` shows it. A cell is the first breach that a release has shown, or that it holds.",
        "",
        "| story | operations | " + " | ".join(found) + " |",
        "|---|---|" + "---|" * len(found),
    ]
    for name in [UNDISTURBED, *stories]:
        words = "-"
        if name != UNDISTURBED:
            schedule = read_schedule(FINDINGS / subject / f"{name}.json")
            words = "; ".join(schedule.story())
            if schedule.settings:
                words += f" ({json.dumps(schedule.settings)})"
        lines.append(
            f"| {name} | {words} | " + " | ".join(one.get(name, "not played") for one in found.values()) + " |"
        )
    if "undisturbed" in page and any(one[UNDISTURBED] != "holds" for one in found.values()):
        lines += ["", f"## {UNDISTURBED}", "", page["undisturbed"]]
    for name, told in stories.items():
        lines += ["", f"## {name}", "", told["what"], "", f"Where: {told['where']}.", ""]
        lines.append(f"Not the adapter: {told['excluded']}")
    lines += ["", "## What it has no word for", "", page["unspoken"], ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
