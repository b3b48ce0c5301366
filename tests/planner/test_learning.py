"""Observations pull predictions, the more the more there are, and decide how wide the error bar is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.planner.learning import adjusted
from bendi.planner.speed import Rate


@dataclass(frozen=True)
class Seen:
    n: int = 0
    median: float = 1.0
    spread: float = 0.0


NOTHING = Seen()
rates = st.builds(Rate, st.floats(0.01, 1e5), st.floats(0.03, 1.0))
ratios = st.floats(0.05, 20)
seen = st.builds(Seen, st.integers(0, 5000), ratios, st.floats(0, 2))


@given(rates, st.lists(st.just(NOTHING), max_size=3))
def test_without_observations_nothing_changes(rate: Rate, levels: list[Seen]) -> None:
    after = adjusted(rate, *levels)
    assert after.tok_s == pytest.approx(rate.tok_s) and after.error == pytest.approx(rate.error)


@given(rates, seen)
def test_lies_between_the_prediction_and_what_was_observed(rate: Rate, observed: Seen) -> None:
    low, high = sorted((rate.tok_s, rate.tok_s * observed.median))
    assert low * (1 - 1e-9) <= adjusted(rate, observed).tok_s <= high * (1 + 1e-9)


@given(rates, st.integers(1, 1000), ratios, st.floats(0, 1))
def test_more_observations_pull_further(rate: Rate, n: int, ratio: float, spread: float) -> None:
    few, many = adjusted(rate, Seen(n, ratio, spread)), adjusted(rate, Seen(n + 1, ratio, spread))
    target = math.log(rate.tok_s * ratio)
    assert abs(math.log(many.tok_s) - target) <= abs(math.log(few.tok_s) - target) + 1e-9


@given(rates, st.integers(1, 1000), ratios)
def test_steady_observations_narrow_the_error(rate: Rate, n: int, ratio: float) -> None:
    errors = [adjusted(rate, Seen(count, ratio, 0.0)).error for count in (0, n, 2 * n)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] >= 0.03 - 1e-9


@given(rates, st.lists(seen, max_size=3))
def test_the_error_lies_between_what_was_believed_and_what_was_seen(rate: Rate, levels: list[Seen]) -> None:
    errors = [rate.error, *(max(level.spread, 0.03) for level in levels)]
    assert min(errors) - 1e-9 <= adjusted(rate, *levels).error <= max(errors) + 1e-9


def test_unsteady_observations_widen_the_error() -> None:
    assert adjusted(Rate(10, 0.1), Seen(100, 1.0, 0.4)).error > 0.3


def test_many_observations_decide() -> None:
    after = adjusted(Rate(10, 0.3), Seen(4000, 0.5, 0.05))
    assert after.tok_s == pytest.approx(5, rel=0.01) and after.error == pytest.approx(0.05, abs=0.01)


def test_half_way_at_as_many_observations_as_the_prediction_is_worth() -> None:
    assert adjusted(Rate(100, 0.3), Seen(4, 0.25, 0.1)).tok_s == pytest.approx(50)


@given(rates, ratios, ratios, ratios)
def test_the_most_specific_level_has_the_last_word(rate: Rate, model: float, quantization: float, build: float) -> None:
    levels = [Seen(100_000, ratio, 0.1) for ratio in (model, quantization, build)]
    assert adjusted(rate, *levels).tok_s == pytest.approx(rate.tok_s * model, rel=0.01)
    assert adjusted(rate, NOTHING, *levels[1:]).tok_s == pytest.approx(rate.tok_s * quantization, rel=0.01)
    assert adjusted(rate, NOTHING, NOTHING, levels[2]).tok_s == pytest.approx(rate.tok_s * build, rel=0.01)


@pytest.mark.parametrize("median", [0.0, -1.0, math.nan, math.inf])
def test_impossible_observations_are_ignored(median: float) -> None:
    assert adjusted(Rate(10, 0.1), Seen(50, median, 0.1)) == Rate(10, pytest.approx(0.1))
