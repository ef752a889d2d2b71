"""Exploration: schedules, the sweep over every point of a day, search, shrinking, the corpus."""

from holdover.explore.player import Player, PlayResult, open_store_for, play
from holdover.explore.schedule import Operation, RecordedDay, Schedule, ScheduleError, make_schedule, read_schedule

__all__ = [
    "ScheduleError",
    "Operation",
    "PlayResult",
    "Player",
    "RecordedDay",
    "Schedule",
    "play",
    "read_schedule",
    "make_schedule",
    "open_store_for",
]
