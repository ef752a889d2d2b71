"""The card of a breach, or of a freeze by hand: what it is, what to do, and the thaw."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import msgspec
from starlette.responses import Response

from holdover.catalogue import Entry
from holdover.console.console import Ask, Console, Part
from holdover.console.login import checked
from holdover.runtime import Alert, Breach, Freeze, ThawRefused, ThawRequest
from holdover.runtime.axes import axes_in_use, in_words
from holdover.runtime.bundle import SUFFIX, BadBundle, Bundle, Mutated
from holdover.runtime.cells import TRANSITIONS
from holdover.runtime.thawing import thaw

log = logging.getLogger("holdover.console")

_MUTATIONS: Final = 20


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the response, and who has done it when (ns)."""

    number: int
    step: str
    done_when: str
    by: str = ""
    time_ns: int = 0


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a breach, its freeze and its page; each may be missing."""

    breach: Breach | None
    freeze: Freeze | None
    alert: Alert | None
    entry: Entry | None
    steps: list[Step]

    @property
    def path(self) -> str:
        """Where the card stands."""
        if self.breach is not None:
            return f"/breach/{self.breach.number}"
        return f"/freeze/{self.freeze.number}" if self.freeze is not None else "/"

    @property
    def done(self) -> int:
        """How many steps are ticked off."""
        return sum(bool(step.by) for step in self.steps)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One of the last mutations: which record, and field by field what stood there before and after."""

    seq: int
    time_ns: int
    subsystem: str
    kind: str
    cause: str
    fields: list[tuple[str, str, str]]


def card_of(console: Console, number: int, freeze: Freeze | None) -> Card:
    """The card of the breach of that number, or of a freeze without one."""
    store = console.store
    breach = store.breach(number) if number else None
    if breach is not None and freeze is None:
        freeze = next((one for one in store.in_force() if one.breach == breach.number), None)
    invariant = breach.invariant if breach is not None else ""
    known = console.catalogue.invariants.get(invariant)
    entry = known.entry if known is not None else None
    alert = None
    if breach is not None:
        key = f"{breach.invariant}/{breach.scope}"
        found = [one for one in store.alerts(resolved=True) if one.page.dedup_key == key]
        alert = next((one for one in found if one.page.number == breach.number), None)
    ticks = store.ticks(number) if number else {}
    told = [(step.step, step.done_when) for step in entry.response] if entry is not None else []
    if entry is None and alert is not None:
        told = [(step, "") for step in alert.page.steps]  # of a catalogue that is not here: as the page said it
    steps = [
        Step(number=at, step=step, done_when=done, by=ticks[at][0], time_ns=ticks[at][1])
        if at in ticks
        else Step(number=at, step=step, done_when=done)
        for at, (step, done) in enumerate(told, 1)
    ]
    return Card(breach=breach, freeze=freeze, alert=alert, entry=entry, steps=steps)


def last_changes(console: Console, number: int) -> tuple[list[Change], str]:
    """The last mutations before a breach as its bundle keeps them, the latest first; or why they are not to be had."""
    path = console.config.directory / "bundles" / f"breach-{number}{SUFFIX}"
    if not path.exists():
        return [], ""
    try:
        lines = Bundle.open(path).parts.get("mutations.jsonl", b"").splitlines()
        told = [msgspec.json.decode(line, type=Mutated) for line in lines[-_MUTATIONS:]]
    except (BadBundle, msgspec.MsgspecError) as problem:
        return [], f"The bundle cannot be read: {problem}"
    return [_change(one) for one in reversed(told)], ""


def _change(one: Mutated) -> Change:
    before: dict[str, Any] = one.before or {}
    fields = [
        (name, str(before.get(name, "")), str(value))
        for name, value in one.record.items()
        if before.get(name) != value or name == "cl_ord_id"
    ]
    kind = one.kind if one.before is not None else f"{one.kind} (new)"
    return Change(seq=one.seq, time_ns=one.time_ns, subsystem=one.subsystem, kind=kind, cause=one.cause, fields=fields)


def show(ask: Ask) -> Response:
    """The card of a breach."""
    card = card_of(ask.console, ask.number(), None)
    if card.breach is None:
        return ask.lost("There is no breach of that number.")
    return _page(ask, card)


def show_freeze(ask: Ask) -> Response:
    """The card of a freeze: its breach's, where it has one."""
    freeze = _freeze(ask)
    if freeze is None:
        return ask.lost("Nothing is frozen under that number; it may have been thawed.")
    return _page(ask, card_of(ask.console, freeze.breach, freeze))


def tick(ask: Ask) -> Response:
    """A step is done."""
    card = card_of(ask.console, ask.number(), None)
    told = ask.text("step", 3)
    numbers = {str(step.number): step.number for step in card.steps}
    if card.breach is None or told not in numbers:
        return ask.lost("There is no such step.")
    ask.console.store.tick(card.breach.number, numbers[told], ask.who.user.name, ask.console.clock())
    return ask.back(card.path, "ticked")


def thaw_it(ask: Ask) -> Response:
    """A thaw, as the form says; by a second person's word where he gives his password.

    It ends every freeze of the scope, so the form names those that the operator had before him, and no other is ended.
    """
    freeze = _freeze(ask)
    if freeze is None:
        return ask.lost("Nothing is frozen under that number; it may have been thawed.")
    card = card_of(ask.console, freeze.breach, freeze)
    operator = ask.who.user.name
    missing = [name for name in ("reason", "evidence") if not ask.text(name)]
    if missing:
        said = f"The thaw needs {' and '.join(missing)}: say why, and what you have seen."
        return _page(ask, card, status=422, problem=said)
    there = [one for one in ask.console.store.in_force() if one.scope == freeze.scope]
    seen = {freeze.number, *(int(told) for told in ask.text("seen").split(",") if re.fullmatch("[0-9]{1,15}", told))}
    if any(one.number not in seen for one in there):
        said = "Not thawed: another freeze of this scope has come since you opened the page. Look at it first."
        return _page(ask, card, status=409, problem=said)
    second, problem, status = _second(ask, operator)
    if problem:
        return _page(ask, card, status=status, problem=problem)
    request = ThawRequest(
        number=0,
        scope=freeze.scope,
        operator=operator,
        reason=ask.text("reason"),
        evidence=ask.text("evidence"),
        forced_by=second,
    )
    try:
        thaw(ask.console.config, ask.console.store, request, wait_s=ask.console.wait_s, clock=ask.console.clock)
    except ThawRefused as refused:
        log.warning("thaw of %s by %s refused: %s", freeze.scope, operator, refused)
        ask.console.store.say("thaw refused", f"{freeze.scope} by {operator}: {refused}", ask.console.clock())
        return _page(ask, card, status=409, problem=f"Not thawed: {refused}.")
    return ask.back("/", "thawed")


def _second(ask: Ask, operator: str) -> tuple[str, str, int]:
    """(the second person, "", 200), nobody when the form names none; or ("", what is wrong, status)."""
    name, password = ask.text("second_name", 64), ask.form.get("second_password", "")
    if not name and not password:
        return "", "", 200
    if name == operator:
        return "", "Not thawed: the second person must be another one than you.", 422
    user, problem, status = checked(ask.console, name, password, ask.address, "approval")
    if user is None:
        return "", f"Not thawed: the second person's word was not taken. {problem}", 403 if status == 401 else status
    if not user.may("approver"):
        said = f"{name} for {operator}: has the role {user.role}"
        ask.console.store.say("approval failed", said, ask.console.clock())
        return "", f"Not thawed: {name} is no approver.", 403
    return user.name, "", 200


def _freeze(ask: Ask) -> Freeze | None:
    number = ask.number()
    return next((one for one in ask.console.store.in_force() if one.number == number), None)


def _cell(breach: Breach) -> list[tuple[str, str]]:
    """(axis by its title, value in words) of the cell in which a breach was found."""
    titles = {one.name: one.title for one in axes_in_use()}
    return [(titles.get(name, name), word) for name, word in in_words(breach.cell).items()]


def _page(ask: Ask, card: Card, *, status: int = 200, problem: str = "") -> Response:
    console = ask.console
    scope = card.freeze.scope if card.freeze is not None else ""
    together = [one for one in console.store.in_force() if one.scope == scope and one != card.freeze]
    changes, no_changes = last_changes(console, card.breach.number) if card.breach is not None else ([], "")
    records = [
        (shown.role, shown.state, console.rules.value(dict(shown.fields)))
        for shown in (card.breach.records if card.breach is not None else [])
    ]
    return ask.render(
        "card.html",
        status=status,
        card=card,
        together=together,
        seen=",".join(str(one.number) for one in [*together, *([card.freeze] if card.freeze is not None else [])]),
        changes=changes,
        no_changes=no_changes,
        records=records,
        cell=_cell(card.breach) if card.breach is not None else [],
        came_by=TRANSITIONS.get(card.breach.after, "") if card.breach is not None else "",
        problem=problem,
        reason=ask.text("reason"),
        evidence=ask.text("evidence"),
        second_name=ask.text("second_name", 64),
        same_catalogue=card.breach is None or card.breach.digest == console.catalogue.digest,
    )


NAV: Final = None
PARTS: Final = (
    Part(path="/breach/{number:int}", answer=show),
    Part(path="/breach/{number:int}/tick", answer=tick, method="POST", role="operator"),
    Part(path="/freeze/{number:int}", answer=show_freeze),
    Part(path="/freeze/{number:int}/thaw", answer=thaw_it, method="POST", role="operator"),
)
