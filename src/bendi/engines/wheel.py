"""The engine build that works at once everywhere: the pinned xllamacpp wheel, in a worker process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bendi.engines.llama_http import LlamaServerEngine
from bendi.engines.prepare import prepare, worker_config
from bendi.engines.process import WorkerProcess, worker_command
from bendi.engines.protocol import LoadRequest
from bendi.errors import EngineUnsupported
from bendi.hardware import Cpu, detect_cpu
from bendi.i18n import _

NEEDED_ISA: Mapping[str, frozenset[str]] = {
    # Read from the wheel's machine code: it is built for Haswell, without run-time dispatch.
    "x86_64": frozenset({"avx", "avx2", "fma", "f16c", "bmi2"}),
}


def open_engine(load: LoadRequest, on_progress: Callable[[float], None] | None = None) -> LlamaServerEngine:
    """Loads the model in a new worker. Raises as `engines.open_engine`."""
    check_cpu(detect_cpu())
    prepared = prepare(load)
    worker = WorkerProcess(worker_command("bendi.engines.worker"), worker_config(load, prepared))

    def report() -> None:
        if on_progress and prepared.weights_bytes:
            on_progress(min(worker.resident_bytes() / prepared.weights_bytes, 0.99))

    ready = worker.wait_ready(load.load_timeout_s, report)
    if on_progress:
        on_progress(1.0)
    try:
        prepared.check_unchanged()
        return LlamaServerEngine(worker, load, ready, prepared)
    except BaseException:
        worker.close()
        raise


def check_cpu(cpu: Cpu) -> None:
    """Raises EngineUnsupported, with the missing instructions, instead of letting the wheel die with SIGILL."""
    missing = NEEDED_ISA.get(cpu.architecture, frozenset()) - cpu.isa
    if missing:
        raise EngineUnsupported(
            _("The engine of this installation needs {missing}, which this CPU ({model}) does not have.").format(
                missing=", ".join(sorted(missing)).upper(), model=cpu.model or cpu.architecture
            ),
            hint=_("It needs an x86-64 CPU of 2013 (Intel Haswell, AMD Excavator) or later."),
        )
