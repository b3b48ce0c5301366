"""How fast a device computes, as measured with the real engine, or taken from a specification.

A calibration is valid for one machine and one engine build. `engines.calibrate` measures it; `measured` keeps it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bendi.errors import StoreError
from bendi.i18n import _
from bendi.planner.work import AttentionWork

Source = Literal["measured", "borrowed", "specification"]
SCHEMA = 2
NEAR_TOK = 1024
"""At least so many tokens count as near: calibration measures the rates at this depth."""


@dataclass(frozen=True)
class TypeRates:
    """How fast weights of one type are used. `generation_bytes_s`: read for one token. `prompt_weights_s`,
    `prompt_expert_weights_s`: multiplied with the tokens of a long prompt, weights times tokens per second.
    `load_bytes_s`: from the page cache until ready, repacking included; 0 where unknown."""

    generation_bytes_s: float
    prompt_weights_s: float
    prompt_expert_weights_s: float
    load_bytes_s: float = 0.0
    source: Source = "measured"


@dataclass(frozen=True)
class FarRates:
    """How many times as long attention takes for tokens whose keys and values have left a core's own cache, with heads
    of `head_numbers` numbers, key and value together."""

    head_numbers: int
    generation: float
    prompt: float


@dataclass(frozen=True)
class AttentionRates:
    """Seconds that attention takes for each token of depth and each layer.

    In token generation `generation_head_s` a head, `generation_query_s` a number of `AttentionWork.query_numbers`,
    `generation_cache_s` one of its `cache_numbers`; in prompt processing, for each token of the prompt, the first two.
    `near_numbers`: of one head's keys and values, what a core's own cache holds; beyond it, `far` says how much
    slower it gets, for the nearest length of a head.
    """

    generation_head_s: float
    generation_query_s: float
    generation_cache_s: float
    prompt_head_s: float
    prompt_query_s: float
    near_numbers: int = 0
    far: tuple[FarRates, ...] = ()

    def generation_s(self, part: AttentionWork, seen_tok: float) -> float:
        """Seconds of one layer like those of `part` for one token that sees `seen_tok` others."""
        near_tok, far = self._far(part)
        steps = seen_tok if far is None else seen_tok + (far.generation - 1) * max(seen_tok - near_tok, 0.0)
        return steps * (
            part.heads * self.generation_head_s
            + part.query_numbers * self.generation_query_s
            + part.cache_numbers * self.generation_cache_s
        )

    def prompt_s(self, part: AttentionWork, seen_tok: float) -> float:
        """The same for one token of a prompt."""
        near_tok, far = self._far(part)
        steps = seen_tok if far is None else seen_tok + (far.prompt - 1) * max(seen_tok - near_tok, 0.0)
        return steps * (part.heads * self.prompt_head_s + part.query_numbers * self.prompt_query_s)

    def _far(self, part: AttentionWork) -> tuple[float, FarRates | None]:
        if not self.far or not part.heads:
            return 0.0, None
        length = part.query_numbers / part.heads
        near_tok = max(self.near_numbers / length, NEAR_TOK)
        return near_tok, min(self.far, key=lambda far: abs(far.head_numbers - length))


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


def to_json(calibration: Calibration) -> str:
    """The calibration as text, for `from_json`."""
    return json.dumps({"schema": SCHEMA, **asdict(calibration)})


def from_json(text: str) -> Calibration:
    """Raises StoreError when the text is not of this version of bendi."""
    try:
        table: dict[str, Any] = json.loads(text)
        if table.pop("schema") != SCHEMA:
            raise ValueError("schema")
        cpu = table.pop("cpu")
        types = {name: TypeRates(**row) for name, row in cpu.pop("types").items()}
        attention = {name: _attention_rates(row) for name, row in cpu.pop("attention").items()}
        threads = {int(count): share for count, share in table.pop("threads_tried").items()}
        return Calibration(
            cpu=DeviceRates(types=types, attention=attention, **cpu), threads_tried=threads, **table
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            _("The stored calibration cannot be used: {error}").format(error=error), hint="bendi calibrate"
        ) from error


def _attention_rates(row: dict[str, Any]) -> AttentionRates:
    far = tuple(FarRates(**rates) for rates in row.pop("far"))
    return AttentionRates(**row, far=far)


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
