"""How fast graphics processors are by their specification, for planning before anything was measured on them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import cast

from bendi.formats import TENSOR_TYPES_BY_NAME
from bendi.hardware import Gpu, GpuVendor
from bendi.planner.calibration import AttentionRates, DeviceRates, TypeRates
from bendi.units import GIB

_PCIE_LANE_BYTES_S: Mapping[int, float] = {2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.56e9}
"""Each way, after line coding (PCI-SIG)."""
_COPY_SHARE = 0.45
"""Of PCIe that copies of weights reach: they come from pageable memory (pinned memory made them 21 % faster and overlap
faster still in llama.cpp pull request 25859)."""
_SHARED_COPY_SHARE = 0.3
"""Of the memory bandwidth, where GPU and processor share it: a copy reads and writes."""
TOKEN_S = 80e-6
"""For each token beside the layers: starting the graph, fetching the logits. Larger with more than one device."""
DENSE_LAYER_S = 20e-6
"""Starting the kernels of one layer, with CUDA graphs where they exist. From the differences between published rates
and bandwidth for models of 8B and 70B; llama.cpp issue 27721 measured 46 to 269 us saved for a layer by CUDA graphs."""
EXPERT_LAYER_S = 50e-6
"""The same for a layer with experts: routing, and several small products instead of three large ones."""
SYNC_S = 40e-6
"""Each time that the computation changes from one device to another: copying the hidden state and waiting."""
_EXPERT_PROMPT_SHARE = 0.4
"""Of the rate with large matrices: a batch is split over the experts."""
_ATTENTION_PROMPT_SHARE = 0.6
_ATTENTION_GENERATION_SHARE = 0.6
_QUANTIZED_CACHE = 1.15
"""A quantized KV cache is smaller and yet slower: its numbers are converted for every use."""
_LAPTOP_SHARE = 0.7
"""Of the desktop card of the same name, for laptop versions without a row."""

_TYPE_SHARES: Mapping[str, tuple[float, float]] = {
    "F32": (1.0, 0.25),
    "F16": (1.0, 1.0),
    "BF16": (1.0, 0.9),
    "Q8_0": (1.0, 1.0),
    "Q4_0": (1.0, 1.0),
    "Q4_1": (1.0, 1.0),
    "Q5_0": (0.97, 0.95),
    "Q5_1": (0.97, 0.95),
    "Q6_K": (0.95, 0.9),
    "Q5_K": (0.95, 0.92),
    "Q4_K": (0.95, 0.95),
    "Q3_K": (0.85, 0.85),
    "Q2_K": (0.80, 0.80),
    "IQ4_NL": (0.97, 0.95),
    "IQ4_XS": (0.95, 0.95),
    "MXFP4": (0.95, 0.9),
    "NVFP4": (0.95, 0.9),
}
"""Token generation and prompt processing relative to the simplest types."""
_OTHER_TYPES = (0.65, 0.75)


@dataclass(frozen=True)
class GpuSpec:
    """`name`: of the row. `flops`: dense FP16. `link_bytes_s`: copies from main memory. `known`: from the table;
    otherwise guessed from its memory and generation."""

    name: str
    bandwidth_bytes_s: float
    flops: float
    link_bytes_s: float
    generation_share: float
    prompt_share: float
    memory_bytes: int
    known: bool = True


@cache
def gpu_specs() -> Mapping[tuple[str, str], GpuSpec]:
    """All rows, by (vendor, name)."""
    table = tomllib.loads(files("bendi.planner").joinpath("gpu_specs.toml").read_text("utf-8"))
    return {
        (group["vendor"], name): GpuSpec(
            name=name,
            bandwidth_bytes_s=row[0] * 1e9,
            flops=row[1] * 1e12,
            link_bytes_s=_link(row[0] * 1e9, row[2], row[3]),
            generation_share=group["generation_share"],
            prompt_share=group["prompt_share"],
            memory_bytes=row[4] * GIB,
        )
        for group in table["group"]
        for name, row in group["gpus"].items()
    }


def spec_of(gpu: Gpu) -> GpuSpec:
    """The row with the longest name that occurs in the GPU's, or a careful guess."""
    words = _words(gpu.name)
    matching = [
        (len(wanted), -abs(spec.memory_bytes - (gpu.memory_total_bytes or 0)), -spec.bandwidth_bytes_s, spec)
        for vendor, wanted, spec in _rows()
        if vendor == gpu.vendor and _in_order(wanted, words)
    ]
    if not matching:
        return _guess(gpu)
    spec = max(matching, key=lambda match: match[:3])[3]
    if "laptop" in words and "laptop" not in _words(spec.name):
        return replace(spec, bandwidth_bytes_s=spec.bandwidth_bytes_s * _LAPTOP_SHARE, flops=spec.flops * _LAPTOP_SHARE)
    return spec


def gpu_named(name: str) -> tuple[GpuVendor, GpuSpec] | None:
    """Vendor and row for a name that somebody typed, such as `"4090"` or `"RTX 4090"`; None when nothing matches."""
    words = _words(name)
    found = [
        (len(wanted), vendor, spec)
        for vendor, wanted, spec in _rows()
        if _in_order(wanted, words) or _in_order(words, wanted)
    ]
    exact = [match for match in found if _in_order(_words(match[2].name), words)]
    if exact:
        _count, vendor, spec = max(exact, key=lambda match: match[0])
    elif found and words:
        _count, vendor, spec = min(found, key=lambda match: match[0])
    else:
        return None
    return cast(GpuVendor, vendor), spec


@cache
def rates_by_specification(spec: GpuSpec) -> DeviceRates:
    """What can be expected of the GPU with llama.cpp."""
    read_bytes_s = spec.bandwidth_bytes_s * spec.generation_share
    weights_s = spec.flops * spec.prompt_share / 2  # a multiplication and an addition for each weight and token
    types = {}
    for name in TENSOR_TYPES_BY_NAME:
        generation, prompt = _TYPE_SHARES.get(name, _OTHER_TYPES)
        types[name] = TypeRates(
            generation_bytes_s=read_bytes_s * generation,
            prompt_weights_s=weights_s * prompt,
            prompt_expert_weights_s=weights_s * prompt * _EXPERT_PROMPT_SHARE,
            load_bytes_s=spec.link_bytes_s,
            source="specification",
        )
    cache_s = 2 / (spec.bandwidth_bytes_s * _ATTENTION_GENERATION_SHARE)
    query_s = 2 / (spec.flops * spec.prompt_share * _ATTENTION_PROMPT_SHARE)
    attention = {
        kind: AttentionRates(0.0, 0.0, cache_s * slower, 0.0, query_s * slower)
        for kind, slower in (("f16", 1.0), ("bf16", 1.0), ("f32", 2.0), ("q8_0", _QUANTIZED_CACHE),
                             *((name, 1.3) for name in ("q5_1", "q5_0", "q4_1", "q4_0")))
    }  # fmt: skip
    return DeviceRates(
        name=spec.name,
        threads=0,
        types=types,
        attention=attention,
        token_s=TOKEN_S,
        layer_s=DENSE_LAYER_S,
        vocabulary_s=0.0,
        prompt_layer_s=0.0,
        start_s=1.0,
        source="specification",
    )


def _link(bandwidth_bytes_s: float, generation: int, lanes: int) -> float:
    if not generation:
        return bandwidth_bytes_s * _SHARED_COPY_SHARE
    return _PCIE_LANE_BYTES_S[generation] * lanes * _COPY_SHARE


@cache
def _rows() -> tuple[tuple[str, tuple[str, ...], GpuSpec], ...]:
    return tuple((vendor, _words(name), spec) for (vendor, name), spec in gpu_specs().items())


def _words(name: str) -> tuple[str, ...]:
    """Of a name in lower case, as its makers write it: "RTX4060Ti" is three words."""
    text = re.sub(r"\((?:r|tm)\)", " ", name.lower()[:200])
    text = re.sub(r"\b(rtx|gtx|rx|arc)(?=[a-z]?\d)", r"\1 ", text)
    text = re.sub(r"(\d{3,4})(ti|xtx|xt|super|gre)\b", r"\1 \2", text)
    text = re.sub(r"\b(?:max-q|mobile|notebook)\b", "laptop", text)
    return tuple(re.findall(r"[a-z0-9]+", text))


def _in_order(wanted: tuple[str, ...], words: tuple[str, ...]) -> bool:
    rest = iter(words)
    return bool(wanted) and all(word in rest for word in wanted)


_GUESSES = ((4, 100), (6, 160), (8, 220), (12, 280), (16, 350), (24, 450), (48, 600))
"""GiB of memory up to which a GPU is taken to read so many GB/s: less than nearly all that have as much."""


def _guess(gpu: Gpu) -> GpuSpec:
    memory_bytes = gpu.memory_total_bytes or 0
    bandwidth = next((rate for size, rate in _GUESSES if memory_bytes <= size * GIB * 1.05), 1000) * 1e9
    if gpu.unified:
        bandwidth = 60e9
    major = int(gpu.compute_capability.partition(".")[0] or 0) if gpu.compute_capability[:1].isdigit() else 0
    flops = (4 if major < 7 else 30 if major < 8 else 50) * 1e12 if gpu.vendor == "nvidia" else 10e12
    link = _link(bandwidth, 0 if gpu.unified else 3, 8)
    return GpuSpec(gpu.name, bandwidth, flops, link, 0.5, 0.3, memory_bytes, known=False)
