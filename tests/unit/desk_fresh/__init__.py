"""Unit tests of the desk, each from a fresh state: the suite that a good team has, and what it cannot see."""
