"""Bounds for files that come from elsewhere: their size, their expansion, their parts and the names of these.

A reader of a compressed file stops at a bound instead of filling the memory. Two bounds apply to a file that expands to
more than `EXPANDED_FREE`: an absolute one, and `RATIO_MAX` times its compressed size. Deflate compresses at most 1,032
times; recorded days, state databases and FIX logs compress 4 to 40 times, so a factor of 200 is no real file. Where a
user may need more, the command has `--max-size`, which replaces both.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Final

EXPANDED_FREE: Final = 64 << 20
"""Bytes that any compressed file may expand to."""
RATIO_MAX: Final = 200
"""How many times larger than the file its content may be, beyond `EXPANDED_FREE`."""
BUNDLE_EXPANDED_MAX: Final = 1 << 30
"""Bytes of all parts of a bundle together; a bundle of two busy recorded days has 100 MB."""
SNAPSHOT_EXPANDED_MAX: Final = 1 << 30
"""Bytes of a snapshot; the state of a million orders has 600 MB."""
RECORDING_EXPANDED_MAX: Final = 4 << 30
"""Bytes of a recorded day: 64 million events of 64 bytes."""
FILE_MAX: Final = 1 << 30
"""Bytes of any other file that is read whole."""
DOCUMENT_MAX: Final = 64 << 20
"""Bytes of a schedule, a list, a configuration or a witness file: a million lines."""
PARTS_MAX: Final = 10_000
"""Parts of a bundle or a snapshot."""
DEPTH_MAX: Final = 100
"""Levels of lists and tables in a document."""
_NAME_MAX: Final = 255
_UNIT_SIZES: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


ARCHIVE_ERRORS: Final = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    NotImplementedError,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
)
"""What `zipfile` raises for a damaged archive."""


class SizeLimitError(ValueError):
    """A file is larger than its bound, or has a part that must not be; the message gives the bound and the option."""


class PartNameError(ValueError):
    """A part of a file from elsewhere has a name that leads outside its folder, or one that occurs twice."""


def parse_size(text: str) -> int:
    """Return a size such as `500M` or `2G` in bytes. Raises `ValueError`."""
    match = re.fullmatch(r"([0-9]{1,12})([KMG]?)i?B?", text.strip(), re.IGNORECASE)
    if match is None or not int(match[1]):
        raise ValueError(f"a size is written like 500M or 2G, not {text[:40]!r}")
    return int(match[1]) * _UNIT_SIZES[match[2].upper()]


def format_size(size: int) -> str:
    """Return a number of bytes in the largest fitting unit."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}".replace(".0 ", " ")
    return f"{size} bytes"


def expansion_bound(stored_size: int, expanded_max: int, size_max: int | None = None) -> int:
    """Return how many bytes a compressed file may expand to; `size_max` replaces the bounds."""
    if size_max is not None:
        return size_max
    return min(expanded_max, max(EXPANDED_FREE, RATIO_MAX * stored_size))


def read_bounded(path: Path, size_max: int = FILE_MAX) -> bytes:
    """Return the content of a regular file. Raises `SizeLimitError` when it is larger than a bound or no file.

    Raises `OSError` when it cannot be read.
    """
    with open_bounded(path) as file:
        content = file.read(size_max + 1)
    if len(content) > size_max:
        raise SizeLimitError(f"{path.name}: is larger than {format_size(size_max)}, which is more than it may be")
    return content


def open_bounded(path: Path) -> IO[bytes]:
    """Open a regular file for reading. Raises `SizeLimitError` for a pipe, a device or a folder, and `OSError`."""
    file = open(path, "rb", opener=_open_without_blocking)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise SizeLimitError(f"{path}: is no regular file")
    return file


def _open_without_blocking(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)  # a pipe without a writer must not hold the reader up


def decompress_bounded(data: bytes, expanded_max: int, size_max: int | None = None) -> bytes:
    """Return the content of a zlib stream. Raises `zlib.error` when it is damaged and `SizeLimitError`."""
    bound = expansion_bound(len(data), expanded_max, size_max)
    decompressor = zlib.decompressobj()
    content = decompressor.decompress(data, bound + 1)
    if len(content) > bound:
        raise SizeLimitError(
            f"expands to more than {format_size(bound)} from {format_size(len(data))}; "
            f"if it should, give a larger bound with --max-size"
        )
    if not decompressor.eof:
        raise zlib.error("incomplete or truncated stream")
    if decompressor.unused_data:
        raise zlib.error("bytes follow the end of the stream")
    return content


def find_name_problem(name: str) -> str:
    """Return why a part may not have this name, in words; empty when it may.

    A name is a relative POSIX path of ordinary components.
    """
    if not name or len(name.encode("utf-8", "replace")) > 16 * _NAME_MAX:
        return "is empty or too long"
    if not name.isprintable() or "\\" in name:
        return "has a character that no name of a part has"
    if name.startswith("/"):
        return "is an absolute path"
    components = name.split("/")
    if any(component in ("", ".", "..") for component in components):
        return "leads outside its folder"
    if any(len(component.encode("utf-8", "replace")) > _NAME_MAX for component in components):
        return "is too long"
    return ""


def check_part_names(names: list[str]) -> None:
    """Raise `PartNameError` for a name that leads outside its folder, occurs twice, or is a folder of another part."""
    if len(names) > PARTS_MAX:
        raise PartNameError(f"has {len(names):,} parts, more than the {PARTS_MAX:,} that it may have")
    seen: set[str] = set()
    for name in names:
        if problem := find_name_problem(name):
            raise PartNameError(f"the name of a part, {name[:80]!r}, {problem}")
        if name in seen:
            raise PartNameError(f"has two parts called {name[:80]!r}")
        seen.add(name)
    for name in names:
        folders = [parent.as_posix() for parent in PurePosixPath(name).parents if parent.name]
        clash = next((folder for folder in folders if folder in seen), "")
        if clash:
            raise PartNameError(f"the part {clash[:80]!r} is a file and a folder of {name[:80]!r}")


def read_archive(archive: zipfile.ZipFile, stored_size: int, size_max: int | None = None) -> dict[str, bytes]:
    """Return the members of a ZIP archive by name, decompressed within the bound of a bundle.

    Raises `PartNameError`, `SizeLimitError`, and what `zipfile` raises for a damaged archive.
    """
    members = archive.infolist()
    check_part_names([member.filename for member in members])
    bound = expansion_bound(stored_size, BUNDLE_EXPANDED_MAX, size_max)
    contents: dict[str, bytes] = {}
    left = bound
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise PartNameError(f"the part {member.filename[:80]!r} is a link or a device")
        if member.flag_bits & 0x1:
            raise PartNameError(f"the part {member.filename[:80]!r} is encrypted")
        with archive.open(member) as file:
            content = file.read(left + 1)
        left -= len(content)
        if left < 0:
            raise SizeLimitError(
                f"expands to more than {format_size(bound)} from {format_size(stored_size)}; "
                f"if it should, give a larger bound with --max-size"
            )
        contents[member.filename] = content
    return contents


def write_parts(parts: dict[str, bytes], directory: Path) -> None:
    """Write parts as files below a new or empty directory. Raises `PartNameError` before anything is written."""
    check_part_names(list(parts))
    for name, content in parts.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(content)
