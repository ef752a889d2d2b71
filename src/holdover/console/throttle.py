"""A limit on password attempts, counted in the store before a password is hashed.

An attempt is counted when it is admitted, in one transaction, and removed again when the password was right. So exactly
the limit is tried, however many attempts arrive at the same time and at however many consoles of one store.

Attempts are counted by name and origin together. The origin is the browser's device token when this device has logged
in as that user before, otherwise the address. Nobody can therefore lock out another user's device. Two further counts
bound the attempts of an address over all names, and those on a name from unknown origins; they slow attempts down
and never stop them for good.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
import threading
from collections import OrderedDict
from typing import Final

import msgspec

from holdover.runtime import FreezeStore
from holdover.runtime.database import RunStatement

PAIR_TRIES: Final = 10
"""Attempts on one name from one origin within `WINDOW_S`."""
ADDRESS_TRIES: Final = 30
"""Attempts from one address on any name within `WINDOW_S`; after that one attempt per `SLOW_S`."""
NAME_TRIES: Final = 50
"""Attempts on one name from unknown origins within an hour; after that one attempt per `SLOW_S`."""
WINDOW_S: Final = 300.0
SLOW_S: Final = 10.0
DEVICE_DAYS: Final = 180
"""How long a device is remembered after its last login."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS console_try (name TEXT NOT NULL, origin TEXT NOT NULL, time_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS console_device (
    origin TEXT NOT NULL, name TEXT NOT NULL, seen_ns INTEGER NOT NULL, PRIMARY KEY (origin, name));
CREATE INDEX IF NOT EXISTS console_try_time ON console_try (time_ns);
CREATE INDEX IF NOT EXISTS console_try_name ON console_try (name, time_ns);
CREATE INDEX IF NOT EXISTS console_try_origin ON console_try (origin, time_ns);
"""
_SECOND_NS: Final = 1_000_000_000
_HOUR_NS: Final = 3600 * _SECOND_NS
_DEVICE_NS: Final = DEVICE_DAYS * 24 * _HOUR_NS
_DEVICES_PER_NAME: Final = 50
_REFUSALS_MAX: Final = 10_000
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class LoginOrigin(msgspec.Struct, frozen=True):
    """Where an attempt comes from. `key` is what is counted.

    `is_device` says that this browser has logged in as the user before, `is_known` that the device or address has.
    """

    key: str
    is_device: bool
    is_known: bool


class LoginThrottle:
    """The attempts in a store; times in ns. `window_s` bounds the attempts of a pair and of an address."""

    def __init__(
        self,
        store: FreezeStore,
        pair_tries: int = PAIR_TRIES,
        address_tries: int = ADDRESS_TRIES,
        name_tries: int = NAME_TRIES,
        window_s: float = WINDOW_S,
    ) -> None:
        self._database = store.database
        self._pair_tries, self._address_tries, self._name_tries = pair_tries, address_tries, name_tries
        self._window_ns = round(window_s * _SECOND_NS)
        self._refusals: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()  # (decided at, until)
        self._lock = threading.Lock()
        self._database.create(SCHEMA)

    # -- devices ------------------------------------------------------------------------------------------------

    def find_origin(self, name: str, address: str, token: str, now_ns: int) -> LoginOrigin:
        """Returns the origin of an attempt. Raises `StoreError`."""
        device_key, address_key = _device_key(token), _address_key(address)
        rows = self._database.read(
            "SELECT origin FROM console_device WHERE name=? AND origin IN (?,?) AND seen_ns>?",
            name,
            device_key,
            address_key,
            now_ns - _DEVICE_NS,
        )
        known_keys = {str(key) for (key,) in rows}
        is_device = bool(device_key) and device_key in known_keys
        return LoginOrigin(key=device_key if is_device else address_key, is_device=is_device, is_known=bool(known_keys))

    def remember_device(self, name: str, address: str, token: str, now_ns: int) -> str:
        """Remember that a user has logged in, and the address if there is one. Returns the device's new token.

        The browser's token is replaced at every login, so a token that somebody else put there is worth nothing.
        """
        new_token = secrets.token_urlsafe(32)
        new_key = _device_key(new_token)

        def work(run: RunStatement) -> None:
            run("DELETE FROM console_device WHERE seen_ns<?", now_ns - _DEVICE_NS)
            if old_key := _device_key(token):
                run("UPDATE console_device SET origin=? WHERE origin=?", new_key, old_key)
            for key in (new_key, *([_address_key(address)] if address else [])):
                run(
                    "INSERT INTO console_device VALUES (?,?,?) ON CONFLICT (origin, name) DO UPDATE "
                    "SET seen_ns=excluded.seen_ns",
                    key,
                    name,
                    now_ns,
                )
            run(
                "DELETE FROM console_device WHERE name=? AND origin NOT IN "
                "(SELECT origin FROM console_device WHERE name=? ORDER BY seen_ns DESC, origin LIMIT ?)",
                name,
                name,
                _DEVICES_PER_NAME,
            )

        self._database.write(work)
        return new_token

    # -- attempts -----------------------------------------------------------------------------------------------

    def recent_refusal_s(self, name: str, origin: LoginOrigin, now_ns: int) -> int:
        """Returns for how many seconds an attempt is still refused that was refused before; 0 when it must be asked.

        This takes no look at the store, so a flood of attempts costs it nothing.
        """
        with self._lock:
            decided_ns, until_ns = self._refusals.get((name, origin.key), (0, 0))
        return _whole_seconds(until_ns - now_ns) if decided_ns <= now_ns < until_ns else 0

    def admit(self, name: str, origin: LoginOrigin, now_ns: int) -> int:
        """Count an attempt and return 0, or return for how many seconds none is accepted. Raises `StoreError`."""

        def work(run: RunStatement) -> int:
            run("UPDATE console_try SET time_ns=? WHERE time_ns>?", now_ns, now_ns)  # the clock was set back
            run("DELETE FROM console_try WHERE time_ns<?", now_ns - max(_HOUR_NS, self._window_ns))
            wait_ns = self._wait_ns(run, name, origin, now_ns)
            if not wait_ns:
                run("INSERT INTO console_try VALUES (?,?,?)", name, origin.key, now_ns)
            return wait_ns

        wait_ns = self._database.write(work, durable=False)
        self._remember_refusal((name, origin.key), now_ns, now_ns + wait_ns)
        return _whole_seconds(wait_ns)

    def record_success(self, name: str, origin: LoginOrigin) -> None:
        """Record a right password: attempts of this name and origin are forgotten, others are not."""
        with self._lock:
            self._refusals.pop((name, origin.key), None)
        self._database.write(
            lambda run: run("DELETE FROM console_try WHERE name=? AND origin=?", name, origin.key), durable=False
        )

    def _wait_ns(self, run: RunStatement, name: str, origin: LoginOrigin, now_ns: int) -> int:
        wait_ns = self._pair_wait_ns(run, name, origin.key, now_ns)
        if origin.is_device:
            return wait_ns
        by_address = "SELECT COUNT(*), MAX(time_ns) FROM console_try WHERE origin=? AND time_ns>?"
        rows = run(by_address, origin.key, now_ns - self._window_ns)
        wait_ns = max(wait_ns, _slow_wait_ns(rows[0], self._address_tries, now_ns))
        if not origin.is_known:
            # Tries of known origins count here too: what matters is how often the name is guessed.
            rows = run(
                "SELECT COUNT(*), MAX(time_ns) FROM console_try WHERE name=? AND time_ns>?", name, now_ns - _HOUR_NS
            )
            wait_ns = max(wait_ns, _slow_wait_ns(rows[0], self._name_tries, now_ns))
        return wait_ns

    def _pair_wait_ns(self, run: RunStatement, name: str, key: str, now_ns: int) -> int:
        rows = run(
            "SELECT time_ns FROM console_try WHERE name=? AND origin=? AND time_ns>? ORDER BY time_ns DESC LIMIT ?",
            name,
            key,
            now_ns - self._window_ns,
            self._pair_tries,
        )
        if len(rows) < self._pair_tries:
            return 0
        return max(1, int(rows[-1][0]) + self._window_ns - now_ns)

    def _remember_refusal(self, mark: tuple[str, str], now_ns: int, until_ns: int) -> None:
        with self._lock:
            if until_ns <= now_ns:  # admitted: an earlier refusal is over, however the clock was set since
                self._refusals.pop(mark, None)
                return
            self._refusals[mark] = (now_ns, until_ns)
            self._refusals.move_to_end(mark)
            while len(self._refusals) > _REFUSALS_MAX:
                self._refusals.popitem(last=False)


def operator_origin(operator: str) -> LoginOrigin:
    """Returns the origin of an approver's password on the form of an operator who is logged in."""
    return LoginOrigin(key=f"operator:{operator}", is_device=True, is_known=True)


def is_device_token(token: str) -> bool:
    """Whether a text has the form of a device token."""
    return bool(_TOKEN.fullmatch(token))


def _device_key(token: str) -> str:
    """Returns the key of a device; the store contains only a hash of its token."""
    return f"device:{hashlib.sha256(token.encode()).hexdigest()}" if is_device_token(token) else ""


def _address_key(address: str) -> str:
    """Returns the key of an address; an IPv6 address counts by its network of 64 bits, which one host has whole."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return f"address:{address}"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return f"address:{parsed.ipv4_mapped}"
        return f"address:{ipaddress.ip_network((parsed, 64), strict=False)}"
    return f"address:{parsed}"


def _slow_wait_ns(row: tuple[int, int | None], tries_max: int, now_ns: int) -> int:
    count, newest_ns = row
    if count < tries_max or newest_ns is None:
        return 0
    return max(0, int(newest_ns) + round(SLOW_S * _SECOND_NS) - now_ns)


def _whole_seconds(wait_ns: int) -> int:
    return -(-wait_ns // _SECOND_NS)
