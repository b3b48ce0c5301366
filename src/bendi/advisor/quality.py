"""How good a model is, in one unit: the size of a typical model of the catalogue with such scores.

Published scores cannot be averaged as they are: every maker publishes other benchmarks, and 60 means little in one and
much in another. So each benchmark is translated first: a line through the scores of all known models that have one says
which size usually comes with a score. A benchmark counts as much as that line explains (R squared), more where it is
about the use asked for. What models of that size and age usually reach counts a little beside them, and is all there
is, less a little for not knowing, for models without published scores. Sizes are logarithmic: one step is a doubling
of parameters.

What quantization takes away is given in the same unit. Perplexities: llama.cpp `tools/perplexity/README.md`, Llama 3 8B
("None" where it was measured without an importance matrix) and Llama 2 70B; the same page gives the perplexity of Llama
2 in two sizes, from which the worth of a doubling follows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import log, log2, sqrt

from bendi.store.known_models import KnownModel, known_models

Kind = str
_KINDS: Mapping[str, tuple[str, ...]] = {
    "knowledge": ("MMLU-Pro", "MMLU", "MMLU-Redux", "C-Eval"),
    "reasoning": ("GPQA-Diamond", "GPQA", "AIME'25", "AIME'26"),
    "code": ("LiveCodeBench v6", "LiveCodeBench v5", "LiveCodeBench", "SWE-bench Verified", "HumanEval"),
    "instructions": ("IFEval",),
    "embedding": (*("MTEB multilingual", "MTEB English", "MTEB (56 datasets)", "C-MTEB", "MTEB-R", "CMTEB-R"),),
}
_KIND_OF = {benchmark: kind for kind, benchmarks in _KINDS.items() for benchmark in benchmarks}
_WEIGHTS: Mapping[str, Mapping[Kind, float]] = {
    "code": {"code": 3.0},
    "reasoning": {"reasoning": 3.0},
    "rag": {"knowledge": 2.0, "instructions": 2.0},
    "summarise": {"knowledge": 2.0, "instructions": 2.0},
    "chat": {"instructions": 2.0},
    "tools": {"instructions": 2.0, "code": 2.0},
}
"""How much more a kind of benchmark counts for a use."""
_FEWEST_MODELS = 6
_OWN_SIZE_WEIGHT = 0.25
_NOT_KNOWING = 0.3
_LARGEST_AGE_STEP = 2.0

_FULL_PERPLEXITY = 6.2316
_ADDED_PERPLEXITY: Mapping[str, float] = {
    "F32": 0.0,
    "F16": 0.0,
    "BF16": 0.0,
    "Q8_0": 0.0027,
    "Q6_K": 0.0217,
    "Q5_K_M": 0.0570,
    "Q5_K_S": 0.1050,
    "Q5_1": 0.1062,
    "Q5_0": 0.1316,
    "Q4_K_M": 0.1755,
    "IQ4_NL": 0.2240,
    "IQ4_XS": 0.2281,
    "Q4_K_S": 0.2689,
    "Q4_1": 0.4511,
    "Q4_0": 0.4685,
    "Q3_K_L": 0.5562,
    "Q3_K_M": 0.6569,
    "IQ3_M": 0.6667,
    "IQ3_S": 0.7339,
    "IQ3_XS": 0.9314,
    "IQ3_XXS": 1.2268,
    "Q3_K_S": 1.6322,
    "IQ2_M": 2.3692,
    "Q2_K_S": 3.0921,
    "IQ2_S": 3.4191,
    "Q2_K": 3.5199,
    "IQ2_XS": 4.5298,
    "IQ2_XXS": 7.8601,
    "IQ1_M": 19.262,
    "IQ1_S": 54.463,
}
_SIMILAR = {"MXFP4_MOE": "Q4_K_S", "MXFP4": "Q4_K_S", "NVFP4": "Q4_K_S", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
"""Not in that table; those are taken to be like their neighbours of the same size."""
_TRAINED_IN = {"gpt_oss": ("MXFP4", "MXFP4_MOE")}
_PERPLEXITY_OF_A_DOUBLING = log(5.7945 / 3.4313) / log2(69.0 / 6.74)
_LARGER_MODELS_LOSE_LESS = log(0.0120 / 0.01424) / log(69.0 / 6.74)
"""Exponent of the size: Q4_K_M costs Llama 2 7B 1.42 % and Llama 2 70B 1.20 %."""
_MEASURED_PARAMETERS = 8.03e9


@dataclass(frozen=True)
class Quality:
    """`doublings`: log2 of the billions of parameters that a typical model with such scores has. `benchmarks`: how many
    published ones were used; 0: it is judged by its size and age alone."""

    doublings: float
    benchmarks: int

    @property
    def parameters(self) -> float:
        """The same as a number of parameters."""
        return 1e9 * float(2**self.doublings)


@dataclass(frozen=True)
class _Line:
    """`value` = `start` + `slope` * score. `explains`: R squared."""

    start: float
    slope: float
    explains: float

    def at(self, score: float) -> float:
        return self.start + self.slope * score


def quality_of(model: KnownModel, use: str = "chat") -> Quality:
    """How good an unquantized model is for `use`, a name of `known_models.Use`."""
    return _judged(model, use, _prior(model))


def quantization_loss(quantization: str, parameters: int, model_type: str = "") -> float:
    """What a quantization costs, in doublings of size; never less than 0.

    `parameters`: of the model; `model_type`: of its config, for models that were trained in a quantized type. A name
    that nobody has measured costs what the nearest known one does: file names of makers
    ("UD-Q4_K_XL") begin with a known one.
    """
    if quantization in _TRAINED_IN.get(model_type, ()):
        return 0.0
    added = _ADDED_PERPLEXITY[_measured_name(quantization)]
    worse = log((_FULL_PERPLEXITY + added) / _FULL_PERPLEXITY)
    smaller: float = (max(parameters, 1) / _MEASURED_PARAMETERS) ** _LARGER_MODELS_LOSE_LESS
    return worse / _PERPLEXITY_OF_A_DOUBLING * smaller


def own_size(model: KnownModel) -> float:
    """log2 of the size in billions. Of experts, the geometric mean of all and of those that a token uses."""
    return log2(sqrt(float(model.parameters) * model.active_parameters) / 1e9)


def _measured_name(quantization: str) -> str:
    name = quantization.upper().removeprefix("UD-")
    name = _SIMILAR.get(name, name)
    while name not in _ADDED_PERPLEXITY and "_" in name:
        name = name.rpartition("_")[0]
        name = _SIMILAR.get(name, name)
    if name in _ADDED_PERPLEXITY:
        return name
    bits = next((char for char in name if char.isdigit()), "4")
    return {"1": "IQ1_M", "2": "Q2_K", "3": "Q3_K_M", "5": "Q5_K_M", "6": "Q6_K", "8": "Q8_0"}.get(bits, "Q4_K_S")


def _judged(model: KnownModel, use: str, prior: float) -> Quality:
    counted = [(_OWN_SIZE_WEIGHT, prior)]
    for benchmark, score in _best_scores(model).items():
        line = _lines().get(benchmark)
        if line is not None:
            weight = line.explains * _WEIGHTS.get(use, {}).get(_KIND_OF[benchmark], 1.0)
            counted.append((weight, line.at(score)))
    if len(counted) == 1:
        return Quality(prior - _NOT_KNOWING, 0)
    total = sum(weight for weight, _value in counted)
    return Quality(sum(weight * value for weight, value in counted) / total, len(counted) - 1)


def _best_scores(model: KnownModel) -> dict[str, float]:
    best: dict[str, float] = {}
    for score in model.scores:
        if score.benchmark in _KIND_OF:
            best[score.benchmark] = max(score.value, best.get(score.benchmark, 0.0))
    return best


@cache
def _lines() -> Mapping[str, _Line]:
    """For each benchmark with enough models: which size usually comes with a score."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for model in known_models().values():
        for benchmark, score in _best_scores(model).items():
            points[benchmark].append((score, own_size(model)))
    lines = {name: _fitted(pairs) for name, pairs in points.items() if len(pairs) >= _FEWEST_MODELS}
    return {name: line for name, line in lines.items() if line.slope > 0}


@cache
def _usual() -> tuple[_Line, _Line]:
    """What models usually reach: by their size, and how much more than that by the year of their release."""
    known = [model for model in known_models().values() if len(_best_scores(model)) > 1]
    pairs = [(own_size(model), _judged(model, "", own_size(model)).doublings) for model in known]
    by_size = _fitted(pairs)
    left = [(_year(model), reached - by_size.at(size)) for model, (size, reached) in zip(known, pairs, strict=True)]
    return by_size, _fitted(left)


def _prior(model: KnownModel) -> float:
    by_size, by_year = _usual()
    step = by_year.at(_year(model))
    return by_size.at(own_size(model)) + min(max(step, -_LARGEST_AGE_STEP), _LARGEST_AGE_STEP)


def _year(model: KnownModel) -> float:
    year, _dash, month = model.released.partition("-")
    return int(year) + (int(month[:2]) - 1) / 12 if month else float(int(year))


def _fitted(pairs: Sequence[tuple[float, float]]) -> _Line:
    """The line of least squares through (x, y)."""
    mean_x, mean_y = _mean(x for x, _y in pairs), _mean(y for _x, y in pairs)
    spread_x = sum((x - mean_x) ** 2 for x, _y in pairs)
    spread_y = sum((y - mean_y) ** 2 for _x, y in pairs)
    together = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    if not spread_x or not spread_y:
        return _Line(mean_y, 0.0, 0.0)
    slope = together / spread_x
    return _Line(mean_y - slope * mean_x, slope, together**2 / (spread_x * spread_y))


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / max(len(listed), 1)
