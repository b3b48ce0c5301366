"""A native build as an engine: llama-server, compiled on this machine, in a worker process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from bendi.engines import transport
from bendi.engines.llama_http import LlamaServerEngine
from bendi.engines.native_builds import NativeBuild
from bendi.engines.prepare import Prepared, prepare, worker_config
from bendi.engines.process import WorkerProcess, worker_command
from bendi.engines.protocol import LoadRequest
from bendi.engines.transport import WorkerGone, WorkerRefused
from bendi.errors import EngineUnsupported
from bendi.i18n import _

_HEALTH_S = 5.0


def open_engine(
    load: LoadRequest, on_progress: Callable[[float], None] | None = None, *, build: NativeBuild
) -> LlamaServerEngine:
    """Loads the model with `build` in a new worker. Whether the build may be used is the caller's question.

    Raises as `engines.open_engine`.
    """
    if os.name != "posix":
        raise EngineUnsupported(
            _("Native builds need Unix sockets, which this system does not have for them."),
            hint="bendi engine use wheel",
        )
    prepared = prepare(load)
    started_s = time.monotonic()
    config = worker_config(load, prepared, program=str(build.server.absolute()))
    worker = WorkerProcess(worker_command("bendi.engines.native_worker"), config)
    wait = _Waiting(worker, prepared, on_progress, build, started_s)
    ready = worker.wait_ready(load.load_timeout_s, wait.look)
    if on_progress:
        on_progress(1.0)
    try:
        prepared.check_unchanged()
        return LlamaServerEngine(worker, load, ready, prepared)
    except BaseException:
        worker.close()
        raise


@dataclass
class _Waiting:
    """Asks the worker whether it is ready, since llama-server tells nobody by itself."""

    worker: WorkerProcess
    prepared: Prepared
    on_progress: Callable[[float], None] | None
    build: NativeBuild
    started_s: float

    def look(self) -> None:
        weights_bytes = self.prepared.weights_bytes
        if self.on_progress and weights_bytes:
            self.on_progress(min(self.worker.resident_bytes() / weights_bytes, 0.99))
        address = self.worker.private_address
        if not os.path.exists(address.socket_path):
            return
        try:
            transport.call(address, "/health", timeout_s=_HEALTH_S)
        except (WorkerGone, WorkerRefused):
            return
        self.worker.answer(
            {
                "ready": {
                    "address": address.socket_path,
                    "load_s": time.monotonic() - self.started_s,
                    "sandbox": self.worker.told.get("sandbox", "none"),
                    "build": self.build.engine_name,
                    # It fails where what it holds ends inside of an image ("Chunk not found", server-common.cpp).
                    "remembers_images": False,
                    "checkpoints_in_states": False,  # `SERVER_TASK_TYPE_SLOT_SAVE` in its server-context.cpp
                }
            }
        )
