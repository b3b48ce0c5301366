"""A plan: how one model in one quantization would run on one machine, and what for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bendi.planner.memory import MemoryNeed
from bendi.planner.speed import Rate

LOAD_ERROR = 0.7
"""Files differ in how they lie in the page cache, and the engine in how it repacks them."""
Verdict = Literal["fits", "slow", "does_not_fit"]
"""`"slow"`: the weights are larger than memory and are read from the disk again for every token."""


@dataclass(frozen=True)
class Workload:
    """What a request is like: `depth_tok` tokens that are in the KV cache already, then `prompt_tok` new ones, then an
    answer of `answer_tok`."""

    name: str
    depth_tok: int
    prompt_tok: int
    answer_tok: int

    @property
    def context_tok(self) -> int:
        """The shortest context in which such a request is possible."""
        return self.depth_tok + self.prompt_tok + self.answer_tok


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("chat", 1500, 150, 350),
        Workload("code", 3000, 1500, 700),
        Workload("rag", 0, 4000, 300),
        Workload("summarise", 0, 12000, 600),
    )
}
"""Typical requests of the uses that `--for` knows."""


@dataclass(frozen=True)
class DeviceShare:
    """What one device gets. `layers`: whole layers; `expert_layers`: of those, how many keep their experts in main
    memory instead. `budget_bytes`: what may be used of it."""

    device: str
    layers: int
    expert_layers: int
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    fixed_bytes: int
    budget_bytes: int

    @property
    def used_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.compute_bytes + self.fixed_bytes


@dataclass(frozen=True)
class EngineSettings:
    """What the worker is started with. `type_k`, `type_v`: of the KV cache. `gpu_layers`: layers on GPUs, the last ones
    of the model; `tensor_split`: shares of them by GPU; `cpu_expert_layers`: GPU layers, from the first, whose experts
    stay in main memory."""

    context_tok: int
    parallel: int = 1
    type_k: str = "f16"
    type_v: str = "f16"
    n_batch: int = 512
    n_ubatch: int = 512
    threads: int = 0
    gpu_layers: int = 0
    tensor_split: tuple[float, ...] = ()
    cpu_expert_layers: int = 0


@dataclass(frozen=True)
class SpeedAt:
    """PP and TG after `depth_tok` tokens."""

    depth_tok: int
    pp: Rate
    tg: Rate


@dataclass(frozen=True)
class Plan:
    """How a model would run.

    `model`: a resolvable name. `quantization`: a name such as `"Q4_K_M"`; `file_bytes`: size of that file. `build`: the
    engine build. `memory`: the need on one device; `shares`: what each device gets, main memory first. `request_s`,
    `ttft_s`: predicted for `workload`, with relative error `error`; loading takes between 1 - `load_error` and
    1 + `load_error` times `load_warm_s` (file in the page cache) or `load_cold_s` (on the disk). `reasons`: why this
    choice, translated.
    """

    model: str
    quantization: str
    file_bytes: int
    build: str
    settings: EngineSettings
    memory: MemoryNeed
    shares: tuple[DeviceShare, ...]
    verdict: Verdict
    workload: Workload
    speeds: tuple[SpeedAt, ...]
    ttft_s: float
    request_s: float
    load_warm_s: float
    load_cold_s: float
    error: float
    calibrated: bool
    load_error: float = LOAD_ERROR
    reasons: tuple[str, ...] = ()
