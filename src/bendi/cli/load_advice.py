"""What `bendi run` says before a load that will not work, or will be slow. Loaded only when memory is tight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bendi.advisor.advice import advice_for
from bendi.advisor.alternatives import plan_of_local
from bendi.advisor.ranking import speed_for
from bendi.advisor.refusals import conditions_of, does_not_fit, limited, refusal
from bendi.cli import output
from bendi.engines import Engine, LoadRequest
from bendi.errors import BendiError, OutOfMemory
from bendi.i18n import _
from bendi.settings import Settings
from bendi.store import LocalModel


def load_with_care(
    model: LocalModel, name: str, request: LoadRequest, settings: Settings, load: Callable[[LoadRequest], Engine]
) -> Engine:
    """What `load` returns for `request`, with the context of the plan where none is asked for. Raises OutOfMemory, with
    the reason and what to type instead, when the plan says that it does not fit. A model that must be read from the
    disk for every token is loaded, and said to be slow."""
    advice = limited(advice_for(settings), settings.worker_memory_bytes)
    conditions = conditions_of(request)
    plan = plan_of_local(model, name, advice, conditions)
    if plan.verdict == "does_not_fit":
        raise refusal(does_not_fit(plan, advice), settings, model, name, (advice, conditions))
    if plan.verdict == "slow":
        output.say(
            _(
                "{model} is larger than memory and is read from the disk for every token: about {rate:.2g} tok/s."
            ).format(model=name, rate=speed_for(plan).tg.tok_s)
        )
    try:
        return load(replace(request, context_tok=plan.settings.context_tok))
    except OutOfMemory as error:
        raise explained(error, model, name, request, settings) from error


def explained(
    error: OutOfMemory, model: LocalModel, name: str, request: LoadRequest, settings: Settings
) -> OutOfMemory:
    """`error` with the command that would work; `error` itself where none is known."""
    advice = limited(advice_for(settings), settings.worker_memory_bytes)
    try:
        return refusal(error, settings, model, name, (advice, conditions_of(request)))
    except BendiError:
        return error
