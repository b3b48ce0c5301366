"""Turns what a search found into a plan: speeds at several depths, shares, settings and reasons."""

from __future__ import annotations

from collections.abc import Iterator
from math import hypot

from bendi.planner.devices import WORKER_BYTES
from bendi.planner.layout import MAIN_MEMORY
from bendi.planner.memory import MemoryNeed, memory_needed
from bendi.planner.plan import DeviceShare, EngineSettings, Plan, SpeedAt, Verdict
from bendi.planner.reasons import reasons_for, reasons_without_room
from bendi.planner.search import Found, Task
from bendi.planner.seconds import Seconds, Work, processor_seconds
from bendi.planner.speed import BATCH_TOK, Rate, load_s, rate_error
from bendi.planner.subject import Conditions

DEPTHS_TOK = (0, 2048, 8192, 32768)
_GPU_ERROR = 0.35
_UNKNOWN_GPU_ERROR = 0.6
_DISK_ERROR = 0.5
_ATTENTION_ERROR = 0.3
"""Of what attention to earlier tokens takes: where they lie in memory differs from process to process."""
_DRIVER_START_S = 1.0


def plan_of(task: Task, conditions: Conditions, found: Found) -> Plan:
    """The plan for a placement that fits."""
    placement, subject, noise = found.placement, task.subject, max(task.calibration.noise, 1.0)
    layout = task.layout(found.context_tok, found.types, placement.n_ubatch)
    need = memory_needed(subject.facts, layout.setup)
    shares = layout.shares(placement) if placement.gpus else (_processor_share(task, need),)
    error = _error(task, found)
    warm_s = _load_s(task, found, shares, cold=False)
    verdict: Verdict = "slow" if found.missing else "fits"
    return Plan(
        model=subject.model,
        quantization=subject.quantization,
        file_bytes=subject.file_bytes,
        build=conditions.build,
        settings=_settings(task, conditions, found),
        memory=need,
        shares=shares,
        verdict=verdict,
        workload=task.workload,
        speeds=tuple(_speeds(task, found, error, noise)),
        ttft_s=(found.seconds.prompt_s + found.seconds.token_s) * noise,
        request_s=found.request_s * noise,
        load_warm_s=warm_s,
        load_cold_s=_load_s(task, found, shares, cold=True),
        error=error,
        calibrated=task.calibration.cpu.source == "measured" and not placement.gpus,
        reasons=reasons_for(task, conditions, found),
    )


def plan_without_room(task: Task, conditions: Conditions) -> Plan:
    """The plan for a model that cannot run: what it would need in main memory, and no speeds."""
    subject = task.subject
    context_tok = conditions.context_tok or min(512, subject.facts.context_length or 512)
    types = (conditions.type_k or "f16", conditions.type_v or "f16")
    need = memory_needed(subject.facts, task.setup(context_tok, types, BATCH_TOK))
    threads = conditions.threads or task.calibration.cpu.threads
    return Plan(
        model=subject.model,
        quantization=subject.quantization,
        file_bytes=subject.file_bytes,
        build=conditions.build,
        settings=EngineSettings(context_tok, task.parallel, *types, threads=threads),
        memory=need,
        shares=(_processor_share(task, need),),
        verdict="does_not_fit",
        workload=task.workload,
        speeds=(),
        ttft_s=0.0,
        request_s=0.0,
        load_warm_s=0.0,
        load_cold_s=0.0,
        error=0.0,
        calibrated=task.calibration.cpu.source == "measured",
        reasons=reasons_without_room(task, context_tok, need),
    )


def _processor_share(task: Task, need: MemoryNeed) -> DeviceShare:
    """Everything in main memory. The state of recurrent layers counts as cache, as in `Layout`."""
    cache_bytes = need.kv_bytes + need.recurrent_state_bytes
    return DeviceShare(
        device=MAIN_MEMORY,
        layers=task.subject.work.layers,
        expert_layers=0,
        weights_bytes=need.weights_bytes,
        kv_bytes=cache_bytes,
        compute_bytes=need.beside_weights_bytes - cache_bytes,
        fixed_bytes=WORKER_BYTES,
        budget_bytes=task.devices.host_budget_bytes,
    )


def _settings(task: Task, conditions: Conditions, found: Found) -> EngineSettings:
    placement = found.placement
    layers = len(task.subject.layers.layers)
    # The engine counts layers that guess tokens ahead among the last ones, though it does not load them.
    unloaded = task.subject.layers.prediction_layers if placement.counts else 0
    return EngineSettings(
        context_tok=found.context_tok,
        parallel=task.parallel,
        type_k=found.types[0],
        type_v=found.types[1],
        n_batch=placement.n_ubatch,
        n_ubatch=placement.n_ubatch,
        threads=conditions.threads or task.calibration.cpu.threads,
        gpu_layers=placement.gpu_layers + unloaded,
        tensor_split=_split(task, found, unloaded),
        cpu_expert_layers=min(max(placement.cpu_experts - (layers - placement.gpu_layers), 0), placement.gpu_layers),
    )


def _split(task: Task, found: Found, unloaded: int) -> tuple[float, ...]:
    """Layers for every GPU of the vendor, those that are not used included; the last one in use also has the head."""
    placement = found.placement
    if not placement.gpus:
        return ()
    vendor = task.devices.gpus[placement.gpus[0]].vendor
    counts = dict(zip(placement.gpus, placement.counts, strict=True))
    together = [at for at, gpu in enumerate(task.devices.gpus) if gpu.vendor == vendor]
    if len(together) == 1:
        return ()
    return tuple(float(counts.get(at, 0) + (1 + unloaded if at == placement.gpus[-1] else 0)) for at in together)


def _speeds(task: Task, found: Found, error: float, noise: float) -> Iterator[SpeedAt]:
    tokens = found.placement.n_ubatch
    first = _seconds_at(task, found, 0, tokens)
    for depth_tok in DEPTHS_TOK:
        if depth_tok and depth_tok + tokens > found.context_tok:
            return
        seconds = _seconds_at(task, found, depth_tok, tokens)
        pp, tg = tokens / (seconds.prompt_s * noise), 1 / (seconds.token_s * noise)
        pp_error = hypot(error, _ATTENTION_ERROR * max(1 - first.prompt_s / seconds.prompt_s, 0.0))
        tg_error = hypot(error, _ATTENTION_ERROR * max(1 - first.token_s / seconds.token_s, 0.0))
        yield SpeedAt(depth_tok, Rate(pp, pp_error), Rate(tg, tg_error))


def _seconds_at(task: Task, found: Found, depth_tok: int, tokens: int) -> Seconds:
    placement = found.placement
    work = Work(depth_tok, tokens, depth_tok, placement.n_ubatch, found.types[1])
    if not placement.gpus:
        return processor_seconds(task.subject, task.calibration, work, found.missing)
    return task.timing(placement.gpus, work).seconds(placement, found.missing)


def _error(task: Task, found: Found) -> float:
    error = rate_error(task.subject.work, task.calibration)
    specs = [task.devices.gpus[at].spec for at in found.placement.gpus]
    if specs:
        of_gpu = _GPU_ERROR if all(spec.known for spec in specs) else _UNKNOWN_GPU_ERROR
        error = of_gpu if found.placement.whole(len(task.subject.layers.layers)) else max(of_gpu, error)
    return hypot(error, _DISK_ERROR) if found.missing else error


def _load_s(task: Task, found: Found, shares: tuple[DeviceShare, ...], *, cold: bool) -> float:
    work = task.subject.work
    whole_s = load_s(work, task.calibration, cold=cold)
    if not found.placement.gpus:
        return whole_s
    warm_s = load_s(work, task.calibration, cold=False)
    on_gpus = sum(share.weights_bytes for share in shares[1:]) / max(work.total_bytes, 1)
    copying_s = sum(
        share.weights_bytes / task.devices.gpus[at].spec.link_bytes_s
        for at, share in zip(found.placement.gpus, shares[1:], strict=True)
    )
    return _DRIVER_START_S + warm_s * max(1 - on_gpus, 0) + copying_s + whole_s - warm_s
