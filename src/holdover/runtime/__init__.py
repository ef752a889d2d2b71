"""The guard and all that production imports: monitor, freezes, pager, flight recorder, journal.

Importing it loads nothing heavier than msgspec and SQLite: a trading process pays only for what it uses.
"""

from holdover.runtime.axes import Axis, BadAxis, Counted, axis, register
from holdover.runtime.breach import Breach, Page, Shown
from holdover.runtime.cells import CellCounter
from holdover.runtime.channels import AppriseChannel, Channel, FileChannel, LogChannel, PagerDutyChannel, WebhookChannel
from holdover.runtime.config import BadConfig, GuardConfig, read_config
from holdover.runtime.database import StoreProblem
from holdover.runtime.freezes import Freeze, FreezeStore, ThawRequest
from holdover.runtime.guard import Guard, Step, ThawRefused
from holdover.runtime.journal import FlightRecorder, Journal, read_journal
from holdover.runtime.monitor import Monitor
from holdover.runtime.outbox import Alert, Pending
from holdover.runtime.pager import Level, Pager
from holdover.runtime.reports import BadMessage, ReportReader

__all__ = [
    "Alert",
    "AppriseChannel",
    "Axis",
    "BadAxis",
    "BadConfig",
    "BadMessage",
    "Breach",
    "CellCounter",
    "Channel",
    "Counted",
    "FileChannel",
    "FlightRecorder",
    "Freeze",
    "FreezeStore",
    "Guard",
    "GuardConfig",
    "Journal",
    "Level",
    "LogChannel",
    "Monitor",
    "Page",
    "Pager",
    "PagerDutyChannel",
    "Pending",
    "Shown",
    "ReportReader",
    "Step",
    "StoreProblem",
    "ThawRefused",
    "ThawRequest",
    "WebhookChannel",
    "axis",
    "read_config",
    "read_journal",
    "register",
]
