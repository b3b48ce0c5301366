"""Any `llama-server`: of bendi's native builds, of a wheel, of a distribution. Started on loopback with a random key.

Settings that are not asked for are left to it; which options it has, its own `--help` says, because they change between
versions.
"""

from __future__ import annotations

import math
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bendi.engines import native_builds, transport
from bendi.engines.llama_answers import Able, Answers
from bendi.engines.load_report import read_load_report
from bendi.engines.peer_http import raise_in_words
from bendi.engines.peer_llama_log import said_of_settings
from bendi.engines.peer_process import PeerProcess, free_port, peer_environment
from bendi.engines.peer_types import (
    SETTINGS,
    PeerLoad,
    PeerSpec,
    PeerUsage,
    Verified,
    check_settings,
    own_options,
    verify,
)
from bendi.engines.protocol import EngineInfo
from bendi.engines.transport import Address, WorkerGone, WorkerRefused
from bendi.errors import (
    BendiError,
    ContextOverflow,
    EngineCrashed,
    EngineError,
    EngineUnsupported,
    NotFoundError,
    UsageError,
)
from bendi.i18n import _
from bendi.messages import Arrivals, Cancellation, Chunk, GenerateRequest
from bendi.settings import Settings

NAME = "llama-server"
_HELP_S, _LOOK_S = 60.0, 5.0
_ANY_TOKEN = 1 << 31
_FLAGS = {
    "threads": "-t", "prompt_threads": "-tb", "parallel": "-np", "batch_tok": "-b", "ubatch_tok": "-ub",
    "type_k": "-ctk", "type_v": "-ctv", "gpu_layers": "-ngl", "split_mode": "-sm", "tensor_split": "-ts",
}  # fmt: skip
_ALL_LAYERS = 999
"""Older versions know no number for all of them."""


@dataclass(frozen=True)
class Program:
    """A llama.cpp program and what it says of itself. `options`: its `--help`. `version`: as it names it."""

    path: Path
    version: str
    options: str

    def has(self, option: str) -> bool:
        return re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", self.options) is not None


def find_program(wanted: str, name: str = NAME) -> Path:
    """`wanted`: a path, a folder that has it somewhere below, or empty for the one on PATH. Raises NotFoundError."""
    if not wanted:
        on_path = shutil.which(name)
        found = [Path(on_path)] if on_path else []
    elif Path(wanted).is_dir():
        below = sorted(Path(wanted).rglob(name))
        # Of a wheel the program itself, not the script that would install more.
        found = [path for path in below if path.is_file() and path.read_bytes()[:2] != b"#!"] or below
    else:
        on_path = shutil.which(wanted)
        found = [Path(on_path)] if on_path else []
    if not found:
        raise NotFoundError(
            _("There is no program {name}.").format(name=wanted or name),
            hint=_("See how to get it: {command}").format(command="bendi bench engines"),
        )
    return found[0].absolute()


def look_at(path: Path) -> Program:
    """Asks the program for its version and options. Raises EngineUnsupported when it does not run here."""
    said = [_ask(path, option) for option in ("--version", "--help")]
    version = re.search(r"^version: (.+)$", said[0], re.MULTILINE)
    return Program(path, version[1].strip() if version else "", said[1])


def _ask(path: Path, option: str) -> str:
    try:
        done = subprocess.run(
            [path, option],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_HELP_S,
            env=peer_environment({}),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnsupported(_("{path} does not run here: {reason}").format(path=path, reason=error)) from error
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    if done.returncode not in (0, 1) or (done.returncode and "error while loading" in said):
        reason = said.strip().splitlines()[-1][-300:] if said.strip() else done.returncode
        raise EngineUnsupported(_("{path} does not run here: {reason}").format(path=path, reason=reason))
    return said


def open_llama_server(spec: PeerSpec, load: PeerLoad, settings: Settings) -> LlamaServerPeer:
    """Starts it with the model and returns once it is ready. `spec.program` may also be the name of a native build.
    Raises UsageError, NotFoundError, and EngineError that says why it did not start."""
    if load.model_path is None or not load.model_path.is_file():
        raise NotFoundError(_("There is no model file {path}.").format(path=load.model_path))
    program = look_at(_program_of(spec.program, settings))
    asked = check_settings(NAME, load.settings, SETTINGS)
    key, port = secrets.token_urlsafe(32), free_port()
    command = [program.path, "-m", load.model_path, "--host", "127.0.0.1", "--port", port, *arguments(program, asked)]
    # The key is nowhere on a command line. The level of the log, which no option means the same by in all versions, is
    # understood only by those whose fourth level tells of buffers.
    environment = {"LLAMA_API_KEY": key, "LLAMA_ARG_LOG_VERBOSITY": "4"}
    process = PeerProcess(NAME, [str(word) for word in command], environment)
    address = Address(key=key, port=port)
    load_s = process.wait_until(lambda: _is_ready(address), load.load_timeout_s)
    try:
        return LlamaServerPeer(process, address, program, load, load_s)
    except BaseException:
        process.close()
        raise


def _program_of(wanted: str, settings: Settings) -> Path:
    build = next((each for each in native_builds.all_builds(settings) if each.build_id == wanted), None)
    return build.server.absolute() if build else find_program(wanted)


def _is_ready(address: Address) -> bool:
    """It is ready when it shows its properties, which needs the key: another server on that port could not."""
    with suppress(WorkerGone, WorkerRefused):
        return "default_generation_settings" in transport.call(address, "/props", timeout_s=_LOOK_S)
    return False


def arguments(program: Program, asked: Mapping[str, Any]) -> list[str]:
    """Command-line arguments for these settings. Raises UsageError for one that this version does not have."""
    said: list[str] = []
    for name, flag in _FLAGS.items():
        if name in asked:
            value = asked[name]
            said += [flag, str(_ALL_LAYERS if name == "gpu_layers" and value < 0 else value)]
    if "context_tok" in asked:
        said += ["-c", str(asked["context_tok"] * asked.get("parallel", 1))]
        if "parallel" not in asked:
            # Newer versions would choose several conversations by themselves.
            said += ["-np", "1"]
    if "flash_attention" in asked:
        said += _flash(program, asked["flash_attention"])
    if asked.get("mmap") is not None:
        said += _mmap(program, asked["mmap"])
    if asked.get("repack") is False:
        said += _only_if(program, "--no-repack")
    # What looks at prompts, or anything on the network.
    said += [flag for flag in ("--offline", "--no-ui", "--no-webui", "--no-slots") if program.has(flag)]
    if "--no-ui" in said and "--no-webui" in said:
        said.remove("--no-webui")
    return said + own_options(asked)


def _flash(program: Program, wanted: bool) -> list[str]:
    if re.search(r"--flash-attn\s+[\[<{(]", program.options):
        return ["-fa", "on" if wanted else "off"]
    return ["-fa"] if wanted else []  # it was a switch once, off by default


def _mmap(program: Program, wanted: bool) -> list[str]:
    if program.has("--load-mode"):
        return ["--load-mode", "mmap" if wanted else "none"]
    return [] if wanted else _only_if(program, "--no-mmap")


def _only_if(program: Program, flag: str) -> list[str]:
    if not program.has(flag):
        raise UsageError(_("{path} has no option {option}.").format(path=program.path, option=flag))
    return [flag]


class LlamaServerPeer:
    """A PeerEngine and HostedEngine. `worker`: its process."""

    ends_can_be_ignored = True

    def __init__(self, process: PeerProcess, address: Address, program: Program, load: PeerLoad, load_s: float) -> None:
        assert load.model_path
        self.worker, self._errors = process, _Errors(process)
        self._silence_s = load.silence_s
        properties = transport.call(address, "/props", timeout_s=_LOOK_S)
        models = transport.call(address, "/v1/models", timeout_s=_LOOK_S).get("data") or [{}]
        self._verified = verify(load.settings, said_of_settings(process.log, properties, load.settings))
        context = (properties.get("default_generation_settings") or {}).get("n_ctx")
        self._info = EngineInfo(
            engine=NAME,
            build=str(properties.get("build_info") or program.version),
            model_path=load.model_path,
            context_tok=int(context or 0),
            train_context_tok=int((models[0].get("meta") or {}).get("n_ctx_train") or 0),
            load_s=load_s,
            slots=int(properties.get("total_slots") or 1),
            details={"program": str(program.path), "pid": str(process.pid)},
            buffers=read_load_report(_as_workers_log(process.log)),
        )
        able = Able(
            writes=True, takes_tools=True, sees=False, remembers_images=True, guesses=False, vocab_size=_ANY_TOKEN
        )
        self._answers = Answers(address, able, self._errors)

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def verified(self) -> Verified:
        return self._verified

    @property
    def pids(self) -> tuple[int, ...]:
        return (self.worker.pid,)

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        watched = _Watched(cancel or Cancellation(), self._silence_s, request.arrivals)
        for chunk in watched.chunks(lambda stop: self._answers.generate(request, stop)):
            if chunk.usage is not None:
                usage = chunk.usage
                known = chunk.finish != "cancelled"
                counted = PeerUsage(usage.prompt_tok, usage.completion_tok, usage.cached_tok, cached_known=known)
                yield Chunk(finish=chunk.finish, usage=counted, timings=chunk.timings, tool_calls=chunk.tool_calls)
            elif chunk.text or chunk.reasoning or chunk.tool_deltas:
                yield chunk

    def close(self) -> None:
        self._errors.unloaded = True
        self.worker.close()


class _Errors:
    """`AnswerErrors` of a llama-server that bendi started."""

    def __init__(self, worker: PeerProcess) -> None:
        self._worker = worker
        self.unloaded = False

    def death(self) -> BendiError:
        if self.unloaded:
            return EngineCrashed(_("The model was unloaded."), hint=_("Load it again."))
        return self._worker.death()

    def fail(self, error: WorkerGone | WorkerRefused) -> NoReturn:
        if isinstance(error, WorkerGone):
            raise self.death() from error
        needed, available = error.body.get("n_prompt_tokens"), error.body.get("n_ctx")
        if isinstance(needed, int) and isinstance(available, int):
            raise ContextOverflow(
                _("The prompt has {needed} tokens, but the context holds {available}; nothing was cut.").format(
                    needed=needed, available=available
                ),
                hint=_("Ask for a larger context_tok."),
                needed_tok=needed,
                available_tok=available,
            ) from error
        raise_in_words(NAME, error)


class _Watched:
    """An answer that fails when nothing comes for `silence_s`: what reads it has no such limit."""

    def __init__(self, cancel: Cancellation, silence_s: float, arrivals: Arrivals | None) -> None:
        self._cancel, self._silence_s, self._arrivals = cancel, silence_s, arrivals
        self._stop, self._ended, self._silent = Cancellation(), threading.Event(), False
        self._seen_s = time.monotonic()

    def chunks(self, generate: Callable[[Cancellation], Iterator[Chunk]]) -> Iterator[Chunk]:
        self._cancel.on_cancel(self._stop.cancel)
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        try:
            for chunk in generate(self._stop):
                self._seen_s = math.inf  # whoever reads it may take a while
                if not self._silent:
                    yield chunk
                self._seen_s = time.monotonic()
        finally:
            self._ended.set()
            watch.join()
        if self._silent:
            raise EngineError(
                _("{engine} said nothing for {seconds:.0f} seconds.").format(engine=NAME, seconds=self._silence_s)
            )

    def _watch(self) -> None:
        while not self._ended.wait(self._silence_s / 4):
            heard_s = self._arrivals.heard_s if self._arrivals else None
            if time.monotonic() - max(self._seen_s, heard_s or 0.0) > self._silence_s:
                self._silent = True
                self._stop.cancel()
                return


def _as_workers_log(lines: list[str]) -> list[str]:
    """Lines as `load_report` expects them; those of versions with another beginning are left alone."""
    return [line for line in lines if re.match(r"[\d.]+ [A-Z] ", line)]
