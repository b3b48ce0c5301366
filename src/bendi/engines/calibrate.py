"""Measures how fast this machine computes with the engine build that is in use, in less than a minute.

Real engine, small models with random weights: each shows one rate (`probes`). Undisturbed times (the best of several)
are solved for the rates; how much longer usual times are is kept as `noise`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from statistics import median, quantiles

from bendi.engines.bandwidth import disk_read_bytes_s, memory_read_bytes_s
from bendi.engines.probes import Config, Heads, Probe, ProbeResult, dense_config, expert_config, run_probe
from bendi.errors import StoreError
from bendi.formats import TENSOR_TYPES_BY_NAME
from bendi.hardware import Cpu, detect_machine
from bendi.i18n import N_, _
from bendi.planner.calibration import FAR_TOK, AttentionRates, Calibration, DeviceRates, TypeRates
from bendi.settings import Settings
from bendi.units import GIB, format_size

BUDGET_S = 55.0
_NEEDED_BYTES = GIB
_DEPTH_TOK, _FAR_DEPTH_TOK = 1024, 6144
_CACHED_WEIGHTS_FACTOR = 1.4
"""Small models stay in the CPU's caches and are read faster than from memory; by so much, roughly."""

# In the order of their use in files that people download: where time runs out, the rest is borrowed from their kin.
# Q8_0 is measured before all others, because the cost of layers is found with it.
_STEPS = (
    ("dense", "Q4_K"), ("dense", "Q6_K"), ("dense", "Q4_0"),
    ("experts", "Q4_K"), ("experts", "Q8_0"), ("cache", "q8_0"),
    ("dense", "Q5_K"), ("dense", "MXFP4"), ("experts", "MXFP4"), ("experts", "Q6_K"),
    ("dense", "Q3_K"), ("dense", "IQ4_XS"), ("dense", "Q5_0"), ("dense", "Q2_K"), ("cache", "q4_0"),
    ("experts", "Q4_0"), ("dense", "F16"), ("experts", "Q5_K"), ("experts", "Q3_K"), ("experts", "IQ4_XS"),
    ("dense", "IQ4_NL"), ("dense", "Q5_1"), ("dense", "IQ3_S"), ("dense", "Q4_1"), ("dense", "BF16"),
    ("dense", "IQ3_XXS"), ("dense", "IQ2_S"), ("dense", "IQ2_XS"), ("dense", "IQ2_XXS"), ("dense", "F32"),
)  # fmt: skip
_LABELS = {"dense": "{type}", "experts": N_("experts in {type}"), "cache": N_("KV cache in {type}")}
_HEADS = ((16, 16, 128), (28, 4, 128), (32, 8, 64), (8, 2, 256))
_MOST_THREADS_TRIED = 4

OnProgress = Callable[[float, str], None]


@dataclass
class _Findings:
    """What is known so far. Seconds as in `DeviceRates`."""

    threads: int
    memory_bytes_s: float = 0.0
    token_s: float = 0.0
    layer_s: float = 0.0
    vocabulary_s: float = 0.0
    prompt_layer_s: float = 0.0
    start_s: float = 0.0
    start_vocabulary_s: float = 0.0
    types: dict[str, TypeRates] = field(default_factory=dict)
    attention: dict[str, AttentionRates] = field(default_factory=dict)
    noises: list[float] = field(default_factory=list)
    threads_tried: dict[int, float] = field(default_factory=dict)
    build: str = ""

    def note(self, result: ProbeResult) -> ProbeResult:
        times = (result.generation, result.prompt, result.deep_generation, result.deep_prompt)
        for kind in times:
            if kind is not None:
                self.noises.append(kind.noise)
        self.build = result.build
        return result

    def unread_s(self, result: ProbeResult) -> float:
        """Seconds for a token without reading the weights, which a small model keeps in the caches."""
        return result.generation.best_s - result.work.bytes_per_token / (self.memory_bytes_s * _CACHED_WEIGHTS_FACTOR)

    def beside_products_s(self, result: ProbeResult) -> float:
        """Seconds of a probe's prompt that attention and layers took, not products with weights."""
        work, tokens = result.work, result.prompt_tok
        rates = self.attention["f16"]
        pairs = tokens * tokens / 2
        attention_s = sum(part.layers * pairs * rates.prompt_s(part, 1) for part in work.attention)
        return attention_s + tokens * work.layers * self.prompt_layer_s

    def products_s(self, result: ProbeResult, once_s: float) -> float:
        """The rest of them: the products. `once_s`: those with weights that are used for the last token only."""
        assert result.prompt is not None
        return max(result.prompt.best_s - once_s - self.beside_products_s(result), result.prompt.best_s / 2)

    def device(self, cpu: Cpu) -> DeviceRates:
        return DeviceRates(
            name=cpu.model or cpu.architecture,
            threads=self.threads,
            types=self.types,
            attention=self.attention,
            token_s=self.token_s,
            layer_s=self.layer_s,
            vocabulary_s=self.vocabulary_s,
            prompt_layer_s=self.prompt_layer_s,
            start_s=self.start_s,
            start_vocabulary_s=self.start_vocabulary_s,
        )


def calibrate(
    settings: Settings, machine_id: str, on_progress: OnProgress | None = None, budget_s: float = BUDGET_S
) -> Calibration:
    """Measures this machine with the engine that `settings` choose. `on_progress`: fraction done and what is measured.

    Raises StoreError when there is no room for the models, EngineError when the engine does not run here.
    """
    folder = _scratch(settings.cache_dir)
    try:
        run = _Run(settings, folder, on_progress or (lambda _fraction, _label: None), time.monotonic(), budget_s)
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


class _Run:
    """One calibration: the order of the measurements, and the time they may take."""

    def __init__(
        self, settings: Settings, folder: Path, on_progress: OnProgress, started_s: float, budget_s: float
    ) -> None:
        self._settings, self._folder, self._on_progress = settings, folder, on_progress
        self._started_s, self._budget_s = started_s, budget_s
        self._machine = detect_machine()
        self._found = _Findings(threads=self._machine.cpu.usable_cores)
        self._plain_slope = (0.0, 0.0)

    def calibration(self, machine_id: str) -> Calibration:
        self._report(_("memory and disk"))
        self._found.memory_bytes_s = memory_read_bytes_s(self._found.threads)
        disk_bytes_s = disk_read_bytes_s(self._folder)
        self._try_threads()
        self._fixed_costs()
        self._attention()
        self._all_types()
        found = self._found
        tenths = quantiles(found.noises, n=10)
        return Calibration(
            machine=machine_id,
            build=found.build,
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            took_s=round(time.monotonic() - self._started_s, 1),
            cpu=found.device(self._machine.cpu),
            memory_read_bytes_s=self._found.memory_bytes_s,
            disk_read_bytes_s=disk_bytes_s,
            noise=median(found.noises),
            spread=(tenths[-1] - tenths[0]) / 2,
            threads_tried=found.threads_tried,
        )

    def _report(self, label: str) -> None:
        self._on_progress(min((time.monotonic() - self._started_s) / self._budget_s, 0.99), label)

    def _left_s(self) -> float:
        return self._budget_s - (time.monotonic() - self._started_s)

    def _run(self, probe: Probe) -> ProbeResult:
        result = run_probe(replace(probe, threads=probe.threads or self._found.threads), self._settings, self._folder)
        return self._found.note(result)

    def _try_threads(self) -> None:
        """More threads than memory can feed only wait for one another; so the count is measured."""
        cores = self._machine.cpu.usable_cores
        counts = sorted({cores, cores * 3 // 4, cores // 2, self._machine.cpu.performance_cores} - {0}, reverse=True)
        if len(counts) < 2:
            return
        seconds: dict[int, float] = {}
        for count in counts[:_MOST_THREADS_TRIED]:
            self._report(_("{count} threads").format(count=count))
            probe = Probe("threads", _wide_config(4), "Q4_K", prompt_tok=0, threads=count)
            seconds[count] = self._run(probe).generation.best_s
        best_s = min(seconds.values())
        self._found.threads_tried = {count: best_s / taken_s for count, taken_s in seconds.items()}
        self._found.threads = min(seconds, key=lambda count: (seconds[count] > 1.02 * best_s, -count))

    def _fixed_costs(self) -> None:
        """Costs that depend on neither weights nor layers, from models that have almost none."""
        self._report(_("fixed costs"))
        heads = (4, 2, 64)
        small = self._run(Probe("small", dense_config(2, 256, 256, heads), "Q8_0", prompt_tok=0))
        wide = self._run(Probe("vocabulary", dense_config(2, 256, 256, heads, vocab=128000), "Q8_0", prompt_tok=0))
        entries = wide.work.vocab_size - small.work.vocab_size
        self._found.start_s = small.load_s
        self._found.start_vocabulary_s = max((wide.load_s - small.load_s) / entries, 0.0)
        self._found.token_s = max(self._found.unread_s(small), 0.0)
        self._found.vocabulary_s = max((self._found.unread_s(wide) - self._found.unread_s(small)) / entries, 0.0)

    def _attention(self) -> None:
        results = []
        for heads in _HEADS:
            self._report(_("attention"))
            results.append(self._run(_attention_probe(heads, "f16", _DEPTH_TOK, 256)))
        self._found.attention["f16"] = replace(solve_attention(results), prompt_far=self._far())
        self._plain_slope = _slope(results[1])

    def _far(self) -> float:
        """How much slower attention of prompts gets where keys and values have left the caches."""
        self._report(_("attention, far"))
        near, far = (
            self._run(Probe("far", dense_config(2, 256, 256, _HEADS[0]), "Q8_0", depth, prompt_tok=128, answer_tok=2))
            for depth in (_DEPTH_TOK, _FAR_DEPTH_TOK)
        )
        near_s, far_s = (_slope(result)[1] * result.depth_tok for result in (near, far))
        slope_s = near_s / _DEPTH_TOK
        return min(max((far_s - slope_s * FAR_TOK) / (_FAR_DEPTH_TOK - FAR_TOK) / slope_s, 1.0), 3.0)

    def _cache(self, kv_type: str) -> None:
        """Attention to a quantized KV cache: one probe, the others in proportion."""
        probe = _attention_probe(_HEADS[1], kv_type, _DEPTH_TOK // 2, 128)
        plain = self._found.attention["f16"]
        self._found.attention[kv_type] = scaled(plain, _slope(self._run(probe)), self._plain_slope)

    def _all_types(self) -> None:
        """First the cost of layers, from a model that has many and little else."""
        self._report("Q8_0")
        few = self._run(_dense_probe("Q8_0"))
        many = self._run(Probe("layers", dense_config(32, 512, 512, (8, 2, 64)), "Q8_0", prompt_tok=128))
        found, layers = self._found, many.work.layers
        found.layer_s = max((found.unread_s(many) - found.token_s) / layers, 0.0)
        self._note_type("Q8_0", few)
        if many.prompt is not None:
            inner = sum(group.per_token for group in many.work.weights if not group.once)
            products_s = inner * many.prompt_tok / found.types["Q8_0"].prompt_weights_s
            left_s = many.prompt.best_s - found.beside_products_s(many) - products_s
            found.prompt_layer_s = max(left_s / (many.prompt_tok * layers), 0.0)
            self._note_type("Q8_0", few)
        longest_s = 0.0
        measure = {"dense": self._dense, "experts": self._experts, "cache": self._cache}
        for kind, type_name in _STEPS:
            if self._left_s() < 1.15 * longest_s:
                break
            before_s = time.monotonic()
            self._report(_(_LABELS[kind]).format(type=type_name))
            measure[kind](type_name)
            longest_s = max(longest_s, time.monotonic() - before_s)

    def _dense(self, type_name: str) -> None:
        self._note_type(type_name, self._run(_dense_probe(type_name)))

    def _note_type(self, type_name: str, result: ProbeResult) -> None:
        found, work = self._found, result.work
        beside_s = found.token_s + work.layers * found.layer_s
        bytes_s = work.bytes_per_token / max(result.generation.best_s - beside_s, result.generation.best_s / 2)
        weights = sum(group.per_token for group in work.weights if not group.once)
        once_s = sum(group.bytes_per_token for group in work.weights if group.once) / bytes_s
        rate = weights * result.prompt_tok / self._found.products_s(result, once_s)
        load_bytes_s = work.total_bytes / max(result.load_s - found.start_s, result.load_s / 10)
        found.types[type_name] = TypeRates(bytes_s, rate, rate, load_bytes_s)

    def _experts(self, type_name: str) -> None:
        """Products with chosen experts use other code than those with whole matrices."""
        config = expert_config(3, 2048, (16, 4, 768), (16, 4, 128))
        result = self._run(Probe(f"experts-{type_name}", config, type_name, answer_tok=4, repeats=2))
        found, work = self._found, result.work
        known = found.types[type_name]
        inner = [group for group in work.weights if not group.once]
        once_s = sum(group.bytes_per_token for group in work.weights if group.once) / known.generation_bytes_s
        dense = sum(group.per_token for group in inner if not group.experts)
        chosen = sum(group.per_token for group in inner if group.experts)
        left_s = self._found.products_s(result, once_s) - dense * result.prompt_tok / known.prompt_weights_s
        rate = chosen * result.prompt_tok / left_s if left_s > 0 else known.prompt_weights_s
        found.types[type_name] = replace(known, prompt_expert_weights_s=min(rate, 2 * known.prompt_weights_s))


def _dense_probe(type_name: str) -> Probe:
    """Large enough that the caches do not matter."""
    layers = 10 if TENSOR_TYPES_BY_NAME[type_name].bits_per_weight > 4 else 14
    return Probe(f"dense-{type_name}", _wide_config(layers), type_name, prompt_tok=128)


def _wide_config(layers: int) -> Config:
    return dense_config(layers, 2048, 6144, (16, 8, 128))


def _attention_probe(heads: Heads, kv_type: str, depth_tok: int, prompt_tok: int) -> Probe:
    return Probe(
        f"attention-{'-'.join(map(str, heads))}-{kv_type}",
        dense_config(8, 256, 256, heads),
        "Q8_0",
        depth_tok=depth_tok,
        prompt_tok=prompt_tok,
        kv_type=kv_type,
    )


def _slope(result: ProbeResult) -> tuple[float, float]:
    """Seconds for each token of depth and layer: in token generation, and in prompts for each of their tokens."""
    assert result.deep_generation and result.deep_prompt and result.prompt
    steps = result.depth_tok * result.work.layers
    generation = (result.deep_generation.best_s - result.generation.best_s) / steps
    prompt = (result.deep_prompt.best_s - result.prompt.best_s) / steps / result.prompt_tok
    return max(generation, 1e-15), max(prompt, 1e-15)


def solve_attention(results: list[ProbeResult]) -> AttentionRates:
    """The rates that explain how probes of several head counts slow down with depth, in least relative squares."""
    generation_rows: list[list[float]] = []
    prompt_rows: list[list[float]] = []
    for result in results:
        part = result.work.attention[0]
        generation, prompt = _slope(result)
        numbers = (part.heads, part.query_numbers, part.cache_numbers)
        generation_rows.append([number / generation for number in numbers])
        prompt_rows.append([number / prompt for number in numbers[:2]])
    return AttentionRates(*solve_nonnegative(generation_rows), *solve_nonnegative(prompt_rows))


def scaled(rates: AttentionRates, slopes: tuple[float, float], plain: tuple[float, float]) -> AttentionRates:
    """`rates` for another KV type, of which one probe is known."""
    generation, prompt = slopes[0] / plain[0], slopes[1] / plain[1]
    return AttentionRates(
        rates.generation_head_s * generation,
        rates.generation_query_s * generation,
        rates.generation_cache_s * generation,
        rates.prompt_head_s * prompt,
        rates.prompt_query_s * prompt,
        rates.prompt_far,
    )


def solve_nonnegative(rows: list[list[float]]) -> list[float]:
    """The x >= 0 for which all `rows` times x are nearest to 1. Few unknowns: every choice of those that are not zero
    is tried."""
    count = len(rows[0])
    best: tuple[float, list[float]] = (float("inf"), [0.0] * count)
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            part = _least_squares([[row[index] for index in chosen] for row in rows])
            if part is None or min(part) < 0:
                continue
            full = [0.0] * count
            for index, value in zip(chosen, part, strict=True):
                full[index] = value
            error = sum((sum(a * x for a, x in zip(row, full, strict=True)) - 1) ** 2 for row in rows)
            best = min(best, (error, full))
    return best[1]


def _least_squares(rows: list[list[float]]) -> list[float] | None:
    """Solves the normal equations for right sides of 1 by elimination; None where they have no single solution."""
    size = len(rows[0])
    scale = [max(abs(row[i]) for row in rows) or 1.0 for i in range(size)]
    scaled_rows = [[value / scale[i] for i, value in enumerate(row)] for row in rows]
    matrix = [
        [sum(row[i] * row[j] for row in scaled_rows) for j in range(size)] + [sum(row[i] for row in scaled_rows)]
        for i in range(size)
    ]
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(matrix[k][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        if abs(matrix[i][i]) < 1e-12:
            return None
        for k in range(size):
            if k != i:
                factor = matrix[k][i] / matrix[i][i]
                matrix[k] = [a - factor * b for a, b in zip(matrix[k], matrix[i], strict=True)]
    return [matrix[i][size] / matrix[i][i] / scale[i] for i in range(size)]
