"""Libraries in interpreters of their own: a script is run there, and spoken to in lines of JSON.

The scripts are `assets/outside/ask_NAME.py`; what is said is written down in `assets/outside/lines.py`. They import
nothing of bendi, and what their libraries write to stderr is shown when they fail.
"""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from bendi.engines.peer_process import PeerProcess, peer_environment
from bendi.engines.peer_types import PeerLoad, PeerSpec, PeerUsage, Verified, check_settings, verify
from bendi.engines.protocol import EngineInfo
from bendi.errors import EngineCrashed, EngineError, EngineUnsupported, NotFoundError, RequestRejected
from bendi.i18n import _
from bendi.messages import Cancellation, Chunk, FinishReason, GenerateRequest, Timings

SCRIPTS = Path(__file__).parent.parent / "assets" / "outside"
MODULES = {"openvino": "openvino_genai", "transformers": "transformers"}
"""What an interpreter must have for each."""
OWN_SETTINGS = {
    "transformers": ("threads", "context_tok", "dtype", "device"),
    "openvino": ("threads", "context_tok", "device", "prefix_caching"),
}
"""Of these, `dtype` (`"bfloat16"`, ...), `device` (`"cpu"`, `"cuda"`; `"CPU"`, `"GPU"`) and `prefix_caching` are the
libraries' own."""
_FINISHES: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
_FIND_S = 60.0


def open_outside(spec: PeerSpec, load: PeerLoad) -> OutsideEngine:
    """Loads the model in the interpreter `spec.program`. Raises EngineUnsupported where that has not what is needed,
    UsageError, NotFoundError, and EngineError that says why it did not load."""
    python = shutil.which(spec.program) if spec.program else None
    if python is None or not has_module(Path(python), MODULES[spec.kind]):
        raise EngineUnsupported(
            _("The interpreter {path} has no {module}.").format(path=spec.program or "-", module=MODULES[spec.kind]),
            hint=_("See how to get it: {command}").format(command="bendi bench engines"),
        )
    check_settings(spec.kind, load.settings, OWN_SETTINGS[spec.kind])
    if load.config is None and (load.model_path is None or not load.model_path.exists()):
        raise NotFoundError(_("There is no model file {path}.").format(path=load.model_path))
    return OutsideEngine(spec.kind, [python, str(SCRIPTS / f"ask_{spec.kind}.py")], load)


def has_module(python: Path, module: str) -> bool:
    question = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    try:
        done = subprocess.run(
            [python, "-c", question], check=False, capture_output=True, timeout=_FIND_S, env=peer_environment({})
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class OutsideEngine:
    """A PeerEngine and HostedEngine behind a script. It answers one request after the other; further ones wait.

    `command`: runs the script. Raises an EngineError that says why when the model is not loaded in time.
    """

    ends_can_be_ignored = True

    def __init__(self, kind: str, command: list[str], load: PeerLoad) -> None:
        self._kind, self._silence_s, self._closed = kind, load.silence_s, False
        self._turn, self._numbers = threading.Lock(), count(1)
        self.worker = PeerProcess(kind, command, speaks=True)
        self._said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            ready = self._loaded(load)
        except BaseException:
            self.close()
            raise
        self._verified = verify(load.settings, ready.get("said") or {})
        self._info = EngineInfo(
            engine=kind,
            build=str(ready.get("version", "")),
            model_path=load.model_path or Path(str((load.config or {}).get("model_type", "model"))),
            context_tok=int(ready.get("context_tok") or 0),
            train_context_tok=int(ready.get("context_tok") or 0),
            load_s=time.monotonic() - self.worker.started_s,
            details={
                "pid": str(self.worker.pid),
                **{name: str(value) for name, value in (ready.get("details") or {}).items()},
            },
        )

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
        if self._closed:
            raise EngineCrashed(_("The model was unloaded."), hint=_("Load it again."))
        return self._answer(request, cancel or Cancellation())

    def _answer(self, request: GenerateRequest, cancel: Cancellation) -> Iterator[Chunk]:
        with self._turn:
            started_s, ttft_s, ended, number = time.monotonic(), None, False, next(self._numbers)
            self._tell({"number": number, **_asked(request)})
            cancel.on_cancel(lambda: self._tell({"cancel": number}))
            try:
                while True:
                    message = self._hear(self._silence_s)
                    if text := message.get("text"):
                        ttft_s = time.monotonic() - started_s if ttft_s is None else ttft_s
                        if not cancel.cancelled:
                            yield Chunk(text=str(text))
                    elif "refused" in message:
                        ended = True
                        raise RequestRejected(
                            _("{engine} refused the request: {reason}").format(
                                engine=self._kind, reason=message["refused"]
                            ),
                            hint=_("Check the name of the model, the length of the prompt, and the settings."),
                        )
                    elif "finish" in message:
                        ended = True
                        break
            finally:
                if not ended:
                    self._break_off(number)
            yield self._last_chunk(message, ttft_s)

    def _break_off(self, number: int) -> None:
        """The script stops between two tokens; what it says until then belongs to nobody."""
        self._tell({"cancel": number})
        try:
            while "finish" not in self._hear(self._silence_s):
                pass
        except EngineError:
            self.worker.close()

    def _last_chunk(self, message: Mapping[str, Any], ttft_s: float | None) -> Chunk:
        finish = message["finish"]
        try:
            counts, clock = message["usage"], message.get("timings") or {}
            cached = counts.get("cached_tok")
            usage = PeerUsage(
                int(counts["prompt_tok"]),
                int(counts["completion_tok"]),
                int(cached or 0),
                cached_known=cached is not None,
            )
            timings = Timings(ttft_s=ttft_s, pp_tok_s=clock.get("pp_tok_s"), tg_tok_s=clock.get("tg_tok_s"))
            return Chunk(
                finish="cancelled" if finish == "cancelled" else _FINISHES[finish], usage=usage, timings=timings
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(
                _("{engine} sent something else than an answer: {said}").format(
                    engine=self._kind, said=str(message)[:200]
                )
            ) from error

    def close(self) -> None:
        self._closed = True
        self.worker.close()
        self._listener.join(1)

    def _loaded(self, load: PeerLoad) -> dict[str, Any]:
        model = str(load.model_path.absolute()) if load.model_path else ""
        self._tell({"model": model, "config": load.config and dict(load.config), "settings": dict(load.settings)})
        deadline_s = time.monotonic() + load.load_timeout_s
        while True:
            message = self._hear(max(deadline_s - time.monotonic(), 0.0))
            if "ready" in message:
                ready: dict[str, Any] = message["ready"]
                return ready
            if "refused" in message:
                raise EngineError(
                    _("{engine} could not load the model: {reason}").format(
                        engine=self._kind, reason=message["refused"]
                    ),
                    hint=_("Check that it reads models of this kind."),
                )

    def _tell(self, message: Mapping[str, Any]) -> None:
        assert self.worker.stdin
        try:
            self.worker.stdin.write(json.dumps(message).encode() + b"\n")
            self.worker.stdin.flush()
        except (OSError, ValueError):
            return  # that it has ended, whoever listens will hear

    def _hear(self, timeout_s: float) -> dict[str, Any]:
        try:
            message = self._said.get(timeout=timeout_s)
        except queue.Empty:
            self.worker.close()
            raise EngineError(
                _("{engine} said nothing for {seconds:.0f} seconds, and was ended.").format(
                    engine=self._kind, seconds=timeout_s
                )
            ) from None
        if message is None:
            self._said.put(None)
            if self._closed:
                raise EngineCrashed(_("The model was unloaded."), hint=_("Load it again."))
            raise self.worker.death()
        return message

    def _listen(self) -> None:
        """Puts what the script says in a queue; None at the end."""
        assert self.worker.stdout
        try:
            for line in self.worker.stdout:
                if line.startswith(b"{"):  # libraries greet, too
                    message = json.loads(line)
                    self._said.put(message)
        except (OSError, ValueError):
            pass
        self._said.put(None)


def _asked(request: GenerateRequest) -> dict[str, Any]:
    prompt = list(request.prompt) if isinstance(request.prompt, tuple) else request.prompt
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    return {
        "prompt": prompt,
        "messages": messages if prompt is None else None,
        "max_tokens": request.max_tokens,
        "ignore_end": request.ignore_end,
        "sampling": {name: value for name, value in asdict(request.sampling).items() if value is not None},
    }
