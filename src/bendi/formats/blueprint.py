"""The header that a model of given dimensions has, without the model: what a converter would write.

Planning needs nothing but a header, so a catalogue of dimensions is enough to plan models that nobody has downloaded;
measuring speed needs nothing but tensors of the right shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from bendi.formats.gguf_types import ALIGNMENT_BYTES, GgufArray, GgufFile, MetadataValue, TensorInfo, aligned
from bendi.formats.quant_types import TENSOR_TYPES_BY_NAME

Value = bool | int | float | str | list[int] | list[bool] | list[float] | list[str]
Shapes = Mapping[str, tuple[int, ...]]
_HALVED = re.compile(
    r"(?!.*\b(ffn_gate_inp(_shexp)?|position_embd|token_types|ssm_conv1d|shortconv\.conv|altup_(correct|predict)_coef)\b)"
    r".*\.weight$"
)
"""Names of the tensors that the converter writes in half precision when they have two dimensions or more."""
_ELEMENT_TYPES = {bool: "bool", int: "u32", float: "f32", str: "str"}


@dataclass(frozen=True)
class Blueprint:
    """A model as its header describes it.

    `metadata`: keys without the architecture in front, but for those of the tokenizer. `tensors`: name to shape,
    innermost first. `vocab`: tokens.
    """

    name: str
    architecture: str
    metadata: Mapping[str, Value]
    tensors: Shapes
    vocab: int

    def default_types(self) -> list[str]:
        """The type name of each tensor as converted, before quantization: F16, and F32 for the small ones."""
        return [
            "F32" if len(shape) == 1 or name.endswith("_norm.weight") or not _HALVED.match(name) else "F16"
            for name, shape in self.tensors.items()
        ]

    def full_metadata(self) -> dict[str, Value]:
        """All keys but those of the tokenizer."""
        keys: dict[str, Value] = {"general.architecture": self.architecture, "general.name": self.name}
        for key, value in self.metadata.items():
            keys[key if key.startswith("tokenizer.") else f"{self.architecture}.{key}"] = value
        return keys

    def header(self, types: Sequence[str] | None = None) -> GgufFile:
        """The header as `read_gguf` would return it. `types`: of each tensor, default `default_types()`."""
        tensors: list[TensorInfo] = []
        offset = 0
        for (name, shape), type_name in zip(self.tensors.items(), types or self.default_types(), strict=True):
            kind = TENSOR_TYPES_BY_NAME[type_name]
            size_bytes = kind.size_bytes(prod(shape))
            tensors.append(TensorInfo(name, kind, shape, offset, size_bytes))
            offset += aligned(size_bytes)
        metadata = {key: _as_read(value) for key, value in self.full_metadata().items()}
        metadata["tokenizer.ggml.tokens"] = GgufArray("str", self.vocab, 0, 0)
        return GgufFile(3, "little", ALIGNMENT_BYTES, metadata, tuple(tensors), 0, offset)


def _as_read(value: Value) -> MetadataValue:
    if isinstance(value, list):
        return GgufArray(_ELEMENT_TYPES[type(value[0])], len(value), 0, 0, tuple(value))
    return value
