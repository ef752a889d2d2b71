"""A Redis database as a state store: its keys by DUMP and RESTORE, each with its remaining time to live.

Time does not pass in a snapshot: a key with an hour to live at the capture has an hour after the restore. The
time to live is kept in whole seconds, rounded up. For a set, and for a hash that Redis stores as a table, the
members are kept in sorted order instead of the DUMP, which differs between servers. A redacted value is kept
the same way, because a DUMP cannot be edited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final

import msgspec

from holdover.adapters.process.state_store import StateStoreError, require_parts
from holdover.runtime.redaction import RedactionRules

_PART: Final = "keys"
_READABLE: Final = ("string", "hash", "list", "set", "zset")
_SECOND_MS: Final = 1000


class RedisStore:
    """The keys of one database whose names match any of `keys` (default: all). Needs `holdover[redis]`."""

    def __init__(self, name: str, url: str, keys: Iterable[str] = ()) -> None:
        try:
            import redis
        except ImportError as problem:
            raise StateStoreError(f"{name}: Redis needs its client: pip install 'holdover[redis]'") from problem
        self.name, self.keys = name, list(keys)
        self._error = redis.RedisError
        try:
            self._client: Any = redis.Redis.from_url(url)
        except ValueError as problem:
            raise StateStoreError(
                f"{name}: the URL is none of Redis': it begins with redis://, rediss:// or unix://"
            ) from problem

    def capture(self, rules: RedactionRules | None) -> dict[str, bytes]:
        """Capture the keys. Raises `StateStoreError`, with rules also for a key of a kind that cannot be redacted."""
        try:
            entries = [entry for key in self._find_keys() if (entry := self._capture_key(key, rules)) is not None]
        except self._error as error:
            raise StateStoreError(f"{self.name}: {error}") from error
        return {_PART: msgspec.msgpack.encode(entries)}

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Restore all keys in one transaction; save them if the server persists. Raises `StateStoreError`."""
        require_parts(parts, [_PART], self)
        entries = msgspec.msgpack.decode(parts[_PART])
        try:
            old_keys = self._find_keys()
            with self._client.pipeline(transaction=True) as pipeline:
                if old_keys:
                    pipeline.delete(*old_keys)
                for entry in entries:
                    self._write_entry(pipeline, entry)
                pipeline.execute()
            self._save_to_disk()
        except self._error as error:
            raise StateStoreError(f"{self.name}: {error}") from error

    def clear(self) -> None:
        """Delete the keys."""
        self.restore({_PART: msgspec.msgpack.encode([])})

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _find_keys(self) -> list[bytes]:
        names: set[bytes] = set()
        for pattern in self.keys or ["*"]:
            names.update(self._client.scan_iter(match=pattern, count=1000))
        return sorted(names)

    def _capture_key(self, key: bytes, rules: RedactionRules | None) -> dict[str, Any] | None:
        """Capture one key at one instant; return None when it no longer exists."""
        kind = self._client.type(key).decode()
        is_readable = self._is_unordered(key, kind)
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.pttl(key)
            if is_readable:
                pipeline.smembers(key) if kind == "set" else pipeline.hgetall(key)
            else:
                pipeline.dump(key)
            left_ms, content = pipeline.execute()
        if not content:
            return None
        entry: dict[str, Any] = {"key": key, "left_s": 0 if left_ms < 0 else -(-left_ms // _SECOND_MS)}
        if is_readable:
            entry |= {"kind": kind, "value": sorted(content) if kind == "set" else dict(sorted(content.items()))}
        else:
            entry["dump"] = content
        if rules is not None:
            self._redact_entry(entry, kind, rules)
        return entry

    def _is_unordered(self, key: bytes, kind: str) -> bool:
        """Return whether DUMP gives the members in arbitrary order; equal states must be equal bytes.

        A hash whose fields have times to live (Redis 7.4) is dumped nevertheless.
        """
        if kind == "set":
            return True
        if kind != "hash" or self._client.object("encoding", key) != b"hashtable":
            return False
        if not self._fields_expire:
            return True
        names = self._client.hkeys(key)
        return not any(ttl_ms > 0 for ttl_ms in self._client.hpttl(key, *names))

    @cached_property
    def _fields_expire(self) -> bool:
        version = str(self._client.info("server")["redis_version"]).split(".")
        return (int(version[0]), int(version[1])) >= (7, 4)

    def _redact_entry(self, entry: dict[str, Any], kind: str, rules: RedactionRules) -> None:
        if kind not in _READABLE:
            raise StateStoreError(
                f"{self.name}: {_decode_text(entry['key'])} is a {kind}, which cannot be redacted; "
                "leave it out by `keys`"
            )
        name = _decode_text(entry["key"])
        value = self._read_value(entry["key"], kind)
        new = rules.redact_value(value)
        if isinstance(name, str) and name.rpartition(":")[2] in rules.fields and kind == "string":
            new = rules.pseudonymize(value)
        redacted_name = rules.redact_text(name) if isinstance(name, str) else name
        if redacted_name != name:
            entry["key"] = redacted_name.encode()
        if new != value:
            entry.pop("dump", None)
            entry |= {"kind": kind, "value": new}

    def _read_value(self, key: bytes, kind: str) -> Any:
        client = self._client
        if kind == "string":
            return _decode_text(client.get(key))
        if kind == "hash":
            return {_decode_text(name): _decode_text(value) for name, value in sorted(client.hgetall(key).items())}
        if kind == "list":
            return [_decode_text(item) for item in client.lrange(key, 0, -1)]
        if kind == "set":
            return [_decode_text(member) for member in sorted(client.smembers(key))]
        return [[_decode_text(member), score] for member, score in client.zrange(key, 0, -1, withscores=True)]

    def _write_entry(self, pipeline: Any, entry: dict[str, Any]) -> None:
        key, left_ms = entry["key"], entry["left_s"] * _SECOND_MS
        if "dump" in entry:
            pipeline.restore(key, left_ms, entry["dump"], replace=True)
            return
        kind, value = entry["kind"], entry["value"]
        if kind == "string":
            pipeline.set(key, _encode_bytes(value))
        elif kind == "hash":
            pipeline.hset(key, mapping={_encode_bytes(name): _encode_bytes(content) for name, content in value.items()})
        elif kind == "list":
            pipeline.rpush(key, *map(_encode_bytes, value))
        elif kind == "set":
            pipeline.sadd(key, *map(_encode_bytes, value))
        else:
            pipeline.zadd(key, {_encode_bytes(member): score for member, score in value})
        if left_ms:
            pipeline.pexpire(key, left_ms)

    def _save_to_disk(self) -> None:
        """Let the server save now, if it is configured to persist at all."""
        settings = {**self._client.config_get("save"), **self._client.config_get("appendonly")}
        if settings.get("save") or settings.get("appendonly") == "yes":
            self._client.save()


def _decode_text(value: Any) -> Any:
    """Decode text; other bytes stay as they are."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _encode_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
