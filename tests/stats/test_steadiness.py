"""When a speed has become steady."""

from __future__ import annotations

import math

import pytest
import scipy.stats

from bendi.stats import coefficient_of_variation, is_steady, rolling_variation, steady_from


def test_the_coefficient_of_variation() -> None:
    values = [30.1, 31.2, 29.8, 30.5]
    assert coefficient_of_variation(values) == pytest.approx(float(scipy.stats.variation(values, ddof=1)))
    assert coefficient_of_variation([30.1]) == math.inf
    assert coefficient_of_variation([0.0, 0.0]) == math.inf


def test_a_machine_that_warms_up() -> None:
    speeds = [12.0, 20.0, 26.0, 29.0, 30.0, 30.2, 30.1, 29.9, 30.0]
    assert not is_steady(speeds[:5])
    assert is_steady(speeds)
    assert steady_from(speeds) == 3
    assert steady_from(speeds[:6]) is None
    assert not is_steady([30.0, 30.0])
    assert len(rolling_variation(speeds)) == 5
