"""Two samples without pairs, against scipy and by counting."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest

from bendi.stats.unpaired import _orders, compare_independent, mann_whitney_p

scipy_stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle")


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 3), (3, 4), (5, 5)])
def test_orders_are_counted(n: int, m: int) -> None:
    counts = [0] * (n * m + 1)
    for chosen in combinations(range(n + m), n):
        others = [place for place in range(n + m) if place not in chosen]
        counts[sum(one > other for one in chosen for other in others)] += 1
    assert list(_orders(n, m)) == counts


@pytest.mark.parametrize("seed", range(6))
def test_p_is_that_of_scipy(seed: int) -> None:
    source = random.Random(seed)
    first = [source.gauss(0, 1) for _ in range(5 + seed)]
    second = [source.gauss(0.8, 1) for _ in range(7)]
    expected = scipy_stats.mannwhitneyu(first, second, alternative="two-sided", method="exact").pvalue
    assert mann_whitney_p(first, second) == pytest.approx(expected)


def test_known_ratio() -> None:
    source = random.Random(3)
    second = [math.exp(source.gauss(3, 0.02)) for _ in range(10)]
    first = [1.25 * value for value in second]
    found = compare_independent(first, second)
    assert found.estimate == pytest.approx(1.25, rel=0.02)
    assert found.low and found.high and found.low < 1.25 < found.high and found.low > 1
    assert found.p < 0.001
    assert found.detectable and 1.0 < found.detectable < 1.1


def test_interval_covers_as_often_as_it_says() -> None:
    source = random.Random(5)
    held = 0
    for _ in range(600):
        first = [math.exp(source.gauss(0.1, 0.3)) for _ in range(6)]
        second = [math.exp(source.gauss(0, 0.3)) for _ in range(7)]
        found = compare_independent(first, second)
        held += found.low is not None and found.high is not None and found.low <= math.exp(0.1) <= found.high
    assert held / 600 > 0.93


def test_too_few_say_nothing_for_certain() -> None:
    found = compare_independent([2.0, 2.1, 2.2], [1.0, 1.1, 1.2])
    assert found.low is None and found.p == pytest.approx(0.1)


@pytest.mark.parametrize("pair", [([], [1.0]), ([0.0], [1.0]), ([-1.0], [1.0])])
def test_impossible_values(pair: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError):
        compare_independent(*pair)
