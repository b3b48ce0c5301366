"""Old turns into a summary, written by the model itself.

What is too long for one request is summarised in pieces, each with the summary so far, so that every word of the old
turns has been in front of the model once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bendi.chat.context import Budget, Dialogue
from bendi.errors import ContextOverflow, EngineError
from bendi.i18n import _
from bendi.messages import Cancellation, GenerateRequest, Message, Sampling

OnProgress = Callable[[int, int], None]
"""(pieces done, pieces in all)"""


class CompactionCancelled(Exception):
    """The user stopped it; nothing has changed."""


class Compactor:
    """Called with the summary so far and messages, returns one summary of both (`context.Summarise`).

    Raises EngineError when the model writes nothing; CompactionCancelled.
    """

    def __init__(
        self, budget: Budget, cancel: Cancellation | None = None, on_progress: OnProgress | None = None
    ) -> None:
        self._budget = budget
        self._cancel = cancel or Cancellation()
        self._on_progress = on_progress

    def __call__(self, summary: str, messages: Sequence[Message]) -> str:
        pieces = self._pieces(transcript(messages))
        for done, piece in enumerate(pieces):
            if self._on_progress:
                self._on_progress(done, len(pieces))
            summary = self._summarise(summary, piece)
        return summary

    def _pieces(self, text: str) -> list[str]:
        """`text` in pieces that fit in a request beside the longest summary; joined they are `text` again."""
        room_tok = self._budget.available_tok - 2 * self._budget.summary_tok
        if self._prompt_tok(_prompt("", text)) <= room_tok:
            return [text]
        if len(text) < 2:
            raise ContextOverflow(
                _("The context of {available} tokens is too small to summarise anything in it.").format(
                    available=self._budget.available_tok
                ),
                hint=_("Start with a larger context (--context), or choose --policy slide."),
                needed_tok=self._budget.available_tok + 1,
                available_tok=self._budget.available_tok,
            )
        middle = _line_end_near(text, len(text) // 2)
        return self._pieces(text[:middle]) + self._pieces(text[middle:])

    def _prompt_tok(self, prompt: str) -> int:
        return self._budget.prompt_tok(Dialogue((Message("user", prompt),)))

    def _summarise(self, summary: str, piece: str) -> str:
        request = GenerateRequest(
            messages=(Message("user", _prompt(summary, piece)),),
            max_tokens=self._budget.summary_tok,
            sampling=Sampling(temperature=0.2),
            # Thinking would use up the few tokens of the summary; templates that do not know the option ignore it.
            template_options={"enable_thinking": False},
        )
        text = "".join(chunk.text for chunk in self._budget.engine.generate(request, self._cancel)).strip()
        if self._cancel.cancelled:
            raise CompactionCancelled
        if not text:
            raise EngineError(
                _("The model wrote no summary, so the older turns were not replaced by one."),
                hint=_("Try again, or choose --policy slide, or a larger context."),
            )
        return text


def transcript(messages: Sequence[Message]) -> str:
    """The turns as a text for the summariser, which is told of images and does not see them."""
    names = {"user": _("User"), "assistant": _("Assistant"), "tool": _("Tool"), "system": _("Note")}
    shown = _("[an image]")
    return "".join(
        f"{names[message.role]}: {' '.join([*[shown] * len(message.images), message.content])}\n\n"
        for message in messages
    )


def _prompt(summary: str, piece: str) -> str:
    task = _(
        "Summarise the conversation below so that it can be continued from the summary alone: facts, names, numbers, "
        "decisions, wishes of the user, open questions. Write in the language of the conversation, as briefly as "
        "possible, and write only the summary."
    )
    before = _("Summary of what came before, to be included:")
    earlier = f"{before}\n{summary}\n\n" if summary else ""
    heading = _("The conversation:")
    return f"{task}\n\n{earlier}{heading}\n{piece}"


def _line_end_near(text: str, middle: int) -> int:
    """A place to split: behind a line end in the middle half of `text` if there is one."""
    quarter = len(text) // 4
    at = text.rfind("\n", middle - quarter, middle)
    return at + 1 if at >= 0 else middle
