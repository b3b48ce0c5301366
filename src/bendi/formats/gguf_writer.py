"""Writes GGUF files: headers, and tensors whose bytes somebody supplies."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bendi.formats.blueprint import Value
from bendi.formats.gguf_types import ALIGNMENT_BYTES, TensorInfo, aligned

_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_SIGNED_KEYS = frozenset({"tokenizer.ggml.token_type"})
TensorBytes = Callable[[TensorInfo], Iterable[bytes]]


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with one token for each byte and `size` tokens in all, which mean nothing."""

    size: int

    def metadata(self) -> dict[str, Value]:
        """The tokenizer's keys, of the kind that llama.cpp calls `llama` (SentencePiece with bytes)."""
        plain = self.size - 259
        return {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>"]
            + [f"<0x{byte:02X}>" for byte in range(256)]
            + ["<|endoftext|>"][:plain]  # the engine looks for it in models that are called Phi-3
            + [f"t{number}" for number in range(1, plain)],
            "tokenizer.ggml.scores": [0.0] * self.size,
            "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * plain,
        }


@dataclass(frozen=True)
class BytewiseVocabulary:
    """The same for readers that know only the kind `gpt2`, such as OpenVINO's."""

    size: int

    def metadata(self) -> dict[str, Value]:
        """The tokenizer's keys, with a chat template, which such readers want."""
        letters = [chr(number) for number in range(0x21, 0x7F)]
        return {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "qwen2",
            "tokenizer.ggml.tokens": [*letters, *(f"t{number}" for number in range(self.size - len(letters)))],
            "tokenizer.ggml.merges": ["t 1"],
            "tokenizer.ggml.token_type": [1] * (self.size - 1) + [3],
            "tokenizer.ggml.bos_token_id": self.size - 1,
            "tokenizer.ggml.eos_token_id": self.size - 1,
            "tokenizer.ggml.padding_token_id": self.size - 1,
            "tokenizer.chat_template": "{{ messages[0]['content'] }}",
        }


def write_gguf(
    path: Path, metadata: Mapping[str, Value], tensors: Sequence[TensorInfo], data: TensorBytes | None = None
) -> Path:
    """Writes a file of version 3 to `path`, which must not exist yet, and returns `path`.

    `tensors`: with offsets as in the file. `data`: yields the bytes of a tensor; None makes a hole of the right size,
    so that the file is all header. Raises OSError, after removing what was written.
    """
    header = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        header += _text(key) + _value(value, signed=key in _SIGNED_KEYS)
    for tensor in tensors:
        dimensions = len(tensor.shape)
        header += _text(tensor.name)
        header += struct.pack(f"<I{dimensions}QIQ", dimensions, *tensor.shape, tensor.type.id, tensor.offset)
    header += bytes(-len(header) % ALIGNMENT_BYTES)
    end = max((tensor.offset + tensor.size_bytes for tensor in tensors), default=0)
    with path.open("xb") as file:
        try:
            file.write(header)
            for tensor in tensors if data is not None else ():
                assert data is not None
                file.seek(len(header) + tensor.offset)
                file.writelines(data(tensor))
            file.truncate(len(header) + aligned(end))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return path


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value, *, signed: bool) -> bytes:
    if isinstance(value, list):
        kind = _kind(value[0], signed)
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + _elements(value, kind)
    kind = _kind(value, signed or (isinstance(value, int) and value < 0))
    return struct.pack("<I", kind) + _elements([value], kind)


def _kind(value: bool | int | float | str, signed: bool) -> int:
    if isinstance(value, bool):
        return _BOOL
    if isinstance(value, int):
        return _I32 if signed else _U32
    return _F32 if isinstance(value, float) else _STRING


def _elements(values: Sequence[bool | int | float | str], kind: int) -> bytes:
    if kind == _STRING:
        return b"".join(_text(str(value)) for value in values)
    code = {_U32: "I", _I32: "i", _F32: "f", _BOOL: "?"}[kind]
    return struct.pack(f"<{len(values)}{code}", *values)
