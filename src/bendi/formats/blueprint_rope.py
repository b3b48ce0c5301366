"""How positions are encoded, from a `config.json`: the keys of a GGUF header about it, and the tensors it needs."""

from __future__ import annotations

from dataclasses import dataclass

from bendi.formats.blueprint import Value
from bendi.formats.blueprint_reader import Config, ConfigReader, as_number

_MAX_CONTEXT_TOK = 2**31 - 1
_YARN_KEYS = {
    "extrapolation_factor": "yarn_ext_factor",
    "attention_factor": "yarn_attn_factor",
    "attn_factor": "yarn_attn_factor",
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}


@dataclass(frozen=True)
class Rope:
    """`kind`: `"llama3"`, `"yarn"`, `"linear"`, `"longrope"` and others, empty for none. `stated`: all that the config
    says about it. `base`, `window_base`: theta, of layers with a window. `partial`: the rotated part of a head, None
    where not said."""

    kind: str
    stated: Config
    base: float | None
    window_base: float | None
    partial: float | None
    original_context_tok: int | None

    def number(self, name: str, default: float | None = None) -> float | None:
        return as_number(name, self.stated.get(name), default)

    def metadata(self) -> dict[str, Value]:
        """The keys that every model has for it."""
        keys: dict[str, Value] = {}
        factor = self.number("factor")
        if self.kind in ("linear", "yarn") and factor is not None:
            keys |= {"rope.scaling.type": self.kind, "rope.scaling.factor": factor}
        if self.kind == "yarn" and factor is not None:
            if self.original_context_tok:
                keys["rope.scaling.original_context_length"] = self.original_context_tok
            for name, key in _YARN_KEYS.items():
                number = self.number(name)
                if number is not None:
                    keys[f"rope.scaling.{key}"] = number
        if self.long:
            keys["rope.scaling.type"] = "longrope"
        if self.base is not None:
            keys["rope.freq_base"] = self.base
        if self.window_base is not None:
            keys["rope.freq_base_swa"] = self.window_base
        sections = self.stated.get("mrope_section")
        if isinstance(sections, list) and all(isinstance(part, int) and 0 <= part < 65536 for part in sections[:4]):
            keys["rope.dimension_sections"] = [int(part) for part in [*sections, 0, 0, 0, 0][:4]]
        return keys

    @property
    def long(self) -> bool:
        """Whether there are factors for long and for short contexts, in tensors of their own."""
        return self.kind in ("longrope", "su")


def read_rope(config: ConfigReader) -> Rope:
    outer = config.part("rope_parameters") or config.part("rope_scaling")
    full, window = outer.get("full_attention"), outer.get("sliding_attention")
    stated: Config = full if isinstance(full, dict) else outer
    kind = stated.get("rope_type", stated.get("type"))
    window_base = window.get("rope_theta") if isinstance(window, dict) else config.get("rope_local_base_freq")
    original = stated.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    usable = isinstance(original, int) and not isinstance(original, bool) and 0 < original <= _MAX_CONTEXT_TOK
    base = stated.get("rope_theta")
    partial = stated.get("partial_rotary_factor")
    return Rope(
        kind=kind if isinstance(kind, str) else "",
        stated=stated,
        base=as_number("rope_theta", base) if base is not None else config.number("rope_theta"),
        window_base=as_number("rope_local_base_freq", window_base),
        partial=as_number("partial_rotary_factor", partial)
        if partial is not None
        else config.number("partial_rotary_factor"),
        original_context_tok=original if usable and isinstance(original, int) else None,
    )


def rotated(config: ConfigReader, head: int, default: float = 1.0) -> int:
    """How many numbers of a head of `head` numbers are rotated."""
    partial = read_rope(config).partial
    factor = default if partial is None else partial
    return min(max(int(head * factor), 0), head)
