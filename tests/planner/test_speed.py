"""Predicted seconds: sums that can be done by hand, and what must hold whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.formats.blueprints import blueprint_from_config
from bendi.planner.calibration import (
    AttentionRates,
    Calibration,
    DeviceRates,
    TypeRates,
    rates_of,
)
from bendi.planner.layers import model_work
from bendi.planner.mixture import facts_of, quantized_types, shapes_of
from bendi.planner.speed import generation_s, load_s, prompt_s, rate_error
from bendi.planner.work import ModelWork
from published_configs import ALL

CONFIGS = {model.name: model.config for model in ALL}
GB, G = 1e9, 1e9
ATTENTION = AttentionRates(5e-9, 3e-11, 9e-11, 5e-10, 1e-11)
DEVICE = DeviceRates(
    name="a processor",
    threads=2,
    types={"Q8_0": TypeRates(40 * GB, 100 * G, 70 * G, 5 * GB), "Q4_K": TypeRates(35 * GB, 120 * G, 90 * G, GB)},
    attention={"f16": ATTENTION},
    token_s=1e-4,
    layer_s=3e-5,
    vocabulary_s=6e-9,
    prompt_layer_s=4e-6,
    start_s=0.1,
)
CALIBRATION = Calibration("here", "a build", "2026-11-20", 50.0, DEVICE, 50 * GB, 2 * GB, 1.02, 0.03, {1: 0.6, 2: 1.0})
DEPTHS = st.integers(0, 100_000)


def work_of(name: str, file_type: str = "Q8_0") -> ModelWork:
    header = blueprint_from_config(CONFIGS[name], name).header()
    return model_work(header, types=quantized_types(shapes_of(header), facts_of(header), file_type))


WORKS = {name: work_of(name) for name in ("Qwen3-0.6B", "Llama-3.1-8B", "Qwen3-30B-A3B", "Gemma-3-4B")}
ANY_WORK = st.sampled_from(list(WORKS.values()))


def test_work_of_a_dense_model() -> None:
    """Llama-3.1-8B: 8.03 billion weights, of which the embedding (128256 x 4096) is only looked up."""
    work = WORKS["Llama-3.1-8B"]
    used = sum(group.per_token for group in work.weights)
    assert used == pytest.approx(8.03e9 - 128256 * 4096, rel=1e-3)
    assert work.bytes_per_token == pytest.approx(used * 34 / 32, rel=1e-6)
    part = work.attention[0]
    assert (part.layers, part.heads, part.query_numbers, part.cache_numbers) == (32, 32, 8192, 2048)
    once = sum(group.per_token for group in work.weights if group.once)
    assert once == 128256 * 4096 + 3 * 4096 * 14336


def test_a_tied_head_is_read_for_every_token() -> None:
    work = WORKS["Qwen3-0.6B"]
    assert sum(group.per_token for group in work.weights) == pytest.approx(0.596e9, rel=1e-2)


def test_only_chosen_experts_are_read() -> None:
    """Qwen3-30B-A3B: 3.3 billion of 30.5 billion weights for a token, the looked-up embedding included."""
    work = WORKS["Qwen3-30B-A3B"]
    assert sum(group.per_token for group in work.weights) == pytest.approx(3.35e9 - 151936 * 2048, rel=0.03)
    assert sum(group.total for group in work.weights) == pytest.approx(30.5e9 - 151936 * 2048, rel=0.01)
    assert work.expert_share == 8 / 128


def test_windows_bound_what_attention_sees() -> None:
    work = WORKS["Gemma-3-4B"]
    assert {(part.layers, part.window_tok) for part in work.attention} == {(29, 1024), (5, 0)}
    grown = generation_s(work, DEVICE, 40_000) - generation_s(work, DEVICE, 20_000)
    part = next(part for part in work.attention if not part.window_tok)
    assert grown == pytest.approx(
        5 * 20_000 * (part.heads * 5e-9 + part.query_numbers * 3e-11 + part.cache_numbers * 9e-11)
    )


def test_generation_by_hand() -> None:
    work = WORKS["Llama-3.1-8B"]
    expected_s = work.bytes_per_token / (40 * GB) + 1e-4 + 32 * 3e-5 + 128256 * 6e-9
    assert generation_s(work, DEVICE, 0) == pytest.approx(expected_s)


def test_a_prompt_is_computed_and_a_short_one_is_read() -> None:
    work = WORKS["Llama-3.1-8B"]
    inner = sum(group.per_token for group in work.weights if not group.once)
    assert prompt_s(work, DEVICE, 512) == pytest.approx(512 * inner / (100 * G), rel=0.06)
    assert prompt_s(work, DEVICE, 1) >= inner * 34 / 32 / (40 * GB)


def test_loading_cold_reads_the_disk() -> None:
    work = WORKS["Llama-3.1-8B"]
    difference_s = load_s(work, CALIBRATION, cold=True) - load_s(work, CALIBRATION, cold=False)
    assert difference_s == pytest.approx(work.total_bytes / (2 * GB))


def test_what_was_not_measured_is_less_sure() -> None:
    measured, borrowed = work_of("Llama-3.1-8B"), work_of("Llama-3.1-8B", "Q5_1")
    assert rates_of(DEVICE, "Q5_1").source == "borrowed"
    assert rate_error(borrowed, CALIBRATION) > rate_error(measured, CALIBRATION)
    specified = replace(CALIBRATION, cpu=replace(DEVICE, source="specification"))
    assert rate_error(measured, specified) > rate_error(borrowed, CALIBRATION)


@given(ANY_WORK, DEPTHS, DEPTHS)
def test_deeper_is_never_faster(work: ModelWork, one_tok: int, other_tok: int) -> None:
    low, high = sorted((one_tok, other_tok))
    assert generation_s(work, DEVICE, low) <= generation_s(work, DEVICE, high)
    assert prompt_s(work, DEVICE, 100, low) <= prompt_s(work, DEVICE, 100, high)


@given(ANY_WORK, st.integers(1, 3000), st.integers(1, 3000))
def test_longer_prompts_never_take_less(work: ModelWork, one_tok: int, other_tok: int) -> None:
    low, high = sorted((one_tok, other_tok))
    assert prompt_s(work, DEVICE, low) <= prompt_s(work, DEVICE, high) * (1 + 1e-9)


@given(ANY_WORK, st.floats(1, 100), DEPTHS)
def test_more_bandwidth_is_never_slower(work: ModelWork, factor: float, depth_tok: int) -> None:
    types = {
        name: replace(rates, generation_bytes_s=rates.generation_bytes_s * factor)
        for name, rates in DEVICE.types.items()
    }
    faster = replace(DEVICE, types=types)
    assert generation_s(work, faster, depth_tok) <= generation_s(work, DEVICE, depth_tok)
    assert prompt_s(work, faster, 300, depth_tok) <= prompt_s(work, DEVICE, 300, depth_tok)
