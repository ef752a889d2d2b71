"""Every test in this directory has a desk with scripted ports."""

from tests.desk_bench import make_bench

__all__ = ["make_bench"]
