"""Plans of one model in all its quantizations, with the one to take."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import log2

from bendi.advisor.advice import Advice
from bendi.advisor.offers import Availability, Candidate, Candidates, candidates_of
from bendi.advisor.quality import quality_of, quantization_loss
from bendi.advisor.ranking import Standing, standing
from bendi.errors import NotFoundError
from bendi.i18n import _
from bendi.planner.plan import Plan
from bendi.planner.subject import Conditions
from bendi.store import Store
from bendi.store.inspecting import InspectOptions
from bendi.store.names import typed

_TROUBLE = {"here": 0.0, "there": 0.2, "unchecked": 0.25, "to_make": 1.0}
"""What it is worth, in doublings, not to have to get a file first."""
MAX_OTHERS = 12


@dataclass(frozen=True)
class PlanRequest:
    """`quantizations`: only these; empty: the model's own and what is usually offered. `look`: how to find it."""

    conditions: Conditions = field(default_factory=Conditions)
    quantizations: tuple[str, ...] = ()
    look: InspectOptions = field(default_factory=InspectOptions)


@dataclass(frozen=True)
class Offer:
    """A plan and how to get there. `get`, `run`: commands, empty where nothing is to be done or can be typed yet.
    `score` and `lost`: see `ranking`. `imatrix_needed`: only with an importance matrix can it be made."""

    plan: Plan
    availability: Availability
    recommended: bool
    score: float
    lost: float
    reasons: tuple[str, ...]
    get: str
    run: str
    imatrix_needed: bool


@dataclass(frozen=True)
class ModelPlans:
    """`others`: (label, bytes) at the source that could not be planned without their own headers."""

    name: str
    title: str
    offers: tuple[Offer, ...]
    others: tuple[tuple[str, int], ...]
    received_bytes: int | None
    notes: tuple[str, ...]

    @property
    def recommended(self) -> Offer | None:
        return next((offer for offer in self.offers if offer.recommended), None)


def plans_of(store: Store, name: str, advice: Advice, request: PlanRequest | None = None) -> ModelPlans:
    """The model that `name` means, planned in each quantization for the machine of `advice`.

    A model of this machine is read here; a short name is planned from the dimensions in the catalogue; everything else
    (and both with `look.remote`) at its source, of which only headers and the list of files are read. Raises as
    `store.inspecting.inspect_model`.
    """
    request = request or PlanRequest()
    candidates = candidates_of(store, name, request.look, request.quantizations)
    wanted = {label.upper() for label in request.quantizations}
    items = [item for item in candidates.items if not wanted or item.subject.quantization in wanted]
    if not items:
        raise NotFoundError(
            _("{name} cannot be planned as {quantizations}.").format(
                name=name, quantizations=", ".join(request.quantizations)
            ),
            hint=_("Without --quant, all that is offered is shown: {command}").format(
                command=f"bendi plan {typed(name)}"
            ),
        )
    offers = [_offer(item, candidates, advice, request.conditions) for item in items]
    best = max(offers, key=lambda offer: offer.score - _TROUBLE[offer.availability])
    marked = [replace(offer, recommended=offer is best and offer.plan.verdict != "does_not_fit") for offer in offers]
    return ModelPlans(
        name=candidates.name,
        title=candidates.title,
        offers=tuple(marked),
        others=candidates.others[:MAX_OTHERS],
        received_bytes=candidates.received_bytes,
        notes=candidates.notes,
    )


def run_command(plan: Plan, name: str) -> str:
    """What starts the model as planned."""
    words = ["bendi run", typed(name), f"--context {plan.settings.context_tok}"]
    if plan.settings.type_k != "f16":
        words.append(f"--kv {plan.settings.type_k}")
    return " ".join(words)


def _offer(item: Candidate, candidates: Candidates, advice: Advice, conditions: Conditions) -> Offer:
    subject = item.subject
    plan = advice.planned(subject, conditions, item.key)
    known = candidates.known
    parameters = candidates.parameters or sum(group.total for group in subject.work.weights)
    lost = quantization_loss(subject.quantization, parameters, candidates.model_type)
    quality = quality_of(known, conditions.workload.name).doublings if known else log2(max(parameters, 1) / 1e9)
    thinking = known is not None and known.thinking == "thinking"
    stands: Standing = standing(plan, quality, lost, thinking=thinking)
    get = "" if item.availability == "here" or not item.name else f"bendi pull {typed(item.name)}"
    return Offer(
        plan=plan,
        availability=item.availability,
        recommended=False,
        score=stands.score,
        lost=lost,
        reasons=stands.reasons,
        get=get,
        run=run_command(plan, item.name) if item.name else "",
        imatrix_needed=subject.imatrix_needed,
    )
