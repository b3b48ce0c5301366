"""Energy of prompts and answers told apart, against known coefficients and against numpy."""

from __future__ import annotations

import math
import random

import numpy
import pytest

from bendi.energy import Repeated, phases_of
from bendi.stats import t_cdf, t_quantile

SHAPES = [(512, 16), (2048, 16), (16, 256), (512, 128), (4096, 64), (128, 512)]


def repeats(noise_j: float, seed: int = 1, requests: int = 1) -> list[Repeated]:
    """5 J for each request, 0.02 J for each prompt token and 1.5 J for each answer token."""
    generator = random.Random(seed)
    return [
        Repeated(5 * requests + 0.02 * prompt + 1.5 * answer + generator.gauss(0, noise_j), prompt, answer, requests)
        for prompt, answer in SHAPES
        for _repeat in range(3)
    ]


def test_exact_energy_gives_exact_phases() -> None:
    phases = phases_of(repeats(0.0))
    assert phases.per_request_j and phases.per_prompt_tok_j and phases.per_answer_tok_j
    assert phases.per_request_j.value == pytest.approx(5)
    assert phases.per_prompt_tok_j.value == pytest.approx(0.02)
    assert phases.per_answer_tok_j.value == pytest.approx(1.5)
    assert phases.explained == pytest.approx(1)
    assert (phases.repeats, phases.reason) == (18, "")
    assert phases.per_prompt_tok_j.certain


def test_against_numpy() -> None:
    observed = repeats(4.0, seed=7)
    phases = phases_of(observed)
    matrix = numpy.array([[1.0, each.prompt_tok, each.answer_tok] for each in observed])
    energies = numpy.array([each.energy_j for each in observed])
    expected, left, *_ = numpy.linalg.lstsq(matrix, energies)
    errors = numpy.sqrt(numpy.diag(numpy.linalg.inv(matrix.T @ matrix)) * left[0] / (len(observed) - 3))
    for estimate, value, error in zip(
        (phases.per_request_j, phases.per_prompt_tok_j, phases.per_answer_tok_j), expected, errors, strict=True
    ):
        assert estimate is not None
        assert estimate.value == pytest.approx(value, rel=1e-9)
        assert estimate.high - estimate.value == pytest.approx(2.131450 * error, rel=1e-5)  # t(0.975, 15)
        assert estimate.value - estimate.low == pytest.approx(2.131450 * error, rel=1e-5)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    inside = 0
    for seed in range(400):
        estimate = phases_of(repeats(3.0, seed)).per_answer_tok_j
        assert estimate is not None
        inside += estimate.low <= 1.5 <= estimate.high
    assert 0.91 * 400 < inside < 0.985 * 400  # 95%, and four standard errors


def test_requests_are_counted() -> None:
    observed = repeats(0.0) + repeats(0.0, requests=4)
    phases = phases_of(observed)
    assert phases.per_request_j is not None and phases.per_request_j.value == pytest.approx(5)


def test_uncertain_is_said() -> None:
    estimate = phases_of(repeats(2000.0)).per_prompt_tok_j
    assert estimate is not None and not estimate.certain


@pytest.mark.parametrize(
    "shapes",
    [
        [(512, 64)] * 8,  # all alike
        [(512, 64), (1024, 128)] * 4,  # two proportions: one of three is not determined
        [(100 * i, 10 * i) for i in range(1, 9)],  # in proportion
        [(0, 10 * i) for i in range(1, 9)],  # no prompts
        [(2 * i + 50, i) for i in range(1, 9)],  # prompts say what answers and requests say
    ],
)
def test_shapes_that_determine_nothing(shapes: list[tuple[int, int]]) -> None:
    phases = phases_of([Repeated(100.0 + number, *shape) for number, shape in enumerate(shapes)])
    assert (phases.per_answer_tok_j, phases.reason) == (None, "shapes_alike")


def test_too_few() -> None:
    assert phases_of(repeats(0.0)[:3]).reason == "too_few_repeats"
    assert phases_of([]).reason == "too_few_repeats"


def test_no_variance_to_explain() -> None:
    phases = phases_of([Repeated(100.0, prompt, answer) for prompt, answer in SHAPES])
    assert phases.explained is None
    assert phases.per_request_j is not None and phases.per_request_j.value == pytest.approx(100)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (5, 2.57058), (10, 2.22814), (30, 2.04227),
     (120, 1.97993), (1000, 1.96234)],
)  # fmt: skip
def test_students_quantiles(freedom: int, quantile: float) -> None:
    """From the tables."""
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-5)
    assert t_cdf(0.0, freedom) == 0.5
    assert t_cdf(-quantile, freedom) == pytest.approx(0.025, rel=1e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8])
def test_students_distribution_against_its_density(freedom: int) -> None:
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    points = numpy.linspace(0, 1.7, 20_001)
    density = scale * (1 + points**2 / freedom) ** (-(freedom + 1) / 2)
    assert t_cdf(1.7, freedom) == pytest.approx(0.5 + numpy.trapezoid(density, points), rel=1e-7)
