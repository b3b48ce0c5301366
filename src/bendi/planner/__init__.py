"""Bytes and seconds: arithmetic on facts.

Knows formulas: what a model needs in memory. Does not read files or machines, does not load anything: pure functions
of facts that `formats` and `hardware` provide.
"""

from bendi.planner.memory import COMPUTE_RESERVE_BYTES, context_that_fits, kv_bytes_per_token

__all__ = ["COMPUTE_RESERVE_BYTES", "context_that_fits", "kv_bytes_per_token"]
