"""An engine without a model: deterministic, instant, for tests and for building clients. `BENDI_ENGINE=fake`.

It keeps the whole contract: exact token counts, stop strings, limits, seeds, JSON schemas, tools, reasoning, log-
probabilities, embeddings, ranking, cancellation and context overflow. One token is one word with the space before it,
or one Chinese character. The answer repeats the last user message, varied by the seed when the temperature is above
zero.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bendi.engines.llama_answers import FORBIDDEN_BIAS, check_images
from bendi.engines.protocol import Embeddings, EngineInfo, LoadRequest, Ranking
from bendi.engines.tokens import check_known
from bendi.engines.vectors import input_too_long
from bendi.engines.worker_errors import overflow
from bendi.errors import EngineCrashed, RequestRejected
from bendi.i18n import _
from bendi.messages import (
    Cancellation,
    Chunk,
    FinishReason,
    GenerateRequest,
    Message,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolDelta,
    Usage,
)

_TOKEN = re.compile(r"[\u3400-\u9fff]|\s*[^\s\u3400-\u9fff]+|\s+")
_TOKENS_PER_TURN = 4  # the template's role and separators
_CONTEXT_TOK = 2048
_VECTOR_SIZE = 64


def open_engine(load: LoadRequest, on_progress: Callable[[float], None] | None = None) -> FakeEngine:
    """A FakeEngine; `load.context_tok` is honoured, the model file need not exist."""
    if on_progress:
        on_progress(1.0)
    return FakeEngine(load)


class FakeEngine:
    """Engine, Tokenizer, HasTokens, Embedder and Reranker.

    `delay_s` is spent before every token, so that cancelling can be tried. `script`: answers given one after another
    instead of repeating the question.
    """

    def __init__(self, load: LoadRequest, *, delay_s: float = 0.0, script: Sequence[str] = ()) -> None:
        self._info = EngineInfo(
            engine="fake",
            build="fake 1",
            model_path=load.model_path,
            context_tok=load.context_tok or _CONTEXT_TOK,
            train_context_tok=_CONTEXT_TOK,
            load_s=0.0,
            slots=load.parallel,
        )
        self._delay_s = delay_s
        self._script = list(script)
        self._closed = False
        self.tokens = _Tokens()

    @property
    def info(self) -> EngineInfo:
        return self._info

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        started_s = time.monotonic()
        self._check_open()
        check_images(request, sees=False)
        prompt_tok = self._prompt_tok(request)
        if prompt_tok >= self.info.context_tok:
            raise overflow(prompt_tok, self.info.context_tok, _CONTEXT_TOK)
        room_tok = self.info.context_tok - prompt_tok
        limit_tok = room_tok if request.max_tokens is None else min(room_tok, request.max_tokens)
        calls = _tool_calls(request)
        reasoning = _TOKEN.findall("Let me think.") if request.template_options.get("enable_thinking") else []
        answer = "" if calls else self._answer(request)
        text, stopped_by = _cut_at_stop(answer, request.stop)
        thought = reasoning[: request.thinking_tok]
        pieces = [(piece, True) for piece in thought] + [(t, False) for t in _TOKEN.findall(text)]
        sent_tok, ttft_s = 0, None
        finish: FinishReason = "tool_calls" if calls else "stop"
        for piece, is_reasoning in pieces:
            if sent_tok >= limit_tok:
                finish = "length"
                break
            if _wait(self._delay_s, cancel):
                finish = "cancelled"
                break
            self._check_open()
            ttft_s = ttft_s if ttft_s is not None else time.monotonic() - started_s
            sent_tok += 1
            chunk = Chunk(reasoning=piece) if is_reasoning else Chunk(text=piece)
            yield replace(chunk, logprobs=_logprobs(piece, request.logprobs))
        for index, call in enumerate(calls):
            yield from _tool_deltas(index, call)
        elapsed_s = max(time.monotonic() - started_s, 1e-9)
        yield Chunk(
            finish=finish,
            tool_calls=calls,
            stopped_by=stopped_by if finish == "stop" else "",
            usage=Usage(prompt_tok, sent_tok),
            timings=Timings(ttft_s=ttft_s, pp_tok_s=prompt_tok / elapsed_s, tg_tok_s=sent_tok / elapsed_s or None),
        )

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        self._check_open()
        return self.tokens.tokenize(text, special=special)

    def count_tokens(self, messages: Sequence[Message], request: GenerateRequest | None = None) -> int:
        self._check_open()
        tools_tok = len(_TOKEN.findall(json.dumps(list(request.tools)))) if request and request.tools else 0
        texts = [message.content for message in messages]
        return tools_tok + sum(_TOKENS_PER_TURN + len(_TOKEN.findall(text)) for text in texts) + _TOKENS_PER_TURN

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return self.vectors(texts).vectors

    def vectors(self, inputs: Sequence[str | Sequence[int]], cancel: Cancellation | None = None) -> Embeddings:
        self._check_open()
        texts = [text if isinstance(text, str) else " ".join(map(str, text)) for text in inputs]
        lengths_tok = [len(_TOKEN.findall(text)) for text in texts]
        self._check_lengths(lengths_tok)
        if _wait(self._delay_s, cancel):
            return Embeddings([], 0)
        return Embeddings([_vector(text) for text in texts], sum(lengths_tok))

    def rerank(self, query: str, documents: Sequence[str], cancel: Cancellation | None = None) -> Ranking:
        self._check_open()
        query_tok = len(_TOKEN.findall(query))
        lengths_tok = [query_tok + len(_TOKEN.findall(document)) for document in documents]
        self._check_lengths(lengths_tok)
        if _wait(self._delay_s, cancel):
            return Ranking([], 0)
        wanted = _vector(query)
        scores = [sum(a * b for a, b in zip(wanted, _vector(text), strict=True)) for text in documents]
        return Ranking([min(max((1 + score) / 2, 0.0), 1.0) for score in scores], sum(lengths_tok))

    def _check_lengths(self, lengths_tok: Sequence[int]) -> None:
        longest_tok = max(lengths_tok, default=0)
        if longest_tok > self.info.context_tok:
            raise input_too_long(longest_tok, self.info.context_tok, _CONTEXT_TOK)

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise EngineCrashed(_("The model was unloaded."), hint=_("Load it again."))

    def _prompt_tok(self, request: GenerateRequest) -> int:
        if isinstance(request.prompt, tuple):
            return max(len(request.prompt), 1)
        if request.prompt is not None:
            return max(len(_TOKEN.findall(request.prompt)), 1)
        return self.count_tokens(request.messages, request)

    def _answer(self, request: GenerateRequest) -> str:
        if request.json_schema is not None:
            return json.dumps(_instance(request.json_schema), ensure_ascii=False)
        if self._script:
            return self._script.pop(0)
        prompt = request.prompt if isinstance(request.prompt, str) else " ".join(map(str, request.prompt or ()))
        question = prompt if request.prompt is not None else _last_user(request.messages)
        words = _TOKEN.findall(question) or ["…"]
        if (request.sampling.temperature or 0) > 0:
            random.Random(request.sampling.seed).shuffle(words)
        forbidden = {token for token, bias in request.logit_bias.items() if bias <= FORBIDDEN_BIAS}
        words = [word for word in words if self.tokens.number(word) not in forbidden] or ["…"]
        return "".join(words * (1 + 64 // len(words)))


class _Tokens:
    """Pieces get their numbers as they are first seen (`TokenReader`)."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, piece: str) -> int:
        return self._numbers.setdefault(piece, len(self._numbers))

    def tokenize(self, text: str, *, special: bool = False, whole: bool = False) -> list[int]:
        return [self.number(piece) for piece in _TOKEN.findall(text)]

    def pieces(self, text: str, *, special: bool = False, whole: bool = False) -> list[tuple[int, bytes]]:
        return [(self.number(piece), piece.encode()) for piece in _TOKEN.findall(text)]

    def detokenize(self, tokens: Sequence[int]) -> str:
        texts = list(self._numbers)
        check_known(tokens, len(texts))
        return "".join(texts[token] for token in tokens)


def _last_user(messages: Sequence[Message]) -> str:
    return next((message.content for message in reversed(messages) if message.role == "user"), "")


def _wait(delay_s: float, cancel: Cancellation | None) -> bool:
    """Waits for one token's time; True when cancelled meanwhile."""
    end_s = time.monotonic() + delay_s
    while (left_s := end_s - time.monotonic()) > 0 and not (cancel and cancel.cancelled):
        time.sleep(min(left_s, 0.01))
    return bool(cancel and cancel.cancelled)


def _cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, str]:
    """What comes before the first stop string, and that string."""
    found = [(at, word) for word in stop if word and (at := text.find(word)) >= 0]
    at, word = min(found, default=(len(text), ""))
    return text[:at], word


def _tool_calls(request: GenerateRequest) -> tuple[ToolCall, ...]:
    """A call when the request demands one (`tool_choice` `"required"` or a named function)."""
    choice = request.tool_choice
    if not request.tools or choice in (None, "auto", "none"):
        return ()
    wanted = choice["function"]["name"] if isinstance(choice, Mapping) else None
    for tool in request.tools:
        function = tool["function"]
        if wanted in (None, function["name"]):
            arguments = json.dumps(_instance(function.get("parameters", {})), ensure_ascii=False)
            return (ToolCall(id="call_0", name=function["name"], arguments=arguments),)
    raise RequestRejected(
        _("The engine refused the request: {reason}").format(reason=f"tool_choice {wanted!r}"),
        hint=_("Check the parameters, the tools and the JSON schema of the request."),
    )


def _tool_deltas(index: int, call: ToolCall) -> Iterator[Chunk]:
    yield Chunk(tool_deltas=(ToolDelta(index, call.id, call.name, ""),))
    for piece in _TOKEN.findall(call.arguments):
        yield Chunk(tool_deltas=(ToolDelta(index, "", "", piece),))


def _logprobs(piece: str, alternatives: int | None) -> tuple[TokenLogprob, ...]:
    """The token itself with probability one half, each alternative half as likely as the one before."""
    if alternatives is None:
        return ()
    tokens = [piece, *(f"{piece}{number}" for number in range(1, alternatives))]
    found = [TokenLogprob(token, token.encode(), (1 + at) * math.log(0.5)) for at, token in enumerate(tokens)]
    return (replace(found[0], alternatives=tuple(found[:alternatives])),)


def _instance(schema: Mapping[str, Any]) -> Any:
    """The simplest value that satisfies a JSON schema of the common kinds."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: _instance(inner) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [_instance(schema.get("items", {"type": "string"}))] * int(schema.get("minItems", 0))
    simple: dict[str, Any] = {"string": "x", "integer": 1, "number": 1.0, "boolean": True, "null": None}
    if kind not in simple:
        raise RequestRejected(
            _("The engine refused the request: {reason}").format(reason=f"type {kind!r}"),
            hint=_("Check the parameters, the tools and the JSON schema of the request."),
        )
    return simple[kind]


def _vector(text: str) -> list[float]:
    """Hashed bag of words, so that similar texts have similar vectors."""
    vector = [0.0] * _VECTOR_SIZE
    for piece in _TOKEN.findall(text.lower()):
        digest = hashlib.sha256(piece.strip().encode()).digest()
        vector[digest[0] % _VECTOR_SIZE] += 1.0 if digest[1] & 1 else -1.0
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector] if length else [1.0] + [0.0] * (_VECTOR_SIZE - 1)
