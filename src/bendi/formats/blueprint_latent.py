"""Models whose keys and values are kept compressed (multi-head latent attention): DeepSeek V2, V3 and their likes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bendi.formats.blueprint import Blueprint
from bendi.formats.blueprint_draft import Dims, Draft, Tensor, read_dims
from bendi.formats.blueprint_parts import experts, feed_forward, prediction
from bendi.formats.blueprint_reader import ConfigReader
from bendi.formats.gguf_check import MAX_LAYERS

_DENSE = frozenset({"gate"})
_SCORED = frozenset({"gate", "score_bias"})


@dataclass(frozen=True)
class _Latent:
    """`query`: rank of the queries, 0 for whole ones. `plain`, `rotated`: numbers of a key without and with a position.
    `value`: numbers of a value. `rank`: what keys and values are compressed to."""

    query: int
    rank: int
    plain: int
    rotated: int
    value: int


def latent(config: ConfigReader, name: str, *, scored: bool, predicts: bool) -> Blueprint:
    """`scored`: experts are chosen with a bias. `predicts`: layers that guess ahead are kept."""
    d = read_dims(config)
    predict = config.whole("num_nextn_predict_layers", 0, low=0, high=MAX_LAYERS - d.layers) if predicts else 0
    d = replace(d, kv=1, predict=predict, dense_lead=d.dense_lead if d.experts else d.layers)
    c = _Latent(
        query=config.whole("q_lora_rank", 0, low=0),
        rank=config.whole("kv_lora_rank", 512),
        plain=config.whole("qk_nope_head_dim", 128),
        rotated=config.whole("qk_rope_head_dim", 64),
        value=config.whole("v_head_dim", 128),
    )
    draft = Draft(name, "deepseek2", config, d)
    draft.metadata |= {
        "attention.key_length": c.rank + c.rotated,
        "attention.value_length": c.rank,
        "attention.key_length_mla": c.plain + c.rotated,
        "attention.value_length_mla": c.value,
        "attention.kv_lora_rank": c.rank,
        "rope.dimension_count": c.rotated,
        "expert_shared_count": config.whole("num_shared_experts", 0, low=0, high=1024),
        "expert_feed_forward_length": d.expert_ff or d.ff,
        "leading_dense_block_count": d.dense_lead,
    }
    if c.query:
        draft.metadata["attention.q_lora_rank"] = c.query
    stretch = draft.rope.number("mscale_all_dim")
    if stretch is not None:
        draft.metadata["rope.scaling.yarn_log_multiplier"] = 0.1 * stretch
    draft.add_ends()
    for layer in range(d.layers + d.predict):
        draft.add_block(layer, _layer(d, c))
        with_experts = d.experts > 0 and layer >= d.dense_lead
        draft.add_block(layer, experts(d, _SCORED if scored else _DENSE) if with_experts else feed_forward(d, _DENSE))
        if layer >= d.layers:
            draft.add_block(layer, prediction(d, own_ends=True))
    return draft.done()


def _layer(d: Dims, c: _Latent) -> Iterator[Tensor]:
    yield from (("attn_norm.weight", (d.embd,)), ("ffn_norm.weight", (d.embd,)), ("attn_kv_a_norm.weight", (c.rank,)))
    key = c.plain + c.rotated
    if c.query:
        yield from (("attn_q_a_norm.weight", (c.query,)), ("attn_q_a.weight", (d.embd, c.query)))
        yield "attn_q_b.weight", (c.query, d.heads * key)
    else:
        yield "attn_q.weight", (d.embd, d.heads * key)
    yield "attn_kv_a_mqa.weight", (d.embd, c.rank + c.rotated)
    yield from (("attn_k_b.weight", (c.plain, c.rank, d.heads)), ("attn_v_b.weight", (c.rank, c.value, d.heads)))
    yield "attn_output.weight", (d.heads * c.value, d.embd)
