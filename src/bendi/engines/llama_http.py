"""An engine that speaks llama-server's HTTP to its worker: requests to JSON, events to chunks."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NoReturn

from bendi.engines import transport
from bendi.engines.kv_state import KvStates
from bendi.engines.load_report import LAST_LINE, read_load_report
from bendi.engines.pooling import scores_are_probabilities
from bendi.engines.prepare import Prepared
from bendi.engines.process import WorkerProcess
from bendi.engines.projector import check_image
from bendi.engines.protocol import Embeddings, EngineInfo, LoadRequest, Observer, Ranking, StateInfo
from bendi.engines.tokens import TokenCalls
from bendi.engines.transport import Address, WorkerGone, WorkerRefused
from bendi.engines.vectors import VectorCalls
from bendi.errors import ContextOverflow, EngineCrashed, EngineError, RequestRejected
from bendi.i18n import _
from bendi.messages import (
    Cancellation,
    Chunk,
    FinishReason,
    GenerateRequest,
    Message,
    PromptProgress,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolDelta,
    Usage,
)

FORBIDDEN_BIAS = -100.0
"""A token with this bias or less never comes."""


class LlamaServerEngine:
    """Engine, Tokenizer, HasTokens and (when loaded for it) Embedder, Reranker and StatefulEngine over a worker that is
    ready.

    `prepared`: what it was loaded from. `worker`: its process. `observer`: who is told of its answers, if anybody.
    """

    def __init__(self, worker: WorkerProcess, load: LoadRequest, ready: Mapping[str, Any], prepared: Prepared) -> None:
        assert worker.address
        self.prepared = prepared
        self.observer: Observer | None = None
        self.worker = worker
        self._address = worker.address
        self._closed = False
        properties = self._call("/props")
        self._takes_tools = bool(properties.get("chat_template_caps", {}).get("supports_tools"))
        self._guesses = load.speculate
        self._remembers_images = bool(ready.get("remembers_images", True))
        self._sees = bool(properties.get("modalities", {}).get("vision"))
        models = self._call("/v1/models")
        facts = models["data"][0].get("meta") or {}
        self._info = EngineInfo(
            engine="llama.cpp",
            build=str(ready["build"]),
            model_path=load.model_path,
            context_tok=int(properties["default_generation_settings"]["n_ctx"]),
            train_context_tok=int(facts.get("n_ctx_train", 0)),
            load_s=float(ready["load_s"]),
            has_chat_template=prepared.info.chat_template is not None,
            slots=prepared.setup.parallel,
            details={"sandbox": str(ready["sandbox"]), "pid": str(worker.pid)},
            buffers=read_load_report(worker.log_until(LAST_LINE)),
        )
        self._states = KvStates(load, prepared, ready, worker.state_folder)
        self.tokens = TokenCalls(self._address, prepared.info.vocab_size, self._fail)
        self._vectors = VectorCalls(
            self._address,
            self._info.context_tok,
            self._info.train_context_tok,
            prepared.pooling,
            scores_are_probabilities(prepared.headers),
            self._fail,
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        cancel = cancel or Cancellation()
        _check_writes(self.prepared)
        _check_tools(request, self._takes_tools)
        check_images(request, self._sees)
        _check_logprobs(request, self._guesses)
        _check_tokens(request, self.prepared.info.vocab_size)
        reader = _Reader(request.logprobs)
        observer = self.observer
        ticket = observer.begin() if observer else 0
        try:
            yield from self._answer(request, cancel, reader)
        finally:
            if observer:
                observer.end(ticket, reader.last)

    def _answer(self, request: GenerateRequest, cancel: Cancellation, reader: _Reader) -> Iterator[Chunk]:
        raw = request.prompt is not None
        body = _completion_body(request) if raw else _chat_body(request)
        if not self._remembers_images and any(message.images for message in request.messages):
            body["cache_prompt"] = False
        path = "/completion" if raw else "/v1/chat/completions"
        try:
            for event in transport.stream(self._address, path, body, cancel):
                yield from reader.completion(event) if raw else reader.chat(event)
        except (WorkerGone, WorkerRefused) as error:
            if not cancel.cancelled:
                _check_decoded(request, error)
                self._fail(error)
        if cancel.cancelled and reader.last is None:
            yield Chunk(finish="cancelled", usage=reader.partial_usage(), timings=Timings(ttft_s=reader.ttft_s))
        elif reader.last is not None:
            yield reader.last
        else:
            raise self.worker.death()

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        return self.tokens.tokenize(text, special=special)

    def count_tokens(self, messages: Sequence[Message], request: GenerateRequest | None = None) -> int:
        wanted = replace(request or GenerateRequest(), messages=tuple(messages))
        check_images(wanted, self._sees)
        body = _chat_fields(messages, wanted)
        return int(self._call("/v1/chat/completions/input_tokens", body)["input_tokens"])

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return self.vectors(texts).vectors

    def vectors(self, inputs: Sequence[str | Sequence[int]], cancel: Cancellation | None = None) -> Embeddings:
        return self._vectors.embeddings(inputs, cancel or Cancellation())

    def rerank(self, query: str, documents: Sequence[str], cancel: Cancellation | None = None) -> Ranking:
        return self._vectors.ranking(query, documents, cancel or Cancellation())

    def next_token(self, prompt: Sequence[int], size: int, timeout_s: float = 60.0) -> tuple[dict[int, float], int]:
        """Log-probabilities of all tokens of a vocabulary of `size` after `prompt`, by number; and how many of the
        prompt's tokens had to be computed for it. Raises EngineError, also when it takes too long."""
        body = {
            "prompt": list(prompt), "n_predict": 1, "n_probs": size, "temperature": 0.0, "cache_prompt": True,
            # The probabilities are those before any sampling, but are sent only with a token that is a whole
            # character: the last one, rather than a byte.
            "logit_bias": [[size - 1, 1000.0]],
        }  # fmt: skip
        answer = self._call("/completion", body, timeout_s)
        (first,) = answer["completion_probabilities"]
        found = {int(row["id"]): float(row["logprob"]) for row in first["top_logprobs"]}
        return found, int(answer["timings"]["prompt_n"])

    def save_state(self, name: str, slot: int = 0) -> StateInfo:
        _check_slot(slot, self._info.slots)

        def write(file_name: str) -> tuple[int, int]:
            answer = _slot_action(self._address, slot, "save", file_name)
            return int(answer["n_saved"]), int(answer["n_written"])

        try:
            return self._states.save(name, write)
        except WorkerGone as error:
            self._fail(error)

    def restore_state(self, name: str, slot: int = 0) -> StateInfo:
        _check_slot(slot, self._info.slots)

        def read(file_name: str) -> int:
            return int(_slot_action(self._address, slot, "restore", file_name)["n_restored"])

        try:
            return self._states.restore(name, read)
        except WorkerGone as error:
            self._fail(error)

    def close(self) -> None:
        self._closed = True
        self.worker.close()
        if self.observer:
            self.observer.close()

    def _call(self, path: str, body: object = None, timeout_s: float | None = 60.0) -> dict[str, Any]:
        try:
            return transport.call(self._address, path, body, timeout_s)
        except (WorkerGone, WorkerRefused) as error:
            self._fail(error)

    def _fail(self, error: WorkerGone | WorkerRefused) -> NoReturn:
        """Raises what happened, in our words."""
        if isinstance(error, WorkerGone):
            if self._closed:
                raise EngineCrashed(_("The model was unloaded."), hint=_("Load it again.")) from error
            raise self.worker.death() from error
        if error.body.get("type") == "exceed_context_size_error":
            numbers = int(error.body["n_prompt_tokens"]), int(error.body["n_ctx"])
            raise overflow(*numbers, self._info.train_context_tok) from error
        if error.status in (400, 422):
            raise RequestRejected(
                _("The engine refused the request: {reason}").format(reason=error.body.get("message", "")),
                hint=_("Check the parameters, the tools and the JSON schema of the request."),
            ) from error
        raise EngineError(
            _("The engine could not answer: {reason}").format(reason=error.body.get("message", error.status))
        ) from error


def overflow(needed_tok: int, available_tok: int, train_context_tok: int) -> ContextOverflow:
    """The error for a prompt of `needed_tok` tokens in a context of `available_tok`."""
    # Room for an answer, and a round number.
    wanted_tok = -(-(needed_tok + 256) // 256) * 256
    if wanted_tok <= train_context_tok:
        hint = _("Load the model with a larger context (--context {wanted}), or choose --policy compact or slide.")
    else:
        hint = _("This model holds {train} tokens at most: shorten the text, or choose --policy compact or slide.")
    return ContextOverflow(
        _("The prompt has {needed} tokens, but the context holds {available}; nothing was cut.").format(
            needed=needed_tok, available=available_tok
        ),
        hint=hint.format(wanted=wanted_tok, train=train_context_tok),
        needed_tok=needed_tok,
        available_tok=available_tok,
    )


def _check_slot(slot: int, slots: int) -> None:
    """The server takes any number, and counts on from the first slot after the last."""
    if not 0 <= slot < slots:
        raise ValueError(f"slot {slot} of {slots}")


def _slot_action(address: Address, slot: int, action: str, file_name: str) -> dict[str, Any]:
    return transport.call(address, f"/slots/{slot}?action={action}", {"filename": file_name}, timeout_s=None)


def _check_writes(prepared: Prepared) -> None:
    if not prepared.writes_text:
        raise RequestRejected(
            _("This model reads texts and cannot write: it makes vectors or scores of them."),
            hint=_("Choose another model: {command}").format(command="bendi list"),
        )


def _check_logprobs(request: GenerateRequest, guesses: bool) -> None:
    """The server's log-probabilities of guessed tokens are not theirs."""
    if guesses and request.logprobs is not None:
        raise RequestRejected(
            _("This model was loaded to guess ahead; log-probabilities cannot be had from it."),
            hint=_("Load it without --speculate."),
        )


def _check_tools(request: GenerateRequest, takes_tools: bool) -> None:
    """llama-server drops tools without a word when the template has no place for them: the caller must know."""
    if request.tools and request.tool_choice != "none" and not takes_tools:
        raise RequestRejected(
            _("This model cannot use tools: its chat template has no place for them."),
            hint=_("Send the request without tools, or choose a model that was trained for them."),
        )
    if isinstance(request.tool_choice, Mapping):
        wanted = request.tool_choice.get("function", {}).get("name")
        if wanted not in [tool.get("function", {}).get("name") for tool in request.tools]:
            raise RequestRejected(
                _("The request demands the tool {name!r}, which is not among its tools.").format(name=wanted),
                hint=_("Name one of the tools that the request brings."),
            )


def check_images(request: GenerateRequest, sees: bool) -> None:
    """Raises RequestRejected when the request has images and the model cannot see, or they cannot be images."""
    images = [image for message in request.messages for image in message.images]
    if images and not sees:
        raise RequestRejected(
            _("This model cannot see images: it was loaded without a projector."),
            hint=_("Send the request without images, or choose a model that can see."),
        )
    for image in images:
        check_image(image)


def _check_decoded(request: GenerateRequest, error: WorkerGone | WorkerRefused) -> None:
    """Older servers say that they have a defect where an image cannot be decoded."""
    if isinstance(error, WorkerRefused) and error.status == 500 and any(message.images for message in request.messages):
        raise RequestRejected(
            _("The engine could not read the images of the request: {reason}").format(
                reason=error.body.get("message", "")
            ),
            hint=_("Send whole PNG, JPEG, GIF or BMP files."),
        ) from error


def _check_tokens(request: GenerateRequest, vocab_size: int) -> None:
    """llama-server ignores tokens that do not exist without a word: the caller must know."""
    unknown = [token for token in request.logit_bias if not 0 <= token < vocab_size]
    if unknown:
        raise RequestRejected(
            _("The request biases the token {token}, which this model does not have.").format(token=unknown[0]),
            hint=_("Its tokens are numbered from 0 to {last}.").format(last=vocab_size - 1),
        )


def _sampling_fields(request: GenerateRequest) -> dict[str, Any]:
    # Our names of sampling parameters are llama-server's.
    chosen: dict[str, Any] = {name: value for name, value in asdict(request.sampling).items() if value is not None}
    if request.stop:
        chosen["stop"] = list(request.stop)
    if request.ignore_end:
        chosen["ignore_eos"] = True
    if request.logit_bias:
        chosen["logit_bias"] = [
            [token, bias if bias > FORBIDDEN_BIAS else False] for token, bias in request.logit_bias.items()
        ]
    return chosen | {"cache_prompt": True, "stream": True, "return_progress": True}


def _completion_body(request: GenerateRequest) -> dict[str, Any]:
    prompt = list(request.prompt) if isinstance(request.prompt, tuple) else request.prompt
    body = _sampling_fields(request) | {"prompt": prompt}
    body["n_predict"] = -1 if request.max_tokens is None else request.max_tokens
    if request.logprobs is not None:
        # 0 would turn them off.
        body["n_probs"] = max(request.logprobs, 1)
    if request.json_schema is not None:
        body["json_schema"] = dict(request.json_schema)
    return body


def _chat_fields(messages: Sequence[Message], request: GenerateRequest) -> dict[str, Any]:
    """What decides the prompt: messages, tools, template options."""
    body: dict[str, Any] = {"messages": [_message(message) for message in messages]}
    if request.tools:
        choice, tools = request.tool_choice, [dict(tool) for tool in request.tools]
        if isinstance(choice, Mapping):
            # llama-server knows no named choice: one tool that must be called is the same.
            wanted = choice.get("function", {}).get("name")
            tools, choice = [tool for tool in tools if tool.get("function", {}).get("name") == wanted], "required"
        body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = choice
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.template_options:
        body["chat_template_kwargs"] = dict(request.template_options)
    return body


def _chat_body(request: GenerateRequest) -> dict[str, Any]:
    body = _chat_fields(request.messages, request) | _sampling_fields(request)
    body["stream_options"] = {"include_usage": True}
    if request.stop:
        body["verbose"] = True  # the last event then says which of them ended the answer
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    if request.thinking_tok is not None:
        body["reasoning_budget_tokens"] = request.thinking_tok
    if request.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": max(request.logprobs, 1)}
    if request.json_schema is not None:
        schema = {"name": "answer", "schema": dict(request.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _message(message: Message) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        # Whether a model sees earlier thinking again, its template decides: most show it between calls of tools only.
        entry["reasoning_content"] = message.reasoning
    if message.images:
        entry["content"] = [*map(_image, message.images), {"type": "text", "text": message.content}]
    if message.tool_calls:
        entry["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        entry["tool_call_id"] = message.tool_call_id
    return entry


def _image(image: bytes) -> dict[str, Any]:
    # Which format it has, the engine finds out by itself.
    return {"type": "image_url", "image_url": {"url": f"data:image/*;base64,{base64.b64encode(image).decode()}"}}


class _Reader:
    """Collects what the last chunk of an answer needs while the events pass. `last` is set once the answer ended."""

    def __init__(self, alternatives: int | None) -> None:
        self._alternatives = alternatives
        self._started_s = time.monotonic()
        self._pieces = 0
        self._prompt = PromptProgress(0, 0)
        self._calls: dict[int, dict[str, str]] = {}
        self._finish: FinishReason = "stop"
        self._stopped_by = ""
        self.ttft_s: float | None = None
        self.last: Chunk | None = None

    def chat(self, event: Mapping[str, Any]) -> Iterator[Chunk]:
        yield from self._progress(event)
        for choice in event.get("choices", ()):
            delta = choice.get("delta") or {}
            if choice.get("finish_reason"):
                self._finish = choice["finish_reason"]
                self._stopped_by = str((event.get("__verbose") or {}).get("stopping_word") or "")
            calls = tuple(self._collect_call(call) for call in delta.get("tool_calls") or ())
            text, reasoning = delta.get("content") or "", delta.get("reasoning_content") or ""
            logprobs = self._logprobs((choice.get("logprobs") or {}).get("content") or ())
            if text or reasoning or logprobs or calls:
                self._count()
                yield Chunk(text=text, reasoning=reasoning, tool_deltas=calls, logprobs=logprobs)
        if event.get("usage"):
            usage = event["usage"]
            cached_tok = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            self._end(Usage(usage["prompt_tokens"], usage["completion_tokens"], cached_tok), event)

    def completion(self, event: Mapping[str, Any]) -> Iterator[Chunk]:
        yield from self._progress(event)
        logprobs = self._logprobs(event.get("completion_probabilities") or ())
        if event.get("content") or logprobs:
            self._count()
            yield Chunk(text=event.get("content", ""), logprobs=logprobs)
        if event.get("stop"):
            self._finish = "length" if event.get("stop_type") == "limit" else "stop"
            self._stopped_by = str(event.get("stopping_word") or "")
            timings = event.get("timings") or {}
            self._end(Usage(event["tokens_evaluated"], event["tokens_predicted"], timings.get("cache_n", 0)), event)

    def partial_usage(self) -> Usage:
        """What is known of an answer that was broken off; the worker sends exact counts only at the end."""
        return Usage(self._prompt.done_tok, self._pieces, self._prompt.cached_tok)

    def _progress(self, event: Mapping[str, Any]) -> Iterator[Chunk]:
        if "prompt_progress" in event:
            seen = event["prompt_progress"]
            self._prompt = PromptProgress(seen["processed"], seen["total"], seen["cache"])
            yield Chunk(progress=self._prompt)

    def _count(self) -> None:
        self._pieces += 1
        if self.ttft_s is None:
            self.ttft_s = time.monotonic() - self._started_s

    def _logprobs(self, tokens: Sequence[Mapping[str, Any]]) -> tuple[TokenLogprob, ...]:
        if self._alternatives is None:
            return ()
        return tuple(_token_logprob(token, self._alternatives) for token in tokens)

    def _collect_call(self, delta: Mapping[str, Any]) -> ToolDelta:
        index, function = int(delta.get("index", 0)), delta.get("function") or {}
        call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        piece = ToolDelta(
            index=index,
            id="" if call["id"] else delta.get("id") or "",
            name=function.get("name") or "",
            arguments=function.get("arguments") or "",
        )
        call["id"] += piece.id
        call["name"] += piece.name
        call["arguments"] += piece.arguments
        return piece

    def _end(self, usage: Usage, event: Mapping[str, Any]) -> None:
        measured = event.get("timings") or {}
        timings = Timings(
            ttft_s=self.ttft_s,
            pp_tok_s=measured.get("prompt_per_second") if measured.get("prompt_n") else None,
            tg_tok_s=measured.get("predicted_per_second") if measured.get("predicted_n", 0) > 1 else None,
            guessed_tok=measured.get("draft_n"),
            accepted_tok=measured.get("draft_n_accepted"),
        )
        calls = tuple(ToolCall(**self._calls[index]) for index in sorted(self._calls))
        self.last = Chunk(
            finish=self._finish, usage=usage, timings=timings, tool_calls=calls, stopped_by=self._stopped_by
        )


def _token_logprob(token: Mapping[str, Any], alternatives: int) -> TokenLogprob:
    others = (token.get("top_logprobs") or ())[:alternatives]
    return TokenLogprob(
        token=token["token"],
        token_bytes=bytes(token["bytes"]),
        logprob=float(token["logprob"]),
        alternatives=tuple(_token_logprob(other, 0) for other in others),
    )
