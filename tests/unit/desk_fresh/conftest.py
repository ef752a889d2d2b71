"""Every test here has a desk with an outside that it plays by hand."""

from tests.desk_bench import make_bench

__all__ = ["make_bench"]
