"""The facts of a model from the `config.json` that Hugging Face repositories have, for models in safetensors format.

Each family names its numbers in its own way and leaves out what its class has as default: `hf_families` knows both. A
family that is not known is read by the usual names, and a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bendi.errors import ModelFileError
from bendi.formats.anatomy import LayerKind, RopeScaling, every
from bendi.formats.gguf_check import MAX_LAYERS
from bendi.formats.gguf_cursor import hostile_hint, quoted
from bendi.formats.hf_families import FAMILIES, LAYER_KINDS, OTHER_NAMES, WINDOW_IN_ALL, WINDOW_ONLY_IF_USED
from bendi.formats.json_scan import MAX_TEXT_BYTES, bounded_json
from bendi.formats.source import ByteSource
from bendi.i18n import _

Config = Mapping[str, object]
"""A `config.json`, or a part of one."""

_MAX_WIDTH = 2**24
_MAX_HEADS = 65536
_MAX_CONTEXT_TOK = 2**31 - 1
_MAX_FACTOR = 1_000_000
_MAX_WORD = 200


@dataclass(frozen=True)
class ConfigFacts:
    """What a `config.json` says. Numbers are 0, and `context_length` None, where it does not say.

    `family`: `model_type` of the language part; `known`: whether its rules are known here. `key_length`,
    `value_length`: numbers per head, uncompressed; `window_head_length`: in layers with a window, 0 for the same.
    `context_length`: tokens, with `rope_scaling` applied. `tied_embeddings`: None where neither the file nor the
    family says. `quantization`: the stored method (`"fp8"`, `"mxfp4"`, `"gptq"`), empty for none; `bits`: of a
    weight, 0 where not said.
    """

    family: str
    known: bool
    name: str
    layers: tuple[LayerKind, ...]
    embedding_length: int
    head_count: int
    head_count_kv: int | tuple[int, ...]
    key_length: int
    value_length: int
    window_head_length: int
    context_length: int | None
    rope_scaling: RopeScaling | None
    vocab_size: int
    window_tok: int | None
    latent_length: int
    expert_count: int
    expert_used_count: int
    experts_shared: int
    prediction_layers: int
    shared_kv_layers: int
    tied_embeddings: bool | None
    quantization: str
    bits: int


def parse_json(source: ByteSource, name: str) -> dict[str, object]:
    """The object in a JSON file of a repository. `name` is what messages call it.

    Read as its authors' programs read it: of names that stand there twice the last one counts, Infinity is accepted.
    Raises ModelFileError when it is too large, damaged, or something else.
    """
    if source.size_bytes > MAX_TEXT_BYTES:
        raise ModelFileError(
            _("{name} has {size} bytes; {limit} are allowed.").format(
                name=name, size=source.size_bytes, limit=MAX_TEXT_BYTES
            ),
            hint=hostile_hint(),
        )
    try:
        value = bounded_json(source.read_at(0, source.size_bytes))
    except ValueError as error:
        raise ModelFileError(
            _("{name} is not JSON, or has too many values.").format(name=name), hint=hostile_hint()
        ) from error
    if not isinstance(value, dict):
        raise ModelFileError(_("{name} is not a JSON object.").format(name=name), hint=hostile_hint())
    return value


def read_config(config: Config) -> ConfigFacts:
    """The facts in a `config.json` that has been read as JSON.

    Raises ModelFileError when it is not that of a language model, or has numbers that cannot be.
    """
    text = _language_part(config)
    family = (word(text.get("model_type")) or word(config.get("model_type"))).removesuffix("_text")
    facts = _Reader(text, FAMILIES.get(family, {}))
    count = facts.number("num_hidden_layers", MAX_LAYERS)
    heads = facts.number("num_attention_heads", _MAX_HEADS)
    width = facts.number("hidden_size", _MAX_WIDTH)
    if not count or not width:
        raise ModelFileError(
            _("config.json does not say how many layers a language model has and how wide they are; its type is {name}"
              ".").format(name=quoted(family)),
            hint=_("It may belong to a model for images or sound, or to an adapter."),
        )  # fmt: skip
    rank, rope_length = facts.number("kv_lora_rank", _MAX_WIDTH), facts.number("qk_rope_head_dim", _MAX_WIDTH)
    window_length = facts.number("head_dim", _MAX_WIDTH) or (width // heads if heads else 0)
    head_length = facts.number("global_head_dim", _MAX_WIDTH) or window_length
    scaling = _rope_scaling(facts)
    context_length = _context_length(facts, family, scaling)
    window_tok, layers = _layers(facts, family, count, context_length)
    quantization, bits = _quantization(config, text)
    return ConfigFacts(
        family=family,
        known=family in FAMILIES,
        name=word(config.get("_name_or_path")),
        layers=layers,
        embedding_length=width,
        head_count=heads,
        head_count_kv=_kv_heads(facts, heads, layers),
        key_length=facts.number("qk_nope_head_dim", _MAX_WIDTH) + rope_length if rank else head_length,
        value_length=(facts.number("v_head_dim", _MAX_WIDTH) if rank else 0) or head_length,
        window_head_length=window_length if window_length != head_length and "window" in layers else 0,
        context_length=context_length,
        rope_scaling=scaling,
        vocab_size=facts.number("vocab_size", _MAX_WIDTH),
        window_tok=window_tok,
        latent_length=rank + rope_length if rank else 0,
        expert_count=facts.number("num_experts", _MAX_HEADS),
        expert_used_count=facts.number("num_experts_per_tok", _MAX_HEADS),
        experts_shared=facts.number("num_shared_experts", _MAX_HEADS)
        or int(facts.number("shared_expert_intermediate_size", _MAX_WIDTH) > 0),
        prediction_layers=facts.number("num_nextn_predict_layers", MAX_LAYERS),
        shared_kv_layers=min(facts.number("num_kv_shared_layers", MAX_LAYERS), count),
        tied_embeddings=_tied(config, text, family),
        quantization=quantization,
        bits=bits,
    )


def word(value: object) -> str:
    """A short text from a file that is safe to print; empty for anything else."""
    return value if isinstance(value, str) and len(value) <= _MAX_WORD and value.isprintable() else ""


class _Reader:
    """Values of a config under any of their names, in their range; of the family's class where it has none."""

    def __init__(self, stated: Config, defaults: Config) -> None:
        self._stated, self._defaults = stated, defaults

    def get(self, name: str) -> object:
        names = (name, *OTHER_NAMES.get(name, ()))
        for key in names:
            if self._stated.get(key) is not None:
                return self._stated[key]
        # null means none, where the class has a default.
        if any(key in self._stated for key in names):
            return None
        return next((self._defaults[key] for key in names if key in self._defaults), None)

    def number(self, name: str, highest: int) -> int:
        """The whole number under `name`; 0 where there is none. Of a list (one for each layer), the largest.

        Raises ModelFileError when it is out of range.
        """
        value = self.get(name)
        numbers: list[object] = value if isinstance(value, list) else [0 if value is None else value]
        largest = 0
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= highest:
                raise ModelFileError(
                    _("config.json says that {key} is {value}; 0 to {highest} is possible.").format(
                        key=name, value=_shown(number), highest=highest
                    ),
                    hint=hostile_hint(),
                )
            largest = max(largest, number)
        return largest


def _shown(value: object) -> str:
    """`value` for a message. Lists and objects of a file may nest deeper than Python can print."""
    return quoted(type(value).__name__ if isinstance(value, list | dict) else str(value))


def _language_part(config: Config) -> Config:
    """The part about the language model; models that also see or hear keep it under a name of its own."""
    for outer in (config, config.get("thinker_config")):
        for key in ("text_config", "llm_config", "language_config"):
            part = outer.get(key) if isinstance(outer, Mapping) else None
            if isinstance(part, dict):
                return part
    return config


def _kv_heads(facts: _Reader, heads: int, layers: tuple[LayerKind, ...]) -> int | tuple[int, ...]:
    usual = facts.number("num_key_value_heads", _MAX_HEADS) or heads
    wide = facts.number("num_global_key_value_heads", _MAX_HEADS)
    if not wide or facts.get("attention_k_eq_v") is False or "window" not in layers:
        return usual
    return tuple(usual if kind == "window" else wide for kind in layers)


def _layers(
    facts: _Reader, family: str, count: int, context_length: int | None
) -> tuple[int | None, tuple[LayerKind, ...]]:
    """(tokens of the window, kind of each layer)."""
    window = facts.number("sliding_window", _MAX_CONTEXT_TOK) or facts.number("attention_chunk_size", _MAX_CONTEXT_TOK)
    kinds = _kinds(facts, family, count, window)
    if context_length is not None and window >= context_length:
        # A window that never cuts anything off is none.
        kinds = tuple("attention" if kind == "window" else kind for kind in kinds)
    return (window or None) if "window" in kinds else None, kinds


def _kinds(facts: _Reader, family: str, count: int, window: int) -> tuple[LayerKind, ...]:
    full = every(1, count, "attention", "none")
    types = facts.get("layer_types")
    if isinstance(types, list):
        if len(types) < count or not all(isinstance(word, str) for word in types):
            raise ModelFileError(
                _("config.json lists the kinds of {listed} layers, but the model has {count}.").format(
                    listed=len(types), count=count
                ),
                hint=hostile_hint(),
            )
        return tuple(LAYER_KINDS.get(word, "recurrent") for word in types[:count])
    interval = facts.number("full_attention_interval", MAX_LAYERS)
    if interval:
        return every(interval, count, "attention", "recurrent")
    if not window:
        return full
    if family in WINDOW_ONLY_IF_USED:
        first = facts.number("max_window_layers", MAX_LAYERS)
        if facts.get("use_sliding_window") is not True or first >= count:
            return full
        return full[:first] + every(1, count - first, "window", "none")
    period = facts.number("sliding_window_pattern", MAX_LAYERS)
    if period:
        return every(period, count, "attention", "window")
    return every(1, count, "window", "none") if family in WINDOW_IN_ALL else full


def _rope_scaling(facts: _Reader) -> RopeScaling | None:
    stated = facts.get("rope_scaling") or facts.get("rope_parameters")
    if isinstance(stated, dict) and isinstance(stated.get("full_attention"), dict):
        stated = stated["full_attention"]
    if not isinstance(stated, dict):
        return None
    kind = word(stated.get("rope_type")) or word(stated.get("type"))
    if kind in ("", "default", "mrope"):
        return None
    factor = stated.get("factor")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= _MAX_FACTOR:
        factor = None
    original = stated.get("original_max_position_embeddings") or facts.get("original_max_position_embeddings")
    if isinstance(original, bool) or not isinstance(original, int) or not 0 < original <= _MAX_CONTEXT_TOK:
        original = None
    return RopeScaling(kind, None if factor is None else float(factor), original)


def _context_length(facts: _Reader, family: str, scaling: RopeScaling | None) -> int | None:
    """`max_position_embeddings` in some families already counts the scaling, in others not.

    The rules are those that engines follow (vLLM, `config/model.py`): YaRN stretches the original length; linear and
    dynamic scaling stretch the stated one, except in Gemma 3; all others are stated with it.
    """
    stated = facts.number("max_position_embeddings", _MAX_CONTEXT_TOK)
    if scaling is None or scaling.factor is None or not stated:
        return stated or None
    if scaling.kind == "yarn":
        stretched = round((scaling.original_context_tok or stated) * scaling.factor)
    elif scaling.kind in ("linear", "dynamic") and family != "gemma3":
        stretched = round(stated * scaling.factor)
    else:
        stretched = stated
    return min(max(stated, stretched), _MAX_CONTEXT_TOK)


def _quantization(config: Config, text: Config) -> tuple[str, int]:
    """(method, bits of a weight) in which the weights are stored."""
    stated = config.get("quantization_config") or text.get("quantization_config") or config.get("quantization")
    if not isinstance(stated, dict):
        return "", 0
    bits = stated.get("bits")
    method = word(stated.get("quant_method")) or ("mlx" if "group_size" in stated else "")
    if method == "bitsandbytes":
        bits = 4 if stated.get("load_in_4bit") is True else 8
    if method == "compressed-tensors":
        bits = _packed_bits(stated)
    return method, bits if isinstance(bits, int) and not isinstance(bits, bool) and 1 <= bits <= 32 else 0


def _packed_bits(stated: Config) -> object:
    groups = stated.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict):
            return weights.get("num_bits")
    return 0


def _tied(config: Config, text: Config, family: str) -> bool | None:
    for values in (text, config, FAMILIES.get(family, {})):
        stated = values.get("tie_word_embeddings")
        if isinstance(stated, bool):
            return stated
    return False if family in FAMILIES else None
