"""freqtrade as a subject: its real worker, bot and database on the simulated venue. Needs the extra `freqtrade`."""

from holdover.adapters.freqtrade.subject import FreqtradeSubject

__all__ = ["FreqtradeSubject"]
