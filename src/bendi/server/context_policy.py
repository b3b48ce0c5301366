"""What is done with a conversation that does not fit into the context, where the client asked for it. Blocking."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bendi.chat.compaction import CompactionCancelled, Compactor
from bendi.chat.context import Budget, Dialogue, answer_reserve_tok, fit
from bendi.engines import Engine
from bendi.errors import ContextOverflow
from bendi.i18n import _
from bendi.messages import Cancellation, GenerateRequest

ContextPolicy = Literal["error", "grow", "compact", "slide"]
"""What happens to a prompt that does not fit. `grow`, the default: the model is loaded again with a longer context
where the plan allows it, otherwise as `error`: status 400 with `context_needed`. Nothing else is done unasked."""
Shrinking = Literal["compact", "slide"]
_STEP_TOK = 256


@dataclass(frozen=True)
class Shrunk:
    """`dropped`: messages that were left out, or replaced by a summary of them."""

    request: GenerateRequest
    dropped: int


def shrink(engine: Engine, request: GenerateRequest, policy: Shrinking, cancel: Cancellation) -> Shrunk:
    """The request without its oldest turns, as `policy` says. System messages and the last question stay.

    Raises ContextOverflow when that is not enough; EngineError; CompactionCancelled.
    """
    reserve_tok = answer_reserve_tok(request.max_tokens, engine.info.context_tok)
    budget = Budget(engine, reserve_tok, request)
    summarise = Compactor(budget, cancel) if policy == "compact" else None
    fitted = fit(_dialogue(request), budget, policy, summarise, slack_tok=engine.info.context_tok // 8)
    return Shrunk(replace(request, messages=fitted.dialogue.messages), fitted.left_out)


def longer_context_tok(error: ContextOverflow, request: GenerateRequest) -> int:
    """A context that holds what did not fit, and an answer."""
    wanted_tok = error.needed_tok + (request.max_tokens or 0)
    wanted_tok = max(wanted_tok, error.needed_tok + answer_reserve_tok(None, 4 * error.needed_tok))
    return -(-wanted_tok // _STEP_TOK) * _STEP_TOK


def refused(error: ContextOverflow, why: str = "") -> ContextOverflow:
    """`error` in words for clients of the server. `why`: why the context was not made longer."""
    hint = _("Shorten it, or ask for a context policy: compact summarises the oldest turns, slide leaves them out.")
    message = _("The prompt has {needed} tokens, but the context holds {available}; nothing was cut.").format(
        needed=error.needed_tok, available=error.available_tok
    )
    return ContextOverflow(
        message, hint=f"{why} {hint}".strip(), needed_tok=error.needed_tok, available_tok=error.available_tok
    )


def _dialogue(request: GenerateRequest) -> Dialogue:
    """Leading system messages are its system prompt."""
    messages = request.messages
    count = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    system = "\n\n".join(message.content for message in messages[:count])
    return Dialogue(messages[count:], system)


__all__ = ["CompactionCancelled", "ContextPolicy", "Shrinking", "Shrunk", "longer_context_tok", "refused", "shrink"]
