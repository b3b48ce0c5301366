"""NVIDIA GPUs through NVML. Importing this module fails with ImportError where `pynvml` is not installed."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from bendi.hardware.types import Gpu

pynvml: Any = importlib.import_module("pynvml")


def read_gpus() -> tuple[Gpu, ...]:
    """All GPUs that the driver shows; empty where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        return tuple(_gpu(index, driver) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int, driver: str) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    total_bytes: int | None = None
    free_bytes: int | None = None
    # A GPU that shares main memory, as on Jetson and DGX Spark, answers that this is not supported.
    with contextlib.suppress(pynvml.NVMLError_NotSupported):
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        total_bytes, free_bytes = int(memory.total), int(memory.free)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        vendor="nvidia",
        index=index,
        memory_total_bytes=total_bytes,
        memory_free_bytes=free_bytes,
        driver=driver,
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        compute_capability=f"{major}.{minor}",
        unified=total_bytes is None,
    )


def _text(value: str | bytes) -> str:
    """Older releases of pynvml answer with bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
