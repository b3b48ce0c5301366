"""Child process: the pinned engine loads a header-only model without allocating, and logs its buffer sizes."""

from __future__ import annotations

import json
import os
import sys

import xllamacpp

_TYPES = {"f16": "GGML_TYPE_F16", "q8_0": "GGML_TYPE_Q8_0", "q4_0": "GGML_TYPE_Q4_0"}


def main() -> None:
    job = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = job["path"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.offline = True
    params.ui = False
    params.fit_params = False
    params.warmup = False
    params.no_alloc = job.get("no_alloc", True)
    if params.no_alloc:
        params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    params.no_extra_bufts = True
    params.verbosity = 5
    params.n_ctx = job["context_tok"]
    params.n_parallel = job["parallel"]
    params.n_batch = job["n_batch"]
    params.n_ubatch = job["n_ubatch"]
    params.cache_ram_mib = 0
    params.cache_type_k = getattr(xllamacpp.ggml_type, _TYPES[job["type_k"]])
    params.cache_type_v = getattr(xllamacpp.ggml_type, _TYPES[job["type_v"]])
    params.embedding = job.get("embeddings", False)
    xllamacpp.Server(params)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
