"""From what a dialect understood to an answer: the model is leased, the context kept, the engine asked, all counted.

Dialects make an `Ask` and encode the chunks; nothing else of a request is theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from starlette.requests import ClientDisconnect

from bendi.engines import AnswersInLoop
from bendi.errors import ContextOverflow, OutOfMemory
from bendi.i18n import _
from bendi.messages import (
    Cancellation,
    Chunk,
    GenerateRequest,
)
from bendi.server.context_policy import (
    CompactionCancelled,
    ContextPolicy,
    Shrinking,
    longer_context_tok,
    refused,
    shrink,
)
from bendi.server.endpoint import Call
from bendi.server.persona_request import with_persona
from bendi.server.pool import Lease, Wish
from bendi.server.pool_load import in_thread
from bendi.server.running import Answering, Running
from bendi.server.running_in_loop import RunningInLoop

__all__ = ["Ask", "ContextPolicy", "Note", "answer", "repeated"]


@dataclass(frozen=True)
class Ask:
    """`wish`: which model, and how. `policy`: see ContextPolicy; None for what the persona says, else `grow`."""

    wish: Wish
    request: GenerateRequest
    policy: ContextPolicy | None = None


@dataclass(frozen=True)
class Note:
    """Said once, before the first chunk: which model answers, with which `build` of the engine, and what had to be done
    to the context. `load_s`: how long the request waited for the model to be loaded, 0 where it was there. `dropped`:
    messages that were left out or summarised by a policy that the client asked for."""

    model: str
    build: str
    context_tok: int
    load_s: float = 0.0
    policy_applied: Literal["", "grow", "compact", "slide"] = ""
    dropped: int = 0


async def answer(call: Call, ask: Ask) -> AsyncGenerator[Note | Chunk, None]:
    """A Note, then chunks; the last one has `finish`, `usage` and `timings`. Closing the iterator, or the client's
    going away, stops the engine. Errors before the first chunk are raised before anything is yielded but the Note;
    ClientDisconnect when nobody is there any more to read the answer."""
    turn = _Turn(call, ask)
    try:
        yield await turn.begin()
        while batch := await turn.more():
            for chunk in batch:
                yield chunk
    finally:
        turn.end()


def repeated(ask: Ask, count: int) -> list[Ask]:
    """`count` asks for as many answers to one request; a seed is counted up, so that they differ and can be had
    again."""
    seed = ask.request.sampling.seed
    if seed is None:
        return [ask] * count
    return [
        replace(ask, request=replace(ask.request, sampling=replace(ask.request.sampling, seed=(seed + at) % 2**32)))
        for at in range(count)
    ]


class _Turn:
    """One answer from the wish to its end. `end` may be called at any time and gives everything back."""

    def __init__(self, call: Call, ask: Ask) -> None:
        self._call = call
        self._wish, self._request, self._policy = ask.wish, ask.request, ask.policy
        self._lease: Lease | None = None
        self._acquiring: asyncio.Future[Lease | None] | None = None
        self._running: Answering | None = None
        self._first: Sequence[Chunk] = ()
        self._cancel = Cancellation()
        self._gone = False
        self._counted = False
        self._watch: asyncio.Task[None] | None = asyncio.create_task(self._watch_client())

    async def begin(self) -> Note:
        """Waits until the engine has taken the request."""
        pool = self._call.services.pool
        persona = pool.named(self._wish.model).persona
        if persona:
            self._request = with_persona(self._request, persona)
            chosen = persona.values.get("context_policy")
            self._policy = self._policy or ("error" if chosen == "ask" else chosen)
        self._lease = pool.at_once(self._wish)
        if self._lease is None:
            await self._acquire(pool.acquire(self._wish))
        assert self._lease is not None
        info = self._lease.engine.info
        note = Note(self._lease.model, info.build, info.context_tok, self._lease.load_s)
        try:
            await self._start()
        except ContextOverflow as error:
            note = await self._make_it_fit(error, note)
        return note

    async def more(self) -> Sequence[Chunk]:
        """The next chunks; none after the last."""
        assert self._running is not None
        batch, self._first = self._first, ()
        if not batch:
            batch = await self._running.batch()
        if self._gone:
            raise ClientDisconnect
        if batch and batch[-1].finish:
            self._count()
        return batch

    def end(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            # It keeps its frame, and that this: without a circle all of a request goes with its end, not when the
            # collector next looks at everything.
            self._watch = None
        self._cancel.cancel()
        lease, running = self._lease, self._running
        if running is not None:
            running.stop()
            running.when_ended(self._count)
            if lease is not None:
                running.when_ended(lease.release)
        elif lease is not None:
            lease.release()

    async def _start(self) -> None:
        assert self._lease is not None
        engine, stall_s = self._lease.engine, self._call.services.pool.limits.stall_s
        if isinstance(engine, AnswersInLoop):
            self._running = running = RunningInLoop(stall_s)
            await running.begin(engine.answers, self._request)
        else:
            self._running = Running(engine, self._request, stall_s)
        self._first = await self._running.batch()
        if self._gone:
            raise ClientDisconnect

    async def _make_it_fit(self, error: ContextOverflow, note: Note) -> Note:
        policy = self._policy or "grow"
        self._running = None
        if policy == "grow":
            return await self._grow(error, note)
        if policy == "error" or self._request.prompt is not None:
            raise refused(error) from error
        return await self._shrink(policy, error, note)

    async def _grow(self, error: ContextOverflow, note: Note) -> Note:
        assert self._lease is not None
        old = self._lease
        wanted_tok = longer_context_tok(error, self._request)
        train_tok = old.engine.info.train_context_tok
        if error.needed_tok < train_tok < wanted_tok:
            wanted_tok = train_tok  # the whole prompt, and as much of an answer as there is room for
        try:
            await self._acquire(self._call.services.pool.grow(old, self._wish, wanted_tok))
        except OutOfMemory as no_room:
            raise refused(error, no_room.message) from error
        lease = self._lease
        if lease is old:
            raise refused(error, _why_not_longer(train_tok, error.needed_tok)) from error
        try:
            await self._start()
        except ContextOverflow as still:
            raise refused(still) from still
        grown = replace(note, context_tok=lease.engine.info.context_tok, policy_applied="grow")
        return replace(grown, load_s=note.load_s + lease.load_s)

    async def _shrink(self, policy: Shrinking, error: ContextOverflow, note: Note) -> Note:
        assert self._lease is not None
        try:
            shrunk = await in_thread(shrink, self._lease.engine, self._request, policy, self._cancel)
        except CompactionCancelled:
            raise ClientDisconnect from None
        except ContextOverflow as still:
            raise refused(still) from error
        self._request = shrunk.request
        await self._start()
        return replace(note, policy_applied=policy, dropped=shrunk.dropped)

    async def _acquire(self, getting: Coroutine[Any, Any, Lease | None]) -> None:
        """Waits for a lease, unless the client goes away. None: the old one stays."""
        self._acquiring = acquiring = asyncio.ensure_future(getting)
        try:
            self._lease = await acquiring or self._lease
        except asyncio.CancelledError:
            if acquiring.done() and not acquiring.cancelled() and acquiring.exception() is None:
                # It came in the same moment, and `end` gives it back.
                self._lease = acquiring.result() or self._lease
            if self._gone:
                raise ClientDisconnect from None
            raise
        finally:
            self._acquiring = None

    async def _watch_client(self) -> None:
        await self._call.gone()
        self._gone = True
        self._cancel.cancel()
        if self._acquiring is not None:
            self._acquiring.cancel()
        if self._running is not None:
            self._running.stop()

    def _count(self) -> None:
        last = self._running.last if self._running else None
        if not self._counted and last is not None and last.usage is not None and self._lease is not None:
            self._counted = True
            self._call.services.metrics.answered(self._lease.model, last.usage, last.timings)


def _why_not_longer(train_tok: int, needed_tok: int) -> str:
    if 0 < train_tok <= needed_tok:
        return _("This model was trained for {tok} tokens.").format(tok=train_tok)
    return _("Others use this model, so it could not be loaded again with a longer context.")
