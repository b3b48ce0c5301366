"""Asks the pinned engine itself how much memory a header-only model takes.

The engine's own dry run (before it fits parameters to devices) allocates nothing and logs every size; a child process
does it, because a header the engine does not like ends its process, and is ended before the real load begins.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from bendi.planner import MemorySetup

_SIZES = {
    "kv": re.compile(r"llama_kv_cache\w*: size = +([\d.]+) MiB"),
    "state": re.compile(r"llama_memory_recurrent: size = +([\d.]+) MiB"),
    "compute": re.compile(r"sched_reserve: +\S+ compute buffer size = +([\d.]+) MiB"),
    "output": re.compile(r"llama_context: +\S+ +output buffer size = +([\d.]+) MiB"),
}
_END = re.compile(r"memory_breakdown_print: \| +- Host")
_CHILD = """
import json, sys
import xllamacpp
job = json.loads(sys.argv[1])
p = xllamacpp.CommonParams()
p.model.path, p.hostnames, p.port, p.offline, p.ui = job["path"], ["127.0.0.1"], 0, True, False
p.fit_params, p.warmup, p.no_extra_bufts, p.verbosity, p.cache_ram_mib = True, False, True, 5, 0
p.n_ctx, p.n_parallel = job["context_tok"] * job["parallel"], job["parallel"]
p.n_batch, p.n_ubatch, p.embedding = job["n_batch"], job["n_ubatch"], job["embeddings"]
p.cache_type_k = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + job["type_k"].upper())
p.cache_type_v = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + job["type_v"].upper())
p.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, "LLAMA_FLASH_ATTN_TYPE_" + job["flash"])
xllamacpp.Server(p)
"""


@dataclass(frozen=True)
class OracleAnswer:
    """MiB, as the engine prints them."""

    kv: float
    state: float
    compute: float
    output: float


def ask_engine(path: Path, setup: MemorySetup) -> OracleAnswer | str:
    """What the engine would allocate for the model at `path`; a text with its last words when it refuses."""
    job = {"path": str(path), **asdict(setup), "flash": "ENABLED" if setup.flash_attention else "DISABLED"}
    sizes = dict.fromkeys(_SIZES, 0.0)
    errors: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, json.dumps(job)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={"GGML_NO_BACKTRACE": "1", "PATH": "/usr/bin"},
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:
            for name, pattern in _SIZES.items():
                if match := pattern.search(line):
                    sizes[name] += float(match[1])
            if _END.search(line):
                child.kill()
                return OracleAnswer(**sizes)
            if " E " in line or "ASSERT" in line:
                errors.append(line.strip())
    return " / ".join(errors) or f"the engine ended with {child.returncode}"
