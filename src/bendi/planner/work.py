"""What a model must do for one token: which weights it reads, how much it multiplies, what it keeps of the past."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bendi.formats import TENSOR_TYPES_BY_NAME, Anatomy, GgufFile, model_info


@dataclass(frozen=True)
class Weights:
    """Weights of one number type that do the same thing.

    `per_token`: how many of them one token uses; `total`: how many there are (more, where experts are chosen).
    `experts`: they lie in stacks from which a router chooses. `once`: while a prompt is processed, they are used for
    its last token only (the output head, and the feed-forward part of the last layer).
    """

    type_name: str
    per_token: float
    total: int
    experts: bool = False
    once: bool = False

    @property
    def bytes_per_token(self) -> float:
        return self.per_token * TENSOR_TYPES_BY_NAME[self.type_name].bits_per_weight / 8

    @property
    def total_bytes(self) -> float:
        return self.total * TENSOR_TYPES_BY_NAME[self.type_name].bits_per_weight / 8


@dataclass(frozen=True)
class AttentionWork:
    """`layers` equal layers with attention. `window_tok`: how far back they see, 0: to the beginning.

    `query_numbers`: heads times (key length + value length); `cache_numbers`: numbers kept of one token, keys and
    values together.
    """

    layers: int
    heads: int
    query_numbers: int
    cache_numbers: int
    window_tok: int = 0


@dataclass(frozen=True)
class ModelWork:
    """The work of one model in one quantization. `state_numbers`: of all recurrent layers together, for one
    conversation. `expert_share`: share of the experts that one token uses; 1 without experts."""

    weights: tuple[Weights, ...]
    attention: tuple[AttentionWork, ...]
    layers: int
    vocab_size: int
    state_numbers: int
    recurrent_layers: int
    expert_share: float
    total_bytes: int

    @property
    def bytes_per_token(self) -> float:
        """Bytes of weights that token generation reads for one token."""
        return sum(group.bytes_per_token for group in self.weights)

    @property
    def expert_bytes(self) -> float:
        """Bytes of all experts, chosen or not."""
        return sum(group.total_bytes for group in self.weights if group.experts)


def attention_by_layer(gguf: GgufFile, built: Anatomy) -> list[AttentionWork | None]:
    """The attention of each layer, None for layers without. `gguf`: the model, or its first part."""
    info = model_info(gguf)
    heads, kv_heads = _each(info.head_count, len(built.layers)), _each(info.head_count_kv, len(built.layers))
    found: list[AttentionWork | None] = []
    for kind, queries, kept in zip(built.layers, heads, kv_heads, strict=False):
        if kind not in ("attention", "window", "both"):
            found.append(None)
            continue
        key, value = info.key_length, info.value_length
        window = built.window_tok or 0 if kind == "window" else 0
        if kind == "window":
            key, value = built.window_key_length or key, built.window_value_length or value
        if built.latent_length:
            rope = gguf.integer(f"{gguf.architecture}.rope.dimension_count") or 0
            numbers, cached = queries * (2 * built.latent_length - rope), built.latent_length
        else:
            numbers, cached = queries * (key + value), kept * (key + value)
        found.append(AttentionWork(1, queries, numbers, cached, window))
    return found


def grouped_attention(by_layer: Iterable[AttentionWork | None]) -> tuple[AttentionWork, ...]:
    """The same with equal layers counted together."""
    groups = Counter(part for part in by_layer if part is not None)
    return tuple(replace(part, layers=layers) for part, layers in groups.items())


def _each(value: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * count
