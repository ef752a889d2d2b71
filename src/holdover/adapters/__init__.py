"""Adapters: each connects one system to the harness as a subject. No other code knows both."""
