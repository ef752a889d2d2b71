"""The file of a monitor's saved memory: a header, the encoded memory, and the SHA-256 of both.

A changed bit anywhere in the file is noticed. The header names the guard, and the mark by which the journal continues
the memory; see `journal_replay`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec

from holdover.runtime.files import open_whole
from holdover.runtime.memory import MEMORY_FORMAT, decode_memory
from holdover.state import StateError

_FORMAT: Final = "holdover-memory"
_VERSION: Final = 3
_START: Final = b'{"format":"' + _FORMAT.encode() + b'"'
_DIGEST_LENGTH: Final = 65  # 64 hexadecimal digits and the end of the line


class MemoryHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of the file. `problem` says why the memory does not contain everything; empty when it does."""

    format: str = _FORMAT
    version: int = _VERSION
    name: str
    mark: str
    problem: str = ""


def write_memory_file(path: Path, header: MemoryHeader, pieces: Iterable[bytes]) -> None:
    """Write a memory atomically and synced. Raises `OSError`, and what `pieces` raises."""
    digest = hashlib.sha256()
    with open_whole(path) as file:
        for piece in chain((msgspec.json.encode(header), b"\n"), pieces):
            digest.update(piece)
            file.write(piece)
        file.write(digest.hexdigest().encode() + b"\n")


def read_memory_file(path: Path) -> tuple[MemoryHeader, bytes]:
    """Return the header and the encoded memory. Raises `StateError`, which names the file, and `OSError`."""
    content = path.read_bytes()
    if not content.startswith(_START):
        try:
            decode_memory(content)  # says which version of which format it is, or that it is none
        except StateError as problem:
            raise StateError(f"{path}: {problem}") from problem
        raise StateError(f"{path}: it was written by another build; {MEMORY_FORMAT.next_step}")
    body, stored = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
    if hashlib.sha256(body).hexdigest().encode() + b"\n" != stored:
        raise StateError(
            f"{path}: the {MEMORY_FORMAT.name} is damaged: its content does not fit its checksum; "
            f"{MEMORY_FORMAT.next_step}"
        )
    line, _, memory = body.partition(b"\n")
    try:
        header = msgspec.json.decode(line, type=MemoryHeader)
    except msgspec.MsgspecError as problem:
        raise StateError(f"{path}: its header cannot be read: {problem}; {MEMORY_FORMAT.next_step}") from problem
    if header.version != _VERSION:
        raise StateError(
            f"{path}: the {MEMORY_FORMAT.name} has version {header.version}; this build reads version {_VERSION}; "
            f"{MEMORY_FORMAT.next_step}"
        )
    return header, memory
