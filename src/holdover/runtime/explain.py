"""Explanations: why a predicate failed, in words derived from its source.

The module parses the predicate's source, follows the branch that was taken to the condition that was false, and
says its two sides with their values: *Order A1 (BUY 100 IBM): the filled quantity is 0, but the total booked
quantity of its executions is 300*. Nobody writes these sentences by hand, so they cannot differ from the check.
Names of variables never appear: a parameter is described by what it reads (a record of a subsystem, a running
total), a field by its words in `record_text`, a value in the unit of the fields that it stands beside.

If the source is not available or too complex, the explanation names the records and says that the rule does not
hold. An explanation never raises: the breach matters more than its text.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any, Final

from holdover.catalogue import BoundPredicate
from holdover.catalogue.predicate import Read
from holdover.model import Instrument, Record
from holdover.runtime.read_words import LARGEST_ONLY, describe_place, describe_recent, describe_total
from holdover.runtime.record_text import (
    PLURALS,
    describe_example,
    describe_record,
    field_words,
    format_time,
    format_value,
    is_daytime,
    kind_words,
)

_OWNERS: Final = {
    "venue": "the venue's",
    "risk": "the risk check's",
    "ledger": "the ledger's",
    "gateway": "the gateway's",
    "positions": "the position keeper's",
    "orders": "the order manager's",
}
_UNEXPLAINED: Final = "the rule does not hold"

_MUST: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "equal to",
    ast.NotEq: "different from",
    ast.Lt: "below",
    ast.LtE: "at most",
    ast.Gt: "above",
    ast.GtE: "at least",
    ast.In: "one of",
    ast.NotIn: "none of",
}
_MUST_IN_TIME: Final[dict[type[ast.cmpop], str]] = {
    ast.Lt: "be before",
    ast.LtE: "not be after",
    ast.Gt: "be after",
    ast.GtE: "not be before",
}
"""The same for dates and times."""

_JOINTS: Final[dict[type[ast.operator], str]] = {ast.Add: "plus", ast.Sub: "less", ast.Mult: "times"}

_MIRRORED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
}


def explain(bound: BoundPredicate, arguments: tuple[Any, ...], instruments: Mapping[str, Instrument]) -> str:
    """Return one line: `NAME: RECORD: LEFT is X, but RIGHT is Y`. Never raises."""
    records = [value for value in arguments if isinstance(value, Record)]
    instrument = instruments.get(getattr(records[0], "symbol", "")) if records else None
    subject = _describe_subject(bound, records[0], instrument) if records else "Nothing is recorded"
    try:
        reason = _find_reason(bound, arguments, instrument, instruments)
    except Exception as error:
        reason = f"{_UNEXPLAINED} ({type(error).__name__} while explaining)"
    return f"{bound.name}: {subject}: {reason}"


def explain_error(
    bound: BoundPredicate, arguments: tuple[Any, ...], error: BaseException, instruments: Mapping[str, Instrument]
) -> str:
    """Return one line about a predicate that raised. Never raises."""
    records = [value for value in arguments if isinstance(value, Record)]
    try:
        instrument = instruments.get(getattr(records[0], "symbol", "")) if records else None
        subject = _describe_subject(bound, records[0], instrument) if records else "Nothing is recorded"
    except Exception:
        subject = f"{type(records[0]).__name__}"
    error_text = f"{type(error).__name__}: {error}"
    return f"{bound.name}: {subject}: the predicate raised {error_text}, which is a breach, not a pass"


def _describe_subject(bound: BoundPredicate, record: Record, instrument: Instrument | None) -> str:
    text = describe_record(record, instrument)
    if bound.anchor.subsystem == "venue":
        text = f"{text} {describe_place('venue')}"
    example = getattr(record, "first", "")
    return f"{text} (the first: {describe_example(example)})" if isinstance(example, str) and example else text


def _find_reason(
    bound: BoundPredicate,
    arguments: tuple[Any, ...],
    instrument: Instrument | None,
    instruments: Mapping[str, Instrument],
) -> str:
    function = bound.function
    tree = _parse_function(function)
    if tree is None or not isinstance(function, FunctionType):
        return _UNEXPLAINED
    reader = _PredicateReader(function, bound.reads, arguments, instrument, instruments)
    reason = reader.reason_in_block(tree.body) or _UNEXPLAINED
    changes = reader.changes() if reason == _UNEXPLAINED else ""
    return f"this change is not allowed: {changes}" if changes else reason


def prepare_explanations(predicates: Iterable[BoundPredicate], give_way: Callable[[], None] = lambda: None) -> None:
    """Read and parse the source of predicates now: at a breach, the first reading would hold up the caller."""
    for bound in predicates:
        _parse_function(bound.function)
        give_way()


@lru_cache(maxsize=512)
def _parse_function(function: Any) -> ast.FunctionDef | None:
    try:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    definition = parsed.body[0]
    return definition if isinstance(definition, ast.FunctionDef) else None


class _PredicateReader:
    """Walks the body of one predicate with the arguments that failed it."""

    def __init__(
        self,
        function: FunctionType,
        reads: tuple[Read, ...],
        arguments: tuple[Any, ...],
        instrument: Instrument | None,
        instruments: Mapping[str, Instrument],
    ) -> None:
        self.reads = {read.parameter: read for read in reads}
        self.arguments = dict(zip(self.reads, arguments, strict=True))
        self.scope = {**function.__globals__, **self.arguments}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self.scope[name] = cell.cell_contents
        self.instrument, self.instruments = instrument, instruments
        self.anchor = reads[0].parameter
        self.assigned: dict[str, ast.expr] = {}

    def value(self, node: ast.expr) -> Any:
        return eval(_compile_expression(node), self.scope)

    # -- finding the condition that was false ---------------------------------------------------------------------

    def reason_in_block(self, body: list[ast.stmt]) -> str | None:
        """Return the reason from the statements that ran; None when no return was reached."""
        for statement in body:
            if isinstance(statement, ast.If):
                is_true = bool(self.value(statement.test))
                reason = self.reason_in_block(statement.body if is_true else statement.orelse)
                if reason is not None:
                    case = self._case(statement.test) if is_true and reason != _UNEXPLAINED else ""
                    return f"{reason}{case}"
            elif isinstance(statement, ast.Return):
                return self.reason_of(statement.value) if statement.value else _UNEXPLAINED
            elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name = statement.targets[0].id
                self.scope[name] = self.value(statement.value)
                self.assigned[name] = statement.value
            elif not isinstance(statement, ast.Expr):
                return _UNEXPLAINED
        return None

    def _case(self, test: ast.expr) -> str:
        """Return the case that a branch is about, such as `while the status is filled`; empty for any other test."""
        if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Eq):
            return ""
        value = self.value(test.comparators[0])
        return f" while {self._phrase_is(test.left)} {format_value(value, '', None)}" if isinstance(value, Enum) else ""

    def reason_of(self, node: ast.expr) -> str:
        """Return why an expression is false."""
        node = self._resolve(node)
        if isinstance(node, ast.BoolOp):
            if isinstance(node.op, ast.Or):
                return _join_alternatives([self.reason_of(part) for part in self._alternatives(node.values)])
            return next((self.reason_of(part) for part in node.values if not self.value(part)), _UNEXPLAINED)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self._statement(node.operand)
        if isinstance(node, ast.Compare):
            return self._reason_of_comparison(node)
        if isinstance(node, ast.Constant):
            return _UNEXPLAINED
        return self._statement(node)

    def _alternatives(self, parts: list[ast.expr]) -> list[ast.expr]:
        """Return the parts of an `or` that compare two values; all parts when none does.

        The others say where the comparison does not apply, which is no reason.
        """
        compared: list[ast.expr] = [part for part in map(self._resolve, parts) if self._is_reason(part)]
        return compared or parts

    def _is_reason(self, part: ast.expr) -> bool:
        """Whether a part of an `or` compares two values, or says that the record is not the first of its key."""
        if not isinstance(part, ast.Compare):
            return False
        if isinstance(part.ops[0], ast.Is) and isinstance(part.left, ast.Name) and part.left.id in self.reads:
            return self.reads[part.left.id].source == "before"
        is_literal = any(self._is_literal(side) for side in (part.left, *part.comparators))
        return not is_literal and not isinstance(part.ops[0], ast.In | ast.NotIn)

    def _resolve(self, node: ast.expr) -> ast.expr:
        """Follow a conditional expression and an assigned name to the expression that decided.

        A name for the result of a call stays: it says more than the call.
        """
        name: ast.Name | None = None
        while True:
            if isinstance(node, ast.IfExp):
                node = node.body if self.value(node.test) else node.orelse
            elif isinstance(node, ast.Name) and node.id in self.assigned:
                name, node = node, self.assigned[node.id]
            else:
                return name if name is not None and isinstance(node, ast.Call) and not _is_size(node) else node

    def _statement(self, node: ast.expr) -> str:
        """Say what the value of an expression is."""
        node = self._resolve(node)
        value = self.value(node)
        if isinstance(node, ast.Attribute) and isinstance(value, bool):
            owner = self._owner_noun(node.value)
            adjective = field_words(node.attr)
            return f"{owner} is {'' if value else 'not '}{adjective}"
        if isinstance(node, ast.Compare):
            return f"{self._phrase_is(node.left)} {self._format(self.value(node.left), node.left)}"
        return f"{self._phrase_is(node)} {self._format(value, node)}"

    def _phrase_is(self, node: ast.expr) -> str:
        """Return an expression in words, with its verb."""
        node = self._resolve(node)
        verb = "are" if isinstance(node, ast.Attribute) and node.attr in PLURALS else "is"
        return f"{self.phrase(node)} {verb}"

    # -- comparisons ----------------------------------------------------------------------------------------------

    def _reason_of_comparison(self, node: ast.Compare) -> str:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if not self.value(ast.Compare(left, [operator], [right])):
                return self._explain_pair(self._resolve(left), operator, self._resolve(right))
            left = right
        return _UNEXPLAINED

    def _explain_pair(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> str:
        if isinstance(operator, ast.Is | ast.IsNot):
            return self._explain_identity(left, operator)
        if self._is_literal(left) and not self._is_literal(right) and type(operator) in _MIRRORED:
            left, operator, right = right, _MIRRORED[type(operator)](), left
        left_value, right_value = self.value(left), self.value(right)
        if isinstance(left_value, bool) and isinstance(right_value, bool):
            return f"{self._statement(left)}, and {self._statement(right)}"
        if isinstance(left_value, Record) and isinstance(right_value, Record) and isinstance(operator, ast.Eq):
            return self._differing_fields(left_value, right_value) or _UNEXPLAINED
        if self._reads_freezes(left) and isinstance(operator, ast.Eq):
            return f"it leaves the frozen scope {left_value}"
        left_text, right_text = self._format_pair(left, right)
        statement = f"{self._phrase_is(left)} {left_text}"
        if isinstance(left, ast.BinOp) and self._is_literal(right):
            statement = f"{self._phrase_with_value(left)} is {left_text}"
        if isinstance(operator, ast.In | ast.NotIn):
            must = "must be" if isinstance(operator, ast.In) else "must not be"
            of = "one of: " if ", " in right_text else ""
            return f"{statement}{self._before_text(left)}, but {must} {of}{right_text}"
        must = self._must(operator, left, left_value)
        if self._is_literal(right):
            must = "must be" if isinstance(operator, ast.Eq) else must
            must = "must not be" if isinstance(operator, ast.NotEq) else must
            return f"{statement}{self._before_text(left)}, but {must} {right_text}"
        right_phrase = self._contrasted_phrase(right, left)
        if isinstance(operator, ast.Eq):
            verb = self._phrase_is(right).rpartition(" ")[2]
            return f"{statement}, but {right_phrase} {verb} {right_text}"
        return f"{statement}, but {must} {right_phrase}, {right_text}"

    def _format_pair(self, left: ast.expr, right: ast.expr) -> tuple[str, str]:
        """Return both sides of a comparison in one unit, and so exactly that unequal sides do not read alike."""
        values = [self.value(left), self.value(right)]
        unit = f"{self._unit(left)} {self._unit(right)}".strip()
        if unit.endswith("_ns") and all(isinstance(value, int) for value in values) and any(map(is_daytime, values)):
            texts = [format_time(value) for value in values]
            if texts[0] == texts[1]:
                texts = [format_time(value, exact=True) for value in values]
        else:
            texts = [format_value(value, unit, self.instrument) for value in values]
        if texts[0] == texts[1] and values[0] != values[1]:
            texts = [f"{text} ({type(value).__name__})" for text, value in zip(texts, values, strict=True)]
        return texts[0], texts[1]

    def _must(self, operator: ast.cmpop, left: ast.expr, value: Any) -> str:
        """Return what an inequality demands of its left side."""
        is_time = isinstance(value, str) or (self._unit(left).endswith("_ns") and is_daytime(value))
        if is_time and type(operator) in _MUST_IN_TIME:
            return f"must {_MUST_IN_TIME[type(operator)]}"
        return f"must be {_MUST.get(type(operator), 'otherwise')}"

    def _contrasted_phrase(self, node: ast.expr, other: ast.expr) -> str:
        """Return an expression in words; a field of the subject that has its name in common with the other side gets
        its owner.
        """
        anchor = self.reads[self.anchor]
        if (
            isinstance(node, ast.Attribute)
            and isinstance(other, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == self.anchor
            and field_words(node.attr) == field_words(other.attr)
            and anchor.kind is not None
        ):
            return f"the {kind_words(anchor.kind)}'s {field_words(node.attr)}"
        return self.phrase(node)

    def _explain_identity(self, node: ast.expr, operator: ast.cmpop) -> str:
        value = self.value(node)
        if isinstance(operator, ast.Is):
            if isinstance(node, ast.Name) and node.id in self.reads and self.reads[node.id].source == "before":
                return "it is recorded already" + (f": {self.changes()}" if self.changes() else "")
            return f"there must be no {self._noun(node)}, but there is {self._format(value, node)}"
        return f"there is no {self._noun(node)}"

    def _before_text(self, node: ast.expr) -> str:
        """Return the field's value before, when the predicate reads the record that was replaced."""
        before = next((read.parameter for read in self.reads.values() if read.source == "before"), "")
        record = self.arguments.get(before)
        is_anchor_field = (
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == self.anchor
        )
        if record is None or not is_anchor_field or not isinstance(node, ast.Attribute):
            return ""
        value = getattr(record, node.attr)
        return f" (before: {format_value(value, node.attr, self.instrument)})"

    def changes(self) -> str:
        """Return how the anchor differs from the record that it replaced; empty when that is not read or not there."""
        before = next((read.parameter for read in self.reads.values() if read.source == "before"), "")
        previous, record = self.arguments.get(before), self.arguments[self.anchor]
        if not isinstance(previous, Record) or not isinstance(record, Record):
            return ""
        return self._differing_fields(record, previous, verb="was")

    def _differing_fields(self, record: Record, other_record: Record, verb: str = "is") -> str:
        names = [
            name for name in record.__struct_fields__ if getattr(record, name) != getattr(other_record, name, None)
        ]
        if len(names) > 1 and "transact_time_ns" in names:
            names.remove("transact_time_ns")
        parts = []
        for name in names:
            texts = self._format_field(record, other_record, name)
            connective = "it was" if verb == "was" else "on the other side it is"
            are = "are" if name in PLURALS else "is"
            parts.append(f"the {field_words(name)} {are} {texts[0]}, {connective.replace('is', are)} {texts[1]}")
        return "; ".join(parts)

    def _format_field(self, record: Record, other_record: Record, name: str) -> list[str]:
        """Return a field of two records, each in its own instrument's decimals; in lots and ticks when one of the
        instruments is not known.
        """
        sides = (record, other_record)
        instruments = [self.instruments.get(getattr(side, "symbol", "")) for side in sides]
        if None in instruments:
            instruments = [None, None]
        texts = [
            format_value(getattr(side, name, None), name, instrument)
            for side, instrument in zip(sides, instruments, strict=True)
        ]
        if texts[0] == texts[1] and name.endswith("_ns"):
            texts = [format_time(getattr(side, name, 0), exact=True) for side in sides]
        return texts

    # -- phrases --------------------------------------------------------------------------------------------------

    def phrase(self, node: ast.expr) -> str:
        """Return an expression in words."""
        node = self._resolve(node)
        if isinstance(node, ast.Attribute):
            return f"{self._owner(node.value)} {field_words(node.attr)}"
        if isinstance(node, ast.Name):
            return self._parameter_phrase(node.id)
        if isinstance(node, ast.BinOp):
            if isinstance(node.left, ast.BinOp) or isinstance(node.right, ast.BinOp):
                return self._phrase_with_value(node)
            return f"{self.phrase(node.left)} {_JOINTS.get(type(node.op), 'and')} {self.phrase(node.right)}"
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return f"the reverse of {self.phrase(node.operand)}"
        if isinstance(node, ast.Call) and _is_size(node):
            operand = node.args[0]
            if isinstance(operand, ast.BinOp) and isinstance(operand.op, ast.Sub):
                sides = [self._phrase_with_value(side) for side in (operand.left, operand.right)]
                return f"the difference between {sides[0]} and {sides[1]}"
            return f"the size of {self.phrase(operand)}"
        if self._is_literal(node):
            return self._format(self.value(node), node)
        if isinstance(node, ast.Call) and self._reads_freezes(node):
            return "the frozen scope that it leaves"
        if isinstance(node, ast.Call):
            return "the value of " + field_words(ast.unparse(node.func).rpartition(".")[2])
        return "the condition " + ast.unparse(node).replace("_", " ")

    def _phrase_with_value(self, node: ast.expr) -> str:
        """Return a term of a sum in words, with its value."""
        node = self._resolve(node)
        if isinstance(node, ast.BinOp):
            joint = _JOINTS.get(type(node.op), "and")
            return f"{self._phrase_with_value(node.left)} {joint} {self._phrase_with_value(node.right)}"
        if self._is_literal(node):
            return self.phrase(node)
        phrase, value = self.phrase(node), self._format(self.value(node), node)
        return f"{phrase[:-1]}: {value})" if phrase.endswith(")") else f"{phrase} ({value})"

    def _reads_freezes(self, node: ast.expr) -> bool:
        is_method = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        owner = node.func.value if is_method else None  # type: ignore[attr-defined]
        return isinstance(owner, ast.Name) and owner.id in self.reads and self.reads[owner.id].source == "frozen"

    def _parameter_phrase(self, name: str) -> str:
        read = self.reads.get(name)
        if read is None:
            return f"the {field_words(name.lower())}"
        if read.recent is not None:
            return describe_recent(read.recent)
        if read.total is not None:
            return describe_total(read.total)
        return f"the {kind_words(read.kind)}" if read.kind is not None else f"the {field_words(name)}"

    def _owner(self, node: ast.expr) -> str:
        """Return whose field it is, as a possessive or an article."""
        if not isinstance(node, ast.Name):
            return "the"
        read = self.reads.get(node.id)
        if read is None or node.id == self.anchor:
            return "the"
        if read.source == "before":
            return "the previous"
        if read.source == "boundary":
            return "the boundary's"
        anchor = self.reads[self.anchor]
        if read.subsystem is not None and read.subsystem != anchor.subsystem and read.kind is anchor.kind:
            return _OWNERS.get(read.subsystem, f"the {read.subsystem} subsystem's")
        if read.subsystem in ("venue", "risk") and read.kind is not anchor.kind:
            return _OWNERS[read.subsystem]
        if read.kind is anchor.kind and read.kind is not None:
            return f"the {field_words(node.id)} {kind_words(read.kind)}'s"
        return f"the {kind_words(read.kind)}'s" if read.kind is not None else "the"

    def _owner_noun(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name) and node.id in self.reads:
            return f"the {self._noun(node)}"
        return "it"

    def _noun(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name) and node.id in self.reads:
            read = self.reads[node.id]
            kind = kind_words(read.kind) if read.kind is not None else field_words(node.id)
            return f"{kind} {describe_place(read.subsystem)}" if read.subsystem and node.id != self.anchor else kind
        return field_words(ast.unparse(node))

    def _is_literal(self, node: ast.expr) -> bool:
        """Whether an expression is a constant of the rule: it reads no argument and no assigned name."""
        return not any(
            isinstance(part, ast.Name) and (self._reads_record(part.id) or part.id in self.assigned)
            for part in ast.walk(node)
        ) and not isinstance(node, ast.Call)

    def _reads_record(self, name: str) -> bool:
        """Whether a parameter reads what the system has recorded; a threshold is a constant of the rule."""
        return name in self.reads and self.reads[name].source != "threshold"

    def _unit(self, node: ast.expr) -> str:
        """Return the names that decide the unit of an expression: its fields, and what its totals add up."""
        names: list[str] = []
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute):
                names.append("" if self._is_literal(part) else part.attr)
            elif isinstance(part, ast.Name) and part.id in self.assigned:
                names.append(part.id)
            elif isinstance(part, ast.Name) and part.id in self.reads:
                total = self.reads[part.id].total
                names.append(total.sum.of if total is not None else "")
        return " ".join(filter(None, names))

    def _format(self, value: Any, node: ast.expr) -> str:
        return format_value(value, self._unit(node), self.instrument)


def _join_alternatives(reasons: list[str]) -> str:
    """Join the reasons of the parts of an `or`, without what an earlier part has said already."""
    texts: list[str] = []
    for reason in dict.fromkeys(reasons):
        if any(reason.replace(f" {LARGEST_ONLY}", "") == text for text in texts):
            continue
        statement, but, demand = reason.partition(", but ")
        repeats = bool(but) and any(text.startswith(f"{statement}{but}") for text in texts)
        texts.append(demand if repeats else reason)
    connective = ", or " if any(text.startswith("must ") for text in texts) else ", and "
    return connective.join(texts)


def _is_size(node: ast.Call) -> bool:
    """Whether a call is `abs(...)`."""
    return isinstance(node.func, ast.Name) and node.func.id == "abs" and bool(node.args)


def _compile_expression(node: ast.expr) -> CodeType:
    return compile(ast.fix_missing_locations(ast.Expression(node)), "<explanation>", "eval")
