"""Guessing ahead: the same text, and only where it was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from native_engine import opener

from bendi.engines import Engine, LoadRequest, open_recorded_engine
from bendi.errors import RequestRejected
from bendi.messages import Chunk, GenerateRequest, Message, Sampling
from bendi.settings import load_settings

QUESTION = Message("user", "What is quantization?")


@pytest.fixture(scope="module", params=("wheel", "native"))
def pair(request: pytest.FixtureRequest, demo_model: Path) -> Iterator[tuple[Engine, Engine]]:
    """The built-in model, loaded without and with guessing."""
    load = LoadRequest(demo_model, context_tok=1024)
    open_it = opener(request.param)
    with closing(open_it(load, None)) as plain, closing(open_it(replace(load, speculate=True), None)) as guessing:
        yield plain, guessing


def answer(engine: Engine, *turns: Message) -> tuple[str, Chunk]:
    request = GenerateRequest(messages=turns, max_tokens=60, sampling=Sampling(temperature=0.0))
    chunks = list(engine.generate(request))
    return "".join(chunk.text for chunk in chunks), chunks[-1]


def test_an_answer_that_was_given_before_is_guessed_and_stays_the_same(pair: tuple[Engine, Engine]) -> None:
    plain, guessing = pair
    first, _last = answer(plain, QUESTION)
    turns = (QUESTION, Message("assistant", first), QUESTION)
    usual, last = answer(plain, *turns)
    assert last.timings and last.timings.guessed_tok is None
    found, last = answer(guessing, *turns)
    assert found == usual
    assert last.timings and last.timings.guessed_tok
    assert 0 < (last.timings.accepted_tok or 0) <= last.timings.guessed_tok


def test_log_probabilities_are_refused(pair: tuple[Engine, Engine]) -> None:
    request = GenerateRequest(messages=(QUESTION,), max_tokens=2, logprobs=1)
    with pytest.raises(RequestRejected) as caught:
        list(pair[1].generate(request))
    assert "--speculate" in caught.value.hint
    assert any(chunk.logprobs for chunk in pair[0].generate(request))


def test_nothing_is_learned_from_it(demo_model: Path) -> None:
    settings = load_settings()
    load = LoadRequest(demo_model, context_tok=512, speculate=True)
    with closing(open_recorded_engine(load, settings)) as engine:
        answer(engine, QUESTION)
    assert not settings.measured_file.exists()
