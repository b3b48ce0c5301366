"""One question and its answer, or one text and its continuation: as a stream, or as JSON at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from bendi.chat.conversation import ContextChanged, Conversation, Event, Reply
from bendi.chat.parameters import join
from bendi.cli import output
from bendi.cli.answers import AnswerView, ending_line
from bendi.cli.interrupt import stopping_on_ctrl_c
from bendi.cli.job import Job
from bendi.cli.main import EXIT_INTERRUPTED
from bendi.engines import Engine
from bendi.i18n import _
from bendi.messages import Cancellation, Chunk, GenerateRequest, Message, Timings, Usage


def ask_once(job: Job, conversation: Conversation, view: AnswerView | None) -> int:
    """Asks `job.prompt`; without a view prints JSON. Returns the exit code."""
    cancel = Cancellation()
    events = conversation.send(job.prompt, images=job.images, cancel=cancel)
    return _finish(job, events, cancel, view, conversation.setup.session_id)


def complete_once(job: Job, engine: Engine, view: AnswerView | None) -> int:
    """Continues `job.prompt` as it is."""
    cancel = Cancellation()
    return _finish(job, _completion(job, engine, cancel), cancel, view, "")


def _completion(job: Job, engine: Engine, cancel: Cancellation) -> Generator[Event]:
    """A raw completion in the form of a conversation's events."""
    parameters = join(job.chosen)
    request = GenerateRequest(
        prompt=job.prompt,
        max_tokens=parameters.max_tokens,
        stop=parameters.stop,
        sampling=parameters.sampling,
        json_schema=job.schema,
    )
    text, last = "", Chunk()
    for chunk in engine.generate(request, cancel):
        text += chunk.text
        last = chunk
        yield chunk
    usage = last.usage or Usage(0, 0)
    timings = replace(last.timings or Timings(), load_s=engine.info.load_s)
    message = Message("assistant", text)
    yield Reply(message, last.finish or "cancelled", usage, timings, usage.total_tok, engine.info.context_tok)


def _finish(job: Job, events: Generator[Event], cancel: Cancellation, view: AnswerView | None, session_id: str) -> int:
    reply: Reply | None = None
    left_out = 0
    with stopping_on_ctrl_c(cancel), contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(events))
        if view:
            stack.callback(view.close)
        for event in events:
            if isinstance(event, Reply):
                reply = event
            elif isinstance(event, ContextChanged):
                left_out = event.left_out
            if view:
                view.show(event)
    assert reply
    if view is None:
        output.json_data(_record(job, reply, left_out, session_id))
    elif reply.finish == "cancelled":
        output.say(_stopped(reply, session_id))
    elif line := ending_line(reply, join(job.chosen).max_tokens):
        output.say(line)
    return EXIT_INTERRUPTED if reply.finish == "cancelled" else 0


def _stopped(reply: Reply, session_id: str) -> str:
    """Without a session nothing is kept but what stands in the terminal."""
    if not (session_id and reply.message.content):
        return _("Stopped.")
    said = _("Stopped; what was written is kept. To continue: bendi run --continue, or --session {id}")
    return said.format(id=session_id)


def _record(job: Job, reply: Reply, left_out: int, session_id: str) -> dict[str, Any]:
    timings = reply.timings
    return {
        "model": job.model_name,
        "text": reply.message.content,
        "reasoning": reply.message.reasoning,
        "finish": reply.finish,
        "usage": {
            "prompt_tok": reply.usage.prompt_tok,
            "completion_tok": reply.usage.completion_tok,
            "cached_tok": reply.usage.cached_tok,
        },
        "timings": {
            "load_s": timings.load_s,
            "ttft_s": timings.ttft_s,
            "pp_tok_s": timings.pp_tok_s,
            "tg_tok_s": timings.tg_tok_s,
        },
        "context": {"used_tok": reply.used_tok, "available_tok": reply.available_tok, "left_out": left_out},
        "session": session_id or None,
    }
