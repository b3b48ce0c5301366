"""Chooses the context length and the type of the KV cache."""

from __future__ import annotations

from dataclasses import replace

from bendi.planner.bisection import largest_that
from bendi.planner.fitting import fit_at
from bendi.planner.memory_facts import MemoryFacts
from bendi.planner.search import Found, Task, best, missing_share, on_processor
from bendi.planner.subject import Conditions

GENEROUS_TOK = 32768
"""A context is made longer than needed up to here, as long as that costs nothing."""
SMALLEST_TOK = 512
_STEP_TOK = 256
_GROWTH_TOK = 1024
_WORTH_Q8 = 0.9
_ROWS = 32
"""Numbers in a block of the quantized types of a KV cache."""


def trained_tok(facts: MemoryFacts) -> int:
    """The longest context of the model; generous where it does not say."""
    return facts.context_length or GENEROUS_TOK


def needed_tok(facts: MemoryFacts, conditions: Conditions) -> int:
    """The shortest context that holds the workload, within what the model was trained for."""
    wanted = max(conditions.workload.context_tok, conditions.min_context_tok, SMALLEST_TOK)
    return min(-(-wanted // _STEP_TOK) * _STEP_TOK, trained_tok(facts))


def choose(task: Task, conditions: Conditions) -> Found | None:
    """The fastest placement with a context that holds the workload; None when nothing fits.

    1. A context that is asked for is taken. Otherwise it is the shortest that holds the workload, or, where that does
       not fit, the longest that does.
    2. The KV cache is F16. It is Q8_0 if F16 does not fit, or leaves weights in slower memory where Q8_0 would not, or
       Q8_0 makes a tenth of difference.
    3. A chosen context grows, up to what the model was trained for or 32768 tokens, as far as the same placement fits
       the memory: it is never paid for with speed.
    """
    needed = conditions.context_tok or needed_tok(task.subject.facts, conditions)
    found = _best_type(task, conditions, needed)
    if conditions.context_tok:
        return found
    if found is None:
        return _longest(task, conditions, needed)
    return _grown(task, found)


def cache_types(conditions: Conditions, chosen: str) -> tuple[str, str]:
    """Keys and values, where `chosen` is taken for what is not asked for."""
    return conditions.type_k or chosen, conditions.type_v or chosen


def _best_type(task: Task, conditions: Conditions, context_tok: int) -> Found | None:
    types = cache_types(conditions, "f16")
    found = _best(task, context_tok, types)
    smaller = cache_types(conditions, "q8_0")
    if smaller == types or not _may_be_quantized(task.subject.facts):
        return found
    if found is not None and not _spills(task, found):
        return found
    other = _best(task, context_tok, smaller)
    if found is None or other is None:
        return other or found
    worth_s = found.request_s * (1.0 if not _spills(task, other) else _WORTH_Q8)
    return other if other.request_s < worth_s else found


def _best(task: Task, context_tok: int, types: tuple[str, str]) -> Found | None:
    found = best(task, context_tok, types)
    if len({gpu.spec for gpu in task.devices.gpus}) > 1:
        # Unequal GPUs: what --fit would choose may split layers differently, and must not be faster.
        for fitted in fit_at(task, context_tok, trained_tok(task.subject.facts), types):
            if found is None or fitted.request_s < found.request_s:
                found = fitted
    return found


def _spills(task: Task, found: Found) -> bool:
    """Whether anything is in slower memory than there is."""
    whole = found.placement.whole(len(task.subject.layers.layers))
    return bool(found.missing or (task.devices.gpus and not whole))


def _may_be_quantized(facts: MemoryFacts) -> bool:
    """Hybrid models are left out: a quantized cache beside a recurrent state has given wrong numbers."""
    rows = (number for layer in facts.cache_layers for number in (layer.key_numbers, layer.value_numbers))
    return bool(facts.cache_layers) and not facts.state_numbers and all(number % _ROWS == 0 for number in rows)


def _longest(task: Task, conditions: Conditions, needed: int) -> Found | None:
    """For memory that does not hold what the workload needs."""
    chosen = "q8_0" if _may_be_quantized(task.subject.facts) else "f16"
    types = cache_types(conditions, chosen)
    smallest = min(SMALLEST_TOK, needed)
    if _best(task, smallest, types) is None:
        return None
    steps = largest_that(lambda step: _best(task, max(step * _STEP_TOK, 1), types) is not None, needed // _STEP_TOK)
    return _best(task, max(steps * _STEP_TOK, smallest), types)


def _grown(task: Task, found: Found) -> Found:
    """`found` with the longest context for which it needs nothing that it does not have."""
    most = min(trained_tok(task.subject.facts), GENEROUS_TOK)
    if most <= found.context_tok:
        return found

    def fits(context_tok: int) -> bool:
        return still_fits(task, found, context_tok)

    if fits(most):
        return replace(found, context_tok=most)
    start = found.context_tok // _GROWTH_TOK
    steps = largest_that(lambda step: fits((start + step) * _GROWTH_TOK), most // _GROWTH_TOK - start)
    return replace(found, context_tok=max((start + steps) * _GROWTH_TOK, found.context_tok))


def still_fits(task: Task, found: Found, context_tok: int) -> bool:
    """Whether the placement of `found` is as good with that context."""
    placement = found.placement
    if not placement.gpus:
        other = on_processor(task, context_tok, found.types)
        return other is not None and other.missing <= found.missing
    layout = task.layout(context_tok, found.types, placement.n_ubatch)
    if any(share.used_bytes > share.budget_bytes for share in layout.shares(placement)[1:]):
        return False
    room_bytes = layout.room_for_weights(placement)
    return room_bytes >= 0 and missing_share(layout.host_weights(placement), room_bytes) <= found.missing
