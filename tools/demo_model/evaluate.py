"""Ask the exported file in the real engine and print how often it states the right fact.

python -m tools.demo_model.evaluate --gguf src/bendi/assets/demo.gguf --cases tests/demo/heldout.toml
python -m tools.demo_model.evaluate --gguf x.gguf --internal 2      # paraphrases kept back by train --holdout 2
python -m tools.demo_model.evaluate --gguf x.gguf --table           # every figure of the memory table
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import xllamacpp

from . import memory_table as table
from .corpus import MEMORY_TABLE, Corpus
from .scoring import Case, Score, judge, read_cases, summary
from .topics import LANGUAGES, load_lexicon, load_topics, load_unknown

SYSTEM = {"en": "You are a helpful assistant.", "zh": "你是一个有用的助手。"}
ALL_TOPICS = (*load_topics(), load_unknown())


class Engine:
    """The engine of the wheel with one model, asked in-process."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel = 2048, 1
        params.cpuparams.n_threads = threads
        params.hostnames, params.port = ["127.0.0.1"], 0
        params.fit_params, params.cache_ram_mib, params.warmup = False, 0, False
        params.verbosity = 0
        self.server = xllamacpp.Server(params)
        self.address = str(self.server.listening_address)
        self.tokens, self.seconds = 0, 0.0

    def answer(self, messages: list[dict[str, str]], temperature: float = 0.0, seed: int = 1) -> str:
        """Return the text the model answers with."""
        request = {"messages": messages, "temperature": temperature, "seed": seed, "max_tokens": 400}
        began = time.monotonic()
        reply = self.server.handle_chat_completions(request)
        self.seconds += time.monotonic() - began
        reply = json.loads(reply) if isinstance(reply, str) else reply
        self.tokens += reply["usage"]["completion_tokens"]
        return str(reply["choices"][0]["message"]["content"])

    def token_ids(self, text: str) -> list[int]:
        """Return the engine's token ids of a text."""
        body = json.dumps({"content": text, "add_special": False, "parse_special": False}).encode()
        request = urllib.request.Request(self.address + "/tokenize", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return [int(token) for token in json.load(reply)["tokens"]]


def asker(engine: Engine, style: str, temperature: float) -> Callable[[Case], str]:
    """Return the function that asks a case: "plain", with a "system" prompt, or as the "third" turn."""
    rng = random.Random(7)
    history = [
        (q, t.entries[lang].answer) for t in ALL_TOPICS for lang in LANGUAGES for q in t.entries[lang].questions[:2]
    ]

    def ask(case: Case) -> str:
        messages: list[dict[str, str]] = []
        if style != "plain":
            messages.append({"role": "system", "content": SYSTEM[case.lang]})
        if style == "third":
            for question, answer in rng.sample(history, 2):
                messages.append({"role": "user", "content": question})
                messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": case.question})
        return engine.answer(messages, temperature)

    return ask


def internal_cases(count: int) -> list[Case]:
    """Return the paraphrases that `train --holdout count` does not see."""
    must = {(topic.id, lang): topic.entries[lang].must for topic in ALL_TOPICS for lang in LANGUAGES}
    return [Case(e.topic, e.lang, e.question, must[e.topic, e.lang]) for e in Corpus(count).held]


def table_cases() -> list[Case]:
    """Return one question for every size, quantization and language of the memory table."""
    rng, questions = random.Random(3), load_lexicon("table_questions")
    return [
        Case(
            MEMORY_TABLE,
            lang,
            rng.choice(questions[lang]["forward"]).format(s=f"{size}B", q=quant),
            table.must(size, quant),
        )
        for size, quant, lang in itertools.product(table.SIZES_B, table.BITS_PER_WEIGHT, LANGUAGES)
    ]


def show(score: Score, wrong: int) -> None:
    """Print the figures, the confusions and some wrong answers."""
    print(summary(score))
    for asked, guess, count in score.confusions()[:12]:
        print(f"  {asked} answered as {guess}: {count}")
    for verdict in [v for v in score.verdicts if not v.correct][:wrong]:
        print(f"  ! {verdict.case.topic} [{verdict.case.lang}] {verdict.case.question} -> {verdict.answer[:90]!r}")


def main() -> None:
    """Score a file."""
    parser = argparse.ArgumentParser(description="Score the demo model in the real engine.")
    parser.add_argument("--gguf", type=Path, default=Path("src/bendi/assets/demo.gguf"))
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--internal", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--styles", default="plain,system,third")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--wrong", type=int, default=0, help="how many wrong answers to print")
    options = parser.parse_args()
    engine = Engine(options.gguf)
    cases = read_cases(options.cases, ALL_TOPICS) if options.cases else []
    cases += internal_cases(options.internal) if options.internal else []
    cases += table_cases() if options.table else []
    for style in options.styles.split(","):
        print(f"-- {style}, temperature {options.temperature:g}, {len(cases)} cases")
        show(judge(cases, asker(engine, style, options.temperature), ALL_TOPICS), options.wrong)
    print(f"{engine.tokens / max(engine.seconds, 1e-9):.0f} answer tokens per second, prompts included")


if __name__ == "__main__":
    main()
