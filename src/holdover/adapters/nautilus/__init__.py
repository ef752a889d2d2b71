"""NautilusTrader as a subject: its real live stack on the simulated venue. Needs the extra `nautilus`."""

from holdover.adapters.nautilus.subject import NautilusSubject

__all__ = ["NautilusSubject"]
