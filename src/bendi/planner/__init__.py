"""Bytes and seconds: arithmetic on facts.

Knows formulas: what a model needs in memory. Does not read files or machines, does not load anything: pure functions
of facts that `formats` and `hardware` provide.
"""

from bendi.planner.memory import (
    SYSTEM_RESERVE_BYTES,
    MemoryNeed,
    checkpoint_bytes,
    checkpoint_count,
    context_that_fits,
    kv_bytes,
    memory_needed,
)
from bendi.planner.memory_facts import CacheLayer, MemoryFacts, memory_facts
from bendi.planner.memory_setup import MemorySetup, for_whole_inputs

__all__ = [
    "SYSTEM_RESERVE_BYTES",
    "CacheLayer",
    "MemoryFacts",
    "MemoryNeed",
    "MemorySetup",
    "checkpoint_bytes",
    "checkpoint_count",
    "context_that_fits",
    "for_whole_inputs",
    "kv_bytes",
    "memory_facts",
    "memory_needed",
]
