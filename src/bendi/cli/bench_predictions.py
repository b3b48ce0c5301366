"""What the planner says of the cells of a study before they are measured, and how long the study will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bendi.advisor.advice import Advice, advice_for
from bendi.bench.cells import groups_of
from bendi.bench.opening import context_needed
from bendi.bench.study import Study
from bendi.bench.subjects import Subject
from bendi.errors import BendiError
from bendi.formats import GgufFile, read_gguf_split
from bendi.formats.blueprints import blueprint_from_config
from bendi.planner.mixture import facts_of, quantized_types, shapes_of
from bendi.planner.plan import Plan, Workload
from bendi.planner.subject import Conditions, subjects_of
from bendi.results import Cell, Prediction
from bendi.settings import Settings

_CHECK_S = 3.0
_UNPREDICTED_S = 30.0


def predictions_for(
    study: Study, cells: Sequence[Cell], subjects: Mapping[tuple[str, str], Subject], settings: Settings
) -> list[Prediction]:
    """For the cells whose engine is one of bendi's, where the planner can say something."""
    found = []
    advice: dict[str, Advice] = {}
    for choice in study.engines:
        if choice.kind == "bendi":
            advice[choice.label] = advice_for(replace(settings, engine=choice.build) if choice.build else settings)
    headers: dict[tuple[str, str], Sequence[GgufFile]] = {}
    for cell in cells:
        if cell.engine not in advice or cell.concurrency > 1 or cell.workload.turns > 1:
            continue
        key = cell.model, cell.quantization
        try:
            if key not in headers:
                headers[key] = _headers(subjects[key])
            plan = _plan(cell, headers[key], advice[cell.engine])
        except (BendiError, OSError):
            continue  # a study needs no prediction
        answer_s = max(plan.request_s - plan.ttft_s, 1e-9)
        memory_bytes = sum(share.used_bytes for share in plan.shares)
        found.append(
            Prediction(
                cell=cell.key,
                pp_tok_s=cell.workload.prompt_tok / max(plan.ttft_s, 1e-9),
                tg_tok_s=cell.workload.answer_tok / answer_s,
                memory_bytes=memory_bytes,
                error=plan.error,
            )
        )
    return found


def seconds_for(study: Study, cells: Sequence[Cell], predictions: Sequence[Prediction]) -> float:
    """About how long the whole study takes: loads, the check, warming up, and the timed requests."""
    by_cell = {each.cell: each for each in predictions}
    care = study.care
    warm_ups = (care.warm_up_least + care.warm_up_most) / 2
    total_s = 0.0
    for group in groups_of(cells, care.blocks, study.seed):
        total_s += care.cool_down_s + 2.0 + (_CHECK_S if care.check and group.block == 0 else 0.0)
        for cell in group.cells:
            predicted = by_cell.get(cell.key)
            if predicted is None:
                total_s += _UNPREDICTED_S
                continue
            work = cell.workload
            request_s = work.prompt_tok / predicted.pp_tok_s + work.answer_tok / predicted.tg_tok_s
            total_s += (warm_ups + work.requests * cell.concurrency) * request_s
            total_s += work.depth_tok / predicted.pp_tok_s
    return total_s


def _headers(subject: Subject) -> Sequence[GgufFile]:
    """Of the file, or of the one that would be made."""
    if subject.path is not None:
        return read_gguf_split(subject.path)
    assert subject.config is not None
    blueprint = blueprint_from_config(subject.config, "model")
    header = blueprint.header()
    return [blueprint.header(quantized_types(shapes_of(header), facts_of(header), subject.quantization))]


def _plan(cell: Cell, headers: Sequence[GgufFile], advice: Advice) -> Plan:
    work = cell.workload
    (subject,) = subjects_of(cell.model, headers)
    kv_type = str(cell.settings.get("type_k", "f16"))
    conditions = Conditions(
        workload=Workload(work.name, work.depth_tok, work.prompt_tok, work.answer_tok),
        context_tok=context_needed([cell]),
        type_k=kv_type,
        type_v=str(cell.settings.get("type_v", kv_type)),
        threads=cell.settings.get("threads"),
    )
    return advice.planned(subject, conditions)
