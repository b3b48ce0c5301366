"""The training corpus of the built-in model: facts that recognise themselves, honest splits, repeatable draws."""

from __future__ import annotations

import itertools
import random
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from demo_model import corpus, memory_table, scoring, topics  # noqa: E402
from demo_model.augment import Augmenter  # noqa: E402

LANGUAGES = topics.LANGUAGES
KNOWN = topics.load_topics()
UNKNOWN = topics.load_unknown()


def mostly(text: str) -> str:
    """Return the language of most of a text: an English answer may quote a Chinese name."""
    return "zh" if 5 * len(re.findall(r"[\u4e00-\u9fff]", text)) > len(text) else "en"


@pytest.fixture(scope="module")
def whole() -> corpus.Corpus:
    return corpus.Corpus()


@pytest.mark.parametrize("topic", [*KNOWN, UNKNOWN], ids=lambda topic: topic.id)
def test_an_answer_states_its_own_fact_in_its_own_language(topic: topics.Topic) -> None:
    for lang, entry in topic.entries.items():
        assert scoring.matches(entry.answer, entry.must)
        assert mostly(entry.answer) == lang
        assert len(entry.questions) >= 16


def test_an_answer_does_not_state_the_fact_of_another_topic() -> None:
    for lang in LANGUAGES:
        for topic, other in itertools.permutations([*KNOWN, UNKNOWN], 2):
            assert not scoring.matches(other.entries[lang].answer, topic.entries[lang].must), (topic.id, other.id)


def test_no_question_belongs_to_two_topics(whole: corpus.Corpus) -> None:
    owner: dict[str, str] = {}
    for (name, _lang), questions in whole.questions.items():
        for question in questions:
            assert owner.setdefault(question.casefold(), name) == name, question


def test_no_held_out_question_is_trained_on(whole: corpus.Corpus) -> None:
    heldout = tomllib.loads(Path(__file__).with_name("heldout.toml").read_text(encoding="utf-8"))["case"]
    trained = {topics.normalise(question) for questions in whole.questions.values() for question in questions}
    lexicon = topics.load_lexicon("outofscope")
    trained |= {topics.normalise(question) for table in lexicon.values() for question in table["near_misses"]}
    assert [case["question"] for case in heldout if topics.normalise(case["question"]) in trained] == []


def test_questions_kept_back_are_not_drawn() -> None:
    split = corpus.Corpus(holdout=2)
    assert len(split.held) >= 4 * len(KNOWN)
    held = {topics.normalise(exchange.question) for exchange in split.held}
    trained = {topics.normalise(question) for questions in split.questions.values() for question in questions}
    assert not held & trained


def test_the_same_seed_gives_the_same_conversations() -> None:
    first, second = (list(itertools.islice(corpus.Corpus().conversations(5), 200)) for _ in range(2))
    assert first == second
    assert first != list(itertools.islice(corpus.Corpus().conversations(6), 200))


def test_conversations_answer_each_question_in_its_language(whole: corpus.Corpus) -> None:
    kinds: set[str] = set()
    lengths: set[int] = set()
    for talk in itertools.islice(whole.conversations(3), 1500):
        lengths.add(len(talk.exchanges))
        for exchange in talk.exchanges:
            kinds.add(exchange.topic)
            assert exchange.question.strip()
            assert mostly(exchange.answer) == exchange.lang
        roles = [message["role"] for message in talk.messages()]
        assert roles == ["system"] * (talk.system is not None) + ["user", "assistant"] * len(talk.exchanges)
    assert {topic.id for topic in KNOWN} | {topics.UNKNOWN, corpus.MEMORY_TABLE} <= kinds
    assert {1, 2, 3, 4} <= lengths


def test_rewriting_keeps_numbers_and_never_empties_a_question() -> None:
    augmenter, rng = Augmenter(), random.Random(1)
    for question in ("How much memory does a 14B model at Q4_K_M need?", "70B 模型用 Q8_0 需要多少内存？"):
        assert augmenter.rewrite(question, rng, 0.0) == question
        seen = {augmenter.rewrite(question, rng) for _ in range(300)}
        assert len(seen) > 100
        assert all(text.strip() for text in seen)
        digits = re.findall(r"\d", question)
        assert sum(sorted(re.findall(r"\d", text)) == sorted(digits) for text in seen) > 0.9 * len(seen)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_memory_table_tells_its_figures_apart(lang: str) -> None:
    pairs = list(itertools.product(memory_table.SIZES_B, memory_table.BITS_PER_WEIGHT))
    for size, quant in pairs:
        answer = memory_table.answer(size, quant, lang)
        fitting = [pair for pair in pairs if scoring.matches(answer, memory_table.must(*pair))]
        assert fitting == [(size, quant)]
    for gigabytes in memory_table.FITS:
        assert scoring.matches(memory_table.fits_answer(gigabytes, lang), memory_table.fits_must(gigabytes))


def test_memory_figures_follow_from_bits_per_weight() -> None:
    assert memory_table.weights_gb("14", "Q4_K_M") == "8.5"
    assert memory_table.weights_gb("7", "Q4_K_M") == "4.2"
    assert memory_table.weights_gb("70", "F16") == "140"


def test_scoring_counts_wrong_answers_and_refusals() -> None:
    cases = [
        scoring.Case(KNOWN[0].id, "en", "a", KNOWN[0].entries["en"].must),
        scoring.Case(KNOWN[1].id, "en", "b", KNOWN[1].entries["en"].must),
        scoring.Case(topics.UNKNOWN, "zh", "c", UNKNOWN.entries["zh"].must),
    ]
    answers = {
        "a": KNOWN[0].entries["en"].answer,
        "b": KNOWN[0].entries["en"].answer,
        "c": UNKNOWN.entries["zh"].answer,
    }
    score = scoring.judge(cases, lambda case: answers[case.question], [*KNOWN, UNKNOWN])
    assert score.accuracy("en") == 0.5
    assert score.accuracy("zh", unknown=True) == 1.0
    assert score.confusions() == [(KNOWN[1].id, KNOWN[0].id, 1)]
    assert "right fact 50.0% of 2" in scoring.summary(score)


def test_a_broken_topic_is_reported_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[[topic]]\nid = "x"\n[topic.en]\nanswer = "y"\nmust = ["y"]\n', encoding="utf-8")
    with pytest.raises(topics.TopicError, match=r"a\.toml:x:en"):
        topics.load_topics(tmp_path)
