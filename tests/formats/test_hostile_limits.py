"""The worst files for every reader: each ends in a checked result or a clean error, within 64 MiB of memory.

Seconds are no matter of a test, which must not fail on a busy machine: `benchmarks/hostile_files.py` prints them. What
stands here instead is what they follow from: how much is read before the answer is known.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from gguf_bytes import STRING, U32, Arr, Gguf, llama, renamed
from hostile_limits import CASES, LIMIT_BYTES, measured
from safetensors_bytes import raw

from bendi.errors import ModelFileError
from bendi.formats import MemorySource, read_gguf_from, read_safetensors
from bendi.formats.gguf_cursor import MAX_HEADER_BYTES
from bendi.formats.gguf_header import Budget

FAMILIES = sorted({name.partition(":")[0] for name in CASES})
LONG_TO_WRITE = {
    "safetensors: empty tensors", "safetensors: names of wide characters", "safetensors: all shapes different",
    "safetensors: entries of lists", "safetensors: entries of objects", "safetensors: a model in one file",
    "safetensors: long names", "safetensors: one endless text", "safetensors: blanks", "index: short names",
    "index: wide characters", "index: many files", "config: names", "config: objects, all names different",
    "gguf: a vocabulary of long tokens", "gguf: many strings", "gguf: parts with vocabularies", "record: a long text",
}  # fmt: skip
"""Only in the benchmark: each takes more than a second, and less memory than another one here."""


@pytest.mark.parametrize("name", [name for name in CASES if name not in LONG_TO_WRITE])
def test_no_file_costs_more_than_its_limit(name: str, tmp_path: Path) -> None:
    """In a process of its own, so that what the system gives to it can be counted, and a crash is seen as one."""
    path = tmp_path / "x"
    CASES[name].write(path)
    cost = measured(name, path)
    assert cost.outcome == "read" or cost.outcome.startswith("ModelFileError: "), cost.outcome
    assert cost.peak_bytes <= LIMIT_BYTES


def test_the_measurement_sees_memory(tmp_path: Path) -> None:
    """A case whose cost is known: 4 MiB of text with one wide character is 16 MiB in memory, twice."""
    path = tmp_path / "x"
    CASES["config: one wide text"].write(path)
    assert measured("config: one wide text", path).peak_bytes > 30 * 2**20


class Counting:
    """Bytes in memory that count how often they are asked for, and for how much."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.asked_bytes = 0
        self.reads = 0

    @property
    def size_bytes(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        piece = self._data[offset : offset + size_bytes]
        self.asked_bytes += len(piece)
        self.reads += 1
        return piece


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":{"dtype":"' + b"x" * 3_000_000,
        b"{" + b" " * 3_000_000 + b"}",
        b'{"__metadata__":{' + b",".join(b'"%d":"%s"' % (n, b"m" * 3000) for n in range(900)) + b"}}",
        b'{"__metadata__":{"a":"' + b"m" * 900_000 + b'"}}',
        b"{" + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % n for n in range(40_000)) + b"}",
        b"{" + b",".join(b'"%d":{"shape":[0],"data_offsets":[0,0],"dtype":"U8"}' % n for n in range(40_000)) + b"}",
    ],
    ids=["endless text", "blanks", "metadata", "one long value", "plain entries", "other entries"],
)
def test_every_byte_of_a_header_is_read_once(body: bytes) -> None:
    source = Counting(raw(body))
    with contextlib.suppress(ModelFileError):
        read_safetensors(source, "x")
    assert source.asked_bytes <= source.size_bytes + 2048
    assert source.reads <= 2 + source.size_bytes // 250_000 + 4


@pytest.mark.parametrize(
    "made",
    [
        llama(260),
        llama(260).add("x", 9, Arr(STRING, ["a" * 100] * 30_000)),
        llama(260).add("tokenizer.ggml.merges", 9, Arr(STRING, ["a b"] * 30_000)),
    ],
)
def test_a_header_is_read_a_few_times_at_most(made: Gguf) -> None:
    source = Counting(made.with_tensors().build())
    read_gguf_from(source, "x")
    # Once for the header, then twice over the vocabulary: for duplicates, and for tokens that stand for bytes.
    assert source.asked_bytes <= 3 * source.size_bytes + 2**17


def test_parts_share_how_long_their_headers_may_be() -> None:
    data = llama(260).with_tensors().build()
    budget = Budget(header_bytes=2 * len(data))
    read_gguf_from(MemorySource(data), "a.gguf", budget)
    read_gguf_from(MemorySource(data), "b.gguf", budget)
    long = llama(260).with_tensors().add("x", 9, Arr(0, [1] * 9000)).build()
    with pytest.raises(ModelFileError, match="header is larger than"):
        read_gguf_from(MemorySource(long), "c.gguf", budget)
    assert Budget().header_bytes == MAX_HEADER_BYTES


@pytest.mark.parametrize("architecture", ["mistral3", "llama", "qwen3", "olmo2", "granitemoe"])
@pytest.mark.parametrize(
    ("key", "number"),
    [("rope.dimension_count", 4), ("rope.dimension_count", 0), ("attention.key_length", 16),
     ("attention.value_length", 4)],
)  # fmt: skip
def test_heads_that_the_engine_asserts_to_be_whole(architecture: str, key: str, number: int) -> None:
    """The engine would stop with an assertion when it builds its graph; heads here have 64 / 8 numbers."""
    made = renamed(llama(), architecture)
    read_gguf_from(MemorySource(made.build()), "x")
    read_gguf_from(MemorySource(made.add(f"{architecture}.rope.dimension_count", U32, 8).build()), "x")
    with pytest.raises(ModelFileError, match="must be equal"):
        read_gguf_from(MemorySource(made.add(f"{architecture}.{key}", U32, number).build()), "x")


def test_heads_that_may_be_rotated_in_part() -> None:
    for architecture in ("stablelm", "phi2", "gptneox", "glm4", "minimax-m2", "deepseek2"):
        made = renamed(llama(), architecture).add(f"{architecture}.rope.dimension_count", U32, 4)
        read_gguf_from(MemorySource(made.build()), "x")


def test_layers_with_a_window_may_have_lengths_of_their_own() -> None:
    made = renamed(llama(), "exaone4").add("exaone4.rope.dimension_count", U32, 4)
    with pytest.raises(ModelFileError, match="must be equal"):
        read_gguf_from(MemorySource(made.build()), "x")
    read_gguf_from(MemorySource(made.add("exaone4.attention.key_length_swa", U32, 16).build()), "x")


def test_all_readers_are_in_the_corpus() -> None:
    assert set(CASES) >= LONG_TO_WRITE
    assert FAMILIES == ["config", "gguf", "hardware", "index", "journal", "manifest", "record", "safetensors"]
