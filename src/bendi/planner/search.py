"""Finds the placement with the shortest predicted request among those that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bendi.planner.calibration import Calibration
from bendi.planner.devices import WORKER_BYTES, Devices
from bendi.planner.layout import Layout, Placement
from bendi.planner.memory import memory_needed
from bendi.planner.memory_setup import MemorySetup
from bendi.planner.plan import Workload
from bendi.planner.seconds import Seconds, Timing, work_of
from bendi.planner.speed import BATCH_TOK, generation_s, prompt_s
from bendi.planner.subject import Subject
from bendi.planner.work import ModelWork

GPU_BATCHES = (512, 1024, 2048)


@dataclass(frozen=True)
class Task:
    """All that a search needs beside the context and the type of the KV cache."""

    subject: Subject
    devices: Devices
    calibration: Calibration
    workload: Workload
    parallel: int
    no_spill: bool

    def setup(self, context_tok: int, types: tuple[str, str], n_ubatch: int) -> MemorySetup:
        return MemorySetup(context_tok, self.parallel, *types, n_batch=n_ubatch, n_ubatch=n_ubatch)


@dataclass(frozen=True)
class Found:
    """A placement that fits. `missing`: share of the weights in main memory for which there is no room."""

    placement: Placement
    context_tok: int
    types: tuple[str, str]
    seconds: Seconds
    missing: float
    request_s: float


def missing_share(weights_bytes: int, room_bytes: int) -> float:
    """Of the weights in main memory, what has to come from the disk again."""
    return max(1 - max(room_bytes, 0) / weights_bytes, 0.0) if weights_bytes else 0.0


def on_processor(task: Task, context_tok: int, types: tuple[str, str]) -> Found | None:
    """Everything in main memory. None when even buffers and caches do not fit there."""
    work = task.subject.work
    need = memory_needed(task.subject.facts, task.setup(context_tok, types, BATCH_TOK))
    room_bytes = task.devices.host_budget_bytes - need.beside_weights_bytes - WORKER_BYTES
    missing = missing_share(need.weights_bytes, room_bytes)
    if room_bytes < 0 or (missing and task.no_spill):
        return None
    seconds = processor_seconds(work, task, types[1], missing)
    return Found(Placement(), context_tok, types, seconds, missing, seconds.request_s(task.workload.answer_tok))


def processor_seconds(work: ModelWork, task: Task, kv_type: str, missing: float) -> Seconds:
    workload, cpu = task.workload, task.calibration.cpu
    middle = workload.depth_tok + workload.prompt_tok + workload.answer_tok // 2
    token_s = generation_s(work, cpu, middle, kv_type)
    whole_s = prompt_s(work, cpu, workload.prompt_tok, workload.depth_tok, kv_type)
    if missing:
        disk = max(task.calibration.disk_read_bytes_s, 1.0)
        token_s += missing * work.bytes_per_token / disk
        whole_s += missing * _read_bytes(work, workload.prompt_tok) / disk
    return Seconds(token_s, whole_s)


def _read_bytes(work: ModelWork, tokens: int) -> float:
    """Bytes of weights that a prompt of `tokens` reads, in batches."""
    whole, rest = divmod(tokens, BATCH_TOK)
    total_bytes = 0.0
    for group in work.weights:
        for batch, count in ((BATCH_TOK, whole), (rest, 1)):
            if batch and count:
                reached = 1 - (1 - work.expert_share) ** batch if group.experts else 1.0
                total_bytes += count * reached * group.total_bytes
    return total_bytes


def best(task: Task, context_tok: int, types: tuple[str, str]) -> Found | None:
    """The fastest of all placements for that context; None when none fits."""
    found = on_processor(task, context_tok, types)
    if not task.subject.layers.layers:
        return found
    for used in gpu_sets(task.devices):
        for n_ubatch in GPU_BATCHES:
            layout = Layout(task.subject, task.setup(context_tok, types, n_ubatch), task.devices)
            placements = [*_placements(layout, used, bool(task.subject.work.expert_bytes))]
            if placements:
                found = _faster(task, layout, used, placements, types, found)
    return found


def gpu_sets(devices: Devices) -> Iterator[tuple[int, ...]]:
    """Positions of GPUs that may work together: all of one vendor, or one alone. Of equal ones, the one with the most
    memory."""
    vendors = dict.fromkeys(gpu.vendor for gpu in devices.gpus)
    for vendor in vendors:
        together = tuple(at for at, gpu in enumerate(devices.gpus) if gpu.vendor == vendor)
        largest: dict[str, int] = {}
        for at in together:
            name = devices.gpus[at].spec.name
            if name not in largest or devices.gpus[at].budget_bytes > devices.gpus[largest[name]].budget_bytes:
                largest[name] = at
        yield from ((at,) for at in largest.values())
        if len(together) > 1:
            yield together


def evaluate(task: Task, layout: Layout, timing: Timing, placement: Placement, types: tuple[str, str]) -> Found | None:
    """`placement` with what its weights in main memory cost; None when it does not fit."""
    room_bytes = layout.room_for_weights(placement)
    if room_bytes < 0:
        return None
    missing = missing_share(layout.host_weights(placement), room_bytes)
    if missing and task.no_spill:
        return None
    seconds = timing.seconds(placement, missing)
    request_s = seconds.request_s(task.workload.answer_tok)
    return Found(placement, layout.setup.context_tok, types, seconds, missing, request_s)


def _faster(
    task: Task,
    layout: Layout,
    used: tuple[int, ...],
    placements: Sequence[Placement],
    types: tuple[str, str],
    found: Found | None,
) -> Found | None:
    """The fastest of `placements` if it is faster than `found`. They are tried in the order of the time that they would
    take with all weights in memory, which is the least that they can take."""
    work = work_of(task.workload, layout.setup.n_ubatch, types[1])
    timing = Timing(task.subject, task.calibration, task.devices.gpus, used, work)
    answer_tok = task.workload.answer_tok
    at_least = sorted(
        ((timing.seconds(placement).request_s(answer_tok), number) for number, placement in enumerate(placements)),
    )
    for least_s, number in at_least:
        if found is not None and least_s >= found.request_s:
            break
        tried = evaluate(task, layout, timing, placements[number], types)
        if tried is not None and (found is None or tried.request_s < found.request_s):
            found = tried
    return found


def _placements(layout: Layout, used: tuple[int, ...], has_experts: bool) -> Iterator[Placement]:
    """All placements on the GPUs `used` that fit these GPUs."""
    count, n_ubatch = layout.count, layout.setup.n_ubatch

    def placed(gpu_layers: int, cpu_experts: int) -> Placement | None:
        counts = layout.assign(used, gpu_layers, cpu_experts)
        return Placement(used, counts, cpu_experts, n_ubatch) if counts else None

    whole = placed(count, 0)
    if whole:
        yield whole
    most = largest_that(lambda layers: placed(layers, 0) is not None, count - 1)
    yield from filter(None, (placed(layers, 0) for layers in range(1, most + 1)))
    if not has_experts:
        return
    fewest = count - largest_that(lambda full: placed(count, count - full) is not None, count - 1)
    if placed(count, fewest) is not None:
        yield from filter(None, (placed(count, experts) for experts in range(fewest, count + 1)))
    else:
        most = largest_that(lambda layers: placed(layers, count) is not None, count - 1)
        yield from filter(None, (placed(layers, count) for layers in range(1, most + 1)))


def largest_that(holds: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` for which `holds`, which must hold for all smaller ones too; 0 if for none."""
    low, high = 0, max(most, 0)
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
