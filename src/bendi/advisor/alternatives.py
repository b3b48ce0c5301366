"""What to run instead of a model that does not fit, as the next command to type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bendi.advisor.advice import Advice
from bendi.advisor.fit import Filters, fit
from bendi.advisor.offers import local_siblings
from bendi.advisor.plans import run_command
from bendi.advisor.shapes import subjects_for
from bendi.errors import BendiError
from bendi.formats import read_gguf_split
from bendi.i18n import _
from bendi.planner.placement import plan_subject
from bendi.planner.plan import Plan
from bendi.planner.subject import Conditions, subjects_of
from bendi.store import LocalModel, Store
from bendi.store.names import RepoName, as_name, format_name, typed

_SMALLER = ("Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")


@dataclass(frozen=True)
class Alternative:
    """`what`: translated, what the command does. `commands`: in the order to type them."""

    what: str
    commands: tuple[str, ...]
    plan: Plan


def plan_of_local(model: LocalModel, name: str, advice: Advice, conditions: Conditions) -> Plan:
    """How a model of this machine would run as it is. Raises as `read_gguf_split`."""
    subject = subjects_of(name, read_gguf_split(model.path))[0]
    return plan_subject(replace(subject, file_bytes=model.size_bytes), advice.machine, advice.calibration, conditions)


def alternative(
    store: Store, model: LocalModel, name: str, advice: Advice, conditions: Conditions
) -> Alternative | None:
    """The nearest thing that fits: the same file with less context or a smaller KV cache, another quantization that is
    here, a smaller one from the same repository, the best model of the catalogue; None where nothing does."""
    ways = (
        _same_file(model, name, advice, conditions),
        _other_file(store, model, advice, conditions),
        _smaller_file(model, advice, conditions),
        _other_model(advice, conditions),
    )
    return next((found for way in ways for found in way), None)


def _same_file(model: LocalModel, name: str, advice: Advice, conditions: Conditions) -> Iterator[Alternative]:
    kept = (conditions.type_k, conditions.type_v)
    types = [("f16", "f16"), ("q8_0", "q8_0")]
    asked = [(conditions.context_tok, *pair) for pair in types[1:] if conditions.context_tok and pair != kept]
    free = [(None, *pair) for pair in types]
    for context_tok, type_k, type_v in (*asked, *free):
        changed = replace(conditions, context_tok=context_tok, type_k=type_k, type_v=type_v)
        plan = plan_of_local(model, name, advice, changed)
        if plan.verdict == "fits":
            what = _("The same model with a context of {context} tokens and a KV cache in {kv} fits.").format(
                context=plan.settings.context_tok, kv=type_k
            )
            yield Alternative(what, (run_command(plan, name),), plan)
            return


def _other_file(store: Store, model: LocalModel, advice: Advice, conditions: Conditions) -> Iterator[Alternative]:
    repo = as_name(model.name)
    if not isinstance(repo, RepoName):
        return
    others = [other for other in local_siblings(store, repo) if other.size_bytes < model.size_bytes]
    for other in sorted(others, key=lambda other: -other.size_bytes):
        try:
            plan = plan_of_local(other, other.name, advice, _free(conditions))
        except BendiError:
            continue  # a damaged file is no alternative
        if plan.verdict == "fits":
            what = _("Its quantization {quantization} is on this machine, too, and fits.").format(
                quantization=other.label or plan.quantization
            )
            yield Alternative(what, (run_command(plan, other.name),), plan)
            return


def _smaller_file(model: LocalModel, advice: Advice, conditions: Conditions) -> Iterator[Alternative]:
    repo = as_name(model.name)
    if not isinstance(repo, RepoName):
        return
    for subject in subjects_for(model.name, read_gguf_split(model.path), _SMALLER):
        if subject.file_bytes >= model.size_bytes:
            continue
        plan = plan_subject(subject, advice.machine, advice.calibration, _free(conditions))
        if plan.verdict == "fits":
            name = format_name(replace(repo, quant=subject.quantization, file=None))
            what = _("The same model as {quantization} would fit, if its repository has that.").format(
                quantization=subject.quantization
            )
            yield Alternative(what, (f"bendi pull {typed(name)}", run_command(plan, name)), plan)
            return


def _other_model(advice: Advice, conditions: Conditions) -> Iterator[Alternative]:
    least_tok = max(conditions.min_context_tok, conditions.workload.context_tok)
    for row in fit(advice, Filters(conditions=replace(_free(conditions), min_context_tok=least_tok)))[:1]:
        what = _("The best model that fits this machine is {title}, {quantization}.").format(
            title=row.title, quantization=row.plan.quantization
        )
        yield Alternative(what, (row.get, row.run), row.plan)


def _free(conditions: Conditions) -> Conditions:
    """With a context that the plan may choose."""
    return replace(conditions, context_tok=None)
