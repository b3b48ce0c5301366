"""A projector with random weights for the built-in model: it sees, and understands nothing.

Keys and tensors of a CLIP encoder with LLaVA's projector: llama.cpp `tools/mtmd/clip.cpp` and `models/llava.cpp`.
"""

from __future__ import annotations

import math
import random
import struct
import zlib
from pathlib import Path

from bendi.formats import TENSOR_TYPES_BY_NAME, TensorInfo
from bendi.formats.blueprint import Value
from bendi.formats.gguf_types import aligned
from bendi.formats.gguf_writer import write_gguf

_WIDTH, _FORWARD, _LAYERS, _HEADS, _PATCH, _IMAGE = 32, 64, 2, 4, 8, 32
IMAGE_TOK = (_IMAGE // _PATCH) ** 2
"""Tokens that an image takes in the prompt."""


def write_projector(path: Path, embedding_length: int, **more: Value) -> Path:
    """Writes it for a model whose tokens have `embedding_length` numbers. `more`: keys to add or change."""
    metadata: dict[str, Value] = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.file_type": 0,
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        "clip.vision.image_size": _IMAGE,
        "clip.vision.patch_size": _PATCH,
        "clip.vision.embedding_length": _WIDTH,
        "clip.vision.feed_forward_length": _FORWARD,
        "clip.vision.projection_dim": embedding_length,
        "clip.vision.block_count": _LAYERS,
        "clip.vision.attention.head_count": _HEADS,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }
    tensors, offset = [], 0
    for name, shape in _shapes(embedding_length).items():
        size_bytes = 4 * math.prod(shape)
        tensors.append(TensorInfo(name, TENSOR_TYPES_BY_NAME["F32"], shape, offset, size_bytes))
        offset += aligned(size_bytes)
    return write_gguf(path, metadata | more, tensors, lambda tensor: [_numbers(tensor.name, math.prod(tensor.shape))])


def png(red: int, green: int, blue: int, size: int = 16) -> bytes:
    """A square of one colour."""
    rows = (b"\0" + bytes((red, green, blue)) * size) * size

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _numbers(name: str, count: int) -> bytes:
    if name.endswith(("ln1.weight", "ln2.weight", "pre_ln.weight")):
        return struct.pack(f"<{count}f", *[1.0] * count)
    generator = random.Random(name)
    return struct.pack(f"<{count}f", *[generator.gauss(0.0, 0.1) for _ in range(count)])


def _shapes(embedding_length: int) -> dict[str, tuple[int, ...]]:
    """Innermost dimension first."""
    shapes: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (_PATCH, _PATCH, 3, _WIDTH),
        "v.class_embd": (_WIDTH,),
        "v.position_embd.weight": (_WIDTH, IMAGE_TOK + 1),
        "v.pre_ln.weight": (_WIDTH,),
        "v.pre_ln.bias": (_WIDTH,),
        "mm.0.weight": (_WIDTH, embedding_length),
        "mm.0.bias": (embedding_length,),
        "mm.2.weight": (embedding_length, embedding_length),
        "mm.2.bias": (embedding_length,),
    }
    for layer in range(_LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            shapes[f"v.blk.{layer}.{name}.weight"] = (_WIDTH, _WIDTH)
            shapes[f"v.blk.{layer}.{name}.bias"] = (_WIDTH,)
        for name in ("ln1", "ln2"):
            shapes[f"v.blk.{layer}.{name}.weight"] = (_WIDTH,)
            shapes[f"v.blk.{layer}.{name}.bias"] = (_WIDTH,)
        shapes[f"v.blk.{layer}.ffn_up.weight"] = (_WIDTH, _FORWARD)
        shapes[f"v.blk.{layer}.ffn_up.bias"] = (_FORWARD,)
        shapes[f"v.blk.{layer}.ffn_down.weight"] = (_FORWARD, _WIDTH)
        shapes[f"v.blk.{layer}.ffn_down.bias"] = (_WIDTH,)
    return shapes
