"""Conversations to train on, drawn from the topics: what is asked, after what, and what has to be answered.

    python -m tools.demo_model.corpus --count 20          # print a sample

The answer always belongs to the last question, in the language of that question, whatever stood before it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass

from . import memory_table as table
from .augment import Augmenter
from .negatives import Negatives
from .topics import (
    LANGUAGES,
    PARAPHRASES,
    UNKNOWN,
    TopicError,
    language_of,
    load_lexicon,
    load_topics,
    load_unknown,
    normalise,
    split_holdout,
)

MEMORY_TABLE = "memory_table"
OTHER_SIZES = (
    "5",
    "6",
    "10",
    "11",
    "15",
    "16",
    "18",
    "22",
    "26",
    "33",
    "36",
    "40",
    "45",
    "50",
    "80",
    "90",
    "100",
    "180",
    "300",
)
# A size that is not in the table is answered with the rule instead.
RULE_TOPIC = "memory_estimate"


@dataclass(frozen=True)
class Exchange:
    """One question with the answer it has to get."""

    topic: str
    lang: str
    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """A system prompt (or none) and one or more exchanges."""

    system: str | None
    exchanges: tuple[Exchange, ...]

    def messages(self) -> list[dict[str, str]]:
        """Return the conversation in the form of a chat completion request."""
        rows = [{"role": "system", "content": self.system}] if self.system is not None else []
        for exchange in self.exchanges:
            rows.append({"role": "user", "content": exchange.question})
            rows.append({"role": "assistant", "content": exchange.answer})
        return rows


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of exchanges and conversations (probabilities)."""

    unknown: float = 0.19
    table: float = 0.14
    fits: float = 0.02
    system: float = 0.22
    turns: tuple[float, ...] = (0.84, 0.09, 0.05, 0.02)
    long: float = 0.002
    switch_language: float = 0.15
    joined: float = 0.04


class Corpus:
    """Endless conversations. `holdout` questions per topic and language are kept back and listed in `held`."""

    def __init__(self, holdout: int = 0, mix: Mix | None = None, augmenter: Augmenter | None = None) -> None:
        self.mix = mix or Mix()
        self.augmenter = augmenter or Augmenter()
        self.systems = load_lexicon("systems")
        self.table = load_lexicon("table_questions")
        self.topics = load_topics()
        self.unknown = load_unknown()
        self.questions: dict[tuple[str, str], tuple[str, ...]] = {}
        self.held: list[Exchange] = []
        for topic in (*self.topics, self.unknown):
            for lang in LANGUAGES:
                entry = topic.entries[lang]
                count = holdout if topic.id != UNKNOWN else holdout * 15
                kept, held = split_holdout(tuple(q for q in entry.questions if language_of(q) == lang), count)
                self.questions[topic.id, lang] = kept
                self.held += [Exchange(topic.id, lang, question, entry.answer) for question in held]
        known = {topic.id for topic in self.topics}
        for lang, more in load_lexicon(PARAPHRASES).items():
            if not known >= more.keys():
                raise TopicError(f"paraphrases of unknown topics: {sorted(more.keys() - known)}")
            for name, extra in more.items():
                held_back = {normalise(e.question) for e in self.held}
                fresh = [q for q in extra if normalise(q) not in held_back and language_of(q) == lang]
                self.questions[name, lang] = tuple(dict.fromkeys((*self.questions[name, lang], *fresh)))
        self.negatives = Negatives({lang: self.questions[UNKNOWN, lang] for lang in LANGUAGES})
        self._answers = {
            (t.id, lang): t.entries[lang].answer for t in (*self.topics, self.unknown) for lang in LANGUAGES
        }

    def exchange(self, lang: str, rng: random.Random) -> Exchange:
        """Return one question in `lang`, rewritten, with its answer."""
        kind = rng.random()
        if kind < self.mix.unknown:
            question, strength = self.negatives.draw(lang, rng)
            question = self.augmenter.rewrite(question, rng, strength, in_scope=False)
            return Exchange(UNKNOWN, lang, question, self._answers[UNKNOWN, lang])
        if kind < self.mix.unknown + self.mix.table:
            return self.table_exchange(lang, rng)
        if kind < self.mix.unknown + self.mix.table + self.mix.fits:
            return self.fits_exchange(lang, rng)
        topic = rng.choice(self.topics).id
        question = rng.choice(self.questions[topic, lang])
        if rng.random() < self.mix.joined:
            question = f"{question} {rng.choice(self.questions[topic, lang])}"
        return Exchange(topic, lang, self.augmenter.rewrite(question, rng), self._answers[topic, lang])

    def table_exchange(self, lang: str, rng: random.Random) -> Exchange:
        """Return a question for the memory of one size at one quantization."""
        size, quant = rng.choice(table.SIZES_B), rng.choice(tuple(table.BITS_PER_WEIGHT))
        spellings = table.SPELLINGS[quant] + (table.SPELLINGS_ZH[quant] if lang == "zh" else ())
        spelled = quant if rng.random() < 0.5 else rng.choice(spellings)
        if rng.random() < 0.1:
            quant, question = table.DEFAULT_QUANT, rng.choice(self.table[lang]["default"])
            if rng.random() < 0.25:
                question = question.replace("{s}", _size(rng.choice(OTHER_SIZES), lang, rng))
                return Exchange(RULE_TOPIC, lang, self._soft(question, rng), self._answers[RULE_TOPIC, lang])
        else:
            question = rng.choice(self.table[lang]["forward"])
        question = question.replace("{q}", spelled).replace("{s}", _size(size, lang, rng))
        return Exchange(MEMORY_TABLE, lang, self._soft(question, rng), table.answer(size, quant, lang))

    def fits_exchange(self, lang: str, rng: random.Random) -> Exchange:
        """Return a question for the model size that a memory size holds."""
        gigabytes = rng.choice(tuple(table.FITS))
        written = rng.choice(
            (f"{gigabytes} GB", f"{gigabytes}GB", f"{gigabytes}G", f"{gigabytes}gb", f"{gigabytes} gb")
        )
        question = rng.choice(self.table[lang]["fits"]).replace("{m}", written)
        return Exchange("memory_fits", lang, self._soft(question, rng), table.fits_answer(gigabytes, lang))

    def _soft(self, question: str, rng: random.Random) -> str:
        return self.augmenter.rewrite(question, rng, 0.5) if rng.random() < 0.6 else question

    def system_prompt(self, rng: random.Random) -> str:
        """Return a system prompt: one of the list, some sentences, or both."""
        texts = self.systems[rng.choice(LANGUAGES)]
        prompt = rng.choice(texts["prompts"])
        extra = rng.sample(texts["sentences"], rng.choice((0, 0, 1, 2, 4)))
        return " ".join([prompt, *extra])

    def conversation(self, rng: random.Random) -> Conversation:
        """Return a whole conversation."""
        mix = self.mix
        turns = rng.choices(range(1, len(mix.turns) + 1), mix.turns)[0]
        if rng.random() < mix.long:
            turns = rng.randint(6, 16)
        system = self.system_prompt(rng) if rng.random() < mix.system else None
        lang = rng.choice(LANGUAGES)
        exchanges = []
        for _ in range(turns):
            exchanges.append(self.exchange(lang, rng))
            if rng.random() < mix.switch_language:
                lang = rng.choice(LANGUAGES)
        return Conversation(system, tuple(exchanges))

    def conversations(self, seed: int) -> Iterator[Conversation]:
        """Yield conversations without end; the same seed yields the same ones."""
        rng = random.Random(seed)
        while True:
            yield self.conversation(rng)


def _size(size: str, lang: str, rng: random.Random) -> str:
    forms = (f"{size}B", f"{size}b", f"{size} B", f"{size} billion" if lang == "en" else f"{size}B", f"{size}B")
    return rng.choice(forms)


def main() -> None:
    """Print a sample of the corpus."""
    parser = argparse.ArgumentParser(description="Print sample conversations of the training corpus.")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    stream = Corpus().conversations(options.seed)
    for _ in range(options.count):
        for message in next(stream).messages():
            print(f"{message['role']:>9}: {message['content'][:150]}")
        print()


if __name__ == "__main__":
    main()
