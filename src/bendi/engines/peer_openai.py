"""Any server that speaks OpenAI's `/v1/completions` and `/v1/chat/completions`: vLLM, SGLang, LM Studio, fastllm,
llama-server, bendi itself.

Tokens are counted by the server's `usage`, never by chunks, which may hold several. Fields: OpenAI API reference,
"Completions" and "Chat"; `ignore_eos` is vLLM's, SGLang's and llama-server's. What servers say of their own clock: vLLM
`docs/features/per_request_metrics.md` (`metrics`), llama.cpp `tools/server/README.md` (`timings`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bendi.engines import peer_http
from bendi.engines.llama_answers import prompt_fields
from bendi.engines.peer_http import Bounds, Site, raise_in_words, site_of
from bendi.engines.peer_process import PeerProcess
from bendi.engines.peer_types import PeerLoad, PeerSpec, PeerUsage, Verified, verify
from bendi.engines.protocol import EngineInfo
from bendi.engines.transport import WorkerGone, WorkerRefused
from bendi.errors import ConfigError, EngineCrashed, EngineError, NotFoundError
from bendi.i18n import _
from bendi.messages import Cancellation, Chunk, FinishReason, GenerateRequest, Timings
from bendi.settings import Settings
from bendi.units import MIB

_LOOK_S = 10.0
_FINISHES: dict[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "eos": "stop"}
_SPARE_PIECES, _SPARE_BYTES, _BYTES_A_TOKEN = 256, 16 * MIB, 16 * 1024
_MANY_TOK = 1 << 20


def open_openai(spec: PeerSpec, load: PeerLoad, settings: Settings) -> OpenAiEngine:
    """The model `load.model_name` of a server that runs already. Raises UsageError, Offline, ConfigError, NotFoundError
    and EngineError."""
    key = key_of(spec)
    site = with_version(site_of(spec.url, settings, key=key, remote=spec.remote))
    return OpenAiEngine(site, look_at(site, load.model_name), load, spec)


def key_of(spec: PeerSpec) -> str:
    if not spec.key_variable:
        return ""
    key = os.environ.get(spec.key_variable, "")
    if not key:
        raise ConfigError(
            _("The environment variable {name} is not set; it should have the key of the server.").format(
                name=spec.key_variable
            ),
            hint=f"export {spec.key_variable}=...",
        )
    return key


def with_version(site: Site) -> Site:
    """The same with `/v1`, which people write or leave out."""
    path = site.path if site.path.endswith("/v1") else f"{site.path}/v1"
    return Site(site.scheme, site.host, site.port, path, site.key)


@dataclass(frozen=True)
class Seen:
    """What a server says of itself. `said`: of its settings, by the names of SETTINGS."""

    name: str
    version: str
    model: str
    said: Mapping[str, Any] = field(default_factory=dict)


class OpenAiEngine:
    """A PeerEngine. `process`: the server, where it was started for this; it is ended with the engine. `load_s`: how
    long that took."""

    ends_can_be_ignored = True

    def __init__(
        self,
        site: Site,
        seen: Seen,
        load: PeerLoad,
        spec: PeerSpec,
        process: PeerProcess | None = None,
        load_s: float = 0.0,
    ) -> None:
        self._site, self._seen, self._spec, self._silence_s = site, seen, spec, load.silence_s
        self._process, self._closed = process, False
        self.ends_can_be_ignored = "ignore_eos" not in spec.fields or bool(spec.fields["ignore_eos"])
        self._verified = verify(load.settings, seen.said)
        self._info = EngineInfo(
            engine=seen.name,
            build=seen.version,
            model_path=load.model_path or Path(seen.model),
            context_tok=int(seen.said.get("context_tok") or 0),
            train_context_tok=0,
            load_s=load_s,
            slots=int(seen.said.get("parallel") or 1),
            details={"url": site.url, **({"pid": str(process.pid)} if process else {})},
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def verified(self) -> Verified:
        return self._verified

    @property
    def pids(self) -> tuple[int, ...]:
        return (self._process.pid,) if self._process else ()

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        if self._closed:
            raise EngineCrashed(_("The model was unloaded."), hint=_("Load it again."))
        return self._answer(request, cancel or Cancellation())

    def _answer(self, request: GenerateRequest, cancel: Cancellation) -> Iterator[Chunk]:
        reader = AnswerEvents(self._seen.name, request.max_tokens, request.clock)
        path = "/completions" if request.prompt is not None else "/chat/completions"
        body = {"model": self._seen.model, **request_fields(request), **self._spec.fields}
        body = {name: value for name, value in body.items() if value is not None}
        bounds = Bounds(self._silence_s, _SPARE_BYTES + _BYTES_A_TOKEN * (request.max_tokens or _MANY_TOK))
        try:
            arriving = peer_http.lines(self._site, path, body, cancel, bounds, request.arrivals)
            for event in events(self._seen.name, arriving, reader):
                yield from reader.read(event)
        except (WorkerGone, WorkerRefused) as error:
            if not cancel.cancelled:
                self._fail(error)
        if cancel.cancelled and not reader.complete:
            yield Chunk(finish="cancelled", timings=Timings(ttft_s=reader.ttft_s))
            return
        yield reader.last()

    def close(self) -> None:
        self._closed = True
        if self._process:
            self._process.close()

    def _fail(self, error: WorkerGone | WorkerRefused) -> None:
        if self._closed:
            raise EngineCrashed(_("The model was unloaded."), hint=_("Load it again.")) from error
        if self._process and isinstance(error, WorkerGone) and not self._process.alive:
            raise self._process.death() from error
        raise_in_words(self._seen.name, error)


def request_fields(request: GenerateRequest) -> dict[str, Any]:
    """The request as OpenAI's fields, and those that servers added to them."""
    body: dict[str, Any] = {name: value for name, value in asdict(request.sampling).items() if value is not None}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    if request.prompt is not None:
        body["prompt"] = list(request.prompt) if isinstance(request.prompt, tuple) else request.prompt
    else:
        body |= prompt_fields(request.messages, request)
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if request.ignore_end:
        body["ignore_eos"] = True
    return body


class AnswerEvents:
    """Collects what the last chunk of an answer needs while its events pass. `most_tok`: asked for, None for any.
    `now_s`: when that came which is read."""

    def __init__(self, engine: str, most_tok: int | None, now_s: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._most_pieces = _SPARE_PIECES + 2 * (most_tok or _MANY_TOK)
        self._now_s, self._started_s = now_s, now_s()
        self._pieces = 0
        self._finish = ""
        self._usage: Mapping[str, Any] | None = None
        self._timings: Mapping[str, Any] = {}
        self._metrics: Mapping[str, Any] = {}
        self.ended = False
        self.ttft_s: float | None = None

    @property
    def complete(self) -> bool:
        return bool(self._finish) and (self.ended or self._usage is not None)

    def read(self, event: Mapping[str, Any]) -> Iterator[Chunk]:
        """Raises WorkerRefused for an error in the middle, EngineError for what is no event of an answer."""
        if event.get("error"):
            error = event["error"]
            body = error if isinstance(error, dict) else {"message": str(error)}
            code = body.get("code")
            raise WorkerRefused(code if isinstance(code, int) else 500, body)
        try:
            for choice in event.get("choices") or ():
                yield from self._piece(choice)
            self._usage = event.get("usage") or self._usage
            self._timings = event.get("timings") or self._timings
            self._metrics = event.get("metrics") or self._metrics
        except (AttributeError, TypeError) as error:
            raise not_understood(self._engine, str(event)) from error

    def _piece(self, choice: Mapping[str, Any]) -> Iterator[Chunk]:
        delta = choice.get("delta") or {}
        text = choice.get("text") or delta.get("content") or ""
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        if not isinstance(text, str) or not isinstance(reasoning, str):
            raise TypeError("no text")
        if text or reasoning:
            self._pieces += 1
            if self.ttft_s is None:
                self.ttft_s = self._now_s() - self._started_s
            if self._pieces > self._most_pieces:
                raise WorkerGone("the answer is much longer than was asked for")
            yield Chunk(text=text, reasoning=reasoning)
        self._finish = choice.get("finish_reason") or self._finish

    def last(self) -> Chunk:
        """The chunk that ends the answer. Raises EngineError where it broke off, or has no counts."""
        if not self.complete:
            raise EngineCrashed(
                _("{engine} broke off: {reason}").format(
                    engine=self._engine, reason=_("the answer ends without a reason")
                ),
                hint=_("Look whether the server still runs, and at what it wrote."),
            )
        if self._finish not in _FINISHES:
            raise EngineError(
                _("{engine} ended the answer for the reason {reason}.").format(engine=self._engine, reason=self._finish)
            )
        usage = self._counts()
        return Chunk(finish=_FINISHES[self._finish], usage=usage, timings=self._clock(usage))

    def _counts(self) -> PeerUsage:
        usage = self._usage or {}
        try:
            prompt_tok, completion_tok = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
            details = usage.get("prompt_tokens_details") or {}
            cached = details.get("cached_tokens", self._timings.get("cache_n"))
            cached_tok = None if cached is None else int(cached)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(
                _("{engine} does not say how many tokens an answer has; its speed cannot be measured.").format(
                    engine=self._engine
                ),
                hint=_("Use a version of it that honours stream_options.include_usage."),
            ) from error
        return PeerUsage(prompt_tok, completion_tok, cached_tok or 0, cached_known=cached_tok is not None)

    def _clock(self, usage: PeerUsage) -> Timings:
        """By llama.cpp's `timings`, else by vLLM's `metrics`."""
        pp_tok_s, tg_tok_s = _number(self._timings, "prompt_per_second"), _number(self._timings, "predicted_per_second")
        if self._timings and usage.completion_tok < 2:
            tg_tok_s = None
        first_ms, rest_ms = (
            _number(self._metrics, "time_to_first_token_ms"),
            _number(self._metrics, "generation_time_ms"),
        )
        computed_tok = usage.prompt_tok - usage.cached_tok
        if first_ms and usage.cached_known and computed_tok > 0:
            pp_tok_s = 1000 * computed_tok / first_ms
        if rest_ms and usage.completion_tok > 1:
            tg_tok_s = 1000 * (usage.completion_tok - 1) / rest_ms
        return Timings(ttft_s=self.ttft_s, pp_tok_s=pp_tok_s, tg_tok_s=tg_tok_s)


def events(engine: str, arriving: Iterable[bytes], reader: AnswerEvents) -> Iterator[dict[str, Any]]:
    """Server-sent events, up to `[DONE]` or the end. Raises EngineError for what is none."""
    for line in arriving:
        kind, _colon, value = line.partition(b":")
        value = value.strip()
        if kind != b"data" or not value:
            if line[:1] in (b"{", b"<"):
                raise not_understood(engine, line.decode("utf-8", "replace"))
            continue
        if value == b"[DONE]":
            reader.ended = True
            return
        try:
            event = json.loads(value)
        except ValueError as error:
            raise not_understood(engine, value.decode("utf-8", "replace")) from error
        if not isinstance(event, dict):
            raise not_understood(engine, str(event))
        yield event


def not_understood(engine: str, said: str) -> EngineError:
    return EngineError(
        _("{engine} sent something else than an answer: {said}").format(engine=engine, said=said[:200]),
        hint=_("Check that the address is that of such a server."),
    )


def look_at(site: Site, model: str) -> Seen:
    """What the server says of itself and of `model`; empty for the only one that it has. Raises NotFoundError, and
    EngineError when nobody is there."""
    try:
        listed = peer_http.call(site, "/models", timeout_s=_LOOK_S).get("data") or []
    except WorkerRefused as error:
        if error.status in (401, 403) or not model:
            raise_in_words(site.url, error)
        listed = []
    except WorkerGone as error:
        raise EngineError(
            _("Nothing answers at {url}: {reason}").format(url=site.url, reason=error),
            hint=_("Start the server, or correct its address."),
        ) from error
    rows = {str(row.get("id", "")): row for row in listed if isinstance(row, dict)}
    if not model and len(rows) == 1:
        model = next(iter(rows))
    if not model or (rows and model not in rows):
        raise NotFoundError(
            _("The server at {url} has no model {name!r}.").format(url=site.url, name=model),
            hint=_("It has: {names}").format(names=", ".join(sorted(rows)[:20]) or "-"),
        )
    return _recognised(site, model, rows.get(model, {}))


def _recognised(site: Site, model: str, row: Mapping[str, Any]) -> Seen:
    """By who owns the model, as such servers say it; and what they tell elsewhere."""
    root = Site(site.scheme, site.host, site.port, site.path.removesuffix("/v1"), site.key)
    owner, said = str(row.get("owned_by") or ""), {"context_tok": row.get("max_model_len")}
    if owner == "vllm":
        return Seen("vllm", str(_told(root, "/version").get("version", "")), model, said)
    if owner == "sglang":
        return Seen("sglang", str(_told(root, "/get_server_info").get("version", "")), model, said)
    if owner == "fastllm":
        return Seen("fastllm", "", model, {"context_tok": row.get("context_window")})
    if owner == "llamacpp":
        told = _told(root, "/props")
        context = (told.get("default_generation_settings") or {}).get("n_ctx")
        said = {"context_tok": context, "parallel": told.get("total_slots")}
        return Seen("llama-server", str(told.get("build_info", "")), model, said)
    if root.is_here and (told := _told(root, f"/api/v0/models/{model}")):
        return Seen("lmstudio", "", model, {"context_tok": told.get("loaded_context_length")})
    if root.is_here and "bendi" in (version := str(_told(root, "/api/version").get("version", ""))):
        return Seen("bendi", version.partition("bendi.")[2], model, said)
    return Seen("openai", "", model, said)


def _told(root: Site, path: str) -> dict[str, Any]:
    try:
        return peer_http.call(root, path, timeout_s=_LOOK_S)
    except (WorkerGone, WorkerRefused):
        return {}


def _number(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
