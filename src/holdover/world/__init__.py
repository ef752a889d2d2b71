"""The simulated outside: clock, venue, link. Deterministic, and dumpable whole."""

from holdover.world.book import UNDEF_PRICE, Book, Working
from holdover.world.clock import NEVER, Clock
from holdover.world.link import End, Link, LinkDown, Listener
from holdover.world.mirror import Followed, Mirror, Reported
from holdover.world.policy import VenuePolicy
from holdover.world.venue import Venue

__all__ = [
    "NEVER",
    "UNDEF_PRICE",
    "Book",
    "Clock",
    "End",
    "Followed",
    "Link",
    "LinkDown",
    "Listener",
    "Mirror",
    "Reported",
    "Venue",
    "VenuePolicy",
    "Working",
]
