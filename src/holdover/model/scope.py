"""Scopes: what a breach can freeze, as a tree of plain strings.

`system` covers everything. Below it are `subsystem:orders`, `account:A1`, `strategy:TWAP`, `instrument:IBM`,
`link:VENUE`, `order:C-17`, and the conjunction `account:A1/instrument:IBM`. A freeze on a scope covers every
message inside it. A message is inside a scope when it matches all parts of the scope.
"""

from __future__ import annotations

from typing import Final

from holdover.model.message import Request
from holdover.model.record import Record

SYSTEM: Final = "system"

KINDS: Final = (
    "system",
    "subsystem",
    "account",
    "account+instrument",
    "strategy",
    "instrument",
    "order",
    "link",
)
"""The kinds of scope that a catalogue entry may name."""


def scope_of(kind: str, subsystem: str, record: Record | None) -> str:
    """Return the scope of `kind` that contains `record`, or the whole system if the record does not determine one.

    The wider freeze is the safe choice: a record without an account cannot narrow a freeze to an account.
    """
    if kind == "subsystem":
        return f"subsystem:{subsystem}"
    account = getattr(record, "account", "")
    symbol = getattr(record, "symbol", "")
    scope = {
        "account": f"account:{account}" if account else "",
        "instrument": f"instrument:{symbol}" if symbol else "",
        "account+instrument": f"account:{account}/instrument:{symbol}" if account and symbol else "",
        "strategy": f"strategy:{record.strategy}" if getattr(record, "strategy", "") else "",  # type: ignore[union-attr]
        "order": f"order:{record.root_cl_ord_id}" if getattr(record, "root_cl_ord_id", "") else "",  # type: ignore[union-attr]
        "link": f"link:{getattr(record, 'link', '') or getattr(record, 'name', '')}",
    }.get(kind, "")
    return scope if scope and not scope.endswith(":") else SYSTEM


def enclosing_scopes(request: Request) -> tuple[str, ...]:
    """Return every scope that contains an outgoing message, from the widest to the narrowest."""
    return (
        SYSTEM,
        "subsystem:gateway",
        "subsystem:orders",
        f"account:{request.account}",
        f"instrument:{request.symbol}",
        f"account:{request.account}/instrument:{request.symbol}",
        f"strategy:{request.strategy}",
        f"link:{request.link}",
        f"order:{request.root_cl_ord_id}",
    )
