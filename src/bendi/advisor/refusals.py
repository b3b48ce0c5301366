"""What is said when a model does not fit: why, and the commands that work instead."""

from __future__ import annotations

from dataclasses import replace

from bendi.advisor.advice import Advice, advice_for
from bendi.advisor.alternatives import Alternative, alternative
from bendi.advisor.ranking import speed_for
from bendi.engines import LoadRequest
from bendi.errors import OutOfMemory
from bendi.i18n import _
from bendi.planner.plan import Plan
from bendi.planner.subject import Conditions
from bendi.settings import Settings
from bendi.store import LocalModel, Store
from bendi.units import format_size


def explained_refusal(
    error: OutOfMemory, model: LocalModel, load: LoadRequest, settings: Settings, usable_bytes: int | None = None
) -> OutOfMemory:
    """`error` with the command that would work; with its own hint where none is known. `usable_bytes`: what the model
    may use, where that is less than the machine has. Raises BendiError when nothing can be planned."""
    advice = limited(advice_for(settings), usable_bytes, settings.worker_memory_bytes)
    return refusal(error, settings, model, model.name, (advice, conditions_of(load)))


def refusal(
    error: OutOfMemory, settings: Settings, model: LocalModel, name: str, asked: tuple[Advice, Conditions]
) -> OutOfMemory:
    """`error` with the best alternative for what was `asked`, `name` being what the user calls the model."""
    found = alternative(Store(settings), model, name, *asked)
    if found is None:
        general = _("Close other programs; bendi fit shows what this machine can run.")
        return OutOfMemory(error.message, hint=error.hint or general)
    return OutOfMemory(error.message, hint=_hint(found))


def does_not_fit(plan: Plan, advice: Advice) -> OutOfMemory:
    """The error for a plan whose verdict is that."""
    return OutOfMemory(
        _("{model} does not fit: it needs {needed} with a context of {context} tokens; {usable} can be used.").format(
            model=plan.model,
            needed=format_size(plan.memory.total_bytes),
            context=plan.settings.context_tok,
            usable=format_size(advice.machine.memory.usable_bytes),
        )
    )


def conditions_of(load: LoadRequest) -> Conditions:
    """For a plan of that load."""
    return Conditions(
        context_tok=load.context_tok,
        type_k=load.type_k,
        type_v=load.type_v,
        parallel=load.parallel,
        threads=load.threads,
    )


def limited(advice: Advice, *limits_bytes: int | None) -> Advice:
    """Limits of memory are as if there were no more; None is no limit."""
    memory = advice.machine.memory
    usable_bytes = min(
        memory.usable_bytes, *(limit for limit in limits_bytes if limit is not None), memory.usable_bytes
    )
    return replace(advice, machine=replace(advice.machine, memory=replace(memory, usable_bytes=usable_bytes)))


def _hint(found: Alternative) -> str:
    rate = _("about {rate:.2g} tok/s").format(rate=speed_for(found.plan).tg.tok_s)
    return "\n".join([f"{found.what} ({rate})", *found.commands])
