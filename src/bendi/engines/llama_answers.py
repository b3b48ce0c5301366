"""What is asked of llama-server, and its answers: from requests to JSON, from events to chunks.

The same in two ways: for threads (`generate`) and for an event loop (`begin`), which then needs no thread, and no task
of its own.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

from bendi.engines import loop_transport, transport
from bendi.engines.answer_reader import AnswerReader
from bendi.engines.projector import check_image
from bendi.engines.protocol import Flow, Observer, Taker
from bendi.engines.transport import Address, WorkerGone, WorkerRefused
from bendi.errors import BendiError, RequestRejected
from bendi.i18n import _
from bendi.messages import Cancellation, Chunk, GenerateRequest, Message, Timings

FORBIDDEN_BIAS = -100.0
"""A token with this bias or less never comes."""
_SHORT_BYTES, _SHORT_TOK = 1024, 512
"""A prompt of so much text, or so many tokens, is computed in one step: there is little to tell of on the way."""
_COUNT_S = 1.0
"""An answer that was broken off is over: nobody waits longer for the length of its prompt."""
_KEEP_S = 2.0
"""Until what is known of an answer is written down, together with what ends meanwhile."""
_tasks: set[asyncio.Task[None]] = set()
"""A loop forgets tasks that nobody holds."""


@dataclass(frozen=True)
class Able:
    """What a loaded model can do. `remembers_images`: whether what was computed of an image can be used again.
    `guesses`: it was loaded to guess ahead."""

    writes: bool
    takes_tools: bool
    sees: bool
    remembers_images: bool
    guesses: bool
    vocab_size: int


class AnswerErrors(Protocol):
    """What went wrong with an answer, in our words. Both may take a moment."""

    def fail(self, error: WorkerGone | WorkerRefused) -> NoReturn:
        """Raises what the worker said."""

    def death(self) -> BendiError:
        """Why it is gone."""


class Answers:
    """Of one worker. `observer`: who is told of them, if anybody."""

    def __init__(self, address: Address, able: Able, errors: AnswerErrors) -> None:
        self._address, self._able, self._errors = address, able, errors
        self.observer: Observer | None = None
        self._keeps_soon = False

    def generate(self, request: GenerateRequest, cancel: Cancellation) -> Iterator[Chunk]:
        """As `Engine.generate`."""
        asked = _Asked(request, self._able)
        observer = self.observer
        ticket = observer.begin() if observer else 0
        try:
            try:
                for event in transport.stream(self._address, asked.path, asked.body(), cancel, request.arrivals):
                    yield from asked.read(event)
            except (WorkerGone, WorkerRefused) as error:
                self.broken(asked, error, cancel)
            yield self.last(asked, cancel)
        finally:
            if observer:
                observer.end(ticket, asked.reader.last)
                observer.keep()

    async def begin(self, request: GenerateRequest, cancel: Cancellation, taker: Taker) -> Flow:
        """As `LoopAnswers.begin`."""
        asked = _Asked(request, self._able)
        # Images are large.
        body = await asyncio.to_thread(asked.body) if asked.has_images else asked.body()
        passing = _Passing(self, asked, cancel, taker, self.observer)
        return await loop_transport.ask(self._address, asked.path, body, cancel, passing.take, passing.ended)

    def keep_soon(self, observer: Observer) -> None:
        """It writes to a file, in a thread: who asks the next question need not meet that."""
        if not self._keeps_soon:
            self._keeps_soon = True
            asyncio.get_running_loop().call_later(_KEEP_S, self._keep, observer)

    def _keep(self, observer: Observer) -> None:
        self._keeps_soon = False
        with suppress(RuntimeError):  # the loop is about to end, and takes no more work; closing the engine keeps it
            asyncio.get_running_loop().run_in_executor(None, observer.keep)

    def broken(self, asked: _Asked, error: WorkerGone | WorkerRefused, cancel: Cancellation) -> None:
        """Raises, in our words, why an answer broke off, unless it was cancelled."""
        if not cancel.cancelled:
            _check_decoded(asked.has_images, error)
            self._errors.fail(error)

    def last(self, asked: _Asked, cancel: Cancellation) -> Chunk:
        """The chunk that ends an answer. Raises where it broke off without a reason."""
        last = asked.last(cancel)
        if last is not None:
            return last
        if not cancel.cancelled:
            raise self._errors.death()
        return asked.cancelled(self._prompt_tok(asked))

    def _prompt_tok(self, asked: _Asked) -> int:
        """0 where the worker does not tell any more."""
        path, body = asked.counting()
        try:
            answer = transport.call(self._address, path, body, _COUNT_S)
        except (WorkerGone, WorkerRefused):
            return 0
        return int(answer["input_tokens"]) if "input_tokens" in answer else len(answer["tokens"])


class _Passing:
    """One answer on its way through an event loop: from events to chunks, and to its end. What takes a moment to find
    out, why it broke off, is found out in a thread."""

    def __init__(
        self, answers: Answers, asked: _Asked, cancel: Cancellation, taker: Taker, observer: Observer | None
    ) -> None:
        self._answers, self._asked, self._cancel, self._taker = answers, asked, cancel, taker
        self._observer = observer
        self._ticket = observer.begin() if observer else 0

    def take(self, events: Sequence[Mapping[str, Any]]) -> bool:
        """Whether tokens have come: the next ones may then wait for each other, as the first may not."""
        chunks = [chunk for event in events for chunk in self._asked.read(event)]
        if chunks:
            self._taker.take(chunks)
        return bool(chunks) and chunks[-1].progress is None

    def ended(self, error: Exception | None) -> None:
        last = self._asked.last(self._cancel) if error is None else None
        if last is not None:
            self._end(last)
            return
        task = asyncio.create_task(self._explain(error))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    async def _explain(self, error: Exception | None) -> None:
        try:
            if isinstance(error, WorkerGone | WorkerRefused):
                await asyncio.to_thread(self._answers.broken, self._asked, error, self._cancel)
            elif error is not None:
                raise error
            last = await asyncio.to_thread(self._answers.last, self._asked, self._cancel)
        except BaseException as problem:
            self._observe()
            self._taker.ended(problem)
        else:
            self._end(last)

    def _end(self, last: Chunk) -> None:
        self._observe()
        self._taker.take([last])
        self._taker.ended(None)

    def _observe(self) -> None:
        if self._observer:
            self._observer.end(self._ticket, self._asked.reader.last)
            self._answers.keep_soon(self._observer)


class _Asked:
    """One request and what has come of it. Raises RequestRejected for what the model cannot do."""

    def __init__(self, request: GenerateRequest, able: Able) -> None:
        _check_writes(able.writes)
        _check_tools(request, able.takes_tools)
        check_images(request, able.sees)
        _check_logprobs(request, able.guesses)
        _check_tokens(request, able.vocab_size)
        self._request, self._able = request, able
        raw = request.prompt is not None
        self.reader = AnswerReader(request.logprobs, request.clock)
        self.path = "/completion" if raw else "/v1/chat/completions"
        self.read = self.reader.completion if raw else self.reader.chat
        self.has_images = any(message.images for message in request.messages)

    def body(self) -> dict[str, Any]:
        raw = self._request.prompt is not None
        body = _completion_body(self._request) if raw else _chat_body(self._request)
        if self.has_images and not self._able.remembers_images:
            body["cache_prompt"] = False
        return body

    def last(self, cancel: Cancellation) -> Chunk | None:
        """The chunk that ends the answer; None where it broke off without a reason, or where it was cancelled and the
        worker must say how long its prompt was."""
        if cancel.cancelled and self.reader.last is None:
            usage = self.reader.partial_usage()
            return None if usage.completion_tok and not usage.prompt_tok else self.cancelled(usage.prompt_tok)
        return self.reader.last

    def cancelled(self, prompt_tok: int) -> Chunk:
        """The chunk that ends an answer that was broken off after this much of its prompt."""
        usage = replace(self.reader.partial_usage(), prompt_tok=prompt_tok)
        return Chunk(finish="cancelled", usage=usage, timings=Timings(ttft_s=self.reader.ttft_s))

    def counting(self) -> tuple[str, dict[str, Any]]:
        """What to ask a worker, and where, to learn how many tokens the prompt has."""
        if self._request.prompt is None:
            return "/v1/chat/completions/input_tokens", prompt_fields(self._request.messages, self._request)
        return "/tokenize", {"content": _prompt(self._request), "add_special": True, "parse_special": True}


def _check_writes(writes: bool) -> None:
    if not writes:
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


def _check_decoded(has_images: bool, error: WorkerGone | WorkerRefused) -> None:
    """Older servers say that they have a defect where an image cannot be decoded."""
    if isinstance(error, WorkerRefused) and error.status == 500 and has_images:
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
    chosen: dict[str, Any] = {name: value for name, value in vars(request.sampling).items() if value is not None}
    if request.stop:
        chosen["stop"] = list(request.stop)
    if request.ignore_end:
        chosen["ignore_eos"] = True
    if request.logit_bias:
        chosen["logit_bias"] = [
            [token, bias if bias > FORBIDDEN_BIAS else False] for token, bias in request.logit_bias.items()
        ]
    return chosen | {
        "cache_prompt": True,
        "stream": True,
        "return_progress": request.progress or not _is_short(request),
    }


def _is_short(request: GenerateRequest) -> bool:
    """Progress with a short prompt is not worth waking anybody just when the engine needs the processor."""
    if isinstance(request.prompt, tuple):
        return len(request.prompt) <= _SHORT_TOK
    text = request.prompt or "".join(message.content for message in request.messages)
    return len(text.encode("utf-8", "replace")) <= _SHORT_BYTES and not any(turn.images for turn in request.messages)


def _prompt(request: GenerateRequest) -> str | list[int]:
    return list(request.prompt) if isinstance(request.prompt, tuple) else request.prompt or ""


def _completion_body(request: GenerateRequest) -> dict[str, Any]:
    body = _sampling_fields(request) | {"prompt": _prompt(request)}
    body["n_predict"] = -1 if request.max_tokens is None else request.max_tokens
    if request.logprobs is not None:
        # 0 would turn them off.
        body["n_probs"] = max(request.logprobs, 1)
    if request.json_schema is not None:
        body["json_schema"] = dict(request.json_schema)
    return body


def prompt_fields(messages: Sequence[Message], request: GenerateRequest) -> dict[str, Any]:
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
    body = prompt_fields(request.messages, request) | _sampling_fields(request)
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
