"""Exploration: the sweep over every point of a day, search, shrinking, the corpus; schedules come from the harness."""

from holdover.harness.player import Player, PlayResult, play
from holdover.harness.schedule import (
    Operation,
    RecordedDay,
    Schedule,
    ScheduleError,
    bind_schedule,
    decode_schedule,
    load_schedule,
    make_schedule,
    open_store_for,
    read_schedule,
)

__all__ = [
    "ScheduleError",
    "Operation",
    "PlayResult",
    "Player",
    "RecordedDay",
    "Schedule",
    "bind_schedule",
    "decode_schedule",
    "load_schedule",
    "play",
    "read_schedule",
    "make_schedule",
    "open_store_for",
]
