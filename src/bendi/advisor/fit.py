"""The catalogue ranked for a machine and a use: what can run here, how well, how fast.

Of each model the quantization with the best standing is taken (`ranking`), searched from the usual one towards what is
better; then models are ranked by the same number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bendi.advisor.advice import Advice
from bendi.advisor.catalogue_work import catalogue_subjects
from bendi.advisor.plans import run_command
from bendi.advisor.quality import Quality, quality_of, quantization_loss
from bendi.advisor.ranking import Standing, speed_for, standing
from bendi.hardware import Machine
from bendi.i18n import _
from bendi.planner.plan import WORKLOADS, Plan
from bendi.planner.subject import Conditions, Subject
from bendi.store.catalogue import packaged_names
from bendi.store.known_models import KnownModel, known_models
from bendi.store.names import typed

Sort = Literal["score", "quality", "tg", "pp", "size", "released", "name"]
SORTS: tuple[Sort, ...] = ("score", "quality", "tg", "pp", "size", "released", "name")
USES = ("chat", "code", "rag", "summarise", "translate", "reasoning", "tools", "vision", "embedding")

_LADDER = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")
_USUAL = "Q4_K_M"
_NATIVE = {"gpt_oss": "MXFP4_MOE"}
"""Types in which a model was trained and published: no other makes sense."""


@dataclass(frozen=True)
class Filters:
    """Which models are of interest. `use`: one of USES. `language`: a code such as "zh". `thinking`: True: models that
    can think, False: models that can answer without it. `max_bytes`: of the file. `licence`: a part of its name.
    `everything`: also what does not fit. `conditions`: for the plans; None: with the typical request of the use."""

    use: str = "chat"
    language: str | None = None
    kind: Literal["dense", "moe"] | None = None
    thinking: bool | None = None
    max_bytes: int | None = None
    min_tg_tok_s: float | None = None
    min_context_tok: int | None = None
    licence: str | None = None
    everything: bool = False
    sort: Sort = "score"
    conditions: Conditions | None = None


@dataclass(frozen=True)
class FitRow:
    """One model in the quantization that suits it best. `equivalent_parameters`: how large a typical model with its
    scores is, `benchmarks` of them; `score`, `lost`: see `ranking`. `why`: translated."""

    model: str
    title: str
    maker: str
    released: str
    licence: str
    kind: str
    thinking: str
    languages: tuple[str, ...]
    parameters: int
    active_parameters: int
    equivalent_parameters: float
    benchmarks: int
    score: float
    lost: float
    plan: Plan
    why: tuple[str, ...]
    get: str
    run: str


def fit(advice: Advice, filters: Filters | None = None) -> list[FitRow]:
    """Every model of the catalogue that passes `filters` and can be pulled, best first. Opens no connection."""
    filters = filters or Filters()
    room_bytes = _room_bytes(advice.machine)
    rows = []
    published = packaged_names()
    for model in known_models().values():
        if model.alias not in published or not _interesting(model, filters):
            continue
        subjects = catalogue_subjects(model.alias)
        row = _row(model, subjects, advice, filters, room_bytes) if subjects else None
        if row is not None and _passes(row, filters):
            rows.append(row)
    return sorted(rows, key=lambda row: _key(row, filters.sort))


def _typical(use: str) -> Conditions:
    workload = WORKLOADS.get(use, WORKLOADS["chat"])
    return Conditions(workload, min_context_tok=workload.context_tok)


def _interesting(model: KnownModel, filters: Filters) -> bool:
    if filters.use not in model.uses or model.thinking in ("rerank", "base"):
        return False
    if (model.thinking == "embedding") != (filters.use == "embedding"):
        return False
    if filters.kind and model.kind != filters.kind:
        return False
    if filters.thinking is not None and model.thinking not in (
        "hybrid",
        "thinking" if filters.thinking else "instruct",
    ):
        return False
    if filters.language and not {filters.language, "multilingual"} & set(model.languages):
        return False
    return not filters.licence or filters.licence.casefold() in model.licence.casefold()


def _row(
    model: KnownModel, subjects: Mapping[str, Subject], advice: Advice, filters: Filters, room_bytes: int
) -> FitRow | None:
    quality = quality_of(model, filters.use)
    choice = _Choice(model, subjects, advice, filters, quality)
    best = choice.best(room_bytes)
    if best is None:
        return None
    plan, stands = best
    name = f"{model.alias}:{plan.quantization}"
    return FitRow(
        model=model.alias,
        title=model.title,
        maker=model.maker,
        released=model.released,
        licence=model.licence,
        kind=model.kind,
        thinking=model.thinking,
        languages=model.languages,
        parameters=model.parameters,
        active_parameters=model.active_parameters,
        equivalent_parameters=quality.parameters,
        benchmarks=quality.benchmarks,
        score=stands.score,
        lost=stands.lost,
        plan=plan,
        why=(_quality_text(quality), *stands.reasons),
        get=f"bendi pull {typed(name)}",
        run=run_command(plan, name),
    )


class _Choice:
    """The search for the best quantization of one model."""

    def __init__(
        self, model: KnownModel, subjects: Mapping[str, Subject], advice: Advice, filters: Filters, quality: Quality
    ) -> None:
        self._model, self._subjects, self._advice, self._quality = model, subjects, advice, quality
        self._filters = filters
        self._conditions = filters.conditions or _typical(filters.use)
        self._type = str(model.config.get("model_type", ""))

    def best(self, room_bytes: int) -> tuple[Plan, Standing] | None:
        native = _NATIVE.get(self._type)
        ladder = [name for name in ((native,) if native else _LADDER) if name in self._subjects]
        limit_bytes = self._filters.max_bytes
        if limit_bytes is not None:
            ladder = [name for name in ladder if self._subjects[name].file_bytes <= limit_bytes]
        fitting = [name for name in ladder if self._subjects[name].file_bytes <= room_bytes]
        if not fitting:
            return self._standing(ladder[-1]) if ladder and self._filters.everything else None
        at = fitting.index(_USUAL) if _USUAL in fitting else 0
        found = {at: self._standing(fitting[at])}
        if found[at][0].verdict != "fits" or not self._climb(fitting, found, at, -1):
            self._climb(fitting, found, at, 1)
        best = max(found.values(), key=lambda pair: (pair[0].verdict == "fits", pair[1].score))
        return best if best[0].verdict == "fits" or self._filters.everything else None

    def _climb(self, ladder: list[str], found: dict[int, tuple[Plan, Standing]], at: int, step: int) -> bool:
        """Goes on in one direction while it gets better, or until something fits; whether it did."""
        start = at
        while 0 <= at + step < len(ladder):
            before = found[at]
            found[at + step] = after = self._standing(ladder[at + step])
            at += step
            if before[0].verdict == "fits" and after[1].score <= before[1].score:
                return at - step != start
        return True

    def _standing(self, quantization: str) -> tuple[Plan, Standing]:
        subject = self._subjects[quantization]
        plan = self._advice.planned(subject, self._conditions)
        lost = quantization_loss(quantization, self._model.parameters, self._type)
        return plan, standing(plan, self._quality.doublings, lost, thinking=self._model.thinking == "thinking")


def _room_bytes(machine: Machine) -> int:
    """The most that weights could take: main memory and all that GPUs have of their own."""
    own = sum(gpu.memory_free_bytes or gpu.memory_total_bytes or 0 for gpu in machine.gpus if not gpu.unified)
    return machine.memory.usable_bytes + own


def _passes(row: FitRow, filters: Filters) -> bool:
    if filters.min_tg_tok_s and speed_for(row.plan).tg.tok_s < filters.min_tg_tok_s:
        return False
    return not filters.min_context_tok or row.plan.settings.context_tok >= filters.min_context_tok


def _key(row: FitRow, sort: Sort) -> tuple[object, ...]:
    fits = row.plan.verdict != "fits"
    speed = speed_for(row.plan)
    keys: Mapping[str, tuple[object, ...]] = {
        "score": (fits, -row.score),
        "quality": (-row.equivalent_parameters,),
        "tg": (-speed.tg.tok_s,),
        "pp": (-speed.pp.tok_s,),
        "size": (row.plan.file_bytes,),
        "released": tuple(-int(part) for part in row.released.split("-")),
        "name": (row.model,),
    }
    return keys[sort]


def _quality_text(quality: Quality) -> str:
    size = f"{quality.parameters / 1e9:.2g}"
    if not quality.benchmarks:
        return _("no published scores: by its size and age, as good as a model of {size} B").format(size=size)
    return _("scores like a model of {size} B ({count} benchmarks)").format(size=size, count=quality.benchmarks)
