"""What the layers of a model are made of: full attention, sliding windows, recurrent states, experts.

`ModelInfo` has the numbers that every model has; here is what only some have and what decides how much memory a
context takes. Sources of the rules: llama.cpp `src/llama-hparams.cpp` and the `load_arch_hparams` of each file in
`src/models/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from bendi.formats.gguf_types import GgufFile, TensorInfo
from bendi.formats.tensor_names import is_expert_stack, layer_and_part

LayerKind = Literal["attention", "window", "recurrent", "both", "none"]
"""`"attention"`: sees the whole context. `"window"`: only the last `window_tok` tokens. `"recurrent"`: keeps a state
of fixed size instead (Mamba, RWKV, linear attention, short convolution). `"both"`: attention and a state. `"none"`:
neither, only a feed-forward part."""


@dataclass(frozen=True)
class RopeScaling:
    """How positions were stretched beyond what the first training saw. `original_context_tok`: that first length."""

    kind: str
    factor: float | None
    original_context_tok: int | None


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model.

    `layers`: the kind of each layer, without those of `prediction_layers` (which guess tokens ahead; MTP, NextN).
    `window_tok`: what "window" layers see; None where there is none, or nobody says how long it is.
    `shared_kv_layers`: how many of the last layers have no KV cache of their own.
    `window_key_length`, `window_value_length`: numbers per head in "window" layers, where they differ from the others;
    else 0.
    `latent_length`: numbers cached for a token in a layer with MLA, in place of keys and values; 0 without MLA.
    `experts_shared`: experts that every token uses. `expert_layers`: layers that have experts to choose from.
    `active_parameters`: weights that one token of text uses: all but the experts not chosen and prediction layers.
    `tied_embeddings`: the output head is the embedding; None when that cannot be seen.
    """

    layers: tuple[LayerKind, ...] = ()
    window_tok: int | None = None
    shared_kv_layers: int = 0
    latent_length: int = 0
    window_key_length: int = 0
    window_value_length: int = 0
    experts_shared: int = 0
    expert_layers: int = 0
    prediction_layers: int = 0
    active_parameters: int = 0
    tied_embeddings: bool | None = None
    rope_scaling: RopeScaling | None = None

    def count(self, *kinds: LayerKind) -> int:
        """How many layers are of one of these kinds."""
        return sum(kind in kinds for kind in self.layers)


_WINDOW_PERIODS: Mapping[str, int] = {
    "afmoe": 4,
    "cohere2": 4,
    "cohere2moe": -4,
    "exaone-moe": 4,
    "exaone4": 4,
    "gemma-embedding": 6,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "laguna": -4,
    "llama4": 4,
    "mellum": 4,
    "modern-bert": -3,
    "muse-glimmer": 4,
    "olmo2": 4,
    "plamo3": 8,
    "smallthinker": -4,
}
"""Of so many layers, the last one sees the whole context; negative: the first one. For files that do not say it."""
_WINDOW_DEFAULTS = {"gemma2": 4096, "llama4": 8192}
"""Windows that an architecture has where its file states none."""
_WINDOWS_UNUSED = ("phi3",)
"""Architectures whose stated window engines ignore."""
_WINDOW_IN_ALL = ("deepseek4", "lfm2")
_ALWAYS_RECURRENT = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")
_ATTENTION_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
"""Every so many layers, the last one has attention and the others are recurrent."""


def anatomy(gguf: GgufFile, *more: GgufFile) -> Anatomy:
    """The parts of the model that `gguf` is, or whose first part it is; `more`: its other parts, in order."""
    prediction_layers = _number(gguf, "nextn_predict_layers")
    count = max(_number(gguf, "block_count") - prediction_layers, 0)
    tensors = [tensor for part in (gguf, *more) for tensor in part.tensors]
    names = {tensor.name for tensor in tensors}
    layers = _layers(gguf, count)
    windows = "window" in layers
    expert_layers = {layer for layer, part in map(layer_and_part, names) if layer >= 0 and is_expert_stack(part)}
    return Anatomy(
        layers=layers,
        window_tok=_window_tok(gguf) if windows else None,
        shared_kv_layers=_shared_kv_layers(gguf, count),
        latent_length=_latent_length(gguf),
        window_key_length=_number(gguf, "attention.key_length_swa") if windows else 0,
        window_value_length=_number(gguf, "attention.value_length_swa") if windows else 0,
        experts_shared=_number(gguf, "expert_shared_count"),
        expert_layers=sum(layer < count for layer in expert_layers),
        prediction_layers=prediction_layers,
        active_parameters=_active_parameters(gguf, tensors, count),
        tied_embeddings="output.weight" not in names if "token_embd.weight" in names else None,
        rope_scaling=_rope_scaling(gguf),
    )


def every(period: int, count: int, kind: LayerKind, other: LayerKind) -> tuple[LayerKind, ...]:
    """`count` layers of which the last of every `period` is of `kind` (negative: the first), and the rest `other`."""
    place = 0 if period < 0 else period - 1
    return tuple(kind if layer % abs(period) == place else other for layer in range(count))


def _layers(gguf: GgufFile, count: int) -> tuple[LayerKind, ...]:
    attention = _attention(gguf, count)
    windows = _windows(gguf, count)
    recurrent = _recurrent(gguf, count, attention)
    kinds: list[LayerKind] = []
    for layer in range(count):
        if recurrent[layer]:
            kinds.append("both" if gguf.architecture == "falcon-h1" else "recurrent")
        elif not attention[layer]:
            kinds.append("none")
        else:
            kinds.append("window" if windows[layer] else "attention")
    return tuple(kinds)


def _attention(gguf: GgufFile, count: int) -> list[bool]:
    """Which layers have heads for keys and values."""
    architecture = gguf.architecture
    has = [True] * count
    for key in (f"{architecture}.attention.head_count", f"{architecture}.attention.head_count_kv"):
        numbers = gguf.array(key)
        if numbers is not None and numbers.values is not None:
            for layer, heads in enumerate(numbers.values[:count]):
                has[layer] = has[layer] and bool(heads)
        elif gguf.integer(key) == 0:
            has = [False] * count
    return has


def _recurrent(gguf: GgufFile, count: int, attention: list[bool]) -> list[bool]:
    architecture = gguf.architecture
    if architecture in _ALWAYS_RECURRENT or architecture == "falcon-h1":
        return [True] * count
    stated = gguf.array(f"{architecture}.attention.recurrent_layers")
    if stated is not None and stated.values is not None and len(stated.values) >= count:
        return [bool(value) for value in stated.values[:count]]
    if architecture in _ATTENTION_INTERVALS:
        interval = _number(gguf, "full_attention_interval") or _ATTENTION_INTERVALS[architecture]
        return [(layer + 1) % interval != 0 for layer in range(count)]
    prefixes = tuple(f"{architecture}.{part}." for part in ("ssm", "wkv", "kda", "shortconv"))
    if not any(key.startswith(prefixes) for key in gguf.metadata):
        return [False] * count
    # Nemotron-H has layers with neither: they have a feed-forward length, which its recurrent layers have not.
    forward = gguf.array(f"{architecture}.feed_forward_length") if architecture.startswith("nemotron_h") else None
    lengths = forward.values if forward is not None and forward.values is not None else ()
    return [not attention[layer] and not (layer < len(lengths) and lengths[layer]) for layer in range(count)]


def _windows(gguf: GgufFile, count: int) -> list[bool]:
    """Which layers see a window only, as far as the file or the architecture says."""
    architecture = gguf.architecture
    if not _window_tok(gguf) or architecture in _WINDOWS_UNUSED:
        return [False] * count
    if architecture in _WINDOW_IN_ALL:
        return [True] * count
    key = f"{architecture}.attention.sliding_window_pattern"
    stated = gguf.array(key)
    if stated is not None and stated.values is not None and len(stated.values) >= count:
        return [bool(value) for value in stated.values[:count]]
    default = _WINDOW_PERIODS.get(architecture, 0)
    period = gguf.integer(key)
    if period is None:
        period = default
    elif period == 0:
        return [True] * count
    elif default < 0:
        period = -period
    return [kind == "window" for kind in every(period, count, "attention", "window")] if period else [False] * count


def _window_tok(gguf: GgufFile) -> int:
    key = "attention.sliding_window"
    if f"{gguf.architecture}.{key}" in gguf.metadata:
        return _number(gguf, key)
    return _WINDOW_DEFAULTS.get(gguf.architecture, 0)


def _shared_kv_layers(gguf: GgufFile, count: int) -> int:
    if gguf.architecture == "gemma3n":
        return max(count - 20, 0)  # llama.cpp src/models/gemma3n.cpp, n_layer_kv_from_start
    return min(_number(gguf, "attention.shared_kv_layers"), count)


def _latent_length(gguf: GgufFile) -> int:
    """Only files that say how long an uncompressed key is can be run compressed (`key_length_mla`)."""
    if not _number(gguf, "attention.key_length_mla"):
        return 0
    return _number(gguf, "attention.kv_lora_rank") + _number(gguf, "rope.dimension_count")


def _number(gguf: GgufFile, key: str) -> int:
    """The number under `key` of the architecture; 0 where there is none, or it is none that counts something."""
    return max(gguf.integer(f"{gguf.architecture}.{key}") or 0, 0)


def _active_parameters(gguf: GgufFile, tensors: Iterable[TensorInfo], count: int) -> int:
    experts = _number(gguf, "expert_count")
    used = gguf.array(f"{gguf.architecture}.expert_used_count")
    used_in = used.values if used is not None and used.values is not None else ()
    used_everywhere = _number(gguf, "expert_used_count")
    active = 0
    for tensor in tensors:
        layer, part = layer_and_part(tensor.name)
        if count and layer >= count:
            continue
        if experts and layer >= 0 and is_expert_stack(part):
            chosen = used_in[layer] if layer < len(used_in) else used_everywhere
            active += tensor.elements * int(chosen) // experts
        else:
            active += tensor.elements
    return active


def _rope_scaling(gguf: GgufFile) -> RopeScaling | None:
    prefix = f"{gguf.architecture}.rope.scaling."
    kind = gguf.text(f"{prefix}type")
    if kind not in ("linear", "yarn", "longrope"):
        return None
    factor = gguf.metadata.get(f"{prefix}factor")
    return RopeScaling(
        kind,
        float(factor) if isinstance(factor, int | float) else None,
        _number(gguf, "rope.scaling.original_context_length") or None,
    )
