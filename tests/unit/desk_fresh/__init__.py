"""Unit tests of the desk, each from a fresh state, as a good team writes them."""
