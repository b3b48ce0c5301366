"""Names and defaults of `config.json` by model family. Source: transformers, `models/*/configuration_*.py`.

A family is named by its `model_type` without the ending `_text`.
"""

from __future__ import annotations

from collections.abc import Mapping

from bendi.formats.anatomy import LayerKind

Config = Mapping[str, object]

_GEMMA: Config = {"head_dim": 256, "tie_word_embeddings": True}
_GEMMA_LONG: Config = {
    **_GEMMA,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
    "sliding_window_pattern": 6,
}
_LATENT: Config = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
_HYBRID: Config = {"head_dim": 256, "full_attention_interval": 4}
_PLAIN: Config = {}

FAMILIES: Mapping[str, Config] = {
    "cohere": {"tie_word_embeddings": True},
    "cohere2": {"tie_word_embeddings": True, "sliding_window": 4096, "sliding_window_pattern": 4},
    "deepseek_v2": _LATENT,
    "deepseek_v3": {**_LATENT, "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1},
    "gemma": _GEMMA,
    "gemma2": {**_GEMMA, "num_key_value_heads": 4, "sliding_window": 4096, "sliding_window_pattern": 2},
    "gemma3": {**_GEMMA_LONG, "vocab_size": 262208, "sliding_window": 4096},
    "gemma4": {**_GEMMA_LONG, "vocab_size": 262144, "sliding_window": 512, "global_head_dim": 512},
    "glm": {"num_key_value_heads": 2, "head_dim": 128},
    "glm4": {"num_key_value_heads": 2, "head_dim": 128},
    "glm4_moe": {"num_key_value_heads": 8, "n_routed_experts": 128, "num_experts_per_tok": 8},
    "gpt_oss": {
        "head_dim": 64,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
        "sliding_window_pattern": 2,
    },
    "kimi_k2": _LATENT,
    "llama": _PLAIN,
    "llama4": {
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "attention_chunk_size": 8192,
        "sliding_window_pattern": 4,
    },
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "mixtral": {"num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2},
    "olmo2": _PLAIN,
    "phi3": _PLAIN,
    "qwen2": _PLAIN,
    "qwen2_moe": {"num_experts": 60, "num_experts_per_tok": 4, "shared_expert_intermediate_size": 5632},
    "qwen3": {"head_dim": 128},
    "qwen3_5": _HYBRID,
    "qwen3_5_moe": {**_HYBRID, "num_experts": 256, "num_experts_per_tok": 8, "shared_expert_intermediate_size": 512},
    "qwen3_moe": {"num_experts": 128, "num_experts_per_tok": 8},
    "qwen3_next": {**_HYBRID, "num_experts": 512, "num_experts_per_tok": 10, "shared_expert_intermediate_size": 512},
}
"""What the class of each known family has where its `config.json` says nothing."""

WINDOW_ONLY_IF_USED = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")
"""Families that state a window but use it only with `use_sliding_window`, in the layers from `max_window_layers` on."""

WINDOW_IN_ALL = ("mistral", "mixtral", "phi3")
"""Families whose window is in every layer."""

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers"),
    "hidden_size": ("n_embd", "d_model", "dim"),
    "num_attention_heads": ("n_head", "n_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv", "n_kv_heads", "multi_query_group_num"),
    "head_dim": ("attention_head_dim", "kv_channels"),
    "max_position_embeddings": ("n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx"),
    "vocab_size": ("padded_vocab_size",),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts"),
    "num_experts_per_tok": ("num_experts_per_token", "experts_per_token", "moe_topk", "moe_k", "top_k_experts"),
    "num_shared_experts": ("n_shared_experts", "moe_num_shared_experts"),
    "num_nextn_predict_layers": ("mtp_num_hidden_layers", "mtp_num_layers"),
}
"""What others call the same thing."""

LAYER_KINDS: Mapping[str, LayerKind] = {
    "full_attention": "attention",
    "attention": "attention",
    "sliding_attention": "window",
    "chunked_attention": "window",
}
"""The words of `layer_types`; every other one (`linear_attention`, `mamba`, `conv`) is a layer with a state."""
