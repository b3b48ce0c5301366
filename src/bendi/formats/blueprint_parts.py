"""The parts that layers are made of, as tensors of a GGUF file: names without the layer's, shapes innermost first.

Source of the names and shapes: the `load_arch_tensors` of each file in llama.cpp `src/models/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bendi.formats.blueprint_draft import Dims, Tensor

Parts = frozenset[str]
"""What a layer has of: norm, ffn_norm, post_norms, post_attention_norm, norm_bias, gate, fused_qkv, fused_up,
qkv_bias, out_bias, sinks, qk_norm, qk_norm_wide, qk_norm_heads, gated_q, ffn_bias, expert_bias, score_bias,
shared_gate."""


def attention(d: Dims, parts: Parts) -> Iterator[Tensor]:
    """Full attention, or one with a window: they have the same tensors."""
    q, kv = d.q_width, d.kv_width
    if "norm" in parts:
        yield "attn_norm.weight", (d.embd,)
    if "norm_bias" in parts:
        yield "attn_norm.bias", (d.embd,)
    if "fused_qkv" in parts:
        yield "attn_qkv.weight", (d.embd, q + 2 * kv)
        if "qkv_bias" in parts:
            yield "attn_qkv.bias", (q + 2 * kv,)
    else:
        yield "attn_q.weight", (d.embd, 2 * q if "gated_q" in parts else q)
        yield from (("attn_k.weight", (d.embd, kv)), ("attn_v.weight", (d.embd, kv)))
        if "qkv_bias" in parts:
            yield from (("attn_q.bias", (q,)), ("attn_k.bias", (kv,)), ("attn_v.bias", (kv,)))
    yield "attn_output.weight", (q, d.embd)
    if "out_bias" in parts:
        yield "attn_output.bias", (d.embd,)
    if "sinks" in parts:
        yield "attn_sinks.weight", (d.heads,)
    yield from _query_norms(d, parts)
    if parts & {"post_norms", "post_attention_norm"}:
        yield "post_attention_norm.weight", (d.embd,)
    if "post_norms" in parts:
        yield "post_ffw_norm.weight", (d.embd,)


def _query_norms(d: Dims, parts: Parts) -> Iterator[Tensor]:
    if "qk_norm" in parts:
        yield from (("attn_q_norm.weight", (d.head,)), ("attn_k_norm.weight", (d.head,)))
    if "qk_norm_wide" in parts:
        yield from (("attn_q_norm.weight", (d.q_width,)), ("attn_k_norm.weight", (d.kv_width,)))
    if "qk_norm_heads" in parts:
        yield from (("attn_q_norm.weight", (d.head, d.heads)), ("attn_k_norm.weight", (d.head, d.kv)))


def feed_forward(d: Dims, parts: Parts, length: int | None = None) -> Iterator[Tensor]:
    """Without experts. `length`: its feed-forward length, where it is not the model's."""
    ff = d.ff if length is None else length
    if "gate" in parts:
        yield "ffn_gate.weight", (d.embd, ff)
    yield "ffn_up.weight", (d.embd, 2 * ff if "fused_up" in parts else ff)
    yield "ffn_down.weight", (ff, d.embd)
    if "ffn_bias" in parts:
        yield from (("ffn_up.bias", (ff,)), ("ffn_down.bias", (d.embd,)))
        if "gate" in parts:
            yield "ffn_gate.bias", (ff,)


def feed_forward_norm(d: Dims, parts: Parts) -> Iterator[Tensor]:
    if "ffn_norm" in parts:
        yield "ffn_norm.weight", (d.embd,)
        if "norm_bias" in parts:
            yield "ffn_norm.bias", (d.embd,)


def experts(d: Dims, parts: Parts, width: int | None = None) -> Iterator[Tensor]:
    """Experts to choose from, and what every token uses beside them. `width`: of their input, where not the model's."""
    embd, ff, count = width or d.embd, d.expert_ff, d.experts
    yield "ffn_gate_inp.weight", (d.embd, count)
    if "gate" in parts:
        yield "ffn_gate_exps.weight", (embd, ff, count)
    yield from (("ffn_up_exps.weight", (embd, ff, count)), ("ffn_down_exps.weight", (ff, embd, count)))
    if "expert_bias" in parts:
        yield "ffn_gate_inp.bias", (count,)
        yield from (("ffn_gate_exps.bias", (ff, count)), ("ffn_up_exps.bias", (ff, count)))
        yield "ffn_down_exps.bias", (d.embd, count)
    if "score_bias" in parts:
        yield "exp_probs_b.bias", (count,)
    if d.shared_ff:
        if "gate" in parts:
            yield "ffn_gate_shexp.weight", (d.embd, d.shared_ff)
        yield from (("ffn_up_shexp.weight", (d.embd, d.shared_ff)), ("ffn_down_shexp.weight", (d.shared_ff, d.embd)))
        if "shared_gate" in parts:
            yield "ffn_gate_inp_shexp.weight", (d.embd,)


def prediction(d: Dims, *, own_ends: bool) -> Iterator[Tensor]:
    """What a layer that guesses tokens ahead has beside its own parts. `own_ends`: embedding and head of its own."""
    yield from (("nextn.eh_proj.weight", (2 * d.embd, d.embd)), ("nextn.enorm.weight", (d.embd,)))
    yield from (("nextn.hnorm.weight", (d.embd,)), ("nextn.shared_head_norm.weight", (d.embd,)))
    if own_ends:
        yield from (
            ("nextn.embed_tokens.weight", (d.embd, d.vocab)),
            ("nextn.shared_head_head.weight", (d.embd, d.vocab)),
        )


@dataclass(frozen=True)
class State:
    """The numbers of a layer with a recurrent state. `inner`: its width; `state`: numbers that each of them keeps;
    `heads`: also the rank of the time step; `kernel`: of the convolution."""

    inner: int
    state: int
    heads: int
    groups: int
    kernel: int

    @property
    def metadata(self) -> dict[str, int]:
        return {
            "ssm.conv_kernel": self.kernel,
            "ssm.inner_size": self.inner,
            "ssm.state_size": self.state,
            "ssm.time_step_rank": self.heads,
            "ssm.group_count": self.groups,
        }


def mamba2(d: Dims, s: State, *, norm: bool = True, bias: bool = True) -> Iterator[Tensor]:
    """`norm`, `bias`: whether there is a norm before the output, and a bias in the convolution."""
    convolved = s.inner + 2 * s.groups * s.state
    yield "ssm_in.weight", (d.embd, s.inner + convolved + s.heads)
    yield "ssm_conv1d.weight", (s.kernel, convolved)
    if bias:
        yield "ssm_conv1d.bias", (convolved,)
    yield from (("ssm_dt.bias", (s.heads,)), ("ssm_a", (1, s.heads)), ("ssm_d", (1, s.heads)))
    if norm:
        yield "ssm_norm.weight", (s.inner // s.groups, s.groups)
    yield "ssm_out.weight", (s.inner, d.embd)


def mamba1(d: Dims, s: State, *, norms: bool = False) -> Iterator[Tensor]:
    """`norms`: whether time step, B and C have one each."""
    yield "ssm_in.weight", (d.embd, 2 * s.inner)
    yield from (("ssm_conv1d.weight", (s.kernel, s.inner)), ("ssm_conv1d.bias", (s.inner,)))
    yield "ssm_x.weight", (s.inner, s.heads + 2 * s.state)
    yield from (("ssm_dt.weight", (s.heads, s.inner)), ("ssm_dt.bias", (s.inner,)))
    if norms:
        yield from (("ssm_dt_norm.weight", (s.heads,)), ("ssm_b_norm.weight", (s.state,)))
        yield "ssm_c_norm.weight", (s.state,)
    yield from (("ssm_a", (s.state, s.inner)), ("ssm_d", (s.inner,)), ("ssm_out.weight", (s.inner, d.embd)))


def delta_net(d: Dims, s: State, *, one_gate: bool) -> Iterator[Tensor]:
    """Gated linear attention. `one_gate`: the two gates of a head are one tensor."""
    convolved = s.inner + 2 * s.groups * s.state
    yield from (("attn_qkv.weight", (d.embd, convolved)), ("attn_gate.weight", (d.embd, s.inner)))
    yield from (("ssm_conv1d.weight", (s.kernel, convolved)), ("ssm_dt.bias", (s.heads,)), ("ssm_a", (s.heads,)))
    if one_gate:
        yield "ssm_ba.weight", (d.embd, 2 * s.heads)
    else:
        yield from (("ssm_alpha.weight", (d.embd, s.heads)), ("ssm_beta.weight", (d.embd, s.heads)))
    yield from (("ssm_norm.weight", (s.state,)), ("ssm_out.weight", (s.inner, d.embd)))
