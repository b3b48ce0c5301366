"""The tensors of safetensors files, kept in columns: a model may have hundreds of thousands of them.

As objects of their own they would take some 200 bytes each; in columns it is 30 beside the name, and names, types and
shapes that several have are kept once.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits of one element, by the name that files use."""
_DTYPES = tuple(DTYPE_BITS)
_NUMBERS = {dtype: number for number, dtype in enumerate(_DTYPES)}


@dataclass(frozen=True, slots=True)
class SafetensorsTensor:
    """A tensor: `shape` outermost first, as PyTorch counts; `offset` from the start of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def elements(self) -> int:
        return self.size_bytes * 8 // DTYPE_BITS[self.dtype]


class TensorTable(Sequence[SafetensorsTensor]):
    """The tensors of one file, in the order of its header. Offsets and sizes are below 2**63."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._dtypes = bytearray()
        self._shapes: list[tuple[int, ...]] = []
        self._offsets = array("q")
        self._sizes = array("q")

    def add(self, tensor: SafetensorsTensor) -> None:
        """Puts `tensor` at the end."""
        self._names.append(tensor.name)
        self._dtypes.append(_NUMBERS[tensor.dtype])
        self._shapes.append(tensor.shape)
        self._offsets.append(tensor.offset)
        self._sizes.append(tensor.size_bytes)

    def names(self) -> Sequence[str]:
        """All names, without making the tensors."""
        return self._names

    def by_place(self) -> Iterator[tuple[int, int, int]]:
        """(index, offset, bytes) of the tensors as they lie in the file; of those at one offset the empty ones first.

        Without making the tensors, which takes longer than all else.
        """
        offsets, sizes = self._offsets, self._sizes
        for index in sorted(range(len(self._names)), key=lambda index: 2 * offsets[index] + (sizes[index] > 0)):
            yield index, offsets[index], sizes[index]

    def sizes(self) -> Iterator[tuple[str, int]]:
        """(type, bytes) of all tensors, without making them."""
        return ((_DTYPES[number], size_bytes) for number, size_bytes in zip(self._dtypes, self._sizes, strict=True))

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> SafetensorsTensor: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[SafetensorsTensor, ...]: ...
    def __getitem__(self, index: int | slice) -> SafetensorsTensor | tuple[SafetensorsTensor, ...]:
        if isinstance(index, slice):
            return tuple(self._at(at) for at in range(*index.indices(len(self._names))))
        return self._at(index)

    def __iter__(self) -> Iterator[SafetensorsTensor]:
        return (self._at(index) for index in range(len(self._names)))

    def _at(self, index: int) -> SafetensorsTensor:
        return SafetensorsTensor(
            self._names[index],
            _DTYPES[self._dtypes[index]],
            self._shapes[index],
            self._offsets[index],
            self._sizes[index],
        )


class JoinedTensors(Sequence[SafetensorsTensor]):
    """The tensors of several files, one file after the other, without a copy of them."""

    def __init__(self, parts: Sequence[TensorTable]) -> None:
        self._parts = parts

    def sizes(self) -> Iterator[tuple[str, int]]:
        """(type, bytes) of all tensors, without making them."""
        return itertools.chain.from_iterable(part.sizes() for part in self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @overload
    def __getitem__(self, index: int) -> SafetensorsTensor: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[SafetensorsTensor, ...]: ...
    def __getitem__(self, index: int | slice) -> SafetensorsTensor | tuple[SafetensorsTensor, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        at = index + len(self) if index < 0 else index
        for part in self._parts:
            if 0 <= at < len(part):
                return part[at]
            at -= len(part)
        raise IndexError(index)

    def __iter__(self) -> Iterator[SafetensorsTensor]:
        return itertools.chain.from_iterable(self._parts)
