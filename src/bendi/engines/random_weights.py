"""Models of real shapes with random weights: they say nothing, and are as fast as the real ones.

Speed depends on shapes and types, not on what the weights are; so a model of the right shape can be measured before
anybody downloads it. Scales of the blocks are kept small, so that no computation ends in infinity. Where the scales lie
in a block: llama.cpp `ggml/src/ggml-common.h`.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path

from bendi.formats import TENSOR_TYPES_BY_NAME, TensorInfo
from bendi.formats.blueprint import Blueprint, Value
from bendi.formats.gguf_writer import Vocabulary, write_gguf

_POOL_BLOCKS = 2048
_WRITE_BYTES = 1 << 22


@dataclass(frozen=True)
class _Scales:
    """Where the half-precision scales of a block are, and how large they must be for weights of 1."""

    offsets: tuple[int, ...]
    size: float


# Sizes: what one unit of the scale makes of random contents (root mean square).
_SCALES: Mapping[str, _Scales] = {
    "Q4_0": _Scales((0,), 4.6),
    "Q4_1": _Scales((0, 2), 8.8),
    "Q5_0": _Scales((0,), 9.2),
    "Q5_1": _Scales((0, 2), 18.0),
    "Q8_0": _Scales((0,), 74.0),
    "Q2_K": _Scales((80, 82), 19.0),
    "Q3_K": _Scales((108,), 42.0),
    "Q4_K": _Scales((0, 2), 320.0),
    "Q5_K": _Scales((0, 2), 650.0),
    "Q6_K": _Scales((208,), 1370.0),
    "IQ4_NL": _Scales((0,), 70.0),
    "IQ4_XS": _Scales((0,), 1300.0),
    "IQ2_XXS": _Scales((0,), 50.0),
    "IQ2_XS": _Scales((0,), 50.0),
    "IQ2_S": _Scales((0,), 50.0),
    "IQ3_XXS": _Scales((0,), 120.0),
    "IQ3_S": _Scales((0,), 120.0),
    "IQ1_S": _Scales((0,), 9.0),
    "TQ1_0": _Scales((52,), 0.8),
    "TQ2_0": _Scales((64,), 1.3),
    "Q1_0": _Scales((0,), 1.0),
    "Q2_0": _Scales((0,), 2.0),
}
_E8M0_OF_ONE, _UE4M3_OF_ONE = 127, 0x38
MEASURABLE_TYPES = frozenset({*_SCALES, "F32", "F16", "BF16", "MXFP4", "NVFP4", "IQ1_M"})
"""Types of which random blocks can be made."""


def write_random_model(
    path: Path, blueprint: Blueprint, types: Sequence[str], metadata: Mapping[str, Value] | None = None
) -> Path:
    """Writes `blueprint` with random weights to `path`, which must not exist yet. `types`: of each tensor. `metadata`:
    instead of the usual vocabulary.

    Raises OSError, after removing what was written, and KeyError for a type that is not in MEASURABLE_TYPES.
    """
    whole = blueprint.full_metadata() | dict(metadata or Vocabulary(blueprint.vocab).metadata())
    return write_gguf(path, whole, blueprint.header(types).tensors, _contents)


def _contents(tensor: TensorInfo) -> Iterator[bytes]:
    if len(tensor.shape) == 1:
        yield struct.pack("<f", 1.0) * tensor.elements
        return
    pool = _pool(tensor.type.name, 1 / sqrt(tensor.shape[0]))
    piece = pool * max(_WRITE_BYTES // len(pool), 1)
    left_bytes = tensor.size_bytes
    while left_bytes > len(piece):
        yield piece
        left_bytes -= len(piece)
    yield piece[:left_bytes]


@cache
def _pool(type_name: str, weight: float) -> bytes:
    """Whole blocks of random weights whose root mean square is near `weight`."""
    source = random.Random(type_name)
    kind = TENSOR_TYPES_BY_NAME[type_name]
    if type_name in ("F32", "F16", "BF16"):
        numbers = [source.gauss(0, weight) for _ in range(_POOL_BLOCKS)]
        if type_name == "BF16":
            return b"".join(struct.pack("<f", number)[2:] for number in numbers)
        return struct.pack(f"<{len(numbers)}{'f' if type_name == 'F32' else 'e'}", *numbers)
    blocks = bytearray(source.randbytes(_POOL_BLOCKS * kind.block_bytes))
    for start in range(0, len(blocks), kind.block_bytes):
        block = memoryview(blocks)[start : start + kind.block_bytes]
        if type_name == "MXFP4":
            block[0] = _E8M0_OF_ONE - 9
        elif type_name == "NVFP4":
            block[0:4] = bytes([_UE4M3_OF_ONE - 0x30]) * 4
        elif type_name == "IQ1_M":
            _scatter(block[48:56], struct.unpack("<H", struct.pack("<e", weight / 9))[0])
        else:
            scales = _SCALES[type_name]
            for offset in scales.offsets:
                block[offset : offset + 2] = struct.pack("<e", weight / scales.size)
    return bytes(blocks)


def _scatter(scales: memoryview, half: int) -> None:
    """Lays the four nibbles of a half-precision number into the highest bits of four 16-bit words."""
    for word in range(4):
        scales[2 * word + 1] = scales[2 * word + 1] & 0x0F | (half >> (4 * word) & 0xF) << 4
