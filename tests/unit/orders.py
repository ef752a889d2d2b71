"""Orders and requests for the tests of the guard. Processes that the tests start import nothing else."""

from __future__ import annotations

from typing import Any

from holdover.model import ExecType, MsgType, Order, OrdStatus, Request, Side


def order(**fields: object) -> Order:
    """Return an order; `fields` replace the defaults."""
    order_fields: dict[str, object] = {
        "root_cl_ord_id": "A1",
        "cl_ord_id": "A1",
        "symbol": "IBM",
        "side": Side.BUY,
        "order_qty": 60,
        "leaves_qty": 60,
        **fields,
    }
    return Order(**order_fields)  # type: ignore[arg-type]


GOOD = order(account="A", strategy="S")
BAD = order(account="A", strategy="S", cum_qty=40, ord_status=OrdStatus.PARTIALLY_FILLED, exec_type=ExecType.TRADE)


def request(kind: MsgType = MsgType.NEW_ORDER_SINGLE, **fields: Any) -> Request:
    """A request in account A, instrument IBM."""
    request_fields = {
        "cl_ord_id": "B1",
        "symbol": "IBM",
        "side": Side.BUY,
        "order_qty": 1,
        "account": "A",
        "strategy": "S",
        **fields,
    }
    return Request(msg_type=kind, **request_fields)
