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
    load_lexicon,
    load_topics,
    load_unknown,
    normalise,
    split_holdout,
)

MEMORY_TABLE = "memory_table"
FORWARD = {
    "en": (
        "How much memory does a {s} model at {q} need?", "how much ram for {s} {q}", "{s} {q} size", "{s} at {q}?",
        "How big is a {s} model in {q}?", "how many GB is {s} {q}", "size of {s} {q} weights", "{q} {s} memory",
        "memory needed for a {s} model with {q}", "how much vram do I need for {s} at {q}", "{s} model, {q}, how many gigabytes?",
        "Will need how much RAM: {s} in {q}", "what is the file size of a {s} model at {q}", "RAM requirement of {s} {q}",
        "how large is {s} with {q} quantization", "how much space does a {s} {q} gguf take", "{s} {q} GB",
        "If I load a {s} model at {q}, how much memory goes away?", "how heavy is a {s} model quantized to {q}",
        "how many gigabytes for the weights of a {s} model in {q}", "vram for {q} of a {s} model", "{s} parameters at {q}, memory?",
        "how much memory would {s} take at {q}", "what does a {s} model weigh at {q}", "disk space of {s} {q}",
    ),
    "zh": (
        "{s} 模型用 {q} 需要多少内存？", "{s} {q} 多大", "{s} 的 {q} 要多少显存", "{s} 模型 {q} 占多少 GB", "{q} 的 {s} 模型要多大内存",
        "{s} {q} 内存", "跑 {s} 的 {q} 要多少内存？", "{s} 模型量化到 {q} 有多大", "{s} {q} 需要几个G", "{s} {q} 显存",
        "下载 {s} 的 {q} 文件多大？", "{s} 参数 {q} 量化占多少", "{s} 用 {q} 量化后权重多大", "{q} {s} 多少G",
        "加载 {s} {q} 要吃多少内存", "{s} 模型 {q} 的文件大小", "运行 {q} 量化的 {s} 模型需要多少显存？", "{s} 在 {q} 下占用多少",
        "{s}模型{q}要多少GB", "{s} {q} 吃多少内存", "{q} 版的 {s} 要占多大地方",
    ),
}  # fmt: skip
FORWARD_DEFAULT = {
    "en": (
        "How much memory does a {s} model need?", "how much ram for a {s} model", "{s} model size in GB", "{s} ram",
        "how many GB does {s} need", "how much vram for {s}", "memory of a {s} model", "how large is a {s} model",
        "what memory do I need to run {s}", "RAM needed for {s}", "how big is a {s} model",
    ),
    "zh": (
        "{s} 模型需要多少内存？", "{s} 要多少显存", "跑 {s} 要多大内存", "{s} 模型多大", "{s} 内存需求", "{s} 模型占多少 GB",
        "{s} 需要几个G内存", "运行 {s} 模型要多少内存", "{s} 吃多少内存", "{s}模型要多少显存？",
    ),
}  # fmt: skip
FITS = {
    "en": (
        "What fits in {m}?", "what fits into {m} of memory", "which model size fits in {m}", "largest model for {m}",
        "{m} of VRAM, which model size?", "How large a model can I load with {m}?", "{m} memory what fits",
        "biggest model that fits in {m}", "I have {m}, how large a model can I use?", "what size of model for {m} of memory",
        "max model size {m}", "how many parameters fit in {m}", "models for {m} VRAM", "{m} gpu which models fit",
    ),
    "zh": (
        "{m} 能放下多大的模型？", "{m} 内存能放多大的模型", "{m} 显存能跑多大模型", "{m} 最大能跑多大的模型", "{m} 放得下什么模型",
        "我有 {m}，能用多大的模型？", "{m} 适合多大的模型", "{m} 显卡能跑多少参数", "{m} 可以装下多少 B 的模型", "{m} 最大模型",
        "{m} 显存选多大的模型",
    ),
}  # fmt: skip
OTHER_SIZES = ("5", "6", "10", "11", "15", "16", "18", "22", "26", "33", "36", "40", "45", "50", "80", "90", "100", "180", "300")
# Without a quantization "how much memory does a {} model need" is a table question; with an unlisted size the rule is told.
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

    unknown: float = 0.17
    table: float = 0.14
    fits: float = 0.02
    system: float = 0.4
    turns: tuple[float, ...] = (0.76, 0.15, 0.06, 0.03)
    long: float = 0.004
    switch_language: float = 0.15
    joined: float = 0.04


class Corpus:
    """Endless conversations. `holdout` questions per topic and language are kept back and listed in `held`."""

    def __init__(self, holdout: int = 0, mix: Mix | None = None, augmenter: Augmenter | None = None) -> None:
        self.mix = mix or Mix()
        self.augmenter = augmenter or Augmenter()
        self.systems = load_lexicon("systems")
        self.topics = load_topics()
        self.unknown = load_unknown()
        self.questions: dict[tuple[str, str], tuple[str, ...]] = {}
        self.held: list[Exchange] = []
        for topic in (*self.topics, self.unknown):
            for lang in LANGUAGES:
                entry = topic.entries[lang]
                count = holdout if topic.id != UNKNOWN else holdout * 15
                kept, held = split_holdout(entry.questions, count)
                self.questions[topic.id, lang] = kept
                self.held += [Exchange(topic.id, lang, question, entry.answer) for question in held]
        known = {topic.id for topic in self.topics}
        for lang, more in load_lexicon(PARAPHRASES).items():
            if not known >= more.keys():
                raise TopicError(f"paraphrases of unknown topics: {sorted(more.keys() - known)}")
            for name, extra in more.items():
                held_back = {normalise(e.question) for e in self.held}
                fresh = [question for question in extra if normalise(question) not in held_back]
                self.questions[name, lang] = tuple(dict.fromkeys((*self.questions[name, lang], *fresh)))
        self.negatives = Negatives({lang: self.questions[UNKNOWN, lang] for lang in LANGUAGES})
        self._answers = {(t.id, lang): t.entries[lang].answer for t in (*self.topics, self.unknown) for lang in LANGUAGES}

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
            quant, question = table.DEFAULT_QUANT, rng.choice(FORWARD_DEFAULT[lang])
            if rng.random() < 0.25:
                question = question.replace("{s}", _size(rng.choice(OTHER_SIZES), lang, rng))
                return Exchange(RULE_TOPIC, lang, self._soft(question, rng), self._answers[RULE_TOPIC, lang])
        else:
            question = rng.choice(FORWARD[lang])
        question = question.replace("{q}", spelled).replace("{s}", _size(size, lang, rng))
        return Exchange(MEMORY_TABLE, lang, self._soft(question, rng), table.answer(size, quant, lang))

    def fits_exchange(self, lang: str, rng: random.Random) -> Exchange:
        """Return a question for the model size that a memory size holds."""
        gigabytes = rng.choice(tuple(table.FITS))
        written = rng.choice((f"{gigabytes} GB", f"{gigabytes}GB", f"{gigabytes}G", f"{gigabytes}gb", f"{gigabytes} gb"))
        question = rng.choice(FITS[lang]).replace("{m}", written)
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
