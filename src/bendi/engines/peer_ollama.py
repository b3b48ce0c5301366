"""Ollama: a server that runs already, or one that is started on a port of its own.

Its defaults differ from everybody's, so that all settings are said aloud, a prompt that does not fit is an error
instead of being cut, and the model stays loaded between requests. API: github.com/ollama/ollama `docs/api.md` and
docs.ollama.com/api/usage.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from bendi.engines import peer_http
from bendi.engines.peer_http import Bounds, Site, raise_in_words, site_of
from bendi.engines.peer_openai import key_of, not_understood
from bendi.engines.peer_process import PeerProcess, free_port
from bendi.engines.peer_types import PeerLoad, PeerSpec, PeerUsage, Verified, check_settings, verify
from bendi.engines.protocol import EngineInfo
from bendi.engines.transport import WorkerGone, WorkerRefused
from bendi.errors import EngineCrashed, EngineError, EngineUnsupported, NotFoundError, RequestRejected, UsageError
from bendi.i18n import _
from bendi.messages import Cancellation, Chunk, FinishReason, GenerateRequest, Message, Timings
from bendi.settings import Settings
from bendi.store.disk import hash_file
from bendi.units import MIB

DEFAULT_URL = "http://127.0.0.1:11434"
_OPTIONS = {
    "context_tok": "num_ctx", "threads": "num_thread", "gpu_layers": "num_gpu", "batch_tok": "num_batch",
    "mmap": "use_mmap",
}  # fmt: skip
"""Our names of what a request may set."""
_ENVIRONMENT = {
    "parallel": "OLLAMA_NUM_PARALLEL", "flash_attention": "OLLAMA_FLASH_ATTENTION", "type_k": "OLLAMA_KV_CACHE_TYPE",
    "type_v": "OLLAMA_KV_CACHE_TYPE",
}  # fmt: skip
"""Our names of what only its environment can set, so only where it is started here."""
_NS = 1e9
_LOOK_S, _KEEP = 10.0, "24h"
_SPARE_BYTES, _BYTES_A_TOKEN, _MANY_TOK = 16 * MIB, 16 * 1024, 1 << 20
_DONE: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


def open_ollama(spec: PeerSpec, load: PeerLoad, settings: Settings) -> OllamaEngine:
    """Loads the model and returns once it is loaded. Raises UsageError, Offline, NotFoundError and EngineError."""
    program = shutil.which(spec.program) if spec.program else None
    if spec.program and program is None:
        raise EngineUnsupported(
            _("There is no program {name}.").format(name=spec.program),
            hint=_("See how to get it: {command}").format(command="bendi bench engines"),
        )
    known = (*_OPTIONS, *(_ENVIRONMENT if program else ()))
    asked = check_settings("ollama", load.settings, known)
    if program is None:
        site = site_of(spec.url or DEFAULT_URL, settings, key=key_of(spec), remote=spec.remote)
        return _loaded(OllamaEngine(site, spec, load, asked), load)
    if asked.get("type_k") != asked.get("type_v"):
        raise UsageError(_("ollama keeps keys and values in the same type; ask for the same type_k and type_v."))
    port = free_port()
    environment = {variable: str(asked[name]).lower() for name, variable in _ENVIRONMENT.items() if name in asked} | {
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_MODELS": str(settings.ollama_models_dir),
    }
    process = PeerProcess("ollama", [program, "serve"], environment)
    site = Site("http", "127.0.0.1", port)
    process.wait_until(lambda: _answers(site), load.load_timeout_s)
    return _loaded(OllamaEngine(site, spec, load, asked, process), load)


def _loaded(engine: OllamaEngine, load: PeerLoad) -> OllamaEngine:
    try:
        engine.load(load)
    except BaseException:
        engine.close()
        raise
    return engine


class OllamaEngine:
    """A PeerEngine. Closing it unloads the model, deletes what was created for it, and ends the server if it was
    started here. The end of a turn cannot be ignored: `GenerateRequest.ignore_end` has no effect."""

    ends_can_be_ignored = False

    def __init__(
        self,
        site: Site,
        spec: PeerSpec,
        load: PeerLoad,
        asked: Mapping[str, Any],
        process: PeerProcess | None = None,
    ) -> None:
        self._site, self._spec, self._asked, self._process = site, spec, asked, process
        self._silence_s, self._closed = load.silence_s, False
        self._model, self._created, self._was_loaded = load.model_name, "", False
        self._verified = Verified(asked)
        self._info = EngineInfo("ollama", "", load.model_path or Path(load.model_name), 0, 0, 0.0)

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def verified(self) -> Verified:
        return self._verified

    @property
    def pids(self) -> tuple[int, ...]:
        return (self._process.pid,) if self._process else ()

    def load(self, load: PeerLoad) -> None:
        """Has the model loaded with the settings, and asks what became of them."""
        version = str(self._call("/api/version").get("version", ""))
        if not self._model:
            self._model = self._create(load)
        self._was_loaded = self._row() is not None
        started_s = time.monotonic()
        options = self._options()
        self._call(
            "/api/generate", {"model": self._model, "options": options, "keep_alive": _KEEP}, load.load_timeout_s
        )
        load_s = time.monotonic() - started_s
        row = self._row() or {}
        shown = self._call("/api/show", {"model": self._model})
        self._verified = verify(self._asked, self._said(row))
        details = {name: str(value) for name, value in (shown.get("details") or {}).items() if isinstance(value, str)}
        self._info = EngineInfo(
            engine="ollama",
            build=version,
            model_path=load.model_path or Path(self._model),
            context_tok=int(row.get("context_length") or 0),
            train_context_tok=_train_context(shown.get("model_info") or {}),
            load_s=load_s,
            slots=int(self._asked.get("parallel") or 1),
            details={**details, "digest": str(row.get("digest", "")), "size_vram": str(row.get("size_vram", ""))},
        )

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        if self._closed:
            raise EngineCrashed(_("The model was unloaded."), hint=_("Load it again."))
        if isinstance(request.prompt, tuple):
            raise RequestRejected(
                _("ollama takes prompts as text only, not as token numbers."),
                hint=_("Ask it with a text or with messages."),
            )
        return self._answer(request, cancel or Cancellation())

    def _answer(self, request: GenerateRequest, cancel: Cancellation) -> Iterator[Chunk]:
        now_s = request.clock
        started_s, ttft_s = now_s(), None
        path = "/api/chat" if request.prompt is None else "/api/generate"
        bounds = Bounds(self._silence_s, _SPARE_BYTES + _BYTES_A_TOKEN * (request.max_tokens or _MANY_TOK))
        last: Mapping[str, Any] | None = None
        try:
            for line in peer_http.lines(self._site, path, self._body(request), cancel, bounds, request.arrivals):
                event = _event(line)
                text, thinking = _texts(event)
                if text or thinking:
                    ttft_s = now_s() - started_s if ttft_s is None else ttft_s
                    yield Chunk(text=text, reasoning=thinking)
                if event.get("done"):
                    last = event
                    break
        except (WorkerGone, WorkerRefused) as error:
            if not cancel.cancelled:
                self._fail(error)
        if cancel.cancelled and last is None:
            yield Chunk(finish="cancelled", timings=Timings(ttft_s=ttft_s))
            return
        yield _last_chunk(last, ttft_s)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with suppress(WorkerGone, WorkerRefused):
            if self._info.build and not self._was_loaded:
                body = {"model": self._model, "keep_alive": 0}
                peer_http.call(self._site, "/api/generate", body, _LOOK_S)
        if self._created:
            with suppress(WorkerGone, WorkerRefused):
                peer_http.call(self._site, "/api/delete", {"model": self._created}, _LOOK_S, "DELETE")
        if self._process:
            self._process.close()

    def _body(self, request: GenerateRequest) -> dict[str, Any]:
        options = self._options()
        options |= {name: value for name, value in asdict(request.sampling).items() if value is not None}
        if request.max_tokens is not None:
            options["num_predict"] = request.max_tokens
        if request.stop:
            options["stop"] = list(request.stop)
        body: dict[str, Any] = {
            "model": self._model, "options": options, "stream": True, "keep_alive": _KEEP,
            "truncate": False, "shift": False,
        }  # fmt: skip
        if request.prompt is None:
            body["messages"] = [_message(message) for message in request.messages]
        else:
            body |= {"prompt": request.prompt, "raw": True}
        body |= self._spec.fields
        return {name: value for name, value in body.items() if value is not None}

    def _options(self) -> dict[str, Any]:
        return {_OPTIONS[name]: value for name, value in self._asked.items() if name in _OPTIONS}

    def _said(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Of the settings: from `/api/ps`, and from what a server that was started here logs of its environment."""
        said: dict[str, Any] = {"context_tok": row.get("context_length")}
        size, on_gpu = row.get("size"), row.get("size_vram")
        if size and on_gpu is not None:
            whole = self._asked.get("gpu_layers") if on_gpu >= size else None
            # How many layers it does not say, only whether all, none or some are there.
            said["gpu_layers"] = 0 if on_gpu == 0 else whole if whole and (whole < 0 or whole > 99) else None
        log = "\n".join(self._process.log) if self._process else ""
        for name, variable in _ENVIRONMENT.items():
            if found := re.search(rf"\b{variable}:([^\s\]]*)", log):
                said[name] = _value(found[1])
        return said

    def _create(self, load: PeerLoad) -> str:
        """A model of the server's own, from a GGUF file."""
        if load.model_path is None or not self._spec.may_create:
            raise UsageError(
                _("ollama must be told a model by its own name, or may be given a copy of the file."),
                hint=_("Name the model as `ollama list` shows it, or allow the copy in the study."),
            )
        digest = hash_file(load.model_path)
        name = f"bendi-bench-{hashlib.sha256(digest.encode()).hexdigest()[:12]}"
        blob = f"/api/blobs/sha256:{digest}"
        try:
            peer_http.upload(self._site, blob, load.model_path, load.load_timeout_s)
            files = {load.model_path.name: f"sha256:{digest}"}
            self._created = name
            peer_http.call(
                self._site, "/api/create", {"model": name, "files": files, "stream": False}, load.load_timeout_s
            )
        except (WorkerGone, WorkerRefused) as error:
            self._fail(error)
        return name

    def _row(self) -> Mapping[str, Any] | None:
        """Of the model, among those that are loaded."""
        wanted = {self._model, f"{self._model}:latest"}
        rows = self._call("/api/ps").get("models") or []
        return next((row for row in rows if {row.get("name"), row.get("model")} & wanted), None)

    def _call(self, path: str, body: object = None, timeout_s: float = _LOOK_S) -> dict[str, Any]:
        try:
            return peer_http.call(self._site, path, body, timeout_s)
        except WorkerRefused as error:
            if error.status == 404:
                raise NotFoundError(
                    _("The server at {url} has no model {name!r}.").format(url=self._site.url, name=self._model),
                    hint=_("See what it has: {command}").format(command="ollama list"),
                ) from error
            self._fail(error)
        except WorkerGone as error:
            self._fail(error)

    def _fail(self, error: WorkerGone | WorkerRefused) -> NoReturn:
        if self._closed:
            raise EngineCrashed(_("The model was unloaded."), hint=_("Load it again.")) from error
        if self._process and isinstance(error, WorkerGone) and not self._process.alive:
            raise self._process.death() from error
        raise_in_words("ollama", error)


def _event(line: bytes) -> dict[str, Any]:
    if not line.strip():
        return {}
    try:
        event = json.loads(line)
    except ValueError as error:
        raise not_understood("ollama", line.decode("utf-8", "replace")) from error
    if not isinstance(event, dict):
        raise not_understood("ollama", str(event))
    if event.get("error"):
        raise WorkerRefused(500, {"message": str(event["error"])})
    return event


def _texts(event: Mapping[str, Any]) -> tuple[str, str]:
    message = event.get("message") or {}
    text = event.get("response") or message.get("content") or ""
    thinking = event.get("thinking") or message.get("thinking") or ""
    return str(text), str(thinking)


def _last_chunk(event: Mapping[str, Any] | None, ttft_s: float | None) -> Chunk:
    if event is None:
        raise EngineCrashed(
            _("{engine} broke off: {reason}").format(engine="ollama", reason=_("the answer ends without a reason")),
            hint=_("Look whether the server still runs, and at what it wrote."),
        )
    # `prompt_eval_count` is left out where all of a prompt was cached in older versions; without `eval_count` nothing
    # can be said of the speed.
    if not isinstance(event.get("eval_count"), int) or not isinstance(event.get("prompt_eval_count"), int):
        raise EngineError(
            _("{engine} does not say how many tokens an answer has; its speed cannot be measured.").format(
                engine="ollama"
            ),
            hint=_("Use a current version of it."),
        )
    cached = event.get("prompt_eval_cached_count")
    usage = PeerUsage(
        event["prompt_eval_count"], event["eval_count"], int(cached or 0), cached_known=isinstance(cached, int)
    )
    # Since 0.30 the count has cached tokens in it and the duration has not (ollama#16428).
    computed_tok = usage.prompt_tok - usage.cached_tok
    prompt_ns, answer_ns = event.get("prompt_eval_duration") or 0, event.get("eval_duration") or 0
    timings = Timings(
        ttft_s=ttft_s,
        pp_tok_s=computed_tok * _NS / prompt_ns if prompt_ns > 0 and usage.cached_known and computed_tok > 0 else None,
        tg_tok_s=usage.completion_tok * _NS / answer_ns if answer_ns > 0 and usage.completion_tok > 1 else None,
        load_s=(event.get("load_duration") or 0) / _NS,
    )
    return Chunk(finish=_DONE.get(str(event.get("done_reason")), "stop"), usage=usage, timings=timings)


def _message(message: Message) -> dict[str, Any]:
    return {
        "role": message.role,
        "content": message.content,
        **({"thinking": message.reasoning} if message.reasoning else {}),
    }


def _train_context(info: Mapping[str, Any]) -> int:
    found = [value for name, value in info.items() if name.endswith(".context_length") and isinstance(value, int)]
    return found[0] if found else 0


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isdigit() else text or None


def _answers(site: Site) -> bool:
    with suppress(WorkerGone, WorkerRefused):
        peer_http.call(site, "/api/version", timeout_s=_LOOK_S)
        return True
    return False
