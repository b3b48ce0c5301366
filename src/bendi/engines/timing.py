"""Requests whose only purpose is to be timed: token numbers without a pattern, and the engine's own clock."""

from __future__ import annotations

import random
from collections.abc import Iterator

from bendi.engines.protocol import Engine
from bendi.errors import EngineError
from bendi.i18n import _
from bendi.messages import GenerateRequest, Sampling, Timings

_FIRST_WORD = 300
"""Token numbers below are bytes and special tokens."""


def endless_words(vocab_size: int) -> Iterator[int]:
    """Token numbers of a vocabulary, always the same ones, in which no prompt is found in a cache."""
    source = random.Random(vocab_size)
    while True:
        yield source.randrange(_FIRST_WORD, vocab_size)


def take(words: Iterator[int], count: int) -> tuple[int, ...]:
    """The next `count` of them."""
    return tuple(next(words) for _ in range(count))


def timed(engine: Engine, prompt: tuple[int, ...], answer_tok: int) -> Timings:
    """How fast the engine was with one request, by its own clock. Raises EngineError when it does not say."""
    request = GenerateRequest(prompt=prompt, max_tokens=answer_tok, ignore_end=True, sampling=Sampling(seed=1))
    *_texts, last = engine.generate(request)
    if last.timings is None:
        raise EngineError(_("The engine gave no timings."), hint=_("See `bendi doctor`."))
    return last.timings
