"""The reference execution system: a real one, small; it knows the guard and the records, and nothing of any test."""

from holdover.desk.config import DeskConfig, Strategy
from holdover.desk.desk import Desk, Parts

__all__ = ["Desk", "DeskConfig", "Parts", "Strategy"]
