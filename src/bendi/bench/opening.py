"""Starts the engine of a configuration, and says what really runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bendi.bench import gate
from bendi.bench.study import EngineChoice
from bendi.bench.subjects import Files, Subject
from bendi.engines.peer_open import open_peer
from bendi.engines.peer_outside import OWN_SETTINGS
from bendi.engines.peer_types import PeerLoad, PeerSpec
from bendi.engines.protocol import Engine, EngineInfo, LoadRequest
from bendi.engines.registry import open_engine
from bendi.errors import UsageError
from bendi.i18n import _
from bendi.results import Cell, LoadedEngine
from bendi.settings import Settings

_LOAD_FIELDS = {each.name for each in fields(LoadRequest)}
_TAKE_TOKENS = ("bendi", "llama-server", "vllm", "transformers", "openvino")
_HALF_PRECISION = ("BF16", "F16")
_SPARE_TOK = 64
"""For special tokens, and for texts that turn out longer than asked."""
_SLACK = 1.25
_ROUND_TOK = 256


@dataclass(frozen=True)
class Opened:
    """An engine that is ready."""

    engine: Engine
    loaded: LoadedEngine
    load_s: float


@dataclass
class Garage:
    """Opens engines for one study. `choices`: by label."""

    choices: Mapping[str, EngineChoice]
    settings: Settings
    files: Files
    note: Callable[[str], None] = field(default=lambda _text: None)
    silence_s: float = 600.0

    def takes_tokens(self, choice: EngineChoice) -> bool:
        """Whether prompts may be token numbers."""
        return choice.kind in _TAKE_TOKENS

    def open(self, cells: Sequence[Cell], subject: Subject) -> Opened:
        """An engine for cells of one configuration. Raises EngineError, UsageError, StoreError and ModelFileError."""
        choice = self.choices[cells[0].engine]
        path = self.files.path(subject, bytewise=choice.kind == "openvino")
        asked = {"context_tok": context_needed(cells), "parallel": max(cell.concurrency for cell in cells)}
        asked |= cells[0].settings
        if choice.kind == "bendi":
            return self._open_own(choice, path, cells[0], asked)
        return self._open_peer(choice, (subject, path), cells[0], asked)

    def _open_own(self, choice: EngineChoice, path: Path, cell: Cell, asked: dict[str, Any]) -> Opened:
        strange = sorted(set(asked) - _LOAD_FIELDS)
        if strange:
            raise UsageError(
                _("{engine} has no setting {names}.").format(engine=choice.label, names=", ".join(strange)),
                hint=_("Leave it out, or give it to the engines that have it: [engines.settings]"),
            )
        settings = replace(self.settings, engine=choice.build) if choice.build else self.settings
        engine = open_engine(LoadRequest(model_path=path, **asked), settings, on_notice=self.note)
        info = engine.info
        verified = confirmed(info)
        loaded = LoadedEngine(
            configuration=cell.configuration,
            engine=choice.label,
            version=info.engine,
            build=info.build,
            model_sha256=self.files.sha256(path),
            model_bytes=path.stat().st_size,
            asked=asked,
            verified=verified,
            differing=tuple(name for name, value in verified.items() if name in asked and asked[name] != value),
        )
        return Opened(engine, loaded, info.load_s)

    def _open_peer(self, choice: EngineChoice, file: tuple[Subject, Path], cell: Cell, asked: dict[str, Any]) -> Opened:
        subject, path = file
        if choice.kind == "transformers" and subject.random_weights and subject.quantization not in _HALF_PRECISION:
            raise UsageError(
                _("transformers computes in 16 bits: {quantization} would be another model.").format(
                    quantization=subject.quantization
                ),
                hint='quantizations = ["BF16"]',
            )
        known = OWN_SETTINGS.get(choice.kind)
        # What every study asks for is left out where an engine has no such thing; what this one asks for is not.
        wanted = {name: value for name, value in asked.items() if not known or name in known or name in cell.settings}
        spec = PeerSpec(
            kind=choice.kind,
            program=choice.program or choice.interpreter,
            url=choice.url,
            key_variable=choice.key_variable,
            remote=bool(choice.url),
            may_create=not choice.model,
        )
        load = PeerLoad(
            model_path=path,
            model_name=choice.model,
            config=subject.config if choice.kind == "transformers" else None,
            settings=wanted,
            silence_s=self.silence_s,
        )
        engine = open_peer(spec, load, self.settings)
        info, verified = engine.info, engine.verified
        loaded = LoadedEngine(
            configuration=cell.configuration,
            engine=choice.label,
            version=info.engine,
            build=info.build,
            model_sha256=self.files.sha256(path),
            model_bytes=path.stat().st_size,
            asked=dict(verified.asked),
            verified={**verified.confirmed, **verified.differing},
            differing=tuple(verified.differing),
        )
        return Opened(engine, loaded, info.load_s)


def confirmed(info: EngineInfo) -> dict[str, Any]:
    """What an engine of bendi says about itself after loading."""
    found: dict[str, Any] = {"context_tok": info.context_tok, "parallel": info.slots}
    if info.buffers is not None:
        found["weights_bytes"] = info.buffers.weights_bytes
        found["kv_bytes"] = info.buffers.kv_bytes
        found["compute_bytes"] = info.buffers.compute_bytes
    return found


def context_needed(cells: Sequence[Cell]) -> int:
    """The context that all cells of a configuration fit into, in tokens, for each conversation."""
    most = gate.CONTEXT_TOK
    for cell in cells:
        work = cell.workload
        turn_tok = work.prompt_tok + work.answer_tok + _SPARE_TOK
        most = max(most, work.depth_tok + work.turns * turn_tok)
    return -(-int(most * _SLACK) // _ROUND_TOK) * _ROUND_TOK
