"""Arrivals, stalls and prompts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bendi.bench.asking import Watch, ask, ask_together
from bendi.bench.prompts import Prompts, Ruler, collection, takes_tokens
from bendi.engines import LoadRequest
from bendi.engines.fake import FakeEngine
from bendi.errors import ConfigError, EngineError, NotFoundError
from bendi.messages import Cancellation, Chunk, GenerateRequest, Usage
from bendi.results import SHORTEST_WRITING_S, Cell, Repeat, Workload

LOAD = LoadRequest(Path("none"))


def test_every_piece_has_its_time() -> None:
    engine = FakeEngine(LOAD, delay_s=0.02)
    began_s = time.monotonic()
    told = ask(engine, GenerateRequest(prompt="one two three four", max_tokens=4), began_s)
    answer = told.answer
    assert len(answer.arrivals_s) == answer.completion_tok == 4
    assert answer.arrival_tok == (1, 1, 1, 1)
    assert all(later - before > 0.01 for before, later in zip(answer.arrivals_s, answer.arrivals_s[1:], strict=False))
    assert answer.ended_s >= answer.arrivals_s[-1]


class Late(FakeEngine):
    """Hands over afterwards what came in two packets."""

    gap_s = 0.03

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        arrivals = request.arrivals
        assert arrivals
        arrivals.late = True
        packets = [(arrivals.note(), "ab"), (arrivals.note() + self.gap_s, "c")]
        time.sleep(2 * self.gap_s)
        for arrivals.came_s, letters in packets:
            for letter in letters:
                yield Chunk(text=letter)
        yield Chunk(finish="stop", usage=Usage(1, 3))


def test_what_came_together_has_one_time_and_is_not_timed_when_it_is_read() -> None:
    began_s = time.monotonic()
    told = ask(Late(LOAD), GenerateRequest(prompt="x"), began_s)
    answer = told.answer
    assert told.text == "abc" and answer.arrival_tok == (2, 1) and answer.first_tok == 2
    assert answer.tpot_s == pytest.approx(Late.gap_s, rel=0.1), "one token after two"
    assert answer.ended_s < 2 * Late.gap_s


def test_what_came_within_a_moment_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks may have been asleep for as long."""
    monkeypatch.setattr(Late, "gap_s", SHORTEST_WRITING_S / 2)
    answer = ask(Late(LOAD), GenerateRequest(prompt="x"), time.monotonic()).answer
    assert answer.arrival_tok == (2, 1) and answer.tpot_s is None
    repeat = Repeat("c", 0, 0, 0.0, 1.0, (answer,))
    assert repeat.tg_tok_s is None and repeat.is_too_short
    one_word = replace(answer, completion_tok=1, arrival_tok=(1,), arrivals_s=(0.1,))
    assert not replace(repeat, answers=(one_word,)).is_too_short


class Stalling(FakeEngine):
    """Says one word, then nothing until it is told to stop."""

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        assert cancel
        yield Chunk(text="one")
        end_s = time.monotonic() + 30
        while not cancel.cancelled and time.monotonic() < end_s:
            time.sleep(0.01)
        yield Chunk(finish="cancelled", usage=Usage(1, 1))


def test_an_engine_that_stands_still_is_given_up() -> None:
    engine = Stalling(LOAD)
    with Watch(engine, 0.3) as watch:
        with pytest.raises(EngineError, match="Nothing came"):
            ask(engine, GenerateRequest(prompt="x"), 0.0, watch)
        with pytest.raises(EngineError, match="Nothing came"):
            ask_together(engine, [GenerateRequest(prompt="x")] * 3, 3, 0.0, watch)


class Silent(FakeEngine):
    """Does not say how many tokens it took."""

    def generate(self, request: GenerateRequest, cancel: Cancellation | None = None) -> Iterator[Chunk]:
        yield Chunk(text="one")
        yield Chunk(finish="stop")


def test_tokens_are_never_counted_by_pieces() -> None:
    with pytest.raises(EngineError, match="how many tokens"):
        ask(Silent(LOAD), GenerateRequest(prompt="x"), 0.0)


def test_answers_at_once_keep_their_order() -> None:
    engine = FakeEngine(LOAD, delay_s=0.01)
    requests = [GenerateRequest(prompt=f"word{number} tail", max_tokens=2) for number in range(6)]
    with Watch(engine, 60.0) as watch:
        told = ask_together(engine, requests, 3, time.monotonic(), watch)
    assert [each.text.split()[0] for each in told] == [f"word{number}" for number in range(6)]


def cell(**options: object) -> Cell:
    return Cell("m", "q", str(options.pop("engine", "e")), Workload("w", 40, 5, **options))  # type: ignore[arg-type]


def test_prompts_are_the_same_for_every_engine_and_never_repeated(tmp_path: Path) -> None:
    for vocab_size in (1000, None):
        one = Prompts(cell(), 0, 1, vocab_size, Ruler(), tmp_path)
        other = Prompts(cell(engine="another"), 0, 1, vocab_size, Ruler(), tmp_path)
        mine = [one.next().whole for _ in range(5)]
        assert mine == [other.next().whole for _ in range(5)]
        assert len(set(mine)) == 5
        assert len({each[:8] for each in mine}) == 5
        assert Prompts(cell(), 1, 1, vocab_size, Ruler(), tmp_path).next().whole not in mine


def test_token_prompts_have_the_exact_length(tmp_path: Path) -> None:
    asked = Prompts(cell(depth_tok=100), 0, 1, 1000, Ruler(), tmp_path).next()
    assert (len(asked.past), len(asked.prompt), len(asked.whole)) == (100, 40, 140)


def test_texts_are_cut_by_what_was_learned(tmp_path: Path) -> None:
    ruler = Ruler()
    ruler.learn(1000, 500)
    prompt = Prompts(cell(), 0, 1, None, ruler, tmp_path).next().prompt
    assert len(prompt) == 80 + 1
    assert Prompts(cell(text="built-in-zh"), 0, 1, None, ruler, tmp_path).next().prompt != prompt


def test_what_can_be_asked_in_numbers() -> None:
    assert takes_tokens(Workload("w", 10, 5))
    assert not takes_tokens(Workload("w", 10, 5, text="built-in"))
    assert not takes_tokens(Workload("w", 10, 5, turns=3))


def test_texts_of_files(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abc " * 100)
    (tmp_path / "empty.txt").write_text(" ")
    assert collection("t.txt", tmp_path).startswith("abc")
    with pytest.raises(NotFoundError):
        collection("none.txt", tmp_path)
    for name in ("empty.txt", ".", "built-in-xx"):
        with pytest.raises(ConfigError):
            collection(name, tmp_path)
