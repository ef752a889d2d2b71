"""The reference execution system: small and complete. It uses the guard and the records, and no test code."""

from holdover.desk.config import DeskConfig, Strategy
from holdover.desk.desk import Desk, Parts

__all__ = ["Desk", "DeskConfig", "Parts", "Strategy"]
