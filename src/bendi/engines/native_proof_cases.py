"""What a native build is tried with: small random models of every type of weights, and how each is loaded and asked.

Kernels differ by type, by length of rows, by the number of tokens at once (one, a few, odd numbers, whole tiles) and by
how many threads share the work; a defect of a compiler or CPU may hit any single one of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from bendi.engines.probes import Config, dense_config, expert_config

TYPES = (
    "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS", "MXFP4",
    "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_S", "IQ1_M", "F16", "BF16", "F32",
)  # fmt: skip
"""Every type of which files are offered."""
QUICK_TYPES = ("Q8_0", "Q4_K", "Q6_K", "Q4_0", "F16")
VOCABULARY = 517
"""Not a multiple of any tile."""
PROMPTS_TOK = (1, 2, 7, 33, 512)
FORCED_TOK = 2
"""Tokens that follow each prompt one by one: as in an answer, but the same for both engines."""
CONTEXT_TOK = 1024
_FIRST_WORD = 300
_HEADS = (4, 2, 64)
_KINDS: dict[str, Config] = {
    # Rows of 256, 768 and 2048 weights.
    "dense": dense_config(2, 768, 2048, _HEADS, VOCABULARY),
    "experts": expert_config(2, 256, (8, 2, 512), _HEADS) | {"vocab_size": VOCABULARY},
    # Attention: heads of other lengths, other numbers of them for each key; windows; sinks.
    "heads of 128": dense_config(2, 512, 512, (8, 8, 128), VOCABULARY),
    "heads of 256": dense_config(2, 512, 512, (4, 1, 256), VOCABULARY),
    "heads of 80": dense_config(2, 512, 512, (14, 2, 80), VOCABULARY),
    "windows": dense_config(6, 512, 512, (8, 2, 128), VOCABULARY) | {"model_type": "gemma3_text", "sliding_window": 64},
    "sinks": dense_config(2, 512, 512, (8, 2, 64), VOCABULARY)
    | {
        "model_type": "gpt_oss",
        "tie_word_embeddings": False,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 128,
    },
}
_FOR_ALL_TYPES, _WITH_EXPERTS = ("dense", "experts"), ("experts", "sinks")
_THREADED_TYPES = ("Q8_0", "Q4_K", "Q4_0", "F16")
_KV_TYPES = ("q8_0", "q4_0", "bf16")


@dataclass(frozen=True)
class Case:
    """One model and one way to load it. `threads`: 0 for what is usual here."""

    kind: str
    type_name: str
    threads: int = 0
    kv_type: str = "f16"
    flash_attention: bool | None = None

    @property
    def name(self) -> str:
        parts = [f"{self.kind} {self.type_name}"]
        parts += [f"{self.threads} threads"] if self.threads else []
        parts += [f"KV {self.kv_type}"] if self.kv_type != "f16" else []
        parts += [] if self.flash_attention is None else [f"flash attention {'on' if self.flash_attention else 'off'}"]
        return ", ".join(parts)

    @property
    def attempts(self) -> int:
        """Which experts are taken can hang on the last digit: what differs once is tried again with other words."""
        return 2 if self.kind in _WITH_EXPERTS else 1

    @property
    def spared(self) -> int:
        """Answers that may differ for the same reason: fewer than belong to one prompt, so that a defect of one number
        of tokens is still seen."""
        return FORCED_TOK if self.kind in _WITH_EXPERTS else 0

    @property
    def windowed(self) -> bool:
        """The engine forgets what lies outside of windows, and may compute some of it again."""
        return "sliding_window" in self.config

    @property
    def config(self) -> Config:
        return _KINDS[self.kind]


def cases(cores: int, *, quick: bool = False) -> list[Case]:
    """All cases for a machine where `cores` threads are usual. `quick`: the most used types, once each."""
    types = QUICK_TYPES if quick else TYPES
    found = [Case(kind, type_name) for type_name in types for kind in _FOR_ALL_TYPES]
    if quick:
        return found
    found += [Case(kind, "Q8_0") for kind in _KINDS if kind not in _FOR_ALL_TYPES]
    found += [Case("dense", "Q8_0", flash_attention=on) for on in (False, True)]
    found += [Case("dense", "Q8_0", kv_type=kv_type) for kv_type in _KV_TYPES]
    counts = sorted({1, 2, 3, cores // 2, cores - 1} & set(range(1, cores)))
    return found + [
        Case(kind, type_name, threads=count)
        for type_name in _THREADED_TYPES
        for count in counts
        for kind in _FOR_ALL_TYPES
    ]


def prompts(series: int = 0) -> Iterator[tuple[tuple[int, ...], int]]:
    """Prompts in their order, and how many of their tokens are new to an engine that remembers the one before.

    `series`: each has other words.
    """
    source = random.Random(VOCABULARY + series)
    starts = [*PROMPTS_TOK]
    # Different first words: nothing of one prompt is found in the cache for the next.
    firsts = source.sample(range(_FIRST_WORD, VOCABULARY), len(starts))
    for first, length in zip(firsts, starts, strict=True):
        words = (first, *(source.randrange(_FIRST_WORD, VOCABULARY) for _ in range(length - 1 + FORCED_TOK)))
        yield words[:length], length
        for shorter, longer in pairwise(range(length, length + FORCED_TOK + 1)):
            yield words[:longer], longer - shorter
