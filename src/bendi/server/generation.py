"""From what a dialect understood to an answer: the model is leased, the context kept, the engine asked, all counted.

Dialects make an `Ask` and encode the chunks; nothing else of a request is theirs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from bendi.messages import Chunk, GenerateRequest
from bendi.server.endpoint import Call
from bendi.server.pool import Wish

ContextPolicy = Literal["error", "grow", "compact", "slide"]
"""What happens to a prompt that does not fit. `grow`, the default: the model is loaded again with a longer context
where the plan allows it, otherwise as `error`: status 400 with `context_needed`. Nothing else is done unasked."""


@dataclass(frozen=True)
class Ask:
    """`wish`: which model, and how. `policy`: see ContextPolicy."""

    wish: Wish
    request: GenerateRequest
    policy: ContextPolicy = "grow"


@dataclass(frozen=True)
class Note:
    """Said once, before the first chunk: which model answers, and what had to be done to the context. `load_s`: how
    long the request waited for the model to be loaded, 0 where it was there. `dropped`: messages that were left out or
    summarised by a policy that the client asked for."""

    model: str
    context_tok: int
    load_s: float = 0.0
    policy_applied: Literal["", "grow", "compact", "slide"] = ""
    dropped: int = 0


async def answer(call: Call, ask: Ask) -> AsyncIterator[Note | Chunk]:
    """A Note, then chunks; the last one has `finish`, `usage` and `timings`. Closing the iterator, or the client's
    going away, stops the engine. Errors before the first chunk are raised before anything is yielded but the Note."""
    raise NotImplementedError
    yield  # pragma: no cover
