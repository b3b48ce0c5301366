"""The energy of prompt processing and of token generation, told apart by repeats of different proportions.

    E = a * requests + b * computed prompt tokens + c * answer tokens

by ordinary least squares over the repeats of one configuration, each an independent observation. `a` is what a request
costs beside its tokens. Intervals: Student's t with n - 3 degrees of freedom (Montgomery, Peck and Vining, Introduction
to Linear Regression Analysis, 5th edition, sections 3.2 and 3.4). Attention makes later tokens dearer: what holds for
the lengths that were measured need not hold for others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bendi.stats import t_quantile

CONFIDENCE = 0.95
_COEFFICIENTS = 3
_LEAST_REPEATS = _COEFFICIENTS + 1
_ALIKE = 1e-6
"""Share of a column's square that the other columns leave unexplained: below it, the columns say the same."""


@dataclass(frozen=True)
class Repeated:
    """One repeat: the energy of its window and what was done in it. `prompt_tok`: those that were computed."""

    energy_j: float
    prompt_tok: int
    answer_tok: int
    requests: int = 1


@dataclass(frozen=True)
class Estimate:
    """`value`, and where the true one lies with CONFIDENCE, if the model holds."""

    value: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether it is above zero beyond chance."""
        return self.low > 0


@dataclass(frozen=True)
class Phases:
    """In joules. `explained`: the share of the variance of the energy (R squared, about its mean), None where all
    repeats used the same. `reason`: why the estimates are missing."""

    per_request_j: Estimate | None = None
    per_prompt_tok_j: Estimate | None = None
    per_answer_tok_j: Estimate | None = None
    explained: float | None = None
    repeats: int = 0
    reason: str = ""


def phases_of(repeats: Sequence[Repeated]) -> Phases:
    """The energy of each phase, or the reason why these repeats do not determine it: at least four, in which the
    numbers of requests, prompt tokens and answer tokens are not in proportion."""
    if len(repeats) < _LEAST_REPEATS:
        return Phases(repeats=len(repeats), reason="too_few_repeats")
    rows = [(float(each.requests), float(each.prompt_tok), float(each.answer_tok)) for each in repeats]
    energies = [each.energy_j for each in repeats]
    scales = [math.sqrt(sum(row[column] ** 2 for row in rows)) for column in range(_COEFFICIENTS)]
    if not all(scales):
        return Phases(repeats=len(repeats), reason="shapes_alike")
    scaled = [[value / scale for value, scale in zip(row, scales, strict=True)] for row in rows]
    inverse = _inverse([[sum(row[i] * row[j] for row in scaled) for j in range(3)] for i in range(3)])
    if inverse is None:
        return Phases(repeats=len(repeats), reason="shapes_alike")
    moments = [sum(row[i] * energy for row, energy in zip(scaled, energies, strict=True)) for i in range(3)]
    weights = [sum(inverse[i][j] * moments[j] for j in range(3)) for i in range(3)]
    fitted = [sum(value * weight for value, weight in zip(row, weights, strict=True)) for row in scaled]
    left = sum((energy - guess) ** 2 for energy, guess in zip(energies, fitted, strict=True))
    freedom = len(repeats) - _COEFFICIENTS
    spread = t_quantile((1 + CONFIDENCE) / 2, freedom) * math.sqrt(left / freedom)
    halves = [spread * math.sqrt(inverse[i][i]) / scale for i, scale in enumerate(scales)]
    values = [weight / scale for weight, scale in zip(weights, scales, strict=True)]
    a, b, c = (Estimate(value, value - half, value + half) for value, half in zip(values, halves, strict=True))
    mean = sum(energies) / len(energies)
    total = sum((energy - mean) ** 2 for energy in energies)
    return Phases(a, b, c, explained=1 - left / total if total > 0 else None, repeats=len(repeats))


def _inverse(matrix: Sequence[Sequence[float]]) -> list[list[float]] | None:
    """Of a symmetric matrix with ones on the diagonal; None where a column depends on the others."""
    size = len(matrix)
    rows = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        # The largest of what is left: a pivot is the share of a column's square that those before it do not explain.
        best = max(range(i, size), key=lambda j: abs(rows[j][i]))
        rows[i], rows[best] = rows[best], rows[i]
        if abs(rows[i][i]) < _ALIKE:
            return None
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for j in range(size):
            if j != i:
                factor = rows[j][i]
                rows[j] = [value - factor * pivot for value, pivot in zip(rows[j], rows[i], strict=True)]
    return [row[size:] for row in rows]
