"""What every worker process is told, as one line of JSON. Imported by the workers themselves: nothing of bendi here."""

from __future__ import annotations

from dataclasses import dataclass, field

VERBOSITY = 4
"""The lowest at which the engine says how large its buffers are. At 5 it logs questions and answers. Levels: llama.cpp
`common/log.h`; its library's messages are counted as 4 (`common/log.cpp`)."""

GUESS_FROM_TOK, GUESSED_TOK = 3, 8
"""Speculation: after so many tokens that stood together before, so many that followed them are guessed."""

POLL = 1
"""For how long threads wait for the next token at full speed before they sleep (0 to 100): here some 3 ms, longer than
it takes to choose a token and to begin with the next. Asleep at once (0), they must be woken for each token, which
costs 1 to 7 % of TG on a virtual machine; the engine's own 50 keeps cores busy for 0.1 s after each answer, when others
want them, and is no faster (llama.cpp `ggml/src/ggml-cpu/ggml-cpu.c`, `ggml_graph_compute_poll_for_work`)."""

BATCH_TOK = 512
"""Tokens of a prompt computed at once, unless told otherwise. A cancelled prompt is left only between batches: this
keeps that wait short and costs no speed on a CPU."""


@dataclass(frozen=True)
class WorkerConfig:
    """What the parent sends. `part_paths`: all files of the model. `program`: the llama-server to become, where the
    worker is one. `flash_attention`: None for wherever it works. `prompt_threads`: 0 for as many as `threads`.
    `state_dir`: where the engine may write and read the states of conversations, empty for nowhere. `pooling`: of a
    model that makes vectors (`"mean"`, `"cls"`, `"last"`) or scores (`"rank"`), empty for one that writes text.
    `mmproj_path`: of its projector, one of `part_paths`; empty for a model that sees no images. `cpus`: the logical
    CPUs that its threads may run on, empty for all. `spread_numa`: threads are spread over all NUMA nodes.

    Filled in by `process`: `key`; `socket_path`, empty where a free port on 127.0.0.1 is to be taken and reported;
    `parent_pid`.
    """

    model_path: str
    part_paths: list[str]
    program: str = ""
    context_tok: int = 0
    threads: int = 0
    prompt_threads: int = 0
    batch_tok: int = BATCH_TOK
    parallel: int = 1
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attention: bool | None = None
    pooling: str = ""
    mmproj_path: str = ""
    memory_limit_bytes: int = 0
    repack: bool = True
    checkpoints: int = 1
    state_dir: str = ""
    speculate: bool = False
    cpus: list[int] = field(default_factory=list)
    spread_numa: bool = False
    key: str = ""
    socket_path: str = ""
    parent_pid: int = 0
