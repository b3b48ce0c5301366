"""The families that `plain` can make: their parts, the defaults of their classes, and the keys that only they have.

Sources: llama.cpp `conversion/`, `src/models/`; the defaults: transformers, `models/*/configuration_*.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from bendi.formats.blueprint import Value
from bendi.formats.blueprint_draft import Dims, Tensor
from bendi.formats.blueprint_plain import NORMS, Plain
from bendi.formats.blueprint_reader import MAX_WIDTH, ConfigReader
from bendi.formats.blueprint_rope import read_rope
from bendi.formats.gguf_check import MAX_LAYERS

_MAX_CONTEXT_TOK = 2**31 - 1
_SIGMOID = 2
_DEFAULT_SECTIONS = [16, 24, 24, 0]


def _window(config: ConfigReader, dims: Dims) -> dict[str, Value]:
    """The window, and which layers have it where the config lists them."""
    keys: dict[str, Value] = {}
    window = config.whole("sliding_window", 0, low=0, high=_MAX_CONTEXT_TOK)
    if window:
        keys["attention.sliding_window"] = window
        types = config.words("layer_types", dims.layers)
        if types:
            keys["attention.sliding_window_pattern"] = [kind == "sliding_attention" for kind in types]
    return keys


def _only_window(config: ConfigReader, _dims: Dims) -> dict[str, Value]:
    window = config.whole("sliding_window", 0, low=0, high=_MAX_CONTEXT_TOK)
    return {"attention.sliding_window": window} if window else {}


def _softcaps(config: ConfigReader, dims: Dims) -> dict[str, Value]:
    keys = _only_window(config, dims)
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        number = config.number(name)
        if number is not None:
            keys[name] = number
    return keys


def _scales(config: ConfigReader, dims: Dims) -> dict[str, Value]:
    """Granite's four multipliers."""
    keys: dict[str, Value] = {"logit_scale": config.number("logits_scaling", 1.0) or 1.0}
    for name, key in (
        ("attention_multiplier", "attention.scale"),
        ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"),
    ):
        number = config.number(name)
        if number:
            keys[key] = number
    if dims.experts and dims.shared_ff:
        keys["expert_shared_feed_forward_length"] = dims.shared_ff
    return keys


def _granite_numbers(config: ConfigReader, dims: Dims) -> Dims:
    return replace(
        dims, head=max(dims.embd // dims.heads, 1), shared_ff=config.whole("shared_intermediate_size", 0, low=0)
    )


def _shared(_config: ConfigReader, dims: Dims) -> dict[str, Value]:
    return {"expert_shared_feed_forward_length": dims.shared_ff} if dims.shared_ff else {}


def _shared_count(config: ConfigReader, _dims: Dims) -> dict[str, Value]:
    return {"expert_shared_count": config.whole("num_shared_experts", 0, low=0), "expert_gating_func": _SIGMOID}


def _ministral(config: ConfigReader, _dims: Dims) -> dict[str, Value]:
    rope, keys = read_rope(config), {}
    for name, key in (
        ("mscale_all_dim", "rope.scaling.yarn_log_multiplier"),
        ("llama_4_scaling_beta", "attention.temperature_scale"),
    ):
        number = rope.number(name)
        if rope.kind == "yarn" and number is not None:
            keys[key] = number
    return dict(keys)


def _logit_scale(config: ConfigReader, _dims: Dims) -> dict[str, Value]:
    return {"logit_scale": config.number("logit_scale", 0.0625) or 0.0625}


def _cohere_numbers(config: ConfigReader, dims: Dims) -> Dims:
    return replace(dims, context=config.whole("model_max_length", dims.context, high=_MAX_CONTEXT_TOK))


def _phi3(config: ConfigReader, dims: Dims) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "rope.scaling.original_context_length": read_rope(config).original_context_tok or dims.context,
        "attention.sliding_window": config.whole("sliding_window", 0, low=0, high=_MAX_CONTEXT_TOK),
    }
    return keys


def _phimoe_head(dims: Dims) -> Iterator[Tensor]:
    yield "output.bias", (dims.vocab,)


def _predicts(config: ConfigReader, dims: Dims) -> Dims:
    predict = config.whole("num_nextn_predict_layers", 0, low=0, high=MAX_LAYERS - dims.layers)
    return replace(dims, predict=predict)


def _llama4_numbers(config: ConfigReader, dims: Dims) -> Dims:
    return replace(dims, ff=config.whole("intermediate_size_mlp"), expert_ff=dims.ff, shared_ff=dims.ff)


def _llama4(config: ConfigReader, dims: Dims) -> dict[str, Value]:
    step = config.whole("interleave_moe_layer_step", 1, high=dims.layers)
    return {"interleave_moe_layer_step": step, "expert_shared_count": 1}


def _ernie_numbers(config: ConfigReader, dims: Dims) -> Dims:
    shared = config.whole("num_shared_experts", 0, low=0, high=64)
    lead = config.whole("moe_layer_start_index", 0, low=0, high=dims.layers)
    return replace(dims, shared_ff=dims.expert_ff * shared, dense_lead=lead)


def _ernie(config: ConfigReader, dims: Dims) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "interleave_moe_layer_step": config.whole("moe_layer_interval", 1, high=dims.layers),
        "leading_dense_block_count": dims.dense_lead,
    }
    return keys | _shared(config, dims)


def _hunyuan_numbers(config: ConfigReader, dims: Dims) -> Dims:
    shared = config.whole("num_shared_expert", 1, low=0, high=64)
    return replace(dims, used=config.whole("moe_topk", 1, high=dims.experts), shared_ff=dims.ff * shared)


def _minimax(config: ConfigReader, dims: Dims) -> dict[str, Value]:
    return {
        "rope.dimension_count": config.whole("rotary_dim", dims.head, high=dims.head),
        "expert_gating_func": _SIGMOID,
    }


def _starcoder(config: ConfigReader, _dims: Dims) -> dict[str, Value]:
    return {"attention.layer_norm_epsilon": config.number("norm_epsilon", 1e-5) or 1e-5}


def _sections(config: ConfigReader, _dims: Dims) -> dict[str, Value]:
    if "rope.dimension_sections" in read_rope(config).metadata():
        return {}
    return {"rope.dimension_sections": list(_DEFAULT_SECTIONS)}


def _deep_stack(config: ConfigReader, dims: Dims) -> dict[str, Value]:
    stated = config.part("vision_config").get("deepstack_visual_indexes")
    return _sections(config, dims) | {"n_deepstack_layers": len(stated) if isinstance(stated, list) else 3}


def _minicpm(config: ConfigReader, dims: Dims) -> dict[str, Value]:
    depth = config.number("scale_depth", 1.4) or 1.4
    return {
        "embedding_scale": config.number("scale_emb", 12.0) or 12.0,
        "residual_scale": depth / dims.layers**0.5,
        "logit_scale": dims.embd / config.whole("dim_model_base", 256, high=MAX_WIDTH),
    }


def _bailing_numbers(config: ConfigReader, dims: Dims) -> Dims:
    shared = config.whole("num_shared_experts", 1, low=0, high=64)
    return replace(dims, shared_ff=config.whole("moe_shared_expert_intermediate_size", dims.expert_ff) * shared)


def _bailing(config: ConfigReader, dims: Dims) -> dict[str, Value]:
    return {"expert_shared_count": config.whole("num_shared_experts", 1, low=0), "expert_gating_func": _SIGMOID}


_TIED = {"tie_word_embeddings": True}
_LLAMA_BIASES = {"attention_bias": "qkv_bias out_bias", "mlp_bias": "ffn_bias"}
_GEMMA = {**_TIED, "head_dim": 256}
_NO_BIASES: Mapping[str, str] = {}
_LLAMA = Plain("llama", asked=_LLAMA_BIASES)
_MIXTRAL = {"num_local_experts": 8, "num_experts_per_tok": 2, "num_key_value_heads": 8}
_GLM4_MOE = "norm post_attention_norm gate score_bias"

PLAIN: Mapping[str, Plain] = {
    "llama": _LLAMA,
    "mistral": replace(_LLAMA, asked=_NO_BIASES),
    "mixtral": replace(_LLAMA, asked=_NO_BIASES, defaults=_MIXTRAL),
    "internlm3": replace(_LLAMA, asked={"qkv_bias": "qkv_bias", "bias": "out_bias ffn_bias"}),
    "internlm2": Plain("internlm2", asked=_NO_BIASES),
    "mistral3": Plain("mistral3", more=_ministral, asked=_NO_BIASES),
    "ministral3": Plain("mistral3", more=_ministral, asked=_NO_BIASES),
    "smollm3": Plain("smollm3", defaults=_TIED),
    "arcee": Plain("arcee", "norm ffn_norm", asked=_NO_BIASES),
    "minicpm": Plain("minicpm", more=_minicpm, asked=_NO_BIASES),
    "qwen2": Plain("qwen2", NORMS + " qkv_bias"),
    "qwen2_vl": Plain("qwen2vl", NORMS + " qkv_bias", more=_sections),
    "qwen2_5_vl": Plain("qwen2vl", NORMS + " qkv_bias", more=_sections),
    "qwen2_moe": Plain("qwen2moe", NORMS + " qkv_bias shared_gate", more=_shared),
    "qwen3": Plain("qwen3", NORMS + " qk_norm"),
    "qwen3_moe": Plain("qwen3moe", NORMS + " qk_norm"),
    "qwen3_vl": Plain("qwen3vl", NORMS + " qk_norm", more=_deep_stack),
    "qwen3_vl_moe": Plain("qwen3vlmoe", NORMS + " qk_norm", more=_deep_stack, defaults={"num_experts": 128}),
    "gemma": Plain("gemma", defaults=_GEMMA, asked=_NO_BIASES),
    "gemma2": Plain("gemma2", NORMS + " post_norms", defaults=_GEMMA, more=_softcaps, asked=_NO_BIASES),
    "gemma3": Plain("gemma3", NORMS + " post_norms qk_norm", defaults=_GEMMA, more=_softcaps, asked=_NO_BIASES),
    "gemma_embedding": Plain(
        "gemma-embedding", NORMS + " post_norms qk_norm", defaults=_GEMMA, more=_only_window, asked=_NO_BIASES
    ),
    "phi3": Plain("phi3", "norm ffn_norm fused_qkv fused_up", more=_phi3, asked=_NO_BIASES),
    "phimoe": Plain(
        "phimoe",
        NORMS + " norm_bias qkv_bias out_bias",
        defaults={"num_local_experts": 16, "num_experts_per_tok": 2},
        more=_phi3,
        extra=_phimoe_head,
    ),
    "glm4": Plain("glm4", "norm ffn_norm fused_up post_norms", rotates=0.5),
    "glm4_moe": Plain(
        "glm4moe",
        _GLM4_MOE,
        defaults={"num_shared_experts": 1, "head_dim": 128},
        asked={"attention_bias": "qkv_bias", "use_qk_norm": "qk_norm"},
        numbers=_predicts,
        more=_shared_count,
        rotates=0.5,
    ),
    "gpt_oss": Plain(
        "gpt-oss",
        "norm post_attention_norm gate qkv_bias out_bias sinks expert_bias",
        more=_only_window,
        asked=_NO_BIASES,
    ),
    "llama4": Plain(
        "llama4",
        numbers=_llama4_numbers,
        more=_llama4,
        asked=_NO_BIASES,
        expert_step="interleave_moe_layer_step",
        defaults={"intermediate_size": 8192, "intermediate_size_mlp": 16384},
    ),
    "granite": Plain("granite", asked=_LLAMA_BIASES, numbers=_granite_numbers, more=_scales),
    "granitemoe": Plain("granitemoe", numbers=_granite_numbers, more=_scales),
    "granitemoeshared": Plain("granitemoe", numbers=_granite_numbers, more=_scales),
    "olmo2": Plain("olmo2", "gate qk_norm_wide post_norms", asked=_NO_BIASES),
    "olmo3": Plain(
        "olmo2", "gate qk_norm_wide post_norms", asked=_NO_BIASES, more=_window, defaults={"sliding_window": 4096}
    ),
    "olmoe": Plain("olmoe", NORMS + " qk_norm_wide", asked=_NO_BIASES, defaults={"num_experts": 64}),
    "cohere": Plain(
        "command-r",
        "norm gate",
        defaults=_TIED,
        asked={"use_qk_norm": "qk_norm_heads"},
        numbers=_cohere_numbers,
        more=_logit_scale,
    ),
    "cohere2": Plain(
        "cohere2",
        "norm gate",
        defaults={**_TIED, "sliding_window": 4096},
        asked=_NO_BIASES,
        more=lambda config, dims: _logit_scale(config, dims) | _only_window(config, dims),
    ),
    "ernie4_5": Plain("ernie4_5", defaults=_TIED, asked={"use_bias": "qkv_bias out_bias ffn_bias"}),
    "ernie4_5_moe": Plain(
        "ernie4_5-moe", NORMS + " score_bias", defaults=_TIED, asked=_NO_BIASES, numbers=_ernie_numbers, more=_ernie
    ),
    "hunyuan_v1_dense": Plain("hunyuan-dense", NORMS + " qk_norm", asked=_NO_BIASES),
    "hunyuan_v1_moe": Plain(
        "hunyuan-moe",
        NORMS + " qk_norm",
        asked=_NO_BIASES,
        numbers=_hunyuan_numbers,
        more=lambda _config, dims: {"expert_shared_feed_forward_length": dims.shared_ff, "expert_shared_count": 1},
    ),
    "exaone4": Plain("exaone4", "gate qk_norm post_norms", asked=_NO_BIASES, more=_window),
    "exaone": Plain("exaone", asked=_NO_BIASES, defaults=_TIED),
    "minimax_m2": Plain("minimax-m2", NORMS + " qk_norm_wide score_bias", asked=_NO_BIASES, more=_minimax),
    "seed_oss": Plain(
        "seed_oss",
        "norm post_attention_norm gate",
        asked={"attention_bias": "qkv_bias", "attention_out_bias": "out_bias"},
        defaults={"attention_bias": True, "head_dim": 128},
    ),
    "starcoder2": Plain(
        "starcoder2",
        "norm ffn_norm norm_bias",
        asked={"use_bias": "qkv_bias out_bias ffn_bias"},
        defaults={**_TIED, "use_bias": True},
        more=_starcoder,
    ),
    "dots1": Plain("dots1", NORMS + " qk_norm score_bias", asked=_NO_BIASES, more=_shared_count),
    "bailing_moe_v2": Plain(
        "bailingmoe2",
        NORMS + " qk_norm fused_qkv score_bias",
        asked=_NO_BIASES,
        numbers=_bailing_numbers,
        more=_bailing,
        rotates=0.5,
    ),
}
"""By `model_type`."""
