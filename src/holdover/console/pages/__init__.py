"""The pages, one module each. To add a page, add a module with `NAV` and `PARTS` and list it here.

`NAV` is (path, words) for the navigation, or None; `PARTS` are the routes of the module.
"""

from typing import Final

from holdover.console.pages import alerts, audit, breach, catalogue, health, incidents, overview, shadow

PAGES: Final = (overview, breach, alerts, incidents, shadow, health, catalogue, audit)
"""In the order of the navigation."""
