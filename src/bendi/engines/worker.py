"""The worker process: `python -m bendi.engines.worker`, one per loaded model.

Reads one line of JSON from stdin (`WorkerConfig`), loads the model with the xllamacpp wheel, whose in-process server
speaks llama-server's HTTP, and writes one line of JSON to stdout: `{"ready": {...}}` or `{"error": {...}}`. Then it
serves until stdin closes. Knows nothing of bendi but its own configuration; started by `engines.process` only.

It gives up what it does not need before a model file is touched: other files, network connections, core dumps,
memory beyond its limit; and it dies with its parent.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import xllamacpp

from bendi.engines import sandbox

_VERBOSITY = 4
"""The lowest at which the engine says how large its buffers are; from 5 on it logs prompts."""


@dataclass(frozen=True)
class WorkerConfig:
    """What the parent sends. `socket_path` empty: a free port on 127.0.0.1 is taken and reported."""

    model_path: str
    part_paths: list[str]
    key: str
    socket_path: str = ""
    context_tok: int = 0
    threads: int = 0
    parallel: int = 1
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attention: bool | None = None
    embeddings: bool = False
    memory_limit_bytes: int = 0
    repack: bool = True
    checkpoints: int = 1
    parent_pid: int = 0


def main() -> int:
    config = WorkerConfig(**json.loads(sys.stdin.readline()))
    sandbox.die_with_parent(config.parent_pid)
    sandbox.limit_memory(config.memory_limit_bytes)
    write_dirs = [os.path.dirname(config.socket_path)] if config.socket_path else []
    confinement = sandbox.confine(config.part_paths, write_dirs, allow_tcp=not config.socket_path)
    threading.Thread(target=_exit_when_parent_closes_stdin, daemon=True).start()
    started_s = time.monotonic()
    try:
        server = xllamacpp.Server(_parameters(config))
    except Exception as error:
        _report({"error": {"kind": type(error).__name__, "message": str(error)}})
        return 1
    _report(
        {
            "ready": {
                "address": server.listening_address,
                "load_s": time.monotonic() - started_s,
                "sandbox": confinement,
                "build": f"xllamacpp {xllamacpp.__version__}",
            }
        }
    )
    threading.Event().wait()
    return 0


def _parameters(config: WorkerConfig) -> Any:
    """llama-server parameters. Everything that the wheel leaves open by default is closed here: no other origin, no
    page, no slots page (it shows prompts), no fetching, no automatic fitting behind the plan's back."""
    params = xllamacpp.CommonParams()
    params.model.path = config.model_path
    params.hostnames = [config.socket_path or "127.0.0.1"]
    params.port = 0
    params.api_keys = [config.key]
    params.cors_origins = ""
    params.cors_credentials = False
    params.endpoint_slots = False
    params.endpoint_metrics = False
    params.endpoint_props = False
    params.ui = False
    params.offline = True
    params.verbosity = _VERBOSITY
    params.fit_params = False
    params.n_ctx = config.context_tok
    params.n_parallel = config.parallel
    # A cancelled prompt is left only between batches: 512 keeps that wait short and costs no speed on a CPU.
    params.n_batch = 512
    params.n_ubatch = 512
    params.cache_ram_mib = 0
    params.cache_type_k = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{config.type_k.upper()}")
    params.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{config.type_v.upper()}")
    if config.type_v not in ("f16", "f32", "bf16"):
        # Otherwise it is on wherever it works; values can be quantized only with it.
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    elif config.flash_attention is not None:
        word = "ENABLED" if config.flash_attention else "DISABLED"
        params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{word}")
    params.n_ctx_checkpoints = config.checkpoints
    params.no_extra_bufts = not config.repack
    params.embedding = config.embeddings
    if config.embeddings:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    if config.threads:
        params.cpuparams.n_threads = config.threads
        params.cpuparams_batch.n_threads = config.threads
    return params


def _report(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _exit_when_parent_closes_stdin() -> None:
    while os.read(0, 4096):
        pass
    # Nothing is worth flushing, and the engine's threads may be in the middle of a batch.
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
