"""Small models that each show one thing about a machine, and how they are timed with the real engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bendi.engines.protocol import Engine, LoadRequest
from bendi.engines.random_weights import write_random_model
from bendi.engines.registry import open_engine
from bendi.engines.timing import endless_words, take, timed
from bendi.formats.blueprints import blueprint_from_config
from bendi.planner.layers import model_work
from bendi.planner.work import ModelWork
from bendi.settings import Settings

_SHORT_TOK = 4
_WARM_UP_TOK = 8
_PROMPT_LIMIT_S = 0.8


@dataclass(frozen=True)
class Probe:
    """A model to be timed. `config`: as in a Hugging Face `config.json`. `type_name`: of its matrices.

    `depths_tok`: time it after so many tokens, too, the smallest first. `prompt_tok`: the longest prompt to time.
    `answer_tok`: tokens generated for one timing; `repeats`: timings of each kind.
    """

    name: str
    config: dict[str, object]
    type_name: str
    depths_tok: tuple[int, ...] = ()
    prompt_tok: int = 256
    answer_tok: int = 24
    repeats: int = 3
    kv_type: str = "f16"
    threads: int | None = None


@dataclass(frozen=True)
class Times:
    """Seconds of one kind, repeated."""

    all_s: tuple[float, ...]

    @property
    def best_s(self) -> float:
        return min(self.all_s)

    @property
    def noise(self) -> float:
        return median(self.all_s) / min(self.all_s)


@dataclass(frozen=True)
class Timed:
    """`generation`: seconds for one token, `prompt`: for a whole prompt, None where none was timed; both after
    `depth_tok` tokens."""

    generation: Times
    prompt: Times | None
    depth_tok: int = 0


@dataclass(frozen=True)
class ProbeResult:
    """What one probe showed. `prompt_tok`: of the prompts that were timed; `start`, `deep`: at the beginning and at the
    depths. `load_s`: until the engine was ready, its process included."""

    work: ModelWork
    build: str
    load_s: float
    prompt_tok: int
    start: Timed
    deep: tuple[Timed, ...] = ()

    @property
    def noises(self) -> list[float]:
        kinds = [kind for timed in (self.start, *self.deep) for kind in (timed.generation, timed.prompt)]
        return [kind.noise for kind in kinds if kind is not None]


Heads = tuple[int, int, int]
Config = dict[str, object]


def dense_config(layers: int, width: int, forward: int, heads: Heads, vocab: int = 512) -> Config:
    """A dense model. `heads`: of queries, of keys and values, and their size."""
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": forward,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "head_dim": heads[2],
        "vocab_size": vocab,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    }


def expert_config(layers: int, width: int, experts: tuple[int, int, int], heads: Heads) -> Config:
    """A model of experts. `experts`: how many, how many are used, their feed-forward length."""
    return dense_config(layers, width, experts[2], heads) | {
        "model_type": "qwen3_moe",
        "num_experts": experts[0],
        "num_experts_per_tok": experts[1],
        "moe_intermediate_size": experts[2],
    }


def run_probe(probe: Probe, settings: Settings, folder: Path) -> ProbeResult:
    """Writes the model into `folder`, times it, and removes it.

    Raises EngineError and OSError.
    """
    blueprint = blueprint_from_config(probe.config, probe.name)
    types = [probe.type_name if name != "F32" else name for name in blueprint.default_types()]
    path = folder / f"{probe.name}.gguf"
    try:
        write_random_model(path, blueprint, types)
        work = model_work(blueprint.header(types))
        return _timed(probe, work, settings, path)
    finally:
        path.unlink(missing_ok=True)


def _timed(probe: Probe, work: ModelWork, settings: Settings, path: Path) -> ProbeResult:
    load = LoadRequest(
        model_path=path,
        context_tok=max(probe.depths_tok, default=0) + probe.prompt_tok + 512,
        threads=probe.threads,
        type_k=probe.kv_type,
        type_v=probe.kv_type,
    )
    started_s = time.perf_counter()
    with closing(open_engine(load, settings)) as engine:
        load_s = time.perf_counter() - started_s
        words = endless_words(work.vocab_size)
        timed(engine, take(words, _SHORT_TOK), _WARM_UP_TOK)
        prompt_tok = probe.prompt_tok and _affordable(engine, words, probe.prompt_tok)
        found = [_timed_at(engine, (), words, probe, prompt_tok)]
        past: tuple[int, ...] = ()
        for depth_tok in probe.depths_tok:
            past += take(words, depth_tok - len(past))
            timed(engine, past, 1)
            found.append(_timed_at(engine, past, words, probe, prompt_tok))
        return ProbeResult(work, engine.info.build, load_s, prompt_tok, found[0], tuple(found[1:]))


def _timed_at(engine: Engine, past: tuple[int, ...], words: Iterator[int], probe: Probe, prompt_tok: int) -> Timed:
    generation = _generation(engine, past, words, probe)
    return Timed(generation, _prompts(engine, past, words, probe, prompt_tok) if prompt_tok else None, len(past))


def _affordable(engine: Engine, words: Iterator[int], wanted_tok: int) -> int:
    """The longest prompt, up to `wanted_tok`, that does not take too long."""
    timings = timed(engine, take(words, 32), 1)
    tok_s = timings.pp_tok_s or 1.0
    prompt_tok = wanted_tok
    while prompt_tok > 32 and prompt_tok / tok_s > _PROMPT_LIMIT_S:
        prompt_tok //= 2
    return prompt_tok


def _generation(engine: Engine, past: tuple[int, ...], words: Iterator[int], probe: Probe) -> Times:
    timings = [timed(engine, past + take(words, _SHORT_TOK), probe.answer_tok + 1) for _ in range(probe.repeats)]
    return Times(tuple(1 / (timing.tg_tok_s or 1e-9) for timing in timings))


def _prompts(engine: Engine, past: tuple[int, ...], words: Iterator[int], probe: Probe, prompt_tok: int) -> Times:
    timings = [timed(engine, past + take(words, prompt_tok), 1) for _ in range(max(probe.repeats - 1, 2))]
    return Times(tuple(prompt_tok / (timing.pp_tok_s or 1e-9) for timing in timings))
