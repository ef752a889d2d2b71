"""Holdover: state-persistent testing and runtime invariants for live execution systems."""

__version__ = "0.1.0"
