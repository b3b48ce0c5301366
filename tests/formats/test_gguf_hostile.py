"""Files that crashed or misled some program once, or would: each is refused, with the reason, cheaply.

The names tell the kind of defect; CVE numbers where one was given to it in llama.cpp, Ollama or a library like them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from gguf_bytes import ARRAY, BOOL, F32, I8, I32, STRING, U8, U32, U64, Arr, Gguf, Tensor, llama, strings

from bendi.errors import ModelFileError
from bendi.formats import GgufFile

GOOD = llama()
TOKENS = "tokenizer.ggml.tokens"


def with_token(index: int, token: str) -> Gguf:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "a"]
    tokens[index] = token
    return GOOD.set(TOKENS, ARRAY, strings(tokens))


def with_charsmap(data: bytes) -> Gguf:
    return GOOD.add("tokenizer.ggml.precompiled_charsmap", ARRAY, Arr(U8, list(data)))


HOSTILE: dict[str, tuple[bytes, str]] = {
    # CVE-2026-7482 (Bleeding Llama), CVE-2025-0312 and others: a tensor that says it is larger than the file.
    "tensor beyond the end": (GOOD.with_tensors(Tensor("t", (2**20,), size_bytes=64)).build(), "truncated: .* bytes"),
    "tensor far beyond the end": (GOOD.with_tensors(Tensor("t", (2**60,), 24, size_bytes=64)).build(), "truncated"),
    "offset beyond the end": (
        GOOD.with_tensors(Tensor("t", (32,), offset=2**40, size_bytes=-(2**40))).build(),
        "trunc",
    ),
    # CVE-2025-53630 and its bypass CVE-2026-27940: sums and products of sizes that wrap around.
    "offset that wraps around": (
        GOOD.with_tensors(Tensor("t", offset=2**64 - 32, size_bytes=0)).header(),
        "impossible",
    ),
    "shape that wraps around": (GOOD.with_tensors(Tensor("t", (2**32, 2**32), size_bytes=0)).header(), "its shape is"),
    "shape that wraps to something": (GOOD.with_tensors(Tensor("t", (2**62 + 8, 4), size_bytes=0)).header(), "shape"),
    "shape in four steps": (GOOD.with_tensors(Tensor("t", (2**16,) * 4, size_bytes=0)).header(), "its shape is"),
    "bytes that wrap around": (
        GOOD.with_tensors(Tensor("t", (2**62,), 27, size_bytes=0)).header(),
        "would end at byte",
    ),
    "zero rows": (GOOD.with_tensors(Tensor("t", (32, 0))).build(), "its shape is 32 x 0"),
    # CVE-2024-21825, CVE-2024-25664 and others: counts used to allocate before they are compared with the file.
    "tensor count": (Gguf(keys=GOOD.keys, tensor_count=2**60).build(), "claims .* tensors"),
    "tensor count that wraps around": (Gguf(keys=GOOD.keys, tensor_count=2**64 - 1).build(), "claims .* tensors"),
    "key count": (Gguf(keys=GOOD.keys, key_count=2**61).build(), "claims .* metadata keys"),
    "more keys than entries": (Gguf(keys=GOOD.keys, key_count=len(GOOD.keys) + 1).build(), "truncated"),
    # CVE-2024-21802, CVE-2024-21836, CVE-2024-23496, CVE-2024-23605: lengths of strings and arrays.
    "key length": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63) + bytes(64), "a name in its header"),
    "key length that wraps around": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**64 - 1) + bytes(64), "a name in"),
    "long key": (GOOD.add("k" * 65536, U8, 1).build(), "1 to 65535 are allowed"),
    "a header without any data": (GOOD.header(), "truncated: [0-9]+ of [0-9]+ bytes"),
    "text longer than the file": (
        Gguf(keys=[("a", (STRING, ""))]).build()[:-8] + struct.pack("<Q", 2**62) + bytes(99),
        "truncated",
    ),
    "array count": (GOOD.add("a", ARRAY, Arr(U32, [], count=2**62)).build(), "claims .* elements"),
    "array count that wraps around": (GOOD.add("a", ARRAY, Arr(U64, [], count=2**61)).build(), "claims .* elements"),
    "string array count": (GOOD.add("a", ARRAY, Arr(STRING, [], count=2**61)).build(), "claims .* elements"),
    "long token": (
        GOOD.without(TOKENS).add(TOKENS, ARRAY, strings(["a" * (2**20 + 1)] * 260)).build(),
        "a string of 1048577 bytes",
    ),
    "too many strings": (GOOD.add("a", ARRAY, Arr(STRING, [b""] * 4_000_000)).build(), "more than 4000000 strings"),
    "nested array": (GOOD.add("a", ARRAY, Arr(ARRAY, [], count=1)).build(), "array of arrays"),
    "array of an unknown type": (GOOD.add("a", ARRAY, Arr(13, [], count=1)).build(), "unknown type 13"),
    "value of an unknown type": (GOOD.add("a", 99, b"\0" * 8).build(), "unknown type 99"),
    # Two answers to one question: what is checked must be what is used.
    "duplicate key": (GOOD.add("general.name", STRING, "Other").build(), "'general.name' twice"),
    "duplicate tensor": (GOOD.with_tensors(Tensor("t"), Tensor("u"), Tensor("t")).build(), "two of this name"),
    "overlapping tensors": (GOOD.with_tensors(Tensor("t"), Tensor("u", offset=96)).build(), "overlaps 't'"),
    "tensors in one place": (GOOD.with_tensors(Tensor("t"), Tensor("u", offset=0)).build(), "overlaps"),
    "key that is not UTF-8": (GOOD.add(b"\xff\xfe", U8, 1).build(), "not UTF-8"),
    "key with control characters": (GOOD.add("a\x1b[2J", U8, 1).build(), "cannot be printed"),
    "empty key": (GOOD.add("", U8, 1).build(), "0 bytes"),
    "tensor name with an end inside": (GOOD.with_tensors(Tensor("t\0u")).build(), "cannot be printed"),
    "tensor name of 64 bytes": (GOOD.with_tensors(Tensor("t" * 64)).build(), "64 bytes; 1 to 63"),
    "tensor name that is not UTF-8": (GOOD.with_tensors(Tensor(b"\xc3")).build(), "not UTF-8"),
    "five dimensions": (GOOD.with_tensors(Tensor("t", (32, 1, 1, 1, 1))).build(), "5 dimensions"),
    "unknown tensor type": (GOOD.with_tensors(Tensor("t", kind=43)).build(), "unknown type 43"),
    "unknown tensor type, negative": (
        GOOD.with_tensors(Tensor("t", kind=2**32 - 1)).build(),
        "unknown type 4294967295",
    ),
    "removed tensor type": (GOOD.with_tensors(Tensor("t", kind=31)).build(), "Q4_0_4_4, which engines no longer read"),
    "row that is no whole number of blocks": (GOOD.with_tensors(Tensor("t", (100,), 12)).build(), "block of Q4_K"),
    "alignment 0": (GOOD.add("general.alignment", U32, 0).build(), "alignment is 0"),
    "alignment 24": (GOOD.add("general.alignment", U32, 24).build(), "alignment is 24"),
    "alignment 2^31": (GOOD.add("general.alignment", U32, 2**31).build(), "alignment is 2147483648"),
    "alignment as text": (GOOD.add("general.alignment", STRING, "32").build(), "alignment is str"),
    "unaligned offset": (GOOD.with_tensors(Tensor("t", offset=8)).build(), "not a multiple of 32"),
    # CVE-2024-12886, CVE-2025-0315, CVE-2025-0317 and others: divisions by zero, allocations without a bound.
    "no architecture": (GOOD.without("general.architecture").build(), "general.architecture"),
    "architecture of another type": (GOOD.set("general.architecture", U32, 1).build(), "general.architecture"),
    "imatrix": (Gguf(keys=[("general.type", (STRING, "imatrix"))]).build(), "its type is 'imatrix'"),
    "no layers": (GOOD.set("llama.block_count", U32, 0).build(), "block_count is 0"),
    "a million layers": (GOOD.set("llama.block_count", U32, 1_000_001).build(), "block_count is 1000001"),
    "layers as text": (GOOD.set("llama.block_count", STRING, "2").build(), "not a whole number"),
    "no heads": (GOOD.set("llama.attention.head_count", U32, 0).build(), "no attention heads"),
    "no heads in any layer": (GOOD.set("llama.attention.head_count", ARRAY, Arr(I32, [0, 0])).build(), "no attention"),
    "heads for other layers": (GOOD.set("llama.attention.head_count_kv", ARRAY, Arr(I32, [2])).build(), "for 2 layers"),
    "negative heads": (GOOD.set("llama.attention.head_count_kv", I32, -1).build(), "head_count_kv is -1"),
    "uneven KV heads": (GOOD.set("llama.attention.head_count_kv", U32, 3).build(), "cannot share 3 KV heads"),
    "uneven embedding": (GOOD.set("llama.attention.head_count", U32, 6).build(), "cannot be divided among 6"),
    "key length 0": (GOOD.add("llama.attention.key_length", U32, 0).build(), "key_length is 0"),
    "no context": (GOOD.set("llama.context_length", U32, 0).build(), "context_length is 0"),
    "endless context": (GOOD.set("llama.context_length", U64, 2**40).build(), "context_length is 1099511627776"),
    "more experts used than there are": (
        GOOD.add("llama.expert_count", U32, 4).add("llama.expert_used_count", U32, 5).build(),
        "uses 5 of 4 experts",
    ),
    "no experts used": (
        GOOD.add("llama.expert_count", U32, 4).add("llama.expert_used_count", U32, 0).build(),
        "uses 0 of 4 experts",
    ),
    "experts of which none is used": (GOOD.add("llama.expert_count", U32, 4).build(), "uses 0 of 4 experts"),
    "used experts that are not there": (GOOD.add("llama.expert_used_count", U32, 1).build(), "uses 1 of 0 experts"),
    "groups of no experts": (GOOD.add("llama.expert_group_count", U32, 1).build(), "0 experts cannot be in 1 groups"),
    "no groups used": (
        GOOD.add("llama.expert_count", U32, 4)
        .add("llama.expert_used_count", U32, 2)
        .add("llama.expert_group_count", U32, 2)
        .build(),
        "uses 0 of 2 groups",
    ),
    "expert groups": (
        GOOD.add("llama.expert_count", U32, 4)
        .add("llama.expert_used_count", U32, 2)
        .add("llama.expert_group_count", U32, 3)
        .build(),
        "cannot be in 3 groups",
    ),
    "state size 0": (GOOD.add("llama.wkv.head_size", U32, 0).build(), "head_size is 0"),
    "attention interval 0": (GOOD.add("llama.full_attention_interval", U32, 0).build(), "interval is 0"),
    "huge vocabulary size": (GOOD.add("llama.vocab_size", U32, 2**31).build(), "vocab_size is 2147483648"),
    # Tables of the tokenizer that are shorter than the vocabulary, or of another type, are read past their end.
    "short scores": (GOOD.set("tokenizer.ggml.scores", ARRAY, Arr(F32, [0.0] * 259)).build(), "259 elements for a"),
    "scores of one byte": (GOOD.set("tokenizer.ggml.scores", ARRAY, Arr(I8, [0] * 260)).build(), "array of f32 / i32"),
    "short types": (GOOD.set("tokenizer.ggml.token_type", ARRAY, Arr(I32, [1])).build(), "1 elements for a vocab"),
    "types of one byte": (GOOD.set("tokenizer.ggml.token_type", ARRAY, Arr(U8, [1] * 260)).build(), "array of i32"),
    "types as text": (GOOD.set("tokenizer.ggml.token_type", STRING, "1").build(), "array of i32"),
    "types without tokens": (GOOD.without(TOKENS).build(), "for a vocabulary of 0"),
    "tokens as numbers": (GOOD.set(TOKENS, ARRAY, Arr(I32, [0] * 260)).build(), "not an array of str"),
    "merges as numbers": (GOOD.add("tokenizer.ggml.merges", ARRAY, Arr(I32, [0])).build(), "not an array of str"),
    "empty vocabulary": (GOOD.set(TOKENS, ARRAY, strings([])).build(), "vocabulary is empty"),
    # CVE-2025-49847 and others: ids used as an index.
    "special token outside": (GOOD.set("tokenizer.ggml.bos_token_id", U32, 260).build(), "outside a vocabulary of 260"),
    "negative special token": (GOOD.set("tokenizer.ggml.eos_token_id", I32, -2).build(), "eos_token_id is -2"),
    "special token as text": (GOOD.set("tokenizer.ggml.eos_token_id", STRING, "2").build(), "not a whole number"),
    "default special token outside": (
        llama(2).without("tokenizer.ggml.eos_token_id").build(),
        "eos_token_id is 2, outside a vocabulary of 2",
    ),
    # The PLaMo-2 tokenizer wrote to the index that the digits of a byte token gave.
    "byte token <0x-1>": (with_token(10, "<0x-1>").build(), "'<0x-1>', should stand for a byte"),
    "byte token too long": (with_token(10, "<0x0FF>").build(), "should stand for a byte"),
    "byte token empty": (with_token(258, "").build(), "token 258, '', should stand for a byte"),
    "byte token that is not a number": (with_token(3, "<0xGG>").build(), "should stand for a byte"),
    "too many byte tokens": (
        GOOD.set(
            TOKENS, ARRAY, strings([*(f"<0x{n:02X}>" for n in range(256)), *(f"<0x{n:02x}>" for n in range(252, 256))])
        )
        .set("tokenizer.ggml.token_type", ARRAY, Arr(I32, [6] * 260))
        .build(),
        "more than 256 tokens",
    ),
    # Engines look tokens up by their text and stop the whole program where two are alike.
    "token twice": (with_token(10, "<0x08>").build(), "has the token '<0x08>' twice"),
    "negative epsilon": (GOOD.set("llama.attention.layer_norm_rms_epsilon", F32, -1e-5).build(), "epsilon is '-9.99"),
    "epsilon that is not a number": (
        GOOD.set("llama.attention.layer_norm_rms_epsilon", F32, float("nan")).build(),
        "epsilon is 'nan'",
    ),
    "byte tokens of a WordPiece tokenizer": (GOOD.set("tokenizer.ggml.model", STRING, "bert").build(), "WordPiece"),
    "normalization table too short": (with_charsmap(b"\1\0\0\0").build(), "normalization table"),
    "normalization table that claims more": (with_charsmap(struct.pack("<I", 64) + bytes(64)).build(), "normalization"),
    "normalization table without an end": (with_charsmap(struct.pack("<I", 4) + b"\0\0\0\0x").build(), "normalization"),
    "huge chat template": (GOOD.set("tokenizer.chat_template", STRING, "{" * (2**20 + 1)).build(), "chat template has"),
    "version 0": (Gguf(version=0).build(), "version is 0"),
    "version 1": (Gguf(version=1).build(), "version 1"),
    "version 4": (Gguf(version=4).build(), "version is 4"),
    "only the magic": (b"GGUF", "truncated"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused(
    name: str, read: Callable[[bytes], GgufFile], bounded: Callable[..., AbstractContextManager[None]]
) -> None:
    data, reason = HOSTILE[name]
    with bounded(), pytest.raises(ModelFileError, match=reason) as caught:
        read(data)
    assert caught.value.message.startswith("x.gguf cannot be used: ")
    assert caught.value.message.isprintable()
    assert caught.value.hint


def test_the_file_that_all_these_differ_from_is_good(read: Callable[[bytes], GgufFile]) -> None:
    assert read(GOOD.build()).architecture == "llama"
    assert read(with_token(10, "<0x07>").build())
    assert read(with_charsmap(struct.pack("<I", 4) + b"\0\0\0\0x\0").build())


def test_keys_that_fill_memory(
    read: Callable[[bytes], GgufFile], bounded: Callable[..., AbstractContextManager[None]]
) -> None:
    keys = [*GOOD.keys, *((f"{index}".ljust(60_000, "k"), (BOOL, True)) for index in range(100))]
    with bounded(), pytest.raises(ModelFileError, match="take more than 4 MiB"):
        read(Gguf(keys=keys).build())


def test_as_much_as_is_allowed_of_everything(
    read: Callable[[bytes], GgufFile], bounded: Callable[..., AbstractContextManager[None]]
) -> None:
    """The most expensive file that passes."""
    wide = "😀" + "a" * 100_000
    keys = [*GOOD.keys]
    keys += [(f"text.{index}", (STRING, wide)) for index in range(20)]
    keys += [(f"array.{index}", (ARRAY, Arr(U64, [2**63] * 4096))) for index in range(20)]
    keys += [(f"key.{index:03}".ljust(100, "k"), (U64, 2**63)) for index in range(8192 - len(keys))]
    tensors = [Tensor(f"{index:06}".ljust(40, "t"), (1, 1, 1, 1)) for index in range(32768)]
    data = Gguf(keys=keys, tensors=tensors).build()
    with bounded():
        gguf = read(data)
    assert len(gguf.tensors) == 32768
    assert len(gguf.metadata) == 8192
