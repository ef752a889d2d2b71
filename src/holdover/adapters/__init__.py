"""Adapters: what puts a system under test. Each knows one system and the harness's subject, and nothing else does."""
