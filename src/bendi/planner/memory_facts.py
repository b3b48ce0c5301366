"""The facts of a model's header that decide how much memory a context takes."""

from __future__ import annotations

from dataclasses import dataclass

from bendi.formats import Anatomy, GgufFile, LayerKind, ModelInfo, anatomy, model_info


@dataclass(frozen=True)
class CacheLayer:
    """What one layer keeps of the past: numbers in the keys and in the values of one token; 0: none."""

    key_numbers: int
    value_numbers: int
    window: bool = False


@dataclass(frozen=True)
class StateLayer:
    """What one layer with a recurrent state works with. `convolved`, `inner`: numbers for each token that go through
    its convolution and its recurrence. `projected`: numbers that its input is turned into, 0 where not one tensor makes
    them. `kept`: numbers of state for one conversation."""

    convolved: int
    inner: int
    projected: int
    kept: int


@dataclass(frozen=True)
class MemoryFacts:
    """What `memory_needed` reads of a model.

    `cache_layers`: layers with a KV cache of their own. `window_tok`: what "window" layers of them see.
    `state_numbers`: F32 numbers of recurrent state for one conversation, over all layers. `known_cache`: the rules of
    this architecture's cache are modelled; otherwise the numbers are generous guesses. `feed_forward_length`: of layers
    without experts, 0 where all have some. `attention_length`: numbers for each token in the queries of a layer; with a
    compressed cache, in all that attention has at its peak. `state_layer`: None without. `layer_input_length`: numbers
    for each token that go into the layers beside the hidden state, over all layers.
    """

    architecture: str
    cache_layers: tuple[CacheLayer, ...]
    window_tok: int
    state_numbers: int
    known_cache: bool
    weights_bytes: int
    embedding_length: int
    feed_forward_length: int
    head_count: int
    attention_length: int
    expert_feed_forward_length: int
    expert_count: int
    expert_used_count: int
    vocab_size: int
    context_length: int
    state_layer: StateLayer | None = None
    layer_input_length: int = 0

    @property
    def compressed(self) -> bool:
        """Whether keys and values are kept compressed, as one."""
        return any(layer.key_numbers and not layer.value_numbers for layer in self.cache_layers)


_NO_CACHE = frozenset(
    {
        *("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert"),
        *("eurobert", "gemma-embedding", "t5encoder"),
    }
)
_CACHE_UNKNOWN = frozenset(
    {
        *("deepseek32", "deepseek4", "glm-dsa", "glm5-next", "minimax-m3", "hy-v4", "qwen4exp", "dots3note", "dflash"),
        *("minimax-01", "kimi-linear", "kimi-k3", "bailingmoe3", "plamo2", "t5", "eagle3"),
        *("rwkv6", "rwkv7", "rwkv6qwen2", "arwkv7"),
    }
)
"""Architectures with caches of their own kind (indexers, several attention caches, an encoder), or whose state is not
modelled here."""


def memory_facts(gguf: GgufFile, *more: GgufFile) -> MemoryFacts:
    """The facts of the model that `gguf` is, or whose first part it is; `more`: its other parts, in order."""
    return _facts(gguf, model_info(gguf, *more), anatomy(gguf, *more))


def _facts(gguf: GgufFile, info: ModelInfo, parts: Anatomy) -> MemoryFacts:
    architecture = gguf.architecture
    kv_heads = _each(info.head_count_kv, len(parts.layers))
    heads = max(_each(info.head_count, max(len(parts.layers), 1)))
    return MemoryFacts(
        architecture=architecture,
        cache_layers=() if architecture in _NO_CACHE else _cache_layers(info, parts, kv_heads),
        window_tok=parts.window_tok or 0,
        state_numbers=_state_numbers(gguf) * parts.count("recurrent", "both"),
        known_cache=architecture not in _CACHE_UNKNOWN,
        weights_bytes=info.tensor_bytes,
        embedding_length=info.embedding_length,
        feed_forward_length=_largest(gguf, "feed_forward_length") if parts.expert_layers < len(parts.layers) else 0,
        head_count=heads,
        attention_length=heads * _attention_length(gguf, info, parts),
        expert_feed_forward_length=_largest(gguf, "expert_feed_forward_length")
        or _largest(gguf, "feed_forward_length"),
        expert_count=info.expert_count,
        expert_used_count=info.expert_used_count,
        vocab_size=info.vocab_size,
        context_length=info.context_length or 0,
        state_layer=_state_layer(gguf) if parts.count("recurrent", "both") else None,
        layer_input_length=_number(gguf, "embedding_length_per_layer_input") * len(parts.layers),
    )


def _attention_length(gguf: GgufFile, info: ModelInfo, parts: Anatomy) -> int:
    """Numbers of one head; compressed: the query in both forms, and its result before it is a value again."""
    if not parts.latent_length:
        return info.key_length
    return 2 * parts.latent_length + _number(gguf, "attention.key_length_mla")


def _state_layer(gguf: GgufFile) -> StateLayer | None:
    inner = _number(gguf, "ssm.inner_size")
    if not inner:
        return None
    mixed = 2 * _number(gguf, "ssm.group_count") * _number(gguf, "ssm.state_size")
    projects = any(tensor.name.endswith(".ssm_in.weight") for tensor in gguf.tensors)
    projected = 2 * inner + mixed + _number(gguf, "ssm.time_step_rank") if projects else 0
    return StateLayer(inner + mixed, inner, projected, _state_numbers(gguf))


def _cache_layers(info: ModelInfo, parts: Anatomy, kv_heads: tuple[int, ...]) -> tuple[CacheLayer, ...]:
    kept: list[CacheLayer] = []
    with_cache: tuple[LayerKind, ...] = ("attention", "window", "both")
    for kind, heads in zip(parts.layers[: len(parts.layers) - parts.shared_kv_layers], kv_heads, strict=False):
        if kind not in with_cache:
            continue
        if parts.latent_length:
            kept.append(CacheLayer(parts.latent_length, 0, kind == "window"))
            continue
        key_length, value_length = info.key_length, info.value_length
        if kind == "window":
            key_length = parts.window_key_length or key_length
            value_length = parts.window_value_length or value_length
        kept.append(CacheLayer(heads * key_length, heads * value_length, kind == "window"))
    return tuple(kept)


def _state_numbers(gguf: GgufFile) -> int:
    """Numbers of state in one recurrent layer: convolution and state. Source: llama.cpp `llama-hparams.cpp`."""
    shortconv = _number(gguf, "shortconv.l_cache")
    if shortconv:
        return _number(gguf, "embedding_length") * (shortconv - 1)
    inner, state = _number(gguf, "ssm.inner_size"), _number(gguf, "ssm.state_size")
    convolution = max(_number(gguf, "ssm.conv_kernel") - 1, 0)
    return convolution * (inner + 2 * _number(gguf, "ssm.group_count") * state) + state * inner


def _number(gguf: GgufFile, key: str) -> int:
    return max(gguf.integer(f"{gguf.architecture}.{key}") or 0, 0)


def _largest(gguf: GgufFile, key: str) -> int:
    array = gguf.array(f"{gguf.architecture}.{key}")
    if array is not None and array.values:
        return max((int(value) for value in array.values if not isinstance(value, str)), default=0)
    return _number(gguf, key)


def _each(value: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,) * count
