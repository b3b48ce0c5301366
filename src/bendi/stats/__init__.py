"""What repeated measurements say, and what they cannot say: middle, spread, intervals, comparisons, steadiness.

Knows numbers only; each is one independent repeat. Never leaves one out because it lies far away. Does not know what
was measured or how it is shown.
"""

from bendi.stats.bootstrap import (
    CONFIDENCE,
    Interval,
    best_coverage,
    bootstrap_interval,
    bootstrap_medians,
    median_interval,
    percentile_interval,
)
from bendi.stats.comparing import (
    LEAST_PAIRS,
    POWER,
    Comparison,
    compare_differences,
    compare_ratios,
    detectable_difference,
    holm,
    noise_floor,
    paired,
    signed_rank_p,
)
from bendi.stats.describe import (
    Description,
    TukeyBox,
    describe,
    harmonic_mean,
    quantile,
    ratio_of_sums,
    tukey_box,
)
from bendi.stats.steadiness import (
    STEADY,
    coefficient_of_variation,
    is_steady,
    rolling_variation,
    steady_from,
)
from bendi.stats.student import t_cdf, t_quantile

__all__ = [
    "CONFIDENCE", "LEAST_PAIRS", "POWER", "STEADY",
    "Comparison", "Description", "Interval", "TukeyBox",
    "best_coverage", "bootstrap_interval", "bootstrap_medians", "coefficient_of_variation", "compare_differences",
    "compare_ratios", "describe", "detectable_difference", "harmonic_mean", "holm", "is_steady", "median_interval",
    "noise_floor", "paired", "percentile_interval", "quantile", "ratio_of_sums", "rolling_variation", "signed_rank_p",
    "steady_from", "t_cdf", "t_quantile", "tukey_box",
]  # fmt: skip
