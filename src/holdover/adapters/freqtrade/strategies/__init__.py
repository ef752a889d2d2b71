"""Strategies that freqtrade loads by their file, for its tests and findings."""
