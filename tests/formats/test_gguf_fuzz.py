"""Whatever the bytes say, the answer is a checked header or a ModelFileError, and it costs little."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from gguf_bytes import ARRAY, STRING, U32, Arr, Gguf, Tensor, llama, strings
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bendi.errors import ModelFileError
from bendi.formats import GgufFile, MemorySource, model_info, read_gguf, read_gguf_from

Bounded = Callable[..., AbstractContextManager[None]]
SEEDED = settings(
    database=None, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

SMALL = (
    llama(8)
    .set("tokenizer.ggml.token_type", ARRAY, Arr(5, [2, 3, 3, 6, 6, 1, 1, 1]))
    .set("tokenizer.ggml.tokens", ARRAY, strings(["<unk>", "<s>", "</s>", "<0x00>", "<0x01>", "a", "b", "c"]))
    .with_tensors(Tensor("token_embd.weight", (64, 8)), Tensor("output.weight", (32, 4), 8, size_bytes=136))
)
HEADER_BYTES = len(SMALL.header())


def outcome(data: bytes) -> GgufFile | None:
    """Reads `data`, whatever it is; also what is derived from it must not fail."""
    try:
        gguf = read_gguf_from(MemorySource(data), "x.gguf")
    except ModelFileError as error:
        assert error.message.isprintable() and error.hint
        return None
    info = model_info(gguf)
    assert gguf.data_offset + info.tensor_bytes <= len(data) or not gguf.tensors
    assert all(gguf.data_offset + t.offset + t.size_bytes <= len(data) for t in gguf.tensors)
    return gguf


@pytest.mark.parametrize("order", ["<", ">"])
def test_truncated_everywhere(order: str, bounded: Bounded) -> None:
    data = SMALL._with(order=order).build()
    assert outcome(data) is not None
    with bounded():
        for size in range(len(data)):
            assert outcome(data[:size]) is None, size


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_byte_of_the_header_changed(flip: int, bounded: Bounded) -> None:
    data = bytearray(SMALL.build())
    with bounded():
        for position in range(HEADER_BYTES):
            data[position] ^= flip
            outcome(bytes(data))
            data[position] ^= flip


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_every_number_replaced(number: int, bounded: Bounded) -> None:
    data = bytearray(SMALL.build())
    with bounded():
        for position in range(4, HEADER_BYTES - 8):
            saved = data[position : position + 8]
            data[position : position + 8] = struct.pack("<Q", number)
            outcome(bytes(data))
            data[position : position + 8] = saved


_PIECES = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 2**64 - 1).map(lambda number: struct.pack("<Q", number)),
    st.integers(0, 50).map(lambda number: struct.pack("<I", number)),
)
_EDITS = st.lists(st.tuples(st.integers(0, HEADER_BYTES), st.integers(0, 40), _PIECES), min_size=1, max_size=6)


@settings(SEEDED, max_examples=400)
@given(_EDITS)
def test_edited(bounded: Bounded, edits: list[tuple[int, int, bytes]]) -> None:
    data = SMALL.build()
    for position, removed, piece in edits:
        data = data[:position] + piece + data[position + removed :]
    with bounded():
        outcome(data)


@settings(SEEDED, max_examples=200)
@given(st.binary(max_size=2000), st.integers(0, 60), st.integers(0, 60))
@example(b"", 0, 0)
@example(bytes(4000), 60, 60)
def test_random_bytes_after_a_good_start(bounded: Bounded, data: bytes, tensors: int, keys: int) -> None:
    with bounded():
        outcome(b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + data)


@settings(SEEDED)
@given(st.binary(max_size=2000))
def test_random_bytes(bounded: Bounded, data: bytes) -> None:
    with bounded():
        assert outcome(data) is None


_ANY_VALUE = st.one_of(
    st.tuples(st.just(U32), st.integers(0, 2**32 - 1)),
    st.tuples(st.just(10), st.integers(0, 2**64 - 1)),
    st.tuples(st.just(5), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(6), st.floats(width=32)),
    st.tuples(st.just(STRING), st.binary(max_size=30)),
    st.tuples(st.just(ARRAY), st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4).map(lambda v: Arr(5, v))),
    st.tuples(st.just(ARRAY), st.lists(st.binary(max_size=9), max_size=9).map(strings)),
)


@settings(SEEDED, max_examples=300)
@given(st.dictionaries(st.sampled_from([str(key[0]) for key in SMALL.keys]), _ANY_VALUE, max_size=5))
def test_well_formed_nonsense(replaced: dict[str, tuple[int, object]]) -> None:
    """Every key with values of every type: nothing that derives facts may stumble over them."""
    made: Gguf = SMALL
    for name, (kind, value) in replaced.items():
        made = made.set(name, kind, value)
    outcome(made.build())


class Shrinking:
    """A file that loses its second half after some reads."""

    def __init__(self, data: bytes, reads: int) -> None:
        self.size_bytes = len(data)
        self._data = data
        self._reads = reads

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        self._reads -= 1
        end = min(offset + size_bytes, HEADER_BYTES // 2 if self._reads < 0 else self.size_bytes)
        return self._data[offset : max(end, offset)]


@pytest.mark.parametrize("reads", range(9))
def test_a_file_that_changes_while_it_is_read(reads: int) -> None:
    try:
        read_gguf_from(Shrinking(SMALL.build(), reads), "x.gguf")
    except ModelFileError:
        return
    assert reads > 3


def test_a_sparse_giant(tmp_path: Path, bounded: Bounded) -> None:
    """A small header in front of terabytes of nothing, which claims that its vocabulary is there."""
    path = tmp_path / "giant.gguf"
    made = SMALL.with_tensors().without("tokenizer.ggml.merges")
    path.write_bytes(made.add("tokenizer.ggml.merges", ARRAY, Arr(STRING, [], count=2**32)).build())
    with path.open("r+b") as file:
        try:
            file.truncate(2**42)
        except OSError:
            pytest.skip("no sparse files of this size here")
    with bounded(), pytest.raises(ModelFileError, match="more than 4000000 strings"):
        read_gguf(path)
