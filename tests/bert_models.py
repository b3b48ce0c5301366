"""BERT models as llama.cpp's converter lays them out: from real weights, or small ones with random weights.

Tensors and keys: llama.cpp `conversion/bert.py`, `gguf-py/gguf/tensor_mapping.py` and `src/models/bert.cpp`.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bendi.formats import TENSOR_TYPES_BY_NAME, TensorInfo
from bendi.formats.blueprint import Value
from bendi.formats.gguf_types import aligned
from bendi.formats.gguf_writer import write_gguf

PAD, UNKNOWN, FIRST, SEPARATOR, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL = (PAD, UNKNOWN, FIRST, SEPARATOR, MASK)
_NORMAL, _CONTROL = 1, 3
_POOLING = {"mean": 1, "cls": 2, "last": 3}
Data = Callable[[str], bytes]
"""The F32 numbers of a tensor by its name in the GGUF file."""


@dataclass(frozen=True)
class BertShape:
    """The dimensions of a model. `ranks`: it has a head for scores, as cross-encoders do. `pooling`: what its header
    says, empty for nothing."""

    width: int
    layers: int
    heads: int
    feed_forward: int
    context_tok: int
    ranks: bool = False
    epsilon: float = 1e-12
    pooling: str = "mean"


SMALL = BertShape(width=32, layers=2, heads=4, feed_forward=64, context_tok=1024)
SMALL_RANKER = BertShape(width=32, layers=2, heads=4, feed_forward=64, context_tok=512, ranks=True, pooling="")


def write_bert(path: Path, shape: BertShape, vocabulary: Sequence[str], data: Data, **general: Value) -> Path:
    """Writes the model. `vocabulary`: as in `vocab.txt`, pieces in the middle of words marked with `##`. `general`:
    what the header says of the model, such as its `name`."""
    metadata = _metadata(shape, vocabulary) | {f"general.{key}": value for key, value in general.items()}
    tensors, offset = [], 0
    for name, dimensions in _tensor_shapes(shape, len(vocabulary)).items():
        size_bytes = 4
        for size in dimensions:
            size_bytes *= size
        tensors.append(TensorInfo(name, TENSOR_TYPES_BY_NAME["F32"], dimensions, offset, size_bytes))
        offset += aligned(size_bytes)
    return write_gguf(path, metadata, tensors, lambda tensor: [data(tensor.name)])


def write_random_bert(path: Path, shape: BertShape = SMALL, **general: Value) -> Path:
    """A model whose answers mean nothing, and are always the same. `general`: as in `write_bert`."""
    shapes = _tensor_shapes(shape, len(SMALL_VOCABULARY))

    def data(name: str) -> bytes:
        generator = random.Random(name)
        count = 1
        for size in shapes[name]:
            count *= size
        if name.endswith("norm.weight"):
            return struct.pack(f"<{count}f", *[1.0] * count)
        return struct.pack(f"<{count}f", *[generator.gauss(0.0, 0.2) for _ in range(count)])

    return write_bert(path, shape, SMALL_VOCABULARY, data, **general)


_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
SMALL_VOCABULARY = (
    *SPECIAL,
    *_LETTERS,
    *(f"##{letter}" for letter in _LETTERS),
    *"?!.,:;-'",
    *("the", "memory", "bandwidth", "model", "weather", "rain", "speed", "cache", "##ing"),
)


def _metadata(shape: BertShape, vocabulary: Sequence[str]) -> dict[str, Value]:
    return {
        "general.architecture": "bert",
        "general.type": "model",
        "general.file_type": 0,
        "bert.block_count": shape.layers,
        "bert.context_length": shape.context_tok,
        "bert.embedding_length": shape.width,
        "bert.feed_forward_length": shape.feed_forward,
        "bert.attention.head_count": shape.heads,
        "bert.attention.layer_norm_epsilon": shape.epsilon,
        "bert.attention.causal": False,
        **({"bert.pooling_type": _POOLING[shape.pooling]} if shape.pooling else {}),
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.tokens": [_phantom_space(piece) for piece in vocabulary],
        "tokenizer.ggml.token_type": [_CONTROL if piece in SPECIAL else _NORMAL for piece in vocabulary],
        "tokenizer.ggml.unknown_token_id": vocabulary.index(UNKNOWN),
        "tokenizer.ggml.seperator_token_id": vocabulary.index(SEPARATOR),  # as the format spells it
        "tokenizer.ggml.padding_token_id": vocabulary.index(PAD),
        "tokenizer.ggml.bos_token_id": vocabulary.index(FIRST),
        "tokenizer.ggml.cls_token_id": vocabulary.index(FIRST),
        "tokenizer.ggml.mask_token_id": vocabulary.index(MASK),
    }


def _phantom_space(piece: str) -> str:
    """GGUF marks where words begin, `vocab.txt` where they go on."""
    if piece in SPECIAL:
        return piece
    return piece[2:] if piece.startswith("##") else f"▁{piece}"


def _tensor_shapes(shape: BertShape, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Innermost dimension first."""
    width, forward = shape.width, shape.feed_forward
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (width, vocabulary),
        "position_embd.weight": (width, shape.context_tok),
        "token_types.weight": (width, 2),
        "token_embd_norm.weight": (width,),
        "token_embd_norm.bias": (width,),
    }
    for layer in range(shape.layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"blk.{layer}.{name}.weight"] = (width, width)
            shapes[f"blk.{layer}.{name}.bias"] = (width,)
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes[f"blk.{layer}.{name}.weight"] = (width,)
            shapes[f"blk.{layer}.{name}.bias"] = (width,)
        shapes[f"blk.{layer}.ffn_up.weight"] = (width, forward)
        shapes[f"blk.{layer}.ffn_up.bias"] = (forward,)
        shapes[f"blk.{layer}.ffn_down.weight"] = (forward, width)
        shapes[f"blk.{layer}.ffn_down.bias"] = (width,)
    if shape.ranks:
        shapes |= {"cls.weight": (width, width), "cls.bias": (width,)}
        shapes |= {"cls.output.weight": (width, 1), "cls.output.bias": (1,)}
    return shapes
