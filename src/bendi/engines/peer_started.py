"""vLLM and fastllm: started here with the model, and spoken to as OpenAI-compatible servers (`peer_openai`).

Options: `vllm serve --help` (docs.vllm.ai, "CLI reference"), and fastllm `tools/fastllm_pytools/util.py`.
"""

from __future__ import annotations

import ast
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from bendi.engines import peer_http
from bendi.engines.peer_http import Site
from bendi.engines.peer_openai import OpenAiEngine, look_at
from bendi.engines.peer_process import PeerProcess, free_port
from bendi.engines.peer_types import PeerLoad, PeerSpec, check_settings, own_options
from bendi.engines.transport import WorkerGone, WorkerRefused
from bendi.errors import EngineError, EngineUnsupported, NotFoundError, UsageError
from bendi.i18n import _

_SERVED = "bendi-bench"
_LOOK_S = 5.0
_UNKNOWN = re.compile(r"unrecognized arguments: (.+)")
_ECHO = re.compile(r"non-default args: (\{.*\})")


@dataclass(frozen=True)
class _Kind:
    """`command`: of the program, a port and a key; `flags`: its names of our settings; `echoed`: its names in what it
    logs of them; `wished`: options that older versions do not have and that are then left out; `ready`: a path that
    answers once the model is loaded; `key_variable`: where it takes its key from, if not from the command line."""

    program: str
    command: Callable[[str, str, int, str], list[str]]
    flags: Mapping[str, str]
    echoed: Mapping[str, str]
    wished: tuple[str, ...]
    ready: str
    key_variable: str = ""


def _vllm(program: str, model: str, port: int, _key: str) -> list[str]:
    return [program, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--served-model-name", _SERVED]


def _fastllm(program: str, model: str, port: int, key: str) -> list[str]:
    place = ["--host", "127.0.0.1", "--port", str(port)]
    return [program, "server", model, *place, "--model_name", _SERVED, "--api_key", key, "--hide_input"]


_KINDS = {
    "vllm": _Kind(
        program="vllm",
        command=_vllm,
        flags={
            "context_tok": "--max-model-len",
            "parallel": "--max-num-seqs",
            "batch_tok": "--max-num-batched-tokens",
        },
        echoed={"parallel": "max_num_seqs", "batch_tok": "max_num_batched_tokens"},
        # What it had cached, and its own clock: without them only the client's clock speaks.
        wished=("--enable-prompt-tokens-details", "--enable-per-request-metrics"),
        ready="/health",
        key_variable="VLLM_API_KEY",
    ),
    "fastllm": _Kind(
        program="ftllm",
        command=_fastllm,
        flags={
            "threads": "-t",
            "context_tok": "--max_context_length",
            "parallel": "--max_batch",
            "batch_tok": "--chunked_prefill_size",
        },
        echoed={},
        wished=(),
        ready="/v1/models",
    ),
}


def open_started(spec: PeerSpec, load: PeerLoad) -> OpenAiEngine:
    """Starts the server that `spec.kind` names and returns once the model is loaded. Raises EngineUnsupported where it
    is not installed, UsageError, NotFoundError, and EngineError that says why it did not start."""
    kind = _KINDS[spec.kind]
    program = shutil.which(spec.program or kind.program)
    if program is None:
        raise EngineUnsupported(
            _("There is no program {name}.").format(name=spec.program or kind.program),
            hint=_("See how to get it: {command}").format(command="bendi bench engines"),
        )
    # A name would be looked up on the network.
    if load.model_path is None or not load.model_path.exists():
        raise NotFoundError(_("There is no model file {path}.").format(path=load.model_path))
    asked = check_settings(spec.kind, load.settings, (*kind.flags, *(("threads",) if kind.key_variable else ())))
    if asked.get("context_tok", 1) < 1:
        raise UsageError(_("{name} must be a whole number.").format(name="context_tok"))
    wished = [option for option in kind.wished if asked.get(option) is not False]
    try:
        return _start(program, spec, load, asked, wished)
    except EngineError as error:
        left = [option for option in wished if option not in _not_known(error)]
        if left == wished:
            raise
        return _start(program, spec, load, asked, left)


def _not_known(error: EngineError) -> list[str]:
    """Options that a program complained about as it ended."""
    found = _UNKNOWN.search(error.message)
    return found[1].split() if found else []


def _start(
    program: str, spec: PeerSpec, load: PeerLoad, asked: Mapping[str, Any], wished: Sequence[str]
) -> OpenAiEngine:
    kind, port, key = _KINDS[spec.kind], free_port(), secrets.token_urlsafe(32)
    command = kind.command(program, str(load.model_path), port, key)
    for name, flag in kind.flags.items():
        if name in asked:
            command += [flag, str(asked[name])]
    command += [*wished, *own_options({name: value for name, value in asked.items() if name not in wished})]
    environment = {kind.key_variable: key} if kind.key_variable else {}
    if kind.key_variable and "threads" in asked:
        environment["OMP_NUM_THREADS"] = str(asked["threads"])
    process = PeerProcess(spec.kind, command, environment)
    root = Site("http", "127.0.0.1", port, key=key)
    load_s = process.wait_until(lambda: _is_ready(root, kind.ready), load.load_timeout_s)
    try:
        seen = look_at(replace(root, path="/v1"), _SERVED)
        told = replace(seen, name=spec.kind, said=_echoed(kind, process.log) | dict(seen.said))
        return OpenAiEngine(replace(root, path="/v1"), told, load, spec, process, load_s)
    except BaseException:
        process.close()
        raise


def _is_ready(root: Site, path: str) -> bool:
    with suppress(WorkerGone, WorkerRefused):
        peer_http.call(root, path, timeout_s=_LOOK_S)
        return True
    return False


def _echoed(kind: _Kind, lines: Sequence[str]) -> dict[str, Any]:
    """What the server logs of the arguments that it understood."""
    for line in lines:
        if found := _ECHO.search(line):
            with suppress(ValueError, SyntaxError):
                args = ast.literal_eval(found[1])
                return {name: args.get(theirs) for name, theirs in kind.echoed.items()}
    return {}
