"""BERT once more, in numpy, from the original weights: what an engine's vectors are compared with.

Follows the model's own description (Devlin et al., BERT, 2018, and the files beside the weights), nothing of llama.cpp.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bert_models import FIRST, SEPARATOR, UNKNOWN, BertShape

Array = NDArray[np.float32]
Tensor = Callable[[str], tuple[bytes, tuple[int, ...]]]


class BertReference:
    """`tensor`: F32 numbers and shape of a tensor by the name it has in the published file."""

    def __init__(self, shape: BertShape, vocabulary: Sequence[str], tensor: Tensor) -> None:
        self._shape, self._tensor = shape, tensor
        self._numbers: Mapping[str, int] = {piece: number for number, piece in enumerate(vocabulary)}
        self._read: dict[str, Array] = {}

    def tokens(self, text: str) -> list[int]:
        """Lower case, without accents, in the longest pieces of the vocabulary."""
        pieces = [FIRST]
        for word in _words(text):
            pieces += self._pieces(word)
        return [self._numbers[piece] for piece in [*pieces, SEPARATOR]]

    def embed(self, text: str) -> Array:
        """The mean of the last layer, of length 1."""
        states = self._embedded(self.tokens(text))
        for layer in range(self._shape.layers):
            states = self._layer(f"encoder.layer.{layer}", states)
        mean = states.mean(axis=0)
        return mean / np.linalg.norm(mean)

    def _pieces(self, word: str) -> list[str]:
        found, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = (end for end in range(len(word), start, -1) if prefix + word[start:end] in self._numbers)
            end = next(ends, None)
            if end is None:
                return [UNKNOWN]
            found.append(prefix + word[start:end])
            start = end
        return found

    def _embedded(self, tokens: Sequence[int]) -> Array:
        words = self._weights("embeddings.word_embeddings.weight")[tokens]
        places = self._weights("embeddings.position_embeddings.weight")[: len(tokens)]
        kind = self._weights("embeddings.token_type_embeddings.weight")[0]
        return self._norm("embeddings.LayerNorm", words + places + kind)

    def _layer(self, name: str, states: Array) -> Array:
        heads = self._shape.heads
        width = self._shape.width // heads
        query, key, value = (
            self._linear(f"{name}.attention.self.{part}", states).reshape(len(states), heads, width).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(width)
        odds = np.exp(scores - scores.max(axis=-1, keepdims=True))
        seen = (odds / odds.sum(axis=-1, keepdims=True)) @ value
        mixed = seen.transpose(1, 0, 2).reshape(len(states), -1)
        states = self._norm(
            f"{name}.attention.output.LayerNorm", states + self._linear(f"{name}.attention.output.dense", mixed)
        )
        inner = _gelu(self._linear(f"{name}.intermediate.dense", states))
        return self._norm(f"{name}.output.LayerNorm", states + self._linear(f"{name}.output.dense", inner))

    def _linear(self, name: str, states: Array) -> Array:
        return states @ self._weights(f"{name}.weight").T + self._weights(f"{name}.bias")

    def _norm(self, name: str, states: Array) -> Array:
        centred = states - states.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self._shape.epsilon)
        return centred / deviation * self._weights(f"{name}.weight") + self._weights(f"{name}.bias")

    def _weights(self, name: str) -> Array:
        if name not in self._read:
            raw, shape = self._tensor(name)
            self._read[name] = np.frombuffer(raw, dtype="<f4").reshape(shape)
        return self._read[name]


def _gelu(x: Array) -> Array:
    error_function = np.vectorize(math.erf, otypes=[np.float32])
    return 0.5 * x * (1 + error_function(x / math.sqrt(2)))


def _words(text: str) -> list[str]:
    plain = "".join(
        letter for letter in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(letter)
    )
    spaced = "".join(f" {letter} " if _stands_alone(letter) else letter for letter in plain)
    return spaced.split()


def _stands_alone(letter: str) -> bool:
    """Punctuation and symbols of ASCII, and Chinese characters."""
    code = ord(letter)
    symbol = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return symbol or unicodedata.category(letter).startswith("P") or 0x4E00 <= code <= 0x9FFF
