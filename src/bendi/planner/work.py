"""What a model must do for one token: which weights it reads, how much it multiplies, what it keeps of the past."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from bendi.formats import TENSOR_TYPES_BY_NAME, Anatomy, GgufFile, TensorInfo, anatomy, model_info
from bendi.planner.memory_facts import memory_facts

_LAYER = re.compile(r"blk\.(\d{1,5})\.(.*)")
_EXPERTS = re.compile(r"ffn_(?:\w+_(?:ch)?exps\b|(?:gate|up|down)\.\d+\.)")
_NEVER_READ_WHOLE = ("token_embd.weight", "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight")


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

    architecture: str
    weights: tuple[Weights, ...]
    attention: tuple[AttentionWork, ...]
    layers: int
    embedding_length: int
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


def model_work(*parts: GgufFile, types: Sequence[str] | None = None) -> ModelWork:
    """The work of the model whose header `parts` are, all of them, in order.

    `types`: type names of all tensors, where the model is to be quantized otherwise than the header says.
    """
    info, built = model_info(*parts), anatomy(*parts)
    tensors = [tensor for part in parts for tensor in part.tensors]
    names = types if types is not None else [tensor.type.name for tensor in tensors]
    share = info.expert_used_count / info.expert_count if info.expert_count else 1.0
    total_bytes = sum(
        TENSOR_TYPES_BY_NAME[name].size_bytes(prod(tensor.shape)) for tensor, name in zip(tensors, names, strict=True)
    )
    return ModelWork(
        architecture=parts[0].architecture,
        weights=_grouped(tensors, names, built, share),
        attention=_attention(parts[0], built),
        layers=len(built.layers),
        embedding_length=info.embedding_length,
        vocab_size=info.vocab_size,
        state_numbers=memory_facts(*parts).state_numbers,
        recurrent_layers=built.count("recurrent", "both"),
        expert_share=share,
        total_bytes=total_bytes,
    )


def _grouped(tensors: Sequence[TensorInfo], types: Sequence[str], built: Anatomy, share: float) -> tuple[Weights, ...]:
    counts: Counter[tuple[str, bool, bool]] = Counter()
    last = len(built.layers) - 1
    for tensor, type_name in zip(tensors, types, strict=True):
        if len(tensor.shape) < 2 or (tensor.name in _NEVER_READ_WHOLE and not built.tied_embeddings):
            continue
        if tensor.name in _NEVER_READ_WHOLE[1:]:
            continue
        found = _LAYER.match(tensor.name)
        layer, part = (int(found[1]), found[2]) if found else (-1, tensor.name)
        if layer > last:
            continue  # layers that guess tokens ahead are not loaded
        experts = layer >= 0 and _EXPERTS.match(part) is not None
        once = layer < 0 or (layer == last and part.startswith("ffn_"))
        counts[type_name, experts, once] += tensor.elements
    return tuple(
        Weights(type_name, total * share if experts else total, total, experts, once)
        for (type_name, experts, once), total in counts.items()
    )


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


def _attention(gguf: GgufFile, built: Anatomy) -> tuple[AttentionWork, ...]:
    groups = Counter(part for part in attention_by_layer(gguf, built) if part is not None)
    return tuple(replace(part, layers=layers) for part, layers in groups.items())


def _each(value: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * count
