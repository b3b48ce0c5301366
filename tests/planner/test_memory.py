"""Context arithmetic: known answers, and properties that must hold for any model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bendi.formats import ModelInfo, read_model
from bendi.planner import COMPUTE_RESERVE_BYTES, context_that_fits, kv_bytes_per_token
from bendi.units import GIB, MIB


@pytest.fixture(scope="module")
def info(demo_model: Path) -> ModelInfo:
    return read_model(demo_model)


def qwen3_0_6b(info: ModelInfo) -> ModelInfo:
    return replace(
        info, block_count=28, head_count_kv=8, key_length=128, value_length=128, context_length=40960
    )  # fmt: skip


def test_known_answer(info: ModelInfo) -> None:
    """28 layers, 8 heads of 128: 3584 MiB at 32768 tokens in F16, as llama.cpp allocates."""
    assert kv_bytes_per_token(qwen3_0_6b(info)) * 32768 == 3584 * MIB


def test_layers_without_attention_need_nothing(info: ModelInfo) -> None:
    hybrid = replace(qwen3_0_6b(info), block_count=4, head_count_kv=(0, 0, 0, 8))
    assert kv_bytes_per_token(hybrid) == 8 * 256 * 2


def test_context_is_the_trained_one_where_memory_allows(info: ModelInfo) -> None:
    assert context_that_fits(qwen3_0_6b(info), 64 * GIB, GIB) == 40960


def test_context_shrinks_to_what_fits(info: ModelInfo) -> None:
    model = qwen3_0_6b(info)
    fits_tok = context_that_fits(model, 4 * GIB, GIB)
    assert 0 < fits_tok < 40960
    assert fits_tok % 256 == 0
    used_bytes = fits_tok * kv_bytes_per_token(model) + GIB + COMPUTE_RESERVE_BYTES
    assert used_bytes <= 4 * GIB < used_bytes + 256 * kv_bytes_per_token(model)


def test_nothing_fits(info: ModelInfo) -> None:
    assert context_that_fits(qwen3_0_6b(info), GIB, GIB) == 0


@given(usable=st.integers(0, 2**40), more=st.integers(0, 2**36), weights=st.integers(0, 2**36))
def test_more_memory_never_gives_less_context(usable: int, more: int, weights: int, info: ModelInfo) -> None:
    model = qwen3_0_6b(info)
    assert context_that_fits(model, usable, weights) <= context_that_fits(model, usable + more, weights)
    assert context_that_fits(model, usable, weights + more) <= context_that_fits(model, usable, weights)
