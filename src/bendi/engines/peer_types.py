"""Other engines, as the benchmark sees them: what is asked of one, what it says of itself, and what it is then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bendi.engines.protocol import Engine
from bendi.errors import UsageError
from bendi.i18n import _
from bendi.messages import Usage

KINDS = ("llama-server", "ollama", "openai", "vllm", "fastllm", "transformers", "openvino")

SETTINGS = (
    "context_tok", "threads", "prompt_threads", "parallel", "batch_tok", "ubatch_tok", "type_k", "type_v",
    "flash_attention", "repack", "mmap", "gpu_layers", "split_mode", "tensor_split",
)  # fmt: skip
"""Names of settings that mean the same for all engines that have them: those of `LoadRequest`, and for GPUs
`gpu_layers` (how many; -1 for all), `split_mode` (`"none"`, `"layer"`, `"row"`) and `tensor_split` (`"3,1"`).
`context_tok`: of one conversation, whatever `parallel` is. `ubatch_tok`: of a prompt, computed at once, where
`batch_tok` is only what is handed over at once."""


@dataclass(frozen=True)
class PeerSpec:
    """Which engine. `kind`: one of KINDS. `program`: what is started: the program itself, or the interpreter that has
    the library; empty for one on PATH. `url`: of a server that runs already; it is never started nor ended.
    `key_variable`: name of the environment variable with its key; the key itself is kept nowhere. `remote`: whether
    `url` may be another machine. `fields`: put into every request as they are; None leaves a field out that would be
    sent otherwise. `may_create`: whether an Ollama server may be given a copy of the model file; it is deleted in the
    end."""

    kind: str
    program: str = ""
    url: str = ""
    key_variable: str = ""
    remote: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    may_create: bool = False


@dataclass(frozen=True)
class PeerLoad:
    """What to load and how. `model_path`: the file or folder, where the engine reads it itself. `model_name`: what a
    server calls the model. `config`: as in a `config.json`: a model of that shape with random weights (transformers).
    `settings`: names of SETTINGS, or options of the engine's own as its adapter describes; None leaves the engine its
    default. `silence_s`: an engine that says nothing for so long has failed."""

    model_path: Path | None = None
    model_name: str = ""
    config: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    load_timeout_s: float = 600.0
    silence_s: float = 600.0


@dataclass(frozen=True)
class Verified:
    """What became of the settings. `asked`: all that were not left to the engine. `confirmed`: those that the engine
    says it took, as it says them. `differing`: those of which it says something else, and what. Of the others it says
    nothing."""

    asked: Mapping[str, Any] = field(default_factory=dict)
    confirmed: Mapping[str, Any] = field(default_factory=dict)
    differing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unconfirmed(self) -> tuple[str, ...]:
        return tuple(name for name in self.asked if name not in self.confirmed and name not in self.differing)


@dataclass(frozen=True)
class PeerUsage(Usage):
    """`cached_known`: False where the engine does not say what it had cached; then `cached_tok` is 0."""

    cached_known: bool = True


@runtime_checkable
class PeerEngine(Engine, Protocol):
    """`info.engine` and `info.build`: its name and version; `info.load_s`: from its start until it was ready, 0 for a
    server that ran before. `pids`: of the processes that were started for it, see `peer_process.peak_memory_bytes`.
    `ends_can_be_ignored`: whether `GenerateRequest.ignore_end` has an effect.

    `generate` yields one chunk for each piece with text, as it arrives, and the last chunk with `finish`, `usage` (a
    PeerUsage, by the engine's own count) and `timings` (by the engine's own clock, but for `ttft_s`). Raises as other
    engines do, and EngineError for an answer that cannot be understood or has no counts; nothing is guessed.
    """

    @property
    def verified(self) -> Verified: ...

    @property
    def pids(self) -> tuple[int, ...]: ...

    @property
    def ends_can_be_ignored(self) -> bool: ...


def verify(asked: Mapping[str, Any], said: Mapping[str, Any]) -> Verified:
    """From the settings and what the engine says of them, by the same names."""
    wanted = {name: value for name, value in asked.items() if value is not None}
    told = {name: said[name] for name in wanted if said.get(name) is not None}
    confirmed = {name: value for name, value in told.items() if _same(wanted[name], value)}
    return Verified(wanted, confirmed, {name: value for name, value in told.items() if name not in confirmed})


def _same(asked: object, said: object) -> bool:
    if isinstance(asked, bool) or isinstance(said, bool):
        return asked is said
    if isinstance(asked, int | float) and isinstance(said, int | float):
        return asked == said
    return str(asked).strip().lower() == str(said).strip().lower()


def check_settings(engine: str, settings: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """The settings that are not left to the engine; UsageError for one that it does not have. Names that begin with
    `-` are the engine's own options."""
    wanted = {name: value for name, value in settings.items() if value is not None}
    unknown = sorted(name for name in wanted if name not in known and not name.startswith("-"))
    if unknown:
        raise UsageError(
            _("{engine} has no setting {names}.").format(engine=engine, names=", ".join(unknown)),
            hint=_("It has: {names}").format(names=", ".join(known)),
        )
    return wanted


def own_options(settings: Mapping[str, Any]) -> list[str]:
    """Command-line arguments for the settings that begin with `-`: True for one without a value, False for none."""
    said: list[str] = []
    for name, value in settings.items():
        if name.startswith("-") and value is not False and value is not None:
            said += [name] if value is True else [name, str(value)]
    return said
