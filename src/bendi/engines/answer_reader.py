"""From the events of llama-server to chunks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bendi.messages import (
    Chunk,
    FinishReason,
    PromptProgress,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolDelta,
    Usage,
)


class AnswerReader:
    """Collects what the last chunk of an answer needs while the events pass. `last` is set once the answer ended.
    `now_s`: when that came which is read."""

    def __init__(self, alternatives: int | None, now_s: Callable[[], float] = time.monotonic) -> None:
        self._alternatives, self._now_s = alternatives, now_s
        self._started_s = now_s()
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
            self.ttft_s = self._now_s() - self._started_s

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
