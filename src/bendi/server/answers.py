"""Several answers at once, and an answer as a whole: for dialects that let clients ask for more than one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from bendi.messages import Chunk, FinishReason, TokenLogprob, ToolCall, Usage
from bendi.server.endpoint import Call
from bendi.server.generation import Ask, Note, answer
from bendi.server.sse import merged


@dataclass
class Whole:
    """What has come of an answer. `last`: its last chunk, None until it has ended. `reasoning_pieces`: in how many
    pieces the thinking came, which is one token each, except where a character takes several."""

    note: Note | None = None
    last: Chunk | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reasoning_pieces: int = 0
    _text: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)

    def add(self, item: Note | Chunk) -> None:
        if isinstance(item, Note):
            self.note = item
            return
        if item.text:
            self._text.append(item.text)
        if item.reasoning:
            self._reasoning.append(item.reasoning)
            self.reasoning_pieces += item.pieces
        self.logprobs += item.logprobs
        if item.finish:
            self.last = item

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return self.last.tool_calls if self.last else ()

    @property
    def stopped_by(self) -> str:
        return self.last.stopped_by if self.last else ""

    @property
    def usage(self) -> Usage:
        return self.last.usage if self.last and self.last.usage else Usage(0, 0)

    @property
    def finish(self) -> FinishReason:
        """An answer that was broken off is a part of one, as one that became too long."""
        return self.last.finish if self.last and self.last.finish else "cancelled"


async def several(call: Call, asks: Sequence[Ask]) -> AsyncGenerator[tuple[int, Note | Chunk], None]:
    """What the answers to `asks` bring, as it comes, with the index of its ask. The first error ends all."""
    if len(asks) == 1:
        async with aclosing(answer(call, asks[0])) as only:
            async for item in only:
                yield 0, item
        return
    async with aclosing(merged([answer(call, ask) for ask in asks])) as events:
        async for event in events:
            yield event


async def whole_answers(call: Call, asks: Sequence[Ask]) -> list[Whole]:
    """The answers to `asks`, each complete."""
    wholes = [Whole() for _ask in asks]
    async with aclosing(several(call, asks)) as events:
        async for index, item in events:
            wholes[index].add(item)
    return wholes
