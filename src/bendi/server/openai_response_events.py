"""The series of named events by which an answer of /v1/responses comes, and the answer that they add up to.

Items come one after another: the thinking, the text, then each call. Every item is announced, filled by deltas, told
once more as a whole, and closed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from bendi.messages import Chunk, TokenLogprob, ToolDelta
from bendi.server.answers import Whole
from bendi.server.api_errors import ApiError
from bendi.server.openai_fields import bendi_of, new_id, token_of, usage_of

Event = dict[str, Any]
_TEXTS: Mapping[str, tuple[str, str]] = {
    "reasoning": ("rs_", "reasoning_text"),
    "message": ("msg_", "output_text"),
}
"""By kind of item: how its id begins, and what its part is called."""


class ResponseWriter:
    """`response`: the answer so far. Its methods return events, each complete in itself and in order."""

    def __init__(self, response: dict[str, Any], with_logprobs: bool) -> None:
        self.response = response | {"status": "in_progress", "output": []}
        self._with_logprobs = with_logprobs
        self._sequence = 0
        self._item: dict[str, Any] | None = None
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._call = -1

    def begin(self) -> Iterator[Event]:
        yield self._event("response.created", response=self._snapshot())
        yield self._event("response.in_progress", response=self._snapshot())

    def add(self, chunk: Chunk) -> Iterator[Event]:
        if chunk.reasoning:
            yield from self._append("reasoning", chunk.reasoning, ())
        if chunk.text or chunk.logprobs:
            yield from self._append("message", chunk.text, chunk.logprobs)
        for delta in chunk.tool_deltas:
            yield from self._append_call(delta)

    def end(self, whole: Whole) -> Iterator[Event]:
        """Closes what is open and fills in how the answer ended. The last event is left to `ended`."""
        cut = whole.finish in ("length", "cancelled")
        if not self.response["output"] and self._item is None:
            yield from self._append("message", "", ())
        yield from self._close("incomplete" if cut else "completed")
        reason = "max_output_tokens" if whole.finish == "length" else "cancelled"
        usage = usage_of([whole])
        self.response |= {
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": reason} if cut else None,
            "completed_at": None if cut else max(int(time.time()), self.response["created_at"]),
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": usage["prompt_tokens_details"],
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": usage["completion_tokens_details"],
                "total_tokens": usage["total_tokens"],
            },
            "bendi": bendi_of(whole),
        }

    def ended(self) -> Event:
        return self._event(f"response.{self.response['status']}", response=self._snapshot())

    def failed(self, error: ApiError) -> Event:
        """The last event of an answer that could not be ended."""
        failure = {"code": error.code or "server_error", "message": error.message, **error.extra}
        self.response |= {"status": "failed", "error": failure}
        return self._event("response.failed", response=self._snapshot())

    def _event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    def _snapshot(self) -> dict[str, Any]:
        return self.response | {"output": list(self.response["output"])}

    def _place(self) -> dict[str, Any]:
        assert self._item is not None
        return {"item_id": self._item["id"], "output_index": len(self.response["output"])}

    def _append(
        self, kind: Literal["reasoning", "message"], text: str, logprobs: Sequence[TokenLogprob]
    ) -> Iterator[Event]:
        prefix, part_kind = _TEXTS[kind]
        if self._item is None or self._item["type"] != kind:
            yield from self._close("completed")
            more: dict[str, Any] = {"role": "assistant"} if kind == "message" else {"summary": []}
            self._item = {"type": kind, "id": new_id(prefix), "status": "in_progress", "content": [], **more}
            yield self._added()
            part = self._part(part_kind, "", ())
            yield self._event("response.content_part.added", **self._place(), content_index=0, part=part)
        self._text.append(text)
        self._logprobs += logprobs
        fields: dict[str, Any] = {"content_index": 0, "delta": text}
        if kind == "message":
            fields["logprobs"] = self._told(logprobs)
        if text or logprobs:
            yield self._event(f"response.{part_kind}.delta", **self._place(), **fields)

    def _append_call(self, delta: ToolDelta) -> Iterator[Event]:
        if self._item is None or self._item["type"] != "function_call" or delta.index != self._call:
            yield from self._close("completed")
            self._call = delta.index
            self._item = {
                "type": "function_call",
                "id": new_id("fc_"),
                "call_id": delta.id or new_id("call_"),
                "name": delta.name,
                "arguments": "",
                "status": "in_progress",
            }
            yield self._added()
        if delta.arguments:
            self._text.append(delta.arguments)
            yield self._event("response.function_call_arguments.delta", **self._place(), delta=delta.arguments)

    def _added(self) -> Event:
        assert self._item is not None
        return self._event("response.output_item.added", output_index=self._place()["output_index"], item=self._item)

    def _close(self, status: str) -> Iterator[Event]:
        """Tells the open item as a whole; it is a part of the answer from then on."""
        if self._item is None:
            return
        item, place, text = self._item, self._place(), "".join(self._text)
        if item["type"] == "function_call":
            named = {"name": item["name"], "arguments": text}
            yield self._event("response.function_call_arguments.done", **place, **named)
            item = item | {"arguments": text, "status": status}
        else:
            part_kind = _TEXTS[item["type"]][1]
            part = self._part(part_kind, text, self._logprobs)
            told = {"logprobs": self._told(self._logprobs)} if item["type"] == "message" else {}
            yield self._event(f"response.{part_kind}.done", **place, content_index=0, text=text, **told)
            yield self._event("response.content_part.done", **place, content_index=0, part=part)
            item = item | {"content": [part], "status": status}
        yield self._event("response.output_item.done", output_index=place["output_index"], item=item)
        self.response["output"].append(item)
        self._item, self._text, self._logprobs = None, [], []

    def _part(self, kind: str, text: str, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        part: dict[str, Any] = {"type": kind, "text": text}
        return part if kind == "reasoning_text" else part | {"annotations": [], "logprobs": self._told(logprobs)}

    def _told(self, logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
        if not self._with_logprobs:
            return []
        return [token_of(token) | {"top_logprobs": [token_of(one) for one in token.alternatives]} for token in logprobs]
