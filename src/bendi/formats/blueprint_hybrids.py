"""Models that mix attention with layers that keep a state: Qwen3-Next and later, Granite 4, Nemotron-H, Falcon-H1,
Jamba, LFM2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bendi.formats.blueprint import Blueprint
from bendi.formats.blueprint_draft import Dims, Draft, Tensor, read_dims
from bendi.formats.blueprint_parts import (
    State,
    attention,
    delta_net,
    experts,
    feed_forward,
    mamba1,
    mamba2,
    prediction,
)
from bendi.formats.blueprint_reader import ConfigReader
from bendi.formats.blueprint_rope import rotated
from bendi.formats.gguf_check import MAX_LAYERS

_GATED = frozenset({"gate"})
_MIXED = frozenset({"gate", "shared_gate"})
_PRE_NORM = frozenset({"norm"})
_QWEN_ATTENTION = frozenset({"norm", "post_attention_norm", "qk_norm", "gated_q"})
_QWEN_SECTIONS = [11, 11, 10, 0]
_RECURRENT = ("linear_attention", "mamba", "conv")
_SIGMOID = 2


def qwen_hybrid(config: ConfigReader, name: str, architecture: str) -> Blueprint:
    """Qwen3-Next (`architecture` qwen3next), Qwen3.5 and 3.6 (qwen35, qwen35moe)."""
    d = read_dims(config)
    predict = config.whole("mtp_num_hidden_layers", 0, low=0, high=MAX_LAYERS - d.layers)
    d = replace(d, predict=predict)
    state_length = config.whole("linear_key_head_dim", 128)
    heads = config.whole("linear_num_value_heads", 32)
    s = State(
        inner=config.whole("linear_value_head_dim", 128) * heads,
        state=state_length,
        heads=heads,
        groups=config.whole("linear_num_key_heads", 16),
        kernel=config.whole("linear_conv_kernel_dim", 4, high=64),
    )
    draft = Draft(name, architecture, config, d)
    types = config.words("layer_types", d.layers)
    interval = config.whole("full_attention_interval", 4, high=MAX_LAYERS)
    recurrent = [kind in _RECURRENT for kind in types or ()] or [(i + 1) % interval != 0 for i in range(d.layers)]
    draft.metadata |= s.metadata | {
        "attention.recurrent_layers": recurrent + [False] * predict,
        "full_attention_interval": interval,
        "rope.dimension_count": rotated(config, d.head, 0.25),
    }
    if d.shared_ff:
        draft.metadata["expert_shared_feed_forward_length"] = d.shared_ff
    if architecture != "qwen3next":
        draft.metadata.setdefault("rope.dimension_sections", list(_QWEN_SECTIONS))
    draft.add_ends()
    for layer in range(d.layers + predict):
        if layer < d.layers and recurrent[layer]:
            draft.add_block(layer, (("attn_norm.weight", (d.embd,)), ("post_attention_norm.weight", (d.embd,))))
            draft.add_block(layer, delta_net(d, s, one_gate=architecture == "qwen3next"))
        else:
            draft.add_block(layer, attention(d, _QWEN_ATTENTION))
        draft.add_block(layer, experts(d, _MIXED) if d.experts else feed_forward(d, _GATED))
        if layer >= d.layers:
            draft.add_block(layer, prediction(d, own_ends=False))
    return draft.done()


def granite_hybrid(config: ConfigReader, name: str) -> Blueprint:
    d = read_dims(config)
    shared = config.whole("shared_intermediate_size", 0, low=0)
    d = replace(d, head=max(d.embd // d.heads, 1), shared_ff=shared if d.experts else 0, expert_ff=d.ff)
    types = config.words("layer_types", d.layers)
    full = [kind == "attention" for kind in types] if types else _at_indices(config, "attn_layer_indices", d.layers)
    pure = all(full)
    architecture = "granitehybrid" if not pure else "granitemoe" if d.experts else "granite"
    draft = Draft(name, architecture, config, d)
    draft.metadata |= {"logit_scale": config.number("logits_scaling", 1.0) or 1.0, "rope.dimension_count": d.head}
    for key, gguf_key in (
        ("attention_multiplier", "attention.scale"),
        ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"),
    ):
        if number := config.number(key):
            draft.metadata[gguf_key] = number
    heads = config.whole("mamba_n_heads", 128)
    s = State(
        inner=config.whole("mamba_expand", 2, high=64) * d.embd,
        state=config.whole("mamba_d_state", 256),
        heads=heads,
        groups=config.whole("mamba_n_groups", 1),
        kernel=config.whole("mamba_d_conv", 4, high=64),
    )
    if not pure:
        draft.metadata |= s.metadata | {
            "attention.head_count_kv": [d.kv if is_full else 0 for is_full in full],
            "rope.scaling.finetuned": False,
            "context_length": 2**20,
        }
    if d.shared_ff:
        draft.metadata["expert_shared_feed_forward_length"] = d.shared_ff
    draft.add_ends()
    bias = config.flag("mamba_conv_bias", True)
    for layer in range(d.layers):
        draft.add_block(layer, (("attn_norm.weight", (d.embd,)), ("ffn_norm.weight", (d.embd,))))
        draft.add_block(layer, attention(d, frozenset()) if full[layer] else mamba2(d, s, bias=bias))
        draft.add_block(layer, experts(d, _GATED) if d.experts else feed_forward(d, _GATED))
    return draft.done()


def nemotron_hybrid(config: ConfigReader, name: str) -> Blueprint:
    """Nemotron-H: each layer has a state, attention or a feed-forward part, and nothing else."""
    d = read_dims(config)
    d = replace(d, head=config.whole("attention_head_dim", config.whole("head_dim", 128, high=65536), high=65536))
    moe = d.experts > 0 and config.get("num_experts_per_tok") is not None
    shared = config.whole("moe_shared_expert_intermediate_size", 0, low=0) if moe else 0
    d = replace(d, shared_ff=shared, experts=d.experts if moe else 0)
    kinds = config.words("hybrid_override_pattern", d.layers) or config.words("layers_block_type", d.layers)
    letters = [{"mamba": "M", "attention": "*", "moe": "E", "mlp": "-"}.get(kind, kind) for kind in kinds or ()]
    s = State(
        inner=config.whole("mamba_num_heads", 128) * config.whole("mamba_head_dim", 64),
        state=config.whole("ssm_state_size", 128),
        heads=config.whole("mamba_num_heads", 128),
        groups=config.whole("n_groups", 8),
        kernel=config.whole("conv_kernel", 4, high=64),
    )
    length = d.expert_ff if moe else d.ff
    width = config.whole("moe_latent_size", 0, low=0) if moe else 0
    draft = Draft(name, "nemotron_h_moe" if moe else "nemotron_h", config, d)
    draft.metadata |= s.metadata | {
        "attention.head_count_kv": [d.kv if letter == "*" else 0 for letter in letters] or 0,
        "feed_forward_length": [length if letter in "E-" else 0 for letter in letters] or 0,
        "rope.dimension_count": d.head,
        "rope.scaling.finetuned": False,
        "context_length": 2**20,
    }
    if moe:
        draft.metadata |= {"expert_shared_feed_forward_length": shared, "expert_shared_count": 1}
    if width:
        draft.metadata["moe_latent_size"] = width
    draft.add_ends()
    bias = config.flag("use_conv_bias", True)
    for layer, letter in enumerate(letters):
        draft.add_block(layer, _nemotron_layer(d, s, letter, width, bias=bias))
    return draft.done()


def _nemotron_layer(d: Dims, s: State, letter: str, width: int, *, bias: bool) -> Iterator[Tensor]:
    yield "attn_norm.weight", (d.embd,)
    if letter == "M":
        yield from mamba2(d, s, bias=bias)
    elif letter == "*":
        yield from attention(d, frozenset())
    elif letter == "E":
        yield from experts(d, frozenset({"score_bias"}), width)
        if width:
            yield from (("ffn_latent_down.weight", (d.embd, width)), ("ffn_latent_up.weight", (width, d.embd)))
    else:
        yield from feed_forward(d, frozenset())


def falcon_h1(config: ConfigReader, name: str) -> Blueprint:
    """Attention and a state side by side in every layer."""
    d = read_dims(config)
    s = State(
        inner=config.whole("mamba_d_ssm", 1024),
        state=config.whole("mamba_d_state", 256),
        heads=config.whole("mamba_n_heads", 128),
        groups=config.whole("mamba_n_groups", 1),
        kernel=config.whole("mamba_d_conv", 4, high=64),
    )
    draft = Draft(name, "falcon-h1", config, d)
    draft.metadata |= s.metadata
    draft.add_ends()
    norm, bias = config.flag("mamba_rms_norm"), config.flag("mamba_conv_bias", True)
    for layer in range(d.layers):
        draft.add_block(layer, attention(d, _PRE_NORM))
        draft.add_block(layer, mamba2(d, s, norm=norm, bias=bias))
        draft.add_block(layer, (("ffn_norm", (d.embd,)), *feed_forward(d, _GATED)))
    return draft.done()


def jamba(config: ConfigReader, name: str) -> Blueprint:
    d = read_dims(config)
    period = config.whole("attn_layer_period", 8, high=MAX_LAYERS)
    offset = config.whole("attn_layer_offset", 4, low=0, high=MAX_LAYERS)
    every = config.whole("expert_layer_period", 2, high=MAX_LAYERS)
    first = config.whole("expert_layer_offset", 1, low=0, high=MAX_LAYERS)
    full = [layer >= offset and (layer - offset) % period == 0 for layer in range(d.layers)]
    s = State(
        inner=config.whole("mamba_expand", 2, high=64) * d.embd,
        state=config.whole("mamba_d_state", 16),
        heads=config.whole("mamba_dt_rank", -(-d.embd // 16)),
        groups=0,
        kernel=config.whole("mamba_d_conv", 4, high=64),
    )
    draft = Draft(name, "jamba", config, d)
    draft.metadata |= s.metadata | {"attention.head_count_kv": [d.kv if is_full else 0 for is_full in full]}
    del draft.metadata["ssm.group_count"]
    draft.add_ends()
    for layer in range(d.layers):
        draft.add_block(layer, (("attn_norm.weight", (d.embd,)), ("ffn_norm.weight", (d.embd,))))
        draft.add_block(layer, attention(d, frozenset()) if full[layer] else mamba1(d, s, norms=True))
        mixed = d.experts > 1 and (layer - first) % every == 0
        draft.add_block(layer, experts(replace(d, expert_ff=d.ff), _GATED) if mixed else feed_forward(d, _GATED))
    return draft.done()


def lfm2(config: ConfigReader, name: str, architecture: str) -> Blueprint:
    """Attention and short convolutions; `architecture` lfm2, or lfm2moe for the one with experts."""
    d = read_dims(config)
    lead = config.whole("num_dense_layers", 2, low=0, high=d.layers) if architecture == "lfm2moe" else d.layers
    d = replace(d, ff=d.ff if architecture == "lfm2moe" else _lfm2_length(config), dense_lead=lead)
    types = config.words("layer_types", d.layers)
    full = [kind == "full_attention" for kind in types] if types else _at_indices(config, "full_attn_idxs", d.layers)
    kernel = config.whole("conv_L_cache", 3, low=2, high=64)
    draft = Draft(name, architecture, config, d)
    draft.metadata |= {
        "attention.head_count_kv": [d.kv if is_full else 0 for is_full in full],
        "shortconv.l_cache": kernel,
    }
    if d.experts:
        draft.metadata |= {"leading_dense_block_count": lead, "expert_gating_func": _SIGMOID}
    draft.add_ends(norm="token_embd_norm")
    for layer in range(d.layers):
        draft.add_block(layer, (("attn_norm.weight", (d.embd,)), ("ffn_norm.weight", (d.embd,))))
        draft.add_block(layer, attention(d, frozenset({"qk_norm"})) if full[layer] else _short_convolution(d, kernel))
        mixed = experts(d, frozenset({"gate", "score_bias"}))
        draft.add_block(layer, feed_forward(d, _GATED) if layer < lead else mixed)
    return draft.done()


def _short_convolution(d: Dims, kernel: int) -> Iterator[Tensor]:
    yield from (("shortconv.conv.weight", (kernel, d.embd)), ("shortconv.in_proj.weight", (d.embd, 3 * d.embd)))
    yield "shortconv.out_proj.weight", (d.embd, d.embd)


def _lfm2_length(config: ConfigReader) -> int:
    length = config.whole("block_ff_dim", config.whole("intermediate_size", 12288))
    if not config.flag("block_auto_adjust_ff_dim", True):
        return length
    length = 2 * length // 3
    factor = config.number("block_ffn_dim_multiplier", 1.0)
    length = int(min(max(factor or 1.0, 0.0), 64.0) * length)
    unit = config.whole("block_multiple_of", 256)
    return unit * -(-length // unit)


def _at_indices(config: ConfigReader, key: str, count: int) -> list[bool]:
    """Which layers have attention, where the config lists their numbers."""
    numbers = config.wholes(key) or ()
    return [layer in numbers for layer in range(count)]
