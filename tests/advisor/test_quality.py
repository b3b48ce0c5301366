"""How good a model is, and what quantization takes away."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.advisor.quality import own_size, quality_of, quantization_loss
from bendi.store.known_models import known_models

BY_EXACTNESS = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q4_0", "Q3_K_M", "Q3_K_S", "Q2_K", "IQ2_XXS")


def test_fewer_bits_never_cost_less() -> None:
    losses = [quantization_loss(name, 8_000_000_000) for name in BY_EXACTNESS]
    assert losses == sorted(losses)
    assert losses[0] == 0
    assert 0.1 < losses[BY_EXACTNESS.index("Q4_K_M")] < 0.3


@given(st.sampled_from(BY_EXACTNESS), st.integers(10**6, 10**12), st.integers(10**6, 10**12))
def test_larger_models_lose_less(name: str, one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert quantization_loss(name, large) <= quantization_loss(name, small)


@pytest.mark.parametrize(
    ("label", "like"), [("UD-Q4_K_XL", "Q4_K_M"), ("Q5_K", "Q5_K_M"), ("ud-q2_k_l", "Q2_K"), ("MXFP4", "Q4_K_S")]
)
def test_names_of_makers_cost_what_their_kin_costs(label: str, like: str) -> None:
    assert quantization_loss(label, 10**9) == quantization_loss(like, 10**9)


@given(st.text(max_size=30))
def test_any_name_has_a_cost(label: str) -> None:
    assert 0 <= quantization_loss(label, 10**9) < 30


def test_what_a_model_was_trained_in_costs_nothing() -> None:
    assert quantization_loss("MXFP4_MOE", 20 * 10**9, "gpt_oss") == 0
    assert quantization_loss("MXFP4_MOE", 20 * 10**9, "qwen3_moe") > 0


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("qwen3:8b", "qwen3:4b"),
        ("qwen3:4b", "qwen3:0.6b"),
        ("qwen3.5:9b", "qwen2.5:7b"),
        ("llama3.3:70b", "llama3.1:8b"),
    ],
)
def test_known_orders(better: str, worse: str) -> None:
    models = known_models()
    assert quality_of(models[better]).doublings > quality_of(models[worse]).doublings


def test_higher_scores_are_never_worse() -> None:
    for model in known_models().values():
        if model.thinking == "embedding":
            continue
        better = replace(model, scores=tuple(replace(score, value=min(score.value + 5, 100)) for score in model.scores))
        assert quality_of(better).doublings >= quality_of(model).doublings - 1e-9


def test_without_scores_it_is_size_and_age() -> None:
    bare = replace(known_models()["qwen3:8b"], scores=())
    assert quality_of(bare).benchmarks == 0
    larger = replace(bare, parameters=2 * bare.parameters, active_parameters=2 * bare.active_parameters)
    assert quality_of(larger).doublings > quality_of(bare).doublings
    older = replace(bare, released="2023-04")
    assert quality_of(older).doublings < quality_of(bare).doublings


def test_benchmarks_of_the_use_count_more() -> None:
    model = known_models()["qwen3:8b"]
    coder = replace(
        model, scores=tuple(replace(s, value=95.0) if s.benchmark.startswith("Live") else s for s in model.scores)
    )
    gain = {use: quality_of(coder, use).doublings - quality_of(model, use).doublings for use in ("code", "chat")}
    assert gain["code"] > gain["chat"] > 0


def test_experts_count_between_all_and_those_in_use() -> None:
    model = known_models()["qwen3:30b"]
    assert 2 ** own_size(model) == pytest.approx((model.parameters * model.active_parameters) ** 0.5 / 1e9)
