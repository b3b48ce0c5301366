"""Finds the placement with the shortest predicted request among those that fit the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bendi.planner.bisection import largest_that
from bendi.planner.calibration import Calibration
from bendi.planner.devices import WORKER_BYTES, Devices
from bendi.planner.layout import Layout, Placement
from bendi.planner.memory import memory_needed
from bendi.planner.memory_setup import MemorySetup
from bendi.planner.plan import Workload
from bendi.planner.seconds import Seconds, Timing, Work, processor_seconds
from bendi.planner.speed import BATCH_TOK
from bendi.planner.subject import Subject

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

    def layout(self, context_tok: int, types: tuple[str, str], n_ubatch: int) -> Layout:
        return Layout(self.subject, self.setup(context_tok, types, n_ubatch), self.devices)

    def work(self, setup: MemorySetup) -> Work:
        """The workload; the mean of the answer's tokens stands for all of them."""
        asked = self.workload
        middle = asked.depth_tok + asked.prompt_tok + asked.answer_tok / 2
        return Work(asked.depth_tok, asked.prompt_tok, middle, setup.n_ubatch, setup.type_v)

    def timing(self, used: Sequence[int], work: Work) -> Timing:
        """For placements on the GPUs `used`."""
        return Timing(self.subject, self.calibration, self.devices.gpus, used, work)


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
    setup = task.setup(context_tok, types, BATCH_TOK)
    need = memory_needed(task.subject.facts, setup)
    room_bytes = task.devices.host_budget_bytes - need.beside_weights_bytes - WORKER_BYTES
    missing = missing_share(need.weights_bytes, room_bytes)
    if room_bytes < 0 or (missing and task.no_spill):
        return None
    seconds = processor_seconds(task.subject, task.calibration, task.work(setup), missing)
    return Found(Placement(), context_tok, types, seconds, missing, seconds.request_s(task.workload.answer_tok))


def best(task: Task, context_tok: int, types: tuple[str, str]) -> Found | None:
    """The fastest of all placements for that context; None when none fits."""
    found = on_processor(task, context_tok, types)
    if not task.subject.layers.layers:
        return found
    for used in gpu_sets(task.devices):
        for n_ubatch in GPU_BATCHES:
            layout = task.layout(context_tok, types, n_ubatch)
            placements = [*_placements(layout, used, bool(task.subject.work.expert_bytes))]
            if placements:
                found = _faster(task, layout, used, placements, found)
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


def evaluate(task: Task, layout: Layout, timing: Timing, placement: Placement) -> Found | None:
    """`placement` with what its weights in main memory cost; None when it does not fit."""
    room_bytes = layout.room_for_weights(placement)
    if room_bytes < 0:
        return None
    missing = missing_share(layout.host_weights(placement), room_bytes)
    if missing and task.no_spill:
        return None
    seconds = timing.seconds(placement, missing)
    request_s = seconds.request_s(task.workload.answer_tok)
    return Found(placement, layout.setup.context_tok, layout.setup.types, seconds, missing, request_s)


def _faster(
    task: Task, layout: Layout, used: tuple[int, ...], placements: Sequence[Placement], found: Found | None
) -> Found | None:
    """The fastest of `placements` if it is faster than `found`. They are tried in the order of the time that they would
    take with all weights in memory, which is the least that they can take."""
    timing = task.timing(used, task.work(layout.setup))
    answer_tok = task.workload.answer_tok
    at_least = sorted(
        ((timing.seconds(placement).request_s(answer_tok), number) for number, placement in enumerate(placements)),
    )
    for least_s, number in at_least:
        if found is not None and least_s >= found.request_s:
            break
        tried = evaluate(task, layout, timing, placements[number])
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
