"""Who takes part: what each engine must be able to do, and those that llama.cpp itself is behind.

Every engine is given the same tokens. `past` is held from one question to the next, as in a conversation: an engine
computes it once, and only `prompt` is timed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from bendi.engines import LoadRequest, open_engine, transport
from bendi.engines.transport import Address, WorkerGone, WorkerRefused
from bendi.formats.blueprint import Blueprint
from bendi.messages import GenerateRequest, Sampling
from bendi.settings import Settings

_LOAD_LIMIT_S = 300.0
_END_LIMIT_S = 10.0

Tokens = tuple[int, ...]


class Absent(Exception):
    """An engine that cannot take part, and why, in words."""


@dataclass(frozen=True)
class Subject:
    """The model that all of them load. `config`: as in a `config.json`, for those who do not read GGUF."""

    path: Path
    blueprint: Blueprint
    config: Mapping[str, object]
    file_type: str
    context_tok: int
    threads: int


@dataclass(frozen=True)
class Rates:
    """Of one question. `computed_tok`: how many tokens of the prompt were computed, where the engine says."""

    pp_tok_s: float | None
    tg_tok_s: float | None
    computed_tok: int | None = None


class Contestant(Protocol):
    """`name`: as in the tables. `reads_file`: its weights are those of the file, so that what memory allows for that
    file is a limit for it, too."""

    name: str
    reads_file: bool

    def ask(self, past: Tokens, prompt: Tokens, answer_tok: int) -> Rates: ...

    def close(self) -> None: ...


class ThroughBendi:
    """An engine of bendi, through its protocol: `wheel`, or the name of a native build."""

    reads_file = True

    def __init__(self, name: str, subject: Subject, settings: Settings) -> None:
        self.name = f"bendi: {name}"
        load = LoadRequest(subject.path, context_tok=subject.context_tok, threads=subject.threads)
        self._engine = open_engine(load, replace(settings, engine=name))

    def ask(self, past: Tokens, prompt: Tokens, answer_tok: int) -> Rates:
        request = GenerateRequest(
            prompt=past + prompt, max_tokens=answer_tok, ignore_end=True, sampling=Sampling(seed=1)
        )
        *_texts, last = self._engine.generate(request)
        assert last.timings and last.usage
        computed_tok = last.usage.prompt_tok - last.usage.cached_tok
        return Rates(last.timings.pp_tok_s, last.timings.tg_tok_s, computed_tok)

    def close(self) -> None:
        self._engine.close()


class UntunedServer:
    """A `llama-server` as somebody starts it who knows none of its options: a model and a port."""

    reads_file = True

    def __init__(self, program: Path, subject: Subject) -> None:
        self.name = f"untuned llama-server: {program.resolve().parent.parent.name}"
        port = _free_port()
        self._address = Address(key="", port=port)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        command = [program, "--model", subject.path, "--host", "127.0.0.1", "--port", str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        deadline_s = time.monotonic() + _LOAD_LIMIT_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.close()
                raise Absent(f"it ended with {self._process.returncode}: {self._last_words()}")
            time.sleep(0.1)

    def ask(self, past: Tokens, prompt: Tokens, answer_tok: int) -> Rates:
        body = {"prompt": list(past + prompt), "n_predict": answer_tok, "ignore_eos": True, "stream": True, "seed": 1}
        try:
            *_events, last = transport.stream(self._address, "/completion", body)
        except (WorkerGone, WorkerRefused) as error:
            raise Absent(f"{error} {self._last_words()}") from error
        timings = last["timings"]
        tg_tok_s = timings["predicted_per_second"] if answer_tok > 1 else None
        return Rates(timings["prompt_per_second"], tg_tok_s, timings["prompt_n"])

    def close(self) -> None:
        end(self._process)

    def _ready(self) -> bool:
        with suppress(WorkerGone, WorkerRefused):
            transport.call(self._address, "/health", timeout_s=5.0)
            return True
        return False

    def _last_words(self) -> str:
        return last_line(self._log.fileno())


class Bench:
    """llama.cpp's own `llama-bench`, a new process for each question: what the server may be compared with."""

    reads_file = True

    def __init__(self, program: Path, subject: Subject) -> None:
        self.name = "llama-bench"
        self._command = [program, "-m", subject.path, "-t", str(subject.threads), "-r", "1", "-o", "json"]

    def ask(self, past: Tokens, prompt: Tokens, answer_tok: int) -> Rates:
        only_prompt = answer_tok <= 1
        sizes = ["-p", str(len(prompt)), "-n", "0"] if only_prompt else ["-p", "0", "-n", str(answer_tok - 1)]
        depth_tok = len(past) + (0 if only_prompt else len(prompt))
        done = subprocess.run([*self._command, *sizes, "-d", str(depth_tok)], capture_output=True, check=False)
        if done.returncode:
            raise Absent(f"it ended with {done.returncode}")
        (row,) = json.loads(done.stdout)
        rate = float(row["avg_ts"])
        return Rates(rate, None, len(prompt)) if only_prompt else Rates(None, rate)

    def close(self) -> None:
        """Nothing runs between questions."""


def find_program(place: Path, name: str) -> Path:
    """`place`, or the program of that name anywhere below it. Raises Absent."""
    if place.is_file():
        return place
    found = sorted(path for path in place.rglob(name) if path.is_file() and os.access(path, os.X_OK))
    if not found:
        raise Absent(f"there is no {name} in {place}")
    return found[0]


def end(process: subprocess.Popen[Any]) -> None:
    """Ends a process that was started here, and waits for it."""
    process.terminate()
    try:
        process.wait(_END_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_line(descriptor: int) -> str:
    """The end of what was written to an open file."""
    size_bytes = os.fstat(descriptor).st_size
    lines = os.pread(descriptor, 2000, max(size_bytes - 2000, 0)).decode("utf-8", "replace").strip().splitlines()
    return lines[-1][-300:] if lines else ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
