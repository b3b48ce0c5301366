"""How fast a device computes, as measured with the real engine, or taken from a specification.

A calibration is valid for one machine and one engine build. `engines.calibrate` measures it; `measured` keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bendi.planner.work import AttentionWork

Source = Literal["measured", "borrowed", "specification"]
NEAR_TOK = 1024
"""At least so many tokens count as near: calibration measures the rates at this depth."""


@dataclass(frozen=True)
class TypeRates:
    """How fast weights of one type are used. `generation_bytes_s`: read for one token. `prompt_weights_s`,
    `prompt_expert_weights_s`: multiplied with the tokens of a long prompt, weights times tokens per second; those of
    experts are 0 in a single run that did not measure them, and guessed where runs are put together.
    `load_bytes_s`: from the page cache until ready, repacking included; 0 where unknown. `disturbed`: something else
    was running while it was measured."""

    generation_bytes_s: float
    prompt_weights_s: float
    prompt_expert_weights_s: float
    load_bytes_s: float = 0.0
    source: Source = "measured"
    disturbed: bool = False


@dataclass(frozen=True)
class AttentionRates:
    """Seconds that attention takes for each token of depth and each layer.

    In token generation `generation_head_s` a head, `generation_query_s` a number of `AttentionWork.query_numbers`,
    `generation_cache_s` one of its `cache_numbers`; in prompt processing, for each token of the prompt, the first two.
    `near_numbers`: of one head's keys and values, what a core's own cache holds. Beyond it, prompts take
    `prompt_far` times as long; in token generation each number that is read again, because several heads of queries
    share it, takes `generation_again_s` more.
    """

    generation_head_s: float
    generation_query_s: float
    generation_cache_s: float
    prompt_head_s: float
    prompt_query_s: float
    generation_again_s: float = 0.0
    near_numbers: int = 0
    prompt_far: float = 1.0

    def generation_s(self, part: AttentionWork, seen_tok: float) -> float:
        """Seconds of one layer like those of `part` for one token that sees `seen_tok` others."""
        near_s = (
            part.heads * self.generation_head_s
            + part.query_numbers * self.generation_query_s
            + part.cache_numbers * self.generation_cache_s
        )
        again = max(part.query_numbers - part.cache_numbers, 0)
        return seen_tok * near_s + self._beyond_tok(part, seen_tok) * again * self.generation_again_s

    def prompt_s(self, part: AttentionWork, seen_tok: float) -> float:
        """The same for one token of a prompt."""
        steps = seen_tok + (self.prompt_far - 1) * self._beyond_tok(part, seen_tok)
        return steps * (part.heads * self.prompt_head_s + part.query_numbers * self.prompt_query_s)

    def _beyond_tok(self, part: AttentionWork, seen_tok: float) -> float:
        if not part.heads:
            return 0.0
        return max(seen_tok - max(self.near_numbers * part.heads / part.query_numbers, NEAR_TOK), 0.0)


@dataclass(frozen=True)
class DeviceRates:
    """All rates of one device with `threads` threads.

    Seconds for what does not depend on the weights: `token_s` for each generated token, `layer_s` for each of its
    layers, `vocabulary_s` for each entry of the vocabulary (choosing the token); `prompt_layer_s` for each token and
    layer of a prompt; `start_s` for loading a model of no size, and `start_vocabulary_s` more for each entry.
    """

    name: str
    threads: int
    types: Mapping[str, TypeRates]
    attention: Mapping[str, AttentionRates]
    token_s: float
    layer_s: float
    vocabulary_s: float
    prompt_layer_s: float
    start_s: float = 0.0
    start_vocabulary_s: float = 0.0
    source: Source = "measured"


@dataclass(frozen=True)
class Calibration:
    """What was measured on one machine with one engine build. Rates in bytes per second are 0 where unknown.

    `noise`: median of the measured times over the best of them, at least 1: how much a usual run is slower than an
    undisturbed one. `spread`: half the relative width of the middle 80 % of repeated measurements.
    `threads_tried`: token generation rate of one model relative to the best, by number of threads.
    `disturbed_share`: of the measurements, those beside which something else was running, in spite of repeating them.
    `runs`: how many calibrations this is the middle of.
    """

    machine: str
    build: str
    measured_at: str
    took_s: float
    cpu: DeviceRates
    memory_read_bytes_s: float
    disk_read_bytes_s: float
    noise: float
    spread: float
    threads_tried: Mapping[int, float] = field(default_factory=dict)
    disturbed_share: float = 0.0
    runs: int = 1


_NEAREST: Mapping[str, tuple[str, ...]] = {
    "Q4_1": ("Q4_0",),
    "Q5_0": ("Q5_1", "Q5_K"),
    "Q5_1": ("Q5_0", "Q5_K"),
    "Q4_0": ("Q4_K",),
    "Q8_0": ("Q6_K",),
    "Q2_K": ("Q3_K", "Q4_K"),
    "Q3_K": ("Q2_K", "Q4_K"),
    "Q4_K": ("Q5_K", "Q6_K"),
    "Q5_K": ("Q4_K", "Q6_K"),
    "Q6_K": ("Q5_K", "Q4_K"),
    "IQ4_NL": ("IQ4_XS", "Q4_0"),
    "IQ4_XS": ("IQ4_NL", "Q4_K"),
    "MXFP4": ("IQ4_NL", "Q4_0"),
    "NVFP4": ("MXFP4", "IQ4_NL", "Q4_0"),
    "IQ3_S": ("IQ3_XXS", "Q3_K"),
    "IQ3_XXS": ("IQ3_S", "Q3_K"),
    "IQ2_S": ("IQ2_XS", "IQ3_S", "Q2_K"),
    "IQ2_XS": ("IQ2_S", "IQ3_S", "Q2_K"),
    "IQ2_XXS": ("IQ2_XS", "IQ3_S", "Q2_K"),
    "IQ1_S": ("IQ1_M", "IQ2_XS", "IQ3_S", "Q2_K"),
    "IQ1_M": ("IQ1_S", "IQ2_XS", "IQ3_S", "Q2_K"),
    "BF16": ("F16",),
    "F16": ("BF16", "Q8_0"),
    "F32": ("F16", "Q8_0"),
}
"""Types whose kernels do similar work, nearest first."""


def rates_of(device: DeviceRates, type_name: str) -> TypeRates:
    """The rates of a type; of the nearest measured one, marked as borrowed, where it was not measured itself."""
    found = device.types.get(type_name)
    if found is not None:
        return found
    near = next((name for name in _NEAREST.get(type_name, ()) if name in device.types), None)
    if near is not None:
        rates = device.types[near]
    else:
        rates = min(device.types.values(), key=lambda rates: rates.generation_bytes_s)
    return TypeRates(
        rates.generation_bytes_s,
        rates.prompt_weights_s,
        rates.prompt_expert_weights_s,
        rates.load_bytes_s,
        "specification" if device.source == "specification" else "borrowed",
    )


def attention_of(device: DeviceRates, kv_type: str) -> AttentionRates:
    """The rates for a KV cache of `kv_type`; those of the slowest measured type where it was not measured."""
    found = device.attention.get(kv_type)
    return found or max(device.attention.values(), key=lambda rates: rates.generation_query_s)
