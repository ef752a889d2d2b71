"""The pages: one module each. A further page is a further module with `NAV` and `PARTS`, named here.

`NAV` is (path, words) for the navigation, or None; `PARTS` is all that the module answers.
"""

from typing import Final

from holdover.console.pages import audit, breach, catalogue, health, incidents, now, outbox, shadow

PAGES: Final = (now, breach, outbox, incidents, shadow, health, catalogue, audit)
"""In the order of the navigation."""
