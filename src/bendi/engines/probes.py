"""Small models that each show one thing about a machine, and how they are timed with the real engine."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bendi.engines.protocol import Engine, LoadRequest
from bendi.engines.random_weights import write_random_model
from bendi.engines.registry import open_engine
from bendi.errors import EngineError
from bendi.formats.blueprints import blueprint_from_config
from bendi.i18n import _
from bendi.messages import GenerateRequest, Timings
from bendi.planner.work import ModelWork, model_work
from bendi.settings import Settings

_FIRST_WORD = 300
"""Token numbers below are bytes and special tokens."""
_SHORT_TOK = 4
_WARM_UP_TOK = 8
_PROMPT_LIMIT_S = 0.8


@dataclass(frozen=True)
class Probe:
    """A model to be timed. `config`: as in a Hugging Face `config.json`. `type_name`: of its matrices.

    `depth_tok`: time it after so many tokens, too; 0: only at the beginning. `prompt_tok`: the longest prompt to time.
    `answer_tok`: tokens generated for one timing; `repeats`: timings of each kind.
    """

    name: str
    config: dict[str, object]
    type_name: str
    depth_tok: int = 0
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
class ProbeResult:
    """What one probe showed. `generation`: seconds for one token, `prompt`: for one prompt of `prompt_tok` tokens;
    those with `deep_` after `depth_tok` tokens. `load_s`: until the engine was ready, its process included."""

    work: ModelWork
    build: str
    load_s: float
    prompt_tok: int
    generation: Times
    prompt: Times | None
    depth_tok: int = 0
    deep_generation: Times | None = None
    deep_prompt: Times | None = None


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
        context_tok=probe.depth_tok + probe.prompt_tok + 512,
        threads=probe.threads,
        type_k=probe.kv_type,
        type_v=probe.kv_type,
    )
    started_s = time.perf_counter()
    with closing(open_engine(load, settings)) as engine:
        load_s = time.perf_counter() - started_s
        words = _words(work.vocab_size)
        _ask(engine, _take(words, _SHORT_TOK), _WARM_UP_TOK)
        prompt_tok = probe.prompt_tok and _affordable(engine, words, probe.prompt_tok)
        generation = _generation(engine, (), words, probe)
        prompt = _prompts(engine, (), words, probe, prompt_tok) if prompt_tok else None
        if not probe.depth_tok:
            return ProbeResult(work, engine.info.build, load_s, prompt_tok, generation, prompt)
        past = _take(words, probe.depth_tok)
        _ask(engine, past, 1)
        return ProbeResult(
            work,
            engine.info.build,
            load_s,
            prompt_tok,
            generation,
            prompt,
            probe.depth_tok,
            _generation(engine, past, words, probe),
            _prompts(engine, past, words, probe, prompt_tok) if prompt_tok else None,
        )


def _affordable(engine: Engine, words: Iterator[int], wanted_tok: int) -> int:
    """The longest prompt, up to `wanted_tok`, that does not take too long."""
    timings = _ask(engine, _take(words, 32), 1)
    tok_s = timings.pp_tok_s or 1.0
    prompt_tok = wanted_tok
    while prompt_tok > 32 and prompt_tok / tok_s > _PROMPT_LIMIT_S:
        prompt_tok //= 2
    return prompt_tok


def _generation(engine: Engine, past: tuple[int, ...], words: Iterator[int], probe: Probe) -> Times:
    timings = [_ask(engine, past + _take(words, _SHORT_TOK), probe.answer_tok + 1) for _ in range(probe.repeats)]
    return Times(tuple(1 / (timing.tg_tok_s or 1e-9) for timing in timings))


def _prompts(engine: Engine, past: tuple[int, ...], words: Iterator[int], probe: Probe, prompt_tok: int) -> Times:
    timings = [_ask(engine, past + _take(words, prompt_tok), 1) for _ in range(max(probe.repeats - 1, 2))]
    return Times(tuple(prompt_tok / (timing.pp_tok_s or 1e-9) for timing in timings))


def _words(vocab_size: int) -> Iterator[int]:
    """Token numbers without a pattern, so that no prompt is found in the cache."""
    source = random.Random(vocab_size)
    while True:
        yield source.randrange(_FIRST_WORD, vocab_size)


def _take(words: Iterator[int], count: int) -> tuple[int, ...]:
    return tuple(next(words) for _ in range(count))


def _ask(engine: Engine, prompt: tuple[int, ...], answer_tok: int) -> Timings:
    *_texts, last = engine.generate(GenerateRequest(prompt=prompt, max_tokens=answer_tok, ignore_end=True))
    if last.timings is None:
        raise EngineError(_("The engine gave no timings."), hint=_("See `bendi doctor`."))
    return last.timings
