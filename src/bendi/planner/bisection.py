"""How far something goes before it stops to hold: one search for contexts, layers and layers of experts."""

from __future__ import annotations

from collections.abc import Callable


def largest_that(holds: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` for which `holds`, which must hold for all smaller ones too; 0 if for none."""
    low, high = 0, max(most, 0)
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
