"""Sound files are read as what they are."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from gguf_bytes import ARRAY, BOOL, CODES, F32, I32, STRING, U32, U64, Arr, Gguf, Tensor, llama, strings
from hypothesis import given
from hypothesis import strategies as st

from bendi.errors import ModelFileError, NotFoundError
from bendi.formats import FileSource, GgufArray, GgufFile, MemorySource, read_gguf, read_gguf_from
from bendi.formats.gguf_cursor import first_duplicate
from bendi.units import MIB

Read = Callable[[bytes], GgufFile]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [2, 3])
def test_versions_and_byte_orders(read: Read, order: str, version: int) -> None:
    gguf = read(llama(order=order, version=version).build())
    assert (gguf.version, gguf.byte_order) == (version, "little" if order == "<" else "big")
    assert gguf.architecture == "llama"
    assert gguf.integer("llama.context_length") == 4096
    assert gguf.metadata["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    languages = gguf.array("general.languages")
    assert languages is not None and languages.values == ("en", "zh")
    assert [(t.name, t.type.name, t.shape, t.offset) for t in gguf.tensors] == [
        ("token_embd.weight", "F32", (64, 260), 0),
        ("blk.0.attn_q.weight", "F32", (64, 64), 66560),
    ]
    assert gguf.data_offset % gguf.alignment == 0
    assert gguf.data_offset + 66560 + 4 * 64 * 64 == gguf.file_size_bytes


def test_accessors_give_nothing_for_other_types(read: Read) -> None:
    gguf = read(llama().add("flag", BOOL, True).build())
    assert gguf.metadata["flag"] is True
    assert gguf.integer("flag") is None
    assert gguf.integer("general.name") is None
    assert gguf.text("flag") == "" == gguf.text("absent")
    assert gguf.array("flag") is None


_NAMES = st.text(st.characters(categories=["L", "N"], include_characters="._-"), min_size=1, max_size=40)
_SCALARS = {code: st.integers(*((0, 2 ** (8 * struct.calcsize(c)) - 1))) for code, c in CODES.items() if c in "BHIQ"}
_SCALARS |= {
    code: st.integers(-(2 ** (8 * struct.calcsize(c) - 1)), 2 ** (8 * struct.calcsize(c) - 1) - 1)
    for code, c in CODES.items()
    if c in "bhiq"
}
_SCALARS |= {code: st.floats(allow_nan=False, width=64 if c == "d" else 32) for code, c in CODES.items() if c in "fd"}
_SCALARS |= {BOOL: st.booleans(), STRING: st.text(st.characters(codec="utf-8"), max_size=60)}
_VALUES = st.one_of(
    *(st.tuples(st.just(kind), values) for kind, values in _SCALARS.items()),
    *(
        st.tuples(st.just(ARRAY), st.lists(values, max_size=20).map(lambda items, kind=kind: Arr(kind, items)))
        for kind, values in _SCALARS.items()
    ),
)


@given(st.dictionaries(_NAMES.map("other.".__add__), _VALUES, max_size=8), st.sampled_from("<>"))
def test_all_values_survive(entries: dict[str, tuple[int, object]], order: str) -> None:
    made = Gguf(keys=[("general.architecture", (STRING, "test")), *entries.items()], order=order)
    gguf = read_gguf_from(MemorySource(made.build()), "x.gguf")
    for name, (_kind, value) in entries.items():
        found = gguf.metadata[name]
        if isinstance(value, Arr):
            assert isinstance(found, GgufArray)
            assert (found.count, found.values) == (len(value.items), tuple(value.items))
        else:
            assert found == value and type(found) is type(value)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 3)), max_size=12),
    st.sampled_from([1, 32, 64, 4096]),
)
def test_tensors_survive(shapes: list[tuple[int, int, int]], alignment: int) -> None:
    made = Gguf(
        keys=[("general.architecture", (STRING, "test")), ("general.alignment", (U32, alignment))],
        tensors=[Tensor(f"t{index}", shape) for index, shape in enumerate(shapes)],
        alignment=alignment,
    )
    gguf = read_gguf_from(MemorySource(made.build()), "x.gguf")
    assert [tensor.shape for tensor in gguf.tensors] == shapes
    assert [tensor.elements for tensor in gguf.tensors] == [a * b * c for a, b, c in shapes]
    assert all(tensor.offset % alignment == 0 for tensor in gguf.tensors)


def test_quantized_tensors_have_their_size(read: Read) -> None:
    made = llama().with_tensors(Tensor("a", (256, 4), 12, size_bytes=4 * 144), Tensor("b", (32, 2), 8, size_bytes=68))
    sizes = {tensor.name: (tensor.type.name, tensor.size_bytes) for tensor in read(made.build()).tensors}
    assert sizes == {"a": ("Q4_K", 576), "b": ("Q8_0", 68)}


def test_a_large_vocabulary_is_not_kept(bounded: Callable[..., AbstractContextManager[None]], read: Read) -> None:
    count = 250_000
    tokens = [*(f"<0x{byte:02X}>" for byte in range(256)), *(f"token{index}" for index in range(count - 256))]
    made = (
        llama()
        .set("tokenizer.ggml.tokens", ARRAY, strings(tokens))
        .set("tokenizer.ggml.scores", ARRAY, Arr(F32, [0.5] * count))
        .set("tokenizer.ggml.token_type", ARRAY, Arr(I32, [6] * 256 + [1] * (count - 256)))
        .add("tokenizer.ggml.merges", ARRAY, strings(f"to ken{index}" for index in range(count)))
        .build()
    )
    with bounded(24 * MIB):
        gguf = read(made)
    array = gguf.array("tokenizer.ggml.tokens")
    assert array is not None
    assert (array.count, array.values) == (count, None)
    assert array.size_bytes == sum(8 + len(token) for token in tokens)
    assert made[array.offset + 8 :].startswith(b"<0x00>")
    assert gguf.integer("tokenizer.ggml.eos_token_id") == 2  # what follows the arrays is found


def test_strings_longer_than_the_window(read: Read) -> None:
    long = ["a" * (MIB - 5), "b" * MIB, "c", "d" * (MIB - 1)] * 3
    gguf = read(llama().add("test.long", ARRAY, strings(long)).add("test.after", U64, 2**63).build())
    array = gguf.array("test.long")
    assert array is not None and array.size_bytes == sum(8 + len(item) for item in long)
    assert gguf.metadata["test.after"] == 2**63


def test_a_text_too_long_to_keep_is_located(read: Read) -> None:
    made = llama().add("tokenizer.huggingface.json", STRING, "{" + "字" * MIB + "}").add("test.after", U32, 7).build()
    gguf = read(made)
    array = gguf.array("tokenizer.huggingface.json")
    assert array is not None
    assert (array.element_type, array.count, array.values) == ("str", 1, None)
    assert made[array.offset : array.offset + array.size_bytes].decode() == "{" + "字" * MIB + "}"
    assert gguf.metadata["test.after"] == 7


def test_a_vocabulary_file_without_tensors(read: Read) -> None:
    assert read(llama().with_tensors().build()).tensors == ()


def test_a_later_part_need_not_repeat_the_architecture(read: Read) -> None:
    part = Gguf(keys=[("split.no", (U32, 1)), ("split.count", (U32, 2))], tensors=[Tensor("blk.9.x")])
    assert read(part.build()).architecture == ""


def test_padding_outside_the_vocabulary_is_accepted(read: Read) -> None:
    # Fine-tunes often name a padding token that training added and the file does not have; engines leave it unused.
    gguf = read(llama().set("tokenizer.ggml.padding_token_id", U32, 32000).build())
    assert gguf.integer("tokenizer.ggml.padding_token_id") == 32000


@pytest.mark.parametrize("value", [2**32 - 1, 0, 259])
def test_special_tokens_that_are_fine(read: Read, value: int) -> None:
    read(llama().set("tokenizer.ggml.bos_token_id", U32, value).build())


def test_recurrent_models_have_no_heads(read: Read) -> None:
    made = llama().set("llama.attention.head_count", U32, 0).set("llama.attention.head_count_kv", U32, 0)
    gguf = read(made.add("llama.ssm.conv_kernel", U32, 4).build())
    assert gguf.integer("llama.attention.head_count") == 0


def test_a_dense_model_that_counts_one_expert(read: Read) -> None:
    keys = [("general.architecture", (STRING, "hunyuan-dense")), ("hunyuan-dense.expert_count", (U32, 1))]
    assert read(Gguf(keys=keys).build()).integer("hunyuan-dense.expert_count") == 1


def test_real_file(stories_model: Path) -> None:
    gguf = read_gguf(stories_model)
    assert (gguf.version, gguf.byte_order, gguf.alignment) == (3, "little", 32)
    assert len(gguf.tensors) == 48
    assert gguf.file_size_bytes == stories_model.stat().st_size
    last = max(gguf.tensors, key=lambda tensor: tensor.offset)
    assert gguf.data_offset + last.offset + last.size_bytes == gguf.file_size_bytes
    assert gguf.integer("tokenizer.ggml.padding_token_id") == 2**32 - 1


def test_file_and_memory_give_the_same(tmp_path: Path) -> None:
    data = llama().build()
    path = tmp_path / "little.gguf"
    path.write_bytes(data)
    assert read_gguf(path) == read_gguf_from(MemorySource(data), "little.gguf")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        read_gguf(tmp_path / "absent.gguf")
    assert "absent.gguf" in caught.value.message and caught.value.hint


@pytest.mark.parametrize("name", ["x" * 300, "nul\0"])
def test_a_name_that_cannot_exist(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError):
        read_gguf(tmp_path / name)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_gguf(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_make_us_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_gguf(tmp_path / "pipe.gguf")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_an_endless_device() -> None:
    with pytest.raises(ModelFileError, match="not a regular file"):
        read_gguf(Path("/dev/zero"))


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "shrinks.gguf"
    path.write_bytes(llama().build())
    with FileSource(path) as source:
        os.truncate(path, 100)
        with pytest.raises(ModelFileError, match="truncated"):
            read_gguf_from(source, path.name)


def _first_twice(items: list[bytes]) -> bytes | None:
    return next((item for index, item in enumerate(items) if item and item in items[:index]), None)


@given(st.lists(st.sampled_from([b"", b"a", b"b", b"ab", b"\xff"]) | st.binary(max_size=3), max_size=20))
def test_duplicates_in_a_vocabulary(items: list[bytes]) -> None:
    data = b"".join(struct.pack("<Q", len(item)) + item for item in items)
    array = GgufArray("str", len(items), 3, len(data))
    assert first_duplicate(MemorySource(b"???" + data), "little", array) == _first_twice(items)


def test_duplicates_across_windows() -> None:
    items = [bytes([65 + index]) * (MIB // 3) for index in range(8)]
    for twice in (0, 3, 7):
        with_twice = [*items, items[twice], b"end"]
        data = b"".join(struct.pack("<Q", len(item)) + item for item in with_twice)
        array = GgufArray("str", len(with_twice), 0, len(data))
        assert first_duplicate(MemorySource(data), "little", array) == items[twice]
