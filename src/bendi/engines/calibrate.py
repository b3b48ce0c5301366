"""Measures how fast this machine computes with the engine build that is in use, in less than a minute.

Real engine, small models with random weights: each shows one rate (`probes`, `rates_from_probes`). What was measured
while something else was running (`pace`) is measured again later, as long as there is time.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

from bendi.engines.bandwidth import disk_read_bytes_s, memory_read_bytes_s
from bendi.engines.pace import Look, Pace
from bendi.engines.probes import Config, Heads, Probe, ProbeResult, dense_config, expert_config, run_probe
from bendi.engines.rates_from_probes import Rates, solve_again_s, solve_attention, solve_far
from bendi.errors import StoreError
from bendi.formats import TENSOR_TYPES_BY_NAME
from bendi.hardware import Cpu, detect_machine
from bendi.i18n import _
from bendi.planner.calibration import NEAR_TOK, Calibration, DeviceRates
from bendi.planner.calibration_runs import times_measured
from bendi.settings import Settings
from bendi.units import GIB, MIB, format_size

BUDGET_S = 52.0
_NEEDED_BYTES = GIB
_USUAL_L2_BYTES = MIB
"""Of one core."""
_F16_BYTES = 2
_WIDE_LAYER_WEIGHTS = 50_000_000
_CACHES_FILLED = 5
"""Weights are so many times as large as the largest cache, where they are to be read from memory."""
_CACHE_SWEPT = 1.5
_MOST_SWEPT_BYTES = 128 * MIB
_MOST_TRIES = 2
_RETRIED_AFTER = 6
"""So many other measurements later, whatever disturbed one may be over."""
_MOST_THREADS_TRIED = 4

_HEADS = ((16, 16, 128), (28, 4, 128), (32, 8, 64), (8, 2, 256), (12, 2, 64))
_FAR_HEADS = (((14, 2, 64), 2), ((32, 8, 128), 1))
"""Heads and layers of models that are timed where their keys and values have left the cache of a core."""
_FAR_TOK = 4096
"""So far beyond."""

OnProgress = Callable[[float, str], None]
EarlierRuns = Callable[[str], Sequence[Calibration]]
"""Those of an engine build."""


def calibrate(
    settings: Settings,
    machine_id: str,
    on_progress: OnProgress | None = None,
    budget_s: float = BUDGET_S,
    earlier: EarlierRuns = lambda _build: (),
) -> Calibration:
    """Measures this machine with the engine that `settings` choose. `on_progress`: fraction done and what is measured.
    What fewer of the `earlier` runs had time for comes first.

    Raises StoreError when there is no room for the models, EngineError when the engine does not run here.
    """
    folder = _scratch(settings.cache_dir)
    try:
        run = _Run(settings, folder, on_progress or (lambda _fraction, _label: None), budget_s, earlier)
        return run.calibration(machine_id)
    except OSError as error:
        raise StoreError(
            _("The models for measuring could not be written: {error}").format(error=error),
            hint=_("Make room in {folder}, or set BENDI_CACHE to another one.").format(folder=settings.cache_dir),
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _scratch(cache_dir: Path) -> Path:
    cache_dir.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(cache_dir).free
    if free_bytes < _NEEDED_BYTES:
        raise StoreError(
            _("Measuring needs {needed} of disk space for a while; {folder} has {free}.").format(
                needed=format_size(_NEEDED_BYTES), folder=cache_dir, free=format_size(free_bytes)
            ),
            hint=_("Make room, or set BENDI_CACHE to another folder."),
        )
    return Path(tempfile.mkdtemp(prefix="calibrate-", dir=cache_dir))


@dataclass(frozen=True)
class _Step:
    """One measurement. `what`: which one; `subject`: the type or the position of the heads that it is about. `label`:
    translated. `needed`: it is made even when the time is over, since nothing else can stand for it."""

    what: str
    subject: str
    label: str
    probe: Probe
    needed: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.what, self.subject


def _steps(l3_bytes: int, near_numbers: int) -> list[_Step]:
    """In the order of what plans need most; of types, in the order of their use in files that people download. Where
    time runs out, rates are borrowed from their kin."""
    fixed, heads = _("fixed costs"), (4, 2, 64)
    small = Probe("small", dense_config(2, 256, 256, heads), "Q8_0", prompt_tok=0)
    layers = Probe("layers", dense_config(32, 512, 512, (8, 2, 64)), "Q8_0", prompt_tok=128)
    attention = _("attention")
    return [
        _Step("small", "", fixed, small, needed=True),
        _Step("wide", "", fixed, replace(small, name="wide", config=_with_vocabulary(small.config)), needed=True),
        *(
            _Step("attention", str(at), attention, _attention_probe(heads, "f16", NEAR_TOK, 128, l3_bytes), needed=True)
            for at, heads in enumerate(_HEADS)
        ),
        _dense_step("Q8_0", l3_bytes, needed=True),
        _Step("layers", "", _("layers"), layers, needed=True),
        *_far_steps(near_numbers, "1"),
        *(_dense_step(name, l3_bytes) for name in ("Q4_K", "Q6_K", "Q4_0", "Q5_0")),
        *(_expert_step(name) for name in ("Q4_K", "Q8_0")),
        _cache_step("q8_0", l3_bytes),
        *(_dense_step(name, l3_bytes) for name in ("Q5_K", "MXFP4")),
        *(_expert_step(name) for name in ("MXFP4", "Q6_K")),
        *(_dense_step(name, l3_bytes) for name in ("Q3_K", "IQ4_XS", "Q2_K")),
        *_far_steps(near_numbers, "2"),
        _cache_step("q4_0", l3_bytes),
        _expert_step("Q4_0"),
        _dense_step("F16", l3_bytes),
        *(_expert_step(name) for name in ("Q5_K", "Q3_K", "IQ4_XS")),
        *(_dense_step(name, l3_bytes) for name in ("IQ4_NL", "Q5_1", "IQ3_S", "Q4_1", "BF16")),
        *(_dense_step(name, l3_bytes) for name in ("IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "F32")),
    ]


def _with_vocabulary(config: Config) -> Config:
    return {**config, "vocab_size": 128000}


def _dense_step(type_name: str, l3_bytes: int, *, needed: bool = False) -> _Step:
    return _Step("dense", type_name, type_name, _dense_probe(type_name, l3_bytes), needed)


def _expert_step(type_name: str) -> _Step:
    config = expert_config(3, 2048, (16, 4, 768), (16, 4, 128))
    probe = Probe(f"experts-{type_name}", config, type_name, answer_tok=4, repeats=2)
    return _Step("experts", type_name, _("experts in {type}").format(type=type_name), probe)


def _cache_step(kv_type: str, l3_bytes: int) -> _Step:
    probe = _attention_probe(_HEADS[1], kv_type, NEAR_TOK // 2, 128, l3_bytes)
    return _Step("cache", kv_type, _("KV cache in {type}").format(type=kv_type), probe)


def _dense_probe(type_name: str, l3_bytes: int) -> Probe:
    """Large enough that the caches do not matter."""
    layer_bytes = _WIDE_LAYER_WEIGHTS * TENSOR_TYPES_BY_NAME[type_name].bits_per_weight / 8
    layers = min(max(int(_CACHES_FILLED * l3_bytes / layer_bytes), 6), 14)
    return Probe(f"dense-{type_name}", _wide_config(layers), type_name, prompt_tok=128)


def _wide_config(layers: int) -> Config:
    return dense_config(layers, 2048, 6144, (16, 8, 128))


def _attending_config(layers: int, heads: Heads, l3_bytes: int) -> Config:
    """Little but attention, and as many weights as it takes to drive keys and values out of the caches for each token,
    as real models do."""
    forward = int(min(_CACHE_SWEPT * l3_bytes, _MOST_SWEPT_BYTES)) // (3 * 256 * layers) // 256 * 256
    return dense_config(layers, 256, max(forward, 256), heads)


def _attention_probe(heads: Heads, kv_type: str, depth_tok: int, prompt_tok: int, l3_bytes: int) -> Probe:
    config = _attending_config(4, heads, l3_bytes)
    name = f"attention-{'-'.join(map(str, heads))}-{kv_type}"
    return Probe(name, config, "Q8_0", (depth_tok,), prompt_tok, repeats=4, kv_type=kv_type)


def _far_steps(near_numbers: int, process: str) -> Iterator[_Step]:
    """Where a process has its memory decides how fast attention is: more than one is asked."""
    for heads, layers in _FAR_HEADS:
        near_tok = near_numbers // (2 * heads[2])
        if near_tok <= _FAR_TOK:  # longer prompts than this take too long here
            subject = f"{heads[2]}/{process}"
            yield _Step("far", subject, _("attention, far"), _far_probe(heads, layers, near_tok))


def _far_probe(heads: Heads, layers: int, near_tok: int) -> Probe:
    near_tok = max(near_tok, NEAR_TOK)
    depths_tok = (near_tok, near_tok + _FAR_TOK)
    return Probe(f"far-{heads[2]}", dense_config(layers, 256, 256, heads), "Q8_0", depths_tok, prompt_tok=128)


@dataclass(frozen=True)
class _Measured:
    """`looks`: at the machine's pace before and after. `tries`: how often it was measured, most recently as the
    `number`th of all measurements."""

    result: ProbeResult
    looks: tuple[Look, Look]
    tries: int
    number: int


class _Run:
    """One calibration: the order of the measurements, and the time they may take."""

    def __init__(
        self, settings: Settings, folder: Path, on_progress: OnProgress, budget_s: float, earlier: EarlierRuns
    ) -> None:
        self._settings, self._folder, self._on_progress = settings, folder, on_progress
        self._started_s, self._budget_s, self._earlier = time.monotonic(), budget_s, earlier
        self._cpu = detect_machine().cpu
        self._pace = Pace(self._cpu.usable_cores)
        self._threads = self._cpu.usable_cores
        l2_bytes = self._cpu.l2_bytes // max(self._cpu.physical_cores, 1) or _USUAL_L2_BYTES
        self._near_numbers = l2_bytes // _F16_BYTES
        self._found: dict[tuple[str, str], _Measured] = {}

    def calibration(self, machine_id: str) -> Calibration:
        self._report(_("memory and disk"))
        memory_bytes_s = memory_read_bytes_s(self._threads)
        disk_bytes_s = disk_read_bytes_s(self._folder)
        threads_tried = self._try_threads()
        self._measure_all()
        found = [*self._found.values()]
        noises = [noise for measured in found for noise in measured.result.noises]
        tenths = quantiles(noises, n=10)
        return Calibration(
            machine=machine_id,
            build=found[0].result.build,
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            took_s=round(time.monotonic() - self._started_s, 1),
            cpu=self._rates(memory_bytes_s),
            memory_read_bytes_s=memory_bytes_s,
            disk_read_bytes_s=disk_bytes_s,
            noise=median(noises),
            spread=(tenths[-1] - tenths[0]) / 2,
            threads_tried=threads_tried,
            disturbed_share=sum(self._pace.slowness(*measured.looks) > 1 for measured in found) / len(found),
        )

    def _report(self, label: str) -> None:
        self._on_progress(min((time.monotonic() - self._started_s) / self._budget_s, 0.99), label)

    def _left_s(self) -> float:
        return self._budget_s - (time.monotonic() - self._started_s)

    def _run(self, probe: Probe) -> ProbeResult:
        return run_probe(replace(probe, threads=probe.threads or self._threads), self._settings, self._folder)

    def _try_threads(self) -> dict[int, float]:
        """More threads than memory can feed only wait for one another; so the count is measured."""
        cores = self._cpu.usable_cores
        counts = sorted({cores, cores * 3 // 4, cores // 2, self._cpu.performance_cores} - {0}, reverse=True)
        if len(counts) < 2:
            return {}
        seconds: dict[int, float] = {}
        for count in counts[:_MOST_THREADS_TRIED]:
            self._report(_("{count} threads").format(count=count))
            probe = Probe("threads", _wide_config(4), "Q4_K", prompt_tok=0, threads=count)
            seconds[count] = self._run(probe).start.generation.best_s
        best_s = min(seconds.values())
        self._threads = min(seconds, key=lambda count: (seconds[count] > 1.02 * best_s, -count))
        return {count: best_s / taken_s for count, taken_s in seconds.items()}

    def _measure_all(self) -> None:
        """Each step once, and again a little later where it was disturbed."""
        steps = _steps(self._cpu.l3_bytes, self._near_numbers)
        before, longest_s, count, ordered = self._pace.look(), 0.0, 0, False
        while step := self._next(steps, count, out_of_time=self._left_s() < 1.15 * longest_s):
            self._report(step.label)
            started_s = time.monotonic()
            result = self._run(step.probe)
            after = self._pace.look()
            longest_s = max(longest_s, time.monotonic() - started_s)
            count += 1
            if not ordered:
                runs, ordered = self._earlier(result.build), True
                steps.sort(key=lambda step: (not step.needed, times_measured(runs, step.what, step.subject)))
            measured = _Measured(result, (before, after), 1, count)
            known = self._found.get(step.key)
            if known is not None:
                better = min(known, measured, key=lambda one: self._pace.slowness(*one.looks))
                measured = replace(better, tries=known.tries + 1, number=count)
            self._found[step.key] = measured
            before = after

    def _next(self, steps: Sequence[_Step], count: int, *, out_of_time: bool) -> _Step | None:
        """The first that was not measured, or was disturbed a while ago. `count`: of the measurements so far."""
        for step in steps:
            known = self._found.get(step.key)
            if known is None:
                wanted = step.needed or not out_of_time
            else:
                again = known.tries < _MOST_TRIES and count - known.number >= _RETRIED_AFTER
                wanted = again and not out_of_time and self._pace.slowness(*known.looks) > 1
            if wanted:
                return step
        return None

    def _rates(self, memory_bytes_s: float) -> DeviceRates:
        found = {key: measured.result for key, measured in self._found.items()}
        rates = Rates(memory_bytes_s)
        far: dict[str, list[ProbeResult]] = {}
        for (what, subject), result in found.items():
            if what == "far":
                far.setdefault(subject.partition("/")[0], []).append(result)
        rates.note_fixed(found["small", ""], found["wide", ""])
        rates.attention["f16"] = replace(
            solve_attention(found["attention", str(at)] for at in range(len(_HEADS))),
            near_numbers=self._near_numbers,
            prompt_far=solve_far(far.values()),
            generation_again_s=solve_again_s([result for results in far.values() for result in results]),
        )
        rates.note_layers(found["dense", "Q8_0"], found["layers", ""], "Q8_0")
        for (what, subject), result in found.items():
            if what == "dense":
                rates.note_type(subject, result)
        for (what, subject), result in found.items():
            if what == "experts" and subject in rates.types:
                rates.note_experts(subject, result)
            elif what == "cache":
                rates.note_cache(subject, result, found["attention", "1"])
        self._mark_disturbed(rates)
        return _device(self._cpu, self._threads, rates)

    def _mark_disturbed(self, rates: Rates) -> None:
        for what in ("dense", "experts"):
            for name in rates.types:
                measured = self._found.get((what, name))
                if measured is None or self._pace.slowness(*measured.looks) <= 1:
                    continue
                if what == "dense":
                    rates.types[name] = replace(rates.types[name], disturbed=True)
                elif not rates.types[name].disturbed:
                    rates.types[name] = replace(rates.types[name], prompt_expert_weights_s=0.0)


def _device(cpu: Cpu, threads: int, rates: Rates) -> DeviceRates:
    return DeviceRates(
        name=cpu.model or cpu.architecture,
        threads=threads,
        types=rates.types,
        attention=rates.attention,
        token_s=rates.token_s,
        layer_s=rates.layer_s,
        vocabulary_s=rates.vocabulary_s,
        prompt_layer_s=rates.prompt_layer_s,
        start_s=rates.start_s,
        start_vocabulary_s=rates.start_vocabulary_s,
    )
