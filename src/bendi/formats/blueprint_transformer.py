"""Blueprints of models that have attention in every layer, dense or with experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bendi.formats.blueprint import Blueprint, Value


@dataclass(frozen=True)
class Shape:
    """The numbers of a transformer. `experts`: how many, how many are used, and their feed-forward length."""

    layers: int
    embd: int
    ff: int
    heads: int
    kv: int
    head: int
    vocab: int
    context: int
    experts: tuple[int, int, int] = (0, 0, 0)
    shared_ff: int = 0
    dense_lead: int = 0
    parts: str = "norm ffn_norm gate"
    tied: bool = False
    more: dict[str, Value] = field(default_factory=dict)


def transformer(name: str, architecture: str, shape: Shape) -> Blueprint:
    """A model with attention in every layer. `parts` of `shape` says which optional tensors a layer has."""
    s, parts = shape, shape.parts.split()
    metadata: dict[str, Value] = {
        "block_count": s.layers,
        "context_length": s.context,
        "embedding_length": s.embd,
        "feed_forward_length": s.ff,
        "attention.head_count": s.heads,
        "attention.head_count_kv": s.kv,
        "attention.key_length": s.head,
        "attention.value_length": s.head,
        "rope.dimension_count": s.head,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.layer_norm_epsilon": 1e-5,
    }
    if s.experts[0]:
        metadata |= {
            "expert_count": s.experts[0],
            "expert_used_count": s.experts[1],
            "expert_feed_forward_length": s.experts[2],
        }
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (s.embd, s.vocab), "output_norm.weight": (s.embd,)}
    if "biases" in parts:
        tensors["output_norm.bias"] = (s.embd,)
    if not s.tied:
        tensors["output.weight"] = (s.embd, s.vocab)
    for layer in range(s.layers):
        for tensor, dims in (*_attention(s, parts), *_feed_forward(s, parts, layer)):
            tensors[f"blk.{layer}.{tensor}"] = dims
    f32 = frozenset({"ffn_gate_inp"})
    return Blueprint(name, architecture, metadata | s.more, tensors, s.vocab, f32)


def _attention(s: Shape, parts: list[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    q, kv = s.heads * s.head, s.kv * s.head
    if "norm" in parts:
        yield "attn_norm.weight", (s.embd,)
    if "biases" in parts:
        yield "attn_norm.bias", (s.embd,)
    if "fused_qkv" in parts:
        yield "attn_qkv.weight", (s.embd, q + 2 * kv)
    else:
        yield "attn_q.weight", (s.embd, q)
        yield "attn_k.weight", (s.embd, kv)
        yield "attn_v.weight", (s.embd, kv)
    if "qkv_bias" in parts:
        yield from (("attn_q.bias", (q,)), ("attn_k.bias", (kv,)), ("attn_v.bias", (kv,)))
    yield "attn_output.weight", (q, s.embd)
    if "out_bias" in parts:
        yield "attn_output.bias", (s.embd,)
    if "sinks" in parts:
        yield "attn_sinks.weight", (s.heads,)
    if "qk_norm" in parts:
        yield from (("attn_q_norm.weight", (s.head,)), ("attn_k_norm.weight", (s.head,)))
    if "qk_norm_wide" in parts:
        yield from (("attn_q_norm.weight", (q,)), ("attn_k_norm.weight", (kv,)))
    if "post_norms" in parts:
        yield from (("post_attention_norm.weight", (s.embd,)), ("post_ffw_norm.weight", (s.embd,)))
    if "post_attention_norm" in parts:
        yield "post_attention_norm.weight", (s.embd,)


def _feed_forward(s: Shape, parts: list[str], layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    if "ffn_norm" in parts:
        yield "ffn_norm.weight", (s.embd,)
        if "biases" in parts:
            yield "ffn_norm.bias", (s.embd,)
    count, _used, length = s.experts
    if not count or layer < s.dense_lead:
        if "gate" in parts:
            yield "ffn_gate.weight", (s.embd, s.ff)
        yield "ffn_up.weight", (s.embd, s.ff * 2 if "fused_up" in parts else s.ff)
        yield "ffn_down.weight", (s.ff, s.embd)
        if "ffn_bias" in parts:
            yield from (("ffn_up.bias", (s.ff,)), ("ffn_down.bias", (s.embd,)))
        return
    yield "ffn_gate_inp.weight", (s.embd, count)
    yield from (("ffn_gate_exps.weight", (s.embd, length, count)), ("ffn_up_exps.weight", (s.embd, length, count)))
    yield "ffn_down_exps.weight", (length, s.embd, count)
    if "expert_bias" in parts:
        yield "ffn_gate_inp.bias", (count,)
        yield from (("ffn_gate_exps.bias", (length, count)), ("ffn_up_exps.bias", (length, count)))
        yield "ffn_down_exps.bias", (s.embd, count)
    if "score_bias" in parts:
        yield "exp_probs_b.bias", (count,)
    if s.shared_ff:
        yield from (("ffn_gate_shexp.weight", (s.embd, s.shared_ff)), ("ffn_up_shexp.weight", (s.embd, s.shared_ff)))
        yield "ffn_down_shexp.weight", (s.shared_ff, s.embd)
