"""Gemma 3n and Gemma 4: windows of another head length, layers without a KV cache, an embedding for each layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist

from bendi.formats.anatomy import every
from bendi.formats.blueprint import Blueprint
from bendi.formats.blueprint_draft import Dims, Draft, Tensor, read_dims
from bendi.formats.blueprint_parts import attention, experts, feed_forward, feed_forward_norm
from bendi.formats.blueprint_reader import ConfigReader, impossible

GEMMA3N_DEFAULTS: dict[str, object] = {
    "tie_word_embeddings": True,
    "head_dim": 256,
    "vocab_size": 262400,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "sliding_window": 512,
    "num_kv_shared_layers": 15,
    "sliding_window_pattern": 5,
    "hidden_size_per_layer_input": 256,
}
GEMMA4_DEFAULTS: dict[str, object] = {
    "tie_word_embeddings": True,
    "head_dim": 256,
    "global_head_dim": 512,
    "vocab_size": 262144,
    "max_position_embeddings": 131072,
    "sliding_window": 512,
    "num_kv_shared_layers": 0,
    "sliding_window_pattern": 6,
    "final_logit_softcapping": 30.0,
}
_PARTS = frozenset(["norm", "ffn_norm", "gate", "qk_norm", "post_norms"])
_LOWEST = -1e30
_MAX_CONTEXT_TOK = 2**31 - 1


def gemma3n(config: ConfigReader, name: str) -> Blueprint:
    d = read_dims(config)
    draft = Draft(name, "gemma3n", config, d)
    copies = config.whole("altup_num_inputs", 4, low=2, high=16)
    rank, own = config.whole("laurel_rank", 64), config.whole("hidden_size_per_layer_input", 256)
    draft.metadata |= {
        "altup.active_idx": config.whole("altup_active_idx", 0, low=0, high=copies - 1),
        "altup.num_inputs": copies,
        "embedding_length_per_layer_input": own,
        "attention.shared_kv_layers": config.whole("num_kv_shared_layers", low=0, high=d.layers),
        "attention.sliding_window": config.whole("sliding_window", high=_MAX_CONTEXT_TOK),
        "attention.sliding_window_pattern": list(_windows(config, d.layers)),
        "activation_sparsity_scale": _sparsity(config, d.layers),
    }
    draft.add_ends()
    draft.add(
        ("altup_proj.weight", (d.embd, d.embd, copies - 1)),
        ("altup_unembd_proj.weight", (d.embd, d.embd, copies - 1)),
        *_embedding_of_layers(d, own),
    )
    for layer in range(d.layers):
        draft.add_block(layer, attention(d, _PARTS))
        draft.add_block(layer, feed_forward_norm(d, _PARTS))
        draft.add_block(layer, feed_forward(d, _PARTS))
        draft.add_block(layer, _layer_input(d, own))
        draft.add_block(layer, _alternating_updates(d, copies, rank))
    return draft.done()


def gemma4(config: ConfigReader, name: str) -> Blueprint:
    d = read_dims(config)
    if not config.flag("enable_moe_block", d.experts > 0):
        d = replace(d, experts=0, used=0)
    window_head, head = d.head, config.whole("global_head_dim", d.head, high=65536)
    same = config.flag("attention_k_eq_v")
    global_kv = config.whole("num_global_key_value_heads", d.kv, high=65536) if same else d.kv
    own = config.whole("hidden_size_per_layer_input", 0, low=0)
    windows = _windows(config, d.layers)
    shared = config.whole("num_kv_shared_layers", low=0, high=d.layers - 1)
    wide = config.flag("use_double_wide_mlp")
    lengths = [2 * d.ff if wide and layer >= d.layers - shared else d.ff for layer in range(d.layers)]
    draft = Draft(name, "gemma4", config, d)
    draft.metadata |= {
        "feed_forward_length": lengths if wide else d.ff,
        "attention.head_count_kv": [d.kv if window else global_kv for window in windows] if global_kv != d.kv else d.kv,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.key_length_swa": window_head,
        "attention.value_length_swa": window_head,
        "attention.shared_kv_layers": shared,
        "attention.sliding_window": config.whole("sliding_window", high=_MAX_CONTEXT_TOK),
        "attention.sliding_window_pattern": list(windows),
        "embedding_length_per_layer_input": own,
        "rope.dimension_count": head,
        "rope.dimension_count_swa": window_head,
        "final_logit_softcapping": config.number("final_logit_softcapping", 30.0) or 30.0,
    }
    draft.add_ends()
    if not all(windows):
        draft.add(("rope_freqs.weight", (head // 2,)))
    if own:
        draft.add(*_embedding_of_layers(d, own))
    shape = _Layer(own, replace(d, head=head, kv=global_kv), "attn_v.weight" if same else "")
    for layer, (window, length) in enumerate(zip(windows, lengths, strict=True)):
        draft.add_block(layer, _gemma4_layer(d, shape, window=window, length=length))
    return draft.done()


@dataclass(frozen=True)
class _Layer:
    """`full`: the numbers of layers without a window; `missing`: the tensor that they do not have."""

    own: int
    full: Dims
    missing: str


def _gemma4_layer(d: Dims, shape: _Layer, *, window: bool, length: int) -> Iterator[Tensor]:
    for tensor in attention(d if window else shape.full, _PARTS):
        if window or tensor[0] != shape.missing:
            yield tensor
    yield "layer_output_scale.weight", (1,)
    yield from feed_forward_norm(d, _PARTS)
    yield from feed_forward(d, _PARTS, length)
    if d.experts:
        for name, dims in experts(replace(d, shared_ff=0), frozenset()):
            if name == "ffn_up_exps.weight":
                yield "ffn_gate_up_exps.weight", (d.embd, 2 * d.expert_ff, d.experts)
            else:
                yield name, dims
        yield from (("ffn_gate_inp.scale", (d.embd,)), ("ffn_down_exps.scale", (d.experts,)))
        yield from (("pre_ffw_norm_2.weight", (d.embd,)), ("post_ffw_norm_1.weight", (d.embd,)))
        yield "post_ffw_norm_2.weight", (d.embd,)
    if shape.own:
        yield from _layer_input(d, shape.own)


def _embedding_of_layers(d: Dims, own: int) -> Iterator[Tensor]:
    yield "per_layer_token_embd.weight", (own * d.layers, d.vocab)
    yield from (("per_layer_model_proj.weight", (d.embd, own * d.layers)), ("per_layer_proj_norm.weight", (own,)))


def _layer_input(d: Dims, own: int) -> Iterator[Tensor]:
    yield from (("inp_gate.weight", (d.embd, own)), ("proj.weight", (own, d.embd)), ("post_norm.weight", (d.embd,)))


def _alternating_updates(d: Dims, copies: int, rank: int) -> Iterator[Tensor]:
    yield from (("altup_correct_coef.weight", (copies, copies)), ("altup_correct_scale.weight", (d.embd,)))
    yield "altup_predict_coef.weight", (copies, copies * copies)
    yield from (("altup_router.weight", (d.embd, copies)), ("altup_router_norm.weight", (d.embd,)))
    yield from (("laurel_l.weight", (d.embd, rank)), ("laurel_r.weight", (rank, d.embd)))
    yield "laurel_post_norm.weight", (d.embd,)


def _windows(config: ConfigReader, count: int) -> tuple[bool, ...]:
    types = config.words("layer_types", count)
    if types is not None:
        return tuple(kind == "sliding_attention" for kind in types)
    period = config.whole("sliding_window_pattern", 1)
    return tuple(kind == "window" for kind in every(period, count, "attention", "window"))


def _sparsity(config: ConfigReader, count: int) -> list[float]:
    """In standard deviations, as the engine wants them; the config has shares."""
    stated = config.get("activation_sparsity_pattern")
    shares = stated[:count] if isinstance(stated, list) else []
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise impossible("activation_sparsity_pattern", share, 0, 1)
    return [NormalDist().inv_cdf(float(share)) if share else _LOWEST for share in [*shares, *[0.0] * count][:count]]
