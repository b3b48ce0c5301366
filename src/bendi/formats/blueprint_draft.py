"""A blueprint in the making: the numbers that most models have, and the header as it grows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

from bendi.errors import ModelFileError
from bendi.formats.blueprint import Blueprint, Value
from bendi.formats.blueprint_reader import MAX_VOCAB, ConfigReader
from bendi.formats.blueprint_rope import Rope, read_rope
from bendi.formats.gguf_check import MAX_EXPERTS, MAX_LAYERS
from bendi.formats.gguf_cursor import hostile_hint
from bendi.i18n import _

Tensor = tuple[str, tuple[int, ...]]
"""(name, shape), innermost number first."""
_MAX_ELEMENTS = 2**50
_MAX_CONTEXT_TOK = 2**31 - 1
_MAX_HEADS = 65536
_GATING = {"softmax": 1, "sigmoid": 2}


@dataclass(frozen=True)
class Dims:
    """The numbers of a model. `head`: numbers in a head, uncompressed. `expert_ff`, `shared_ff`: feed-forward length of
    an expert, and of what every token uses beside them. `dense_lead`: layers without experts at the start.
    `predict`: layers behind the last that guess tokens ahead."""

    layers: int
    embd: int
    ff: int
    heads: int
    kv: int
    head: int
    vocab: int
    context: int
    tied: bool
    experts: int = 0
    used: int = 0
    expert_ff: int = 0
    shared_ff: int = 0
    dense_lead: int = 0
    predict: int = 0

    @property
    def q_width(self) -> int:
        return self.heads * self.head

    @property
    def kv_width(self) -> int:
        return self.kv * self.head


def read_dims(config: ConfigReader) -> Dims:
    """The numbers under their usual names. Raises ModelFileError."""
    embd, heads = config.whole("hidden_size"), config.whole("num_attention_heads", high=_MAX_HEADS)
    experts = config.whole("num_experts", 0, low=0, high=MAX_EXPERTS)
    ff = config.whole("intermediate_size", 0 if experts else None, low=0)
    layers = config.whole("num_hidden_layers", high=MAX_LAYERS)
    shared = config.whole("num_shared_experts", 0, low=0, high=MAX_EXPERTS)
    expert_ff = config.whole("moe_intermediate_size", ff or None) if experts else 0
    return Dims(
        layers=layers,
        embd=embd,
        ff=ff,
        heads=heads,
        kv=config.whole("num_key_value_heads", heads, high=_MAX_HEADS),
        head=config.whole("head_dim", max(embd // heads, 1), high=_MAX_HEADS),
        vocab=config.whole("vocab_size", high=MAX_VOCAB),
        context=config.whole("max_position_embeddings", high=_MAX_CONTEXT_TOK),
        tied=config.flag("tie_word_embeddings"),
        experts=experts,
        used=config.whole("num_experts_per_tok", high=experts) if experts else 0,
        expert_ff=expert_ff,
        shared_ff=config.whole("shared_expert_intermediate_size", expert_ff * shared, low=0) if experts else 0,
        dense_lead=config.whole("first_k_dense_replace", 0, low=0, high=layers) if experts else 0,
    )


@dataclass
class Draft:
    """The header of a model in the making. `metadata`: keys without the architecture in front."""

    name: str
    architecture: str
    config: ConfigReader
    dims: Dims
    metadata: dict[str, Value] = field(default_factory=dict)
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        d, config, rope = self.dims, self.config, self.rope
        self.metadata |= {
            "block_count": d.layers + d.predict,
            "context_length": d.context,
            "embedding_length": d.embd,
            "feed_forward_length": d.ff,
            "attention.head_count": d.heads,
            "attention.head_count_kv": d.kv,
            "attention.key_length": d.head,
            "attention.value_length": d.head,
            "vocab_size": d.vocab,
        } | rope.metadata()
        for key, names in (
            ("attention.layer_norm_rms_epsilon", ("rms_norm_eps", "norm_eps")),
            ("attention.layer_norm_epsilon", ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")),
        ):
            epsilon = next((number for name in names if (number := config.number(name)) is not None), 1e-6)
            self.metadata[key] = epsilon
        if d.experts:
            self.metadata |= _expert_metadata(config, d)
        if d.predict:
            self.metadata["nextn_predict_layers"] = d.predict

    @property
    def rope(self) -> Rope:
        return read_rope(self.config)

    def add(self, *tensors: Tensor) -> None:
        for name, shape in tensors:
            self.tensors[name] = shape

    def add_block(self, layer: int, tensors: Iterable[Tensor]) -> None:
        for name, shape in tensors:
            self.tensors[f"blk.{layer}.{name}"] = shape

    def add_ends(self, norm: str = "output_norm") -> None:
        """Embedding, last norm and, where it is not the embedding again, the output head."""
        d = self.dims
        self.add(("token_embd.weight", (d.embd, d.vocab)), (f"{norm}.weight", (d.embd,)))
        if not d.tied:
            self.add(("output.weight", (d.embd, d.vocab)))

    def add_rope_factors(self, length: int) -> None:
        """What scaling of positions keeps in tensors; `length`: rotated numbers of a head."""
        if self.rope.kind == "llama3":
            self.add(("rope_freqs.weight", (length // 2,)))
        elif self.rope.long:
            self.add(("rope_factors_long.weight", (length // 2,)), ("rope_factors_short.weight", (length // 2,)))

    def done(self) -> Blueprint:
        """The blueprint. Raises ModelFileError when it is none: an empty tensor, or one beyond any machine."""
        for name, shape in self.tensors.items():
            if not 0 < prod(shape) <= _MAX_ELEMENTS:
                raise ModelFileError(
                    _("By its config.json the model has a tensor that cannot be: {name} of shape {shape}.").format(
                        name=name, shape=" x ".join(map(str, shape))
                    ),
                    hint=hostile_hint(),
                )
        return Blueprint(self.name, self.architecture, self.metadata, self.tensors, self.dims.vocab)


def _expert_metadata(config: ConfigReader, d: Dims) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "expert_count": d.experts,
        "expert_used_count": d.used,
        "expert_feed_forward_length": d.expert_ff,
    }
    groups = config.whole("n_group", 0, low=0, high=d.experts)
    if groups:
        keys |= {"expert_group_count": groups, "expert_group_used_count": config.whole("topk_group", 1, high=groups)}
    if config.text("scoring_func") in _GATING:
        keys["expert_gating_func"] = _GATING[config.text("scoring_func")]
    scale = config.number("routed_scaling_factor")
    if scale is not None:
        keys["expert_weights_scale"] = scale
    if config.get("norm_topk_prob") is not None:
        keys["expert_weights_norm"] = config.flag("norm_topk_prob")
    if d.dense_lead:
        keys["leading_dense_block_count"] = d.dense_lead
    return keys
