"""A Redis database as a place of state: its keys by DUMP and RESTORE, each with what is left of its time to live.

Time stands still in a snapshot: a key that had an hour to live when it was taken has an hour when it is put back. What
is left is kept in whole seconds, rounded up. Of a set, and of a hash that Redis keeps as a table, the members are kept
in their order in place of what DUMP gives, which differs from one server to the next; and so is a value that redaction
changes, for nobody can read what DUMP gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final

import msgspec

from holdover.adapters.process.place import BadPlace, only
from holdover.runtime.redaction import Rules, mark

_PART: Final = "keys"
_READABLE: Final = ("string", "hash", "list", "set", "zset")
_SECOND_MS: Final = 1000


class RedisPlace:
    """The keys of one database whose names fit any of `keys` (all where there is none). Needs `holdover[redis]`."""

    def __init__(self, name: str, url: str, keys: Iterable[str] = ()) -> None:
        try:
            import redis
        except ImportError as problem:
            raise BadPlace(f"{name}: Redis needs its client: pip install 'holdover[redis]'") from problem
        self.name, self.keys = name, list(keys)
        self._error = redis.RedisError
        try:
            self._client: Any = redis.Redis.from_url(url)
        except ValueError as problem:
            raise BadPlace(
                f"{name}: the URL is none of Redis': it begins with redis://, rediss:// or unix://"
            ) from problem

    def capture(self, rules: Rules | None) -> dict[str, bytes]:
        """Raises `BadPlace`; with rules also for a key whose kind cannot be read and so not be redacted."""
        try:
            found = [one for key in self._names() if (one := self._taken(key, rules)) is not None]
        except self._error as problem:
            raise BadPlace(f"{self.name}: {problem}") from problem
        return {_PART: msgspec.msgpack.encode(found)}

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """All keys are there when this returns, in one transaction, and saved where the server saves at all."""
        only(parts, [_PART], self)
        kept = msgspec.msgpack.decode(parts[_PART])
        try:
            old = self._names()
            with self._client.pipeline(transaction=True) as line:
                if old:
                    line.delete(*old)
                for one in kept:
                    self._put(line, one)
                line.execute()
            self._save()
        except self._error as problem:
            raise BadPlace(f"{self.name}: {problem}") from problem

    def clear(self) -> None:
        """None of the keys is there."""
        self.restore({_PART: msgspec.msgpack.encode([])})

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _names(self) -> list[bytes]:
        found: set[bytes] = set()
        for pattern in self.keys or ["*"]:
            found.update(self._client.scan_iter(match=pattern, count=1000))
        return sorted(found)

    def _taken(self, key: bytes, rules: Rules | None) -> dict[str, Any] | None:
        """One key as it is at one instant; None where it has gone meanwhile."""
        kind = self._client.type(key).decode()
        plain = self._is_unordered(key, kind)
        with self._client.pipeline(transaction=True) as line:
            line.pttl(key)
            if plain:
                line.smembers(key) if kind == "set" else line.hgetall(key)
            else:
                line.dump(key)
            left_ms, told = line.execute()
        if not told:
            return None
        one: dict[str, Any] = {"key": key, "left_s": 0 if left_ms < 0 else -(-left_ms // _SECOND_MS)}
        if plain:
            one |= {"kind": kind, "value": sorted(told) if kind == "set" else dict(sorted(told.items()))}
        else:
            one["dump"] = told
        if rules is not None:
            self._redact(one, kind, rules)
        return one

    def _is_unordered(self, key: bytes, kind: str) -> bool:
        """Whether DUMP gives its members as they happen to lie: the same state has to be the same bytes.

        A hash whose fields have times to live of their own (Redis 7.4) is dumped all the same.
        """
        if kind == "set":
            return True
        if kind != "hash" or self._client.object("encoding", key) != b"hashtable":
            return False
        if not self._fields_expire:
            return True
        names = self._client.hkeys(key)
        return not any(left > 0 for left in self._client.hpttl(key, *names))

    @cached_property
    def _fields_expire(self) -> bool:
        told = str(self._client.info("server")["redis_version"]).split(".")
        return (int(told[0]), int(told[1])) >= (7, 4)

    def _redact(self, one: dict[str, Any], kind: str, rules: Rules) -> None:
        if kind not in _READABLE:
            raise BadPlace(
                f"{self.name}: {_text(one['key'])} is a {kind}, which cannot be redacted; leave it out by `keys`"
            )
        name = _text(one["key"])
        value = self._value(one["key"], kind)
        new = rules.value(value)
        if isinstance(name, str) and name.rpartition(":")[2] in rules.fields and kind == "string":
            new = mark(value)
        said = rules.text(name) if isinstance(name, str) else name
        if said != name:
            one["key"] = said.encode()
        if new != value:
            one.pop("dump", None)
            one |= {"kind": kind, "value": new}

    def _value(self, key: bytes, kind: str) -> Any:
        client = self._client
        if kind == "string":
            return _text(client.get(key))
        if kind == "hash":
            return {_text(name): _text(value) for name, value in sorted(client.hgetall(key).items())}
        if kind == "list":
            return [_text(one) for one in client.lrange(key, 0, -1)]
        if kind == "set":
            return [_text(one) for one in sorted(client.smembers(key))]
        return [[_text(one), score] for one, score in client.zrange(key, 0, -1, withscores=True)]

    def _put(self, line: Any, one: dict[str, Any]) -> None:
        key, left_ms = one["key"], one["left_s"] * _SECOND_MS
        if "dump" in one:
            line.restore(key, left_ms, one["dump"], replace=True)
            return
        kind, value = one["kind"], one["value"]
        if kind == "string":
            line.set(key, _bytes(value))
        elif kind == "hash":
            line.hset(key, mapping={_bytes(name): _bytes(kept) for name, kept in value.items()})
        elif kind == "list":
            line.rpush(key, *map(_bytes, value))
        elif kind == "set":
            line.sadd(key, *map(_bytes, value))
        else:
            line.zadd(key, {_bytes(member): score for member, score in value})
        if left_ms:
            line.pexpire(key, left_ms)

    def _save(self) -> None:
        """Have the server write it down now, where it is set to write at all: a server without a disk has none."""
        told = {**self._client.config_get("save"), **self._client.config_get("appendonly")}
        if told.get("save") or told.get("appendonly") == "yes":
            self._client.save()


def _text(value: Any) -> Any:
    """Text where it is text; other bytes stay what they are."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
