"""Play the schedules in docs/findings/SUBJECT and write a table of the results by release.

    python bench/findings.py nautilus --markdown docs/findings/nautilus.md [--python 1.211.0=/path/to/python ...]
    python bench/findings.py freqtrade --markdown docs/findings/freqtrade.md

To test another release, name its interpreter with `--python`; the interpreter needs the packages of the
subject's extra. A release "holds" a schedule when the schedule plays to its end without a breach. The file
`about.toml` in the same folder describes each schedule: what it shows, where it comes from, and why the
adapter is not the cause. Its table `page` holds the text about the system.
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

ROOT = Path(__file__).parent.parent
FINDINGS = ROOT / "docs" / "findings"
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
        print(json.dumps(play_stories(arguments.subject)))
        return 0
    results = {
        importlib.metadata.version(load_about(arguments.subject)["page"]["package"]): play_stories(arguments.subject)
    }
    for option in arguments.python:
        release, _, path = option.partition("=")
        results[release] = play_stories_with(path, arguments.subject)
    text = table(
        arguments.subject, dict(sorted(results.items(), key=lambda item: [int(part) for part in item[0].split(".")]))
    )
    if arguments.markdown:
        arguments.markdown.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 3 if any("could not" in outcome for release in results.values() for outcome in release.values()) else 0


def load_about(subject: str) -> dict[str, Any]:
    """What there is to say of a system, and of each story."""
    return tomllib.loads((FINDINGS / subject / "about.toml").read_text(encoding="utf-8"))


def play_stories(subject: str) -> dict[str, str]:
    """What each story comes to here: the first breach, or that it holds."""
    from holdover.harness.player import Player
    from holdover.harness.schedule import open_store_for, read_schedule

    outcomes: dict[str, str] = {}
    stories = {path.stem: read_schedule(path) for path in sorted((FINDINGS / subject).glob("*.json"))}
    first = next(iter(stories.values()))
    stories[UNDISTURBED] = first.replace(operations=[], settings={}, name=UNDISTURBED, expect="")
    for name, schedule in stories.items():
        with tempfile.TemporaryDirectory() as directory:
            player = Player(
                schedule, open_store_for(schedule, None), Path(directory), journal=False, scratch=True, to_breach=True
            )
            notes = load_about(subject)
            player.end_at = (0, notes.get(name, {}).get("minutes", notes["page"]["minutes"]) * 60)
            shown = player.play()
            player.close()
        outcomes[name] = shown.crash[:120] if shown.crash else shown.mark or "holds"
    return outcomes


def play_stories_with(path: str, subject: str) -> dict[str, str]:
    """The same by another interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    completed = subprocess.run(
        [path, __file__, subject, "--here"], capture_output=True, text=True, env=environment, check=False
    )
    if completed.returncode:
        last = (completed.stderr.strip().splitlines() or ["no word"])[-1]
        return dict.fromkeys(
            [*(story_path.stem for story_path in (FINDINGS / subject).glob("*.json")), UNDISTURBED],
            f"could not say: {last[:100]}",
        )
    answer: dict[str, str] = json.loads(completed.stdout.strip().splitlines()[-1])
    return answer


def table(subject: str, results: dict[str, dict[str, str]]) -> str:
    """Return the page of one system as Markdown: the results by release, then each story."""
    stories = load_about(subject)
    page = stories.pop("page")
    from holdover.harness.schedule import read_schedule

    lines = [
        f"# What was found in {page['system']}",
        "",
        f"Made with `python bench/findings.py {subject}` on the first {page['minutes']} minutes of ACME of 2024-11-27",
        f"(simulated; longer where a story needs it), with the adapter's own strategy. Each story is a schedule in "
        f"the directory `{subject}/`;",
        "to play it, run `holdover replay`. A cell names the first breach of a release, or that the story holds.",
        "",
        "| story | operations | " + " | ".join(results) + " |",
        "|---|---|" + "---|" * len(results),
    ]
    for name in [UNDISTURBED, *stories]:
        words = "-"
        if name != UNDISTURBED:
            schedule = read_schedule(FINDINGS / subject / f"{name}.json")
            words = "; ".join(schedule.describe())
            if schedule.settings:
                words += f" ({json.dumps(schedule.settings)})"
        lines.append(
            f"| {name} | {words} | "
            + " | ".join(outcomes.get(name, "not played") for outcomes in results.values())
            + " |"
        )
    if "undisturbed" in page and any(outcomes[UNDISTURBED] != "holds" for outcomes in results.values()):
        lines += ["", f"## {UNDISTURBED}", "", page["undisturbed"]]
    for name, story in stories.items():
        lines += ["", f"## {name}", "", story["summary"], "", f"Where: {story['where']}.", ""]
        lines.append(f"Not the adapter: {story['excluded']}")
    lines += ["", "## Not supported", "", page["unsupported"], ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
