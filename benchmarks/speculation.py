"""What guessing from n-grams gains: the same answers with and without it, in pairs, at temperature 0.

    python benchmarks/speculation.py [--model demo] [--repeats 5] [--tokens 96]

A trained model is needed, since random ones never repeat anything. Three kinds of work: questions that are new, where
nothing can be guessed; an answer that was given before in the same conversation; and a text that is continued where it
stands in the prompt already, as in edits. Printed are medians in tokens per second, their ratio, how many of the
guessed tokens were right, and how many texts are equal: tokens that are checked together are rounded differently from
single ones, so that two words that are equally likely can change places.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bendi.engines import Engine, LoadRequest, open_engine
from bendi.messages import Chunk, GenerateRequest, Message, Sampling
from bendi.settings import load_settings
from bendi.store import Store

HANDBOOK = Path(__file__).resolve().parent.parent / "docs" / "handbook" / "en" / "index.md"
QUESTIONS = (
    "What is quantization?",
    "What is a KV cache?",
    "Why does memory bandwidth decide the speed?",
    "What is a mixture of experts?",
)
_SHOWN_CHARACTERS = 300
"""Of a text that is to be repeated, the part that begins again."""


@dataclass(frozen=True)
class Measured:
    text: str
    tg_tok_s: float
    guessed_tok: int
    accepted_tok: int


def ask(engine: Engine, request: GenerateRequest) -> Measured:
    last = Chunk()
    text = ""
    for last in engine.generate(request):
        text += last.text
    timings = last.timings
    assert timings and timings.tg_tok_s
    return Measured(text, timings.tg_tok_s, timings.guessed_tok or 0, timings.accepted_tok or 0)


def requests(engine: Engine, most_tok: int) -> dict[str, list[GenerateRequest]]:
    sampling = Sampling(temperature=0.0)

    def chat(*turns: Message) -> GenerateRequest:
        return GenerateRequest(messages=turns, max_tokens=most_tok, sampling=sampling)

    first = {question: Message("user", question) for question in QUESTIONS}
    answers = {question: ask(engine, chat(message)).text for question, message in first.items()}
    passages = HANDBOOK.read_text("utf-8").split("\n\n")
    longest = sorted((part for part in passages if not part.startswith("#")), key=len)[-len(QUESTIONS) :]
    return {
        "new questions": [chat(message) for message in first.values()],
        "asked again": [
            chat(message, Message("assistant", answers[question]), message) for question, message in first.items()
        ],
        "continued text": [
            GenerateRequest(prompt=f"{text}\n\n{text[:_SHOWN_CHARACTERS]}", max_tokens=most_tok, sampling=sampling)
            for text in longest
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=96)
    options = parser.parse_args()
    settings = load_settings()
    path = Store(settings).resolve(options.model).path
    with (
        closing(open_engine(LoadRequest(path), settings)) as plain,
        closing(open_engine(LoadRequest(path, speculate=True), settings)) as guessing,
    ):
        print(f"{options.model}, {plain.info.build}")
        for kind, asked in requests(plain, options.tokens).items():
            ratios, guessed_tok, accepted_tok, same = [], 0, 0, 0
            for request in asked:
                for _repeat in range(options.repeats):
                    usual, faster = ask(plain, request), ask(guessing, request)
                    ratios.append(faster.tg_tok_s / usual.tg_tok_s)
                    guessed_tok += faster.guessed_tok
                    accepted_tok += faster.accepted_tok
                    same += usual.text == faster.text
            accepted = (
                f"{accepted_tok / guessed_tok:.0%} of {guessed_tok} guesses right" if guessed_tok else "no guesses"
            )
            print(
                f"{kind:16s} {statistics.median(ratios):.2f}x (from {min(ratios):.2f} to {max(ratios):.2f}),"
                f" {accepted}, {same} of {len(ratios)} texts equal",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
