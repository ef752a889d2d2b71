"""Incidents: each breach opens one or joins one, classified before anyone looks; how often, and how long they last."""

from holdover.incidents.classes import cell_class
from holdover.incidents.exchange import COLUMNS, BadImport, from_csv, to_csv, to_json
from holdover.incidents.figures import Figures, Lasted, Rate, Ratio, figures, rate_ratio
from holdover.incidents.ledger import BadIncident, Incident, Ledger
from holdover.incidents.page import figures_json, figures_page, figures_text

__all__ = [
    "COLUMNS",
    "BadImport",
    "BadIncident",
    "Figures",
    "Incident",
    "Lasted",
    "Ledger",
    "Rate",
    "Ratio",
    "cell_class",
    "figures",
    "figures_json",
    "figures_page",
    "figures_text",
    "from_csv",
    "rate_ratio",
    "to_csv",
    "to_json",
]
