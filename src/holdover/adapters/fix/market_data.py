"""Market data over FIX 4.4: the request for it, snapshots and updates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from holdover.adapters.fix.fix_message import (
    Field,
    FixMessage,
    ParsedMessage,
    format_utc_timestamp,
    non_empty,
    parse_utc_timestamp,
)
from holdover.model import fix_tags as tags

BID, OFFER, TRADE, VOLUME = "0", "1", "2", "B"
"""MDEntryType (269)."""


class MarketDataEntry(msgspec.Struct, frozen=True):
    """One entry of market data: type, symbol, price and size (None when absent or deleted), time (ns)."""

    kind: str
    symbol: str
    price: str | None
    size: str | None
    time_ns: int


def make_market_data_request(req_id: str, symbols: Sequence[str]) -> FixMessage:
    """Returns a MarketDataRequest (V): snapshot and updates of the top of the book, the last trade and the volume."""
    kinds: list[list[Field]] = [[(tags.MD_ENTRY_TYPE, kind)] for kind in (BID, OFFER, TRADE, VOLUME)]
    books: list[list[Field]] = [[(tags.SYMBOL, symbol)] for symbol in symbols]
    return FixMessage(
        "V",
        [
            (tags.MD_REQ_ID, req_id),
            (tags.SUBSCRIPTION_REQUEST_TYPE, "1"),
            (tags.MARKET_DEPTH, "1"),
            (tags.MD_UPDATE_TYPE, "1"),
            (tags.NO_MD_ENTRY_TYPES, kinds),
            (tags.NO_RELATED_SYM, books),
        ],
    )


def make_market_data(req_id: str, symbol: str, entries: Iterable[MarketDataEntry], *, snapshot: bool) -> FixMessage:
    """Returns a MarketDataSnapshotFullRefresh (W) or MarketDataIncrementalRefresh (X) of one instrument."""
    groups: list[list[Field]] = []
    for entry in entries:
        day, _, clock = format_utc_timestamp(entry.time_ns).partition("-")
        is_deleted = entry.price is None and entry.size is None
        head: list[Field] = (
            [(tags.MD_ENTRY_TYPE, entry.kind)]
            if snapshot
            else [(tags.MD_UPDATE_ACTION, "2" if is_deleted else "0"), (tags.MD_ENTRY_TYPE, entry.kind)]
        )
        if snapshot and is_deleted:
            continue
        body = [] if snapshot else [(tags.SYMBOL, symbol)]
        groups.append(
            [
                *head,
                *non_empty(*body, (tags.MD_ENTRY_PX, entry.price or ""), (tags.MD_ENTRY_SIZE, entry.size or "")),
                (tags.MD_ENTRY_DATE, day),
                (tags.MD_ENTRY_TIME, clock),
            ]
        )
    return FixMessage(
        "W" if snapshot else "X",
        [(tags.MD_REQ_ID, req_id), *([(tags.SYMBOL, symbol)] if snapshot else []), (tags.NO_MD_ENTRIES, groups)],
    )


def parse_market_data(parsed: ParsedMessage) -> Iterator[MarketDataEntry]:
    """Yield the entries of a snapshot or an update; sides that a snapshot does not contain are deleted."""
    named_kinds: set[str] = set()
    for group in parsed.groups(tags.NO_MD_ENTRIES):
        symbol = group.get(tags.SYMBOL) or parsed.get(tags.SYMBOL)
        named_kinds.add(group.get(tags.MD_ENTRY_TYPE, ""))
        is_deleted = group.get(tags.MD_UPDATE_ACTION) == "2"
        day, clock = group.get(tags.MD_ENTRY_DATE, ""), group.get(tags.MD_ENTRY_TIME, "")
        yield MarketDataEntry(
            group.get(tags.MD_ENTRY_TYPE, ""),
            symbol,
            None if is_deleted else group.get(tags.MD_ENTRY_PX),
            None if is_deleted else group.get(tags.MD_ENTRY_SIZE),
            parse_utc_timestamp(f"{day}-{clock}") if day and clock else 0,
        )
    if parsed.kind == "W":
        for kind in (BID, OFFER):
            if kind not in named_kinds:
                yield MarketDataEntry(kind, parsed.get(tags.SYMBOL), None, None, 0)
