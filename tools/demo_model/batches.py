"""Conversations as token ids, and batches of rows of similar length. No torch: plain lists and numpy arrays."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import tokenizer as tok
from .corpus import MEMORY_TABLE, Conversation, Corpus

IGNORE = -100
Row = tuple[list[int], list[int]]  # token ids, labels


@dataclass(frozen=True)
class Options:
    """How conversations become rows."""

    dropout: float = 0.1  # of BPE merges
    noisy: float = 0.35  # share of questions tokenised with dropout
    cut: float = (
        0.85  # share of conversations whose last answer is cut short: the choice of the answer costs few tokens
    )
    cut_to: tuple[int, int] = (4, 12)  # tokens
    cut_past: float = 0.65  # the same for earlier answers of a conversation, which then end where they are cut
    cut_table_to: tuple[int, int] = (24, 32)  # tokens: the figure has to be inside
    max_tokens: int = 2048
    batch_tokens: int = 6144


class Encoder:
    """Turns messages into ChatML token ids as the engine does it."""

    def __init__(self, path: Path, dropout: float = 0.0) -> None:
        self.tokenizer = tok.load(path)
        self.noisy = tok.load(path, dropout) if dropout else self.tokenizer
        special = {name: self.tokenizer.token_to_id(name) for name in tok.SPECIALS}
        self.pad = special["<|endoftext|>"]
        self.end = special["<|im_end|>"]
        self._heads = {
            role: [special["<|im_start|>"], *self.plain(f"{role}\n")] for role in ("system", "user", "assistant")
        }
        self._tail = [self.end, *self.plain("\n")]
        self.plain = lru_cache(maxsize=4096)(self.plain)  # type: ignore[method-assign]

    def plain(self, text: str) -> tuple[int, ...]:
        """Return the ids of text without special tokens."""
        return tuple(self.tokenizer.encode(text).ids)

    def message(self, role: str, content: str, noisy: bool = False) -> list[int]:
        """Return the ids of one whole message."""
        ids = self.noisy.encode(content).ids if noisy else self.tokenizer.encode(content).ids
        return [*self._heads[role], *ids, *self._tail]

    def prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """Return the ids of a prompt that waits for the assistant."""
        ids: list[int] = []
        for message in messages:
            ids += self.message(message["role"], message["content"])
        return ids + self._heads["assistant"]

    def row(self, talk: Conversation, rng: random.Random, options: Options) -> Row:
        """Return (ids, labels) of a conversation; labels are set on the assistant's tokens only."""
        ids: list[int] = []
        labels: list[int] = []
        if talk.system is not None:
            ids += self.message("system", talk.system)
        labels += [IGNORE] * len(ids)
        for index, exchange in enumerate(talk.exchanges):
            head = self.message("user", exchange.question, rng.random() < options.noisy) + self._heads["assistant"]
            answer, tail = list(self.plain(exchange.answer)), self._tail
            last = index == len(talk.exchanges) - 1
            if rng.random() < (options.cut if last else options.cut_past):
                answer = answer[
                    : rng.randint(*(options.cut_table_to if exchange.topic == MEMORY_TABLE else options.cut_to))
                ]
                tail = [] if last else tail
            else:
                answer, tail = [*answer, self.end], tail[1:]
            ids += [*head, *answer, *tail]
            labels += [IGNORE] * len(head) + answer + [IGNORE] * len(tail)
        return ids[: options.max_tokens], labels[: options.max_tokens]


def bucket(length: int) -> int:
    """Return the padded length of a row: few different shapes keep the matrix kernels cached."""
    step = 16 if length <= 256 else 64 if length <= 512 else 256
    return -(-length // step) * step


def pad(rows: Sequence[Row], filler: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return inputs and next-token labels, each [rows, bucket of the longest]."""
    longest = bucket(max(len(ids) for ids, _ in rows) - 1) + 1
    inputs = np.full((len(rows), longest), filler, dtype=np.int64)
    labels = np.full((len(rows), longest), IGNORE, dtype=np.int64)
    for line, (ids, marks) in enumerate(rows):
        inputs[line, : len(ids)] = ids
        labels[line, : len(marks)] = marks
    return inputs[:, :-1], labels[:, 1:]


def stream(
    corpus: Corpus, encoder: Encoder, options: Options, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield batches without end: rows wait in a bucket of their length until it is full."""
    rng = random.Random(seed + 1)
    waiting: dict[int, list[Row]] = defaultdict(list)
    for talk in corpus.conversations(seed):
        row = encoder.row(talk, rng, options)
        length = bucket(len(row[0]) - 1)
        waiting[length].append(row)
        if len(waiting[length]) >= max(1, options.batch_tokens // length):
            yield pad(waiting.pop(length), encoder.pad)
