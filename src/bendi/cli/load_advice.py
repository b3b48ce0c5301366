"""What `bendi run` says before a load that will not work, or will be slow. Loaded only when memory is tight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bendi.advisor.advice import Advice, advice_for
from bendi.advisor.alternatives import Alternative, alternative, plan_of_local
from bendi.advisor.ranking import speed_for
from bendi.cli import output
from bendi.engines import Engine, LoadRequest
from bendi.errors import BendiError, OutOfMemory
from bendi.i18n import _
from bendi.planner.plan import Plan
from bendi.planner.subject import Conditions
from bendi.settings import Settings
from bendi.store import LocalModel, Store
from bendi.units import format_size


def load_with_care(
    model: LocalModel, name: str, request: LoadRequest, settings: Settings, load: Callable[[LoadRequest], Engine]
) -> Engine:
    """What `load` returns for `request`, with the context of the plan where none is asked for. Raises OutOfMemory, with
    the reason and what to type instead, when the plan says that it does not fit. A model that must be read from the
    disk for every token is loaded, and said to be slow."""
    advice = _limited(advice_for(settings), settings)
    conditions = _conditions(request)
    plan = plan_of_local(model, name, advice, conditions)
    if plan.verdict == "does_not_fit":
        raise _refusal(_reason(plan, advice), settings, model, name, (advice, conditions))
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
    advice = _limited(advice_for(settings), settings)
    try:
        return _refusal(error.message, settings, model, name, (advice, _conditions(request)), error.hint)
    except BendiError:
        return error


def _refusal(
    message: str,
    settings: Settings,
    model: LocalModel,
    name: str,
    asked: tuple[Advice, Conditions],
    hint: str = "",
) -> OutOfMemory:
    found = alternative(Store(settings), model, name, *asked)
    if found is None:
        return OutOfMemory(message, hint=hint or _("Close other programs; bendi fit shows what this machine can run."))
    return OutOfMemory(message, hint=_hint(found))


def _hint(found: Alternative) -> str:
    speed = speed_for(found.plan)
    rate = _("about {rate:.2g} tok/s").format(rate=speed.tg.tok_s)
    return "\n".join([f"{found.what} ({rate})", *found.commands])


def _reason(plan: Plan, advice: Advice) -> str:
    return _(
        "{model} does not fit: it needs {needed} with a context of {context} tokens; {usable} can be used."
    ).format(
        model=plan.model,
        needed=format_size(plan.memory.total_bytes),
        context=plan.settings.context_tok,
        usable=format_size(advice.machine.memory.usable_bytes),
    )


def _conditions(request: LoadRequest) -> Conditions:
    return Conditions(
        context_tok=request.context_tok,
        type_k=request.type_k,
        type_v=request.type_v,
        parallel=request.parallel,
        threads=request.threads,
    )


def _limited(advice: Advice, settings: Settings) -> Advice:
    """A limit of the worker's memory is as if there were no more."""
    limit_bytes = settings.worker_memory_bytes
    if limit_bytes is None:
        return advice
    memory = replace(advice.machine.memory, usable_bytes=min(limit_bytes, advice.machine.memory.usable_bytes))
    return replace(advice, machine=replace(advice.machine, memory=memory))
