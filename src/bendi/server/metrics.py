"""What is counted while serving, in the text format of Prometheus."""

from __future__ import annotations


class Metrics:
    """Counters and histograms. Thread safe."""
