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
from typing import Any

import xllamacpp

from bendi.engines import sandbox, scheduling
from bendi.engines.worker_config import GUESS_FROM_TOK, GUESSED_TOK, POLL, VERBOSITY, WorkerConfig


def main() -> int:
    config = WorkerConfig(**json.loads(sys.stdin.readline()))
    sandbox.die_with_parent(config.parent_pid)
    scheduling.run_promptly()
    scheduling.keep_to(config.cpus)
    sandbox.limit_memory(config.memory_limit_bytes)
    write_dirs = [os.path.dirname(config.socket_path)] if config.socket_path else []
    state_dirs = [config.state_dir] if config.state_dir else []
    confinement = sandbox.confine(
        config.part_paths, write_dirs, allow_tcp=not config.socket_path, overwrite_dirs=state_dirs
    )
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
                "checkpoints_in_states": True,  # its server appends them; older ones do not
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
    params.mmproj.path = config.mmproj_path
    # What it cannot decode it would hand to ffmpeg; below a file there is no program.
    params.video_ffmpeg_bin_dir = config.model_path
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
    params.verbosity = VERBOSITY
    params.fit_params = False
    params.n_ctx = config.context_tok
    params.n_parallel = config.parallel
    params.n_batch = config.batch_tok
    params.n_ubatch = config.batch_tok
    params.cache_ram_mib = 0
    params.cache_type_k = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{config.type_k.upper()}")
    params.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{config.type_v.upper()}")
    if config.flash_attention is not None:
        word = "ENABLED" if config.flash_attention else "DISABLED"
        params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{word}")
    params.n_ctx_checkpoints = config.checkpoints
    if config.state_dir:
        # The name of a file is appended as it is.
        params.slot_save_path = os.path.join(config.state_dir, "")
    if config.speculate:
        params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        params.speculative.ngram_simple.size_n = GUESS_FROM_TOK
        params.speculative.ngram_simple.size_m = GUESSED_TOK
    params.no_extra_bufts = not config.repack
    if config.spread_numa:
        params.numa = xllamacpp.ggml_numa_strategy.GGML_NUMA_STRATEGY_DISTRIBUTE
    params.embedding = bool(config.pooling)
    if config.pooling:
        kinds = xllamacpp.llama_pooling_type
        params.pooling_type = getattr(kinds, f"LLAMA_POOLING_TYPE_{config.pooling.upper()}")
    params.cpuparams.poll = params.cpuparams_batch.poll = POLL
    if config.threads:
        params.cpuparams.n_threads = config.threads
    if config.prompt_threads or config.threads:
        params.cpuparams_batch.n_threads = config.prompt_threads or config.threads
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
