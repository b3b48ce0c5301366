"""What is kept of a calibration, a load and an answer. Unknown is None."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Buffers:
    """Bytes by purpose. `weights_bytes`: all copies of the weights together."""

    weights_bytes: int
    kv_bytes: int
    state_bytes: int
    compute_bytes: int
    output_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.state_bytes + self.compute_bytes + self.output_bytes


@dataclass(frozen=True)
class LoadRecord:
    """One load of a model. `model_key`: the same for files whose tensors have the same names, shapes and types.

    `model`: its name for people. `threads`: 0 where the engine chose. `real`: as the engine reported, None where it
    did not. `load_s`: until the model could be asked; `predicted_load_s` with its file in the page cache,
    `predicted_cold_load_s` without; None without a calibration. `created_s` (seconds since 1970) and `id` are set by
    the store.
    """

    model_key: str
    model: str
    architecture: str
    quantization: str
    build: str
    machine_id: str
    context_tok: int
    parallel: int
    type_k: str
    type_v: str
    threads: int
    predicted: Buffers
    real: Buffers | None
    load_s: float
    predicted_load_s: float | None = None
    predicted_cold_load_s: float | None = None
    created_s: float = 0.0
    id: int = 0


@dataclass(frozen=True)
class AnswerRecord:
    """One answer of the load `load_id`. `cached_tok`: of the prompt's tokens, those that were in the KV cache.

    `depth_tok`: tokens before the middle of the answer, for which its prediction was made. The predictions are those
    of the calibration alone, None without one and for answers that shared the engine with others.
    """

    load_id: int
    prompt_tok: int
    cached_tok: int
    completion_tok: int
    depth_tok: int
    pp_tok_s: float | None
    tg_tok_s: float | None
    predicted_pp_tok_s: float | None = None
    predicted_tg_tok_s: float | None = None
    created_s: float = 0.0
    id: int = 0


@dataclass(frozen=True)
class CalibrationRow:
    """A stored calibration. `text`: as `planner.calibration.to_json` writes it. `saved_s`: seconds since 1970."""

    machine_id: str
    build: str
    text: str
    saved_s: float
