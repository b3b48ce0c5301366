"""Before any engine sees a model: the file is checked, the context is chosen, the memory is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bendi.engines.pooling import pooling, takes_whole_inputs
from bendi.engines.projector import Projector, read_projector
from bendi.engines.protocol import LoadRequest
from bendi.engines.worker_config import BATCH_TOK, WorkerConfig
from bendi.errors import ModelFileError, OutOfMemory
from bendi.formats import GgufFile, ModelInfo, model_info, read_gguf_split, split_paths
from bendi.hardware import detect_core_cpus, detect_memory
from bendi.i18n import _
from bendi.planner import (
    SYSTEM_RESERVE_BYTES,
    MemoryNeed,
    MemorySetup,
    checkpoint_count,
    context_that_fits,
    for_whole_inputs,
    memory_facts,
    memory_needed,
)
from bendi.units import format_size

DEFAULT_CONTEXT_TOK = 16384
"""Enough for long conversations; a model trained for a million tokens does not take all memory unasked."""
DEFAULT_INPUT_TOK = 2048
"""Likewise for inputs that must be computed at once, which takes the more memory the longer they may be."""


Identity = tuple[int, int, int, int]
"""Of a file: device, inode, size, time of the last change."""


@dataclass(frozen=True)
class Prepared:
    """A load that may go ahead. `parts`: the model's files, resolved; `headers`: theirs. `weights_bytes`: their size on
    disk. `setup`, `need`: how the model is loaded, and the memory that takes by prediction. `repack`: the engine may
    keep its own, faster copy of the weights, which cannot be paged out as the mapped file can. `checkpoints`: copies of
    windows and states at earlier turns that it may keep of each conversation. `pooling`: see `engines.pooling`.
    `writes_text`: False for encoders, which only read. `projector`: of a model that is to see images."""

    parts: tuple[Path, ...]
    headers: tuple[GgufFile, ...]
    info: ModelInfo
    setup: MemorySetup
    need: MemoryNeed
    context_tok: int
    weights_bytes: int
    memory_limit_bytes: int
    repack: bool
    checkpoints: int
    identity: tuple[Identity, ...]
    pooling: str = ""
    writes_text: bool = True
    projector: Projector | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that the engine reads."""
        return (*self.parts, self.projector.path) if self.projector else self.parts

    def check_unchanged(self) -> None:
        """Raises ModelFileError when a file is not the one any more that was checked: the engine may have read another.
        To be called when it is ready, before it is asked anything."""
        try:
            unchanged = _identity(self.files) == self.identity
        except OSError:
            unchanged = False
        if not unchanged:
            raise ModelFileError(
                _("{path} was changed while it was being loaded.").format(path=self.parts[0]),
                hint=_("Load it again when nothing writes to it any more."),
            )


def _identity(parts: Sequence[Path]) -> tuple[Identity, ...]:
    found = [part.stat() for part in parts]
    return tuple((file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns) for file in found)


def prepare(load: LoadRequest) -> Prepared:
    """Reads the header (ModelFileError when the file is not a sound model) and decides what `load` leaves open.

    Raises OutOfMemory when KV cache, state and buffers of the context asked for cannot fit. Weights larger than
    memory are allowed: they are mapped from the file, slowly.
    """
    parts = [part.absolute() for part in split_paths(load.model_path)]
    read = [*parts, *([load.mmproj_path.absolute()] if load.mmproj_path else [])]
    before = _identity([path for path in read if path.exists()])
    headers = read_gguf_split(load.model_path)
    projector = read_projector(load.mmproj_path) if load.mmproj_path else None
    info, facts = model_info(*headers), memory_facts(*headers)
    pooled = pooling(load, headers)
    whole = takes_whole_inputs(pooled, headers, facts)
    if whole and facts.cache_layers:
        # With a cache, the engine computes inputs of different lengths in several steps, and pools only the last one.
        load = replace(load, parallel=1)
    weights_bytes = sum(part.stat().st_size for part in parts)
    usable_bytes = detect_memory().usable_bytes
    # Mapped weights can be paged out again, so only half of the memory must be kept for what cannot.
    kept_bytes = min(weights_bytes, usable_bytes // 2)
    fitting_tok = context_that_fits(facts, usable_bytes, kept_bytes, load.parallel, whole_inputs=whole)
    default_tok = DEFAULT_INPUT_TOK if whole else DEFAULT_CONTEXT_TOK
    train_tok = info.context_length or default_tok
    context_tok = load.context_tok or min(train_tok, default_tok, fitting_tok or train_tok)
    setup = memory_setup(load, context_tok, bool(pooled), whole)
    need = memory_needed(facts, setup)
    needed_bytes = need.beside_weights_bytes + SYSTEM_RESERVE_BYTES + (projector.memory_bytes if projector else 0)
    if fitting_tok == 0 or needed_bytes > usable_bytes:
        raise OutOfMemory(
            _("A context of {context} tokens needs {needed} of memory beside the model; {usable} can be used.").format(
                context=context_tok,
                needed=format_size(needed_bytes),
                usable=format_size(usable_bytes),
            ),
            hint=(
                _("At most --context {context} fits; closing other programs gives more.").format(context=fitting_tok)
                if fitting_tok
                else _("Close other programs, or choose a smaller model: `bendi list`.")
            ),
        )
    limit_bytes = load.memory_limit_bytes or usable_bytes
    return Prepared(
        parts=tuple(parts),
        headers=headers,
        info=info,
        setup=setup,
        need=need,
        context_tok=context_tok,
        weights_bytes=weights_bytes,
        memory_limit_bytes=limit_bytes,
        checkpoints=checkpoint_count(facts, setup),
        identity=before,
        pooling=pooled,
        projector=projector,
        writes_text=bool(facts.cache_layers) or facts.state_numbers > 0,
        repack=load.repack is not False and weights_bytes + needed_bytes <= min(limit_bytes, usable_bytes),
    )


def memory_setup(load: LoadRequest, context_tok: int, makes_vectors: bool, whole_inputs: bool) -> MemorySetup:
    """How `load` is loaded with a context that has been decided. `whole_inputs`: see `takes_whole_inputs`."""
    batch_tok = load.batch_tok or BATCH_TOK
    setup = MemorySetup(
        context_tok,
        load.parallel,
        load.type_k,
        load.type_v,
        n_batch=batch_tok,
        n_ubatch=batch_tok,
        flash_attention=_flash_attention(load) is not False,
        embeddings=makes_vectors,
    )
    return for_whole_inputs(setup) if whole_inputs else setup


def _flash_attention(load: LoadRequest) -> bool | None:
    # Values can be quantized only with flash attention; otherwise the engine turns it on wherever it works.
    return True if load.type_v not in ("f16", "f32", "bf16") else load.flash_attention


def worker_config(load: LoadRequest, prepared: Prepared, program: str = "") -> WorkerConfig:
    """What the worker is told. `program`: of a native build."""
    return WorkerConfig(
        model_path=str(prepared.parts[0]),
        part_paths=[str(path) for path in prepared.files],
        program=program,
        context_tok=prepared.context_tok * prepared.setup.parallel,
        threads=load.threads or 0,
        prompt_threads=load.prompt_threads or 0,
        batch_tok=prepared.setup.n_ubatch,
        parallel=prepared.setup.parallel,
        type_k=load.type_k,
        type_v=load.type_v,
        flash_attention=_flash_attention(load),
        pooling=prepared.pooling,
        mmproj_path=str(prepared.projector.path) if prepared.projector else "",
        memory_limit_bytes=prepared.memory_limit_bytes,
        repack=prepared.repack,
        checkpoints=prepared.checkpoints,
        state_dir=str(load.state_dir.absolute()) if load.state_dir else "",
        speculate=load.speculate,
        cpus=_cpus(load) if load.keep_to_cores else [],
        spread_numa=load.spread_numa,
    )


def _cpus(load: LoadRequest) -> list[int]:
    """As many as there are threads at work at once, or one for each core."""
    cpus = detect_core_cpus()
    return list(cpus[: max(load.threads, load.prompt_threads or 0)] if load.threads else cpus)
