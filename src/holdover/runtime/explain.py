"""Explanations: why a predicate failed, in words derived from its source.

The module parses the predicate's source and reports the branch taken, the conjunct that was false, the two
sides of the comparison and the value of each. Amounts are printed in the instrument's decimals. If the source
is not available or too complex, the explanation names only the records.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

from holdover.catalogue import BoundPredicate
from holdover.model import Instrument, Record


def explain(bound: BoundPredicate, arguments: tuple[Any, ...], instruments: Mapping[str, Instrument]) -> str:
    """Return one line: `NAME: RECORDS: LEFT is X, RIGHT is Y`. Never raises: an explanation must not hide a breach."""
    records = [value for value in arguments if isinstance(value, Record)]
    anchor = repr(records[0]) if records else "nothing recorded"
    try:
        reason = _find_reason(bound, arguments, instruments)
    except Exception as problem:  # the breach matters more than its text
        reason = f"does not hold ({type(problem).__name__} while explaining)"
    return f"{bound.name}: {anchor}: {reason}"


def _find_reason(bound: BoundPredicate, arguments: tuple[Any, ...], instruments: Mapping[str, Instrument]) -> str:
    function = bound.function
    tree = _parse_function(function)
    if tree is None or not isinstance(function, FunctionType):
        return "does not hold"
    names = dict(zip((read.parameter for read in bound.reads), arguments, strict=True))
    reader = _PredicateReader(function, names, instruments)
    return reader.reason_in_block(tree.body) or "does not hold"


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

    def __init__(self, function: FunctionType, names: dict[str, Any], instruments: Mapping[str, Instrument]) -> None:
        self.scope = {**function.__globals__, **names}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self.scope[name] = cell.cell_contents
        self.records = {name: value for name, value in names.items() if isinstance(value, Record)}
        first = next(iter(self.records.values()), None)
        self.instrument = instruments.get(getattr(first, "symbol", ""))

    def value(self, node: ast.expr) -> Any:
        return eval(_compile_expression(node), self.scope)

    def reason_in_block(self, body: list[ast.stmt]) -> str | None:
        """Return the reason from the statements that ran; None when no return was reached."""
        for statement in body:
            if isinstance(statement, ast.If):
                reason = self.reason_in_block(statement.body if self.value(statement.test) else statement.orelse)
                if reason is not None:
                    return reason
            elif isinstance(statement, ast.Return):
                return self.reason_of(statement.value) if statement.value else "does not hold"
            elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                self.scope[statement.targets[0].id] = self.value(statement.value)
            elif not isinstance(statement, ast.Expr):
                return "does not hold"
        return None

    def reason_of(self, node: ast.expr) -> str:
        if isinstance(node, ast.BoolOp):
            return self.reason_of_junction(node)
        if isinstance(node, ast.IfExp):
            return self.reason_of(node.body if self.value(node.test) else node.orelse)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return f"{self.source_text(node.operand)} is {self.format_value(node.operand)}"
        if isinstance(node, ast.Compare):
            return self.reason_of_comparison(node)
        return f"{self.source_text(node)} is {self.format_value(node)}"

    def reason_of_junction(self, node: ast.BoolOp) -> str:
        if isinstance(node.op, ast.Or):
            return ", and ".join(self.reason_of(part) for part in node.values)
        return next((self.reason_of(part) for part in node.values if not self.value(part)), "does not hold")

    def reason_of_comparison(self, node: ast.Compare) -> str:
        left_operand = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            pair = ast.Compare(left_operand, [operator], [right])
            if not self.value(pair):
                sides = [self._selected_branch(side) for side in (left_operand, right)]
                statements = [
                    f"{self.source_text(side)} is {self.format_value(side)}" for side in sides if not _is_literal(side)
                ]
                literal = [self.source_text(side) for side in sides if _is_literal(side)]
                must = f", must be {_OPERATORS.get(type(operator), 'otherwise')} {literal[0]}" if literal else ""
                return ", ".join(statements) + must
            left_operand = right
        return "does not hold"

    def _selected_branch(self, node: ast.expr) -> ast.expr:
        while isinstance(node, ast.IfExp):
            node = node.body if self.value(node.test) else node.orelse
        return node

    def source_text(self, node: ast.expr) -> str:
        """Return the expression's source, without the `order.` prefix if there is only one record."""
        source = ast.unparse(node)
        if len(self.records) == 1:
            source = source.replace(f"{next(iter(self.records))}.", "")
        return source

    def format_value(self, node: ast.expr) -> str:
        value = self.value(node)
        if isinstance(value, frozenset | set | tuple):
            return ", ".join(sorted(str(getattr(item, "name", item)) for item in value)) or "nothing"
        if isinstance(value, bool) or not isinstance(value, int):
            return getattr(value, "name", None) or repr(value)
        if self.instrument is None:
            return str(value)
        names = " ".join(part.attr if isinstance(part, ast.Attribute) else "" for part in ast.walk(node))
        if "notional" in names:
            return self.instrument.notional_text(value)
        if "price" in names or "_px" in names:
            return self.instrument.price_text(value)
        return self.instrument.quantity_text(value) if "qty" in names else str(value)


_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Eq: "equal to",
    ast.NotEq: "other than",
    ast.Lt: "below",
    ast.LtE: "at most",
    ast.Gt: "above",
    ast.GtE: "at least",
    ast.In: "one of",
    ast.NotIn: "none of",
    ast.Is: "",
    ast.IsNot: "other than",
}


def _is_literal(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant | ast.Tuple | ast.Set | ast.List)


def _compile_expression(node: ast.expr) -> CodeType:
    return compile(ast.fix_missing_locations(ast.Expression(node)), "<explanation>", "eval")
