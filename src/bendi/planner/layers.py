"""The weights of a model layer by layer: what each layer takes, and what a token uses of it.

Placing layers on devices needs sums over ranges of layers. Tensors are sorted into layers once; only their types change
from one quantization to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bendi.formats import TENSOR_TYPES_BY_NAME, Anatomy, GgufFile, TensorInfo, aligned, anatomy, model_info
from bendi.formats.tensor_names import is_expert_stack, layer_and_part
from bendi.planner.memory_facts import CacheLayer, MemoryFacts, memory_facts
from bendi.planner.work import AttentionWork, ModelWork, Weights, attention_by_layer, grouped_attention

_EMBEDDING = "token_embd.weight"
_TABLES = frozenset({_EMBEDDING, "per_layer_token_embd.weight", "position_embd.weight", "token_types.weight"})


@dataclass(frozen=True, slots=True)
class LayerWork:
    """One layer. `weights`: what a token uses of it; `size_bytes`: of all its tensors, small ones included;
    `expert_bytes`: of those, the stacks of experts. `attention`, `cache`: None for layers without; a layer that uses
    another one's cache has attention only. `recurrent`: it keeps a state."""

    weights: tuple[Weights, ...]
    size_bytes: int
    expert_bytes: int
    attention: AttentionWork | None = None
    cache: CacheLayer | None = None
    recurrent: bool = False


@dataclass(frozen=True)
class LayeredWeights:
    """All weights of a model. `head`: the output head and what follows the last layer; `tied_head`: it is the embedding
    and takes memory once more on a GPU. `kept_bytes`: what stays in main memory wherever the layers are: embeddings,
    and layers that guess tokens ahead, of which there are `prediction_layers`."""

    layers: tuple[LayerWork, ...]
    head: LayerWork
    tied_head: bool
    kept_bytes: int
    prediction_layers: int

    @cached_property
    def kinds(self) -> tuple[tuple[LayerWork, ...], tuple[int, ...]]:
        """The layers that differ, and for each layer which of them it is."""
        numbers: dict[LayerWork, int] = {}
        at = tuple(numbers.setdefault(layer, len(numbers)) for layer in self.layers)
        return tuple(numbers), at


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor belongs. `layer`: -1 outside of all layers, -2 where it stays in main memory."""

    layer: int
    experts: bool
    once: bool
    used: bool


@dataclass(frozen=True)
class Header:
    """What all quantizations of a model have in common. `work`: still without weights."""

    tensors: tuple[TensorInfo, ...]
    work: ModelWork
    facts: MemoryFacts
    places: tuple[_Place, ...]
    attention: tuple[AttentionWork | None, ...]
    caches: tuple[CacheLayer | None, ...]
    recurrent: tuple[bool, ...]
    tied: bool
    prediction_layers: int


def read_header(parts: Sequence[GgufFile]) -> Header:
    """Sorts the tensors of the model whose header `parts` are, all of them, in order."""
    info, built = model_info(*parts), anatomy(*parts)
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    facts = memory_facts(*parts)
    tied = bool(built.tied_embeddings)
    attention = tuple(attention_by_layer(parts[0], built))
    work = ModelWork(
        weights=(),
        attention=grouped_attention(attention),
        layers=len(built.layers),
        vocab_size=info.vocab_size,
        state_numbers=facts.state_numbers,
        recurrent_layers=built.count("recurrent", "both"),
        expert_share=info.expert_used_count / info.expert_count if info.expert_count else 1.0,
        total_bytes=0,
    )
    return Header(
        tensors=tensors,
        work=work,
        facts=facts,
        places=tuple(_place(tensor, len(built.layers), tied) for tensor in tensors),
        attention=attention,
        caches=tuple(_caches(built, facts)),
        recurrent=tuple(kind in ("recurrent", "both") for kind in built.layers),
        tied=tied,
        prediction_layers=built.prediction_layers,
    )


def model_work(*parts: GgufFile, types: Sequence[str] | None = None) -> ModelWork:
    """The work of the model whose header `parts` are, all of them, in order.

    `types`: type names of all tensors, where the model is to be quantized otherwise than the header says.
    """
    return layered(read_header(parts), types)[0]


def layered(header: Header, types: Sequence[str] | None = None) -> tuple[ModelWork, MemoryFacts, LayeredWeights]:
    """The model with its tensors stored as `types` says, one name for each; None: as they are."""
    names = types if types is not None else [tensor.type.name for tensor in header.tensors]
    count = header.work.layers
    groups: list[dict[tuple[str, bool, bool], int]] = [{} for _ in range(count + 1)]
    sizes, expert_sizes = [0] * (count + 1), [0] * (count + 1)
    kept_bytes = total_bytes = 0
    for tensor, place, name in zip(header.tensors, header.places, names, strict=True):
        kind = TENSOR_TYPES_BY_NAME[name]
        elements = tensor.elements
        size_bytes = aligned(kind.size_bytes(elements))
        total_bytes += size_bytes
        at = place.layer
        if at == -2:
            kept_bytes += size_bytes
            if not place.used:
                continue
            at = -1  # a tied head: the embedding stays in main memory and is used as the head too
        at = count if at == -1 else at
        sizes[at] += size_bytes
        if place.experts:
            expert_sizes[at] += size_bytes
        if place.used:
            key = (name, place.experts, place.once)
            groups[at][key] = groups[at].get(key, 0) + elements
    share = header.work.expert_share
    layers = [
        LayerWork(_weights(group, share), size, expert_size)
        for group, size, expert_size in zip(groups, sizes, expert_sizes, strict=True)
    ]
    complete = tuple(
        replace(layer, attention=attention, cache=cache, recurrent=recurrent)
        for layer, attention, cache, recurrent in zip(
            layers, header.attention, header.caches, header.recurrent, strict=False
        )
    )
    work = replace(header.work, weights=_all_weights(groups, share), total_bytes=total_bytes)
    facts = replace(header.facts, weights_bytes=total_bytes)
    return work, facts, LayeredWeights(complete, layers[-1], header.tied, kept_bytes, header.prediction_layers)


def _weights(group: dict[tuple[str, bool, bool], int], share: float) -> tuple[Weights, ...]:
    return tuple(
        Weights(name, total * share if experts else total, total, experts, once)
        for (name, experts, once), total in group.items()
    )


def _all_weights(groups: Sequence[dict[tuple[str, bool, bool], int]], share: float) -> tuple[Weights, ...]:
    together: dict[tuple[str, bool, bool], int] = {}
    for group in groups:
        for key, total in group.items():
            together[key] = together.get(key, 0) + total
    return _weights(together, share)


def _place(tensor: TensorInfo, count: int, tied: bool) -> _Place:
    """Where `tensor` belongs in a model of `count` layers. Vectors are too small to count as used."""
    matrix = len(tensor.shape) >= 2
    if tensor.name in _TABLES:
        return _Place(-2, False, True, matrix and tied and tensor.name == _EMBEDDING)
    layer, part = layer_and_part(tensor.name)
    if layer < 0:
        return _Place(-1, False, True, matrix)
    if layer >= count:
        return _Place(-2, False, False, False)  # layers that guess tokens ahead are not loaded
    once = layer == count - 1 and part.startswith("ffn_")
    return _Place(layer, matrix and is_expert_stack(part), once, matrix)


def _caches(built: Anatomy, facts: MemoryFacts) -> Iterator[CacheLayer | None]:
    """`facts.cache_layers` has only layers with a cache of their own, in order."""
    kept = iter(facts.cache_layers)
    own = len(built.layers) - built.shared_kv_layers
    for at, kind in enumerate(built.layers):
        yield next(kept, None) if at < own and kind in ("attention", "window", "both") else None
