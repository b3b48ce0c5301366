"""The tokenizer: byte-level BPE with the pre-tokenizer that GGUF calls "qwen2"; digits and Chinese stay fine-grained.

Needs the `tokenizers` package. Trained on a sample of the corpus; merges that would glue more than two Chinese
characters together are dropped, so that an unseen phrase is cut the same way as a known one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .corpus import Corpus

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PRE_NAME = "qwen2"
PRE_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_HAN = re.compile(r"[\u3400-\u9fff]")


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def build(vocab: dict[str, int], merges: list[tuple[str, str]], dropout: float | None = None) -> Tokenizer:
    """Return a tokenizer of the given vocabulary; `dropout` cuts words at random (for training only)."""
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, dropout=dropout))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.encode_special_tokens = True  # "<|im_end|>" typed by a user is text
    return tokenizer


def train(texts: list[str], size: int, han_limit: int = 2) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return (vocabulary, merges) of at most `size` tokens, a multiple of 32 with the special tokens last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=size * 2, min_frequency=3, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(texts, trainer)
    raw = json.loads(tokenizer.to_str())["model"]
    decoder = decoders.ByteLevel()
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    known = set(pieces)
    room = size - len(SPECIALS) - len(pieces)
    for left, right in raw["merges"]:
        if len(merges) == room:
            break
        if left in known and right in known and len(_HAN.findall(decoder.decode([left + right]))) <= han_limit:
            merges.append((left, right))
            known.add(left + right)
            pieces.append(left + right)
    spare = (len(pieces) + len(SPECIALS)) % 32
    if spare:
        merges, pieces = merges[:-spare], pieces[:-spare]
    vocab = {piece: index for index, piece in enumerate([*pieces, *SPECIALS])}
    return vocab, merges


def sample_texts(seed: int, count: int) -> list[str]:
    """Return the text of `count` conversations: questions as they come, each answer and system prompt a few times."""
    corpus = Corpus()
    texts: list[str] = []
    for conversation in itertools.islice(corpus.conversations(seed), count):
        texts += [exchange.question for exchange in conversation.exchanges]
        if conversation.system and len(texts) % 4 == 0:
            texts.append(conversation.system)
    for topic in (*corpus.topics, corpus.unknown):
        texts += [entry.answer for entry in topic.entries.values()] * 12
    texts += [answer for held in corpus.questions.values() for answer in held]
    return texts


def save(path: Path, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Write the vocabulary and merges as JSON."""
    path.write_text(json.dumps({"vocab": vocab, "merges": merges}, ensure_ascii=False), encoding="utf-8")


def read(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the vocabulary and merges that `save` wrote."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    return raw["vocab"], [(left, right) for left, right in raw["merges"]]


def load(path: Path, dropout: float | None = None) -> Tokenizer:
    """Return the tokenizer of what `save` wrote."""
    return build(*read(path), dropout=dropout)


def main() -> None:
    """Train the tokenizer and write it."""
    parser = argparse.ArgumentParser(description="Train the tokenizer of the demo model.")
    parser.add_argument("--out", type=Path, default=Path("build/demo_model/tokenizer.json"))
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--count", type=int, default=40000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    vocab, merges = train(sample_texts(options.seed, options.count), options.size)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save(options.out, vocab, merges)
    print(f"{len(vocab)} tokens, {len(merges)} merges -> {options.out}")


if __name__ == "__main__":
    main()
