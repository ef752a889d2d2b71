"""The cache database as the hook: every write of order, position and account state passes through it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from nautilus_trader.cache.config import CacheConfig
from nautilus_trader.cache.database import CacheDatabaseAdapter
from nautilus_trader.core import nautilus_pyo3
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.model.identifiers import TraderId
from nautilus_trader.serialization.serializer import MsgSpecSerializer

from holdover.adapters.nautilus.backing import SqliteBacking


class ObservedCacheDatabase(CacheDatabaseAdapter):  # type: ignore[misc]
    """NautilusTrader's adapter; calls `on_order`, `on_position` and `on_account` after each write."""

    on_order: Callable[[Any], None]
    on_position: Callable[[Any], None]
    on_account: Callable[[Any], None]
    backing: SqliteBacking

    def add_order(self, order: Any, position_id: Any = None, client_id: Any = None) -> None:
        """Store a new order."""
        with self.backing.transaction():
            super().add_order(order, position_id, client_id)
        self.on_order(order)

    def update_order(self, order: Any) -> None:
        """Store a changed order."""
        with self.backing.transaction():
            super().update_order(order)
        self.on_order(order)

    def add_position(self, position: Any) -> None:
        """Store a new position."""
        with self.backing.transaction():
            super().add_position(position)
        self.on_position(position)

    def update_position(self, position: Any) -> None:
        """Store a changed position."""
        with self.backing.transaction():
            super().update_position(position)
        self.on_position(position)

    def add_account(self, account: Any) -> None:
        """Store a new account."""
        with self.backing.transaction():
            super().add_account(account)
        self.on_account(account)

    def update_account(self, account: Any) -> None:
        """Store a changed account."""
        with self.backing.transaction():
            super().update_account(account)
        self.on_account(account)


def open_cache_database(backing: SqliteBacking, trader_id: str) -> ObservedCacheDatabase:
    """Returns NautilusTrader's database adapter on our backing."""
    with _replace_redis(backing):
        database = ObservedCacheDatabase(
            trader_id=TraderId(trader_id),
            instance_id=UUID4(),
            serializer=MsgSpecSerializer(encoding=msgspec.msgpack, timestamps_as_str=True),
            config=CacheConfig(),
        )
    database.backing = backing
    return database


@contextlib.contextmanager
def _replace_redis(backing: SqliteBacking) -> Iterator[None]:
    """Replace the class that the adapter creates its backing from, for the duration of the block."""
    original = nautilus_pyo3.RedisCacheDatabase
    setattr(nautilus_pyo3, "RedisCacheDatabase", lambda **kwargs: backing)  # noqa: B010 - the name is typed as a class
    try:
        yield
    finally:
        setattr(nautilus_pyo3, "RedisCacheDatabase", original)  # noqa: B010
