"""Blueprints of models with a compressed cache (MLA) or recurrent states."""

from __future__ import annotations

from dataclasses import dataclass

from bendi.formats.blueprint import Blueprint, Value

_EPSILON: dict[str, Value] = {"attention.layer_norm_rms_epsilon": 1e-6}


@dataclass(frozen=True)
class Latent:
    """A DeepSeek model; keys and values compressed to 512 + 64 numbers. `query`: rank of the queries, 0: whole."""

    layers: int
    embd: int
    ff: int
    heads: int
    query: int
    vocab: int
    experts: tuple[int, int, int, int]
    dense_lead: int


def deepseek(name: str, s: Latent) -> Blueprint:
    count, used, length, shared = s.experts
    metadata: dict[str, Value] = _EPSILON | {
        "block_count": s.layers,
        "context_length": 163840,
        "embedding_length": s.embd,
        "feed_forward_length": s.ff,
        "attention.head_count": s.heads,
        "attention.head_count_kv": 1,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
        "attention.kv_lora_rank": 512,
        "rope.dimension_count": 64,
        "expert_count": count,
        "expert_used_count": used,
        "expert_feed_forward_length": length,
        "expert_shared_count": shared,
        "leading_dense_block_count": s.dense_lead,
    }
    tensors: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (s.embd, s.vocab),
        "output_norm.weight": (s.embd,),
        "output.weight": (s.embd, s.vocab),
    }
    for layer in range(s.layers):
        parts: dict[str, tuple[int, ...]] = {"attn_norm": (s.embd,), "ffn_norm": (s.embd,), "attn_kv_a_norm": (512,)}
        if s.query:
            metadata["attention.q_lora_rank"] = s.query
            parts |= {"attn_q_a_norm": (s.query,), "attn_q_a": (s.embd, s.query)}
            parts |= {"attn_q_b": (s.query, s.heads * 192)}
        else:
            parts |= {"attn_q": (s.embd, s.heads * 192)}
        parts |= {"attn_kv_a_mqa": (s.embd, 576), "attn_k_b": (128, 512, s.heads), "attn_v_b": (512, 128, s.heads)}
        parts |= {"attn_output": (s.heads * 128, s.embd)}
        if layer < s.dense_lead:
            parts |= {"ffn_gate": (s.embd, s.ff), "ffn_up": (s.embd, s.ff), "ffn_down": (s.ff, s.embd)}
        else:
            wide = length * shared
            parts |= {"ffn_gate_inp": (s.embd, count), "ffn_gate_exps": (s.embd, length, count)}
            parts |= {"ffn_up_exps": (s.embd, length, count), "ffn_down_exps": (length, s.embd, count)}
            parts |= {"ffn_gate_shexp": (s.embd, wide), "ffn_up_shexp": (s.embd, wide)}
            parts |= {"ffn_down_shexp": (wide, s.embd)}
        tensors |= {f"blk.{layer}.{part}.weight": dims for part, dims in parts.items()}
    return Blueprint(name, "deepseek2", metadata, tensors, s.vocab, frozenset({"ffn_gate_inp"}))


def mamba2(name: str, layers: int, embd: int) -> Blueprint:
    inner, heads = 2 * embd, 2 * embd // 64
    metadata: dict[str, Value] = _EPSILON | {
        "block_count": layers,
        "context_length": 131072,
        "embedding_length": embd,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": 128,
        "ssm.time_step_rank": heads,
        "ssm.group_count": 1,
    }
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (embd, 50288), "output_norm.weight": (embd,)}
    for layer in range(layers):
        parts: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (embd,),
            "ssm_in.weight": (embd, 2 * inner + 256 + heads),
            "ssm_conv1d.weight": (4, inner + 256),
            "ssm_conv1d.bias": (inner + 256,),
            "ssm_dt.bias": (heads,),
            "ssm_a": (1, heads),
            "ssm_d": (1, heads),
            "ssm_norm.weight": (inner, 1),
            "ssm_out.weight": (inner, embd),
        }
        tensors |= {f"blk.{layer}.{part}": dims for part, dims in parts.items()}
    return Blueprint(name, "mamba2", metadata, tensors, 50288, frozenset({"ssm_conv1d", "ssm_a", "ssm_d"}))


def lfm2(name: str, embd: int, ff: int, heads: int) -> Blueprint:
    with_attention = (2, 5, 8, 10, 12, 14)
    metadata: dict[str, Value] = _EPSILON | {
        "block_count": 16,
        "context_length": 128000,
        "embedding_length": embd,
        "feed_forward_length": ff,
        "attention.head_count": heads,
        "attention.head_count_kv": [8 if layer in with_attention else 0 for layer in range(16)],
        "shortconv.l_cache": 3,
    }
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (embd, 65536), "token_embd_norm.weight": (embd,)}
    head = embd // heads
    for layer in range(16):
        parts: dict[str, tuple[int, ...]] = {
            "attn_norm": (embd,),
            "ffn_norm": (embd,),
            "ffn_gate": (embd, ff),
            "ffn_up": (embd, ff),
        }
        parts |= {"ffn_down": (ff, embd)}
        if layer in with_attention:
            parts |= {"attn_q_norm": (head,), "attn_k_norm": (head,), "attn_q": (embd, embd)}
            parts |= {"attn_k": (embd, 8 * head), "attn_v": (embd, 8 * head), "attn_output": (embd, embd)}
        else:
            parts |= {"shortconv.conv": (3, embd), "shortconv.in_proj": (embd, 3 * embd)}
            parts |= {"shortconv.out_proj": (embd, embd)}
        tensors |= {f"blk.{layer}.{part}.weight": dims for part, dims in parts.items()}
    return Blueprint(name, "lfm2", metadata, tensors, 65536, frozenset({"conv"}))
