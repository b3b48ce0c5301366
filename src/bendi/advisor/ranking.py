"""Which of several plans is best for a use: one number, and the reasons for it.

The unit is a doubling of model size (see `quality`): a plan is worth the quality of its model, less what quantization
takes away, less what its slowness costs. Slowness costs nothing while the answer comes as fast as people read; below
that, half the speed costs as much as 1.5 halvings of the model, since nobody waits for a better answer word by word.
Waiting for the first token costs less. Faster than that is worth a little, so that of two equals the faster wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, log2

from bendi.i18n import _
from bendi.planner.plan import Plan, SpeedAt
from bendi.planner.speed import Rate
from bendi.units import format_duration, format_rate

_SLOWNESS_COSTS = 1.5
_WAITING_COSTS = 0.5
_SPEED_IS_WORTH = 0.15
_MOST_SPEED_WORTH = 0.5
_THINKING_FACTOR = 2.0
"""A thinking model writes more before its answer begins; it must be so much faster to feel the same."""
_SHORT_CONTEXT_COSTS = 4.0


@dataclass(frozen=True)
class Comfort:
    """`tg_tok_s`: token generation that nobody waits for (people read 4 to 6 tokens of text a second, and skim code
    faster). `ttft_s`: how long one gladly waits for the first token."""

    tg_tok_s: float
    ttft_s: float


COMFORTS: Mapping[str, Comfort] = {
    "chat": Comfort(8.0, 5.0),
    "code": Comfort(12.0, 10.0),
    "rag": Comfort(7.0, 30.0),
    "summarise": Comfort(7.0, 120.0),
}


@dataclass(frozen=True)
class Standing:
    """`score`: in doublings, -inf where the model does not fit. `lost`: what quantization took of it. `reasons`:
    translated."""

    score: float
    lost: float
    reasons: tuple[str, ...]


def speed_for(plan: Plan) -> SpeedAt:
    """The speeds of a plan nearest to where its workload writes the answer; zeros for a plan that does not fit."""
    if not plan.speeds:
        return SpeedAt(0, Rate(0.0, 0.0), Rate(0.0, 0.0))
    middle = plan.workload.depth_tok + plan.workload.prompt_tok
    return min(plan.speeds, key=lambda speed: abs(speed.depth_tok - middle))


def standing(plan: Plan, quality: float, lost: float, *, thinking: bool = False) -> Standing:
    """How good `plan` is. `quality`: of the unquantized model, in doublings; `lost`: what quantization costs."""
    if plan.verdict == "does_not_fit":
        return Standing(-inf, lost, (_("does not fit in memory"),))
    comfort = COMFORTS.get(plan.workload.name, COMFORTS["chat"])
    wanted_tok_s = comfort.tg_tok_s * (_THINKING_FACTOR if thinking else 1.0)
    tok_s = max(speed_for(plan).tg.tok_s, 1e-6)
    spare = log2(tok_s / wanted_tok_s)
    slow = -_SLOWNESS_COSTS * spare if spare < 0 else -min(_SPEED_IS_WORTH * spare, _MOST_SPEED_WORTH)
    waiting = _WAITING_COSTS * max(log2(max(plan.ttft_s, 1e-6) / comfort.ttft_s), 0.0)
    reasons = [_lost_text(lost), _speed_text(tok_s, wanted_tok_s)]
    if waiting:
        reasons.append(_("the first token takes {time}").format(time=format_duration(plan.ttft_s)))
    short = 0.0
    if plan.settings.context_tok < plan.workload.context_tok:
        short = _SHORT_CONTEXT_COSTS
        reasons.append(
            _("the context of {context} tokens is too short for this use").format(context=plan.settings.context_tok)
        )
    return Standing(quality - lost - slow - waiting - short, lost, tuple(reasons))


def _lost_text(lost: float) -> str:
    if lost < 0.05:
        return _("quantization costs nothing that can be noticed")
    return _("quantization costs as much as {percent:.0f} % fewer parameters").format(percent=100 * (1 - 2**-lost))


def _speed_text(tok_s: float, wanted_tok_s: float) -> str:
    if tok_s >= wanted_tok_s:
        return _("faster than one reads ({rate})").format(rate=format_rate(tok_s))
    return _("slower than is comfortable ({rate}, {wanted} would be)").format(
        rate=format_rate(tok_s), wanted=format_rate(wanted_tok_s)
    )
