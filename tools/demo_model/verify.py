"""Check an exported file against its sources: same token ids and same next token in the engine as in PyTorch.

python -m tools.demo_model.verify --model build/demo_model/model.pt --gguf src/bendi/assets/demo.gguf
"""

from __future__ import annotations

import argparse
import itertools
import random
from pathlib import Path

import torch

from .batches import Encoder
from .corpus import Corpus
from .evaluate import Engine
from .export import load

ODD_STRINGS = (
    "",
    " ",
    "  ",
    "\n",
    "\t\t x",
    "a\r\n\r\nb",
    "I'm you're it's DON'T we'll",
    "3.14159 1,000,000 2026-11-20",
    "x=1;y=[2,3]",
    "def f(x):\n    return {'a': x ** 2}  # comment\n",
    "😀👍🏽 家族👨‍👩‍👧",
    "中文，标点。「引号」《书名》",
    "混合 English 和中文Q4_K_M模型",
    "naïve café Ünïcödé ß",
    "русский текст",
    "日本語のテキスト",
    "한국어",
    "العربية",
    "http://127.0.0.1:8080/v1?x=1&y=%20",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𠀀𠀁",
    "<|im_end|> as text",
    "²³½ ١٢٣ 一二三 Ⅳ",
    "...!!!???。。。",
    "e\u0301 vs é",
    "\u200b\ufeffzero width",
    "a" * 200,
    "的" * 60,
    "   leading and trailing   ",
    "line one\n\n\nline two\n",
    "CamelCaseIdentifier snake_case_name kebab-case",
    "\x00\x01\x7f",
)


def check_tokens(engine: Engine, encoder: Encoder, count: int) -> tuple[int, int]:
    """Return (equal, asked) over the odd strings and `count` strings of the corpus."""
    texts = list(ODD_STRINGS)
    for talk in itertools.islice(Corpus().conversations(99), count):
        texts += [text for e in talk.exchanges for text in (e.question, e.answer)]
    rng = random.Random(5)
    planes = (
        (0x20, 0x7E),
        (0xA0, 0x24F),
        (0x370, 0x5FF),
        (0x2000, 0x2BFF),
        (0x3000, 0x30FF),
        (0x4E00, 0x9FFF),
        (0x1F300, 0x1FAFF),
    )
    for _ in range(count):
        texts.append("".join(chr(rng.randint(*rng.choice(planes))) for _ in range(rng.randint(1, 30))))
    equal = 0
    for text in texts:
        ours = [] if not text else _plain(encoder, text)
        theirs = engine.token_ids(text)
        equal += ours == theirs
        if ours != theirs:
            print(f"  differs: {text!r}\n    {ours}\n    {theirs}")
    return equal, len(texts)


def _plain(encoder: Encoder, text: str) -> list[int]:
    return list(encoder.tokenizer.encode(text).ids)


def check_answers(engine: Engine, encoder: Encoder, model_path: Path, count: int) -> tuple[int, int]:
    """Return (equal, asked): answers of the engine that are PyTorch's greedy answer, token for token."""
    model = load(model_path)
    talks = [t for t in itertools.islice(Corpus().conversations(7), 5 * count) if len(t.exchanges) <= 2][:count]
    equal = 0
    for talk in talks:
        messages = talk.messages()[:-1]
        ids = encoder.prompt(messages)
        start = len(ids)
        while len(ids) - start < 200:
            with torch.no_grad():
                ids.append(int(model.logits(model.hidden(torch.tensor([ids]))[0, -1]).argmax()))
            if ids[-1] == encoder.end:
                break
        ours = encoder.tokenizer.decode(ids[start:-1])
        equal += ours == engine.answer(messages)
    return equal, len(talks)


def main() -> None:
    """Print both checks."""
    parser = argparse.ArgumentParser(description="Compare the exported file with the tokenizer and the checkpoint.")
    parser.add_argument("--model", type=Path, default=Path("build/demo_model/model.pt"))
    parser.add_argument("--tokenizer", type=Path, default=Path("build/demo_model/tokenizer.json"))
    parser.add_argument("--gguf", type=Path, default=Path("src/bendi/assets/demo.gguf"))
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(2)
    engine, encoder = Engine(options.gguf), Encoder(options.tokenizer)
    print("token ids equal: {} of {}".format(*check_tokens(engine, encoder, 5 * options.count)))
    print("greedy answers equal: {} of {}".format(*check_answers(engine, encoder, options.model, options.count)))


if __name__ == "__main__":
    main()
