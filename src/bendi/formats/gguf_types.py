"""What a GGUF file holds, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bendi.formats.quant_types import TensorType

ByteOrder = Literal["little", "big"]
Scalar = int | float | bool | str
ALIGNMENT_BYTES = 32
"""Where a file says nothing else, tensors begin at multiples of it (GGUF_DEFAULT_ALIGNMENT, ggml/include/gguf.h)."""


def aligned(size_bytes: int) -> int:
    """What `size_bytes` take in a file with the usual alignment."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array of the metadata: where it lies in the file, not its contents.

    `element_type`: `"u32"`, `"f32"`, `"str"` and so on. `offset`, `size_bytes`: its elements in the file, without the
    count before them. `values`: the elements, for short arrays; None for vocabularies and the like. A text too long
    to keep is an array of one `"str"`.
    """

    element_type: str
    count: int
    offset: int
    size_bytes: int
    values: tuple[Scalar, ...] | None = None


MetadataValue = Scalar | GgufArray


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor: `shape` innermost first, as ggml counts; `offset` from the start of the data section."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def elements(self) -> int:
        return self.size_bytes // self.type.block_bytes * self.type.block_weights


@dataclass(frozen=True)
class GgufFile:
    """The header of one GGUF file, checked. `data_offset`: where tensor data starts in the file."""

    version: int
    byte_order: ByteOrder
    alignment: int
    metadata: Mapping[str, MetadataValue]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_size_bytes: int

    @property
    def architecture(self) -> str:
        """`general.architecture`; empty in the later parts of a split model, which do not repeat it."""
        return self.text("general.architecture")

    def text(self, key: str) -> str:
        """The string under `key`; empty where it is absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def integer(self, key: str) -> int | None:
        """The integer under `key`; None where it is absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def array(self, key: str) -> GgufArray | None:
        """The array under `key`; None where it is absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, GgufArray) else None
