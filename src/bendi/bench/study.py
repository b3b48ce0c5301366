"""What a study is: models, engines, settings, workloads, and how careful to be. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bendi.energy import CostOptions, EnergyOptions
from bendi.results import Cache, Workload

EngineKind = Literal["bendi", "llama-server", "ollama", "openai", "vllm", "fastllm", "transformers", "openvino"]
ENGINE_KINDS: tuple[EngineKind, ...] = (
    "bendi", "llama-server", "ollama", "openai", "vllm", "fastllm", "transformers", "openvino",
)  # fmt: skip

SETTING_NAMES: Mapping[str, type | tuple[type, ...]] = {
    "threads": int,
    "prompt_threads": int,
    "context_tok": int,
    "gpu_layers": int,
    "split_mode": str,
    "tensor_split": str,
    "type_k": str,
    "type_v": str,
    "flash_attention": bool,
    "batch_tok": int,
    "ubatch_tok": int,
    "repack": bool,
    "mmap": bool,
    "speculate": bool,
}
"""What can be varied, by the names of `LoadRequest` where it has them."""


@dataclass(frozen=True)
class ModelChoice:
    """`name`: as `bendi run` takes it. `quantizations`: which of its files; empty for the one that the name means.
    `files`: paths of files by quantization, instead of names. `shape`: files with random weights are made for the
    study, of the shape of a model from the catalogue: as fast as the real ones, and meaningless. `source`: a file or
    name of high precision, from which the quantizations are made that `files` does not have; empty where `files` has
    one that will do."""

    name: str
    quantizations: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    shape: bool = False
    source: str = ""

    @property
    def is_quantized_here(self) -> bool:
        """Whether files may have to be made from another one."""
        have = {name.upper() for name in self.files}
        return bool(self.source) or bool(self.files and {name.upper() for name in self.quantizations} - have)


@dataclass(frozen=True)
class EngineChoice:
    """`label`: as in reports. `build`: of bendi's (`wheel`, a build's name, or empty for the one in use). `program`: of
    a server that is started; `interpreter`: a Python that has the library; `url`, `model`, `key_variable`: of a server
    that runs already. `settings`: fixed for this engine."""

    label: str
    kind: EngineKind = "bendi"
    build: str = ""
    program: str = ""
    interpreter: str = ""
    url: str = ""
    model: str = ""
    key_variable: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Care:
    """How careful to be. `blocks`: independent repeats, each with engines started anew. `warm_up_least`,
    `warm_up_most`: untimed requests before each repeat, until the last ones differ by less than `steady_cv` (the
    coefficient of variation). `cool_down_s`: before an engine is started. `idle_s`: how long the power of doing nothing
    is measured before each engine; None: as long as the slowest meter needs. `timeout_s`: after so long without a word
    an answer has failed. `tries`: of a repeat that failed."""

    blocks: int = 5
    warm_up_least: int = 2
    warm_up_most: int = 5
    steady_cv: float = 0.03
    cool_down_s: float = 0.0
    idle_s: float | None = None
    timeout_s: float = 600.0
    tries: int = 2
    check: bool = True


@dataclass(frozen=True)
class Study:
    """`text`: of the file, kept with the results. `settings`: values to be varied by name; each combination is
    measured. `energy`: which meters; `cost`: of power and hardware. `folder`: where relative paths begin."""

    title: str
    models: tuple[ModelChoice, ...]
    engines: tuple[EngineChoice, ...]
    workloads: tuple[Workload, ...]
    settings: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    concurrency: tuple[int, ...] = (1,)
    cache: tuple[Cache, ...] = ("fresh",)
    care: Care = field(default_factory=Care)
    seed: int = 1
    energy: EnergyOptions = field(default_factory=EnergyOptions)
    cost: CostOptions = field(default_factory=CostOptions)
    text: str = ""
    folder: Path = field(default_factory=Path)
