"""Facts from configs as their authors published them, and refusals of what cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bendi.errors import ModelFileError
from bendi.formats import Anatomy, MemorySource, ModelInfo, RopeScaling, model_info_from_config
from bendi.formats.hf_config import parse_json, read_config
from bendi.formats.hf_model import HfTexts, read_texts
from bendi.formats.json_scan import MAX_TEXT_BYTES
from bendi.formats.tensor_table import DTYPE_BITS, SafetensorsTensor

Config = dict[str, Any]

LLAMA_3_1_8B: Config = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "vocab_size": 128256,
    "tie_word_embeddings": False,
    "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
}  # fmt: skip
MISTRAL_7B_V01: Config = {
    "model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 32768, "sliding_window": 4096, "vocab_size": 32000,
}  # fmt: skip
MIXTRAL_8X7B: Config = {
    "model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "max_position_embeddings": 32768, "sliding_window": None, "vocab_size": 32000,
    "num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 14336,
}  # fmt: skip
QWEN2_5_7B: Config = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "max_position_embeddings": 32768, "sliding_window": 131072, "max_window_layers": 28,
    "use_sliding_window": False, "vocab_size": 152064, "tie_word_embeddings": False,
}  # fmt: skip
QWEN3_30B_A3B: Config = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
    "num_key_value_heads": 4, "head_dim": 128, "max_position_embeddings": 40960, "vocab_size": 151936,
    "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "sliding_window": None,
    "use_sliding_window": False, "max_window_layers": 48, "rope_scaling": None, "tie_word_embeddings": False,
}  # fmt: skip
QWEN3_NEXT: Config = {
    "model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 16,
    "num_key_value_heads": 2, "head_dim": 256, "max_position_embeddings": 262144, "full_attention_interval": 4,
    "num_experts": 512, "num_experts_per_tok": 10, "shared_expert_intermediate_size": 512, "vocab_size": 151936,
}  # fmt: skip
GEMMA_2_9B: Config = {
    "model_type": "gemma2", "hidden_size": 3584, "num_hidden_layers": 42, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 256, "max_position_embeddings": 8192, "sliding_window": 4096,
    "vocab_size": 256000,
}  # fmt: skip
GEMMA_3_4B: Config = {  # almost everything is left to the defaults of the class
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
    "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                    "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                    "sliding_window": 1024},
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16},
}  # fmt: skip
GEMMA_4: Config = {
    "model_type": "gemma4", "tie_word_embeddings": True,
    "text_config": {"hidden_size": 2816, "model_type": "gemma4_text", "num_hidden_layers": 6,
                    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "global_head_dim": 512,
                    "num_global_key_value_heads": 2, "attention_k_eq_v": True, "max_position_embeddings": 262144,
                    "sliding_window": 1024, "num_experts": 128, "top_k_experts": 8,
                    "rope_parameters": {"full_attention": {"rope_type": "proportional", "rope_theta": 1e6},
                                        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
                    "layer_types": [*["sliding_attention"] * 5, "full_attention"]},
}  # fmt: skip
PHI_3_MINI_128K: Config = {
    "model_type": "phi3", "hidden_size": 3072, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
    "sliding_window": 262144, "vocab_size": 32064, "tie_word_embeddings": False,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.5]},
}  # fmt: skip
DEEPSEEK_V2_LITE: Config = {
    "model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16,
    "num_key_value_heads": 16, "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2,
    "max_position_embeddings": 163840, "vocab_size": 102400,
    "rope_scaling": {"factor": 40, "original_max_position_embeddings": 4096, "type": "yarn"},
}  # fmt: skip
DEEPSEEK_V3: Config = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
    "num_key_value_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1,
    "num_nextn_predict_layers": 1, "max_position_embeddings": 163840, "vocab_size": 129280,
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
    "rope_scaling": {"factor": 40, "original_max_position_embeddings": 4096, "type": "yarn"},
}  # fmt: skip
GPT_OSS_20B: Config = {
    "model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131072, "initial_context_length": 4096,
    "sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 12, "num_local_experts": 32,
    "num_experts_per_tok": 4, "experts_per_token": 4, "vocab_size": 201088, "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "mxfp4"},
    "rope_scaling": {"factor": 32.0, "original_max_position_embeddings": 4096, "rope_type": "yarn"},
}  # fmt: skip
GLM_4_9B: Config = {
    "model_type": "glm4", "hidden_size": 4096, "num_hidden_layers": 40, "num_attention_heads": 32,
    "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 32768, "vocab_size": 151552,
}  # fmt: skip
GLM_4_5_AIR: Config = {
    "model_type": "glm4_moe", "hidden_size": 4096, "num_hidden_layers": 46, "num_attention_heads": 96,
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072, "n_routed_experts": 128,
    "num_experts_per_tok": 8, "n_shared_experts": 1, "num_nextn_predict_layers": 1, "vocab_size": 151552,
}  # fmt: skip
LLAMA_4_SCOUT: Config = {
    "model_type": "llama4",
    "text_config": {"model_type": "llama4_text", "hidden_size": 5120, "num_hidden_layers": 48,
                    "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
                    "attention_chunk_size": 8192, "max_position_embeddings": 10485760, "num_local_experts": 16,
                    "num_experts_per_tok": 1, "vocab_size": 202048},
}  # fmt: skip

# name: (layers, heads, KV heads, K, V, context, experts, used, shared, tied)
EXPECTED: dict[str, tuple[Config, tuple[object, ...]]] = {
    "Llama 3.1 8B": (LLAMA_3_1_8B, (32, 32, 8, 128, 128, 131072, 0, 0, 0, False)),
    "Mistral 7B v0.1": (MISTRAL_7B_V01, (32, 32, 8, 128, 128, 32768, 0, 0, 0, False)),
    "Mixtral 8x7B": (MIXTRAL_8X7B, (32, 32, 8, 128, 128, 32768, 8, 2, 0, False)),
    "Qwen2.5 7B": (QWEN2_5_7B, (28, 28, 4, 128, 128, 32768, 0, 0, 0, False)),
    "Qwen3 30B-A3B": (QWEN3_30B_A3B, (48, 32, 4, 128, 128, 40960, 128, 8, 0, False)),
    "Qwen3-Next 80B-A3B": (QWEN3_NEXT, (48, 16, 2, 256, 256, 262144, 512, 10, 1, False)),
    "Gemma 2 9B": (GEMMA_2_9B, (42, 16, 8, 256, 256, 8192, 0, 0, 0, True)),
    "Gemma 3 4B": (GEMMA_3_4B, (34, 8, 4, 256, 256, 131072, 0, 0, 0, True)),
    "Gemma 4": (GEMMA_4, (6, 16, (8, 8, 8, 8, 8, 2), 512, 512, 262144, 128, 8, 0, True)),
    "Phi-3 mini 128k": (PHI_3_MINI_128K, (32, 32, 32, 96, 96, 131072, 0, 0, 0, False)),
    "DeepSeek V2 Lite": (DEEPSEEK_V2_LITE, (27, 16, 16, 192, 128, 163840, 64, 6, 2, False)),
    "DeepSeek V3": (DEEPSEEK_V3, (61, 128, 128, 192, 128, 163840, 256, 8, 1, False)),
    "gpt-oss 20B": (GPT_OSS_20B, (24, 64, 8, 64, 64, 131072, 32, 4, 0, False)),
    "GLM-4 9B": (GLM_4_9B, (40, 32, 2, 128, 128, 32768, 0, 0, 0, False)),
    "GLM-4.5 Air": (GLM_4_5_AIR, (46, 96, 8, 128, 128, 131072, 128, 8, 1, False)),
    "Llama 4 Scout": (LLAMA_4_SCOUT, (48, 40, 8, 128, 128, 10485760, 16, 1, 0, False)),
}


def facts(config: Config, *tensors: SafetensorsTensor) -> tuple[ModelInfo, Anatomy]:
    info, anatomy, notes = model_info_from_config(config, tensors)
    assert notes == ()
    return info, anatomy


@pytest.mark.parametrize("name", EXPECTED)
def test_known_families(name: str) -> None:
    config, expected = EXPECTED[name]
    info, anatomy = facts(config)
    assert (
        info.block_count, info.head_count, info.head_count_kv, info.key_length, info.value_length, info.context_length,
        info.expert_count, info.expert_used_count, anatomy.experts_shared, anatomy.tied_embeddings,
    ) == expected  # fmt: skip
    text = config.get("text_config", config)
    assert info.embedding_length == text["hidden_size"]
    assert info.vocab_size == text.get("vocab_size") or {"Gemma 3 4B": 262208, "Gemma 4": 262144}[name]
    assert len(anatomy.layers) == info.block_count


# (kinds in the order of the layers, window)
KINDS: dict[str, tuple[str, int | None]] = {
    "Llama 3.1 8B": ("A" * 32, None),
    "Mistral 7B v0.1": ("W" * 32, 4096),
    "Mixtral 8x7B": ("A" * 32, None),
    "Qwen2.5 7B": ("A" * 28, None),
    "Qwen3-Next 80B-A3B": ("RRRA" * 12, None),
    "Gemma 2 9B": ("WA" * 21, 4096),
    "Gemma 3 4B": ("WWWWWA" * 5 + "WWWW", 1024),
    "Gemma 4": ("WWWWWA", 1024),
    "Phi-3 mini 128k": ("A" * 32, None),  # a window longer than the context
    "DeepSeek V3": ("A" * 61, None),
    "gpt-oss 20B": ("WA" * 12, 128),
    "Llama 4 Scout": ("WWWA" * 12, 8192),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_layers(name: str) -> None:
    letters = {"attention": "A", "window": "W", "recurrent": "R"}
    _info, anatomy = facts(EXPECTED[name][0])
    assert ("".join(letters[kind] for kind in anatomy.layers), anatomy.window_tok) == KINDS[name]


def test_windows_of_qwen_where_they_are_used() -> None:
    config = {**QWEN2_5_7B, "use_sliding_window": True, "sliding_window": 8192, "max_window_layers": 20}
    _info, anatomy = facts(config)
    assert (anatomy.count("attention"), anatomy.count("window"), anatomy.window_tok) == (20, 8, 8192)
    assert anatomy.layers[:20] == ("attention",) * 20


def test_a_window_as_long_as_the_context_is_none() -> None:
    for window, count in ((131071, 12), (131072, 0), (None, 12)):
        _info, anatomy = facts({**GPT_OSS_20B, "sliding_window": window})
        assert (anatomy.count("window"), anatomy.window_tok) == (count, window if count else None)


def test_null_takes_a_default_away() -> None:
    assert facts({**MISTRAL_7B_V01, "sliding_window": None})[1].count("window") == 0
    without = {key: value for key, value in MISTRAL_7B_V01.items() if key != "sliding_window"}
    assert facts(without)[1].window_tok == 4096
    assert facts({**MISTRAL_7B_V01, "num_key_value_heads": None})[0].head_count_kv == 32


def test_compressed_attention() -> None:
    for config in (DEEPSEEK_V2_LITE, DEEPSEEK_V3):
        assert facts(config)[1].latent_length == 576
    assert facts(LLAMA_3_1_8B)[1].latent_length == 0


def test_heads_that_differ_between_kinds_of_layers() -> None:
    _info, anatomy = facts(GEMMA_4)
    assert (anatomy.window_key_length, anatomy.window_value_length) == (256, 256)
    assert facts(GEMMA_3_4B)[1].window_key_length == 0


def test_layers_that_guess_ahead() -> None:
    assert facts(DEEPSEEK_V3)[1].prediction_layers == 1
    assert facts(QWEN3_30B_A3B)[1].prediction_layers == 0


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("changes", "context", "scaling"),
    [
        ({}, 40960, None),
        ({"rope_scaling": YARN}, 131072, RopeScaling("yarn", 4.0, 32768)),
        ({"rope_parameters": {**YARN, "rope_theta": 1e6}}, 131072, RopeScaling("yarn", 4.0, 32768)),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, 81920, RopeScaling("yarn", 2.0, None)),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, 81920, RopeScaling("linear", 2.0, None)),
        ({"rope_scaling": {"type": "dynamic", "factor": 1.5}}, 61440, RopeScaling("dynamic", 1.5, None)),
        ({"rope_scaling": {"rope_type": "default"}}, 40960, None),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}, 40960, None),
        ({"rope_scaling": {"type": "linear", "factor": float("inf")}}, 40960, RopeScaling("linear", None, None)),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, 40960, RopeScaling("linear", None, None)),
        ({"rope_scaling": {"type": "linear", "factor": True}}, 40960, RopeScaling("linear", None, None)),
        ({"rope_scaling": {"type": "linear", "factor": 1e6}}, 2**31 - 1, RopeScaling("linear", 1e6, None)),
        ({"rope_scaling": "yarn"}, 40960, None),
        ({"max_position_embeddings": None, "rope_scaling": YARN}, None, RopeScaling("yarn", 4.0, 32768)),
    ],
)
def test_context_and_its_stretching(changes: Config, context: int | None, scaling: RopeScaling | None) -> None:
    info, anatomy = facts({**QWEN3_30B_A3B, **changes})
    assert (info.context_length, anatomy.rope_scaling) == (context, scaling)


def test_stretched_already() -> None:
    assert facts(LLAMA_3_1_8B)[1].rope_scaling == RopeScaling("llama3", 8.0, 8192)
    assert facts(PHI_3_MINI_128K)[1].rope_scaling == RopeScaling("longrope", None, 4096)
    assert facts(DEEPSEEK_V3)[1].rope_scaling == RopeScaling("yarn", 40.0, 4096)


def tensor(name: str, dtype: str, *shape: int) -> SafetensorsTensor:
    elements = 1
    for size in shape:
        elements *= size
    return SafetensorsTensor(name, dtype, shape, 0, elements * DTYPE_BITS[dtype] // 8)


def embedding_and_head(vocabulary: int, width: int) -> list[SafetensorsTensor]:
    names = ("model.embed_tokens.weight", "lm_head.weight")
    return [tensor(name, "BF16", vocabulary, width) for name in names]


def attention(layer: int, width: int, q: int, kv: int, dtype: str = "BF16") -> list[SafetensorsTensor]:
    prefix = f"model.layers.{layer}.self_attn."
    return [
        tensor(f"{prefix}q_proj.weight", dtype, q, width), tensor(f"{prefix}k_proj.weight", dtype, kv, width),
        tensor(f"{prefix}v_proj.weight", dtype, kv, width), tensor(f"{prefix}o_proj.weight", dtype, width, q),
    ]  # fmt: skip


def test_parameters_of_mixtral() -> None:
    """Published: 46.7 B, of which 12.9 B for each token."""
    tensors = embedding_and_head(32000, 4096)
    for layer in range(32):
        tensors += attention(layer, 4096, 4096, 1024)
        tensors.append(tensor(f"model.layers.{layer}.block_sparse_moe.gate.weight", "BF16", 8, 4096))
        tensors += [
            tensor(f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{part}.weight", "BF16", 14336, 4096)
            for expert in range(8) for part in ("w1", "w2", "w3")
        ]  # fmt: skip
    info, anatomy = facts(MIXTRAL_8X7B, *tensors)
    assert round(info.parameters / 1e9, 1) == 46.7
    assert round(anatomy.active_parameters / 1e9, 1) == 12.9
    assert (anatomy.expert_layers, anatomy.tied_embeddings) == (32, False)


def test_parameters_of_qwen3_moe() -> None:
    """Published: 30.5 B, of which 3.3 B for each token."""
    tensors = embedding_and_head(151936, 2048)
    for layer in range(48):
        tensors += attention(layer, 2048, 4096, 512)
        tensors += [
            tensor(f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight", "BF16", 768, 2048)
            for expert in range(128) for part in ("gate", "up", "down")
        ]  # fmt: skip
    info, anatomy = facts(QWEN3_30B_A3B, *tensors)
    assert round(info.parameters / 1e9, 1) == 30.5
    assert 3.3e9 < anatomy.active_parameters < 3.4e9


def test_parameters_of_gpt_oss() -> None:
    """Published: 20.9 B. The experts lie packed, two weights in a byte, with scales beside them."""
    tensors = embedding_and_head(201088, 2880)
    for layer in range(24):
        experts = f"model.layers.{layer}.mlp.experts."
        tensors += attention(layer, 2880, 4096, 512)
        tensors += [
            tensor(f"{experts}gate_up_proj_blocks", "U8", 32, 5760, 90, 16),
            tensor(f"{experts}gate_up_proj_scales", "U8", 32, 5760, 90),
            tensor(f"{experts}gate_up_proj_bias", "BF16", 32, 5760),
            tensor(f"{experts}down_proj_blocks", "U8", 32, 2880, 90, 16),
            tensor(f"{experts}down_proj_scales", "U8", 32, 2880, 90),
        ]
    info, anatomy = facts(GPT_OSS_20B, *tensors)
    assert round(info.parameters / 1e9, 1) == 20.9
    assert round(anatomy.active_parameters / 1e9, 1) == 4.2, "3.6 B are published, without the embedding"
    assert info.file_type == "MXFP4"


def test_what_a_token_of_text_does_not_use() -> None:
    tensors = [
        *embedding_and_head(1000, 64), *attention(0, 64, 64, 64), *attention(61, 64, 64, 64),
        tensor("model.vision_tower.layers.0.weight", "BF16", 64, 64),
        tensor("mtp.layers.0.mlp.up_proj.weight", "BF16", 64, 64),
        tensor("model.layers.0.mlp.shared_experts.up_proj.weight", "BF16", 64, 64),
        tensor("model.layers.0.mlp.up_proj.weight_scale_inv", "F32", 1, 1),
        tensor("model.layers.0.input_ids", "I64", 7),
    ]  # fmt: skip
    info, anatomy = facts(DEEPSEEK_V3, *tensors)
    assert info.parameters == 2 * 64_000 + (4 + 4 + 3) * 64 * 64
    assert anatomy.active_parameters == 2 * 64_000 + (4 + 1) * 64 * 64


@pytest.mark.parametrize(
    ("quantization", "stored", "weights"),
    [
        ({"quant_method": "gptq", "bits": 4}, [("q.qweight", "I32", 64), ("q.qzeros", "I32", 8), ("q.scales", "F16", 8),
                                               ("q.g_idx", "I32", 512)], 512),
        ({"quant_method": "gptq", "bits": 8}, [("q.qweight", "I32", 64)], 256),
        ({"quant_method": "awq", "bits": 4}, [("q.qweight", "I32", 64), ("q.scales", "F16", 8)], 512),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True},
         [("q.weight", "U8", 64), ("q.weight.absmax", "U8", 2), ("q.weight.quant_map", "F32", 16)], 128),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, [("q.weight", "I8", 64)], 64),
        ({"quant_method": "fp8"}, [("q.weight", "F8_E4M3", 64), ("q.weight_scale_inv", "F32", 1)], 64),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
         [("q.weight_packed", "I32", 64), ("q.weight_scale", "BF16", 4), ("q.weight_shape", "I64", 2)], 512),
        ({"bits": 4, "group_size": 64}, [("q.weight", "U32", 64), ("q.scales", "BF16", 8)], 512),
        ({"quant_method": "mxfp8"}, [("q.weight", "F8_E4M3", 64), ("q.weight_scale", "F8_E8M0", 2)], 64),
    ],
)  # fmt: skip
def test_packed_weights(quantization: Config, stored: list[tuple[str, str, int]], weights: int) -> None:
    tensors = [tensor(f"model.layers.0.self_attn.{name}", dtype, count) for name, dtype, count in stored]
    assert facts({**LLAMA_3_1_8B, "quantization_config": quantization}, *tensors)[0].parameters == weights


def test_a_head_that_is_the_embedding() -> None:
    """What the tensors say counts more than what the config says."""
    embedding = tensor("model.embed_tokens.weight", "BF16", 1000, 64)
    assert facts({**LLAMA_3_1_8B, "tie_word_embeddings": False}, embedding)[1].tied_embeddings is True
    assert facts(GEMMA_2_9B, *embedding_and_head(1000, 64))[1].tied_embeddings is False
    assert facts(GEMMA_3_4B, tensor("language_model.lm_head.weight", "BF16", 9, 9))[1].tied_embeddings is False


def test_an_unknown_family_is_read_by_the_usual_names() -> None:
    config = {
        "architectures": ["NewForCausalLM"], "model_type": "new", "n_layer": 12, "n_embd": 768, "n_head": 12,
        "n_positions": 1024, "sliding_window": 256,
    }  # fmt: skip
    info, anatomy, [note] = model_info_from_config(config)
    assert (info.architecture, info.block_count, info.embedding_length, info.head_count) == ("new", 12, 768, 12)
    assert (info.head_count_kv, info.key_length, info.context_length) == (12, 64, 1024)
    assert anatomy.layers == ("attention",) * 12
    assert anatomy.tied_embeddings is None
    assert "NewForCausalLM" in note


def test_an_unknown_family_that_lists_its_layers() -> None:
    config = {
        "model_type": "new", "num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "sliding_window": 256,
        "layer_types": ["linear_attention", "sliding_attention", "conv", "full_attention"],
    }  # fmt: skip
    _info, anatomy, _notes = model_info_from_config(config)
    assert anatomy.layers == ("recurrent", "window", "recurrent", "attention")
    assert anatomy.window_tok == 256


HOSTILE: dict[str, tuple[Config, str]] = {
    "nothing": ({}, "does not say how many layers"),
    "an image model": ({"model_type": "vit", "hidden_size": 8}, "its type is 'vit'"),
    "no layers": ({**LLAMA_3_1_8B, "num_hidden_layers": 0}, "does not say how many layers"),
    "too many layers": ({**LLAMA_3_1_8B, "num_hidden_layers": 10**9}, "num_hidden_layers is '1000000000'"),
    "negative layers": ({**LLAMA_3_1_8B, "num_hidden_layers": -1}, "num_hidden_layers is '-1'"),
    "layers as text": ({**LLAMA_3_1_8B, "num_hidden_layers": "32"}, "num_hidden_layers is '32'"),
    "layers as truth": ({**LLAMA_3_1_8B, "num_hidden_layers": True}, "num_hidden_layers is 'True'"),
    "half a layer": ({**LLAMA_3_1_8B, "num_hidden_layers": 1.5}, "num_hidden_layers is '1.5'"),
    "a deep object": ({**LLAMA_3_1_8B, "num_hidden_layers": {"a": 1}}, "num_hidden_layers is"),
    "heads beyond reason": ({**LLAMA_3_1_8B, "num_attention_heads": 10**6}, "num_attention_heads is"),
    "experts beyond reason": ({**QWEN3_30B_A3B, "num_experts": 10**6}, "num_experts is"),
    "context beyond reason": ({**LLAMA_3_1_8B, "max_position_embeddings": 2**31}, "max_position_embeddings is"),
    "a list with a bad one": ({**LLAMA_3_1_8B, "num_key_value_heads": [8, -8]}, "num_key_value_heads is '-8'"),
    "too few kinds": ({**GPT_OSS_20B, "layer_types": ["full_attention"]}, "kinds of 1 layers, but the model has 24"),
    "kinds that are numbers": ({**GPT_OSS_20B, "layer_types": [1] * 24}, "kinds of 24 layers"),
    "control characters": ({"model_type": "\x1b[2J"}, "its type is ''"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused(name: str) -> None:
    config, reason = HOSTILE[name]
    with pytest.raises(ModelFileError, match=reason) as caught:
        model_info_from_config(config)
    assert caught.value.message.isprintable() and caught.value.hint


def test_a_list_counts_as_its_largest() -> None:
    assert read_config({**LLAMA_3_1_8B, "num_key_value_heads": [8, 4, 2]}).head_count_kv == 8


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff{}", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b"[" * 200_000, "too many values"),
        (b" " * (MAX_TEXT_BYTES + 1), "are allowed"),
        (b"<html>", "not JSON"),
    ],
)
def test_json_that_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason) as caught:
        parse_json(MemorySource(data), "config.json")
    assert caught.value.message.startswith("config.json ")


def test_json_as_its_authors_write_it() -> None:
    """Found in real repositories: Infinity, a number of 31 digits, a key twice."""
    text = b'{"limit": [0.0, Infinity], "model_max_length": 1000000000000000019884624838656, "a": 1, "a": 2}'
    value = parse_json(MemorySource(text), "x.json")
    assert value == {"limit": [0.0, None], "model_max_length": 1e30, "a": 2}


@pytest.mark.parametrize(
    ("tokenizer", "jinja", "template"),
    [
        ({"chat_template": "{{ a }}"}, None, "{{ a }}"),
        ({"chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]}, None, "d"),
        ({"chat_template": [{"name": ["default"], "template": "d"}, 3]}, None, None),
        ({"chat_template": {"a": 1}}, None, None),
        ({"chat_template": "old"}, b"new", "new"),
        ({}, None, None),
    ],
)
def test_chat_templates(tokenizer: Config, jinja: bytes | None, template: str | None) -> None:
    texts = read_texts(
        MemorySource(json.dumps({"tokenizer_class": "T", **tokenizer}).encode()),
        MemorySource(jinja) if jinja else None,
        MemorySource("---\nlanguage: zh\nlicense: 'mit'\n---\n# 模型\nlicense: gpl\n".encode()),
    )
    info, _anatomy, _notes = model_info_from_config(LLAMA_3_1_8B, (), texts)
    assert (info.chat_template, info.tokenizer_model, info.licence) == (template, "T", "mit")
    assert (info.chat_template_sha256 is None) == (template is None)


def test_damaged_texts_are_as_good_as_none() -> None:
    readme = MemorySource(b"no front matter\nlicense: mit")
    texts = read_texts(MemorySource(b"{"), MemorySource(b"\xff" * 2**21), readme)
    assert texts == HfTexts(None, None, "no front matter\nlicense: mit")
    info, _anatomy, _notes = model_info_from_config(LLAMA_3_1_8B, (), texts)
    assert (info.licence, info.tokenizer_model, info.chat_template) == ("", "", None)
