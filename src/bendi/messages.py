"""The nouns that engines and their users share: messages, requests, chunks, usage, timings. Data only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for. `arguments`: the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn. `reasoning`: the thinking of an assistant turn, kept apart from its `content`. `images`: the bytes of
    image files, seen before the text; for engines that are loaded with a projector."""

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    images: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters; None leaves the model's own default. Names as in the OpenAI API and llama.cpp."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class GenerateRequest:
    """What an engine is asked for: either `messages` (the model's chat template is applied) or a raw `prompt`, which
    may be text or token numbers.

    `max_tokens`: None means until the model stops or the context is full (then `finish` is `"length"`). `ignore_end`:
    the model's end of turn does not end the answer, for measuring.
    `json_schema`: constrains the answer to that schema. `tools`: OpenAI function descriptions.
    `logprobs`: how many alternatives to tell of each token, 0 for the chosen token only; None for no log-probabilities.
    `logit_bias`: by token number, added to its logit before sampling; -100 or less forbids a token.
    `template_options`: passed to the chat template (`enable_thinking` and the like). `thinking_tok`: after so many
    tokens the engine ends the thinking, where the model marks it, and the answer begins; None for no limit but
    `max_tokens`. `parallel_tool_calls`: whether one answer may call several tools; None leaves it to the
    model. `progress`: chunks that tell of it are wanted for a short prompt, too. `arrivals`: nobody reads along, see
    there.
    """

    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] | None = None
    max_tokens: int | None = None
    ignore_end: bool = False
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    json_schema: Mapping[str, Any] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    template_options: Mapping[str, Any] = field(default_factory=dict)
    logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    parallel_tool_calls: bool | None = None
    thinking_tok: int | None = None
    progress: bool = False
    arrivals: Arrivals | None = field(default=None, compare=False)

    @property
    def clock(self) -> Callable[[], float]:
        """Says when that came of the answer which is handed over now, by `time.monotonic`."""
        return self.arrivals.now_s if self.arrivals else time.monotonic


@dataclass(frozen=True)
class Usage:
    """Token counts. `cached_tok`: how many of `prompt_tok` were found in the KV cache and not computed again."""

    prompt_tok: int
    completion_tok: int
    cached_tok: int = 0

    @property
    def total_tok(self) -> int:
        return self.prompt_tok + self.completion_tok


@dataclass(frozen=True)
class Timings:
    """Measured by the engine, except `ttft_s` (time to first token), which the caller of the engine sees.

    `pp_tok_s`: prompt processing; `tg_tok_s`: token generation; None where nothing was measured. `guessed_tok`,
    `accepted_tok`: of speculation, None without it.
    """

    ttft_s: float | None = None
    pp_tok_s: float | None = None
    tg_tok_s: float | None = None
    load_s: float | None = None
    guessed_tok: int | None = None
    accepted_tok: int | None = None


FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


@dataclass(frozen=True)
class PromptProgress:
    """How far prompt processing is: `done_tok` of `total_tok`, of which `cached_tok` were in the KV cache already."""

    done_tok: int
    total_tok: int
    cached_tok: int = 0


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer and the natural logarithm of its probability, by the model itself: before temperature and
    the other sampling parameters. `token_bytes`: its bytes, which need not be whole characters; `token`: the same as
    text. `alternatives`: the likeliest tokens there, best first, the chosen one among them if it is one of them."""

    token: str
    token_bytes: bytes
    logprob: float
    alternatives: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class ToolDelta:
    """A piece of a call while the model writes it. `index`: which call of the answer; its `id` and `name` come once,
    with its first piece. `arguments`: what is to be appended."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer. The last chunk of an answer has `finish`, `usage` and `timings`, and no text of its own.

    `tool_deltas`: calls as they come; `tool_calls`: the same calls, complete, delivered with the last chunk.
    `logprobs`: of the tokens that this piece ends with. Tokens that are a part of a character or that the chat format
    swallows have none. `progress`: chunks before the first text may carry only this.
    `pieces`: how many the engine had sent: text that arrives together becomes one chunk.
    `stopped_by`, of the last chunk: the one of `GenerateRequest.stop` that ended the answer, empty where none did.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    progress: PromptProgress | None = None
    tool_deltas: tuple[ToolDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    stopped_by: str = ""
    pieces: int = 1


class Cancellation:
    """A switch to stop an answer from another thread. Thread safe; cancelling twice is harmless."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Calls `callback` when cancelled; at once if that has happened already."""
        with self._lock:
            if not self._cancelled:
                self._callbacks.append(callback)
                return
        callback()


class Arrivals:
    """Of one answer along which nobody reads, for measuring: its chunks may be handed over when all of it is there, and
    this says when each came. To take them apart as they come would take the processor from the engine.

    `late`: they are handed over so; an engine that does it says so before it reads. `heard_s`: when something last
    came, None before. `came_s`: when that came which is handed over late. Both by `time.monotonic`.
    """

    def __init__(self) -> None:
        self.late = False
        self.heard_s: float | None = None
        self.came_s: float | None = None

    def note(self) -> float:
        """Something has come now."""
        self.heard_s = time.monotonic()
        return self.heard_s

    def now_s(self) -> float:
        """The time of what is handed over; until then, the time."""
        return self.came_s if self.late and self.came_s is not None else time.monotonic()
