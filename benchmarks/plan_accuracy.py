"""Compares predicted with measured speed, on models that calibration did not see.

    python benchmarks/plan_accuracy.py [--quick] [--models qwen2.5-0.5b,...] [--types Q8_0,...] [--depths 0,2048,8192]
    python benchmarks/plan_accuracy.py --replay runs.json

Calibrates this machine, then writes models of real shapes with random weights, runs them with the real engine, and
compares PP and TG after several depths. A slow model is filled up to the largest depth in its Q4_K_M version only
(`--full`: in all). The bars: median error 10 %, ninetieth percentile 20 %. Rows are appended to `--out` as JSON lines
as they are measured; `--resume` skips rows that are there.

`--replay`: a JSON list of measured runs of other machines, `{"machine": "ram=64GiB,gpu=RTX 4090", "model": "qwen3:8b",
"quantization": "Q4_K_M", "depth_tok": 0, "pp_tok_s": ..., "tg_tok_s": ..., "source": "https://..."}`, compared with
what is predicted from the specification of those machines; benchmarks/published_runs.json is such a file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bendi.advisor.advice import described_machine
from bendi.engines import LoadRequest, open_engine
from bendi.engines.calibrate import calibrate
from bendi.engines.protocol import Engine
from bendi.engines.random_weights import write_random_model
from bendi.formats.blueprint import Blueprint
from bendi.formats.blueprints import blueprint_from_config
from bendi.hardware import detect_machine
from bendi.measured import machine_id
from bendi.messages import GenerateRequest, Sampling
from bendi.planner.calibration import Calibration, from_json, to_json
from bendi.planner.mixture import facts_of, quantized_types, shapes_of
from bendi.planner.placement import default_calibration, plan_subject
from bendi.planner.speed import generation_s, load_s, prompt_s
from bendi.planner.subject import Conditions, subjects_of
from bendi.planner.work import ModelWork, model_work
from bendi.settings import Settings, load_settings
from bendi.store.known_models import known_models

MODELS = ("qwen2.5:0.5b", "llama3.2:1b", "llama3.2:3b", "olmoe:7b", "llama3.1:8b")
TYPES = ("Q4_K_M", "Q8_0", "Q4_0", "Q6_K")
DEPTHS_TOK = (0, 2048, 8192)
_PROMPT_TOK = 512
_ANSWER_TOK = 24
_SLOW_PARAMETERS = 2.5e9


@dataclass(frozen=True)
class Row:
    model: str
    quantization: str
    kind: str
    depth_tok: int
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def main() -> int:
    args = _arguments()
    if args.replay:
        return _replay(Path(args.replay))
    settings = load_settings()
    calibration = _calibration(settings, args)
    done = _done(args)
    rows = list(done)
    for alias in args.models.split(","):
        known = known_models()[alias]
        # Speed at a depth does not depend on how long a context the model was trained for.
        config = {**known.config, "max_position_embeddings": 32768}
        blueprint = blueprint_from_config(config, alias.replace(":", "-"))
        for file_type in args.types.split(","):
            if any((row.model, row.quantization) == (alias, file_type) for row in done):
                continue
            depths = [int(depth) for depth in args.depths.split(",")]
            if not args.full and known.active_parameters > _SLOW_PARAMETERS and file_type != "Q4_K_M":
                depths = depths[:-1]
            for row in _measure(alias, blueprint, file_type, depths, (settings, calibration)):
                rows.append(row)
                _show(row)
                if args.out:
                    with Path(args.out).open("a") as out:
                        out.write(json.dumps(vars(row)) + "\n")
    return _summary(rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--depths", default=",".join(map(str, DEPTHS_TOK)))
    parser.add_argument("--quick", action="store_true", help="the two smallest models, depths 0 and 2048")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--out")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--calibration", help="a file to keep the calibration in; used if it is there")
    parser.add_argument("--replay")
    args = parser.parse_args()
    if args.quick:
        args.models, args.depths, args.full = ",".join(MODELS[:2]), "0,2048", True
    return args


def _calibration(settings: Settings, args: argparse.Namespace) -> Calibration:
    path = Path(args.calibration) if args.calibration else None
    if path and path.exists():
        return from_json(path.read_text())
    calibration = calibrate(settings, machine_id(detect_machine()))
    print(f"calibrated in {calibration.took_s:.0f} s, noise {calibration.noise:.3f}, spread {calibration.spread:.3f}")
    if path:
        path.write_text(to_json(calibration))
    return calibration


def _done(args: argparse.Namespace) -> list[Row]:
    if not (args.resume and args.out and Path(args.out).exists()):
        return []
    return [Row(**json.loads(line)) for line in Path(args.out).read_text().splitlines()]


def _measure(
    alias: str, blueprint: Blueprint, file_type: str, depths_tok: list[int], setting: tuple[Settings, Calibration]
) -> Iterator[Row]:
    settings, calibration = setting
    header = blueprint.header()
    types = quantized_types(shapes_of(header), facts_of(header), file_type)
    work = model_work(blueprint.header(types))
    with tempfile.TemporaryDirectory(dir=settings.cache_dir) as folder:
        path = write_random_model(Path(folder) / f"{blueprint.name}-{file_type}.gguf", blueprint, types)
        os.sync()  # the system must not be busy with writing this file while it is read
        started_s = time.perf_counter()
        load = LoadRequest(path, context_tok=max(depths_tok) + 1024, threads=calibration.cpu.threads)
        with closing(open_engine(load, settings)) as engine:
            took_s = time.perf_counter() - started_s
            yield Row(alias, file_type, "load_s", 0, load_s(work, calibration, cold=False), took_s)
            words = _words(work.vocab_size)
            _ask(engine, _take(words, 4), 8)
            for depth_tok in depths_tok:
                past = _take(words, depth_tok)
                if past:
                    _ask(engine, past, 1)
                for kind, tok_s in _rates(engine, past, words):
                    yield Row(alias, file_type, kind, depth_tok, _predicted(work, calibration, kind, depth_tok), tok_s)


def _rates(engine: Engine, past: tuple[int, ...], words: Iterator[int]) -> Iterator[tuple[str, float]]:
    """Medians: a user sees the usual, not the best."""
    tg = [_ask(engine, past + _take(words, 4), _ANSWER_TOK + 1)[1] for _ in range(4)]
    yield "tg", statistics.median(tg)
    pp = [_ask(engine, past + _take(words, _PROMPT_TOK), 1)[0]]
    while len(pp) < 3 and _PROMPT_TOK / pp[-1] < 6:
        pp.append(_ask(engine, past + _take(words, _PROMPT_TOK), 1)[0])
    yield "pp", statistics.median(pp)


def _predicted(work: ModelWork, calibration: Calibration, kind: str, depth_tok: int) -> float:
    if kind == "tg":
        middle_tok = depth_tok + 4 + _ANSWER_TOK // 2
        return 1 / (generation_s(work, calibration.cpu, middle_tok) * calibration.noise)
    return _PROMPT_TOK / (prompt_s(work, calibration.cpu, _PROMPT_TOK, depth_tok) * calibration.noise)


def _words(vocab_size: int) -> Iterator[int]:
    source = random.Random(7)
    while True:
        yield source.randrange(300, vocab_size)


def _take(words: Iterator[int], count: int) -> tuple[int, ...]:
    return tuple(next(words) for _ in range(count))


def _ask(engine: Engine, prompt: tuple[int, ...], answer_tok: int) -> tuple[float, float]:
    """PP and TG of one request, tokens per second."""
    request = GenerateRequest(prompt=prompt, max_tokens=answer_tok, ignore_end=True, sampling=Sampling(seed=1))
    *_texts, last = engine.generate(request)
    assert last.timings is not None
    return last.timings.pp_tok_s or 0.0, last.timings.tg_tok_s or 0.0


def _show(row: Row) -> None:
    print(
        f"{row.model:14s} {row.quantization:7s} {row.kind:7s} {row.depth_tok:6d}"
        f" {row.predicted:9.2f} {row.measured:9.2f} {row.error:+7.1%}",
        flush=True,
    )


def _summary(rows: list[Row]) -> int:
    failed = False
    for kind in ("tg", "pp", "load_s"):
        errors = sorted(abs(row.error) for row in rows if row.kind == kind)
        if not errors:
            continue
        middle, ninetieth = statistics.median(errors), errors[min(int(0.9 * len(errors)), len(errors) - 1)]
        print(f"{kind}: {len(errors)} rows, median error {middle:.1%}, 90th percentile {ninetieth:.1%}")
        failed |= kind != "load_s" and (middle > 0.10 or ninetieth > 0.20)
    return int(failed)


def _replay(path: Path) -> int:
    runs: list[dict[str, Any]] = json.loads(path.read_text())
    rows = []
    for run in runs:
        machine = described_machine(run["machine"])
        known = known_models()[run["model"]]
        header = blueprint_from_config(known.config, known.alias).header()
        subject = subjects_of(known.alias, [header], [run["quantization"]])[0]
        plan = plan_subject(subject, machine, default_calibration(machine), Conditions())
        print(f"{run['machine']}  {run['source']}")
        speed = min(plan.speeds, key=lambda speed: abs(speed.depth_tok - run["depth_tok"]), default=None)
        for kind, rate in (("tg", speed and speed.tg), ("pp", speed and speed.pp)):
            if rate is not None and run[f"{kind}_tok_s"]:
                predicted, measured = rate.tok_s, run[f"{kind}_tok_s"]
                rows.append(Row(run["model"], run["quantization"], kind, run["depth_tok"], predicted, measured))
                _show(rows[-1])
    return _summary(rows)


if __name__ == "__main__":
    sys.exit(main())
