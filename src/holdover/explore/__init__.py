"""Exploration: schedules, the sweep over every point of a day, search, shrinking, the corpus."""

from holdover.explore.play import Played, Player, play, store_for
from holdover.explore.schedule import BadSchedule, Operation, Recorded, Schedule, read_schedule, schedule_on

__all__ = [
    "BadSchedule",
    "Operation",
    "Played",
    "Player",
    "Recorded",
    "Schedule",
    "play",
    "read_schedule",
    "schedule_on",
    "store_for",
]
