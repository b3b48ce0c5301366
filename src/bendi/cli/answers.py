"""How answers look without a terminal that can move its cursor, and the lines that all ways of showing them share."""

from __future__ import annotations

import re
from typing import Protocol

from bendi.chat.conversation import ContextChanged, Event, Reply
from bendi.cli import output
from bendi.i18n import _, ngettext
from bendi.messages import Chunk
from bendi.units import format_duration, format_rate

# All C0 and C1 control characters but tab and line feed: a model must not be able to send commands to the terminal.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class AnswerView(Protocol):
    """Shows the events of one answer."""

    def show(self, event: Event) -> None: ...

    def close(self) -> None:
        """After the last event, or after an error in the middle."""


class PlainView:
    """The text as it comes, to stdout; what is said about it to stderr. `safe`: stdout is a terminal."""

    def __init__(self, *, safe: bool = False, thinking: bool = False) -> None:
        self._safe = safe
        self._thinking = thinking
        self._open_line = False

    def show(self, event: Event) -> None:
        if isinstance(event, ContextChanged):
            output.say(context_line(event))
        elif isinstance(event, Chunk):
            if event.reasoning and self._thinking:
                self._write(event.reasoning)
            if event.text:
                self._write(event.text)

    def close(self) -> None:
        if self._open_line:
            output.data("")
            self._open_line = False

    def _write(self, text: str) -> None:
        shown = printable(text) if self._safe else text
        output.data(shown, end="")
        if shown:
            self._open_line = not shown.endswith("\n")


def printable(text: str) -> str:
    """`text` without control characters."""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def context_line(change: ContextChanged) -> str:
    """What was done so that the conversation fits."""
    if change.policy == "compact":
        text = ngettext(
            "The context was full: {count} older message was replaced by a summary. It stays in the session.",
            "The context was full: {count} older messages were replaced by a summary. They stay in the session.",
            change.left_out,
        )
    else:
        text = ngettext(
            "The context is full: {count} older message is not sent to the model. It stays in the session.",
            "The context is full: {count} older messages are not sent to the model. They stay in the session.",
            change.left_out,
        )
    return text.format(count=change.left_out)


def ending_line(reply: Reply, max_tokens: int | None) -> str:
    """Why an answer that did not end by itself ended; empty when it did, or when the user had set that limit."""
    if reply.finish == "cancelled":
        return _("Stopped; what was written is kept.") if reply.message.content else _("Stopped.")
    if reply.finish != "length" or (max_tokens and reply.usage.completion_tok >= max_tokens):
        return ""
    return _("The answer ends here because the context is full ({used} of {available} tokens).").format(
        used=reply.used_tok, available=reply.available_tok
    )


def status_line(reply: Reply) -> str:
    """Context used of available, PP, TG and time to first token."""
    timings = reply.timings
    parts = [_("context {used}/{available}").format(used=reply.used_tok, available=reply.available_tok)]
    if timings.pp_tok_s:
        parts.append(f"PP {format_rate(timings.pp_tok_s)}")
    if timings.tg_tok_s:
        parts.append(f"TG {format_rate(timings.tg_tok_s)}")
    if timings.ttft_s is not None:
        parts.append(f"TTFT {format_duration(timings.ttft_s)}")
    if reply.usage.cached_tok:
        parts.append(_("{count} tokens cached").format(count=reply.usage.cached_tok))
    return " · ".join(parts)
