"""The cache database as the place to listen: every write of order, position and account state passes here."""

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

from holdover.adapters.nautilus.backing import Backing


class Database(CacheDatabaseAdapter):  # type: ignore[misc]
    """Their adapter, with what each write says told to `order`, `position` and `account` when it has been made."""

    order: Callable[[Any], None]
    position: Callable[[Any], None]
    account: Callable[[Any], None]
    backing: Backing

    def add_order(self, order: Any, position_id: Any = None, client_id: Any = None) -> None:
        """A new order."""
        with self.backing.transaction():
            super().add_order(order, position_id, client_id)
        self.order(order)

    def update_order(self, order: Any) -> None:
        """An order has changed."""
        with self.backing.transaction():
            super().update_order(order)
        self.order(order)

    def add_position(self, position: Any) -> None:
        """A new position."""
        with self.backing.transaction():
            super().add_position(position)
        self.position(position)

    def update_position(self, position: Any) -> None:
        """A position has changed."""
        with self.backing.transaction():
            super().update_position(position)
        self.position(position)

    def add_account(self, account: Any) -> None:
        """A new account."""
        with self.backing.transaction():
            super().add_account(account)
        self.account(account)

    def update_account(self, account: Any) -> None:
        """An account has changed."""
        with self.backing.transaction():
            super().update_account(account)
        self.account(account)


def database_on(backing: Backing, trader_id: str) -> Database:
    """Their database adapter over our backing."""
    with _instead_of_redis(backing):
        made = Database(
            trader_id=TraderId(trader_id),
            instance_id=UUID4(),
            serializer=MsgSpecSerializer(encoding=msgspec.msgpack, timestamps_as_str=True),
            config=CacheConfig(),
        )
    made.backing = backing
    return made


@contextlib.contextmanager
def _instead_of_redis(backing: Backing) -> Iterator[None]:
    """The adapter makes its backing by itself, from a name of its library's: for that moment the name is ours."""
    real = nautilus_pyo3.RedisCacheDatabase
    setattr(nautilus_pyo3, "RedisCacheDatabase", lambda **told: backing)  # noqa: B010 - the name is typed as a class
    try:
        yield
    finally:
        setattr(nautilus_pyo3, "RedisCacheDatabase", real)  # noqa: B010
