"""The verbs of the command line: their groups, modules and sentences.

The table is all that `holdover --help` needs, so that the help imports no module of a verb.
"""

from __future__ import annotations

from typing import Final

import msgspec


class Verb(msgspec.Struct, frozen=True):
    """One verb: the module of `holdover.cli` that adds it, and the sentence of the help."""

    module: str
    sentence: str


GROUPS: Final[dict[str, dict[str, Verb]]] = {
    "test": {
        "cycle": Verb("cycle", "Run a system over recorded days and compare it with a fresh start each day."),
        "carry": Verb("carry", "Run a process behind FIX from yesterday's state and from an empty state."),
        "gate": Verb("gate", "Check everything that a merge needs: state tests, coverage, catalogue, corpus."),
        "coverage": Verb("coverage", "Report state coverage, compare runs, manage rules, waivers and thresholds."),
        "snapshot": Verb("snapshot", "Take, list, show, compare and restore snapshots of the full state."),
        "subject": Verb("subject", "Check that a system can be put under test."),
    },
    "explore": {
        "sweep": Verb("explore", "Try every fault at every mutation and message of a recorded day."),
        "search": Verb("find", "Search for failures from an archive of reached states."),
        "replay": Verb("explore", "Play a schedule; it gives the same journal on every machine."),
        "shrink": Verb("find", "Shrink a failing schedule to the shortest one with the same failure."),
        "corpus": Verb("find", "Check, list, play, extend and prune the corpus of saved schedules."),
        "bundle": Verb("bundle", "Pack a schedule's breach, with everything it needs, into one file."),
        "reproduce": Verb("bundle", "Reproduce the breach of a bundle and write its regression test."),
    },
    "guard and operate": {
        "status": Verb("guard", "Show what is frozen, and why."),
        "freeze": Verb("guard", "Freeze a scope manually, as a named operator."),
        "thaw": Verb("guard", "End the freezes of a scope, as a named operator."),
        "pages": Verb("guard", "Show every alert with the operator's steps."),
        "ack": Verb("guard", "Acknowledge an alert, so that it does not escalate."),
        "health": Verb("guard", "Show the health of each guarded process."),
        "audit-log": Verb("guard", "Show who did what, and verify the audit log."),
        "observe": Verb("observe", "Report what a guard in observe mode would have frozen."),
        "serve": Verb("serve", "Serve the operator's web console."),
        "users": Verb("serve", "Add, list and remove the users of the console, and change passwords."),
        "config": Verb("config", "Check a guard's configuration."),
        "watch": Verb("watch", "Check a journal, a FIX log or a stream while it is written."),
    },
    "shadow and incidents": {
        "shadow": Verb("shadow", "Run a candidate as a shadow of the incumbent before it goes live."),
        "cutover": Verb("cutover", "Check whether the candidate may go live."),
        "incidents": Verb("incidents", "List, acknowledge, diagnose and resolve incidents; report their rates."),
    },
    "data": {
        "recording": Verb("recording", "Import, list, show, verify, choose and record market days."),
        "audit": Verb("audit", "Check existing FIX logs against the catalogue."),
        "catalogue": Verb("catalogue", "List, show and check the invariants, and write the operator's book."),
    },
    "advanced": {
        "venue": Verb("venue", "Serve the simulated venue over FIX."),
        "desk": Verb("desk", "Run the reference desk live over FIX, and send it requests."),
        "faults": Verb("find", "Measure which method finds each seeded fault of the reference desk."),
    },
}
"""The verbs by task, in the order of the help."""

VERBS: Final[dict[str, Verb]] = {name: verb for verbs in GROUPS.values() for name, verb in verbs.items()}
"""Every verb by its name."""


def list_modules() -> list[str]:
    """Return the modules that add verbs, in the order of the help."""
    return list(dict.fromkeys(verb.module for verb in VERBS.values()))
