"""Middle, spread and boxes, against numpy, scipy, matplotlib and textbook values."""

from __future__ import annotations

import math

import numpy
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.cbook import boxplot_stats

from bendi.stats import describe, harmonic_mean, quantile, ratio_of_sums, tukey_box

NUMBERS = st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)), min_size=1, max_size=40)


@given(NUMBERS, st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values: list[float], share: float) -> None:
    assert quantile(values, share) == pytest.approx(float(numpy.quantile(values, share)), rel=1e-9, abs=1e-6)


def test_a_description() -> None:
    found = describe([9, 2, 4, 4, 5, 4, 5, 7])
    assert (found.n, found.median, found.mean, found.lowest, found.highest) == (8, 4.5, 5.0, 2, 9)
    assert (found.q1, found.q3, found.iqr) == (4.0, 5.5, 1.5)
    assert found.sd == pytest.approx(math.sqrt(32 / 7))
    assert found.iqr == pytest.approx(scipy.stats.iqr([9, 2, 4, 4, 5, 4, 5, 7]))
    assert describe([3.0]).sd is None


@given(NUMBERS)
def test_the_box_is_that_of_matplotlib(values: list[float]) -> None:
    box = tukey_box(values)
    (expected,) = boxplot_stats(values, whis=1.5)
    assert box.q1 == pytest.approx(expected["q1"])
    assert box.q3 == pytest.approx(expected["q3"])
    assert box.median == pytest.approx(expected["med"])
    assert box.whisker_low == pytest.approx(expected["whislo"])
    assert box.whisker_high == pytest.approx(expected["whishi"])
    assert list(box.outliers) == pytest.approx(sorted(expected["fliers"]))


def test_outliers_are_shown_and_still_count() -> None:
    values = [10, 10.1, 10.2, 10.3, 10.4, 30]
    box = tukey_box(values)
    assert box.outliers == (30,)
    assert (box.n, box.whisker_high) == (6, 10.4)
    assert describe(values).mean == pytest.approx(13.5)


@pytest.mark.parametrize("of", [describe, tukey_box, harmonic_mean])
def test_nothing_cannot_be_described(of: object) -> None:
    with pytest.raises(ValueError):
        of([])  # type: ignore[operator]


def test_rates() -> None:
    # A mean of the rates would say 55: half of the way at 100 does not take half of the time.
    assert harmonic_mean([10, 100]) == pytest.approx(scipy.stats.hmean([10, 100]))
    assert ratio_of_sums([100, 100], [10, 1]) == pytest.approx(200 / 11)
    with pytest.raises(ValueError):
        harmonic_mean([1, 0])
    with pytest.raises(ValueError):
        ratio_of_sums([1], [0])
    with pytest.raises(ValueError):
        ratio_of_sums([1, 2], [1])
