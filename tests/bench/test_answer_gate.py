"""Whether an engine answers as it should: right ones pass, broken ones are grey."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bendi.bench import gate
from bendi.engines import LoadRequest, open_engine
from bendi.engines.fake import FakeEngine
from bendi.messages import Cancellation, Chunk, GenerateRequest, Usage
from bendi.results import Check
from bendi.settings import load_settings


class Saying(FakeEngine):
    """Answers every question with the same text."""

    def __init__(self, text: str) -> None:
        super().__init__(LoadRequest(Path("none")))
        self._text = text

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        yield Chunk(text=self._text)
        yield Chunk(finish="length", usage=Usage(5, 3))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", gate.EMPTY),
        (" \n ", gate.EMPTY),
        ("GGGGGGGGGGGGGGGG", gate.REPEATED),
        ("\ufffd\ufffd\ufffdx", gate.NO_TEXT),
    ],
)
def test_garbage(text: str, reason: str) -> None:
    check = gate.ask_questions(Saying(text), "c", 60.0)
    assert (check.verdict, check.reason) == ("garbage", reason)
    assert gate.reason_text(check) not in ("", reason)


def test_random_weights_are_not_judged() -> None:
    check = gate.unjudged("c")
    assert (check.verdict, check.reason) == ("unchecked", gate.RANDOM)
    assert gate.reason_text(check) != gate.RANDOM


def test_the_built_in_model_passes_and_agrees_with_itself(demo_model: Path) -> None:
    settings = replace(load_settings(), engine="wheel")
    with closing(open_engine(LoadRequest(demo_model, context_tok=1024), settings)) as engine:
        check = gate.ask_questions(engine, "a", 60.0)
        again = gate.ask_questions(engine, "b", 60.0)
    assert check.verdict == "ok" and all(check.texts)
    found = gate.compared(again, check)
    assert (found.verdict, found.reference) == ("ok", "a")
    assert found.agreement and found.agreement > 0.9


def test_an_engine_that_says_something_else_is_garbage() -> None:
    right = Check("a", "ok", texts=("the river flows", "two and two", "blue"))
    wrong = Check("b", "ok", texts=("qwx zzt", "ppl", "rrr tt"))
    found = gate.compared(wrong, right)
    assert (found.verdict, found.reason, found.agreement) == ("garbage", gate.APART, 0.0)
    # A reference that is garbage itself proves nothing.
    assert gate.compared(wrong, replace(right, verdict="garbage")) == wrong


def test_agreement_counts_to_the_first_difference() -> None:
    assert gate.agreement(["abcd", "xy"], ["abce", "xy"]) == pytest.approx((0.75 + 1) / 2)
    assert gate.agreement([""], [""]) == 0
    assert gate.agreement(["ab"], ["abab"]) == 0.5
