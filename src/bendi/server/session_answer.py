"""From a question in a session to the events of its answer.

A question is `{"text", "images"}`, one of them at least, or `{"retry": true}` for another answer to the last one. Each
image is a `data:` URI. With `"from_position": N` every message from that one on is superseded first (kept, no longer
sent): so a message is edited; to keep both ways open, branch before.
`"policy"`: `error`, `compact` or `slide`, over what persona and session say. The question is on disk before anything is
computed, the answer as it comes; closing the connection stops the model, and what was written is kept as `partial`.

    loading   {}                                              the model is not there yet
    question  message                                         it is stored
    progress  {"done_tok", "total_tok", "cached_tok"}         of the prompt
    compact   {"done", "total"}                               pieces of older turns that were summarised
    context   {"policy", "left_out", "summary", "needed_tok", "available_tok"}   not everything is sent
    delta     {"text"} or {"reasoning"}
    done      {"message": message or null, "finish", "usage": {"prompt_tok", "completion_tok", "cached_tok"},
               "timings": {"load_s", "ttft_s", "pp_tok_s", "tg_tok_s"},
               "context": {"used_tok", "available_tok", "left_out"}}
    error     the body of an error

Nothing is stored or superseded for a question that does not fit: it gets status 400 with `context_needed`, or `error`
where `loading` was sent before. A second question while an answer is being written gets 409; one that follows
`done`, or the end of a connection that its client closed, does not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, Field

from bendi.chat.conversation import ContextChanged, Conversation, Event, Reply
from bendi.chat.export import message_record
from bendi.chat.sessions import Session, StoredMessage
from bendi.chat.setup import Setup
from bendi.errors import ContextOverflow
from bendi.messages import Cancellation, Chunk
from bendi.server.bridge import yielded
from bendi.server.context_policy import refused
from bendi.server.endpoint import Call
from bendi.server.images import MAX_IMAGES
from bendi.server.pool import Lease, Wish
from bendi.server.sse import frame

Said = tuple[str, dict[str, Any]]
"""The name of an event and its data."""


class SessionQuestion(BaseModel):
    """Either `text` and `images`, or `retry`."""

    text: str = ""
    images: list[str] = Field(default=[], max_length=MAX_IMAGES)
    retry: bool = False
    from_position: int | None = Field(default=None, ge=1)
    policy: Literal["error", "compact", "slide"] | None = None


async def answer(call: Call, session: Session, images: tuple[bytes, ...]) -> AsyncGenerator[bytes, None]:
    """The frames of an answer. What is wrong is raised before the first one, as far as it is known then.

    The last one comes when nothing of the answer is left: whoever has it may ask again at once.
    """
    done: bytes | None = None
    async with call.services.talking.alone(session.id), aclosing(_events(call, session, images)) as answered:
        async for name, data in answered:
            if name == "done":
                done = frame(data, name)
            else:
                yield frame(data, name)
    if done:
        yield done


async def _events(call: Call, session: Session, images: tuple[bytes, ...]) -> AsyncGenerator[Said, None]:
    pool = call.services.pool
    wish = Wish(session.model, session=session.id)
    model = await pool.model_of(wish)
    if not any(loaded.path == str(model.path) and loaded.state == "ready" for loaded in pool.loaded()):
        yield "loading", {}
    lease = await pool.acquire(wish)
    try:
        try:
            async with aclosing(_said(call, session, lease, images)) as said:
                async for item in said:
                    yield item
            return
        except ContextOverflow as error:
            # Nothing has been stored or sent yet. A longer context is tried before the refusal is passed on.
            longer = await _grown(call, session, lease, error)
            if longer is None:
                raise refused(error) from error
            lease = longer
        async with aclosing(_said(call, session, lease, images)) as said:
            async for item in said:
                yield item
    finally:
        lease.release()


async def _grown(call: Call, session: Session, lease: Lease, error: ContextOverflow) -> Lease | None:
    """The model with a context that is long enough; None where that cannot be, or somebody wished otherwise."""
    body: SessionQuestion = call.body
    setup = _setup(call, session)
    if body.policy is not None or setup.parameters.policy not in (None, "ask"):
        return None
    wanted_tok = -(-error.needed_tok // 256) * 256
    return await call.services.pool.grow(lease, Wish(session.model, session=session.id), wanted_tok)


async def _said(call: Call, session: Session, lease: Lease, images: tuple[bytes, ...]) -> AsyncGenerator[Said, None]:
    body: SessionQuestion = call.body
    sessions = call.services.sessions
    cancel = Cancellation()

    def work(tell: Callable[[Said], None]) -> Generator[Said]:
        conversation = Conversation(lease.engine, sessions, _setup(call, session))

        def show(done: int, total: int) -> None:
            tell(("compact", {"done": done, "total": total}))

        if body.retry:
            events = conversation.retry(policy=body.policy, cancel=cancel, on_progress=show)
        else:
            events = conversation.send(
                body.text, images=images, policy=body.policy, cancel=cancel, on_progress=show,
                from_position=body.from_position,
            )  # fmt: skip
        left_out = 0
        begun = False
        for event in events:
            if not begun:
                begun = True
                yield "question", message_record(_last(sessions.messages(session.id), "user"))
            if isinstance(event, ContextChanged):
                left_out = event.left_out
            if isinstance(event, Reply):
                call.services.metrics.answered(lease.model, event.usage, event.timings)
                yield "done", _done(event, left_out, sessions.messages(session.id))
            else:
                yield from _event_said(event)

    async with aclosing(yielded(work, cancel.cancel)) as said:
        async for item in said:
            yield item


def _event_said(event: Event) -> Generator[Said]:
    if isinstance(event, ContextChanged):
        yield "context", asdict(event)
    elif isinstance(event, Chunk):
        if event.progress:
            yield "progress", asdict(event.progress)
        if event.reasoning:
            yield "delta", {"reasoning": event.reasoning}
        if event.text:
            yield "delta", {"text": event.text}


def _done(reply: Reply, left_out: int, messages: list[StoredMessage]) -> dict[str, Any]:
    usage = reply.usage
    written = reply.message.content or reply.message.reasoning or reply.message.tool_calls
    return {
        "message": message_record(_last(messages, "assistant")) if written else None,
        "finish": reply.finish,
        "usage": {
            "prompt_tok": usage.prompt_tok,
            "completion_tok": usage.completion_tok,
            "cached_tok": usage.cached_tok,
        },
        "timings": asdict(reply.timings),
        "context": {"used_tok": reply.used_tok, "available_tok": reply.available_tok, "left_out": left_out},
    }


def _last(messages: list[StoredMessage], role: str) -> StoredMessage:
    return next(stored for stored in reversed(messages) if stored.message.role == role)


def _setup(call: Call, session: Session) -> Setup:
    return Setup(call.services.sessions, session.id, call.services.personas)
