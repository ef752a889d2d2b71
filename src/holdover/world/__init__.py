"""The simulated outside: clock, venue and link. It is deterministic, and its whole state can be serialized."""

from holdover.world.book import UNDEF_PRICE, TopOfBook, WorkingOrder
from holdover.world.clock import NEVER, VirtualClock
from holdover.world.counterparts import IncumbentReport, ReplicationStats
from holdover.world.link import LinkDownError, LinkListener, SimulatedLink, SimulatedLinkEnd
from holdover.world.policy import VenuePolicy
from holdover.world.replicating_venue import ReplicatingVenue
from holdover.world.venue import Venue

__all__ = [
    "NEVER",
    "UNDEF_PRICE",
    "TopOfBook",
    "VirtualClock",
    "SimulatedLinkEnd",
    "ReplicationStats",
    "SimulatedLink",
    "LinkDownError",
    "LinkListener",
    "ReplicatingVenue",
    "IncumbentReport",
    "Venue",
    "VenuePolicy",
    "WorkingOrder",
]
