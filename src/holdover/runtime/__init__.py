"""The guard and everything that production imports: monitor, freezes, pager, flight recorder, journal.

Importing this package loads nothing heavier than msgspec and SQLite.
"""

from holdover.runtime.axes import Axis, AxisError, CountingAxis, axis, register_axis
from holdover.runtime.breach import Breach, BreachRecord, Page
from holdover.runtime.cells import CellCounter
from holdover.runtime.channels import AppriseChannel, Channel, FileChannel, LogChannel, PagerDutyChannel, WebhookChannel
from holdover.runtime.config import GuardConfig, GuardConfigError, read_config
from holdover.runtime.database import StoreError
from holdover.runtime.freeze_store import Freeze, FreezeStore, ThawRequest
from holdover.runtime.guard import Guard, GuardSettings, Step, ThawRefusedError
from holdover.runtime.journal import FlightRecorder, Journal, read_journal
from holdover.runtime.monitor import Monitor
from holdover.runtime.outbox import Alert, PendingPage
from holdover.runtime.pager import EscalationLevel, Pager

__all__ = [
    "Alert",
    "AppriseChannel",
    "Axis",
    "AxisError",
    "GuardConfigError",
    "Breach",
    "CellCounter",
    "Channel",
    "CountingAxis",
    "FileChannel",
    "FlightRecorder",
    "Freeze",
    "FreezeStore",
    "Guard",
    "GuardConfig",
    "GuardSettings",
    "Journal",
    "EscalationLevel",
    "LogChannel",
    "Monitor",
    "Page",
    "Pager",
    "PagerDutyChannel",
    "PendingPage",
    "BreachRecord",
    "Step",
    "StoreError",
    "ThawRefusedError",
    "ThawRequest",
    "WebhookChannel",
    "axis",
    "read_config",
    "read_journal",
    "register_axis",
]
