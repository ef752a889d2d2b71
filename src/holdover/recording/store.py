"""A directory of recordings, by instrument and day."""

from __future__ import annotations

import hashlib
from pathlib import Path

from holdover.model.spelling import suggest_spelling
from holdover.recording.format import Recording, RecordingError
from holdover.runtime.size_limits import find_name_problem


class RecordingStore:
    """Every recording (`*.hrec`) below a directory. A damaged file does not affect the others."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise RecordingError(f"{directory}: there is no such folder of recordings")
        self._paths: dict[tuple[str, str], Path] = {}
        self.problems: list[str] = []
        for path in sorted(self.directory.rglob("*.hrec")):
            self._paths[path.parent.name, path.stem] = path

    def symbols(self) -> list[str]:
        """Return the available instruments, sorted."""
        return sorted({symbol for symbol, _ in self._paths})

    def days(self, symbol: str) -> list[str]:
        """Return the available days of an instrument, sorted."""
        return sorted(day for stored_symbol, day in self._paths if stored_symbol == symbol)

    def get(self, symbol: str, trade_date: str) -> Recording:
        """Open one day. Raises `RecordingError` that names the available days or instruments."""
        path = self._paths.get((symbol, trade_date))
        if path is None:
            days = self.days(symbol)
            if not days:
                available = ", ".join(self.symbols()) or "none"
                hint = suggest_spelling(symbol, self.symbols())
                raise RecordingError(
                    f"no recording of {symbol} in {self.directory}{hint or '; available: ' + available}"
                )
            raise RecordingError(f"no recording of {symbol} on {trade_date}; available: {', '.join(days)}")
        return Recording.open(path)

    def list_recordings(self) -> list[Recording]:
        """Open every readable recording; `problems` describes the others."""
        recordings: list[Recording] = []
        self.problems = []
        for path in self._paths.values():
            try:
                recordings.append(Recording.open(path))
            except RecordingError as error:
                self.problems.append(str(error))
        return recordings


def bundled_store() -> RecordingStore:
    """Return the simulated sessions that ship with the package."""
    return RecordingStore(Path(__file__).parent / "bundled")


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recording_path(directory: Path, venue: str, symbol: str, trade_date: str) -> Path:
    """Return the path of a recording below a directory. Raises `RecordingError` when a name leads outside it."""
    name = f"{venue.lower()}/{symbol}/{trade_date}.hrec"
    if find_name_problem(name) or "/" in symbol or "/" in venue or "/" in trade_date:
        raise RecordingError(f"the recording of {symbol[:80]!r} on {trade_date[:20]!r} cannot be a file of {directory}")
    return directory / name
