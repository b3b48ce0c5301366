"""Plans: where a model goes on a machine, with which context, and how fast it will be.

    subject = subjects_of("Qwen3-8B", [header], ["Q4_K_M"])[0]
    plan = plan_subject(subject, detect_machine(), None, Conditions())

The fastest placement by predicted time is chosen among all that fit the memory, never the one that merely fills a GPU:
which one is faster depends on how long the prompts are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from bendi.hardware import Machine
from bendi.planner.calibration import Calibration
from bendi.planner.contexts import cache_types, choose, needed_tok, trained_tok
from bendi.planner.default_rates import default_calibration
from bendi.planner.devices import devices_of
from bendi.planner.fitting import FIT_CONTEXT_TOK, fit_found
from bendi.planner.outcome import plan_of, plan_without_room
from bendi.planner.plan import Plan
from bendi.planner.search import Task
from bendi.planner.subject import Conditions, Subject, subjects_of
from bendi.planner.worker_options import worker_arguments

__all__ = [
    "Conditions",
    "Subject",
    "default_calibration",
    "fit_placement",
    "plan_subject",
    "subjects_of",
    "worker_arguments",
]
_usual_calibration = lru_cache(maxsize=32)(default_calibration)


def plan_subject(subject: Subject, machine: Machine, calibration: Calibration | None, conditions: Conditions) -> Plan:
    """The placement, context and KV cache type with the shortest predicted request of `conditions.workload`.

    `machine.gpus` must be those that the engine build can use. `calibration` None: by specification. The verdict is
    `"does_not_fit"` when buffers and caches do not fit even with the shortest context, or the weights do not and
    `no_spill` is set; such a plan has no speeds and its seconds are 0.
    """
    task = _task(subject, machine, calibration, conditions)
    found = choose(task, conditions)
    if found is None:
        return plan_without_room(task, conditions)
    return plan_of(task, conditions, found)


def fit_placement(subject: Subject, machine: Machine, calibration: Calibration | None, conditions: Conditions) -> Plan:
    """What llama.cpp's `--fit` would choose for the same request, with the same predicted times.

    `plan_subject` is never slower, unless this one does not fit.
    """
    task = _task(subject, machine, calibration, conditions)
    types = cache_types(conditions, "f16")
    shortest = max(needed_tok(subject.facts, conditions), min(FIT_CONTEXT_TOK, trained_tok(subject.facts)))
    context = (conditions.context_tok,) * 2 if conditions.context_tok else (shortest, trained_tok(subject.facts))
    found = fit_found(task, context, types)
    if found is None:
        return plan_without_room(task, conditions)
    return plan_of(task, conditions, found)


def _task(subject: Subject, machine: Machine, calibration: Calibration | None, conditions: Conditions) -> Task:
    chosen = calibration or _usual_calibration(machine)
    share = chosen.threads_tried.get(conditions.threads or 0)
    if share and conditions.threads != chosen.cpu.threads:
        types = {
            name: replace(rates, generation_bytes_s=rates.generation_bytes_s * share)
            for name, rates in chosen.cpu.types.items()
        }
        chosen = replace(chosen, cpu=replace(chosen.cpu, types=types))
    return Task(
        subject=subject,
        devices=devices_of(machine),
        calibration=chosen,
        workload=conditions.workload,
        parallel=max(conditions.parallel, 1),
        no_spill=conditions.no_spill,
    )
