"""From the times of probes to the rates of a device: which seconds belong to what.

Probes differ in one thing each, so that most rates are a difference or a quotient of two times; those of attention are
the solution of a small system of equations. Undisturbed times (the best of several) are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import mean, median

from bendi.engines.probes import ProbeResult, Timed
from bendi.planner.calibration import AttentionRates, TypeRates

_CACHED_WEIGHTS_FACTOR = 1.4
"""Small models stay in the CPU's caches and are read faster than from memory; by so much, roughly."""
_MOST_FAR = 2.0
_LEAST_SLOPE = 0.25


@dataclass
class Rates:
    """What is known so far. Seconds as in `DeviceRates`."""

    memory_bytes_s: float
    token_s: float = 0.0
    layer_s: float = 0.0
    vocabulary_s: float = 0.0
    prompt_layer_s: float = 0.0
    start_s: float = 0.0
    start_vocabulary_s: float = 0.0
    types: dict[str, TypeRates] = field(default_factory=dict)
    attention: dict[str, AttentionRates] = field(default_factory=dict)

    def note_fixed(self, small: ProbeResult, wide: ProbeResult) -> None:
        """Costs that depend on neither weights nor layers; `wide` differs from `small` in its vocabulary only."""
        entries = wide.work.vocab_size - small.work.vocab_size
        self.start_s = small.load_s
        self.start_vocabulary_s = max((wide.load_s - small.load_s) / entries, 0.0)
        self.token_s = max(self._unread_s(small), 0.0)
        self.vocabulary_s = max((self._unread_s(wide) - self._unread_s(small)) / entries, 0.0)

    def note_layers(self, few: ProbeResult, many: ProbeResult, type_name: str) -> None:
        """The cost of layers, from `many`, which has many and little else, and `few`, which is mostly weights."""
        layers = many.work.layers
        self.layer_s = max((self._unread_s(many) - self.token_s) / layers, 0.0)
        self.note_type(type_name, few)
        if many.start.prompt is None:
            return
        inner = sum(group.per_token for group in many.work.weights if not group.once)
        products_s = inner * many.prompt_tok / self.types[type_name].prompt_weights_s
        left_s = many.start.prompt.best_s - self._beside_products_s(many) - products_s
        self.prompt_layer_s = max(left_s / (many.prompt_tok * layers), 0.0)

    def note_type(self, type_name: str, result: ProbeResult) -> None:
        """How fast the weights of a model are used that has only one type of them."""
        work, generation_s = result.work, result.start.generation.best_s
        beside_s = self.token_s + work.layers * self.layer_s
        bytes_s = work.bytes_per_token / max(generation_s - beside_s, generation_s / 2)
        weights = sum(group.per_token for group in work.weights if not group.once)
        once_s = sum(group.bytes_per_token for group in work.weights if group.once) / bytes_s
        rate = weights * result.prompt_tok / self._products_s(result, once_s)
        load_bytes_s = work.total_bytes / max(result.load_s - self.start_s, result.load_s / 10)
        self.types[type_name] = TypeRates(bytes_s, rate, 0.0, load_bytes_s)

    def note_experts(self, type_name: str, result: ProbeResult) -> None:
        """Products with chosen experts use other code than those with whole matrices, whose rates are known."""
        known = self.types[type_name]
        inner = [group for group in result.work.weights if not group.once]
        once_s = sum(group.bytes_per_token for group in result.work.weights if group.once) / known.generation_bytes_s
        dense = sum(group.per_token for group in inner if not group.experts)
        chosen = sum(group.per_token for group in inner if group.experts)
        left_s = self._products_s(result, once_s) - dense * result.prompt_tok / known.prompt_weights_s
        rate = chosen * result.prompt_tok / left_s if left_s > 0 else known.prompt_weights_s
        self.types[type_name] = replace(known, prompt_expert_weights_s=min(rate, 2 * known.prompt_weights_s))

    def note_cache(self, kv_type: str, result: ProbeResult, plain: ProbeResult) -> None:
        """Attention to a quantized KV cache: one probe, the others in proportion to `plain`, the same with F16."""
        self.attention[kv_type] = scaled(self.attention["f16"], slope(result), slope(plain))

    def _unread_s(self, result: ProbeResult) -> float:
        """Seconds for a token without reading the weights, which a small model keeps in the caches."""
        read_s = result.work.bytes_per_token / (self.memory_bytes_s * _CACHED_WEIGHTS_FACTOR)
        return result.start.generation.best_s - read_s

    def _beside_products_s(self, result: ProbeResult) -> float:
        """Seconds of a probe's prompt that attention and layers took, not products with weights."""
        work, tokens = result.work, result.prompt_tok
        rates = self.attention["f16"]
        attention_s = sum(part.layers * tokens * rates.prompt_s(part, tokens / 2) for part in work.attention)
        return attention_s + tokens * work.layers * self.prompt_layer_s

    def _products_s(self, result: ProbeResult, once_s: float) -> float:
        """The rest of them: the products. `once_s`: those with weights that are used for the last token only."""
        assert result.start.prompt is not None
        whole_s = result.start.prompt.best_s
        return max(whole_s - once_s - self._beside_products_s(result), whole_s / 2)


def slope(result: ProbeResult, before: Timed | None = None, after: Timed | None = None) -> tuple[float, float]:
    """Seconds for each token of depth and layer between two depths (None: the beginning, the first of the others): in
    token generation, and in prompts for each of their tokens."""
    before, after = before or result.start, after or result.deep[0]
    assert before.prompt and after.prompt
    steps = (after.depth_tok - before.depth_tok) * result.work.layers
    generation = (after.generation.best_s - before.generation.best_s) / steps
    prompt = (after.prompt.best_s - before.prompt.best_s) / steps / result.prompt_tok
    return max(generation, 1e-15), max(prompt, 1e-15)


def solve_attention(results: Iterable[ProbeResult]) -> AttentionRates:
    """The rates that explain how probes of several head counts slow down with depth, in least relative squares."""
    generation: list[tuple[float, tuple[int, ...]]] = []
    prompt: list[tuple[float, tuple[int, ...]]] = []
    for result in results:
        part = result.work.attention[0]
        slopes = slope(result)
        generation.append((slopes[0], (part.heads, part.query_numbers, part.cache_numbers)))
        prompt.append((slopes[1], (part.heads, part.query_numbers)))
    head_s, query_s, cache_s = solve_nonnegative(_believable(generation))
    prompt_head_s, prompt_query_s = solve_nonnegative(_believable(prompt))
    return AttentionRates(head_s, query_s, cache_s, prompt_head_s, prompt_query_s)


def _believable(slopes: Sequence[tuple[float, tuple[int, ...]]]) -> list[list[float]]:
    """Rows for `solve_nonnegative`, without probes that were disturbed at their beginning and hardly slowed down."""
    usual_s = median(seconds / numbers[1] for seconds, numbers in slopes)
    return [
        [number / seconds for number in numbers]
        for seconds, numbers in slopes
        if seconds / numbers[1] > _LEAST_SLOPE * usual_s
    ]


def solve_far(by_heads: Iterable[Sequence[ProbeResult]]) -> float:
    """How many times as long attention of prompts takes for what a core's own cache does not hold. `by_heads`: results
    of models with the same heads, timed at that depth and far beyond; where a process has its memory decides much, so
    all are averaged."""
    found = []
    for results in by_heads:
        within_s = sum(slope(result, after=result.deep[0])[1] for result in results)
        found.append(sum(slope(result, *result.deep)[1] for result in results) / within_s)
    return min(max(mean(found), 1.0), _MOST_FAR) if found else 1.0


def solve_again_s(results: Sequence[ProbeResult]) -> float:
    """Seconds for reading a number again in token generation that a core's own cache no longer holds. `results`: as for
    `solve_far`, of models in which several heads of queries share keys and values."""
    found = []
    for result in results:
        part = result.work.attention[0]
        more_s = slope(result, *result.deep)[0] - slope(result, after=result.deep[0])[0]
        found.append(max(more_s, 0.0) / (part.query_numbers - part.cache_numbers))
    return mean(found) if found else 0.0


def scaled(rates: AttentionRates, slopes: tuple[float, float], plain: tuple[float, float]) -> AttentionRates:
    """`rates` for another KV type, of which one probe is known."""
    generation, prompt = slopes[0] / plain[0], slopes[1] / plain[1]
    return replace(
        rates,
        generation_head_s=rates.generation_head_s * generation,
        generation_query_s=rates.generation_query_s * generation,
        generation_cache_s=rates.generation_cache_s * generation,
        prompt_head_s=rates.prompt_head_s * prompt,
        prompt_query_s=rates.prompt_query_s * prompt,
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
