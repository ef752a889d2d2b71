"""The card of a breach or of a manual freeze: what it is, what to do, and the thaw."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import msgspec
from starlette.responses import Response

from holdover.catalogue import Entry
from holdover.console.console import Console, PageRequest, PageRoute
from holdover.console.login import check_password
from holdover.console.store_pages import find_alert
from holdover.console.throttle import operator_origin
from holdover.runtime import Alert, Breach, Freeze, ThawRefusedError, ThawRequest
from holdover.runtime.axes import axes_in_use, describe_cell
from holdover.runtime.bundle import SUFFIX, Bundle, BundledMutation, BundleError
from holdover.runtime.cells import TRANSITIONS
from holdover.runtime.pasted_commands import fill_commands, thaw_command
from holdover.runtime.thaw_requests import thaw
from holdover.state import DECODE_ERRORS

log = logging.getLogger("holdover.console")

_MUTATIONS_MAX: Final = 20


class CardStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the response, and who did it when (ns)."""

    number: int
    step: str
    done_when: str
    by: str = ""
    time_ns: int = 0


class BreachCard(msgspec.Struct, frozen=True, kw_only=True):
    """A breach, its freeze, the alert of its cause and its catalogue entry; each may be missing."""

    breach: Breach | None
    freeze: Freeze | None
    alert: Alert | None
    entry: Entry | None
    steps: list[CardStep]

    @property
    def cause_number(self) -> int:
        """The number of the breach that caused this one; 0 for a freeze without a breach."""
        return self.breach.cause_number if self.breach is not None else 0

    @property
    def path(self) -> str:
        """The address of the card."""
        if self.breach is not None:
            return f"/breach/{self.breach.number}"
        return f"/freeze/{self.freeze.number}" if self.freeze is not None else "/"

    @property
    def done_count(self) -> int:
        """The number of steps that are ticked off."""
        return sum(bool(step.by) for step in self.steps)


class IncidentCard(msgspec.Struct, frozen=True, kw_only=True):
    """What has one cause: the card of the cause, the frozen consequences, and the breaches that needed no freeze."""

    head: BreachCard
    frozen: list[BreachCard] = []
    unfrozen: list[Breach] = []

    @property
    def consequence_count(self) -> int:
        """How many breaches followed from the cause."""
        return len(self.frozen) + len(self.unfrozen)

    @property
    def other_scopes(self) -> list[str]:
        """The frozen scopes of the consequences, without the one of the head."""
        head_scope = self.head.freeze.scope if self.head.freeze is not None else ""
        scopes = dict.fromkeys(card.freeze.scope for card in self.frozen if card.freeze is not None)
        return [scope for scope in scopes if scope != head_scope]


def group_cards(console: Console, cards: list[BreachCard]) -> list[IncidentCard]:
    """Returns one card for each cause of frozen breaches, and one for each freeze without a breach."""
    by_cause: dict[int, list[BreachCard]] = {}
    groups: list[IncidentCard] = []
    for card in cards:
        cause = card.cause_number or -(card.freeze.number if card.freeze is not None else 0)
        by_cause.setdefault(cause, []).append(card)
    for cause, frozen in by_cause.items():
        frozen.sort(key=lambda card: card.breach is None or card.breach.number != cause)
        frozen_numbers = {card.breach.number for card in frozen if card.breach is not None}
        breaches = console.store.breaches_by_cause(cause) if cause > 0 else []
        unfrozen = [breach for breach in breaches if breach.number not in frozen_numbers]
        groups.append(IncidentCard(head=frozen[0], frozen=frozen[1:], unfrozen=unfrozen))
    return groups


class RecordChange(msgspec.Struct, frozen=True, kw_only=True):
    """One of the last mutations: the record, and for each field the values before and after."""

    seq: int
    time_ns: int
    subsystem: str
    kind: str
    cause: str
    fields: list[tuple[str, str, str]]


def make_card(console: Console, number: int, freeze: Freeze | None) -> BreachCard:
    """Returns the card of the breach with that number, or of a freeze without a breach."""
    store = console.store
    breach = store.find_breach(number) if number else None
    if breach is not None and freeze is None:
        freeze = next((candidate for candidate in store.active_freezes() if candidate.breach == breach.number), None)
    invariant = breach.invariant if breach is not None else ""
    definition = console.catalogue.invariants.get(invariant)
    entry = definition.entry if definition is not None else None
    alert = None
    if breach is not None:
        alert = find_alert(store, breach.cause_number)
    ticks = store.done_steps(number) if number else {}
    scope, location = breach.scope if breach is not None else "", console.config.location
    step_texts = [
        (fill_commands(step.step, scope, location), fill_commands(step.done_when, scope, location))
        for step in (entry.response if entry is not None else [])
    ]
    if entry is None and alert is not None:
        step_texts = [(step, "") for step in alert.page.steps]  # the invariant is not in this catalogue
    steps = [
        CardStep(number=at, step=step, done_when=done_when, by=ticks[at][0], time_ns=ticks[at][1])
        if at in ticks
        else CardStep(number=at, step=step, done_when=done_when)
        for at, (step, done_when) in enumerate(step_texts, 1)
    ]
    return BreachCard(breach=breach, freeze=freeze, alert=alert, entry=entry, steps=steps)


def read_last_changes(console: Console, number: int) -> tuple[list[RecordChange], str]:
    """Returns the last mutations before a breach from its bundle, the latest first, or the reason why there are
    none.
    """
    path = console.config.directory / "bundles" / f"breach-{number}{SUFFIX}"
    if not path.exists():
        return [], ""
    try:
        lines = Bundle.open(path).parts.get("mutations.jsonl", b"").splitlines()
        mutations = [msgspec.json.decode(line, type=BundledMutation) for line in lines[-_MUTATIONS_MAX:]]
    except (*DECODE_ERRORS, BundleError) as problem:
        return [], f"The bundle cannot be read: {problem}"
    return [_change_of(mutation) for mutation in reversed(mutations)], ""


def _change_of(mutation: BundledMutation) -> RecordChange:
    before: dict[str, Any] = mutation.before or {}
    fields = [
        (name, str(before.get(name, "")), str(value))
        for name, value in mutation.record.items()
        if before.get(name) != value or name == "cl_ord_id"
    ]
    kind = mutation.kind if mutation.before is not None else f"{mutation.kind} (new)"
    return RecordChange(
        seq=mutation.seq,
        time_ns=mutation.time_ns,
        subsystem=mutation.subsystem,
        kind=kind,
        cause=mutation.cause,
        fields=fields,
    )


def show(request: PageRequest) -> Response:
    """Show the card of a breach."""
    card = make_card(request.console, request.number(), None)
    if card.breach is None:
        return request.not_found("There is no breach of that number.")
    return _card_page(request, card)


def show_freeze(request: PageRequest) -> Response:
    """Show the card of a freeze, or of its breach if it has one."""
    freeze = _find_freeze(request)
    if freeze is None:
        return request.not_found("Nothing is frozen under that number; it may have been thawed.")
    return _card_page(request, make_card(request.console, freeze.breach, freeze))


def tick_step(request: PageRequest) -> Response:
    """Tick off a step."""
    card = make_card(request.console, request.number(), None)
    number_text = request.text("step", 3)
    numbers = {str(step.number): step.number for step in card.steps}
    if card.breach is None or number_text not in numbers:
        return request.not_found("There is no such step.")
    request.console.store.mark_step_done(
        card.breach.number, numbers[number_text], request.session.user.name, request.console.clock()
    )
    return request.redirect(card.path, "ticked")


def thaw_freeze(request: PageRequest) -> Response:
    """Thaw, as the form says; an approver's password overrides a refusal.

    A thaw ends every freeze of the scope. The form names the freezes that the operator saw, and no other freeze is
    ended.
    """
    freeze = _find_freeze(request)
    if freeze is None:
        return request.not_found("Nothing is frozen under that number; it may have been thawed.")
    card = make_card(request.console, freeze.breach, freeze)
    operator = request.session.user.name
    missing = [name for name in ("reason", "evidence") if not request.text(name)]
    if missing:
        sentence = f"The thaw needs {' and '.join(missing)}: say why, and what you have seen."
        return _card_page(request, card, status=422, problem=sentence)
    scope_freezes = [
        candidate for candidate in request.console.store.active_freezes() if candidate.scope == freeze.scope
    ]
    seen_numbers = {
        freeze.number,
        *(int(text) for text in request.text("seen").split(",") if re.fullmatch("[0-9]{1,15}", text)),
    }
    if any(candidate.number not in seen_numbers for candidate in scope_freezes):
        sentence = "Not thawed: another freeze of this scope has come since you opened the page. Look at it first."
        return _card_page(request, card, status=409, problem=sentence)
    approver, problem, status = _check_approver(request, operator)
    if problem:
        return _card_page(request, card, status=status, problem=problem)
    thaw_request = ThawRequest(
        number=0,
        scope=freeze.scope,
        operator=operator,
        reason=request.text("reason"),
        evidence=request.text("evidence"),
        forced_by=approver,
    )
    try:
        thaw(
            request.console.config,
            request.console.store,
            thaw_request,
            wait_s=request.console.wait_s,
            clock=request.console.clock,
        )
    except ThawRefusedError as error:
        log.warning("thaw of %s by %s refused: %s", freeze.scope, operator, error)
        request.console.store.log_action(
            "thaw refused", f"{freeze.scope} by {operator}: {error}", request.console.clock()
        )
        return _card_page(request, card, status=409, problem=f"Not thawed: {error}.")
    return request.redirect("/", "thawed")


def _check_approver(request: PageRequest, operator: str) -> tuple[str, str, int]:
    """(the approver, "", 200), with no name when the form has none; or ("", the problem, status)."""
    name, password = request.text("second_name", 64), request.form.get("second_password", "")
    if not name and not password:
        return "", "", 200
    if name == operator:
        return "", "Not thawed: the second person must be another one than you.", 422
    user, problem, status = check_password(
        request.console, name, password, request.address, "approval", operator_origin(operator)
    )
    if user is None:
        return "", f"Not thawed: the second person's word was not taken. {problem}", 403 if status == 401 else status
    if not user.has_role("approver"):
        detail = f"{name} for {operator}: has the role {user.role}"
        request.console.store.log_action("approval failed", detail, request.console.clock())
        return "", f"Not thawed: {name} is no approver.", 403
    return user.name, "", 200


def _find_freeze(request: PageRequest) -> Freeze | None:
    number = request.number()
    return next((candidate for candidate in request.console.store.active_freezes() if candidate.number == number), None)


def _cell_rows(breach: Breach) -> list[tuple[str, str]]:
    """(title of the axis, value in words) of the cell in which a breach was found."""
    titles = {axis.name: axis.title for axis in axes_in_use()}
    return [(titles.get(name, name), value) for name, value in describe_cell(breach.cell).items()]


def _card_page(request: PageRequest, card: BreachCard, *, status: int = 200, problem: str = "") -> Response:
    console = request.console
    scope = card.freeze.scope if card.freeze is not None else ""
    other_freezes = [
        candidate
        for candidate in console.store.active_freezes()
        if candidate.scope == scope and candidate != card.freeze
    ]
    changes, changes_problem = read_last_changes(console, card.breach.number) if card.breach is not None else ([], "")
    records = [
        (shown.role, shown.state, console.rules.redact_value(dict(shown.fields)))
        for shown in (card.breach.records if card.breach is not None else [])
    ]
    related = console.store.breaches_by_cause(card.cause_number) if card.breach is not None else []
    return request.render(
        "card.html",
        status=status,
        card=card,
        cause=next((b for b in related if card.breach is not None and b.number == card.breach.consequence_of), None),
        consequences=[b for b in related if card.breach is not None and b.consequence_of == card.breach.number],
        frozen_scopes={freeze.scope for freeze in console.store.active_freezes()},
        thaw_command=thaw_command(scope, console.config.location) if scope else "",
        other_freezes=other_freezes,
        freeze_numbers=",".join(
            str(freeze.number) for freeze in [*other_freezes, *([card.freeze] if card.freeze is not None else [])]
        ),
        changes=changes,
        changes_problem=changes_problem,
        records=records,
        cell=_cell_rows(card.breach) if card.breach is not None else [],
        transition=TRANSITIONS.get(card.breach.after, "") if card.breach is not None else "",
        problem=problem,
        reason=request.text("reason"),
        evidence=request.text("evidence"),
        second_name=request.text("second_name", 64),
        same_catalogue=card.breach is None or card.breach.digest == console.catalogue.digest,
    )


NAV: Final = None
PARTS: Final = (
    PageRoute(path="/breach/{number:int}", answer=show),
    PageRoute(path="/breach/{number:int}/tick", answer=tick_step, method="POST", role="operator"),
    PageRoute(path="/freeze/{number:int}", answer=show_freeze),
    PageRoute(path="/freeze/{number:int}/thaw", answer=thaw_freeze, method="POST", role="operator"),
)
