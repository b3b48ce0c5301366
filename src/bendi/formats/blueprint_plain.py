"""Models whose layers all have attention of one shape, with or without experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bendi.formats.blueprint import Blueprint, Value
from bendi.formats.blueprint_draft import Dims, Draft, Tensor, read_dims
from bendi.formats.blueprint_parts import (
    Parts,
    attention,
    experts,
    feed_forward,
    feed_forward_norm,
    prediction,
)
from bendi.formats.blueprint_reader import Config, ConfigReader

NORMS = "norm ffn_norm gate"
_NO_DEFAULTS: Config = {}


@dataclass(frozen=True)
class Plain:
    """How a family is made. `parts`: what each layer has (`parts.Parts`). `asked`: key of the config to the parts that
    are there when it is true. `numbers`: what is read differently from usual. `more`: further keys of the header.
    `rotates`: the part of a head that is rotated, where the config does not say. `expert_step`: every so many layers
    has experts. `extra`: tensors outside the layers."""

    architecture: str
    parts: str = NORMS
    defaults: Config = field(default_factory=lambda: _NO_DEFAULTS)
    asked: Mapping[str, str] = field(default_factory=lambda: {"attention_bias": "qkv_bias"})
    numbers: Callable[[ConfigReader, Dims], Dims] = lambda _config, dims: dims
    more: Callable[[ConfigReader, Dims], dict[str, Value]] = lambda _config, _dims: {}
    rotates: float = 1.0
    expert_step: str = ""
    extra: Callable[[Dims], Iterator[Tensor]] = lambda _dims: iter(())


def plain(config: ConfigReader, name: str, family: Plain) -> Blueprint:
    """The blueprint of a model of `family`. Raises ModelFileError."""
    d = family.numbers(config, read_dims(config))
    draft = Draft(name, family.architecture, config, d)
    parts = _parts(config, family)
    partial = draft.rope.partial
    rotates = min(max(int(d.head * (family.rotates if partial is None else partial)), 0), d.head)
    draft.metadata |= {"rope.dimension_count": rotates} | family.more(config, d)
    draft.add_ends()
    if "norm_bias" in parts:
        draft.add(("output_norm.bias", (d.embd,)))
    draft.add_rope_factors(rotates)
    draft.add(*family.extra(d))
    step = config.whole(family.expert_step, 1, low=1, high=d.layers) if family.expert_step else 1
    for layer in range(d.layers + d.predict):
        draft.add_block(layer, _layer(d, parts, d.experts > 0 and layer >= d.dense_lead and (layer + 1) % step == 0))
        if layer >= d.layers:
            draft.add_block(layer, prediction(d, own_ends=True))
    return draft.done()


def _parts(config: ConfigReader, family: Plain) -> Parts:
    parts = set(family.parts.split())
    for key, wanted in family.asked.items():
        if config.flag(key):
            parts |= set(wanted.split())
    return frozenset(parts)


def _layer(d: Dims, parts: Parts, with_experts: bool) -> Iterator[Tensor]:
    yield from attention(d, parts)
    yield from feed_forward_norm(d, parts)
    yield from experts(d, parts) if with_experts else feed_forward(d, parts)
