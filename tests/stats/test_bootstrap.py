"""Intervals: against every possible resample, against scipy, and by simulation of what they cover."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from statistics import fmean, median

import numpy
import pytest
import scipy.stats

from bendi.stats import (
    best_coverage,
    bootstrap_interval,
    bootstrap_medians,
    median_interval,
    percentile_interval,
    quantile,
    ratio_of_sums,
)

SAMPLE = [31.2, 30.8, 31.9, 31.0, 30.1, 31.4, 30.9, 31.1, 31.6, 30.7, 31.3, 30.2, 31.5]


@pytest.mark.parametrize("values", [SAMPLE[:n] for n in range(1, 7)] + [[1.0, 1.0, 2.0, 2.0, 5.0]])
def test_medians_of_every_resample(values: list[float]) -> None:
    counts = Counter(median(resample) for resample in itertools.product(values, repeat=len(values)))
    found = bootstrap_medians(values)
    assert [value for value, mass in found if mass > 1e-12] == pytest.approx(sorted(counts))
    for value, mass in found:
        assert mass == pytest.approx(counts[value] / len(values) ** len(values), abs=1e-12)


@pytest.mark.parametrize("n", [9, 10, 13])
def test_percentiles_as_scipy_finds_them_by_chance(n: int) -> None:
    expected = scipy.stats.bootstrap(
        (SAMPLE[:n],), numpy.median, method="percentile", n_resamples=40_000, rng=numpy.random.default_rng(1)
    ).confidence_interval
    low, high = percentile_interval(SAMPLE[:n])
    # By chance the next of the few possible medians can be met.
    assert low == pytest.approx(expected.low, abs=0.06)
    assert high == pytest.approx(expected.high, abs=0.06)


@pytest.mark.parametrize("n", [6, 7, 8, 10, 15, 30])
@pytest.mark.parametrize("distribution", ["normal", "skewed"])
def test_the_interval_covers_what_it_promises(n: int, distribution: str) -> None:
    generator = random.Random(n)
    true = 0.0 if distribution == "normal" else 1.0
    draw = (lambda: generator.gauss(0, 1)) if distribution == "normal" else (lambda: generator.lognormvariate(0, 1))
    tries, hits, promised = 600, 0, 0.0
    for _ in range(tries):
        interval = median_interval([draw() for _ in range(n)])
        assert interval and interval.coverage and interval.promised
        promised = interval.coverage
        hits += interval.low <= true <= interval.high
    # 0.95 less four standard errors of 600 tries; and no less than what is said of this very interval.
    assert hits / tries > 0.95 - 4 * (0.95 * 0.05 / tries) ** 0.5
    assert hits / tries > promised - 0.036


def test_few_repeats_promise_less_and_say_so() -> None:
    assert median_interval([1.0]) is None
    for n, coverage in [(2, 0.5), (3, 0.75), (4, 0.875), (5, 0.9375)]:
        interval = median_interval(SAMPLE[:n])
        assert interval is not None
        assert (interval.low, interval.high) == (min(SAMPLE[:n]), max(SAMPLE[:n]))
        assert interval.coverage == coverage == best_coverage(n)
        assert not interval.promised


def test_known_intervals_from_ranks() -> None:
    """Conover, Practical Nonparametric Statistics, table A3: ranks 2 and 9 of 10 cover 97.9 %, 6 and 15 of 20
    cover 95.9 %."""
    for n, low, high, coverage in [(7, 1, 7, 0.984), (9, 2, 8, 0.961), (20, 6, 15, 0.959)]:
        interval = median_interval([float(rank) for rank in range(1, n + 1)])
        assert interval is not None
        assert interval.low <= low and interval.high >= high
        assert interval.coverage == pytest.approx(coverage, abs=0.03)
    many = median_interval([float(rank) for rank in range(1, 402)])
    assert many is not None
    assert (many.low, many.high) == (181, 221)
    expected = scipy.stats.binom.cdf(220, 401, 0.5) - scipy.stats.binom.cdf(180, 401, 0.5)
    assert many.coverage == pytest.approx(expected)


def test_equal_values_have_an_interval_of_no_width() -> None:
    interval = median_interval([5.0] * 8)
    assert interval is not None
    assert (interval.low, interval.high, interval.promised) == (5.0, 5.0, True)


def test_the_bootstrap_of_any_figure() -> None:
    """Tokens and seconds of repeats: the rate of all together, resampled by repeats."""
    generator = random.Random(3)
    repeats = [(128.0, generator.gauss(4, 0.1)) for _ in range(12)]

    def rate(chosen: object) -> float:
        return ratio_of_sums(*zip(*chosen, strict=True))  # type: ignore[call-overload]

    found = bootstrap_interval(repeats, rate)
    again = bootstrap_interval(repeats, rate)
    assert found == again
    assert found is not None and found.coverage is None and found.promised
    table = numpy.array(repeats)
    picks = numpy.random.default_rng(2).integers(0, 12, (20_000, 12))
    rates = table[picks, 0].sum(1) / table[picks, 1].sum(1)
    assert found.low == pytest.approx(float(numpy.quantile(rates, 0.025)), rel=2e-3)
    assert found.high == pytest.approx(float(numpy.quantile(rates, 0.975)), rel=2e-3)
    assert bootstrap_interval(repeats[:1], rate) is None


def test_coverage_of_the_bootstrap_of_a_mean() -> None:
    """What is said of it: a little too narrow, no more."""
    generator = random.Random(8)
    hits = 0
    for seed in range(200):
        sample = [generator.gauss(0, 1) for _ in range(20)]
        interval = bootstrap_interval(sample, fmean, resamples=400, seed=seed)
        assert interval is not None
        hits += interval.low <= 0 <= interval.high
    assert 0.87 < hits / 200 <= 0.985


def test_other_confidences() -> None:
    wide, narrow = median_interval(SAMPLE, 0.99), median_interval(SAMPLE, 0.5)
    assert wide and narrow
    assert wide.low <= narrow.low <= quantile(SAMPLE, 0.5) <= narrow.high <= wide.high
    assert wide.high - wide.low > narrow.high - narrow.low
