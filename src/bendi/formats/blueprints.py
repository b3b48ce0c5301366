"""What the converter of llama.cpp would write for a model, from the `config.json` of its Hugging Face repository.

Knows the families of models: which tensors each has, in which shapes, and which keys describe it. Does not know
weights, tokenizers, towers for images and sound (those are files of their own), nor how anything is computed.

    blueprint = blueprint_from_config(config, "Qwen3-8B")
    memory_facts(blueprint.header())

Every family needs `model_type`, `hidden_size`, `num_hidden_layers`, `vocab_size`, `num_attention_heads`,
`intermediate_size` and `max_position_embeddings`; reads `num_key_value_heads`, `head_dim`, `tie_word_embeddings`,
`rms_norm_eps`, `attention_bias`, `rope_theta`, `rope_scaling` or `rope_parameters`, `partial_rotary_factor`; and takes
the default of its class where one of the latter is absent. Beside these:

- experts: `num_experts` (or `num_local_experts`, `n_routed_experts`, `moe_num_experts`), `num_experts_per_tok`,
  `moe_intermediate_size`, `shared_expert_intermediate_size` or `num_shared_experts`, `first_k_dense_replace`,
  `n_group`, `topk_group`, `scoring_func`, `routed_scaling_factor`, `norm_topk_prob`
- windows (Gemma, Cohere 2, OLMo 3, EXAONE 4, gpt-oss): `sliding_window`, `layer_types`
- deepseek_v2, deepseek_v3, kimi_k2, glm4_moe_lite: `q_lora_rank`, `kv_lora_rank`, `qk_nope_head_dim`,
  `qk_rope_head_dim`, `v_head_dim`, `num_nextn_predict_layers` (glm4_moe_lite)
- glm4_moe: `use_qk_norm`, `num_nextn_predict_layers`
- llama4: `intermediate_size_mlp`, `interleave_moe_layer_step`
- granite, granitemoe, granitemoehybrid: `logits_scaling` and the other multipliers, `shared_intermediate_size`,
  `layer_types`, `mamba_n_heads`, `mamba_d_state`, `mamba_n_groups`, `mamba_expand`, `mamba_d_conv`
- qwen3_next, qwen3_5, qwen3_5_moe: `linear_num_value_heads`, `linear_num_key_heads`, `linear_key_head_dim`,
  `linear_value_head_dim`, `linear_conv_kernel_dim`, `layer_types` or `full_attention_interval`, `mtp_num_hidden_layers`
- gemma3n: `hidden_size_per_layer_input`, `altup_num_inputs`, `laurel_rank`, `num_kv_shared_layers`
- gemma4: `global_head_dim`, `num_global_key_value_heads`, `attention_k_eq_v`, `hidden_size_per_layer_input`,
  `num_kv_shared_layers`, `use_double_wide_mlp`, `enable_moe_block`
- nemotron_h: `hybrid_override_pattern` or `layers_block_type`, `mamba_num_heads`, `mamba_head_dim`, `ssm_state_size`,
  `n_groups`, `moe_shared_expert_intermediate_size`
- falcon_h1: `mamba_d_ssm`, `mamba_n_heads`, `mamba_d_state`, `mamba_n_groups`, `mamba_rms_norm`
- lfm2, lfm2_moe: `layer_types` or `full_attn_idxs`, `conv_L_cache`, `block_ff_dim` and its adjustment,
  `num_dense_layers`
- jamba: `attn_layer_period`, `attn_layer_offset`, `expert_layer_period`, `expert_layer_offset`, `mamba_dt_rank`
- mamba, mamba2: `state_size`, `n_groups`, `expand`, `head_dim` and no attention
- ernie4_5_moe: `moe_layer_start_index`, `moe_k`; hunyuan_v1_moe: `moe_topk`, `num_shared_expert`
- bert, roberta, nomic_bert, modernbert: `type_vocab_size`, `pad_token_id`, `n_inner`, `local_attention`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bendi.errors import ModelFileError
from bendi.formats.blueprint import Blueprint
from bendi.formats.blueprint_encoders import bert, modern_bert, nomic_bert
from bendi.formats.blueprint_gemmas import GEMMA3N_DEFAULTS, GEMMA4_DEFAULTS, gemma3n, gemma4
from bendi.formats.blueprint_hybrids import falcon_h1, granite_hybrid, jamba, lfm2, nemotron_hybrid, qwen_hybrid
from bendi.formats.blueprint_latent import latent
from bendi.formats.blueprint_plain import plain
from bendi.formats.blueprint_plain_families import PLAIN
from bendi.formats.blueprint_reader import Config, ConfigReader, merged
from bendi.formats.blueprint_recurrent import mamba
from bendi.formats.gguf_cursor import quoted
from bendi.formats.hf_families import FAMILIES
from bendi.i18n import _

_EMPTY: Config = {}
_TIED: Config = {"tie_word_embeddings": True}


@dataclass(frozen=True)
class _Family:
    build: Callable[[ConfigReader, str], Blueprint]
    defaults: Config = field(default_factory=lambda: _EMPTY)


_LATENT = _Family(lambda config, name: latent(config, name, scored=True, predicts=False))
_ROBERTA = _Family(lambda config, name: bert(config, name, offset=True), {"pad_token_id": 1, "type_vocab_size": 1})
_MAMBA = _Family(lambda config, name: mamba(config, name, second=False), _TIED)
_NEXT: Config = {"mtp_num_hidden_layers": 1}
_OTHERS: Mapping[str, _Family] = {
    "deepseek_v2": _Family(lambda config, name: latent(config, name, scored=False, predicts=False)),
    "deepseek_v3": _LATENT,
    "kimi_k2": _LATENT,
    "glm4_moe_lite": _Family(lambda config, name: latent(config, name, scored=True, predicts=True)),
    "qwen3_next": _Family(lambda config, name: qwen_hybrid(config, name, "qwen3next"), _NEXT),
    "qwen3_5": _Family(lambda config, name: qwen_hybrid(config, name, "qwen35")),
    "qwen3_5_moe": _Family(lambda config, name: qwen_hybrid(config, name, "qwen35moe")),
    "gemma3n": _Family(gemma3n, GEMMA3N_DEFAULTS),
    "gemma4": _Family(gemma4, GEMMA4_DEFAULTS),
    "granitemoehybrid": _Family(granite_hybrid),
    "nemotron_h": _Family(nemotron_hybrid),
    "falcon_h1": _Family(falcon_h1),
    "jamba": _Family(jamba, {"num_experts": 16, "num_experts_per_tok": 2}),
    "lfm2": _Family(lambda config, name: lfm2(config, name, "lfm2"), {**_TIED, "intermediate_size": 12288}),
    "lfm2_moe": _Family(lambda config, name: lfm2(config, name, "lfm2moe"), _TIED),
    "mamba": _MAMBA,
    "falcon_mamba": _MAMBA,
    "mamba2": _Family(lambda config, name: mamba(config, name, second=True)),
    "bert": _Family(lambda config, name: bert(config, name, offset=False)),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "nomic_bert": _Family(nomic_bert, {"intermediate_size": 3072, "num_experts_per_tok": 1}),
    "modernbert": _Family(modern_bert),
}
_OUTER_DECIDES = ("mistral3", "ministral3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
"""Types of whole models whose language part is written as an architecture of its own."""
_SAME: Mapping[str, str] = {"hunyuan": "hunyuan_v1_moe", "gemma4_unified": "gemma4"}
MODEL_TYPES = tuple(sorted({*PLAIN, *_OTHERS, *_SAME}))
"""Every `model_type` that is known."""


def blueprint_from_config(config: Mapping[str, object], name: str) -> Blueprint:
    """The header that llama.cpp's converter would write for the model with this `config.json`, called `name`.

    Raises ModelFileError when the family is not known, or the config lacks what it needs or has what cannot be.
    """
    whole, inner, values = merged(config)
    family = whole if whole in _OUTER_DECIDES else inner
    family = _SAME.get(family, family)
    if family == "gemma3" and values.get("use_bidirectional_attention") is True:
        family = "gemma_embedding"
    defaults = FAMILIES.get(family, _EMPTY)
    if family in PLAIN:
        return plain(ConfigReader(values, family, {**defaults, **PLAIN[family].defaults}), name, PLAIN[family])
    if family in _OTHERS:
        other = _OTHERS[family]
        return other.build(ConfigReader(values, family, {**defaults, **other.defaults}), name)
    raise ModelFileError(
        _("Models of the type {name} are not known well enough to describe their file.").format(name=quoted(family)),
        hint=_("A GGUF file of the model describes itself; `bendi pull` gets one."),
    )
