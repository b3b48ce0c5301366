"""What the planner says of the cells of a study before they are measured, and how long the study will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bendi.advisor.advice import Advice, advice_for
from bendi.bench.cells import groups_of
from bendi.bench.gate import ANSWER_TOK, questions
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

_UNPREDICTED_S = 30.0
_START_S = 0.5
"""Of a worker process, beside reading its file."""
_READ_BYTES_S = 1.5e9
"""How fast a model is taken in when the system has its file in memory; slower the first time."""
_QUESTION_TOK = 40
"""Of the check: about so long a question."""
_BETWEEN_S = 0.05
"""Looking at the machine before and after each repeat, and keeping it."""


def expectations(
    study: Study, cells: Sequence[Cell], subjects: Mapping[tuple[str, str], Subject], settings: Settings
) -> dict[str, Prediction]:
    """What one answer at a time would be like in each cell, by key, where the planner can say something. Other engines
    are taken to be as fast as bendi's: better than nothing for how long a study takes."""
    found: dict[str, Prediction] = {}
    advice: dict[str, Advice] = {}
    builds = {choice.label: choice.build for choice in study.engines}
    headers: dict[tuple[str, str], Sequence[GgufFile]] = {}
    for cell in cells:
        key = cell.model, cell.quantization
        build = builds[cell.engine]
        try:
            if build not in advice:
                advice[build] = advice_for(replace(settings, engine=build) if build else settings)
            if key not in headers:
                headers[key] = _headers(subjects[key])
            plan = _plan(cell, subjects[key], headers[key], advice[build])
        except (BendiError, OSError):
            continue  # a study needs no prediction
        answer_s = max(plan.request_s - plan.ttft_s, 1e-9)
        found[cell.key] = Prediction(
            cell=cell.key,
            pp_tok_s=cell.workload.prompt_tok / max(plan.ttft_s, 1e-9),
            tg_tok_s=cell.workload.answer_tok / answer_s,
            memory_bytes=sum(share.used_bytes for share in plan.shares),
            error=plan.error,
        )
    return found


def predictions_of(study: Study, cells: Sequence[Cell], expected: Mapping[str, Prediction]) -> list[Prediction]:
    """Those that are predictions, and will be compared with what comes: of bendi's engines, one answer at a time."""
    own = {choice.label for choice in study.engines if choice.kind == "bendi"}
    return [
        expected[cell.key]
        for cell in cells
        if cell.key in expected and cell.engine in own and cell.concurrency == 1 and cell.workload.turns == 1
    ]


def seconds_for(study: Study, cells: Sequence[Cell], expected: Mapping[str, Prediction], idle_s: float = 0.0) -> float:
    """About how long the whole study takes: idle meters, loads, the check, warming up, and the timed requests."""
    care = study.care
    total_s = 0.0
    for group in groups_of(cells, care.blocks, study.seed):
        total_s += care.cool_down_s + idle_s + _START_S
        known = [expected[cell.key] for cell in group.cells if cell.key in expected]
        if known:
            total_s += max(each.memory_bytes for each in known) / _READ_BYTES_S
        if known and care.check and group.block == 0:
            total_s += len(questions()) * (_QUESTION_TOK / known[0].pp_tok_s + ANSWER_TOK / known[0].tg_tok_s)
        for cell in group.cells:
            found = expected.get(cell.key)
            total_s += _BETWEEN_S + (_cell_s(study, cell, found) if found else _UNPREDICTED_S)
    return total_s


def _cell_s(study: Study, cell: Cell, found: Prediction) -> float:
    """One repeat. Answers at once are written in steps that are as long as one of them alone takes, or as long as
    computing so many tokens of a prompt, whichever is longer."""
    work, at_once = cell.workload, cell.concurrency
    prompts_s = at_once * work.prompt_tok / found.pp_tok_s
    answers_s = work.answer_tok * max(1 / found.tg_tok_s, at_once / found.pp_tok_s)
    warm_ups = (study.care.warm_up_least + study.care.warm_up_most) / 2
    rounds = work.requests * work.turns
    past_s = at_once * work.depth_tok / found.pp_tok_s
    if cell.cache == "warm":
        # What is repeated was asked before, and its prompts are not computed again.
        return past_s + (warm_ups + rounds) * (prompts_s + answers_s) + rounds * answers_s
    return past_s + (warm_ups + rounds) * (prompts_s + answers_s)


def _headers(subject: Subject) -> Sequence[GgufFile]:
    """Of the file, of the one that it would be made from, or of the one that would be made."""
    path = subject.path or subject.source
    if path is not None:
        return read_gguf_split(path)
    assert subject.config is not None
    blueprint = blueprint_from_config(subject.config, "model")
    header = blueprint.header()
    return [blueprint.header(quantized_types(shapes_of(header), facts_of(header), subject.quantization))]


def _plan(cell: Cell, file: Subject, headers: Sequence[GgufFile], advice: Advice) -> Plan:
    work = cell.workload
    to_be_made = [file.quantization] if file.path is None and file.source is not None else None
    (subject,) = subjects_of(cell.model, headers, to_be_made)
    kv_type = str(cell.settings.get("type_k", "f16"))
    # Of a conversation, its middle.
    before_tok = work.depth_tok + (work.turns - 1) * (work.prompt_tok + work.answer_tok) // 2
    conditions = Conditions(
        workload=Workload(work.name, before_tok, work.prompt_tok, work.answer_tok),
        context_tok=context_needed([cell]),
        type_k=kv_type,
        type_v=str(cell.settings.get("type_v", kv_type)),
        threads=cell.settings.get("threads"),
    )
    return advice.planned(subject, conditions)
