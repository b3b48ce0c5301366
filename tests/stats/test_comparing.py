"""Pairs, p values and what could have been seen: against scipy, published values and simulation."""

from __future__ import annotations

import math
import random

import numpy
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bendi.stats import (
    LEAST_PAIRS,
    compare_differences,
    compare_ratios,
    detectable_difference,
    holm,
    noise_floor,
    paired,
    signed_rank_p,
    t_cdf,
    t_quantile,
)

# Hollander, Wolfe and Chicken, table 3.1: depression of nine patients before and after; T+ = 40, estimate 0.46,
# p = 0.02 of one side, and an interval of 96.1 % from 0.010 to 0.786.
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def test_the_textbook() -> None:
    found = compare_differences(BEFORE, AFTER)
    assert found.n == 9
    assert found.estimate == pytest.approx(0.46, abs=0.005)
    assert found.p / 2 == pytest.approx(0.02, abs=0.001)
    assert found.low == pytest.approx(0.010, abs=0.001)
    assert found.high == pytest.approx(0.786, abs=0.001)


@given(st.lists(st.integers(-30, 30), min_size=1, max_size=11))
def test_p_as_all_signs_of_scipy(differences: list[int]) -> None:
    kept = [difference for difference in differences if difference]
    if not kept:
        assert signed_rank_p(differences) == 1
        return
    ranks = scipy.stats.rankdata([abs(difference) for difference in kept])
    signed = ranks * numpy.sign(kept)
    signs = numpy.array(numpy.meshgrid(*[[-1, 1]] * len(kept))).reshape(len(kept), -1)
    extreme = numpy.mean(numpy.abs(ranks @ signs) >= abs(signed.sum()) - 1e-9)
    assert signed_rank_p(differences) == pytest.approx(float(extreme))


@pytest.mark.parametrize("n", [6, 10, 25])
def test_p_of_scipy(n: int) -> None:
    generator = random.Random(n)
    differences = [generator.gauss(0.3, 1) for _ in range(n)]
    assert signed_rank_p(differences) == pytest.approx(scipy.stats.wilcoxon(differences, method="exact").pvalue)


def test_many_pairs() -> None:
    generator = random.Random(4)
    differences = [generator.gauss(0.1, 1) for _ in range(300)]
    expected = scipy.stats.wilcoxon(differences, method="asymptotic", correction=False).pvalue
    assert signed_rank_p(differences) == pytest.approx(expected)
    few, many = compare_differences(differences[:200], [0.0] * 200), compare_differences(differences, [0.0] * 300)
    assert few.low is not None and few.high is not None and many.low is not None and many.high is not None
    assert many.low < many.estimate < many.high
    assert (many.high - many.low) / (few.high - few.low) == pytest.approx(math.sqrt(2 / 3), rel=0.1)


def test_ratios_turn_over() -> None:
    one, other = compare_ratios(BEFORE, AFTER), compare_ratios(AFTER, BEFORE)
    assert one.low and one.high and other.low and other.high and one.detectable
    assert one.estimate * other.estimate == pytest.approx(1)
    assert one.low * other.high == pytest.approx(1)
    assert one.p == other.p
    assert one.detectable > 1
    with pytest.raises(ValueError):
        compare_ratios([1.0, 0.0], [1.0, 1.0])


def test_too_few_pairs_promise_nothing() -> None:
    found = compare_ratios([2.0] * (LEAST_PAIRS - 1), [1.0] * (LEAST_PAIRS - 1))
    assert (found.estimate, found.low, found.high, found.detectable) == (pytest.approx(2.0), None, None, None)
    assert found.p > 0.05
    enough = compare_ratios([2.0 + i / 100 for i in range(LEAST_PAIRS)], [1.0] * LEAST_PAIRS)
    assert enough.p < 0.05 and enough.low is not None and enough.low > 1
    with pytest.raises(ValueError):
        compare_differences([], [])


def test_only_blocks_with_both() -> None:
    assert paired({1: 10.0, 2: 20.0, 4: 40.0}, {4: 4.0, 1: 1.0, 3: 3.0}) == ([10.0, 40.0], [1.0, 4.0])


def test_intervals_of_ratios_cover() -> None:
    generator = random.Random(5)
    tries, hits = 500, 0
    for _ in range(tries):
        slow = [math.exp(generator.gauss(0, 0.2)) for _ in range(8)]
        first = [1.3 * each * math.exp(generator.gauss(0, 0.03)) for each in slow]
        second = [each * math.exp(generator.gauss(0, 0.03)) for each in slow]
        found = compare_ratios(first, second)
        assert found.low and found.high
        hits += found.low <= 1.3 <= found.high
    assert hits / tries > 0.95 - 4 * (0.95 * 0.05 / tries) ** 0.5


def test_what_is_called_detectable_is_detected() -> None:
    """With a true difference of that size, about POWER of the studies find it."""
    generator = random.Random(6)
    n, sd = 12, 1.0
    detectable = (t_quantile(0.975, n - 1) + t_quantile(0.8, n - 1)) * sd / math.sqrt(n)
    found = sum(signed_rank_p([generator.gauss(detectable, sd) for _ in range(n)]) < 0.05 for _ in range(1000))
    assert 0.72 < found / 1000 < 0.88
    sample = [generator.gauss(0, sd) for _ in range(n)]
    assert detectable_difference(sample) == pytest.approx(detectable * float(numpy.std(sample, ddof=1)))


def test_holm_as_published() -> None:
    # R, ?p.adjust: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm").
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 29, 100])
def test_students_t(freedom: int) -> None:
    for t in (-3.3, -0.5, 0.0, 1.0, 2.776, 12.7):
        assert t_cdf(t, freedom) == pytest.approx(float(scipy.stats.t.cdf(t, freedom)), abs=1e-12)
    for share in (0.025, 0.5, 0.8, 0.975):
        assert t_quantile(share, freedom) == pytest.approx(float(scipy.stats.t.ppf(share, freedom)), abs=1e-7)


def test_the_noise_floor() -> None:
    generator = random.Random(9)
    noisy = [[100 * math.exp(generator.gauss(0, 0.02)) for _ in range(10)] for _ in range(6)]
    floor = noise_floor(noisy)
    assert floor is not None
    # The median of five has a standard error of 0.536 sd, and two of them differ by √2 of that in 95 % within 1.96.
    assert floor == pytest.approx(0.02 * 0.536 * math.sqrt(2) * 1.96, rel=0.3)
    assert noise_floor([[1.0, 1.0, 1.0, 1.0]]) == 0
    # Every way to halve, by hand: {1,2}{4,8} twice, {1,4}{2,8} twice, {1,8}{2,4} twice.
    assert noise_floor([[1.0, 2.0, 4.0, 8.0]], share=1.0) == pytest.approx(4 - 1)
    assert noise_floor([[1.0, 2.0, 3.0], []]) is None
    assert noise_floor(noisy) == floor
    long = noise_floor([[100 + generator.random() for _ in range(40)]])
    assert long is not None and 0 < long < 0.01
