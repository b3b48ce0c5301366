"""Turns what a search found into a plan: speeds at several depths, shares, settings and reasons."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

from bendi.planner.devices import WORKER_BYTES
from bendi.planner.layout import MAIN_MEMORY, Layout
from bendi.planner.memory import memory_needed
from bendi.planner.plan import DeviceShare, EngineSettings, Plan, SpeedAt, Verdict, Workload
from bendi.planner.reasons import reasons_for, reasons_without_room
from bendi.planner.search import Found, Task, processor_seconds
from bendi.planner.seconds import Seconds, Timing, Work
from bendi.planner.speed import BATCH_TOK, Rate, load_s, rate_error
from bendi.planner.subject import Conditions

DEPTHS_TOK = (0, 2048, 8192, 32768)
_GPU_ERROR = 0.35
_UNKNOWN_GPU_ERROR = 0.6
_DISK_ERROR = 0.5
_DRIVER_START_S = 1.0


def plan_of(task: Task, conditions: Conditions, found: Found) -> Plan:
    """The plan for a placement that fits."""
    placement, subject, noise = found.placement, task.subject, max(task.calibration.noise, 1.0)
    setup = task.setup(found.context_tok, found.types, placement.n_ubatch)
    need = memory_needed(subject.facts, setup)
    shares: tuple[DeviceShare, ...] = (_processor_share(task, found),)
    if placement.gpus:
        shares = Layout(subject, setup, task.devices).shares(placement)
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
        shares=(_share(task, need.weights_bytes, need.beside_weights_bytes - need.kv_bytes, need.kv_bytes),),
        verdict="does_not_fit",
        workload=task.workload,
        speeds=(),
        ttft_s=0.0,
        request_s=0.0,
        load_warm_s=0.0,
        load_cold_s=0.0,
        error=0.0,
        calibrated=task.calibration.cpu.source == "measured",
        reasons=reasons_without_room(task, conditions, need),
    )


def _processor_share(task: Task, found: Found) -> DeviceShare:
    need = memory_needed(task.subject.facts, task.setup(found.context_tok, found.types, BATCH_TOK))
    cache_bytes = need.kv_bytes + need.recurrent_state_bytes
    return _share(task, need.weights_bytes, need.beside_weights_bytes - cache_bytes, cache_bytes)


def _share(task: Task, weights_bytes: int, buffers_bytes: int, cache_bytes: int) -> DeviceShare:
    layers = task.subject.work.layers
    budget_bytes = task.devices.host_budget_bytes
    return DeviceShare(
        MAIN_MEMORY, layers, 0, weights_bytes, cache_bytes, buffers_bytes, WORKER_BYTES, budget_bytes
    )  # fmt: skip


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
    for depth_tok in DEPTHS_TOK:
        if depth_tok and depth_tok + tokens > found.context_tok:
            return
        seconds = _seconds_at(task, found, depth_tok, tokens)
        pp, tg = tokens / (seconds.prompt_s * noise), 1 / (seconds.token_s * noise)
        yield SpeedAt(depth_tok, Rate(pp, error), Rate(tg, error))


def _seconds_at(task: Task, found: Found, depth_tok: int, tokens: int) -> Seconds:
    placement = found.placement
    if placement.gpus:
        work = Work(depth_tok, tokens, depth_tok, placement.n_ubatch, found.types[1])
        timing = Timing(task.subject, task.calibration, task.devices.gpus, placement.gpus, work)
        return timing.seconds(placement, found.missing)
    prompt = processor_seconds(
        task.subject.work, _with(task, Workload("", depth_tok, tokens, 0)), found.types[1], found.missing
    )
    token = processor_seconds(
        task.subject.work, _with(task, Workload("", depth_tok, 0, 0)), found.types[1], found.missing
    )
    return Seconds(token.token_s, prompt.prompt_s)


def _with(task: Task, workload: Workload) -> Task:
    return Task(task.subject, task.devices, task.calibration, workload, task.parallel, task.no_spill)


def _error(task: Task, found: Found) -> float:
    error = rate_error(task.subject.work, task.calibration)
    specs = [task.devices.gpus[at].spec for at in found.placement.gpus]
    if specs:
        of_gpu = _GPU_ERROR if all(spec.known for spec in specs) else _UNKNOWN_GPU_ERROR
        error = max(of_gpu, error) if _host_works(task, found) else of_gpu
    return sqrt(error**2 + _DISK_ERROR**2) if found.missing else error


def _host_works(task: Task, found: Found) -> bool:
    placement = found.placement
    return placement.gpu_layers < len(task.subject.layers.layers) or bool(placement.cpu_experts)


def _load_s(task: Task, found: Found, shares: tuple[DeviceShare, ...], *, cold: bool) -> float:
    whole_s = load_s(task.subject.work, task.calibration, cold=cold)
    if not found.placement.gpus:
        return whole_s
    on_gpus = sum(share.weights_bytes for share in shares[1:])
    total_bytes = max(task.subject.work.total_bytes, 1)
    disk_s = whole_s - load_s(task.subject.work, task.calibration, cold=False) if cold else 0.0
    copying_s = sum(
        share.weights_bytes / task.devices.gpus[at].spec.link_bytes_s
        for at, share in zip(found.placement.gpus, shares[1:], strict=True)
    )
    warm_s = load_s(task.subject.work, task.calibration, cold=False) * max(1 - on_gpus / total_bytes, 0)
    return _DRIVER_START_S + warm_s + copying_s + disk_s
