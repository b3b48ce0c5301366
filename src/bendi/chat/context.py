"""Whether a conversation fits in the context, and what is done when it does not. Nothing is left out unsaid.

Policies: `error` and `ask` refuse with numbers (`ask`: the terminal then offers the other two), `slide` leaves out the
oldest whole turns, `compact` has the model summarise them (`compaction`). System messages and the last question are
never left out, the order is kept, and what is left out of a request stays in the session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bendi.chat.parameters import Policy
from bendi.engines import Engine, Tokenizer
from bendi.errors import ContextOverflow
from bendi.i18n import _
from bendi.messages import GenerateRequest, Message

_ANSWER_TOK = 1024
_SUMMARY_TOK = 512
_HEADING_TOK = 16


@dataclass(frozen=True)
class Dialogue:
    """A conversation as a model sees it. `summary`: stands for turns before `turns`; may be empty, as `system`."""

    turns: tuple[Message, ...]
    system: str = ""
    summary: str = ""

    @property
    def messages(self) -> tuple[Message, ...]:
        """In the form that every chat template accepts: one system message first, then turns that alternate.

        Questions that got no answer are joined to the next one; answers stopped before their first word are not sent.
        """
        heading = _("Summary of the earlier part of this conversation:")
        note = f"{heading}\n{self.summary}" if self.summary else ""
        head = "\n\n".join(text for text in (self.system, note) if text)
        shown = [Message("system", head)] if head else []
        for message in self.turns:
            if message.role == "assistant" and not message.content and not message.tool_calls:
                continue
            if shown and message.role in ("system", "user") and shown[-1].role == message.role:
                both = "\n\n".join(text for text in (shown[-1].content, message.content) if text)
                shown[-1] = replace(shown[-1], content=both, images=shown[-1].images + message.images)
            else:
                shown.append(message)
        return tuple(shown)

    @property
    def turn_starts(self) -> list[int]:
        """Indices where turns begin: at the start, and at every user message that does not follow another one."""
        roles = [message.role for message in self.turns]
        return [at for at, role in enumerate(roles) if at == 0 or (role == "user" and roles[at - 1] != "user")]

    def without_oldest(self, turns: int) -> Dialogue:
        """Without the first `turns` turns, system messages among them excepted."""
        start = self.turn_starts[turns]
        kept = tuple(message for message in self.turns[:start] if message.role == "system")
        return replace(self, turns=kept + self.turns[start:])


@dataclass(frozen=True)
class Budget:
    """What there is room for. `reserve_tok`: kept free for the answer.

    `request`: template options and tools that change the token count.
    """

    engine: Engine
    reserve_tok: int
    request: GenerateRequest = field(default_factory=GenerateRequest)

    @property
    def available_tok(self) -> int:
        return self.engine.info.context_tok

    @property
    def summary_tok(self) -> int:
        """Room for the summary of what was left out."""
        return max(min(_SUMMARY_TOK, self.available_tok // 8), 16)

    def prompt_tok(self, dialogue: Dialogue) -> int:
        """Exact where the engine can count; otherwise an estimate on the safe side."""
        if isinstance(self.engine, Tokenizer):
            return self.engine.count_tokens(dialogue.messages, self.request)
        return sum(8 + estimate_tok(message.content) for message in dialogue.messages)

    def needed_tok(self, dialogue: Dialogue) -> int:
        return self.prompt_tok(dialogue) + self.reserve_tok


@dataclass(frozen=True)
class Fitted:
    """`dialogue` fits: `needed_tok` (prompt and reserve) is at most `available_tok`.

    `left_out`: how many messages at the start of the turns are not sent. `compacted`: they are in the summary.
    """

    dialogue: Dialogue
    needed_tok: int
    available_tok: int
    left_out: int = 0
    compacted: bool = False


Summarise = Callable[[str, Sequence[Message]], str]
"""(summary so far, messages) -> one summary of both, of at most `Budget.summary_tok` tokens."""


def answer_reserve_tok(max_tokens: int | None, context_tok: int) -> int:
    """Tokens kept free for an answer: what was asked for, but at most a quarter of the context."""
    return max(min(max_tokens or _ANSWER_TOK, context_tok // 4), 1)


def estimate_tok(text: str) -> int:
    """More than any tokenizer of the field makes of ordinary text: a third of the ASCII characters, all others."""
    ascii_chars = sum(char < "\x80" for char in text)
    return ascii_chars // 3 + (len(text) - ascii_chars) + 1


def fit(
    dialogue: Dialogue, budget: Budget, policy: Policy, summarise: Summarise | None = None, slack_tok: int = 0
) -> Fitted:
    """The dialogue as it is when it fits, else what `policy` makes of it.

    `slack_tok`: when something must go, that much more is freed if possible, so that not every following request
    moves the start of the context (the engine would have to compute all of it again).

    Raises ContextOverflow when it does not fit and the policy refuses, or when even the system message and the last
    question are too long.
    """
    needed_tok = budget.needed_tok(dialogue)
    if needed_tok <= budget.available_tok:
        return Fitted(dialogue, needed_tok, budget.available_tok)
    if policy == "slide":
        turns = _turns_to_leave(dialogue, budget, slack_tok, must_tok=0)
        rest = dialogue.without_oldest(turns)
        return _fitted(rest, budget, dialogue.turn_starts[turns])
    if policy == "compact" and summarise is not None:
        return _compact(dialogue, budget, slack_tok, summarise)
    raise overflow(budget, needed_tok, can_shrink=len(dialogue.turn_starts) > 1)


def _fitted(dialogue: Dialogue, budget: Budget, left_out: int, compacted: bool = False) -> Fitted:
    return Fitted(dialogue, budget.needed_tok(dialogue), budget.available_tok, left_out, compacted)


def _turns_to_leave(dialogue: Dialogue, budget: Budget, slack_tok: int, must_tok: int) -> int:
    """The smallest number of oldest turns without which there is room for `must_tok`, and for the slack if possible.

    Raises ContextOverflow when there is none.
    """
    for free_tok in (must_tok + slack_tok, must_tok):
        low, high, found = 1, len(dialogue.turn_starts) - 1, 0
        while low <= high:
            middle = (low + high) // 2
            if budget.needed_tok(dialogue.without_oldest(middle)) + free_tok <= budget.available_tok:
                found, high = middle, middle - 1
            else:
                low = middle + 1
        if found:
            return found
    last_only = dialogue.without_oldest(len(dialogue.turn_starts) - 1) if dialogue.turn_starts else dialogue
    raise overflow(budget, budget.needed_tok(last_only) + must_tok, can_shrink=False)


def _compact(dialogue: Dialogue, budget: Budget, slack_tok: int, summarise: Summarise) -> Fitted:
    # Room is kept for a new summary beside the old one; the old one then goes, so the result surely fits, unless
    # the template counts a summary in a way of its own. Then one turn more is taken in.
    starts = dialogue.turn_starts
    must_tok = budget.summary_tok + _HEADING_TOK
    for turns in range(_turns_to_leave(dialogue, budget, slack_tok, must_tok), len(starts)):
        summary = summarise(dialogue.summary, dialogue.turns[: starts[turns]])
        fitted = _fitted(replace(dialogue.without_oldest(turns), summary=summary), budget, starts[turns], True)
        if fitted.needed_tok <= fitted.available_tok:
            return fitted
    raise overflow(budget, budget.needed_tok(dialogue), can_shrink=False)


def overflow(budget: Budget, needed_tok: int, *, can_shrink: bool) -> ContextOverflow:
    """The refusal, with numbers and with what can be done: a larger context, or one of the policies."""
    train_tok = budget.engine.info.train_context_tok
    wanted_tok = -(-needed_tok // 256) * 256
    hints = []
    if wanted_tok <= train_tok or train_tok == 0:
        hints.append(_("Start with a larger context: --context {wanted}.").format(wanted=wanted_tok))
    else:
        text = _("This model was trained for {tok} tokens of context; for more, choose another model.")
        hints.append(text.format(tok=train_tok))
    if can_shrink:
        hints.append(
            _("Or let bendi make room: --policy compact (summarises older turns) or --policy slide (leaves them out).")
        )
        hints.append(_("In the chat: /set policy compact or /set policy slide."))
    else:
        hints.append(_("Or shorten the message: nothing older is left that could make room."))
    return ContextOverflow(
        _(
            "The conversation needs {needed} tokens ({prompt}, and {reserve} for the answer), the context has "
            "{available}. Nothing was cut."
        ).format(
            needed=needed_tok,
            prompt=needed_tok - budget.reserve_tok,
            reserve=budget.reserve_tok,
            available=budget.available_tok,
        ),
        hint="\n".join(hints),
        needed_tok=needed_tok,
        available_tok=budget.available_tok,
    )
