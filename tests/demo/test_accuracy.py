"""The built-in model in the real engine, asked questions that it never saw: the bar is 80% in each language.

The questions of heldout.toml were written apart from the training questions, from the facts alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bendi.engines import Engine, LoadRequest, wheel
from bendi.messages import GenerateRequest, Message, Sampling

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from demo_model import scoring, topics  # noqa: E402

BAR = 0.80
MAX_MODEL_BYTES = 10_000_000


@pytest.fixture(scope="module")
def engine(demo_model: Path) -> Iterator[Engine]:
    opened = wheel.open_engine(LoadRequest(model_path=demo_model, context_tok=2048, threads=2))
    yield opened
    opened.close()


def ask(engine: Engine, *turns: Message) -> str:
    request = GenerateRequest(messages=turns, max_tokens=300, sampling=Sampling(temperature=0.0))
    return "".join(chunk.text for chunk in engine.generate(request))


@pytest.fixture(scope="module")
def score(engine: Engine) -> scoring.Score:
    known = [*topics.load_topics(), topics.load_unknown()]
    cases = scoring.read_cases(Path(__file__).with_name("heldout.toml"), known)
    return scoring.judge(cases, lambda case: ask(engine, Message("user", case.question)), known)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_right_fact_on_paraphrases_never_seen(language: str, score: scoring.Score) -> None:
    assert score.accuracy(language) >= BAR, scoring.summary(score)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_says_so_when_it_does_not_know(language: str, score: scoring.Score) -> None:
    assert score.accuracy(language, unknown=True) >= BAR, scoring.summary(score)


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("What is quantization?", "bit"),
        ("Why does memory bandwidth decide TG?", "bandwidth"),
        ("How much memory does a 14B model at Q4 take?", "8.5"),
        ("What is a KV cache?", "key"),
        ("What is MoE offload?", "expert"),
        ("什么是量化?", "比特|位"),
        ("14B的Q4模型需要多少内存？", "8.5"),
        ("什么是KV缓存", "KV"),
    ],
)
def test_the_questions_that_everybody_asks(question: str, fact: str, engine: Engine) -> None:
    assert scoring.matches(ask(engine, Message("user", question)), [f"(?i){fact}"])


def test_answers_the_last_question_of_a_conversation(engine: Engine) -> None:
    first = ask(engine, Message("system", "You are a helpful assistant."), Message("user", "What is a KV cache?"))
    turns = [Message("user", "What is a KV cache?"), Message("assistant", first), Message("user", "什么是量化？")]
    assert scoring.matches(ask(engine, *turns), ["量化"])


def test_size() -> None:
    model = ROOT / "src" / "bendi" / "assets" / "demo.gguf"
    assert model.stat().st_size <= MAX_MODEL_BYTES
