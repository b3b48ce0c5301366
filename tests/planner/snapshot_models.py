"""The twelve models of llama.cpp's quantization snapshots: which tensors they have, in which shapes.

The snapshots name only tensors whose type differs from the base type. Shapes are here, from the models' published
configurations; everything else that mixtures depend on stands in the head of each snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bendi.planner.mixture import TensorShape


@dataclass(frozen=True)
class SnapshotModel:
    architecture: str
    tensors: tuple[TensorShape, ...]


def ends(embd: int, vocab: int, *, tied: bool = False) -> Iterator[TensorShape]:
    yield TensorShape("token_embd.weight", (embd, vocab), "F16")
    yield TensorShape("output_norm.weight", (embd,))
    if not tied:
        yield TensorShape("output.weight", (embd, vocab), "F16")


def layered(layers: Iterable[int], **shapes: tuple[int, ...]) -> Iterator[TensorShape]:
    """The same tensors in each of `layers`; `attn_v_bias` is the tensor `attn_v.bias`."""
    for layer in layers:
        for name, shape in shapes.items():
            file_name = name.removesuffix("_bias") + (".bias" if name.endswith("_bias") else ".weight")
            yield TensorShape(f"blk.{layer}.{file_name}", shape, "F16" if len(shape) > 1 else "F32")


def attention(layers: Iterable[int], embd: int, *, q: int, kv: int, out: int) -> Iterator[TensorShape]:
    yield from layered(
        layers, attn_norm=(embd,), attn_q=(embd, q), attn_k=(embd, kv), attn_v=(embd, kv), attn_output=(out, embd)
    )


def feed_forward(layers: Iterable[int], embd: int, ff: int) -> Iterator[TensorShape]:
    yield from layered(layers, ffn_norm=(embd,), ffn_gate=(embd, ff), ffn_up=(embd, ff), ffn_down=(ff, embd))


def experts(layers: Iterable[int], embd: int, ff: int, count: int) -> Iterator[TensorShape]:
    yield from layered(
        layers,
        ffn_gate_inp=(embd, count),
        ffn_gate_exps=(embd, ff, count),
        ffn_up_exps=(embd, ff, count),
        ffn_down_exps=(ff, embd, count),
    )


def shared_expert(layers: Iterable[int], embd: int, ff: int) -> Iterator[TensorShape]:
    yield from layered(layers, ffn_gate_shexp=(embd, ff), ffn_up_shexp=(embd, ff), ffn_down_shexp=(ff, embd))


def linear_attention(layers: Iterable[int], embd: int, *, key: int, value: int) -> Iterator[TensorShape]:
    channels = 2 * key + value
    yield from layered(
        layers,
        attn_norm=(embd,),
        attn_qkv=(embd, channels),
        attn_gate=(embd, value),
        ssm_conv1d=(4, channels),
        ssm_dt_bias=(value // 128,),
        ssm_norm=(128,),
        ssm_out=(value, embd),
    )


def plain(architecture: str, layers: int, embd: int, *, vocab: int, ff: int, q: int, kv: int) -> SnapshotModel:
    tied = architecture == "gemma3"
    return SnapshotModel(
        architecture,
        (
            *ends(embd, vocab, tied=tied),
            *attention(range(layers), embd, q=q, kv=kv, out=q),
            *feed_forward(range(layers), embd, ff),
        ),
    )


def deepseek() -> Iterator[TensorShape]:
    layers = range(61)
    yield from ends(7168, 129280)
    yield from layered(
        layers,
        attn_q_a=(7168, 1536),
        attn_q_a_norm=(1536,),
        attn_q_b=(1536, 128 * 192),
        attn_kv_a_mqa=(7168, 512 + 64),
        attn_kv_a_norm=(512,),
        attn_k_b=(128, 512, 128),
        attn_v_b=(512, 128, 128),
        attn_output=(128 * 128, 7168),
    )
    yield from feed_forward(layers[:3], 7168, 18432)
    yield from experts(layers[3:], 7168, 2048, 256)
    yield from layered(layers[3:], exp_probs_b_bias=(256,))
    yield from shared_expert(layers[3:], 7168, 2048)


def glm() -> Iterator[TensorShape]:
    layers = range(46)
    yield from ends(4096, 151552)
    yield from attention(layers, 4096, q=96 * 128, kv=8 * 128, out=96 * 128)
    yield from layered(layers, attn_q_bias=(96 * 128,), attn_v_bias=(8 * 128,))
    yield from feed_forward(layers[:1], 4096, 10944)
    yield from experts(layers[1:], 4096, 1408, 128)
    yield from shared_expert(layers[1:], 4096, 1408)


def gpt_oss() -> Iterator[TensorShape]:
    layers = range(36)
    yield from ends(2880, 201088)
    yield from attention(layers, 2880, q=64 * 64, kv=8 * 64, out=64 * 64)
    yield from experts(layers, 2880, 2880, 128)
    yield from layered(layers, attn_sinks=(64,), ffn_down_exps_bias=(2880, 128), ffn_gate_inp_bias=(128,))


def nemotron() -> Iterator[TensorShape]:
    pattern = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
    of = {kind: [layer for layer, letter in enumerate(pattern) if letter == kind] for kind in "ME*"}
    yield from ends(2688, 131072)
    yield from attention(of["*"], 2688, q=32 * 128, kv=2 * 128, out=32 * 128)
    yield from layered(
        of["M"],
        attn_norm=(2688,),
        ssm_in=(2688, 2 * 4096 + 2 * 8 * 128 + 64),
        ssm_conv1d=(4, 4096 + 2 * 8 * 128),
        ssm_norm=(512, 8),
        ssm_out=(4096, 2688),
    )
    yield from layered(
        of["E"],
        ffn_gate_inp=(2688, 128),
        ffn_up_exps=(2688, 1856, 128),
        ffn_down_exps=(1856, 2688, 128),
        ffn_up_shexp=(2688, 3712),
        ffn_down_shexp=(3712, 2688),
    )


def qwen_hybrid(count: int, embd: int, *, heads: int, heads_kv: int, value: int) -> Iterator[TensorShape]:
    """Attention of the Qwens whose every fourth layer is full attention: queries carry a gate, heads are 256 wide."""
    layers = range(count)
    linear = [layer for layer in layers if layer % 4 != 3]
    yield from attention(layers[3::4], embd, q=2 * heads * 256, kv=heads_kv * 256, out=heads * 256)
    yield from linear_attention(linear, embd, key=16 * 128, value=value)
    if embd == 2048:
        yield from layered(linear, ssm_ba=(embd, 2 * value // 128))
    else:
        yield from layered(linear, ssm_alpha=(embd, value // 128), ssm_beta=(embd, value // 128))


def qwen_hybrid_experts(embd: int, ff: int, attention_part: Iterator[TensorShape], layers: range) -> SnapshotModel:
    return SnapshotModel(
        "qwen3next" if embd == 2048 else "qwen35moe",
        (
            *ends(embd, 151936 if embd == 2048 else 248320),
            *attention_part,
            *experts(layers, embd, ff, 512),
            *shared_expert(layers, embd, ff),
            *layered(layers, ffn_gate_inp_shexp=(embd,)),
        ),
    )


def step() -> Iterator[TensorShape]:
    layers = range(45)
    yield from ends(4096, 128896)
    yield from attention(layers[::4], 4096, q=64 * 128, kv=8 * 128, out=64 * 128)
    yield from layered(layers[::4], attn_gate=(4096, 64))
    windowed = [layer for layer in layers if layer % 4]
    yield from attention(windowed, 4096, q=96 * 128, kv=8 * 128, out=96 * 128)
    yield from layered(windowed, attn_gate=(4096, 96))
    yield from feed_forward(layers[:3], 4096, 11264)
    yield from experts(layers[3:], 4096, 1280, 288)
    yield from shared_expert(layers[3:], 4096, 1280)


MODELS = {
    "deepseek-v3.1": SnapshotModel("deepseek2", tuple(deepseek())),
    "gemma-3-4b-it": plain("gemma3", 34, 2560, vocab=262144, ff=10240, q=8 * 256, kv=4 * 256),
    "glm-4.6v": SnapshotModel("glm4moe", tuple(glm())),
    "gpt-oss-120b": SnapshotModel("gpt-oss", tuple(gpt_oss())),
    "meta-llama-3.1-70b-instruct": plain("llama", 80, 8192, vocab=128256, ff=28672, q=64 * 128, kv=8 * 128),
    "nvidia-nemotron-3-nano-30b-a3b": SnapshotModel("nemotron_h_moe", tuple(nemotron())),
    "qwen3-0.6b": plain("qwen3", 28, 1024, vocab=151936, ff=3072, q=16 * 128, kv=8 * 128),
    "qwen3-14b": plain("qwen3", 40, 5120, vocab=151936, ff=17408, q=40 * 128, kv=8 * 128),
    "qwen3-coder-next": qwen_hybrid_experts(
        2048, 512, qwen_hybrid(48, 2048, heads=16, heads_kv=2, value=32 * 128), range(48)
    ),
    "qwen3.5-397b-a17b": qwen_hybrid_experts(
        4096, 1024, qwen_hybrid(60, 4096, heads=32, heads_kv=2, value=64 * 128), range(60)
    ),
    "qwen3.6-27b": SnapshotModel(
        "qwen35",
        (
            *ends(5120, 248320),
            *qwen_hybrid(64, 5120, heads=24, heads_kv=4, value=48 * 128),
            *feed_forward(range(64), 5120, 17408),
        ),
    ),
    "step-3.5-flash": SnapshotModel("step35", tuple(step())),
}
