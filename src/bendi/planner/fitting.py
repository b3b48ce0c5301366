"""What llama.cpp chooses by itself: `--fit`, which looks at memory only.

It makes the context shorter first, down to a minimum; then puts as many layers on the GPUs as fit, from the last one;
for a model of experts it puts all layers there without their experts, and then experts as long as they fit. Source:
llama.cpp `common/fit.cpp`; approximate where it splits single layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bendi.planner.bisection import largest_that
from bendi.planner.layout import Layout, Placement
from bendi.planner.search import Found, Task, evaluate, gpu_sets, on_processor
from bendi.planner.speed import BATCH_TOK

FIT_CONTEXT_TOK = 4096
"""The least that `--fit` keeps of a context (`--fit-ctx`)."""
_STEP_TOK = 256


def fit_found(task: Task, context: tuple[int, int], types: tuple[str, str]) -> Found | None:
    """`context`: the shortest and the longest that may be chosen. None when it does not fit."""
    sets = [*gpu_sets(task.devices)]
    if not sets or not task.subject.layers.layers:
        steps = _longest(context, lambda tok: _without_misses(on_processor(task, tok, types)))
        return on_processor(task, steps, types)
    used = max(sets, key=lambda positions: sum(task.devices.gpus[at].budget_bytes for at in positions))

    def whole(context_tok: int) -> bool:
        layout = task.layout(context_tok, types, BATCH_TOK)
        return layout.assign(used, layout.count, 0) is not None

    chosen = task.layout(_longest(context, whole), types, BATCH_TOK)
    placement = _placed(task, chosen, used)
    if placement is None:
        return on_processor(task, context[0], types)
    return evaluate(task, chosen, task.timing(used, task.work(chosen.setup)), placement)


def fit_at(task: Task, context_tok: int, longest_tok: int, types: tuple[str, str]) -> Iterator[Found]:
    """What `fit_found` places on GPUs for contexts from `context_tok` on, each with that shortest context."""
    shortest = max(context_tok, min(FIT_CONTEXT_TOK, longest_tok))
    for context in ((context_tok, context_tok), (shortest, max(longest_tok, shortest))):
        found = fit_found(task, context, types)
        if found is None or not found.placement.gpus:
            continue
        layout = task.layout(context_tok, types, BATCH_TOK)
        timing = task.timing(found.placement.gpus, task.work(layout.setup))
        again = evaluate(task, layout, timing, found.placement)
        if again is not None:
            yield again


def _longest(context: tuple[int, int], fits: Callable[[int], bool]) -> int:
    shortest, longest = context
    if longest <= shortest or fits(longest):
        return max(longest, shortest)
    first = -(-shortest // _STEP_TOK)
    steps = largest_that(lambda step: fits((first + step) * _STEP_TOK), longest // _STEP_TOK - first)
    return max((first + steps) * _STEP_TOK, shortest) if steps else shortest


def _without_misses(found: Found | None) -> bool:
    return found is not None and not found.missing


def _placed(task: Task, layout: Layout, used: tuple[int, ...]) -> Placement | None:
    count = layout.count

    def counts(gpu_layers: int, cpu_experts: int) -> tuple[int, ...] | None:
        return layout.assign(used, gpu_layers, cpu_experts)

    whole = counts(count, 0)
    if whole:
        return Placement(used, whole, 0, BATCH_TOK)
    experts = count if task.subject.work.expert_bytes else 0
    if experts and counts(count, count):
        full = largest_that(lambda layers: counts(count, count - layers) is not None, count - 1)
        return Placement(used, counts(count, count - full) or (), count - full, BATCH_TOK)
    most = largest_that(lambda layers: counts(layers, experts) is not None, count - 1)
    return Placement(used, counts(most, experts) or (), experts, BATCH_TOK) if most else None
