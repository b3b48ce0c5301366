"""Why a plan is as it is, in sentences for the user."""

from __future__ import annotations

from collections.abc import Iterator

from bendi.i18n import _
from bendi.planner.devices import WORKER_BYTES
from bendi.planner.memory import MemoryNeed
from bendi.planner.search import Found, Task
from bendi.planner.subject import Conditions
from bendi.units import format_size


def reasons_for(task: Task, conditions: Conditions, found: Found) -> tuple[str, ...]:
    """For a placement that fits."""
    return (
        *_of_place(task, found),
        *_of_context(task, conditions, found),
        *_of_cache(conditions, found),
        *_of_making(task),
        *_of_knowledge(task, found),
    )


def reasons_without_room(task: Task, context_tok: int, need: MemoryNeed) -> tuple[str, ...]:
    """For a model that cannot run."""
    budget = format_size(task.devices.host_budget_bytes)
    beside_bytes = need.beside_weights_bytes + WORKER_BYTES
    if beside_bytes > task.devices.host_budget_bytes:
        reason = _(
            "KV cache and buffers of a context of {context} tokens take {needed}; {budget} of memory can be used."
        ).format(context=context_tok, needed=format_size(beside_bytes), budget=budget)
    else:
        reason = _(
            "The weights take {weights}, more than the {budget} of memory that can be used, and reading them from the "
            "disk was ruled out."
        ).format(weights=format_size(need.weights_bytes), budget=budget)
    return (reason, *_of_making(task))


def _of_place(task: Task, found: Found) -> Iterator[str]:
    placement = found.placement
    layers = len(task.subject.layers.layers)
    names = ", ".join(task.devices.gpus[at].name for at in placement.gpus)
    if found.missing:
        yield _(
            "The weights are larger than memory: {share:.0%} of them come from the disk again for every token, "
            "which is slow."
        ).format(share=found.missing)
    if not placement.gpus:
        if task.devices.gpus:
            yield _("The processor alone is predicted to be faster than any split with {name}.").format(
                name=task.devices.gpus[0].name
            )
        return
    if placement.whole(layers):
        yield _("All {layers} layers fit on {gpus}.").format(layers=layers, gpus=names)
    elif placement.gpu_layers == layers:
        yield _(
            "The experts of {count} of {layers} layers stay in main memory, everything else with the KV cache is on "
            "{gpus}: the fastest split for such requests."
        ).format(count=placement.cpu_experts, layers=layers, gpus=names)
    else:
        yield _(
            "{count} of {layers} layers are on {gpus}, the others in main memory: the fastest split for such requests."
        ).format(count=placement.gpu_layers, layers=layers, gpus=names)


def _of_context(task: Task, conditions: Conditions, found: Found) -> Iterator[str]:
    trained = task.subject.facts.context_length
    needed = max(task.workload.context_tok, conditions.min_context_tok)
    if conditions.context_tok and trained and conditions.context_tok > trained:
        yield _("The model was trained for {trained} tokens; answers beyond that get worse.").format(trained=trained)
    if found.context_tok >= needed:
        return
    if conditions.context_tok:
        yield _("Such requests need a context of {needed} tokens.").format(needed=needed)
    elif trained and needed > trained:
        yield _("Such requests need a context of {needed} tokens; the model was trained for {trained}.").format(
            needed=needed, trained=trained
        )
    else:
        yield _("Such requests need a context of {needed} tokens; only {context} fit the memory.").format(
            needed=needed, context=found.context_tok
        )


def _of_cache(conditions: Conditions, found: Found) -> Iterator[str]:
    if "q8_0" in found.types and not (conditions.type_k and conditions.type_v):
        yield _("The KV cache is kept as Q8_0, because F16 takes more memory than there is.")


def _of_making(task: Task) -> Iterator[str]:
    if task.subject.imatrix_needed:
        yield _("This quantization can only be made with an importance matrix.")


def _of_knowledge(task: Task, found: Found) -> Iterator[str]:
    if task.calibration.cpu.source == "specification":
        yield _("Not measured yet, so the speeds are rough: run `bendi calibrate`.")
    for name in dict.fromkeys(task.devices.gpus[at].spec.name for at in found.placement.gpus):
        spec = next(gpu.spec for gpu in task.devices.gpus if gpu.spec.name == name)
        if spec.known:
            yield _("The speed of {gpu} is taken from its specification.").format(gpu=name)
        else:
            yield _("{gpu} is not in the list of known GPUs; its speed is a guess from its memory.").format(gpu=name)
