"""Becomes the worker process of a native build: `python -m bendi.engines.native_worker`.

Reads one line of JSON from stdin (`WorkerConfig`), gives up what a worker does not need, as `worker` does, and becomes
llama-server, which keeps those bounds. Its key goes to it through a pipe that is empty once it has been read: it is on
no command line, in no environment and in no file. Started by `engines.native` only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import NoReturn

from bendi.engines import sandbox, scheduling
from bendi.engines.worker_config import GUESS_FROM_TOK, GUESSED_TOK, POLL, VERBOSITY, WorkerConfig


def main() -> int:
    config = WorkerConfig(**json.loads(sys.stdin.readline()))
    sandbox.die_with_parent(config.parent_pid)
    scheduling.run_promptly()
    scheduling.keep_to(config.cpus)
    sandbox.limit_memory(config.memory_limit_bytes)
    confinement = sandbox.confine(
        config.part_paths,
        [os.path.dirname(config.socket_path)],
        allow_tcp=False,
        programs=[config.program],
        overwrite_dirs=[config.state_dir] if config.state_dir else [],
    )
    sys.stdout.write(json.dumps({"sandbox": confinement}) + "\n")
    sys.stdout.flush()
    become([config.program, *arguments(config, _readable_once(config.key))])


def arguments(config: WorkerConfig, key_path: str) -> list[str]:
    """llama-server's arguments. Everything that it leaves open by default is closed here: no other origin, no page, no
    slots page (it shows prompts), no fetching, no automatic fitting behind the plan's back."""
    said = [
        "--model", config.model_path, "--host", config.socket_path, "--api-key-file", key_path,
        "--cors-origins", "", "--no-cors-credentials", "--no-slots", "--no-ui", "--offline",
        "--verbosity", str(VERBOSITY), "--log-timestamps", "--log-prefix", "--log-colors", "off",
        "--fit", "off", "--ctx-size", str(config.context_tok), "--parallel", str(config.parallel),
        "--batch-size", str(config.batch_tok), "--ubatch-size", str(config.batch_tok),
        "--cache-ram", "0", "--no-context-shift", "--ctx-checkpoints", str(config.checkpoints),
        "--cache-type-k", config.type_k, "--cache-type-v", config.type_v,
        "--poll", str(POLL), "--poll-batch", str(POLL),
    ]  # fmt: skip
    if config.flash_attention is not None:
        said += ["--flash-attn", "on" if config.flash_attention else "off"]
    if config.speculate:
        said += ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", str(GUESS_FROM_TOK)]
        said += ["--spec-ngram-simple-size-m", str(GUESSED_TOK)]
    if not config.repack:
        said += ["--no-repack"]
    if config.spread_numa:
        said += ["--numa", "distribute"]
    if config.mmproj_path:
        # What it cannot decode it would hand to ffmpeg; below a file there is no program.
        said += ["--mmproj", config.mmproj_path, "--video-ffmpeg-dir", config.model_path]
    if config.pooling:
        said += ["--embeddings", "--pooling", config.pooling]
    if config.state_dir:
        said += ["--slot-save-path", config.state_dir]
    if config.threads:
        said += ["--threads", str(config.threads)]
    if config.prompt_threads or config.threads:
        said += ["--threads-batch", str(config.prompt_threads or config.threads)]
    return said


def become(command: list[str]) -> NoReturn:
    """Runs `command` in place of this process; where nothing ends a process with its parent, as its child that ends
    when stdin closes."""
    sys.stdout.flush()
    if sandbox.LINUX:
        try:
            os.execv(command[0], command)
        except OSError as error:
            sys.stdout.write(json.dumps({"error": {"kind": type(error).__name__, "message": str(error)}}) + "\n")
            sys.stdout.flush()
            os._exit(1)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    threading.Thread(target=_end_with_stdin, args=(child,), daemon=True).start()
    code = child.wait()
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def _readable_once(text: str) -> str:
    """A path from which whoever inherits our open files reads `text`, one time."""
    reading, writing = os.pipe()
    os.write(writing, text.encode() + b"\n")
    os.close(writing)
    os.set_inheritable(reading, True)
    return f"/dev/fd/{reading}"


def _end_with_stdin(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    child.kill()


if __name__ == "__main__":
    raise SystemExit(main())
