"""What a model may use of each device of a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from bendi.hardware import Gpu, Machine
from bendi.planner.calibration import DeviceRates
from bendi.planner.gpu_specs import GpuSpec, rates_by_specification, spec_of
from bendi.planner.memory import SYSTEM_RESERVE_BYTES
from bendi.units import GIB, MIB

WORKER_BYTES = 64 * MIB
"""What a worker takes in main memory beside the model."""
_DRIVER_BYTES: Mapping[str, int] = {
    "nvidia": 600 * MIB,  # a CUDA context with cuBLAS and the kernels: 500 to 750 MiB (llama.cpp issue 27953: 749)
    "amd": 600 * MIB,  # HIP likewise
    "intel": 300 * MIB,
    "apple": 128 * MIB,
}
_MARGIN_BYTES = 384 * MIB
"""Left free on a GPU: other programs, and buffers that grow while running (llama.cpp issue 23978)."""
_DISPLAY_BYTES = 512 * MIB
"""What a desktop takes of a GPU whose free memory is not known."""
_MAX_GPUS = 16


@dataclass(frozen=True)
class GpuDevice:
    """A GPU as far as plans need it. `budget_bytes`: for everything, `fixed_bytes` (the driver's own) included."""

    name: str
    vendor: str
    index: int
    spec: GpuSpec
    rates: DeviceRates
    budget_bytes: int
    fixed_bytes: int
    unified: bool


@dataclass(frozen=True)
class Devices:
    """`host_budget_bytes`: of main memory, `WORKER_BYTES` included; what unified GPUs use comes out of it too."""

    host_budget_bytes: int
    gpus: tuple[GpuDevice, ...]


@lru_cache(maxsize=32)
def devices_of(machine: Machine) -> Devices:
    """The budgets of `machine`. GPUs without enough memory to be of use are left out, and integrated ones that nobody
    knows to be faster than the processor."""
    host_budget_bytes = max(machine.memory.usable_bytes - SYSTEM_RESERVE_BYTES, 0)
    found = (_gpu(gpu, len(machine.gpus) > 1) for gpu in machine.gpus[:_MAX_GPUS])
    return Devices(host_budget_bytes, tuple(gpu for gpu in found if gpu is not None))


def _gpu(gpu: Gpu, several: bool) -> GpuDevice | None:
    spec = spec_of(gpu)
    if gpu.unified and not spec.known:
        return None
    total_bytes = gpu.memory_total_bytes or spec.memory_bytes
    free_bytes = gpu.memory_free_bytes
    if free_bytes is None:
        free_bytes = total_bytes - _DISPLAY_BYTES
    budget_bytes = min(free_bytes, total_bytes) - _MARGIN_BYTES
    fixed_bytes = _DRIVER_BYTES[gpu.vendor]
    if budget_bytes < fixed_bytes + GIB // 4:
        return None
    return GpuDevice(
        name=f"{gpu.name} #{gpu.index}" if several else gpu.name,
        vendor=gpu.vendor,
        index=gpu.index,
        spec=spec,
        rates=rates_by_specification(spec),
        budget_bytes=budget_bytes,
        fixed_bytes=fixed_bytes,
        unified=gpu.unified,
    )
