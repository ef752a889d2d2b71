"""Incidents: each breach opens or joins one and is classified automatically; their rates and durations."""

from holdover.incidents.classes import cell_class
from holdover.incidents.figures import DurationStats, IncidentFigures, Rate, RateRatio, compare_rates, compute_figures
from holdover.incidents.interchange import COLUMNS, IncidentImportError, read_csv, to_csv, to_json
from holdover.incidents.ledger import Incident, IncidentError, IncidentLedger
from holdover.incidents.report import figures_json, figures_page, figures_text

__all__ = [
    "COLUMNS",
    "IncidentImportError",
    "IncidentError",
    "IncidentFigures",
    "Incident",
    "DurationStats",
    "IncidentLedger",
    "Rate",
    "RateRatio",
    "cell_class",
    "compute_figures",
    "figures_json",
    "figures_page",
    "figures_text",
    "read_csv",
    "compare_rates",
    "to_csv",
    "to_json",
]
