"""A folder of recordings: which instruments and days are at hand."""

from __future__ import annotations

from pathlib import Path

from holdover.recording.format import BadRecording, Recording


class RecordingStore:
    """Every recording (`*.hrec`) below a directory. A damaged file spoils nothing but itself."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise BadRecording(f"{directory}: there is no such folder of recordings")
        self._paths: dict[tuple[str, str], Path] = {}
        self.problems: list[str] = []
        for path in sorted(self.directory.rglob("*.hrec")):
            self._paths[path.parent.name, path.stem] = path

    def symbols(self) -> list[str]:
        """The instruments at hand, sorted."""
        return sorted({symbol for symbol, _ in self._paths})

    def days(self, symbol: str) -> list[str]:
        """The days of an instrument, sorted."""
        return sorted(day for known, day in self._paths if known == symbol)

    def get(self, symbol: str, trade_date: str) -> Recording:
        """One day. Raises `BadRecording` that names what is at hand instead."""
        path = self._paths.get((symbol, trade_date))
        if path is None:
            days = self.days(symbol)
            if not days:
                at_hand = ", ".join(self.symbols()) or "nothing"
                raise BadRecording(f"no recording of {symbol} in {self.directory}; at hand: {at_hand}")
            raise BadRecording(f"no recording of {symbol} on {trade_date}; at hand: {', '.join(days)}")
        return Recording.open(path)

    def list(self) -> list[Recording]:
        """Every recording that opens; what does not is described in `problems`."""
        found: list[Recording] = []
        self.problems = []
        for path in self._paths.values():
            try:
                found.append(Recording.open(path))
            except BadRecording as problem:
                self.problems.append(str(problem))
        return found


def bundled() -> RecordingStore:
    """The simulated sessions that come with the package."""
    return RecordingStore(Path(__file__).parent / "bundled")


def path_for(directory: Path, venue: str, symbol: str, trade_date: str) -> Path:
    """Where a recording belongs below a directory."""
    return directory / venue.lower() / symbol / f"{trade_date}.hrec"
