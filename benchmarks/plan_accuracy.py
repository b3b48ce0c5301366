"""Compares predicted with measured speed, on models that calibration did not see.

    python benchmarks/plan_accuracy.py [--quick] [--models qwen2.5:0.5b,...] [--types Q8_0,...] [--depths 0,2048,8192]
    python benchmarks/plan_accuracy.py --replay runs.json

Calibrates this machine (`--calibrations N` times, and once more before each model; the middle of the last few counts,
as `bendi calibrate` does when it is run again), then writes models of real shapes with random weights, runs them with
the real engine, and compares PP and TG after several depths. The tokens of a depth are computed once for each model:
its other quantizations go on from that state, which takes as long (what they say is as meaningless as the weights). A
timing beside which something else was running is taken again for a while (`--patience`); rows for which that did not
help are marked and counted like all others. The bars: median error 10 %, ninetieth percentile 20 %. Rows are appended
to `--out` as JSON lines as they are measured; `--resume` skips rows that are there; `--predict-again` compares them
with new predictions and measures nothing.

`--replay`: a JSON list of measured runs of other machines, `{"machine": "ram=64GiB,gpu=RTX 4090", "model": "qwen3:8b",
"quantization": "Q4_K_M", "depth_tok": 0, "pp_tok_s": ..., "tg_tok_s": ..., "source": "https://..."}`, compared with
what is predicted from the specification of those machines; benchmarks/published_runs.json is such a file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bendi.advisor.advice import described_machine
from bendi.engines import LoadRequest, open_engine
from bendi.engines.calibrate import calibrate
from bendi.engines.kv_state import model_fingerprint, state_paths
from bendi.engines.pace import Pace
from bendi.engines.protocol import Engine, StatefulEngine
from bendi.engines.random_weights import write_random_model
from bendi.engines.timing import endless_words, take, timed
from bendi.formats import read_gguf
from bendi.formats.blueprint import Blueprint
from bendi.formats.blueprints import blueprint_from_config
from bendi.hardware import detect_machine
from bendi.measured import machine_id
from bendi.planner.calibration import Calibration
from bendi.planner.calibration_runs import MOST_RUNS, combined, runs_from_json, to_json
from bendi.planner.layers import model_work
from bendi.planner.mixture import facts_of, quantized_types, shapes_of
from bendi.planner.placement import default_calibration, plan_subject
from bendi.planner.speed import generation_s, load_s, prompt_s
from bendi.planner.subject import Conditions, subjects_of
from bendi.planner.work import ModelWork
from bendi.settings import Settings, load_settings
from bendi.store.known_models import known_models

MODELS = ("qwen2.5:0.5b", "llama3.2:1b", "olmoe:7b", "llama3.2:3b", "llama3.1:8b")
TYPES = ("Q6_K", "Q4_K_M", "Q8_0", "Q4_0")
DEPTHS_TOK = (0, 2048, 8192)
_PROMPT_TOK = 512
_LEAST_VOCABULARY = 32000
_ANSWER_TOK = 24
_SLOW_PROMPT_S = 6.0
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Row:
    model: str
    quantization: str
    kind: str
    depth_tok: int
    predicted: float
    measured: float
    retaken: int = 0
    disturbed: bool = False

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def main() -> int:
    args = _arguments()
    if args.replay:
        return _replay(Path(args.replay))
    settings = load_settings()
    runs = _runs(settings, args, args.calibrations)
    pace = Pace(combined(runs).cpu.threads)
    done = _done(args)
    rows = list(done)
    if args.predict_again:
        return _summary([_predicted_again(row, combined(runs)) for row in rows])
    for alias in args.models.split(","):
        if all(any((row.model, row.quantization) == (alias, name) for row in done) for name in args.types.split(",")):
            continue
        # The machine is not the same all the time; whoever wants exact plans calibrates now and then.
        runs = _runs(settings, args, 1, runs)
        calibration = combined(runs)
        with tempfile.TemporaryDirectory(dir=settings.cache_dir) as states:
            for file_type in args.types.split(","):
                if any((row.model, row.quantization) == (alias, file_type) for row in done):
                    continue
                depths_tok = [int(depth) for depth in args.depths.split(",")]
                subject = Subject(alias, file_type, depths_tok, Path(states))
                for row in _measure(subject, settings, calibration, Quiet(pace, args.patience)):
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
    parser.add_argument("--out")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--calibration", help="a file to keep the calibration in; used if it is there")
    parser.add_argument("--calibrations", type=int, default=3, help="so many, of which the middle counts")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds to wait for quiet, for each row")
    parser.add_argument("--predict-again", action="store_true", help="new predictions for the rows of --out")
    parser.add_argument("--replay")
    args = parser.parse_args()
    if args.quick:
        args.models, args.depths = ",".join(MODELS[:2]), "0,2048"
    return args


def _runs(
    settings: Settings, args: argparse.Namespace, wanted: int, known: Sequence[Calibration] = ()
) -> list[Calibration]:
    """`wanted` calibrations more than those that are `known`, of which the last few count."""
    path = Path(args.calibration) if args.calibration else None
    runs = list(known)
    if not runs and path and path.exists():
        runs = list(runs_from_json(path.read_text()))
        wanted -= len(runs)
    for _run in range(wanted):
        run = calibrate(settings, machine_id(detect_machine()), earlier=lambda _build, runs=runs: runs)
        print(
            f"calibrated in {run.took_s:.0f} s, noise {run.noise:.3f},"
            f" spread {run.spread:.3f}, disturbed {run.disturbed_share:.0%}",
            flush=True,
        )
        runs = [*runs, run][-MOST_RUNS:]
        if path:
            path.write_text(to_json(runs))
    return runs


def _done(args: argparse.Namespace) -> list[Row]:
    if not ((args.resume or args.predict_again) and args.out and Path(args.out).exists()):
        return []
    return [Row(**json.loads(line)) for line in Path(args.out).read_text().splitlines()]


@dataclass(frozen=True)
class Subject:
    """What is measured in one go. `states`: where the states of a model's earlier quantizations are kept."""

    model: str
    quantization: str
    depths_tok: list[int]
    states: Path

    @property
    def blueprint(self) -> Blueprint:
        # Speed at a depth does not depend on how long a context the model was trained for.
        config = {**known_models()[self.model].config, "max_position_embeddings": 32768}
        return blueprint_from_config(config, self.model.replace(":", "-"))

    @cached_property
    def types(self) -> list[str]:
        header = self.blueprint.header()
        return quantized_types(shapes_of(header), facts_of(header), self.quantization)

    @cached_property
    def work(self) -> ModelWork:
        return model_work(self.blueprint.header(self.types))


@dataclass(frozen=True)
class Quiet:
    """Whether the machine is, and how many seconds a row may wait for it. `pace`: one for the whole run, since what is
    slow for minutes shows only beside what was fast before."""

    pace: Pace
    patience_s: float


def _measure(subject: Subject, settings: Settings, calibration: Calibration, quiet: Quiet) -> Iterator[Row]:
    blueprint, types, work = subject.blueprint, subject.types, subject.work

    def row(kind: str, depth_tok: int, predicted: float, taken: Taken) -> Row:
        name, measured = subject.quantization, statistics.median(taken.tok_s)
        return Row(subject.model, name, kind, depth_tok, predicted, measured, taken.retaken, taken.disturbed)

    with tempfile.TemporaryDirectory(dir=settings.cache_dir) as folder:
        path = write_random_model(Path(folder) / "model.gguf", blueprint, types)
        os.sync()  # the system must not be busy with writing this file while it is read
        context_tok = max(subject.depths_tok) + 1024
        load = LoadRequest(path, context_tok, threads=calibration.cpu.threads, state_dir=subject.states)
        started_s = time.perf_counter()
        with closing(open_engine(load, settings)) as engine:
            loaded = Taken(quiet, [time.perf_counter() - started_s])
            yield row("load_s", 0, load_s(work, calibration, cold=False), loaded)
            words = endless_words(work.vocab_size)
            timed(engine, take(words, 4), 8)
            for depth_tok in subject.depths_tok:
                past = _filled(engine, path, depth_tok, subject.states)
                for kind, rates in (("tg", _generation), ("pp", _prompts)):
                    predicted = _predicted(work, calibration, kind, depth_tok)
                    yield row(kind, depth_tok, predicted, rates(Taken(quiet), engine, past, words))


def _predicted_again(row: Row, calibration: Calibration) -> Row:
    work = Subject(row.model, row.quantization, [], Path()).work
    if row.kind == "load_s":
        predicted = load_s(work, calibration, cold=False)
    else:
        predicted = _predicted(work, calibration, row.kind, row.depth_tok)
    again = replace(row, predicted=predicted)
    _show(again)
    return again


def _filled(engine: Engine, path: Path, depth_tok: int, states: Path) -> tuple[int, ...]:
    """Makes the engine hold `depth_tok` tokens, the same ones for all quantizations of a model; returns them."""
    assert isinstance(engine, StatefulEngine)
    filled = take(endless_words(_LEAST_VOCABULARY), depth_tok)
    name = f"depth-{depth_tok}"
    _state, facts_path = state_paths(states, name)
    if facts_path.exists():
        facts = json.loads(facts_path.read_text())
        facts["model"] = model_fingerprint([path], [read_gguf(path)])  # for another one it would be refused
        facts_path.write_text(json.dumps(facts))
        engine.restore_state(name)
    elif depth_tok:
        timed(engine, filled, 1)
        engine.save_state(name)
    return filled


@dataclass
class Taken:
    """Timings of one kind, of which the median counts: a user sees the usual, not the best."""

    quiet: Quiet
    tok_s: list[float] = field(default_factory=list)
    retaken: int = 0
    disturbed: bool = False
    started_s: float = field(default_factory=time.perf_counter)

    def take(self, timing: Callable[[], float]) -> None:
        """Takes it again while something else runs beside it, as long as there is patience."""
        pace = self.quiet.pace
        while True:
            before = pace.look()
            rate = timing()
            if pace.slowness(before, pace.look()) <= 1:
                break
            if time.perf_counter() - self.started_s > self.quiet.patience_s:
                self.disturbed = True
                break
            self.retaken += 1
            time.sleep(_PAUSE_S)
        self.tok_s.append(rate)


def _generation(taken: Taken, engine: Engine, past: tuple[int, ...], words: Iterator[int]) -> Taken:
    for _repeat in range(4):
        taken.take(lambda: timed(engine, past + take(words, 4), _ANSWER_TOK + 1).tg_tok_s or 0.0)
    return taken


def _prompts(taken: Taken, engine: Engine, past: tuple[int, ...], words: Iterator[int]) -> Taken:
    while len(taken.tok_s) < 3:
        taken.take(lambda: timed(engine, past + take(words, _PROMPT_TOK), 1).pp_tok_s or 0.0)
        if _PROMPT_TOK / taken.tok_s[-1] > _SLOW_PROMPT_S:
            break
    return taken


def _predicted(work: ModelWork, calibration: Calibration, kind: str, depth_tok: int) -> float:
    if kind == "tg":
        middle_tok = depth_tok + 4 + _ANSWER_TOK // 2
        return 1 / (generation_s(work, calibration.cpu, middle_tok) * calibration.noise)
    return _PROMPT_TOK / (prompt_s(work, calibration.cpu, _PROMPT_TOK, depth_tok) * calibration.noise)


def _show(row: Row) -> None:
    print(
        f"{row.model:14s} {row.quantization:7s} {row.kind:7s} {row.depth_tok:6d}"
        f" {row.predicted:9.2f} {row.measured:9.2f} {row.error:+7.1%}"
        f"{f'  taken again {row.retaken} times' if row.retaken else ''}{'  disturbed' if row.disturbed else ''}",
        flush=True,
    )


def _summary(rows: list[Row]) -> int:
    failed = False
    for kind in ("tg", "pp", "load_s"):
        errors = sorted(abs(row.error) for row in rows if row.kind == kind)
        if not errors:
            continue
        middle, ninetieth = statistics.median(errors), errors[min(int(0.9 * len(errors)), len(errors) - 1)]
        disturbed = sum(row.disturbed for row in rows if row.kind == kind)
        print(
            f"{kind}: {len(errors)} rows, {disturbed} of them disturbed,"
            f" median error {middle:.1%}, 90th percentile {ninetieth:.1%}"
        )
        for depth_tok in sorted({row.depth_tok for row in rows if row.kind == kind and kind != "load_s"}):
            at = [abs(row.error) for row in rows if (row.kind, row.depth_tok) == (kind, depth_tok)]
            print(f"  after {depth_tok} tokens: {len(at)} rows, median error {statistics.median(at):.1%}")
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
        for kind, rate in (("tg", speed.tg if speed else None), ("pp", speed.pp if speed else None)):
            if rate is not None and run[f"{kind}_tok_s"]:
                predicted, measured = rate.tok_s, run[f"{kind}_tok_s"]
                rows.append(Row(run["model"], run["quantization"], kind, run["depth_tok"], predicted, measured))
                _show(rows[-1])
    return _summary(rows)


if __name__ == "__main__":
    sys.exit(main())
