"""Scopes: what a breach can freeze, as a tree of plain strings.

`system` covers everything. Below it stand `subsystem:orders`, `account:A1`, `strategy:TWAP`, `instrument:IBM`,
`link:VENUE`, `order:C-17`, and the conjunction `account:A1/instrument:IBM`. A freeze on a scope covers every message
that lies inside it; a message lies inside a scope when all of the scope's parts are the message's own.
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
"""What an entry of the catalogue may name as its scope."""


def scope_of(kind: str, subsystem: str, record: Record | None) -> str:
    """The scope of `kind` that `record` lies in; the whole system where the record does not say enough.

    Freezing too much is the safe mistake: a record without an account cannot narrow a freeze to one.
    """
    if kind == "subsystem":
        return f"subsystem:{subsystem}"
    account = getattr(record, "account", "")
    symbol = getattr(record, "symbol", "")
    found = {
        "account": f"account:{account}" if account else "",
        "instrument": f"instrument:{symbol}" if symbol else "",
        "account+instrument": f"account:{account}/instrument:{symbol}" if account and symbol else "",
        "strategy": f"strategy:{record.strategy}" if getattr(record, "strategy", "") else "",  # type: ignore[union-attr]
        "order": f"order:{record.root_cl_ord_id}" if getattr(record, "root_cl_ord_id", "") else "",  # type: ignore[union-attr]
        "link": f"link:{getattr(record, 'link', '') or getattr(record, 'name', '')}",
    }.get(kind, "")
    return found if found and not found.endswith(":") else SYSTEM


def scopes_around(request: Request) -> tuple[str, ...]:
    """Every scope that a message leaving lies in, from the widest to the narrowest."""
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
