"""Writes GGUF files that are all header: tensors are declared, their data is a hole in the file."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Value = bool | int | float | str | list[int] | list[bool] | list[float] | list[str]
_ALIGNMENT = 32
_F32, _F16 = 0, 1


@dataclass(frozen=True)
class SyntheticModel:
    """A model as its header describes it. `metadata`: without the architecture in front. `tensors`: name to shape,
    innermost first; those of one dimension or in `f32` are F32, the others F16."""

    name: str
    architecture: str
    metadata: Mapping[str, Value]
    tensors: Mapping[str, tuple[int, ...]]
    vocab: int
    f32: frozenset[str] = field(default_factory=frozenset)

    def type_of(self, name: str) -> int:
        part = name.split(".")[2] if name.startswith("blk.") else name
        return _F32 if len(self.tensors[name]) == 1 or part in self.f32 else _F16


def write_sparse(model: SyntheticModel, path: Path) -> Path:
    """The file of `model` at `path`: full logical size, on disk only its header."""
    metadata: dict[str, Value] = {"general.architecture": model.architecture, "general.name": "synthetic"}
    metadata.update({f"{model.architecture}.{key}": value for key, value in model.metadata.items()})
    metadata.update(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>"]
            + [f"<0x{byte:02X}>" for byte in range(256)]
            + [f"t{number}" for number in range(259, model.vocab)],
            "tokenizer.ggml.scores": [0.0] * model.vocab,
            "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (model.vocab - 259),
        }
    )
    header = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(model.tensors), len(metadata)))
    for key, value in metadata.items():
        data = _value(value)
        if key.endswith("token_type"):  # the one key that has to be signed
            data = data[:4] + struct.pack("<I", 5) + data[8:]
        header += _text(key) + data
    offset = 0
    for name, shape in model.tensors.items():
        kind = model.type_of(name)
        header += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        size = 4 if kind == _F32 else 2
        for length in shape:
            size *= length
        offset += -(-size // _ALIGNMENT) * _ALIGNMENT
    header += bytes(-len(header) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + offset)
    return path


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Value) -> bytes:
    if isinstance(value, list):
        kind, _data = _scalar(value[0])
        return struct.pack("<IIQ", 9, kind, len(value)) + _elements(value)
    kind, data = _scalar(value)
    return struct.pack("<I", kind) + data


def _elements(values: Sequence[int | float | str]) -> bytes:
    if isinstance(values[0], float):
        return struct.pack(f"<{len(values)}f", *values)
    return b"".join(_scalar(value)[1] for value in values)


def _scalar(value: bool | int | float | str) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return (5, struct.pack("<i", value)) if value < 0 else (4, struct.pack("<I", value))
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    return 8, _text(value)
