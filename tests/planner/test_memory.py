"""Memory arithmetic: known answers, what the engine itself allocates, and properties that must hold for any model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_oracle import OracleAnswer, ask_engine
from sparse_gguf import write_sparse
from synthetic_models import MODELS, MORE_MODELS

from bendi.formats import read_gguf
from bendi.formats.blueprint import Blueprint
from bendi.planner import (
    SYSTEM_RESERVE_BYTES,
    CacheLayer,
    MemoryFacts,
    MemorySetup,
    checkpoint_bytes,
    checkpoint_count,
    context_that_fits,
    kv_bytes,
    memory_facts,
    memory_needed,
)
from bendi.units import GIB, MIB

_RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "memory_oracle.json").read_text())
_ASKED_LIVE = ("Qwen3-0.6B", "Gemma-3-4B", "Qwen3-30B-A3B", "LFM2-1.2B", "Qwen3.5-4B", "Gemma-4-26B-A4B")
ALL_MODELS = (*MODELS, *MORE_MODELS)
_TYPES = ("f16", "q8_0", "q5_1", "q4_0")

QWEN3_0_6B = MemoryFacts(
    architecture="qwen3",
    cache_layers=(CacheLayer(1024, 1024),) * 28,
    window_tok=0,
    state_numbers=0,
    known_cache=True,
    weights_bytes=GIB,
    embedding_length=1024,
    feed_forward_length=3072,
    head_count=16,
    attention_length=2048,
    expert_feed_forward_length=0,
    expert_count=0,
    expert_used_count=0,
    vocab_size=151936,
    context_length=40960,
)


def facts_of(model: Blueprint, folder: Path) -> MemoryFacts:
    return memory_facts(read_gguf(write_sparse(model, folder / "model.gguf")))


def check(facts: MemoryFacts, setup: MemorySetup, answer: OracleAnswer) -> None:
    need = memory_needed(facts, setup)
    engine_mib = answer.kv + answer.state + answer.compute
    ours_mib = (need.kv_bytes + need.recurrent_state_bytes + need.compute_bytes) / MIB
    assert need.kv_bytes / MIB == pytest.approx(answer.kv, abs=0.02)
    assert need.recurrent_state_bytes / MIB == pytest.approx(answer.state, abs=0.02)
    assert need.output_bytes / MIB == pytest.approx(answer.output, abs=0.02)
    if need.exact:
        assert ours_mib == pytest.approx(engine_mib, abs=max(engine_mib / 100, 16))
    else:
        assert ours_mib >= engine_mib


@pytest.mark.parametrize("model", ALL_MODELS, ids=lambda model: model.name)
def test_as_the_engine_said(model: Blueprint, tmp_path: Path) -> None:
    """Against answers recorded by benchmarks/memory_accuracy.py."""
    records = [record for record in _RECORDED if record["model"] == model.name]
    assert records
    facts = facts_of(model, tmp_path)
    for record in records:
        setup = MemorySetup(record["tok"], type_k=record["kv_type"], type_v=record["kv_type"])
        check(facts, setup, OracleAnswer(*(record[name] for name in ("kv", "state", "compute", "output"))))


@pytest.mark.parametrize("name", _ASKED_LIVE)
@pytest.mark.parametrize(
    "setup",
    [
        MemorySetup(8192),
        MemorySetup(1000, 3),
        MemorySetup(8192, 1, "q8_0", "q4_0"),
        MemorySetup(4096, flash_attention=False),
        MemorySetup(4096, embeddings=True),
        MemorySetup(4096, n_ubatch=128),
    ],
)
def test_as_the_engine_says_now(name: str, setup: MemorySetup, tmp_path: Path) -> None:
    model = next(model for model in ALL_MODELS if model.name == name)
    path = write_sparse(model, tmp_path / "model.gguf")
    answer = ask_engine(path, setup)
    assert isinstance(answer, OracleAnswer), answer
    check(memory_facts(read_gguf(path)), setup, answer)


def test_known_answer() -> None:
    """28 layers, 8 heads of 128: 3584 MiB at 32768 tokens in F16, 1904 in Q8_0, as llama.cpp allocates."""
    assert kv_bytes(QWEN3_0_6B, MemorySetup(32768)) == 3584 * MIB
    assert kv_bytes(QWEN3_0_6B, MemorySetup(32768, type_k="q8_0", type_v="q8_0")) == 1904 * MIB


def hybrid(tmp_path: Path, architecture: str, more: dict[str, Any]) -> MemoryFacts:
    metadata = {"block_count": 4, "context_length": 4096, "embedding_length": 64, "attention.head_count": 8}
    tensors = {"token_embd.weight": (64, 300), "output_norm.weight": (64,)}
    return facts_of(Blueprint("hybrid", architecture, metadata | more, tensors, 300), tmp_path)


def test_layers_without_attention_need_nothing(tmp_path: Path) -> None:
    more = {"attention.head_count_kv": [0, 0, 0, 8], "attention.key_length": 128, "attention.value_length": 128}
    facts = hybrid(tmp_path, "jamba", more | {"ssm.inner_size": 64, "ssm.state_size": 16, "ssm.conv_kernel": 4})
    assert kv_bytes(facts, MemorySetup(256)) == 8 * 256 * 2 * 256


def test_state_of_gated_delta_nets(tmp_path: Path) -> None:
    """30720 numbers of convolution and 786432 of state in each of 48 layers: 598.5 MiB for four conversations."""
    more = {
        "block_count": 64,
        "full_attention_interval": 4,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": 6144,
        "ssm.state_size": 128,
        "ssm.group_count": 16,
    }
    need = memory_needed(hybrid(tmp_path, "qwen35", more), MemorySetup(4096, 4))
    assert need.recurrent_state_bytes == 598.5 * MIB
    assert not need.exact


def test_compressed_cache_has_no_values(tmp_path: Path) -> None:
    """DeepSeek-V3 at 163840 tokens: 61 layers of 512 + 64 numbers: 10.72 GiB."""
    more = {
        "block_count": 61,
        "attention.head_count_kv": 1,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
        "attention.kv_lora_rank": 512,
        "rope.dimension_count": 64,
    }
    assert kv_bytes(hybrid(tmp_path, "deepseek2", more), MemorySetup(163840)) == 61 * 576 * 2 * 163840


def test_shared_layers_have_no_cache_of_their_own(tmp_path: Path) -> None:
    more = {"block_count": 30, "attention.sliding_window": 512, "attention.key_length": 256}
    facts = hybrid(tmp_path, "gemma3n", more)
    assert len(facts.cache_layers) == 20
    assert sum(layer.window for layer in facts.cache_layers) == 16


def test_context_is_the_trained_one_where_memory_allows() -> None:
    assert context_that_fits(QWEN3_0_6B, 64 * GIB, GIB) == 40960


def test_context_shrinks_to_what_fits() -> None:
    fits_tok = context_that_fits(QWEN3_0_6B, 4 * GIB, GIB)
    assert 0 < fits_tok < 40960
    assert fits_tok % 256 == 0
    room_bytes = 3 * GIB - SYSTEM_RESERVE_BYTES
    assert memory_needed(QWEN3_0_6B, MemorySetup(fits_tok)).beside_weights_bytes <= room_bytes
    assert memory_needed(QWEN3_0_6B, MemorySetup(fits_tok + 1)).beside_weights_bytes > room_bytes


def test_nothing_fits() -> None:
    assert context_that_fits(QWEN3_0_6B, GIB, GIB) == 0


@given(usable=st.integers(0, 2**40), more=st.integers(0, 2**36), weights=st.integers(0, 2**36))
def test_more_memory_never_gives_less_context(usable: int, more: int, weights: int) -> None:
    fits_tok = context_that_fits(QWEN3_0_6B, usable, weights)
    assert fits_tok <= context_that_fits(QWEN3_0_6B, usable + more, weights)
    assert fits_tok >= context_that_fits(QWEN3_0_6B, usable, weights + more)


layers = st.lists(st.builds(CacheLayer, st.integers(0, 9999), st.integers(0, 9999), st.booleans()), max_size=9)
setups = st.builds(
    MemorySetup, st.integers(1, 2**20), st.integers(1, 8), st.sampled_from(_TYPES), st.sampled_from(_TYPES)
)


@given(setup=setups, more_tok=st.integers(0, 2**16), cache=layers, window=st.integers(1, 9999))
def test_more_context_never_needs_less(setup: MemorySetup, more_tok: int, cache: list[CacheLayer], window: int) -> None:
    model = replace(QWEN3_0_6B, cache_layers=tuple(cache), window_tok=window)
    less, more = (
        memory_needed(model, setup),
        memory_needed(model, replace(setup, context_tok=setup.context_tok + more_tok)),
    )
    assert less.total_bytes <= more.total_bytes
    assert less.kv_bytes <= more.kv_bytes
    wider = memory_needed(model, replace(setup, parallel=setup.parallel + 1))
    assert less.total_bytes <= wider.total_bytes


@given(setup=setups, cache=layers, window=st.integers(1, 9999))
def test_quantized_cache_never_needs_more(setup: MemorySetup, cache: list[CacheLayer], window: int) -> None:
    even = tuple(CacheLayer(layer.key_numbers * 32, layer.value_numbers * 32, layer.window) for layer in cache)
    model = replace(QWEN3_0_6B, cache_layers=even, window_tok=window)
    plain = memory_needed(model, replace(setup, type_k="f16", type_v="f16"))
    assert memory_needed(model, setup).total_bytes <= plain.total_bytes


def test_checkpoints_of_windows_are_bounded(tmp_path: Path) -> None:
    """Gemma-3-12B: 40 layers with windows of 1024 and a batch of 512, 8 KV heads of 256 numbers: 480 MiB a copy, of
    which the engine would keep 32."""
    model = next(model for model in ALL_MODELS if model.name == "Gemma-3-12B")
    facts, setup = facts_of(model, tmp_path), MemorySetup(32768)
    one_bytes = 40 * 1536 * 2 * 8 * 256 * 2
    assert checkpoint_count(facts, setup) == 1
    assert checkpoint_bytes(facts, setup) == max(one_bytes, 512 * MIB)
    assert checkpoint_count(facts, replace(setup, parallel=4)) == 1
    assert checkpoint_bytes(facts, replace(setup, parallel=4)) == 4 * one_bytes


def test_models_without_windows_need_no_checkpoints() -> None:
    assert checkpoint_bytes(QWEN3_0_6B, MemorySetup(4096)) == 0
